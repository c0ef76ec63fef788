"""Every row runs on every bundle that is good for `bbqrec data check`, however odd."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from odd_bundles import BUNDLES
from tiny import run_config

from bbqrec_core import EvaluationConfig
from bbqrec_lab.datasets import sources
from bbqrec_lab.datasets.usable import usable
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.presets import Config, make_config
from bbqrec_lab.experiments.variants import VARIANTS
from bbqrec_lab.store import Store

FEW = ("bbqrec", "popularity", "content-knn", "gsasrec", "rq-kmeans")  # one of each kind of model and of ID
EVALUATION = EvaluationConfig(early_users=20, beam=8, exact_items=1000, batch=64)
SMALL = run_config(0, EVALUATION, r_score_reweight=True, r_score_steps=2)


def ran(folder: Path, name: str, rows: tuple[str, ...], config: Config) -> pl.DataFrame:
    """The results of rows on one of the bundles, which a check calls good."""
    data = sources.load(BUNDLES[name](folder / name), config.data)
    assert usable(data, folder).height > 0
    store = Store(folder / "artefacts")
    return pl.concat([runs.run_variant(data, row, config, store).rows for row in rows])


@pytest.mark.parametrize("name", BUNDLES)
def test_rows_of_each_kind_run_on_odd_bundles(name: str, tmp_path: Path) -> None:
    found = ran(tmp_path, name, FEW, SMALL)
    assert found["value"].is_finite().all()
    assert set(found["variant"]) == set(FEW)


def test_a_row_on_which_nothing_is_left_to_recommend_keeps_its_ranks(tmp_path: Path) -> None:
    found = ran(tmp_path, "all-seen", ("popularity",), SMALL)
    ndcg = {mode: value for mode, value in found.filter(metric="ndcg@10", segment="all")["seen_items", "value"].rows()}
    assert ndcg["filtered"] == 0 < ndcg["included"]


def test_one_number_has_an_axis_that_keeps_its_size() -> None:
    from bbqrec_lab.baselines.control_tokenizers import leading_axes

    price = np.array([[0.0], [1], [5], [-2]])
    axes = leading_axes(price, np.array([1, 2, 3]), 4)
    assert np.abs(np.diff(axes[1:, 0])) == pytest.approx([4, 7], abs=1e-5)
    assert leading_axes(price, np.array([2]), 4).shape == (4, 1)


@pytest.mark.suite
@pytest.mark.parametrize("name", BUNDLES)
def test_every_row_runs_on_every_odd_bundle(name: str, tmp_path: Path) -> None:
    assert ran(tmp_path, name, tuple(VARIANTS), make_config("smoke"))["value"].is_finite().all()
