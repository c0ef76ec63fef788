"""Stage 1, the work: train the tokenizer on a dataset and write down the semantic ID of every item."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.optim import AdamW

from .alignment import Parts, Tokenizer
from .artifacts import load_arrays, save_arrays, write_atomic
from .batching import window_batches
from .config import TokenizerConfig
from .data import Dataset
from .semantic_ids import SemanticIds, append_extra, health, move_to_free
from .training import Task, fit

INIT_SAMPLE = 16_384  # items whose signals initialise the codebook: enough for 256 codes with 64 points each


class Tokenized(NamedTuple):
    """A finished stage 1.

    ids: the semantic IDs. history: one dict an epoch (losses, code usage). health: figures before and after the repair.
    behaviour (N+1, S, E), specific (N+1, M, E/2): the signals before quantization, empty for random IDs.
    """

    ids: SemanticIds
    history: list[dict[str, object]]
    health: dict[str, dict[str, object]]
    behaviour: Float[np.ndarray, "N S E"]
    specific: Float[np.ndarray, "N M half"]


def resolve(config: TokenizerConfig, data: Dataset) -> TokenizerConfig:
    """Name the modalities that will enter: all of the data's when none is named; a missing one gives way to the first.

    Choice: a text-only tokenizer on data without text uses the first modality there is, so that every row of a table
    exists on every dataset; the chosen names are part of the run's configuration.
    """
    if not config.signals:
        return replace(config, signals=tuple(data.features))
    found = [name for name in config.signals if name in data.features] or list(data.features)[:1]
    return replace(config, signals=tuple(found), id_signal=config.id_signal or not found)


def build_model(data: Dataset, config: TokenizerConfig) -> Tokenizer:
    """The stage-1 model over a dataset's scaled features; `config` must be resolved."""
    features = {name: torch.from_numpy(data.features[name]) for name in config.signals}
    presence = {name: torch.from_numpy(data.presence[name]) for name in config.signals}
    return Tokenizer(features, presence, torch.from_numpy(data.train_counts()), config)


@torch.no_grad()
def all_parts(model: Tokenizer) -> tuple[Parts, Float[Tensor, "N U E"], Tensor]:
    """Parts, units and presence of units of every item row, the padding row included, computed in blocks."""
    blocks = []
    for rows in torch.arange(len(model.counts)).split(8192):
        parts = model.parts(rows)
        blocks.append((parts, *model.units(parts.signals, parts.present)))
    joined = Parts(*(torch.cat(field) for field in zip(*(block[0] for block in blocks), strict=True)))
    return joined, torch.cat([block[1] for block in blocks]), torch.cat([block[2] for block in blocks])


def initialise(model: Tokenizer, seed: int) -> None:
    """Set the codebook by k-means over the units of items drawn at random."""
    generator = Generator().manual_seed(seed)
    _, units, present = all_parts(model)
    points = units[1:][present[1:]]
    model.quantizer.initialise(points[torch.randperm(len(points), generator=generator)[:INIT_SAMPLE]], generator)


def train(data: Dataset, model: Tokenizer, config: TokenizerConfig, seed: int, directory: Path) -> list[dict]:
    """Train stage 1 with the shared loop; one dict an epoch with losses, used codes and perplexity per level."""
    sequences = data.train()
    inner = [value for name, value in model.named_parameters() if name.startswith("variational.")]
    outer = [value for name, value in model.named_parameters() if not name.startswith("variational.")]
    optimizers = [AdamW(outer, lr=config.lr, weight_decay=0.0)]
    if inner:
        optimizers.append(AdamW(inner, lr=config.lr, weight_decay=0.0))

    def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((seed, epoch, 1))
        grids = window_batches(sequences, config.history, config.batch_users, (seed, epoch, 0))
        size = min(config.batch_items, data.n_items)
        return [(grid, torch.from_numpy(rng.choice(data.n_items, size, replace=False) + 1)) for grid in grids]

    def inner_steps(batch: tuple[Tensor, Tensor]) -> None:
        for _ in range(config.mi_steps if inner and config.w_mi else 0):
            optimizers[1].zero_grad(set_to_none=True)
            model.variational_loss(batch[1]).backward()
            optimizers[1].step()

    def watch() -> dict[str, object]:
        codes = item_codes(model)[0]
        figures = health(codes, (config.codes,) * codes.shape[1])
        return {name: figures[name] for name in ("used", "perplexity", "collision_rate")}

    task = Task("tokenizer", model, optimizers, batches, lambda batch: model.losses(*batch), inner_steps, watch=watch)
    return fit(task, seed=seed, epochs=config.epochs, directory=directory).epochs


