"""Exact ranks of all items without a score per user and item, for models that score most items by popularity alone.

A counting baseline knows something about the few items that came with those of a history; all others it orders by their
training events. Ranks then need only the scores of the few, and one score per number of events.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int
from torch import Tensor

from bbqrec_core import Ranks, Sequences
from bbqrec_core.dataset import gather_padded
from bbqrec_core.metrics import LISTED

BATCH = 256  # users at a time


class SparseScores(NamedTuple):
    """Scores of B users: an own one for each pair of `user` and `row`, and one by events for all other items.

    `rest` must rise with the number of events, so that the best of the other items are the most popular ones.
    """

    user: Int[np.ndarray, "n"]  # number in the batch, 0..B-1
    row: Int[np.ndarray, "n"]  # of the item, 1..N; a pair comes once
    value: Float32[np.ndarray, "n"]
    rest: Float32[np.ndarray, "B D"]  # by class of events, fewest first

    def dense(self, classes: "EventClasses") -> Float32[Tensor, "B rows"]:
        """The score of every item, (B, N+1); column 0 is -inf."""
        table = self.rest[:, classes.of_row]
        table[self.user, self.row] = self.value
        table[:, 0] = -np.inf
        return torch.from_numpy(table)


SparseScorer = Callable[[Sequences, Int[np.ndarray, "B"]], SparseScores]


class EventClasses(NamedTuple):
    """Items by their number of training events."""

    events: Int[np.ndarray, "D"]  # distinct numbers, fewest first
    of_row: Int[np.ndarray, "rows"]  # (N+1,), the class of each item
    sizes: Int[np.ndarray, "D"]  # items per class, without the padding
    popular: Int[np.ndarray, "N"]  # item rows, most events first, equal ones by row


def event_classes(counts: Int[np.ndarray, "rows"]) -> EventClasses:
    """Sort items by their events; counts: (N+1,), entry 0 is the padding."""
    events, of_row = np.unique(counts, return_inverse=True)
    sizes = np.bincount(of_row[1:], minlength=len(events))
    return EventClasses(events, of_row, sizes, np.argsort(-counts[1:], kind="stable") + 1)


def rank_sparse(
    scorer: SparseScorer,
    classes: EventClasses,
    history: Sequences,
    targets: Int[np.ndarray, "U"],
    users: Int[np.ndarray, "S"],
    kinds: tuple[str, ...] = ("included", "filtered"),
    batch: int = BATCH,
) -> dict[str, Ranks]:
    """As `metrics.rank_users`, with equal results, for scores that are sparse."""
    shapes = (len(users),), (len(users),), (len(users), LISTED)
    found = {kind: Ranks(*(np.empty(shape, np.int32) for shape in shapes)) for kind in kinds}
    for start in range(0, len(users), batch):
        some = users[start : start + batch]
        scores, seen = scorer(history, some), _pairs(history, some)
        for kind in kinds:
            hidden = seen if kind == "filtered" else (seen[0][:0], seen[1][:0])
            for field, values in zip(found[kind], _ranks(scores, classes, targets[some], hidden), strict=True):
                field[start : start + batch] = values
    return found


def _pairs(history: Sequences, users: Int[np.ndarray, "B"]) -> tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Each user, by number in the batch, with each distinct item of the history."""
    rows = gather_padded(history.items, history.offsets[users], np.diff(history.offsets)[users]).numpy()
    rows = np.sort(rows, axis=1)
    first = np.diff(rows, axis=1, prepend=0) > 0  # the padding 0 is sorted to the front
    return first.nonzero()[0], rows[first]


def _ranks(
    scores: SparseScores,
    classes: EventClasses,
    targets: Int[np.ndarray, "B"],
    hidden: tuple[Int[np.ndarray, "m"], Int[np.ndarray, "m"]],
) -> Ranks:
    """Ranks of the targets among all items but the hidden pairs of user and row, which score -inf."""
    user, row, value, rest = scores
    users = np.arange(len(targets))
    own, gone = np.zeros((2, len(targets), len(classes.popular) + 1), bool)  # only the pages that are set take memory
    own[user, row] = gone[hidden] = True
    aim = rest[users, classes.of_row[targets]]
    is_target = row == targets[user]
    aim[user[is_target]] = value[is_target]
    aim[gone[users, targets]] = -np.inf
    shown, more = ~gone[user, row], ~own[hidden]
    apart = np.append(user, hidden[0][more]), np.append(row, hidden[1][more])  # they do not score by events

    def count(beats: np.ufunc) -> Int[np.ndarray, "B"]:
        by_events = beats(rest, aim[:, None]) @ classes.sizes
        wrongly = beats(rest[apart[0], classes.of_row[apart[1]]], aim[apart[0]])
        rightly = user[shown][beats(value[shown], aim[user[shown]])]
        return by_events + np.bincount(rightly, minlength=len(aim)) - np.bincount(apart[0][wrongly], minlength=len(aim))

    ties = np.where(aim == -np.inf, 0, count(np.equal))
    return Ranks(count(np.greater), ties, _top(scores, classes, shown, lambda rows: own[:, rows] | gone[:, rows]))


def _top(
    scores: SparseScores,
    classes: EventClasses,
    shown: Bool[np.ndarray, "n"],
    apart: Callable[[Int[np.ndarray, "w"]], Bool[np.ndarray, "B w"]],
) -> Int[np.ndarray, "B k"]:
    """The best items of each user: of those with own scores that are shown, and of the most popular other ones."""
    size, n_items = len(scores.rest), len(classes.popular)
    width = min(LISTED, n_items)
    while True:  # until enough of the most popular items are not apart
        others = ~apart(classes.popular[:width])
        if width == n_items or (others.sum(1) >= LISTED).all():
            break
        width = min(2 * width, n_items)
    line, place = others.nonzero()
    few = (np.cumsum(others, axis=1) <= LISTED)[line, place]
    line, row = line[few], classes.popular[place[few]]
    parts = (
        (scores.user[shown], scores.row[shown], scores.value[shown]),
        (line, row, scores.rest[line, classes.of_row[row]]),
    )
    user, row, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    stay = value >= _kth_largest(user, value, size)[user]
    user, row, value = user[stay], row[stay], value[stay]
    order = np.lexsort((row, -value, user))
    first = np.searchsorted(user[order], np.arange(size + 1))
    lists = np.zeros((size, LISTED), np.int64)
    for place in range(LISTED):
        has = first[:-1] + place < first[1:]
        lists[has, place] = row[order[first[:-1][has] + place]]
    return lists


def _kth_largest(user: Int[np.ndarray, "n"], value: Float32[np.ndarray, "n"], size: int) -> Float32[np.ndarray, "B"]:
    """The `LISTED`-th largest value of each user, -inf for a user with fewer."""
    order = np.argsort(user, kind="stable")
    count = np.bincount(user, minlength=size)
    table = np.full((size, max(count.max(initial=0), LISTED)), -np.inf, np.float32)
    table[user[order], np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)] = value[order]
    return torch.from_numpy(table).topk(LISTED, dim=1).values[:, -1].numpy()
