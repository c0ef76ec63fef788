"""What a request costs: single ones, batches, and each step of one, with the settings that users can turn.

Weights do not change how long a request takes, so wherever sizes vary, models are built and not trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from .batching import gather_padded
from .config import Config
from .data import Dataset
from .made import random_ids
from .recommender import Recommender, build_recommender
from .semantic_ids import SemanticIds, append_extra
from .timing import Plan, Side, interleave

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
    return {name: build_recommender(n_items, own, chosen, config.seed) for name, (own, chosen) in kinds.items()}


def with_trained(models: dict[str, Recommender], scorer: object) -> dict[str, Recommender]:
    """The models with a trained one in the method's place, if it has that shape: it emits codes, and reads items."""
    fits = isinstance(scorer, Recommender) and scorer.tree is not None and scorer.model.items is None
    return models | ({"bbqrec": scorer} if fits and not scorer.by_beam else {})


def base(config: Config, n_items: int) -> Shape:
    """The shape that is varied: the preset's own, over a catalogue as large as the dataset's."""
    return Shape(config.tokenizer.levels, config.evaluation.beam, config.recommender.history, n_items)


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
    settings = replace(config, recommender=replace(config.recommender, history=shape.history))
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
