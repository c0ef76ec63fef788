"""The split by time: one moment for all users, known targets alone, and what leave-one-out knows of the future."""

from dataclasses import replace
from pathlib import Path

import bundles
import numpy as np
import polars as pl
import pytest

from bbqrec_core.metrics import rank_users
from bbqrec_lab.baselines.counting import ItemKnn, Popularity
from bbqrec_lab.datasets import time_split
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.datasets.time_split import later_events, prior_events, split_by_time
from bbqrec_lab.settings import DataConfig

START = 1_000_000_000


def bundle(folder: Path, start: int = START) -> NamedDataset:
    """Two users of the whole time, one who comes late; item 14 comes last."""
    rows = [(1, 10, 0), (1, 11, 10), (1, 12, 20), (1, 13, 30), (1, 14, 95)]
    rows += [(2, 11, 5), (2, 10, 15), (2, 13, 60), (2, 12, 92), (3, 11, 81), (3, 10, 93), (3, 12, 97)]
    events = pl.DataFrame(
        [(u, i, start + t) for u, i, t in rows], schema=["user_id", "item_id", "timestamp"], orient="row"
    )
    return read_bundle(bundles.write(folder / f"toy{start}", events), DataConfig())


@pytest.fixture
def data(tmp_path: Path) -> NamedDataset:
    return bundle(tmp_path)


def names(data: NamedDataset, rows: np.ndarray) -> list[int]:
    return data.items["item_id"].to_numpy()[np.asarray(rows) - 1].tolist()


def test_training_is_before_all_targets_and_kinds_are_counted_apart(data: NamedDataset) -> None:
    split = split_by_time(data, 6 / 12, 2 / 12)  # moments: 60 and 92
    assert (split.valid_from, split.test_from) == (START + 60, START + 92)
    assert split.train().times.max() < split.valid_from
    found = {kind: names(data, data.sequences.items[events]) for kind, events in split.kinds("test").items()}
    assert found == {"known": [12], "new user": [10, 12], "new item": [14], "both new": []}
    assert {kind: len(events) for kind, events in split.kinds("valid").items()}["new user"] == 1


def test_a_history_has_all_events_of_the_user_before_the_target(data: NamedDataset) -> None:
    split = split_by_time(data, 6 / 12, 2 / 12)
    assert names(data, split.targets("test")) == [12]
    history = split.history("test")
    assert names(data, history.items) == [11, 10, 13]
    assert (history.times < split.test_from).all()
    every = prior_events(split.sequences, np.array([4, 0, 7]))
    assert np.diff(every.offsets).tolist() == [4, 0, 2]


@pytest.fixture
def many(tmp_path: Path) -> NamedDataset:
    """Thirty users with all of twelve items, at any time."""
    rng, rows = np.random.default_rng(0), []
    for user in range(30):
        times = START + rng.permutation(500)[:12]
        rows += [(user, int(item), int(time)) for item, time in zip(rng.permutation(12), times, strict=True)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    items = pl.DataFrame({"item_id": list(range(12)), "title": [str(n) for n in range(12)]})
    items = items.with_columns(
        text=pl.col("title"), image=pl.lit(None, pl.String), categories=pl.lit(None, pl.List(str))
    )
    return read_bundle(bundles.write(tmp_path / "many", events, items, {}), DataConfig())


def test_models_are_fitted_and_ranked_as_on_leave_one_out(many: NamedDataset) -> None:
    data, split = many, split_by_time(many)
    assert split.seen_items == "filtered"
    for model in (Popularity.fit(split), ItemKnn.fit(split)):
        asked = split.history("test"), split.targets("test"), np.arange(len(split.targets("test")))
        fast, slow = model.ranks(*asked)["filtered"], rank_users(model.scores, *asked)["filtered"]
        assert all((one == other).all() for one, other in zip(fast, slow, strict=True))
    assert Popularity.fit(split).counts.sum() == (data.timestamps < split.valid_from).sum()


def test_many_targets_are_drawn_by_a_seed(many: NamedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_split, "MOST_TARGETS", 1)
    split = split_by_time(many)
    assert split.n_users == len(split.targets("valid")) == 1
    assert len(split.kinds("valid")["known"]) > 1
    seeds = {replace(split, seed=seed).targets("valid")[0] for seed in range(9)}
    assert len(seeds) > 1


def test_positions_are_refused_in_words(tmp_path: Path) -> None:
    data = bundle(tmp_path, 0)
    for use in (split_by_time, later_events):
        with pytest.raises(ValueError, match=r"only positions .* choose data with timestamps in seconds"):
            use(data)


def test_shares_and_moments_without_a_target_are_refused(data: NamedDataset) -> None:
    with pytest.raises(ValueError, match="leave a test part"):
        split_by_time(data, 0.9, 0.1)
    with pytest.raises(ValueError, match="part must be"):
        split_by_time(data, 6 / 12, 2 / 12).history("train")
    with pytest.raises(ValueError, match="no known target"):
        split_by_time(data, 4 / 12, 2 / 12)


def test_leave_one_out_knows_the_future_of_other_users(data: NamedDataset) -> None:
    """Training events at 0, 10, 20, 5, 15, 81; test targets at 95, 92, 97; item 12 has one, at 20."""
    leak = later_events(data)
    assert np.allclose(leak.any_event, [0, 0, 0])
    early = data.timestamps.copy()
    early[data.sequences.offsets[2] - 1] = START + 16  # the target of the second user is now before events of others
    leak = later_events(replace(data, timestamps=early))
    assert np.allclose(leak.any_event, [0, 2 / 6, 0])
    assert np.allclose(leak.own_item, [np.nan, 1, 0], equal_nan=True)
