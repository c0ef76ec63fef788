"""The studies of the notebook on time: which data are replayed and why, and variants under both splits."""

from dataclasses import replace

import numpy as np
import pytest
from replayed import made_stream

from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.replay import rounds, studies
from bbqrec_lab.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    """Few events, with times in seconds."""
    return made_stream(tmp_path_factory.mktemp("data")).source


def test_data_are_replayed_themselves_or_a_reason_is_told(
    data: NamedDataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = studies.data_of_time(data, "smoke", store, False)
    assert found[0].name == "planted-drift"
    assert "fewer than the 1000 that a replay needs" in found[1]
    monkeypatch.setattr(studies, "FEWEST", 10)
    assert studies.data_of_time(data, "smoke", store, False) == (data, "")
    positions = replace(data, timestamps=np.arange(len(data.timestamps)))
    found = studies.data_of_time(positions, "smoke", store, False)
    assert found[0].name == "planted-drift"
    assert "only positions" in found[1]
    assert "for a few days only" in studies.data_of_time(data, "smoke", store, True)[1]


def test_the_drift_lies_inside_the_replay_of_every_preset(store: Store) -> None:
    changing = studies.drift_data("smoke", store)
    assert studies.drift_data("smoke", store).content_hash == changing.content_hash
    stream = studies.stream_of(changing, "smoke")
    assert 0 < studies.drift_day(stream, "smoke") < (stream.moments[-1] - stream.moments[0]) / 86_400
    assert stream.asked.sum() == studies.SCALES["smoke"].periods * studies.SCALES["smoke"].asked
    assert {config.drift for config in studies.DRIFT.values()} == {0.9}  # the replay has the last fifth of the events


def test_variants_are_compared_under_both_splits(
    data: NamedDataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "COMPARED", ("popularity", "item-knn"))
    config = make_config("smoke")
    found = studies.compare_splits(data, config, store)
    assert list(found.means) == list(studies.SPLITS)
    for place, split in enumerate(studies.SPLITS):
        for variant, mean in found.means[split].items():
            value, low, high = found.bounds[variant][place]
            assert low <= value == mean <= high
    assert all(found.means[studies.SPLITS[1]][a] > found.means[studies.SPLITS[1]][b] for a, b in found.clear)
    assert studies.compare_splits(data, config, store) == found


def test_rows_that_train_again_are_asked_for(data: NamedDataset, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, config = studies.stream_of(data, "smoke"), make_config("smoke")
    counted = studies.replay_all(stream, config, store, False, ("popularity", "item-knn"))
    assert [(o.learner, o.policy) for o in counted] == [
        (learner, policy) for learner in ("popularity", "item-knn") for policy in ("nothing", "history", "updates")
    ]
    monkeypatch.setattr(rounds, "run_row", lambda stream, row, *_: counted[0]._replace(**vars(row)))
    asked = {}
    for preset in studies.SCALES:
        for again in (False, True):
            rows = studies.replay_all(stream, make_config(preset, 4), store, again)
            asked[preset, again] = {row.policy for row in rows}
            assert {row.seed for row in rows} == set(range(4, 4 + studies.SCALES[preset].seeds))
    assert "remade" in asked["smoke", False] & asked["quick", True] & asked["full", False]
    assert not {"remade", "retrained"} & asked["quick", False]
