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
    behaviour (N+1, S, E), specific (N+1, M, W): the signals before quantization, empty for random IDs.
    """

    ids: SemanticIds
    history: list[dict[str, object]]
    health: dict[str, dict[str, object]]
    behaviour: Float[np.ndarray, "N S E"]
    specific: Float[np.ndarray, "N M W"]


class Draft(NamedTuple):
    """IDs before the repair and what they came from, row 0 padding throughout.

    table: (N+1, learned). residual: what the last level was asked to quantize, (N+1, E). codebook: (L, K, E).
    signals: names; signal_codes (N+1, S, L), present (N+1, S), behaviour (N+1, S, E), specific (N+1, M, W).
    """

    table: np.ndarray
    residual: np.ndarray
    codebook: np.ndarray
    signals: tuple[str, ...]
    signal_codes: np.ndarray
    present: np.ndarray
    behaviour: np.ndarray
    specific: np.ndarray


def resolve(config: TokenizerConfig, data: Dataset) -> TokenizerConfig:
    """Name the modalities that will enter: all of the data's when none is named; a missing one gives way to the first.

    Choice: a text-only tokenizer on data without text uses the first modality there is, and the ID signal where there
    is none, so that every row of a table exists on every dataset; what was chosen is part of the run's configuration.
    """
    wanted = config.signals or tuple(data.features)
    found = [name for name in wanted if name in data.features] or list(data.features)[:1]
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
    optimizers = [AdamW(group, lr=config.lr, weight_decay=0.0, fused=True) for group in (outer, inner) if group]

    def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
        rng = np.random.default_rng((seed, epoch, 1))
        grids = window_batches(sequences, config.history, config.batch_users, (seed, epoch, 0), config.epoch_steps)
        size = min(config.batch_items, data.n_items)
        return [(grid, torch.from_numpy(rng.choice(data.n_items, size, replace=False) + 1)) for grid in grids]

    def fit_variational(parts: Parts) -> None:
        for _ in range(config.mi_steps):
            optimizers[1].zero_grad(set_to_none=True)
            model.variational_loss(parts).backward()
            optimizers[1].step()

    def watch() -> dict[str, object]:
        table = encode_items(model).table
        figures = health(table, (config.codes,) * table.shape[1])
        return {name: figures[name] for name in ("used", "perplexity", "collision_rate")}

    def loss(batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return model.losses(*batch, fit_variational=fit_variational)

    task = Task("tokenizer", model, optimizers, batches, loss, watch=watch)
    return fit(task, seed=seed, epochs=config.epochs, directory=directory).epochs


@torch.no_grad()
def encode_items(model: Tokenizer) -> Draft:
    """Encode every item row.

    `fused` takes the codes of the fused unit. `concat` joins the signals' codes in the order of `model.signals`; an
    absent signal takes the codes of the mean of the present ones, so that every item has an ID of full length.
    """
    model.eval()
    parts, units, present = all_parts(model)
    concat, count = model.config.combine == "concat", len(model.signals)
    if concat:
        mean = (units * present[..., None]).sum(1, keepdim=True) / present.sum(1).clamp_min(1)[:, None, None]
        units = torch.where(present[..., None], units, mean)
    codes = model.quantizer.encode(units)  # (N+1, U, L)
    last = codes[:, -1]
    residual = units[:, -1] - model.quantizer.decode(last) + model.quantizer.codebook[-1][last[:, -1]]
    return Draft(
        (codes.flatten(1) if concat else last).numpy(),
        residual.numpy(),
        model.quantizer.codebook.detach().numpy(),
        model.signals,
        codes[:, :count].numpy(),
        parts.present.numpy(),
        parts.signals.numpy(),
        parts.specific.numpy(),
    )


def repaired(draft: Draft, config: TokenizerConfig) -> tuple[np.ndarray, tuple[int, ...]]:
    """The ID table after the configured uniqueness repair, and the number of codes possible at each position."""
    sizes = (config.codes,) * draft.table.shape[1]
    if config.uniqueness == "nearest":
        return move_to_free(draft.table, draft.residual, draft.codebook[-1]), sizes
    if config.uniqueness == "none":
        return draft.table, sizes
    table, largest = append_extra(draft.table)
    return table, (*sizes, largest)


def random_draft(data: Dataset, config: TokenizerConfig, seed: int) -> Draft:
    """Control: uniformly random codes of the same shape, without signals; `config` must be resolved."""
    length = config.levels * (len(config.signals) + config.id_signal if config.combine == "concat" else 1)
    table = np.random.default_rng((seed, 2)).integers(0, config.codes, (data.n_items + 1, length))
    none = np.zeros((len(table), 0, config.levels), dtype=np.int64)
    vectors = np.zeros((len(table), 0, config.code_width), dtype=np.float32)
    codebook = np.zeros((config.levels, config.codes, config.code_width), dtype=np.float32)
    residual = np.zeros((len(table), config.code_width), dtype=np.float32)
    return Draft(table, residual, codebook, (), none, none[..., 0] > 0, vectors, vectors)


def finish(draft: Draft, config: TokenizerConfig, history: list[dict]) -> Tokenized:
    """Repair the IDs, measure them before and after, and pack."""
    code_ids, sizes = repaired(draft, config)
    levels = np.arange(config.levels)
    vectors = draft.codebook[levels, draft.signal_codes].sum(-2)  # (N+1, S, E)
    figures = {"before": health(draft.table, (config.codes,) * draft.table.shape[1]), "after": health(code_ids, sizes)}
    ids = SemanticIds(
        code_ids,
        sizes,
        draft.table.shape[1],
        draft.signals,
        draft.signal_codes,
        vectors,
        draft.present,
        draft.codebook,
        draft.table,
    )
    return Tokenized(ids, history, figures, draft.behaviour, draft.specific)


def fit_tokenizer(data: Dataset, config: TokenizerConfig, seed: int, directory: Path) -> Tokenized:
    """Train stage 1 on training events only and encode every item; resumes from checkpoints in `directory`.

    Raises: FloatingPointError on a non-finite loss.
    """
    config = resolve(config, data)
    if config.source == "random":
        return finish(random_draft(data, config, seed), config, [])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(data, config)
        initialise(model, seed)
    history = train(data, model, config, seed, directory)
    return finish(encode_items(model), config, history)


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
