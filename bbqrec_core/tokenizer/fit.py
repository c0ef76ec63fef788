"""Train the tokenizer on a dataset and compute the semantic ID of every item."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.optim import AdamW

from ..config import TokenizerConfig
from ..dataset import Dataset, window_batches
from ..training import Report, Task, best_device, fit
from .model import Parts, Tokenizer
from .semantic_ids import SemanticIds, health, move_to_free

TokenizerMaker = Callable[[dict[str, Tensor], dict[str, Tensor], Tensor, TokenizerConfig], Tokenizer]
INIT_SAMPLE = 16_384  # items for the initialisation of the codebook: 64 points for each of 256 codes


class Tokenized(NamedTuple):
    """The result of stage 1; `encode_items` leaves `log` and `health` empty, `finish` fills them."""

    ids: SemanticIds
    log: list[dict[str, object]]  # one dict per epoch: losses, code usage
    health: dict[str, dict[str, object]]  # figures before and after the repair
    behaviour: Float[np.ndarray, "N S E"]  # before quantization, as `specific`; both are empty for random IDs
    specific: Float[np.ndarray, "N M W"]
    residual: Float[np.ndarray, "N E"]  # input of the last position, which repairs use


def build_model(data: Dataset, config: TokenizerConfig, make: TokenizerMaker = Tokenizer) -> Tokenizer:
    """The stage-1 model for the scaled features of a dataset. Raises: ValueError for a modality that the data lack."""
    names = config.signals or tuple(data.features)
    if lacking := [name for name in names if name not in data.features]:
        there = ", ".join(data.features) or "none"
        raise ValueError(f"signals name {lacking[0]!r}, the modalities of the data are: {there}; name some of these")
    return make(
        {name: torch.from_numpy(data.features[name]) for name in names},
        {name: torch.from_numpy(data.presence[name]) for name in names},
        torch.from_numpy(data.train_counts()),
        config,
    )


@torch.no_grad()
def all_parts(model: Tokenizer, items: Int[Tensor, "R"]) -> tuple[Parts, Float[Tensor, "R U E"], Tensor]:
    """Parts, units and presence of many item rows; the encoders run in blocks."""
    blocks = zip(*(model.parts(rows) for rows in items.split(8192)), strict=True)
    parts = Parts(*map(torch.cat, blocks))
    return parts, *model.units(parts.signals, parts.present)


def initialise(model: Tokenizer, rows: Int[np.ndarray, "warm"], seed: int) -> None:
    """Initialise the codebook by k-means over the units of a random sample of item rows."""
    generator = Generator().manual_seed(seed)
    _, units, present = all_parts(model, torch.from_numpy(rows))
    drawn = torch.randperm(len(rows), generator=generator)[:INIT_SAMPLE]
    model.quantizer.initialise(units[drawn], generator, present[drawn])


def train(
    data: Dataset, model: Tokenizer, config: TokenizerConfig, seed: int, directory: Path, progress: Report = None
) -> list[dict]:
    """Train stage 1; return one dict per epoch with losses, used codes and perplexity per level."""
    sequences, warm = data.train(), data.warm_rows()
    inner = [value for name, value in model.named_parameters() if name.startswith("variational.")]
    outer = [value for name, value in model.named_parameters() if not name.startswith("variational.")]
    optimizers = [AdamW(group, lr=config.lr, weight_decay=0.0, fused=True) for group in (outer, inner) if group]

    def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((seed, epoch, 1))
        grids = window_batches(sequences, config.max_events, config.batch_users, (seed, epoch, 0), config.epoch_steps)
        size = min(config.batch_items, len(warm))
        return [(grid, torch.from_numpy(warm[rng.choice(len(warm), size, replace=False)])) for grid in grids]

    def fit_variational(parts: Parts) -> None:
        for _ in range(config.mi_steps):
            optimizers[1].zero_grad(set_to_none=True)
            model.variational_loss(parts).backward()
            optimizers[1].step()

    def watch() -> dict[str, object]:
        ids = encode_items(model).ids
        figures = health(ids.code_ids, ids.sizes)
        return {name: figures[name] for name in ("used", "perplexity", "collision_rate")}

    def loss(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return model.losses(*batch, fit_variational=fit_variational)

    task = Task("tokenizer", model, optimizers, batches, loss, watch=watch)
    return fit(task, seed, config.epochs, directory, progress=progress).epochs


@torch.no_grad()
def encode_items(model: Tokenizer) -> Tokenized:
    """Encode every item row, without a repair."""
    model.eval()
    parts, units, present = all_parts(model, torch.arange(len(model.counts), device=model.counts.device))
    quantized, table, codebook = model.encode(units, present)
    count, vectors = len(model.signals), model.quantizer.decode(quantized.codes)
    signals = quantized.codes[:, :count], vectors[:, :count], parts.present
    rest = parts.signals, parts.specific, quantized.residuals[-1][:, -1]
    arrays = [tensor.detach().cpu().numpy() for tensor in (table, codebook, *signals, *rest)]
    table, codebook, *signals = arrays[:5]
    sizes, learned = (model.config.codes,) * table.shape[1], table.shape[1]
    ids = SemanticIds(table, sizes, learned, model.signals, *signals, codebook, table)
    return Tokenized(ids, [], {}, *arrays[5:])


def finish(encoded: Tokenized, config: TokenizerConfig, log: list[dict]) -> Tokenized:
    """Repair the IDs as configured, and measure their health before and after."""
    ids = encoded.ids
    before = health(ids.code_ids, ids.sizes)
    if config.uniqueness == "nearest":
        vectors = ids.codebook[-1][: ids.sizes[-1]]  # without padding, if other positions have more codes
        ids = replace(ids, code_ids=move_to_free(ids.code_ids, encoded.residual, vectors))
    return encoded._replace(ids=ids, log=log, health={"before": before, "after": health(ids.code_ids, ids.sizes)})


def fit_tokenizer(
    data: Dataset,
    config: TokenizerConfig,
    seed: int,
    directory: Path,
    make: TokenizerMaker = Tokenizer,
    progress: Report = None,
) -> Tokenized:
    """Train stage 1 on training events, on a GPU if there is one, and encode every item; resumes from `directory`.

    Args: make: builds the model, with the arguments of `Tokenizer`.
    Raises: ValueError for a modality that the data lack, FloatingPointError on a non-finite loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(data, config, make)
        initialise(model, data.warm_rows(), seed)
    model.to(best_device())
    log = train(data, model, config, seed, directory, progress)
    return finish(encode_items(model), config, log)
