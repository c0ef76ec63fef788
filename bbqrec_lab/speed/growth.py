"""How the cost of each stage grows with items, users, history, code length and beam, and what a billion items need.

Catalogues are made up and models untrained, but for evaluation: weights do not change what a stage costs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.optim import AdamW

from bbqrec_core import Dataset, PrefixTree, Recommender, ResidualQuantizer, SequenceModel, build_tree, rank_users
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_core.training import Task, run_epoch
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.measure import Plan, Side, interleave
from bbqrec_lab.speed import power_law
from bbqrec_lab.speed.latency import catalogue_levels, levels_for, made_rows

SIZES = {  # by preset: sizes along each axis, and how often each is timed
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
STEPS = 2  # training steps in a repetition
ADAM = 4  # numbers kept for each weight in training: itself, its gradient and two moments


def tensor_bytes(*tensors: Tensor) -> int:
    """Bytes that tensors hold."""
    return sum(tensor.nbytes for tensor in tensors)


def tree_bytes(tree: PrefixTree) -> int:
    """Bytes of a prefix tree's tensors."""
    return sum(tensor_bytes(*(part if isinstance(part, tuple) else (part,))) for part in tree)


def epoch_side(model: SequenceModel, batches: list[Tensor]) -> Side:
    """One epoch of the training loop over given batches; the amount is its targets."""
    optimizer = AdamW(model.parameters(), lr=1e-3, fused=True)
    task = Task("recommender", model, [optimizer], lambda epoch: batches, model.loss)
    return Side(lambda: run_epoch(task, 0, 1, lambda *_: None), sum(int((rows[:, 1:] > 0).sum()) for rows in batches))


def _encoding(config: Config, sizes: tuple[int, ...]) -> tuple[dict[int, Side], dict[int, int]]:
    """Vectors to codes by the residual quantizer; and the bytes of the vectors and of codes, one byte a code."""
    settings, generator = config.tokenizer, torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(settings.levels, settings.codes, settings.code_width)
    vectors = torch.randn(max(sizes), settings.code_width, generator=generator)
    each = 4 * settings.code_width + settings.levels * ceil(np.log2(settings.codes) / 8)
    sides = {size: Side(lambda part=vectors[:size]: quantizer.encode(part)) for size in sizes}
    return sides, {size: size * each for size in sizes}


def _trees(config: Config, sizes: tuple[int, ...]) -> tuple[dict[int, Side], dict[int, int]]:
    """The prefix tree over distinct random IDs, as long as the largest catalogue needs."""
    codes = config.tokenizer.codes
    levels = levels_for(max(sizes), codes, config.tokenizer.levels)
    tables = {size: random_ids(size, levels, codes, signals=()).code_ids for size in sizes}
    sides = {size: Side(lambda table=table: build_tree(table)) for size, table in tables.items()}
    return sides, {size: tree_bytes(build_tree(table)) for size, table in tables.items()}


def _training(config: Config, shapes: Mapping[int, tuple[int, int, int]], codes: bool) -> tuple[dict, dict]:
    """Training steps over full windows, of `bbqrec` or of SASRec; and the bytes of weights, gradients and moments.

    Args: shapes: by size, the items, levels and history that it stands for.
    """
    settings = replace(config.recommender, output="codes" if codes else "items", granularity="item", features=False)
    sides, held = {}, {}
    for size, (items, levels, history) in shapes.items():
        ids = random_ids(items, levels, config.tokenizer.codes, config.tokenizer.code_width) if codes else None
        torch.manual_seed(config.seed)
        model = make_model(items, ids, replace(settings, max_events=history), None)
        batch = made_rows(settings.batch_users, history + 1, items)
        sides[size] = epoch_side(model, [batch] * STEPS)
        held[size] = ADAM * tensor_bytes(*model.parameters())
    return sides, held


