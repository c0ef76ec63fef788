"""Growth of the cost of each stage with items, users, history, code length and beam, extrapolated to a billion items.

Catalogues are synthetic and models untrained, except in evaluation: weights do not change the cost of a stage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.optim import AdamW

from bbqrec_core import Dataset, PrefixTree, Recommender, ResidualQuantizer, SequenceModel, build_tree, rank_users
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_core.training import Task, run_epoch, training_precision
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.measure import Plan, Side, interleave
from bbqrec_lab.speed import encoding, power_law
from bbqrec_lab.speed.latency import catalogue_levels, levels_for, made_rows

SIZES = {  # by preset: sizes along each axis, and number of timed repetitions
    "smoke": ({"vectors": (300, 1000, 3000, 10_000), "items": (100, 300, 1000), "users": 4, "T": (5, 10, 20)}, 3),
    "quick": (
        {
            "vectors": (1000, 3000, 10_000, 30_000, 100_000, 300_000),
            "items": (1000, 3000, 10_000, 30_000, 100_000),
            "users": 4,
            "T": (10, 25, 50, 100),
        },
        3,
    ),
    "full": (
        {
            "vectors": (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000),
            "items": (1000, 3000, 10_000, 30_000, 100_000),
            "users": 7,
            "T": (10, 25, 50, 100, 200),
        },
        5,
    ),
}
BILLION = 10**9
STEPS = 2  # training steps per repetition
ADAM = 4  # numbers stored per weight in training: the weight, its gradient and two moments


def tensor_bytes(*tensors: Tensor) -> int:
    """Total bytes of tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def tree_bytes(tree: PrefixTree) -> int:
    """Total bytes of the tensors of a prefix tree."""
    return sum(tensor_bytes(*(part if isinstance(part, tuple) else (part,))) for part in tree)


def epoch_side(model: SequenceModel, batches: list[Tensor]) -> Side:
    """One epoch of the training loop over given batches; the amount is the number of targets."""
    optimizer = AdamW(model.parameters(), lr=1e-3, fused=True)
    task = Task("recommender", model, [optimizer], lambda epoch: batches, model.loss)

    def run() -> None:
        with training_precision(task.device, model.config.precision):
            run_epoch(task, 0, 1, lambda *_: None)

    return Side(run, sum(int((rows[:, 1:] > 0).sum()) for rows in batches))


def _encoding(config: Config, sizes: tuple[int, ...]) -> tuple[dict[int, Side], dict[int, int]]:
    """Encoding of vectors by the residual quantizer; and the bytes of vectors and codes (whole bytes per code)."""
    settings, generator = config.tokenizer, torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(settings.levels, settings.codes, settings.code_width)
    vectors = torch.randn(max(sizes), settings.code_width, generator=generator)
    each = 4 * settings.code_width + settings.levels * ceil(np.log2(settings.codes) / 8)
    sides = {size: Side(lambda part=vectors[:size]: encoding.encode(quantizer, part)) for size in sizes}
    return sides, {size: size * each for size in sizes}


def _trees(config: Config, sizes: tuple[int, ...]) -> tuple[dict[int, Side], dict[int, int]]:
    """Building the prefix tree over distinct random IDs, long enough for the largest catalogue; and its bytes."""
    codes = config.tokenizer.codes
    levels = levels_for(max(sizes), codes, config.tokenizer.levels)
    tables = {size: random_ids(size, levels, codes, signals=()).code_ids for size in sizes}
    sides = {size: Side(lambda table=table: build_tree(table)) for size, table in tables.items()}
    return sides, {size: tree_bytes(build_tree(table)) for size, table in tables.items()}


