"""Latency of beam search: single requests and batches over four sizes, times of each step, checks of shortcuts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from bbqrec_core import Dataset, Recommender, SemanticIds, build_recommender
from bbqrec_core.dataset import gather_padded
from bbqrec_core.recommender import decoding
from bbqrec_core.recommender.decoding import Extendable
from bbqrec_lab.baselines.extra_code import with_extra
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.measure import Plan, Side, interleave

AXES = {"L": "codes per ID", "W": "beam width", "T": "events of the history", "N": "items of the catalogue"}
VALUES = {  # by preset: values of each axis; repetitions of single requests and of batches
    "smoke": ({"L": (2, 3, 4), "W": (2, 5, 10), "T": (5, 10, 20), "N": (100, 300, 1000)}, (5, 2)),
    "quick": (
        {"L": (2, 3, 4, 6), "W": (5, 10, 20, 50), "T": (10, 25, 50, 100), "N": (1000, 10_000, 100_000)},
        (9, 2),
    ),
    "full": (
        {
            "L": (2, 3, 4, 6, 8),
            "W": (5, 10, 20, 50, 100, 200),
            "T": (10, 25, 50, 100, 200),
            "N": (1000, 3000, 10_000, 30_000, 100_000, 300_000),
        },
        (60, 5),
    ),
}
BATCH = 32  # users per batch in `axis_costs`
REQUESTS = {"smoke": 40, "quick": 200, "full": 2000}  # by preset: single requests per model, for p50 and p99


@dataclass(frozen=True)
class Shape:
    """Sizes of a request. levels: L. beam: W. history: T, without padding. items: N."""

    levels: int
    beam: int
    history: int
    items: int


def contestants(n_items: int, ids: SemanticIds, config: Config) -> dict[str, Recommender]:
    """Untrained recommenders of the configured shape: the method, one reweighting less, an extra code, code by code."""
    settings = replace(config.recommender, output="codes", granularity="item", loss="ce", features=False)
    kinds = {
        "bbqrec": (ids, settings),
        "no reweighting": (ids, replace(settings, reweight=False)),
        "no score offsets": (ids, replace(settings, score_reweight=False, seen_offset=False)),
        "extra code": (with_extra(ids), settings),
        "code by code": (ids, replace(settings, granularity="code")),
    }
    return {
        name: build_recommender(n_items, own, chosen, config.seed, make=make_model)
        for name, (own, chosen) in kinds.items()
    }


def with_trained(models: dict[str, Recommender], scorer: object) -> dict[str, Recommender]:
    """The models, with `scorer` as `bbqrec` if it is a recommender that emits codes only and reads items."""
    fits = isinstance(scorer, Recommender) and scorer.tree is not None and scorer.model.items is None
    return models | ({"bbqrec": scorer} if fits and scorer.model.per_item == 1 else {})


def base(config: Config, n_items: int) -> Shape:
    """The base shape of all axes: the sizes of the preset, and the catalogue size of the dataset."""
    return Shape(config.tokenizer.levels, config.evaluation.beam, config.recommender.max_events, n_items)


def levels_for(items: int, codes: int, least: int = 1) -> int:
    """The smallest number of levels, at least `least`, with which `codes` codes give twice as many IDs as items."""
    levels = least
    while codes**levels < 2 * items:
        levels += 1
    return levels


def catalogue_levels(config: Config, n_items: int) -> int:
    """Levels for the catalogue axis: the number that its largest catalogue needs."""
    largest = max(*VALUES[config.preset][0]["N"], n_items)
    return levels_for(largest, config.tokenizer.codes, config.tokenizer.levels)


def made_models(shape: Shape, config: Config) -> dict[str, Recommender]:
    """`contestants` of a shape over a synthetic catalogue; K is doubled until there are enough IDs for the items."""
    codes = config.tokenizer.codes
    while codes**shape.levels < 2 * shape.items:
        codes *= 2
    ids = random_ids(shape.items, shape.levels, codes, config.tokenizer.code_width)
    settings = replace(config, recommender=replace(config.recommender, max_events=shape.history))
    return contestants(shape.items, ids, settings)


def made_rows(users: int, length: int, items: int, seed: int = 0) -> Int[Tensor, "users T"]:
    """Histories of random items, all of the same length."""
    return torch.from_numpy(np.random.default_rng(seed).integers(1, items + 1, (users, length)))


def real_rows(data: Dataset, length: int, count: int) -> list[Int[Tensor, "one T"]]:
    """The last test events of `count` users, spread evenly over the users; users repeat if there are fewer."""
    history, users = data.history("test"), np.arange(count) * max(data.n_users // count, 1) % data.n_users
    sizes = np.minimum(np.diff(history.offsets)[users], length)
    starts = history.offsets[users + 1] - sizes
    return [gather_padded(history.items, starts[i : i + 1], sizes[i : i + 1]) for i in range(count)]


def request_side(
    recommender: Recommender, requests: Sequence[Int[Tensor, "B T"]], width: int, masked: bool = False
) -> Side:
    """A search that takes the next of `requests` at each call; `masked` removes their events from the tree first."""
    turn = cycle(requests)

    def run() -> object:
        rows = next(turn)
        return recommender.beam(rows, width, rows if masked else None)

    return Side(run, len(requests[0]))


def latencies(
    models: Mapping[str, Recommender], requests: Sequence[Int[Tensor, "one T"]], width: int, masked: bool = False
) -> dict[str, np.ndarray]:
    """Milliseconds of each request and model, one user at a time, all models in turn, after three warm-up requests."""
    sides = {name: request_side(model, requests, width, masked) for name, model in models.items()}
    return {name: 1000 * spent for name, spent in interleave(sides, Plan(repetitions=len(requests)), 3).items()}


def percentiles(milliseconds: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """One line per model: number of requests, median (p50), p90, p99 and the ratio p99 / p50."""
    points = {name: np.percentile(spent, (50, 90, 99)) for name, spent in milliseconds.items()}
    return pl.DataFrame(
        {
            "model": list(points),
            "requests": [len(spent) for spent in milliseconds.values()],
            **{f"p{p} ms": [float(found[i]) for found in points.values()] for i, p in enumerate((50, 90, 99))},
            "p99 / p50": [float(found[2] / found[0]) for found in points.values()],
        }
    )


def axis_costs(config: Config, n_items: int) -> pl.DataFrame:
    """Cost of single requests and batches as one of the four sizes varies and the others stay as configured.

    All values and models of an axis are timed in turn. The catalogue axis always has the levels that its largest
    catalogue needs, so only the items vary; `masked` is the method with the user's events removed from the tree first.

    Returns: columns axis, value, own (whether the configuration has this value), model, kind (`single` or `batch`), ms
        (processor time per user, median), low and high (quartiles).
    """
    values, repetitions = VALUES[config.preset]
    own, built, frames = base(config, n_items), {}, []
    most, names = max(own.history, *values["T"]), {"L": "levels", "W": "beam", "T": "history", "N": "items"}
    for axis, field in names.items():
        start = replace(own, levels=catalogue_levels(config, n_items)) if axis == "N" else own
        shapes = {value: replace(start, **{field: value}) for value in sorted({*values[axis], getattr(own, field)})}
        for shape in shapes.values():
            if _model_of(shape) not in built:
                built[_model_of(shape)] = made_models(replace(shape, history=most), config)
        frames += _axis(axis, getattr(own, field), shapes, built, repetitions)
    return pl.concat(frames)


def _model_of(shape: Shape) -> tuple[int, int]:
    """The sizes that need their own models; the same models serve all beams and all history lengths."""
    return shape.levels, shape.items


def _axis(
    axis: str,
    own: int,
    shapes: Mapping[int, Shape],
    built: Mapping[tuple[int, int], Mapping[str, Recommender]],
    repetitions: tuple[int, int],
) -> list[pl.DataFrame]:
    """One axis of `axis_costs`, for single requests and for batches."""
    kinds = {"single": {}, "batch": {}}
    for value, shape in shapes.items():
        models, rows = built[_model_of(shape)], made_rows(BATCH, shape.history, shape.items)
        for kind, requests in (("single", rows.split(1)), ("batch", [rows])):
            for name, model in models.items():
                kinds[kind][value, name] = request_side(model, requests, shape.beam)
            if axis == "N":
                kinds[kind][value, "masked"] = request_side(models["bbqrec"], requests, shape.beam, masked=True)
    frames = []
    for (kind, sides), count in zip(kinds.items(), repetitions, strict=True):
        lines = []
        for (value, name), spent in interleave(sides, Plan(repetitions=count, clock="cpu")).items():
            low, middle, high = np.percentile(1000 * spent / sides[value, name].amount, (25, 50, 75))
            lines.append((axis, value, value == own, name, kind, float(middle), float(low), float(high)))
        frames.append(pl.DataFrame(lines, ["axis", "value", "own", "model", "kind", "ms", "low", "high"], orient="row"))
    return frames


class Trace(NamedTuple):
    """Trace of one search.

    seconds: by step, in order: `history`, then `level l, model` and `level l, search`. carried: number of rows that the
    model reads at each level, over all users. items, scores: the result of `Recommender.beam`.
    """

    seconds: dict[str, float]
    carried: tuple[int, ...]
    items: Int[Tensor, "B W"]
    scores: Tensor


class _Watched(Extendable):
    """A frontier that records the start and the end of each call from the search."""

    def __init__(self, make: Callable[[], Extendable], now: Callable[[], float]) -> None:
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
    """Search as `Recommender.beam` does, and record the time of each step.

    For a model that reads codes, the time of the first level is part of `history`.

    Raises: ValueError for a model that scores items, because its list does not come from the beam only.
    """
    if recommender.tree is None or recommender.model.items is not None:
        raise ValueError("a trace needs a model that emits only codes, got one that scores items")
    now = (plan or Plan()).now
    start = now()
    if recommender.model.per_item > 1:
        watched = _Watched(lambda: recommender.model.prompt(rows).frontier(), now)
        seconds = {"history": watched.marks[0][1] - start, "level 1, model": 0.0}
    else:
        prompt = recommender.model.prompt(rows)
        read = now() - start
        watched = _Watched(prompt.frontier, now)
        seconds = {"history": read, "level 1, model": watched.marks[0][1] - watched.marks[0][0]}
    items, scores = decoding.beam_search(watched, recommender.tree, width)
    ends = [*(begin for begin, _ in watched.marks[1:]), now()]
    for level, ((begin, answered), end) in enumerate(zip(watched.marks, ends, strict=True), start=1):
        seconds.setdefault(f"level {level}, model", answered - begin)
        seconds[f"level {level}, search"] = end - answered
    return Trace(seconds, tuple(watched.carried), items, scores)


@torch.inference_mode()
def gaps(recommender: Recommender, rows: Int[Tensor, "B T"], width: int) -> dict[str, float]:
    """Maximum change in nats of the scores of found lists by four shortcuts; only rounding errors are expected.

    Returns: `caches`: cached against whole IDs. `batch`: a batch against the first user only. `widest beam`: a beam
        that drops nothing against exact scores. `traced`: the search against the same search in `trace`.
    """
    # without backoff: the scores of the head
    plain = replace(recommender, tree=recommender.tree._replace(unseen=()))
    model, (items, scores) = plain.model, plain.beam(rows, width)
    found = items.flatten() > 0
    prompt = model.prompt(rows).select(torch.arange(len(rows)).repeat_interleave(items.shape[1])[found])
    whole = model.head(prompt.states, model.vectors.node[items.flatten()[found]], prompt.offsets)
    length = int((rows[0] > 0).sum())
    alone = plain.beam(rows[:1, :length], width)[1]
    exact = model.prompt(rows[:1, :length]).id_scores(plain.tree)[0, 1:]
    wide_items, wide = plain.beam(rows[:1, :length], plain.tree.leaves)
    real = wide_items[0] > 0
    pairs = {
        "caches": (scores.flatten()[found], whole),
        "batch": (scores[:1], alone),
        "widest beam": (wide[0][real], exact[wide_items[0][real] - 1]),
        "traced": (scores, trace(plain, rows, width).scores),
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