def _evaluation(recommender: Recommender, data: Dataset, config: Config, count: int) -> dict[int, Side]:
    """Ranks of users' test targets, exactly or by beam as in the tables; each size is half as large as the next."""
    history, targets, batch = data.history("test"), data.targets("test"), config.evaluation.batch
    exact = data.n_items <= config.evaluation.exact_items

    def ranks(users: np.ndarray) -> object:
        if not exact:
            return beam_ranks(recommender, data, "test", users, config.evaluation)
        scores = lambda asked, some: recommender.ranking_scores(asked, some, targets[some])  # noqa: E731
        return rank_users(scores, history, targets, users, batch=batch)

    most = min(data.n_users, batch * 2 ** (count - 1))
    sizes, everyone = sorted({max(most // 2**step, 1) for step in range(count)}), np.arange(data.n_users)
    return {size: Side(lambda size=size: ranks(everyone[:size])) for size in sizes}


def _curves(config: Config, recommender: Recommender, data: Dataset) -> Iterator[tuple]:
    """Each curve: stage, axis, sides by size, bytes by size (empty where they say nothing), steps in a repetition."""
    sizes, _ = SIZES[config.preset]
    own, length, items = config.tokenizer, config.recommender.max_events, min(data.n_items, max(sizes["items"]))
    yield "encode vectors", "items", *_encoding(config, sizes["vectors"]), 1
    yield "build the tree", "items", *_trees(config, sizes["vectors"]), 1
    levels = levels_for(max(sizes["items"]), own.codes, own.levels)
    for name, codes in (("training step, bbqrec", True), ("training step, sasrec", False)):
        along = {size: (size, levels, length) for size in sizes["items"]}
        yield name, "items", *_training(config, along, codes), STEPS
        along = {size: (items, levels, size) for size in sizes["T"]}
        yield name, "history", _training(config, along, codes)[0], {}, STEPS
    along = {size: (items, size, length) for size in range(levels, levels + 4)}
    yield "training step, bbqrec", "codes", _training(config, along, True)[0], {}, STEPS
    yield "evaluation", "users", _evaluation(recommender, data, config, sizes["users"]), {}, 1


def measure(config: Config, recommender: Recommender, data: Dataset) -> pl.DataFrame:
    """Time every stage along every axis, the sizes of a curve in turn, and count the bytes that it holds.

    Args: recommender: trained, for evaluation alone.
    Returns: columns stage, axis, size, cost (`seconds` of processor time, or `bytes`), value (median), low, high
        (quartiles; bytes have no spread).
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
    """The batches of `latency.axis_costs` as curves of `measure`: seconds for one user of a batch."""
    names = {"L": "codes", "W": "beam", "T": "history", "N": "items"}
    chosen = axes.filter(pl.col("model") == model, pl.col("kind") == "batch")
    seconds = (pl.col(old).truediv(1000).alias(new) for old, new in (("ms", "value"), ("low", "low"), ("high", "high")))
    return chosen.select(
        pl.lit("generation, a user of a batch").alias("stage"),
        pl.col("axis").replace_strict(names).alias("axis"),
        pl.col("value").alias("size"),
        pl.lit("seconds").alias("cost"),
        *seconds,
    )


def fits(curves: pl.DataFrame) -> pl.DataFrame:
    """One line a curve: its exponent with a 95 % interval, that of the upper half, and where it is linear."""
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
    """`fits` to be read: the exponent with its interval in one column, two decimals."""
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
    """What a billion items would need: hours, or milliseconds of a request, and gigabytes, each from its own curve.

    Low and high are the two readings of `power_law.beyond`. Assumed: one core of this machine, memory for all that is
    held, and costs that grow beyond what was measured as they did up to there. IDs need more levels then, and
    every cost with codes is taken to grow in proportion to them.
    """
    codes, levels = config.tokenizer.codes, levels_for(BILLION, config.tokenizer.codes)
    events, lines = len(data.train().items) / data.n_items, []
    batch = config.recommender.batch_users * config.recommender.max_events
    trained = f"{events:.1f} training events an item, as here, {batch:,} a step"
    wanted = {  # by stage: what is told of it, how often it happens, what it assumes
        "encode vectors": ("encode all items", 1, ""),
        "build the tree": ("build the tree", 1, ""),
        "training step, bbqrec": ("an epoch of bbqrec", events * BILLION / batch, trained),
        "training step, sasrec": ("an epoch of sasrec", events * BILLION / batch, trained),
    }
    for stage, (name, often, assumed) in wanted.items():
        part = curves.filter(pl.col("axis") == "items", pl.col("stage") == stage)
        longer = 1.0 if stage.endswith("sasrec") else levels / _levels(config, stage)
        time, held = (_beyond(part.filter(pl.col("cost") == cost), longer) for cost in ("seconds", "bytes"))
        more = "" if longer == 1 else f"{levels} levels of {codes} codes"
        hours, assumed = (seconds * often / 3600 for seconds in time), "; ".join(filter(None, (assumed, more)))
        lines.append((name, "hours", *hours, held[1] / 1e9, assumed))
    longer = levels / catalogue_levels(config, data.n_items)
    assumed = f"{levels} levels of {codes} codes, beam {config.evaluation.beam}"
    for model, name in (("bbqrec", "a request"), ("masked", "a request, its history taken out of the tree")):
        part = axes.filter(pl.col("axis") == "N", pl.col("kind") == "single", pl.col("model") == model)
        time = _beyond(part.select(pl.col("value").alias("size"), pl.col("ms").alias("value")), longer)
        lines.append((name, "ms", *time, None, assumed))
    return pl.DataFrame(lines, ["what", "unit", "low", "high", "GB", "assumed"], orient="row")


def needs_in_words(needs: pl.DataFrame) -> pl.DataFrame:
    """`at_a_billion` to be read: both readings with a unit that suits them, two digits."""
    times = [_words(low, high, unit) for low, high, unit in needs.select("low", "high", "unit").rows()]
    held = ["" if size is None else f"{float(f'{size:.2g}'):,.0f} GB" for size in needs["GB"]]
    return needs.select("what", pl.Series("time", times), pl.Series("memory", held), "assumed")


def _words(low: float, high: float, unit: str) -> str:
    """A span of times: seconds, minutes, hours, days or years, or milliseconds as they are."""
    units = {"seconds": 1 / 3600, "minutes": 1 / 60, "hours": 1, "days": 24, "years": 24 * 365.25}
    texts = []
    for value in (low, high):
        best = (
            unit if unit != "hours" else max((u for u in units if value >= units[u]), key=units.get, default="seconds")
        )
        number = float(f"{value / units[best] if unit == 'hours' else value:.2g}")
        texts.append((f"{number:,.0f}" if number >= 10 else f"{number:g}", best))
    (first, one), (second, other) = texts
    return f"{first} to {second} {one}" if one == other else f"{first} {one} to {second} {other}"


def _levels(config: Config, stage: str) -> int:
    """How many levels a curve of `measure` over items was measured with."""
    own, (sizes, _) = config.tokenizer, SIZES[config.preset]
    if stage == "encode vectors":
        return own.levels
    return levels_for(max(sizes["vectors"] if stage == "build the tree" else sizes["items"]), own.codes, own.levels)


def _beyond(part: pl.DataFrame, factor: float) -> tuple[float, float]:
    """`power_law.beyond` of one curve at a billion, times a factor."""
    low, high = power_law.beyond(power_law.growth(part["size"].to_numpy(), part["value"].to_numpy()), BILLION)
    return factor * low, factor * high
