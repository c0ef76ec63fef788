"""IDs before their repair, and the control tokenizers that learn nothing: random, RQ-k-means, published codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Generator

from .config import TokenizerConfig
from .data import Dataset
from .exchange import read_ids
from .quantizer import ResidualQuantizer


class Draft(NamedTuple):
    """IDs before the repair and what they came from, row 0 padding throughout.

    table: (N+1, learned). sizes: codes possible at each of its positions.
    codebook: (learned, K, E), the vectors of each position's codes; zero where codes have none.
    residual: what the last position was asked to quantize, (N+1, E).
    signals: names; signal_codes (N+1, S, L), vectors (N+1, S, E) quantized, present (N+1, S).
    behaviour: (N+1, S, E), specific: (N+1, M, W), both before quantization.
    """

    table: np.ndarray
    sizes: tuple[int, ...]
    codebook: np.ndarray
    residual: np.ndarray
    signals: tuple[str, ...]
    signal_codes: np.ndarray
    vectors: np.ndarray
    present: np.ndarray
    behaviour: np.ndarray
    specific: np.ndarray


def joined_features(data: Dataset, names: Sequence[str]) -> tuple[Float[np.ndarray, "N d"], Bool[np.ndarray, "N"]]:
    """Scaled features of several modalities side by side, 0 (the mean) where one is missing, and who has any."""
    present = np.stack([data.presence[name] for name in names], 1)
    parts = [data.features[name] * present[:, [index]] for index, name in enumerate(names)]
    return np.concatenate(parts, 1), present.any(1)


def codes_alone(table: np.ndarray, sizes: tuple[int, ...], config: TokenizerConfig) -> Draft:
    """A draft of codes that no signal or vector stands behind."""
    none = np.zeros((len(table), 0, config.levels), dtype=np.int64)
    vectors = np.zeros((len(table), 0, config.code_width), dtype=np.float32)
    codebook = np.zeros((len(sizes), max(sizes), config.code_width), dtype=np.float32)
    residual = np.zeros((len(table), config.code_width), dtype=np.float32)
    return Draft(table, sizes, codebook, residual, (), none, vectors, none[..., 0] > 0, vectors, vectors)


def random_draft(data: Dataset, config: TokenizerConfig, seed: int) -> Draft:
    """Control: uniformly random codes of the same shape, without signals; `config` must be resolved."""
    length = config.levels * (len(config.signals) + config.id_signal if config.combine != "fused" else 1)
    table = np.random.default_rng((seed, 2)).integers(0, config.codes, (data.n_items + 1, length))
    return codes_alone(table, (config.codes,) * length, config)


def kmeans_draft(
    name: str,
    vectors: Float[np.ndarray, "N d"],
    present: Bool[np.ndarray, "N"],
    rows: Int[np.ndarray, "warm"],
    config: TokenizerConfig,
    seed: int,
) -> Draft:
    """Control: residual k-means (RQ-k-means) of given vectors, one signal, nothing learned beside the centres.

    Args: name: of the signal. rows: items that training may look at; centres are theirs, codes everybody's.
    """
    generator = Generator().manual_seed(seed)
    quantizer = ResidualQuantizer(config.levels, config.codes, vectors.shape[1])
    points, there = torch.from_numpy(vectors), torch.from_numpy(present)
    quantizer.initialise(points[rows][there[rows]], generator)
    with torch.no_grad():
        seen = quantizer(points)
        decoded = quantizer.decode(seen.codes)
    return Draft(
        seen.codes.numpy(),
        (config.codes,) * config.levels,
        quantizer.codebook.detach().numpy(),
        seen.residuals[-1].detach().numpy(),
        (name,),
        seen.codes[:, None].numpy(),
        decoded[:, None].numpy(),
        present[:, None],
        vectors[:, None],
        np.zeros((len(vectors), 0, config.specific_width), dtype=np.float32),
    )


def leading_axes(
    vectors: Float[np.ndarray, "N d"], rows: Int[np.ndarray, "warm"], width: int
) -> Float32[np.ndarray, "N width"]:
    """Vectors at unit length on their leading principal axes, at most `width`, found on some rows alone.

    K-means of raw wide features spends its codes on a few outliers and leaves most items in one cluster.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    _, axes = np.linalg.eigh(np.cov(unit[rows], rowvar=False))  # ascending
    return ((unit - unit[rows].mean(0)) @ axes[:, ::-1][:, :width]).astype(np.float32)


def control_draft(data: Dataset, config: TokenizerConfig, seed: int, collaborative: np.ndarray | None) -> Draft:
    """The codes of a tokenizer that learns nothing; `config` must be resolved."""
    if config.source == "file":
        table = read_ids(Path(config.ids_file), data)
        return codes_alone(table, tuple(int(size) for size in table.max(0) + 1), config)
    if config.source == "published":
        table = data.codes[next((name for name in config.signals if name in data.codes), next(iter(data.codes)))]
        return codes_alone(table.astype(np.int64), tuple(int(size) for size in table.max(0) + 1), config)
    if config.source == "sasrec":
        return kmeans_draft("sasrec", collaborative, data.train_counts() > 0, data.warm_rows(), config, seed)
    if config.source == "kmeans":
        vectors, present = joined_features(data, config.signals)
        rows = data.warm_rows()
        vectors = leading_axes(vectors, rows[present[rows]], config.code_width)
        return kmeans_draft("+".join(config.signals), vectors, present, rows, config, seed)
    return random_draft(data, config, seed)