def _training(config: Config, shapes: Mapping[int, tuple[int, int, int]], codes: bool) -> tuple[dict, dict]:
    """Training steps of `bbqrec` or SASRec over full windows; and the bytes of weights, gradients and moments.

    Args: shapes: size -> (items, levels, history).
    """
    settings = replace(config.recommender, output="codes" if codes else "items", granularity="item", features=False)
    sides, held = {}, {}
    for size, (items, levels, history) in shapes.items():
        ids = random_ids(items, levels, config.tokenizer.codes, config.tokenizer.code_width) if codes else None
        torch.manual_seed(config.seed)
        model = make_model(items, ids, replace(settings, max_events=history), None)
        batch = made_rows(max(settings.batch_events // history, 1), history + 1, items)
        sides[size] = epoch_side(model, [batch] * STEPS)
        held[size] = ADAM * tensor_bytes(*model.parameters())
    return sides, held


def _evaluation(recommender: Recommender, data: Dataset, config: Config, count: int) -> dict[int, Side]:
    """Ranking of test targets, exact or by beam search as in the tables; each size is half of the next one."""
    history, targets, batch = data.history("test"), data.targets("test"), config.evaluation.batch
    exact = data.n_items <= config.evaluation.exact_items

    def ranks(users: np.ndarray) -> object:
        if not exact:
            return beam_ranks(recommender, data, "test", users, config.evaluation)
        return rank_users(recommender.ranking_scores, history, targets, users, batch=batch)

    most = min(data.n_users, batch * 2 ** (count - 1))
    sizes, everyone = sorted({max(most // 2**step, 1) for step in range(count)}), np.arange(data.n_users)
    return {size: Side(lambda size=size: ranks(everyone[:size])) for size in sizes}


class _Curve(NamedTuple):
    """One curve: sides and bytes by size (`held` is empty if bytes are not measured), and steps per repetition."""

    stage: str
    axis: str
    sides: dict[int, Side]
    held: dict[int, int]
    steps: int


def _curves(config: Config, recommender: Recommender, data: Dataset) -> Iterator[_Curve]:
    """All curves of `measure`."""
    sizes, _ = SIZES[config.preset]
    own, length, items = config.tokenizer, config.recommender.max_events, min(data.n_items, max(sizes["items"]))
    yield _Curve("encode vectors", "items", *_encoding(config, sizes["vectors"]), 1)
    yield _Curve("build the tree", "items", *_trees(config, sizes["vectors"]), 1)
    levels = levels_for(max(sizes["items"]), own.codes, own.levels)
    for name, codes in (("training step, bbqrec", True), ("training step, sasrec", False)):
        along = {size: (size, levels, length) for size in sizes["items"]}
        yield _Curve(name, "items", *_training(config, along, codes), STEPS)
        along = {size: (items, levels, size) for size in sizes["T"]}
        yield _Curve(name, "history", _training(config, along, codes)[0], {}, STEPS)
    along = {size: (items, size, length) for size in range(levels, levels + 4)}
    yield _Curve("training step, bbqrec", "codes", _training(config, along, True)[0], {}, STEPS)
    yield _Curve("evaluation", "users", _evaluation(recommender, data, config, sizes["users"]), {}, 1)


def measure(config: Config, recommender: Recommender, data: Dataset) -> pl.DataFrame:
    """Measure time and memory of each stage along each axis; the sizes of a curve are timed in turn.

    Args: recommender: trained, used only for evaluation.
    Returns: columns stage, axis, size, cost (`seconds` of processor time, or `bytes`), value (median), low, high
        (quartiles; for bytes equal to the value).
    """
    lines = []
    for stage, axis, sides, held, steps in _curves(config, recommender, data):
        spent = interleave(sides, Plan(repetitions=SIZES[config.preset][1], clock="cpu"))
        for size, seconds in spent.items():
            low, middle, high = np.percentile(seconds / steps, (25, 50, 75))
            lines.append((stage, axis, size, "seconds", float(middle), float(low), float(high)))
        lines += [(stage, axis, size, "bytes", *[float(total)] * 3) for size, total in held.items()]
    return pl.DataFrame(lines, ["stage", "axis", "size", "cost", "value", "low", "high"], orient="row")


def of_requests(axes: pl.DataFrame, model: str = "bbqrec") -> pl.DataFrame:
    """The batches of `latency.axis_costs` in the form of `measure`: seconds per user of a batch."""
    names = {"L": "codes", "W": "beam", "T": "history", "N": "items"}
    chosen = axes.filter(pl.col("model") == model, pl.col("kind") == "batch")
    seconds = (pl.col(old).truediv(1000).alias(new) for old, new in (("ms", "value"), ("low", "low"), ("high", "high")))
    return chosen.select(
        pl.lit("generation, per user in a batch").alias("stage"),
        pl.col("axis").replace_strict(names).alias("axis"),
        pl.col("value").alias("size"),
        pl.lit("seconds").alias("cost"),
        *seconds,
    )


def fits(curves: pl.DataFrame) -> pl.DataFrame:
    """One line per curve: exponent with 95 % interval, exponent of the upper half, and the linear range."""
    lines = []
    for (stage, axis, cost), part in curves.group_by("stage", "axis", "cost", maintain_order=True):
        if part["size"].n_unique() < power_law.LEAST:
            continue
        found = power_law.growth(part["size"].to_numpy(), part["value"].to_numpy())
        sizes = f"{part['size'].min():,} to {part['size'].max():,}"
        power = found.power
        lines.append((stage, axis, cost, sizes, *power[:3], found.upper.exponent, power_law.described(found)))
    columns = ["stage", "grows with", "cost", "sizes", "exponent", "low", "high", "exponent, upper half", "linear"]
    return pl.DataFrame(lines, columns, orient="row")


def fits_in_words(found: pl.DataFrame) -> pl.DataFrame:
    """`fits` as a readable table: the exponent and its interval in one column, two decimals."""
    both = [
        f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in found.select("exponent", "low", "high").rows()
    ]
    upper = [f"{value:.2f}" for value in found["exponent, upper half"]]
    return found.select(
        *found.columns[:4],
        pl.Series("exponent (95 %)", both, pl.String),
        pl.Series("upper half", upper, pl.String),
        "linear",
    )


def at_a_billion(curves: pl.DataFrame, axes: pl.DataFrame, config: Config, data: Dataset) -> pl.DataFrame:
    """Extrapolated needs of a billion items: hours, or milliseconds per request, and gigabytes, each from its curve.

    Low and high are the two extrapolations of `power_law.beyond`. Assumptions: one core of this machine, enough memory,
    and costs that grow beyond the measured sizes as they do within them. IDs then need more levels, and each cost with
    codes is assumed to be proportional to the number of levels.
    """
    codes, levels = config.tokenizer.codes, levels_for(BILLION, config.tokenizer.codes)
    events, lines = len(data.train().items) / data.n_items, []
    batch = config.recommender.batch_events
    trained = f"{events:.1f} training events per item, as here, {batch:,} per step"
    wanted = {  # by stage: name of the row, number of times it runs, assumption
        "encode vectors": ("encode all items", 1, ""),
        "build the tree": ("build the tree", 1, ""),
        "training step, bbqrec": ("an epoch of bbqrec", events * BILLION / batch, trained),
        "training step, sasrec": ("an epoch of sasrec", events * BILLION / batch, trained),
    }
    for stage, (name, often, assumed) in wanted.items():
        part = curves.filter(pl.col("axis") == "items", pl.col("stage") == stage)
        longer = 1.0 if stage.endswith("sasrec") else levels / _levels(config, stage)
        heavier = 1.0 if stage == "encode vectors" else longer  # vectors fill that memory, whatever the levels
        time, held = (_beyond(part.filter(cost=cost), by) for cost, by in (("seconds", longer), ("bytes", heavier)))
        more = "" if longer == 1 else f"{levels} levels of {codes} codes"
        hours, assumed = (seconds * often / 3600 for seconds in time), "; ".join(filter(None, (assumed, more)))
        lines.append((name, "hours", *hours, held[1] / 1e9, assumed))
    longer = levels / catalogue_levels(config, data.n_items)
    assumed = f"{levels} levels of {codes} codes, beam {config.evaluation.beam}"
    names = {"bbqrec": "a request", "no score offsets": "a request without offsets of scores"}
    for model, name in (names | {"masked": "a request without its seen items"}).items():
        part = axes.filter(pl.col("axis") == "N", pl.col("kind") == "single", pl.col("model") == model)
        time = _beyond(part.select(pl.col("value").alias("size"), pl.col("ms").alias("value")), longer)
        lines.append((name, "ms", *time, None, assumed))
    return pl.DataFrame(lines, ["what", "unit", "low", "high", "GB", "assumed"], orient="row")


def least_certain(needs: pl.DataFrame) -> str:
    """Which number of `at_a_billion` is the least certain: its two extrapolations differ by the largest factor."""
    factor = needs.select("what", (pl.col("high") / pl.col("low")).alias("factor")).sort("factor", descending=True)
    what, widest = factor.row(0)
    return (
        f"The least certain time is that of {what}: its two extrapolations differ by a factor of "
        f"{float(f'{widest:.2g}'):,.0f}."
    )


def needs_in_words(needs: pl.DataFrame) -> pl.DataFrame:
    """`at_a_billion` as a readable table: both extrapolations in a suitable unit, two digits."""
    times = [_words(low, high, unit) for low, high, unit in needs.select("low", "high", "unit").rows()]
    held = ["" if size is None else f"{float(f'{size:.2g}'):,.0f} GB" for size in needs["GB"]]
    return needs.select("what", pl.Series("time", times), pl.Series("memory", held), "assumed")


def _words(low: float, high: float, unit: str) -> str:
    """A range of times in suitable units, from milliseconds to years."""
    units = {"ms": 1 / 3_600_000, "seconds": 1 / 3600, "minutes": 1 / 60, "hours": 1, "days": 24, "years": 24 * 365.25}
    texts = []
    for value in (low * units[unit], high * units[unit]):
        best = max((name for name in units if value >= units[name]), key=units.get, default="ms")
        number = float(f"{value / units[best]:.2g}")
        texts.append((f"{number:,.0f}" if number >= 10 else f"{number:g}", best))
    (first, one), (second, other) = texts
    return f"{first} to {second} {one}" if one == other else f"{first} {one} to {second} {other}"


def _levels(config: Config, stage: str) -> int:
    """The number of levels of a curve of `measure` over items."""
    own, (sizes, _) = config.tokenizer, SIZES[config.preset]
    if stage == "encode vectors":
        return own.levels
    return levels_for(max(sizes["vectors"] if stage == "build the tree" else sizes["items"]), own.codes, own.levels)


def _beyond(part: pl.DataFrame, factor: float) -> tuple[float, float]:
    """`power_law.beyond` of one curve at a billion items, times a factor."""
    low, high = power_law.beyond(power_law.growth(part["size"].to_numpy(), part["value"].to_numpy()), BILLION)
    return factor * low, factor * high
