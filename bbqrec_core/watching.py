"""One search, watched: how long each step takes, how many prefixes are read, and that shortcuts change no score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from . import decoding
from .decoding import Frontier
from .recommender import Recommender
from .timing import Plan
from .token_model import TokenFrontier


class Trace(NamedTuple):
    """One search, watched.

    seconds: by step, in order: `history`, then `level l, model` and `level l, search`. carried: rows that the model
    read at each level, all users together. items, scores: what `Recommender.beam` returns.
    """

    seconds: dict[str, float]
    carried: tuple[int, ...]
    items: Int[Tensor, "B W"]
    scores: Tensor


class _Watched:
    """A frontier that notes when the search asks it for more and when it has answered."""

    def __init__(self, make: Callable[[], Frontier | TokenFrontier], now: Callable[[], float]) -> None:
        self.now, start = now, now()
        self.inner = make()
        self.marks, self.carried = [(start, now())], [len(self.inner.log_probs)]

    @property
    def log_probs(self) -> Tensor:
        return self.inner.log_probs

    def advance(self, rows: Tensor, nodes: Tensor) -> None:
        start = self.now()
        self.inner.advance(rows, nodes)
        self.marks.append((start, self.now()))
        self.carried.append(len(rows))


@torch.inference_mode()
def trace(recommender: Recommender, rows: Int[Tensor, "B T"], width: int, plan: Plan | None = None) -> Trace:
    """Search as `Recommender.beam` does, and note how long each step takes.

    A model that reads codes has its first level's answer with the history.

    Raises: ValueError for a model that also, or only, scores items: its list is not the beam's alone.
    """
    if recommender.tree is None or recommender.model.items is not None:
        raise ValueError(
            "this model scores items as well: only the search of one that emits codes alone can be watched"
        )
    now = (plan or Plan()).now
    start = now()
    if recommender.by_beam:
        watched = _Watched(lambda: TokenFrontier(recommender.model, rows), now)
        seconds = {"history": watched.marks[0][1] - start, "level 1, model": 0.0}
    else:
        states = recommender.model.last_states(rows)
        read = now() - start
        watched = _Watched(lambda: Frontier(recommender.model.head, states), now)
        seconds = {"history": read, "level 1, model": watched.marks[0][1] - watched.marks[0][0]}
    items, scores = decoding.beam_search(watched, recommender.tree, width)
    ends = [*(begin for begin, _ in watched.marks[1:]), now()]
    for level, ((begin, answered), end) in enumerate(zip(watched.marks, ends, strict=True), start=1):
        seconds.setdefault(f"level {level}, model", answered - begin)
        seconds[f"level {level}, search"] = end - answered
    return Trace(seconds, tuple(watched.carried), items, scores)


@torch.inference_mode()
def gaps(recommender: Recommender, rows: Int[Tensor, "B T"], width: int) -> dict[str, float]:
    """By how many nats, at most, four shortcuts change the scores of lists that a search finds: rounding alone is left.

    Returns: `caches` against every ID read whole; `batch` against the first user alone; `tree` as a beam that drops
        nothing against exact scores; `watched` against a search that `trace` watches.
    """
    plain = replace(
        recommender, tree=recommender.tree._replace(unseen=())
    )  # the head's own numbers, nothing backed off
    model, (items, scores) = plain.model, plain.beam(rows, width)
    states, found = model.last_states(rows).repeat_interleave(items.shape[1], 0), items.flatten() > 0
    whole = model.head(states[found], model.vectors.node[items.flatten()[found]])
    length = int((rows[0] > 0).sum())
    alone = plain.beam(rows[:1, :length], width)[1]
    exact = decoding.exact_scores(model.head, model.last_states(rows[:1, :length]), plain.tree)[0, 1:]
    wide_items, wide = plain.beam(rows[:1, :length], plain.tree.leaves)
    real = wide_items[0] > 0
    pairs = {
        "caches": (scores.flatten()[found], whole),
        "batch": (scores[:1], alone),
        "tree": (wide[0][real], exact[wide_items[0][real] - 1]),
        "watched": (scores, trace(plain, rows, width).scores),
    }
    return {name: float((a - b)[torch.isfinite(b)].abs().max()) for name, (a, b) in pairs.items()}


def step_costs(models: Mapping[str, Recommender], requests: Sequence[Int[Tensor, "one T"]], width: int) -> pl.DataFrame:
    """Median milliseconds of each step of single requests.

    Returns: columns model, step (`history`, `level l, model`, `level l, search`), ms.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for number, rows in enumerate([*requests[:2], *requests]):  # the first two warm up
        for name, model in models.items():
            for step, seconds in trace(model, rows, width).seconds.items():
                found.setdefault((name, step), []).extend([1000 * seconds] if number > 1 else [])
    lines = [(name, step, float(np.median(spent))) for (name, step), spent in found.items()]
    lines.sort(key=lambda line: list(models).index(line[0]))
    return pl.DataFrame(lines, ["model", "step", "ms"], orient="row")
