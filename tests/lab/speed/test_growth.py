"""Curves of cost: which sizes each stage is timed at, what is counted, and what is read off. No time is asserted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny import lab_recommender_config, planted_data

from bbqrec_core import Dataset, build_recommender, build_tree, metrics
from bbqrec_lab.datasets import synthetic
from bbqrec_lab.datasets.synthetic import random_ids
from bbqrec_lab.experiments.presets import Config, make_config
from bbqrec_lab.speed import growth, latency

SMALL = {"vectors": (20, 40, 80), "items": (10, 20, 40), "users": 3, "T": (2, 3, 4)}


def small() -> Config:
    config = make_config("smoke", 0, {"codes": 4, "levels": 2, "beam": 5, "evaluation.batch": 4})
    return replace(config, recommender=lab_recommender_config(batch_events=12))


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return planted_data(tmp_path)


@pytest.fixture
def curves(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    monkeypatch.setitem(growth.SIZES, "smoke", (SMALL, 2))
    model = build_recommender(data.n_items, random_ids(data.n_items, 3, 4, 6), small().recommender, 0)
    return growth.measure(small(), model, data)


def test_every_stage_is_timed_at_every_size_and_bytes_are_counted(curves: pl.DataFrame) -> None:
    found = {key: part["size"].to_list() for key, part in curves.group_by("stage", "axis", "cost", maintain_order=True)}
    steps = ("training step, bbqrec", "training step, sasrec")
    expected = {("encode vectors", "items"): [20, 40, 80], ("build the tree", "items"): [20, 40, 80]}
    expected |= {(step, "items"): [10, 20, 40] for step in steps} | {(step, "history"): [2, 3, 4] for step in steps}
    expected |= {("training step, bbqrec", "codes"): [4, 5, 6, 7], ("evaluation", "users"): [4, 8, 16]}
    assert {key[:2]: sizes for key, sizes in found.items() if key[2] == "seconds"} == expected
    assert {key[:2] for key in found if key[2] == "bytes"} == {key for key in expected if key[1] == "items"}
    assert (curves["value"] > 0).all()


def test_made_up_ids_of_more_than_64_bits_are_distinct() -> None:
    table = random_ids(500, 8, 256, 4, signals=()).code_ids[1:]
    assert len(np.unique(table, axis=0)) == 500
    assert table.min() >= 0
    assert table.max() == 255


def test_bytes_are_those_of_the_things_themselves(curves: pl.DataFrame) -> None:
    held = {row["stage"]: row for row in curves.filter(pl.col("cost") == "bytes", pl.col("size") == 40).to_dicts()}
    assert held["encode vectors"]["value"] == 40 * (4 * small().tokenizer.code_width + 2)
    tree = build_tree(random_ids(40, 4, 4, signals=()).code_ids)
    parts = [*tree.first, *tree.code, *tree.parent, tree.leaf, tree.items, tree.starts, tree.max_fanout]
    assert held["build the tree"]["value"] == sum(4 * len(part) for part in parts)  # all numbers have 32 bits
    model = build_recommender(40, None, replace(small().recommender, output="items"), 0).model
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert held["training step, sasrec"]["value"] == 4 * 4 * weights


def test_an_epoch_trains_and_counts_its_targets() -> None:
    model = build_recommender(20, None, replace(small().recommender, output="items"), 0).model
    before = model.items.weight.detach().clone()
    side = growth.epoch_side(model, [torch.tensor([[1, 2, 3], [4, 5, 0]])])
    side.run()
    assert side.amount == 3
    assert not torch.equal(before, model.items.weight)


def test_evaluation_ranks_the_users_that_its_size_says(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_recommender(data.n_items, random_ids(data.n_items, 3, 4, 6), small().recommender, 0)
    asked = []
    rank_users = metrics.rank_users
    monkeypatch.setattr(growth, "rank_users", lambda *a, **k: asked.append(len(a[3])) or rank_users(*a, **k))
    sides = growth._evaluation(model, data, small(), 3)
    assert {size: len(side.run()["included"].greater) for size, side in sides.items()} == {4: 4, 8: 8, 16: 16}
    assert asked == [4, 8, 16]
    few = make_config("smoke", 0, {"exact_items": 1, "evaluation.batch": 64, "beam": 5})
    beams = growth._evaluation(model, data, few, 2)
    assert {size: len(side.run().greater) for size, side in beams.items()} == {11: 11, 23: 23}  # no more than there are
    assert asked == [4, 8, 16]


def made_curves(exponent: float) -> pl.DataFrame:
    """A curve of seconds for each stage over items, cost = 1e-6 * size ** exponent, and one byte an item."""
    sizes = np.array([1000, 3000, 10_000, 30_000, 100_000])
    stages = ("encode vectors", "build the tree", "training step, bbqrec", "training step, sasrec")
    lines = [
        (stage, "items", size, cost, *[value] * 3)
        for stage in stages
        for size in sizes.tolist()
        for cost, value in (("seconds", 1e-6 * size**exponent), ("bytes", float(size)))
    ]
    return pl.DataFrame(lines, ["stage", "axis", "size", "cost", "value", "low", "high"], orient="row")


def test_fits_give_the_planted_exponent_of_every_curve() -> None:
    found = growth.fits(made_curves(1.5))
    assert found.height == 8
    times = found.filter(pl.col("cost") == "seconds")
    assert times["exponent"].to_list() == pytest.approx([1.5] * 4)
    assert times["exponent, upper half"].to_list() == pytest.approx([1.5] * 4)
    assert set(times["linear"]) == {"up to 1,600"}
    assert set(found.filter(pl.col("cost") == "bytes")["linear"]) == {"throughout"}
    assert set(found["sizes"]) == {"1,000 to 100,000"}
    assert growth.fits(made_curves(1.5).filter(pl.col("size") < 5000)).height == 0  # two points are no fit


def test_a_billion_items_are_what_linear_costs_say(data: Dataset) -> None:
    config = make_config("quick")
    axes = pl.DataFrame(
        [
            {
                "axis": "N",
                "value": size,
                "own": False,
                "model": model,
                "kind": "single",
                "ms": ms,
                "low": ms,
                "high": ms,
            }
            for model, unit in (("bbqrec", 0.0), ("masked", 1e-4), ("no score offsets", 0.0))
            for size, ms in ((size, 3 + unit * size) for size in (1000, 10_000, 100_000))
        ]
    )
    found = growth.at_a_billion(made_curves(1.0), axes, config, data)
    rows = {row["what"]: row for row in found.to_dicts()}
    levels = latency.levels_for(10**9, 128)  # 5; all curves above were made with 3
    assert levels == 5
    assert rows["encode all items"]["low"] == pytest.approx(1000 * 5 / 3 / 3600)
    assert rows["encode all items"]["high"] == pytest.approx(1000 * 5 / 3 / 3600)
    assert rows["build the tree"]["GB"] == pytest.approx(5 / 3)
    assert rows["encode all items"]["GB"] == pytest.approx(1)  # vectors do not grow with the levels
    events = len(data.train().items) / data.n_items
    steps = events * 1e9 / config.recommender.batch_events
    assert rows["an epoch of sasrec"]["high"] == pytest.approx(1000 * steps / 3600)
    assert rows["an epoch of bbqrec"]["high"] == pytest.approx(1000 * steps / 3600 * 5 / 3)
    assert rows["a request"]["high"] == pytest.approx(3 * 5 / 3, rel=1e-3)
    masked = rows["a request without its seen items"]
    assert masked["high"] == pytest.approx((3 + 1e5) * 5 / 3, rel=1e-3)
    assert masked["low"] < masked["high"]
    assert "5 levels of 128 codes" in rows["an epoch of bbqrec"]["assumed"]
    assert "levels" not in rows["an epoch of sasrec"]["assumed"]


def test_spans_of_time_are_said_in_units_that_suit_them() -> None:
    lines = [("a", "hours", 0.0005, 0.02, 264.4), ("b", "hours", 3.14, 3.2, 1628.0), ("c", "hours", 5000.0, 1e6, 0.04)]
    lines.append(("d", "ms", 5.457, 512044.8, None))
    needs = pl.DataFrame(lines, ["what", "unit", "low", "high", "GB"], orient="row").with_columns(assumed=pl.lit("x"))
    found = growth.needs_in_words(needs)
    assert found["time"].to_list() == [
        "1.8 seconds to 1.2 minutes",
        "3.1 to 3.2 hours",
        "210 days to 110 years",
        "5.5 ms to 8.5 minutes",
    ]
    assert found["memory"].to_list() == ["260 GB", "1,600 GB", "0 GB", ""]


def test_the_least_certain_time_is_the_one_whose_extrapolations_differ_most() -> None:
    needs = pl.DataFrame({"what": ["an epoch", "a request"], "low": [8.4, 17.0], "high": [2800.0, 22_000.0]})
    assert growth.least_certain(needs) == (
        "The least certain time is that of a request: its two extrapolations differ by a factor of 1,300."
    )
    assert "of an epoch:" in growth.least_certain(needs.with_columns(high=pl.Series([2800.0, 34.0])))


def test_exponents_are_said_with_their_interval() -> None:
    found = growth.fits_in_words(growth.fits(made_curves(1.5)))
    assert set(found["exponent (95 %)"]) == {"1.50 (1.50 to 1.50)", "1.00 (1.00 to 1.00)"}
    assert found.columns == ["stage", "grows with", "cost", "sizes", "exponent (95 %)", "upper half", "linear"]


def test_a_billion_is_reckoned_from_the_levels_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    make = synthetic.random_ids
    monkeypatch.setattr(
        growth, "random_ids", lambda n, levels, *a, **k: seen.append(levels) or make(n, levels, *a, **k)
    )
    growth._trees(small(), (20, 40, 200))
    assert seen == [5, 5, 5]  # 4^4 IDs are fewer than 400
    monkeypatch.setitem(growth.SIZES, "smoke", (SMALL | {"vectors": (20, 40, 200)}, 2))
    stages = ("encode vectors", "build the tree", "training step, bbqrec")
    assert [growth._levels(small(), stage) for stage in stages] == [2, 5, 4]
