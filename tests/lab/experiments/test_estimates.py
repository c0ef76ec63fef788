"""Estimates of long work: told before more than ten minutes, silent below, and of the size of measured times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import planted_data

from bbqrec_lab.experiments import estimates, fitting, runs
from bbqrec_lab.experiments.durations import duration
from bbqrec_lab.experiments.estimates import LONG, Sizes, model_seconds, rows_seconds, tell, tell_rows
from bbqrec_lab.experiments.presets import Config, make_config
from bbqrec_lab.experiments.variants import VARIANTS, variant_config
from bbqrec_lab.store import Store


def sizes(items: int, users: int, events: float, spread: float = 0.9) -> Sizes:
    """A catalogue, and users with `events` training events on average, some with many more."""
    lengths = np.random.default_rng(0).lognormal(np.log(events) - spread**2 / 2, spread, users)
    return Sizes(items, np.maximum(1, lengths).astype(np.int64))


ML_100K, ML_1M, BEAUTY = sizes(1682, 943, 104), sizes(3706, 6040, 163), sizes(12101, 22363, 7)
LARGE = sizes(300_000, 200_000, 8)


def row(variant: str, preset: str, data: Sizes, seed: int = 0) -> tuple[str, Config]:
    """Kind and complete settings of a row."""
    settings = variant_config(variant, make_config(preset, seed), float(data.events.mean()))
    return VARIANTS[variant].kind, settings


@pytest.mark.parametrize(
    ("variant", "data", "measured"),
    [
        ("popularity", BEAUTY, 0.4),
        ("item-knn", ML_100K, 14),
        ("item-knn", ML_1M, 213),
        ("markov", ML_1M, 29),
        ("content-knn", ML_1M, 58),
        ("content-knn", BEAUTY, 43),
        ("ease", BEAUTY, 1163),
        ("ease", ML_1M, 146),
        ("hstu", ML_100K, 69),
        ("tiger", ML_100K, 198),
        ("random-ids", ML_100K, 128),
        ("no-score-reweighting", ML_100K, 110),
    ],
)
def test_estimates_have_the_size_of_measured_times(variant: str, data: Sizes, measured: float) -> None:
    """Seconds without stage 1, from figures/*/full/cost.csv."""
    estimate = model_seconds(*row(variant, "full", data), data)
    assert measured / 3 < estimate < max(measured * 3, 3)


def test_nothing_is_told_below_ten_minutes(capsys: pytest.CaptureFixture) -> None:
    tell("3 rows", [LONG / 3] * 3)
    tell("the row", rows_seconds([row("bbqrec", "smoke", ML_100K)], ML_100K))
    tell("the row", rows_seconds([row("popularity", "full", LARGE)], LARGE))
    tell("nothing", [])
    assert capsys.readouterr() == ("", "")


def test_longer_work_is_told_as_rough_in_one_line(capsys: pytest.CaptureFixture) -> None:
    tell("the row", rows_seconds([row("bbqrec", "quick", LARGE)], LARGE))
    told = capsys.readouterr().err
    assert told.startswith("rough estimate for the row: ")
    assert " h " in told, "one core trains and ranks 200,000 users over 300,000 items for hours"
    assert "can need several times as long" in told
    assert told.count("\n") == 1


def test_parallel_rows_divide_the_time_and_the_longest_bounds_it(capsys: pytest.CaptureFixture) -> None:
    tell("4 rows", [900.0] * 4, jobs=2)
    tell("2 rows", [3000.0, 10.0], jobs=2)
    tell("2 rows", [500.0, 500.0], jobs=2)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0].partition(": ")[2] for line in told] == [duration(1800), duration(3000)]


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("bbqrec", {"tokenizer.epochs": 40}),
        ("bbqrec", {"recommender.epochs": 40}),
        ("bbqrec", {"recommender.layers": 4}),
        ("generation", {"recommender.granularity": "code"}),
        ("sasrec", {"recommender.width": 128}),
    ],
)
def test_more_work_is_estimated_longer(variant: str, change: dict[str, object]) -> None:
    kind, base = row(variant, "full", BEAUTY)
    more = base
    for name, value in change.items():
        part, _, field = name.partition(".")
        more = replace(more, **{part: replace(getattr(more, part), **{field: value})})
    assert rows_seconds([(kind, more)], BEAUTY)[0] > 1.05 * rows_seconds([(kind, base)], BEAUTY)[0]


@pytest.mark.parametrize("variant", ["bbqrec", "sasrec", "item-knn", "markov", "content-knn", "popularity"])
def test_more_users_with_more_items_are_estimated_longer(variant: str) -> None:
    times = [rows_seconds([row(variant, "full", data)], data)[0] for data in (BEAUTY, LARGE)]
    assert times[1] > 2 * times[0]


def test_rows_that_share_a_tokenizer_train_it_once() -> None:
    alone = [rows_seconds([row(name, "full", ML_100K)], ML_100K)[0] for name in ("bbqrec", "no-reweighting", "tiger")]
    together = rows_seconds([row(name, "full", ML_100K) for name in ("bbqrec", "no-reweighting", "tiger")], ML_100K)
    assert (together[0], together[2]) == (alone[0], alone[2])
    assert together[1] == pytest.approx(model_seconds(*row("no-reweighting", "full", ML_100K), ML_100K))
    assert together[1] < alone[1]
    both = [row("bbqrec", "full", ML_100K, seed) for seed in (0, 1)]
    assert rows_seconds(both, ML_100K) == [alone[0]] * 2, "another seed is another tokenizer"


def test_only_rows_that_are_not_made_yet_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, store = planted_data(tmp_path), Store(tmp_path / "store")
    monkeypatch.setattr(estimates, "LONG", 0.0)
    configure = lambda seed: make_config("smoke", seed)  # noqa: E731
    rows = [("popularity", 0), ("markov", 0)]
    tell_rows(data, rows, configure, store, jobs=8)
    assert "2 rows, 2 at a time: " in capsys.readouterr().err
    assert not store.root.exists(), "asking makes nothing"
    runs.run_variant(data, "popularity", configure(0), store)
    tell_rows(data, rows, configure, store)
    assert "the row: " in capsys.readouterr().err
    runs.run_variant(data, "markov", configure(0), store)
    tell_rows(data, rows, configure, store)
    assert capsys.readouterr().err == ""


def test_fit_tells_before_it_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, told = planted_data(tmp_path), []
    work = runs._make_run
    monkeypatch.setattr(runs, "_make_run", lambda *given: (told.append(capsys.readouterr().err), work(*given)))
    for seed, long in enumerate((0.0, LONG)):
        monkeypatch.setattr(estimates, "LONG", long)
        fitting.fit(data, "popularity", "smoke", seed, out=tmp_path / str(seed))
    assert told[0].startswith("rough estimate for the row: ")
    assert told[1] == ""
