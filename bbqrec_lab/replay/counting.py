"""What learns from the stream by counting: sliding popularity, and item-KNN with counts that grow event by event."""

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec_core import per_user, rank_users
from bbqrec_lab.baselines.counting import ItemKnn
from bbqrec_lab.datasets.time_split import TimeSplit
from bbqrec_lab.replay.learners import asked_between
from bbqrec_lab.replay.stream import Stream

WINDOWS = (300, 1000, 3000, 10_000, 0)  # last events that popularity counts; 0 counts all
DENSE_ITEMS = 12_000  # most items of `GrowingKnn`: its table of pairs then takes 576 MB
LIGHT = 1e-9  # an event with less weight changes no score that float32 can tell


@dataclass
class SlidingPopularity:
    """Score items by their number among the last events of all users.

    Args: policy: `updates` counts up to the event before the one that is asked for; others count before the replay.
        window: of `WINDOWS`; chosen on validation at the start if it is None.
    """

    policy: str
    window: int | None = None
    known: int = 0
    spent: float = 0.0  # counting a window is a part of the answer

    @property
    def frozen(self) -> bool:
        """Whether histories end where the replay starts."""
        return self.policy == "nothing"

    def begin(self, stream: Stream, period: int) -> None:
        """Choose the window at the start; items that join can be recommended once they have events."""
        if not period:
            self.known = int(stream.sizes[0])
            if self.window is None:
                self.window = best_window(stream.known_before(0))
        elif self.policy == "updates":
            self.known = int(stream.sizes[period])

    def scores(self, stream: Stream, start: int, stop: int) -> Float[Tensor, "B rows"]:
        """Events of every item in the window before each event that is asked for, (B, known + 1)."""
        asked = asked_between(stream, start, stop)
        ends = asked if self.policy == "updates" else np.full(len(asked), stream.bounds[0])
        counts = window_counts(stream.items(slice(None)), ends, self.window, self.known)
        counts[:, 0] = -np.inf
        return torch.from_numpy(counts)


def window_counts(
    items: Int[np.ndarray, "events"], ends: Int[np.ndarray, "B"], window: int, known: int
) -> Float[np.ndarray, "B rows"]:
    """Events of each item row among the `window` events before each of the ascending `ends`; 0 counts all."""
    starts = np.maximum(ends - window, 0) if window else np.zeros_like(ends)
    found = np.zeros((len(ends), known + 1), np.float32)
    counts, left, right = np.zeros(known + 1, np.float32), 0, 0
    for line, (low, high) in enumerate(zip(starts, ends, strict=True)):
        for change, run in ((1, items[right:high]), (-1, items[left:low])):
            np.add.at(counts, run[run <= known], change)
        left, right = low, high
        found[line] = counts
    return found


def best_window(split: TimeSplit) -> int:
    """The window with the best validation NDCG@10; the first of equal ones."""
    history, targets, kind = split.history("valid"), split.targets("valid"), split.seen_items
    order = np.argsort(split.sequences.times, kind="stable")
    ends = np.searchsorted(split.sequences.times[order], history_ends(split))
    line = np.argsort(ends, kind="stable")
    found = {}
    for window in WINDOWS:
        table = np.empty((len(ends), split.n_items + 1), np.float32)
        table[line] = window_counts(split.sequences.items[order], ends[line], window, split.n_items)
        scorer = lambda _, users, table=table: torch.from_numpy(table[users])  # noqa: E731
        ranks = rank_users(scorer, history, targets, np.arange(len(targets)), (kind,))[kind]
        found[window] = per_user(ranks)["ndcg@10"].mean()
    return max(found, key=found.get)


def history_ends(split: TimeSplit) -> Int[np.ndarray, "Q"]:
    """The times of the known targets of `valid`."""
    return split.sequences.times[split.positions("valid")]


