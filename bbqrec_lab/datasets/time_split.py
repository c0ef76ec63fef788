"""The split by time: one moment for all users, beside the leave-one-out split of `Dataset`.

Leave-one-out has a moment for each user, so training may contain events of others that lie after the target. Here all
training events are earlier than all targets. A target is any event of a part, not only the last one of its user.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

from bbqrec_core import Dataset, Sequences
from bbqrec_lab.datasets.bundle import SECONDS
from bbqrec_lab.datasets.reading import NamedDataset

MOST_TARGETS = 8000  # of a part, drawn by a seed if there are more: histories are stored once per target
KINDS = ("known", "new user", "new item", "both new")  # of targets, by what training has seen


def need_global_time(data: NamedDataset) -> None:
    """Check that times of different users can be compared.

    Raises: ValueError for times that are only positions.
    """
    if data.timestamps.max(initial=0) < SECONDS:
        raise ValueError(
            f"{data.name}: its times are only positions in each user's history, so no moment is the same for two "
            "users: choose data with timestamps in seconds, such as ml-100k or ml-1m"
        )


def by_kind(old_user: Bool[np.ndarray, "Q"], old_item: Bool[np.ndarray, "Q"]) -> dict[str, Bool[np.ndarray, "Q"]]:
    """The targets of each of `KINDS`, by whether their user and their item are known."""
    masks = old_user & old_item, ~old_user & old_item, old_user & ~old_item, ~old_user & ~old_item
    return dict(zip(KINDS, masks, strict=True))


def prior_events(sequences: Sequences, positions: Int[np.ndarray, "Q"]) -> Sequences:
    """One history per event: the events of the same user before it.

    Args: positions: of the events in `sequences.items`, in any order; repeats are allowed.
    """
    owner = np.searchsorted(sequences.offsets, positions, side="right") - 1
    return gathered(sequences, sequences.offsets[owner], positions - sequences.offsets[owner])


def gathered(sequences: Sequences, starts: Int[np.ndarray, "Q"], sizes: Int[np.ndarray, "Q"]) -> Sequences:
    """The runs `starts[q]` to `starts[q] + sizes[q]` of the events, one after another."""
    offsets = np.append(0, np.cumsum(sizes))
    index = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Sequences(offsets, sequences.items[index], None if sequences.times is None else sequences.times[index])


def kept(sequences: Sequences, keep: Bool[np.ndarray, "events"]) -> Sequences:
    """The events that are kept, of the same users, who may have none left."""
    offsets = np.append(0, np.cumsum(keep))[sequences.offsets]
    return Sequences(offsets, sequences.items[keep], None if sequences.times is None else sequences.times[keep])


@dataclass(frozen=True, eq=False, kw_only=True)
class TimeSplit(Dataset):
    """A dataset that is split at two moments, which every model of the core and the lab can be trained on.

        train: time < valid_from,   valid: valid_from <= time < test_from,   test: time >= test_from

    The histories and targets of a part have one row per target, not per user, and only `known` targets (`kinds`);
    `n_users` counts the targets of `valid`, on which models are chosen.

    Args: valid_from, test_from: seconds. seed: of the draw of targets, if a part has more than `MOST_TARGETS`.
    Raises: ValueError if there is no training event, or no known target to choose models by.
    """

    valid_from: int
    test_from: int
    seed: int = 0

    def __post_init__(self) -> None:
        lacking = {name: array.any(axis=1) for name, array in self.features.items() if name not in self.presence}
        object.__setattr__(self, "presence", self.presence | lacking)
        if not len(self.train().items) or not self.n_users:
            raise ValueError(f"no known target before {self.test_from}: split later, or give more events")

    @property
    def n_users(self) -> int:
        """The number of known targets of `valid`."""
        return len(self._targets["valid"])

    @cached_property
    def seen_items(self) -> str:
        """Seen items in the primary protocol, as for `Dataset`: `filtered` if no user repeats an item in training."""
        offsets, items, *_ = self.train()
        pairs = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * (self.n_items + 1) + items
        return "filtered" if len(np.unique(pairs)) == len(pairs) else "included"

    def train(self) -> Sequences:
        """The events before `valid_from`, of all users; some have none."""
        return kept(self.sequences, self.sequences.times < self.valid_from)

    def history(self, part: str) -> Sequences:
        """For each known target of `part` all events of its user before it, those of the same part too."""
        return prior_events(self.sequences, self.positions(part))

    def targets(self, part: str) -> Int32[np.ndarray, "Q"]:
        """The item row of each known target of `part`."""
        return self.sequences.items[self.positions(part)]

    def owners(self, part: str) -> Int64[np.ndarray, "Q"]:
        """The user of each known target of `part`."""
        return np.searchsorted(self.sequences.offsets, self.positions(part), side="right") - 1

    def kinds(self, part: str) -> dict[str, Int64[np.ndarray, "_"]]:
        """Positions of all events of a part in `sequences.items`, by `KINDS`: whether training saw user and item."""
        times, (offsets, items, *_) = self.sequences.times, self.sequences
        inside = (self.valid_from <= times) & (times < self.test_from) if part == "valid" else times >= self.test_from
        events = np.flatnonzero(inside)
        owner = np.searchsorted(offsets, events, side="right") - 1
        old_user = np.diff(self.train().offsets)[owner] > 0
        old_item = (self.train_counts() > 0)[items[events]]
        return {kind: events[mask] for kind, mask in by_kind(old_user, old_item).items()}

    def positions(self, part: str) -> Int64[np.ndarray, "Q"]:
        """The positions of the known targets of a part, at most `MOST_TARGETS`."""
        if part not in self._targets:
            raise ValueError(f"part must be 'valid' or 'test', got {part!r}")
        return self._targets[part]

    @cached_property
    def _targets(self) -> dict[str, Int64[np.ndarray, "Q"]]:
        """`_asked` of both parts."""
        found = {part: self.kinds(part)["known"] for part in ("valid", "test")}
        for stream, (part, known) in enumerate(found.items()):
            if len(known) > MOST_TARGETS:
                drawn = np.random.default_rng((self.seed, stream)).choice(len(known), MOST_TARGETS, replace=False)
                found[part] = known[np.sort(drawn)]
        return found


def split_by_time(data: NamedDataset, train: float = 0.8, valid: float = 0.1, seed: int = 0) -> TimeSplit:
    """Split a dataset at the moments before which the shares `train` and `train + valid` of all events lie.

    Raises: ValueError for times that are only positions, shares that leave no test part, or too few events.
    """
    if not 0 < train < train + valid < 1:
        raise ValueError(f"need shares above 0 that leave a test part, got {train=}, {valid=}")
    need_global_time(data)
    sequences = data.sequences._replace(times=data.timestamps)
    moments = moments_of(data.timestamps, [train, train + valid])
    arrays = {"features": data.features, "presence": data.presence}
    return TimeSplit(
        n_items=data.n_items, sequences=sequences, valid_from=moments[0], test_from=moments[1], seed=seed, **arrays
    )


def moments_of(times: Int[np.ndarray, "events"], shares: list[float]) -> list[int]:
    """The moments before which these shares of the events lie, as nearly as equal times allow."""
    ordered = np.sort(times)
    return [int(ordered[min(round(share * len(ordered)), len(ordered) - 1)]) for share in shares]


class Leak(NamedTuple):
    """How much of training lies after each target of leave-one-out, each (U,).

    Args: any_event: share of all training events. own_item: share of the training events of the target's item, NaN if
        it has none.
    """

    any_event: Float[np.ndarray, "U"]
    own_item: Float[np.ndarray, "U"]


def later_events(data: NamedDataset) -> Leak:
    """The share of training events of leave-one-out that are later than each user's test target.

    Raises: ValueError for times that are only positions.
    """
    need_global_time(data)
    train = Dataset.train(data)
    when, target = data.timestamps[data.sequences.offsets[1:] - 1], data.targets("test")
    times = data.timestamps[_train_positions(data)]
    every = 1 - np.searchsorted(np.sort(times), when, side="right") / len(times)
    order = np.lexsort((times, train.items))
    rows, sorted_times = train.items[order], times[order]
    first, last = np.searchsorted(rows, target), np.searchsorted(rows, target, side="right")
    own = np.full(len(target), np.nan)
    for user in np.flatnonzero(last > first):
        inside = sorted_times[first[user] : last[user]]
        own[user] = 1 - np.searchsorted(inside, when[user], side="right") / len(inside)
    return Leak(every, own)


def _train_positions(data: NamedDataset) -> Int64[np.ndarray, "events"]:
    """Where the events of `data.train()` are in `data.sequences.items`."""
    keep = np.ones(len(data.sequences.items), bool)
    for back in (1, 2):
        keep[data.sequences.offsets[1:] - back] = False
    if data.cold is not None:
        keep &= ~data.cold[data.sequences.items]
    return np.flatnonzero(keep)
