"""The studies of the notebook on time: which data are replayed and why, and variants under both splits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replayed import made_stream

from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import planted
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.datasets.time_split import split_by_time
from bbqrec_lab.experiments.committed_rows import events_hash
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.replay import rounds, studies
from bbqrec_lab.store import Store

TINY = {"recommender.epochs": 1, "recommender.min_steps": 0, "recommender.width": 8, "recommender.layers": 1}


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
    found = studies.data_of_time(data, "smoke", store)
    assert found[0].name == "planted-drift"
    assert "fewer than the 1000 that a replay needs" in found[1]
    monkeypatch.setattr(studies, "FEWEST", 10)
    assert studies.data_of_time(data, "smoke", store) == (data, "")
    positions = replace(data, timestamps=np.arange(len(data.timestamps)))
    found = studies.data_of_time(positions, "smoke", store)
    assert found[0].name == "planted-drift"
    assert "only positions" in found[1]
    assert "for a few days only" in studies.data_of_time(data, "smoke", store, ("leaf", "level_1"))[1]
    changing = studies.drift_data("smoke", store)
    (folder,) = store.root.glob("drift-*/planted-drift")
    truth = planted.load_truth(folder, changing)
    assert studies.data_of_time(changing, "smoke", store, truth) == (changing, "")


def test_an_interruption_of_the_planted_data_is_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, config: object) -> None:
        (path / "interactions.parquet").write_bytes(b"half")
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(planted, "write_planted", killed)
        with pytest.raises(KeyboardInterrupt):
            studies.drift_data("smoke", store)
    (partial,) = (folder for folder in tmp_path.iterdir() if folder.is_dir())
    (partial / "planted-drift").mkdir()  # as left by an older version
    (partial / "planted-drift" / "items.parquet").write_bytes(b"half")
    assert studies.drift_data("smoke", store).n_items == studies.DRIFT["smoke"].items


def test_a_rival_that_is_too_large_is_left_out_with_a_reason(
    data: NamedDataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = studies.stream_of(data, "smoke")
    assert studies.left_out(stream) == {}
    monkeypatch.setattr(studies, "DENSE_ITEMS", stream.n_items - 1)
    found = studies.replay_all(stream, make_config("smoke"), store, False, ("popularity", "item-knn"))
    assert {outcome.learner for outcome in found} == {"popularity"}
    assert f"{stream.n_items} items would be too large" in studies.left_out(stream)["item-knn"]


def test_ranks_by_time_depend_on_the_numbering_and_keep_no_checkpoints(data: NamedDataset, tmp_path: Path) -> None:
    store, split, config = Store(tmp_path), split_by_time(data), make_config("smoke", overrides=TINY)
    studies.ranks_by_time(data, split, "sasrec", config, store)
    (folder,) = tmp_path.glob("by-time-*[0-9a-f]")
    assert {path.name for path in folder.iterdir()} == {"ranks.npz", "manifest.json"}
    key = json.loads((folder / "manifest.json").read_text())["key"]
    assert key["events"] == events_hash(split.sequences)
    assert key["code"] != code_hash(*studies.CODE)  # this module counts too


def test_ids_that_cannot_be_replayed_are_refused_before_any_training(data: NamedDataset, tmp_path: Path) -> None:
    config = make_config("smoke", overrides={"ids.source": "random"})
    with pytest.raises(ValueError, match="source=random"):
        studies.compare_splits(data, config, Store(tmp_path))
    assert not list(tmp_path.iterdir())


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
    assert all(found.means[studies.SPLITS[1]][a] > found.means[studies.SPLITS[1]][b] for a, b in found.ahead)
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
