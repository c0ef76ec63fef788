"""The dataset as arrays, its leave-one-out split, and padded batches of histories."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, Int32, Int64
from torch import Tensor

MIN_EVENTS = 3  # per user: one for training, one for validation, one for test


class Sequences(NamedTuple):
    """All histories in one array: the item rows of user u are `items[offsets[u]:offsets[u + 1]]`, oldest first."""

    offsets: Int64[np.ndarray, "U+1"]
    items: Int32[np.ndarray, "events"]
    times: Int64[np.ndarray, "events"] | None = None  # of each event in seconds; None if unknown

    def rows(self, timed: bool) -> Int[np.ndarray, "events *pair"]:
        """What a model reads of each event: its item row, or item row and time if it is `timed` and times are known."""
        return np.stack([self.items, self.times], 1) if timed and self.times is not None else self.items


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Interactions in order, and the features of each item: item rows 1..N, row 0 is padding.

    Per-item arrays have N + 1 rows; row 0 is zero or False.

    Raises: ValueError if a user has fewer than three events.
    """

    n_items: int  # N, without padding
    sequences: Sequences  # all events of every user, oldest first
    features: dict[str, Float32[np.ndarray, "rows _"]] = field(default_factory=dict)  # by modality, scaled
    presence: dict[str, Bool[np.ndarray, "rows"]] = field(default_factory=dict)  # by default, features are not all zero
    cold: Bool[np.ndarray, "rows"] | None = None  # held out of training, but in the catalogue and in evaluation

    def __post_init__(self) -> None:
        lacking = {name: array.any(axis=1) for name, array in self.features.items() if name not in self.presence}
        object.__setattr__(self, "presence", self.presence | lacking)
        lengths = np.diff(self.sequences.offsets)
        if lengths.min(initial=MIN_EVENTS) < MIN_EVENTS:
            short = int(np.argmax(lengths < MIN_EVENTS))
            raise ValueError(f"user row {short} has {lengths[short]} events, need {MIN_EVENTS}: drop shorter histories")

    @property
    def n_users(self) -> int:
        """The number of users, U."""
        return len(self.sequences.offsets) - 1

    def train(self) -> Sequences:
        """The events that training may see: all but the last two of each user, without cold items."""
        offsets, items, times = self._without_last(2)
        if self.cold is None:
            return Sequences(offsets, items, times)
        seen = ~self.cold[items]
        return Sequences(np.append(0, np.cumsum(seen))[offsets], items[seen], None if times is None else times[seen])

    @cached_property
    def seen_items(self) -> str:
        """Seen items in the primary protocol: `filtered` if no training history repeats an item, else `included`."""
        offsets, items, *_ = self.train()
        pairs = np.repeat(np.arange(self.n_users), np.diff(offsets)) * (self.n_items + 1) + items
        return "filtered" if len(np.unique(pairs)) == len(pairs) else "included"

    def warm_rows(self) -> Int64[np.ndarray, "warm"]:
        """Rows of the items that training may see."""
        return np.flatnonzero(np.arange(self.n_items + 1) > 0 if self.cold is None else ~self.cold)

    def history(self, part: str) -> Sequences:
        """The events before the target of `part` (`valid` or `test`); the test history contains the validation item."""
        return self._without_last(_back(part))

    def targets(self, part: str) -> Int32[np.ndarray, "U"]:
        """The item row to predict for each user: the last event (`test`) or the second to last (`valid`)."""
        return self.sequences.items[self.sequences.offsets[1:] - _back(part)]

    def train_counts(self) -> Int64[np.ndarray, "rows"]:
        """Training events of every item row, (N+1,)."""
        return np.bincount(self.train().items, minlength=self.n_items + 1)

    def _without_last(self, drop: int) -> Sequences:
        offsets, items, times = self.sequences
        keep = np.ones(len(items), bool)
        for back in range(1, drop + 1):
            keep[offsets[1:] - back] = False
        kept = None if times is None else times[keep]
        return Sequences(offsets - drop * np.arange(len(offsets)), items[keep], kept)


def _back(part: str) -> int:
    """Position of the target of `part`, counted from the end. Raises: ValueError for a part of another name."""
    if part not in ("valid", "test"):
        raise ValueError(f"part must be 'valid' or 'test', got {part!r}")
    return 2 if part == "valid" else 1


def gather_padded(
    items: Int[np.ndarray, "events *pair"], starts: Int[np.ndarray, "B"], sizes: Int[np.ndarray, "B"]
) -> Int[Tensor, "B T *pair"]:
    """`items[starts[b] : starts[b] + sizes[b]]` as rows, padded with 0 on the right."""
    step = np.arange(max(int(sizes.max(initial=0)), 1))
    inside = step < sizes[:, None]
    index = np.where(inside, starts[:, None] + step, 0)
    rows = items[index].astype(np.int64)
    rows[~inside] = 0
    return torch.from_numpy(rows)


def item_rows(rows: Int[Tensor, "B T *pair"]) -> Int[Tensor, "B T"]:
    """The item rows of padded rows, with or without times."""
    return rows[..., 0] if rows.ndim == 3 else rows


def windows(
    sequences: Sequences, length: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "W"], Int[np.ndarray, "W"]]:
    """Cut every sequence into windows of at most `length` targets; every event but the first is a target once.

    The first window of a user ends at a random event, so the cuts differ between epochs.
    Returns: for each window, the position of its first input in `sequences.items`, and its number of targets.
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
    sequences: Sequences, length: int, batch: int, seed: tuple[int, ...], limit: int = 0, timed: bool = False
) -> list[Int[Tensor, "B T *pair"]]:
    """Training windows of one epoch, in batches of similar length (B, targets + 1), in random order; 0 is padding.

    Args: limit: maximum number of batches, drawn at random; 0 gives all. timed: as of `Sequences.rows`.
    """
    rng = np.random.default_rng(seed)
    starts, sizes = windows(sequences, length, rng)
    order = np.argsort(sizes + rng.random(len(sizes)), kind="stable")  # random among equal lengths
    groups = np.split(order, np.arange(batch, len(order), batch))
    drawn, rows = rng.permutation(len(groups))[: limit or None], sequences.rows(timed)
    return [gather_padded(rows, starts[groups[g]], sizes[groups[g]] + 1) for g in drawn]


def history_batches(
    history: Sequences, users: Int[np.ndarray, "U"], length: int, batch: int, timed: bool = False
) -> list[tuple[Int[np.ndarray, "B"], Int[Tensor, "B T *pair"]]]:
    """The last `length` events of users in batches of similar length: (users, rows, 0 pads on the right)."""
    sizes = np.minimum(np.diff(history.offsets)[users], length)
    order, starts, rows = np.argsort(sizes, kind="stable"), history.offsets[users + 1] - sizes, history.rows(timed)
    groups = [part for part in np.split(order, np.arange(batch, len(order), batch)) if len(part)]
    return [(users[part], gather_padded(rows, starts[part], sizes[part])) for part in groups]
