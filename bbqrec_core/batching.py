"""Histories as padded batches: training windows bucketed by length, and evaluation batches of similar length."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from .data import Sequences


def gather_padded(
    items: Int[np.ndarray, "events"], starts: Int[np.ndarray, "B"], sizes: Int[np.ndarray, "B"]
) -> Int[Tensor, "B T"]:
    """`items[starts[b] : starts[b] + sizes[b]]` as rows, padded with 0 on the right to the longest of them."""
    step = np.arange(max(int(sizes.max(initial=0)), 1))
    inside = step < sizes[:, None]
    index = np.where(inside, starts[:, None] + step, 0)
    return torch.from_numpy(np.where(inside, items[index], 0).astype(np.int64))


def windows(
    sequences: Sequences, length: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "W"], Int[np.ndarray, "W"]]:
    """Cut every sequence into windows of at most `length` targets, all events but the first a target exactly once.

    The first window of a user ends at a random event, so that the cuts move from epoch to epoch.

    Returns: position in `sequences.items` of each window's first input, and its number of targets.
    Raises: ValueError if no sequence has a second event.
    """
    targets = np.maximum(np.diff(sequences.offsets) - 1, 0)
    users = np.flatnonzero(targets)
    if not len(users):
        raise ValueError(f"none of {len(targets)} users has 2 training events to learn from: give longer histories")
    total = targets[users]
    head = np.minimum(rng.integers(1, length + 1, len(users)), total)
    head = np.where(total <= length, total, head)
    count = 1 + -(-(total - head) // length)
    owner = np.repeat(np.arange(len(users)), count)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    begin = np.where(rank == 0, 0, head[owner] + (rank - 1) * length)
    size = np.where(rank == 0, head[owner], np.minimum(length, total[owner] - begin))
    return sequences.offsets[users[owner]] + begin, size


def window_batches(
    sequences: Sequences, length: int, batch: int, seed: tuple[int, ...], limit: int = 0
) -> list[Int[Tensor, "B T"]]:
    """One epoch of training windows, (B, targets + 1) item rows each, similar lengths together, in random order.

    A row holds its inputs and the last target: inputs are `rows[:, :-1]`, targets `rows[:, 1:]`; 0 pads.

    Args: limit: batches at most, drawn at random; 0 gives all.
    """
    rng = np.random.default_rng(seed)
    starts, sizes = windows(sequences, length, rng)
    order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")  # random among equal lengths
    groups = np.split(order, np.arange(batch, len(order), batch))
    return [
        gather_padded(sequences.items, starts[groups[g]], sizes[groups[g]] + 1)
        for g in rng.permutation(len(groups))[: limit or None]
    ]


def history_batches(
    history: Sequences, users: Int[np.ndarray, "U"], length: int, batch: int
) -> list[tuple[Int[np.ndarray, "B"], Int[Tensor, "B T"]]]:
    """The last `length` events of users in batches of similar length: (users, item rows padded with 0 on the right)."""
    sizes = np.minimum(np.diff(history.offsets)[users], length)
    order = np.argsort(sizes, kind="stable")
    groups = [users[part] for part in np.split(order, np.arange(batch, len(order), batch)) if len(part)]
    shown = [np.minimum(np.diff(history.offsets)[part], length) for part in groups]
    ends = [history.offsets[part + 1] for part in groups]
    return [(part, gather_padded(history.items, end - n, n)) for part, n, end in zip(groups, shown, ends, strict=True)]
