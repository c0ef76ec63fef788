"""Rows that are committed with the code: equal tables without training, never for other settings or other events."""

import argparse
import zipfile
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tiny import planted_data, run_config

from bbqrec_core import EvaluationConfig, metrics
from bbqrec_lab.experiments import committed_rows, estimates, runs
from bbqrec_lab.experiments.presets import with_overrides
from bbqrec_lab.store import Store
from benchmarks import tables as committing

EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
UNPAIRED = ["coverage@10", "gini@10", "popularity@10"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("committed"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of committed rows, in place of that of the project."""
    monkeypatch.setattr(committed_rows, "row_file", _below(tmp_path / "figures"))
    return tmp_path / "figures"


def _below(home):
    return lambda dataset, preset, variant, seed, folder=home: (
        folder / dataset / preset / "rows" / f"{variant}-{seed}.zip"
    )


def no_training(*args, **named):
    raise AssertionError("a committed row was trained")


def test_a_committed_row_gives_the_same_tables_without_training(data, home, tmp_path, monkeypatch):
    config, store = run_config(0, EVALUATION), Store(tmp_path / "made")
    paths = [runs.commit_row(data, name, config, store, home) for name in ("bbqrec", "sasrec", "popularity")]
    assert [path.name for path in paths] == ["bbqrec-0.zip", "sasrec-0.zip", "popularity-0.zip"]
    trained = [runs.run_variant(data, path.stem[:-2], config, store) for path in paths]
    monkeypatch.setattr(runs, "_make_run", no_training)
    found = [runs.find_row(data, path.stem[:-2], config, Store(tmp_path / "fresh")) for path in paths]
    for ours, theirs in zip(trained, found, strict=True):
        assert ours.rows.equals(theirs.rows)
        assert ours.cost.equals(theirs.cost)
        for mode in ("included", "filtered"):
            one, two = (metrics.per_user(runs.load_ranks(r.directory, mode)) for r in (ours, theirs))
            assert all(np.array_equal(one[name], two[name]) for name in one)
    assert runs.intervals(trained).equals(runs.intervals(found))
    assert not (found[0].directory / "model.safetensors").exists()


def test_equal_runs_are_packed_into_equal_bytes(data, home, tmp_path):
    config = run_config(0, EVALUATION)
    first = runs.commit_row(data, "item-knn", config, Store(tmp_path / "made"), tmp_path / "one")
    again = runs.commit_row(data, "item-knn", config, Store(tmp_path / "made"), tmp_path / "two")
    assert first.read_bytes() == again.read_bytes()


def changed_events(data):
    items = data.sequences.items.copy()
    items[-1] = items[-1] % data.n_items + 1
    return replace(data, sequences=data.sequences._replace(items=items))


@pytest.mark.parametrize(
    "other",
    [
        lambda data, config: (changed_events(data), config),
        lambda data, config: (data, with_overrides(config, {"recommender.epochs": 7})),
        lambda data, config: (data, with_overrides(config, {"cold_items": 0.1})),
        lambda data, config: (data, replace(config, seed=1)),
    ],
    ids=["events", "a setting", "reading of the data", "seed"],
)
def test_other_events_and_other_settings_are_trained(data, home, tmp_path, monkeypatch, other):
    config = run_config(0, EVALUATION)
    runs.commit_row(data, "sasrec", config, Store(tmp_path / "made"), home)
    monkeypatch.setattr(runs, "_make_run", no_training)
    assert runs.find_row(data, "sasrec", config, Store(tmp_path / "fresh")).variant == "sasrec"
    with pytest.raises(AssertionError, match="was trained"):
        runs.find_row(*other(data, config)[:1], "sasrec", other(data, config)[1], Store(tmp_path / "fresh"))


def test_other_code_and_other_features_are_named_and_used(data, home, tmp_path, monkeypatch):
    config = run_config(0, EVALUATION)
    runs.commit_row(data, "sasrec", config, Store(tmp_path / "made"), home)
    monkeypatch.setattr(runs, "_make_run", no_training)
    monkeypatch.setattr(runs, "run_code", lambda kind: "0" * 12)
    elsewhere = replace(data, content_hash="0badf00d")  # as on a processor that rounds the decomposition in another way
    found = runs.find_row(elsewhere, "sasrec", config, Store(tmp_path / "fresh"))
    assert found.rows["data_hash"].unique().to_list() == [data.data_hash]


def test_a_setting_that_is_new_since_then_counts_as_its_default(data, home, tmp_path, monkeypatch):
    config = run_config(0, EVALUATION)
    path = runs.commit_row(data, "sasrec", config, Store(tmp_path / "made"), home)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    default = f'"precision": "{config.recommender.precision}"'
    older = members[committed_rows.NOTE].decode().replace(f"{default},", "")
    assert older != members[committed_rows.NOTE].decode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {committed_rows.NOTE: older.encode()}).items():
            archive.writestr(name, content)
    monkeypatch.setattr(runs, "_make_run", no_training)
    assert runs.find_row(data, "sasrec", config, Store(tmp_path / "fresh")).variant == "sasrec"


def test_a_damaged_committed_row_is_named(data, home, tmp_path):
    config = run_config(0, EVALUATION)
    path = runs.commit_row(data, "popularity", config, Store(tmp_path / "made"), home)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"popularity-0.zip is damaged .* git checkout"):
        runs.find_row(data, "popularity", config, Store(tmp_path / "fresh"))


def test_tables_are_written_after_every_row_and_a_second_call_goes_on(tmp_path, home, monkeypatch, capsys):
    asked = argparse.Namespace(datasets=["planted-smoke"], rows=["popularity", "markov"], seeds=(0, 1), preset="smoke")
    asked.minutes, asked.out, asked.overrides = 1e-9, tmp_path / "runs", {}
    with monkeypatch.context() as impatient:
        impatient.setattr(estimates, "LONG", 0.0)
        committing.make_tables(asked, home)
    assert "rough estimate for 2 rows" in capsys.readouterr().err
    assert committing.rows_there("planted-smoke", "smoke", home) == []  # no time was left for a row
    asked.minutes = 0.0
    committing.make_tables(asked, home)
    folder = home / "planted-smoke" / "smoke"
    assert committing.rows_there("planted-smoke", "smoke", home) == [("popularity", 0), ("markov", 0)]
    first = pl.read_csv(folder / "main_results.csv")
    assert first["variant"].unique(maintain_order=True).to_list() == ["popularity", "markov"]
    asked.rows, asked.out = ["item-knn"], tmp_path / "other"
    committing.make_tables(asked, home)  # the earlier rows come from their archives: the other store does not have them
    then = pl.read_csv(folder / "main_results.csv")
    assert then.filter(pl.col("variant") != "item-knn").equals(first)
    assert {"config_hash", "device", "precision", "torch", "python", "data_hash"} <= {
        *pl.read_csv(folder / "cost.csv").columns
    }
    asked.overrides, asked.rows = committing.reading("split_seed=1"), ["popularity"]
    committing.make_tables(asked, home)
    apart = pl.read_csv(home / "planted-smoke-split_seed-1" / "smoke" / "main_results.csv")
    assert apart["split_seed"].unique().to_list() == [1]
    assert pl.read_csv(folder / "main_results.csv").equals(then), "the table of the other split stays"
    with pytest.raises(argparse.ArgumentTypeError, match="epochs: only settings of how the data are read"):
        committing.reading("epochs=3")
