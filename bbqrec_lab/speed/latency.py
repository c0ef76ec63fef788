"""One search, watched: how long each step takes, how many prefixes are read, and that shortcuts change no score."""

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
from bbqrec_core.recommender.decoding import Extendable, Frontier
from bbqrec_core.tokenizer.semantic_ids import append_extra
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.measure import Plan, Side, interleave

AXES = {"L": "codes of an ID", "W": "width of the beam", "T": "events of the history", "N": "items of the catalogue"}
VALUES = {  # by preset: values of each axis; repetitions of single requests, then of batches
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
BATCH = 32  # users of a batch, as sizes vary
REQUESTS = {"smoke": 40, "quick": 200, "full": 2000}  # by preset: single requests of each model, for p50 and p99


@dataclass(frozen=True)
class Shape:
    """What a request is about. levels: L. beam: W. history: T, all events there. items: N."""

    levels: int
    beam: int
    history: int
    items: int


def with_extra(ids: SemanticIds) -> SemanticIds:
    """The same IDs with TIGER's repair: one more code, whether anything collides or not."""
    table, size = append_extra(ids.code_ids)
    return replace(ids, code_ids=table, sizes=(*ids.sizes, size))


def contestants(n_items: int, ids: SemanticIds, config: Config) -> dict[str, Recommender]:
    """Untrained recommenders of the configured shape: the method; without reweighting; with an extra code; by codes."""
    settings = replace(config.recommender, output="codes", granularity="item", loss="ce", features=False)
    kinds = {
        "bbqrec": (ids, settings),
        "no reweighting": (ids, replace(settings, reweight=False)),
        "extra code": (with_extra(ids), settings),
        "code by code": (ids, replace(settings, granularity="code")),
    }
    return {
        name: build_recommender(n_items, own, chosen, config.seed, make=make_model)
        for name, (own, chosen) in kinds.items()
    }


def with_trained(models: dict[str, Recommender], scorer: object) -> dict[str, Recommender]:
    """The models with a trained one in the method's place, if it has that shape: it emits codes, and reads items."""
    fits = isinstance(scorer, Recommender) and scorer.tree is not None and scorer.model.items is None
    return models | ({"bbqrec": scorer} if fits and scorer.model.per_item == 1 else {})


def base(config: Config, n_items: int) -> Shape:
    """The shape that is varied: the preset's own, over a catalogue as large as the dataset's."""
    return Shape(config.tokenizer.levels, config.evaluation.beam, config.recommender.max_events, n_items)


def levels_for(items: int, codes: int, least: int = 1) -> int:
    """How many levels of `codes` codes leave at least twice as many IDs as items, and `least` at least."""
    levels = least
    while codes**levels < 2 * items:
        levels += 1
    return levels


def catalogue_levels(config: Config, n_items: int) -> int:
    """Levels of the axis of catalogues: as many as the largest of them needs."""
    largest = max(*VALUES[config.preset][0]["N"], n_items)
    return levels_for(largest, config.tokenizer.codes, config.tokenizer.levels)


def made_models(shape: Shape, config: Config) -> dict[str, Recommender]:
    """`contestants` of a shape over a made-up catalogue; where its codes are too few for its items, K is doubled."""
    codes = config.tokenizer.codes
    while codes**shape.levels < 2 * shape.items:
        codes *= 2
    ids = random_ids(shape.items, shape.levels, codes, config.tokenizer.code_width)
    settings = replace(config, recommender=replace(config.recommender, max_events=shape.history))
    return contestants(shape.items, ids, settings)


def made_rows(users: int, length: int, items: int, seed: int = 0) -> Int[Tensor, "users T"]:
    """Histories of random items, all of one length."""
    return torch.from_numpy(np.random.default_rng(seed).integers(1, items + 1, (users, length)))


def real_rows(data: Dataset, length: int, count: int) -> list[Int[Tensor, "one T"]]:
    """The last events of `count` users' test histories, from all parts of the table; fewer users come again."""
    history, users = data.history("test"), np.arange(count) * max(data.n_users // count, 1) % data.n_users
    sizes = np.minimum(np.diff(history.offsets)[users], length)
    starts = history.offsets[users + 1] - sizes
    return [gather_padded(history.items, starts[i : i + 1], sizes[i : i + 1]) for i in range(count)]


def request_side(
    recommender: Recommender, requests: Sequence[Int[Tensor, "B T"]], width: int, masked: bool = False
) -> Side:
    """A search for the next of `requests` at each call, all of them in turn; `masked` takes their events out first."""
    turn = cycle(requests)

    def run() -> object:
        rows = next(turn)
        return recommender.beam(rows, width, rows if masked else None)

    return Side(run, len(requests[0]))


def latencies(
    models: Mapping[str, Recommender], requests: Sequence[Int[Tensor, "one T"]], width: int, masked: bool = False
) -> dict[str, np.ndarray]:
    """Milliseconds of every request by every model, one user at a time and all models in turn, after three of each."""
    sides = {name: request_side(model, requests, width, masked) for name, model in models.items()}
    return {name: 1000 * spent for name, spent in interleave(sides, Plan(repetitions=len(requests)), 3).items()}


def percentiles(milliseconds: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """One line a model: requests, median (p50), p90, p99 and how many times the median p99 is."""
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
    """Requests as one of the four sizes varies and the others stay as configured, single ones and batches.

    All values and models of an axis take turns. The catalogue axis has as many levels as its largest catalogue needs
    throughout, so that only the items vary; `masked` is the method with the user's events taken out of the tree first.

    Returns: columns axis, value, own (whether the configuration has it), model, kind (`single` or `batch`), ms (of
        processor time for one user, median), low and high (quartiles).
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
    """What of a shape decides which models answer: a beam is asked of them, and shorter histories are read by them."""
    return shape.levels, shape.items


def _axis(
    axis: str,
    own: int,
    shapes: Mapping[int, Shape],
    built: Mapping[tuple[int, int], Mapping[str, Recommender]],
    repetitions: tuple[int, int],
) -> list[pl.DataFrame]:
    """One axis of `axis_costs`, by single requests and by batches."""
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
    """One search, watched.

    seconds: by step, in order: `history`, then `level l, model` and `level l, search`. carried: rows that the model
    read at each level, all users together. items, scores: what `Recommender.beam` returns.
    """

    seconds: dict[str, float]
    carried: tuple[int, ...]
    items: Int[Tensor, "B W"]
    scores: Tensor


class _Watched(Extendable):
    """A frontier that notes when the search asks it for more and when it has answered."""

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
    if recommender.model.per_item > 1:
        watched = _Watched(lambda: recommender.model.frontier(rows), now)
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