@torch.no_grad()
def item_codes(model: Tokenizer) -> tuple[np.ndarray, np.ndarray, Parts, Tensor]:
    """ID table (N+1, learned) before repair, codes of all signals (N+1, S, L), parts, and last-level residuals (N+1, E).

    `fused` takes the codes of the fused unit. `concat` joins the signals' codes in the order of `model.signals`; an
    absent signal takes the codes of the mean of the present ones, so that every item has an ID of full length.
    """
    model.eval()
    parts, units, present = all_parts(model)
    count = len(model.signals)
    if model.config.combine == "concat":
        mean = (units * present[..., None]).sum(1, keepdim=True) / present.sum(1).clamp_min(1)[:, None, None]
        units = torch.where(present[..., None], units, mean)
    codes = model.quantizer.encode(units)  # (N+1, U, L)
    table = codes.flatten(1) if model.config.combine == "concat" else codes[:, -1]
    residual = units[:, -1] - model.quantizer.decode(codes[:, -1]) + model.quantizer.codebook[-1][codes[:, -1, -1]]
    return table.numpy(), codes[:, :count].numpy(), parts, residual


def repaired(
    table: np.ndarray, config: TokenizerConfig, residual: np.ndarray, last_level: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The ID table after the configured uniqueness repair, and the number of codes possible at each position."""
    sizes = (config.codes,) * table.shape[1]
    if config.uniqueness == "nearest":
        return move_to_free(table, residual, last_level), sizes
    if config.uniqueness == "extra":
        table, largest = append_extra(table)
        return table, (*sizes, largest)
    return table, sizes


def random_ids(data: Dataset, config: TokenizerConfig, seed: int) -> Tokenized:
    """Control: uniformly random codes of the same shape, without signals, repaired like all others."""
    rng = np.random.default_rng((seed, 2))
    table = rng.integers(0, config.codes, (data.n_items + 1, config.levels))
    empty = np.zeros((len(table), 0, 0), dtype=np.float32)
    codebook = np.zeros((config.levels, config.codes, 1), dtype=np.float32)
    safe = replace(config, uniqueness="none" if config.uniqueness == "none" else "extra")
    return _finish(table, safe, empty, np.zeros((len(table), 1)), codebook, (), empty, empty, [])


def _finish(
    table: np.ndarray,
    config: TokenizerConfig,
    signal_codes: np.ndarray,
    residual: np.ndarray,
    codebook: np.ndarray,
    signals: tuple[str, ...],
    behaviour: np.ndarray,
    specific: np.ndarray,
    history: list[dict],
) -> Tokenized:
    """Repair, measure and pack."""
    code_ids, sizes = repaired(table, config, residual, codebook[-1])
    levels = np.arange(signal_codes.shape[-1])
    vectors = codebook[levels, signal_codes].sum(-2) if signals else np.zeros((len(table), 0, 1), dtype=np.float32)
    figures = {"before": health(table, (config.codes,) * table.shape[1]), "after": health(code_ids, sizes)}
    present = np.zeros(vectors.shape[:2], dtype=bool)
    ids = SemanticIds(code_ids, sizes, table.shape[1], signals, signal_codes, vectors, present, codebook, table)
    return Tokenized(ids, history, figures, behaviour, specific)


def fit_tokenizer(data: Dataset, config: TokenizerConfig, seed: int, directory: Path) -> Tokenized:
    """Train stage 1 on training events only and encode every item; resumes from checkpoints in `directory`.

    Raises: ValueError if the data leave the tokenizer without any signal. FloatingPointError on a non-finite loss.
    """
    config = resolve(config, data)
    if config.source == "random":
        return random_ids(data, config, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(data, config)
        initialise(model, seed)
    history = train(data, model, config, seed, directory)
    table, signal_codes, parts, residual = item_codes(model)
    done = _finish(
        table,
        config,
        signal_codes,
        residual.numpy(),
        model.quantizer.codebook.detach().numpy(),
        model.signals,
        parts.signals.numpy(),
        parts.specific.numpy(),
        history,
    )
    return done._replace(ids=replace(done.ids, present=parts.present.numpy()))


def save_tokenized(done: Tokenized, config: TokenizerConfig, directory: Path) -> None:
    """Write IDs, signals, history and health figures into `directory`."""
    done.ids.save(directory / "ids.npz")
    save_arrays(directory / "signals.npz", behaviour=done.behaviour, specific=done.specific)
    notes = {"config": asdict(config), "history": done.history, "health": done.health}
    write_atomic(directory / "tokenizer.json", json.dumps(notes, indent=1))


def load_tokenized(directory: Path) -> Tokenized:
    """Read what `save_tokenized` wrote."""
    notes = json.loads((directory / "tokenizer.json").read_text())
    arrays = load_arrays(directory / "signals.npz")
    ids = SemanticIds.load(directory / "ids.npz")
    return Tokenized(ids, notes["history"], notes["health"], arrays["behaviour"], arrays["specific"])
