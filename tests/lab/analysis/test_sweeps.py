"""Size curves: which values are tried, and that a point is the row of exactly that size."""

from pathlib import Path

import polars as pl
import pytest
from tiny import ids_config, lab_recommender_config, lab_tokenizer_config, planted_data

from bbqrec_core import EvaluationConfig
from bbqrec_lab.analysis import sweeps
from bbqrec_lab.experiments.presets import Config, make_config, with_overrides
from bbqrec_lab.experiments.runs import run_variant
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import Store

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)


def test_values_lie_around_those_of_the_preset() -> None:
    found = sweeps.size_values(make_config("quick"))
    assert found == {
        "S": [8, 16, 32],
        "L": [2, 3, 4],
        "K": [64, 128, 256],
        "E": [32, 64, 128],
        "D": [32, 64, 128],
        "T": [25, 50, 100],
    }
    least = with_overrides(make_config("quick"), {"tokenizer.levels": 1})
    assert sweeps.size_values(least, ())["L"] == [1, 2]


def test_every_size_is_a_setting_that_can_be_set() -> None:
    for symbol, tried in sweeps.size_values(make_config("quick")).items():
        for value in tried:
            with_overrides(make_config("quick"), {sweeps.SIZES[symbol][0]: value})


def test_a_point_is_the_row_of_that_size(tmp_path: Path) -> None:
    data, store = planted_data(tmp_path), Store(tmp_path / "store")
    parts = ids_config(), lab_tokenizer_config(epochs=1), lab_recommender_config(epochs=1, evaluate_every=1)
    config = Config("smoke", 0, DataConfig(), *parts, EVALUATION)
    points = sweeps.size_curves(data, config, {"K": [4, 5], "S": [3, 4]}, (0, 1), store)
    assert points.select("size", "value", "seed").rows() == [
        (size, value, seed) for size, tried in (("K", (4, 5)), ("S", (3, 4))) for value in tried for seed in (0, 1)
    ]
    own = {"K": config.tokenizer.codes, "S": config.recommender.buckets}
    assert points["own"].to_list() == [value == own[size] for size, value in points.select("size", "value").rows()]
    runs = [path for path in store.root.glob("run-*") if path.is_dir()]
    assert len(runs) == 2 * (1 + (~points["own"]).sum() // 2)  # the own value is one row for all curves
    wanted = run_variant(data, "bbqrec", with_overrides(config, {"codes": 4}), store)
    ndcg = wanted.rows.filter((pl.col("segment") == "all") & (pl.col("metric") == "ndcg@10"))
    first = points.row(0, named=True)
    assert {name: first[name] for name in ("included", "filtered")} == dict(
        ndcg.select("seen_items", "value").iter_rows()
    )
    assert first["valid"] == wanted.cost["valid_ndcg@10"].item()


def test_the_gain_of_a_size_is_over_the_own_value_and_zero_if_that_is_best() -> None:
    lines = [("K", 8, False, 0.3), ("K", 8, False, 0.1), ("K", 16, True, 0.1), ("K", 16, True, 0.1)]
    lines += [("L", 2, True, 0.3), ("L", 3, False, 0.2)]
    lines += [("D", 8, False, 0.1), ("D", 32, False, 0.1), ("D", 16, True, 0.2)]
    gains, apart, at_end = sweeps.size_gains(
        pl.DataFrame(lines, schema=["size", "value", "own", "valid"], orient="row")
    )
    assert gains == pytest.approx({"codes per level K": 0.1, "levels L": 0.0, "model width D": 0.0})
    assert apart == pytest.approx(0.2 / 7)
    assert at_end == {"codes per level K", "levels L"}