@dataclass
class GrowingKnn:
    """Item-KNN (`ItemKnn`) whose counts of users and pairs of users grow event by event.

    Args: policy: `updates` learns from each event after it was asked for; others count before the replay.
    Raises: ValueError for more than `DENSE_ITEMS` items.
    """

    policy: str
    decay: float = 1.0
    shrinkage: float = 0.0
    known: int = 0
    spent: float = 0.0  # seconds of `learn` within `scores`
    both: Float[np.ndarray, "rows rows"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    events: Int[np.ndarray, "rows"] = field(default_factory=lambda: np.zeros(0, np.int64))
    users: Float[np.ndarray, "rows"] = field(default_factory=lambda: np.zeros(0, np.float32))
    sets: dict[int, list[int]] = field(default_factory=dict)  # distinct items of each user

    @property
    def frozen(self) -> bool:
        """Whether histories end where the replay starts."""
        return self.policy == "nothing"

    def begin(self, stream: Stream, period: int) -> None:
        """Choose decay and shrinkage on validation at the start, and count all events before the replay."""
        if not period:
            if stream.n_items > DENSE_ITEMS:
                raise ValueError(f"{stream.n_items} items: item-KNN with growing counts takes at most {DENSE_ITEMS}")
            best = max(ItemKnn.fit(stream.known_before(0)).trials, key=lambda trial: trial.ndcg)
            self.shrinkage, self.decay = best.settings
            self.start(stream.n_items)
            for user, item in zip(*self._early(stream), strict=True):
                self.learn(int(user), int(item))
        if not period or self.policy == "updates":
            self.known = int(stream.sizes[period])

    def _early(self, stream: Stream) -> tuple[Int[np.ndarray, "events"], Int[np.ndarray, "events"]]:
        before = np.arange(stream.bounds[0])
        return stream.users(before), stream.items(before)

    def start(self, n_items: int) -> None:
        """Forget all counts."""
        self.both, self.sets = np.zeros((n_items + 1, n_items + 1), np.float32), {}
        self.events, self.users = np.zeros(n_items + 1, np.int64), np.zeros(n_items + 1, np.float32)

    def learn(self, user: int, item: int) -> None:
        """Count one event."""
        self.events[item] += 1
        own = self.sets.setdefault(user, [])
        if item not in own:
            self.both[item, own] += 1
            self.both[own, item] += 1
            self.users[item] += 1
            own.append(item)

    def scores(self, stream: Stream, start: int, stop: int) -> Float[Tensor, "B rows"]:
        """As `ItemKnn.scores`, before each event that is asked for; each event is learned after it."""
        asked = asked_between(stream, start, stop)
        history, found = stream.histories(asked, self.known, self.frozen), np.empty((len(asked), self.known + 1))
        if self.policy != "updates":
            for line in range(len(asked)):
                found[line] = self.score(history.items[history.offsets[line] : history.offsets[line + 1]])
            return _float(found)
        places, line = np.arange(start, stop), 0
        for place, user, item in zip(places, stream.users(places), stream.items(places), strict=True):
            if stream.asked[place]:
                found[line] = self.score(history.items[history.offsets[line] : history.offsets[line + 1]])
                line += 1
            began = time.monotonic()
            self.learn(int(user), int(item))
            self.spent += time.monotonic() - began
        return _float(found)

    def score(self, history: Int[np.ndarray, "T"]) -> Float[np.ndarray, "rows"]:
        """Scores of all known items after one history, oldest first."""
        weight = self.decay ** np.arange(len(history) - 1, -1, -1.0)
        near = history[weight > LIGHT]
        size = np.sqrt(self.users[: self.known + 1])
        cosine = self.both[near, : self.known + 1] / (size[near][:, None] * size + self.shrinkage).clip(1e-9)
        own = weight[weight > LIGHT] @ cosine
        return np.where(own > 0, own, -1 / (1 + self.events[: self.known + 1]))


def _float(scores: Float[np.ndarray, "B rows"]) -> Float[Tensor, "B rows"]:
    """Scores as a tensor, without the padding."""
    found = torch.from_numpy(scores.astype(np.float32))
    found[:, 0] = -torch.inf
    return found
