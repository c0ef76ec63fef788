"""IDs that stage 1 does not learn: random, RQ-k-means, published or imported codes."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Generator

from bbqrec_core import ResidualQuantizer, SemanticIds, Tokenized, TokenizerConfig
from bbqrec_lab.datasets.features import joined_features
from bbqrec_lab.datasets.id_files import read_ids
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.settings import IdsConfig, VariantTokenizerConfig


def codes_alone(table: np.ndarray, sizes: tuple[int, ...], config: TokenizerConfig) -> Tokenized:
    """IDs before a repair that have only codes, without signals and vectors."""
    none = np.zeros((len(table), 0, config.levels), dtype=np.int64)
    vectors = np.zeros((len(table), 0, config.code_width), dtype=np.float32)
    codebook = np.zeros((len(sizes), max(sizes), config.code_width), dtype=np.float32)
    residual = np.zeros((len(table), config.code_width), dtype=np.float32)
    ids = SemanticIds(table, sizes, len(sizes), (), none, vectors, none[..., 0] > 0, codebook, table)
    return Tokenized(ids, [], {}, vectors, vectors, residual)


def random_codes(data: NamedDataset, config: VariantTokenizerConfig, seed: int) -> Tokenized:
    """Control: uniformly random codes of the same shape, without signals; `config` must be resolved."""
    length = config.levels * (len(config.signals) + config.id_signal if config.combine != "fused" else 1)
    table = np.random.default_rng((seed, 2)).integers(0, config.codes, (data.n_items + 1, length))
    return codes_alone(table, (config.codes,) * length, config)


def kmeans_codes(
    name: str,
    vectors: Float[np.ndarray, "N d"],
    present: Bool[np.ndarray, "N"],
    rows: Int[np.ndarray, "warm"],
    config: TokenizerConfig,
    seed: int,
) -> Tokenized:
    """Control: residual k-means (RQ-k-means) of given vectors as one signal; only the centres are learned.

    Args: name: of the signal. rows: items that training may see; they determine the centres, and all items get codes.
    """
    generator = Generator().manual_seed(seed)
    quantizer = ResidualQuantizer(config.levels, config.codes, vectors.shape[1])
    points, there = torch.from_numpy(vectors), torch.from_numpy(present)
    quantizer.initialise(points[rows][there[rows]], generator)
    with torch.no_grad():
        seen = quantizer(points)
        decoded = quantizer.decode(seen.codes)
    table, levels = seen.codes.numpy(), config.levels
    signal = (table[:, None], decoded[:, None].numpy(), present[:, None])
    ids = SemanticIds(table, (config.codes,) * levels, levels, (name,), *signal, quantizer.codebook.numpy(), table)
    specific = np.zeros((len(vectors), 0, config.specific_width), dtype=np.float32)
    return Tokenized(ids, [], {}, vectors[:, None], specific, seen.residuals[-1].numpy())


def leading_axes(
    vectors: Float[np.ndarray, "N d"], rows: Int[np.ndarray, "warm"], width: int
) -> Float32[np.ndarray, "N width"]:
    """Vectors at unit length on at most `width` leading principal axes, which are fitted on `rows` only.

    K-means of raw wide features spends its codes on a few outliers and puts most items into one cluster.
    Choice: a single number per item keeps its size, because only its sign is left at unit length.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True) if vectors.shape[1] > 1 else np.ones((1, 1))
    unit = vectors / np.maximum(length, 1e-12)
    covariance = np.atleast_2d(np.cov(unit[rows], rowvar=False, ddof=min(1, len(rows) - 1)))  # one row has none
    _, axes = np.linalg.eigh(covariance)  # ascending eigenvalues
    return ((unit - unit[rows].mean(0)) @ axes[:, ::-1][:, :width]).astype(np.float32)


def control_codes(
    data: NamedDataset, ids: IdsConfig, config: VariantTokenizerConfig, seed: int, collaborative: np.ndarray | None
) -> Tokenized:
    """The codes of a control tokenizer; `ids` and `config` must be resolved."""
    if ids.source == "file":
        table = read_ids(Path(ids.ids_file), data)
        return codes_alone(table, tuple(int(size) for size in table.max(0) + 1), config)
    if ids.source == "published":
        table = data.codes[next((name for name in config.signals if name in data.codes), next(iter(data.codes)))]
        return codes_alone(table.astype(np.int64), tuple(int(size) for size in table.max(0) + 1), config)
    if ids.source == "sasrec":
        return kmeans_codes("sasrec", collaborative, data.train_counts() > 0, data.warm_rows(), config, seed)
    if ids.source == "kmeans":
        vectors, present = joined_features(data, config.signals)
        rows = data.warm_rows()
        vectors = leading_axes(vectors, rows[present[rows]], config.code_width)
        return kmeans_codes("+".join(config.signals), vectors, present, rows, config, seed)
    return random_codes(data, config, seed)
