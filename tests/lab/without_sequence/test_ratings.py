"""Rated events: who liked what, split at one moment, and nothing known before its time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny import PLANTED, planted_data

from bbqrec_lab.datasets.planted import load_truth
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.without_sequence import asking, ratings
from bbqrec_lab.without_sequence.ratings import TEST, TRAIN, VALID, Rated

DAY0 = 1_600_000_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> NamedDataset:
    return planted_data(tmp_path_factory.mktemp("ratings"), replace(PLANTED, users=60, length=12))


@pytest.fixture(scope="module")
def planted(data: NamedDataset) -> Rated:
    return ratings.read_rated(data, load_truth(data.path, data), 0)


def bundle(folder: Path, stars: list[float | None] | None, **more: pl.DataFrame) -> NamedDataset:
    """Two users with three events each; `stars` in the table, `more` tables as files beside it."""
    folder.mkdir()
    events = pl.DataFrame({"user_id": [1, 1, 1, 5000, 5000, 5000], "item_id": [1, 2, 3, 1, 2, 3]})
    events = events.with_columns(timestamp=DAY0 + pl.int_range(6))
    if stars is not None:
        events = events.with_columns(rating=pl.Series(stars, dtype=pl.Float32))
    events.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": [1, 2, 3]}).write_parquet(folder / "items.parquet")
    for name, table in more.items():
        table.write_parquet(folder / f"{name}.parquet")
    return read_bundle(folder, DataConfig())


def rated(user: list, item: list, time: list, liked: list, part: list) -> Rated:
    arrays = (np.array(column) for column in (user, item, time, liked, part))
    return Rated(*arrays, np.zeros(max(item) + 1, bool))


def test_four_stars_are_liked_and_three_are_not(tmp_path: Path) -> None:
    data = bundle(tmp_path / "a", [5, 3, 4, 3.5, None, 1])
    table = ratings._stored(data).sort("time")
    assert table["liked"].to_list() == [True, False, True, False, False]  # the event without stars is left out
    assert table["user"].to_list() == [0, 0, 0, 1, 1]
    assert data.items["item_id"][table["item"].to_numpy() - 1].to_list() == [1, 2, 3, 1, 3]


@pytest.mark.parametrize(
    ("stars", "users"),
    [([5, 3, 4, 5, None, 5], [0, 0, 0]), ([5, np.nan, 4, 5, 3, 5], [1, 1, 1]), ([5, 3, 4, 5, 5, 5], [0] * 3 + [1] * 3)],
)
def test_partial_ratings_count_only_for_users_whose_ratings_are_whole(
    tmp_path: Path, stars: list[float | None], users: list[int]
) -> None:
    partial = pl.DataFrame({"rating": pl.Series(stars, dtype=pl.Float32)})
    data = bundle(tmp_path / "b", None, ratings_partial=partial)
    assert ratings._stored(data)["user"].to_list() == users


def test_partial_ratings_of_other_rows_are_refused_in_words(tmp_path: Path) -> None:
    data = bundle(tmp_path / "b", None, ratings_partial=pl.DataFrame({"rating": [5.0, 3.0]}))
    assert "each of the 6 of interactions" in asking.ask(ratings._stored, data).reason


@pytest.mark.parametrize("kind", ["seconds", "float", "ms", "us", "datetime", "date"])
def test_rated_events_have_the_times_of_the_dataset(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    bundle(folder, [5, 3, 4, 3.5, 4, 1])
    days = DAY0 // 86_400 * 86_400 + 86_400 * pl.int_range(6)
    times = {
        "seconds": days,
        "float": days + 0.75,
        "ms": days * 1000 + 999,
        "us": days * 1_000_000 + 1,
        "datetime": pl.from_epoch(days, "s"),
        "date": pl.from_epoch(days, "s").cast(pl.Date),
    }
    pl.read_parquet(folder / "interactions.parquet").with_columns(timestamp=times[kind]).write_parquet(
        folder / "interactions.parquet"
    )
    data = read_bundle(folder, DataConfig())
    table = ratings._stored(data).sort("user", "time")
    assert table["time"].to_list() == data.timestamps.tolist()
    assert data.timestamps.tolist() == [DAY0 // 86_400 * 86_400 + 86_400 * day for day in range(6)]


def test_equal_rows_are_one_event_and_no_number_is_no_rating(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    bundle(folder, [5, 3, np.nan, np.inf, 4, 1])
    once = pl.read_parquet(folder / "interactions.parquet")
    pl.concat([once[:1].with_columns(rating=pl.lit(None, pl.Float32)), once, once]).write_parquet(
        folder / "interactions.parquet"
    )
    data = read_bundle(folder, DataConfig())
    table = ratings._stored(data).sort("time")
    assert len(data.timestamps) == 6
    assert table.select("user", "liked").rows() == [(0, True), (0, False), (1, True), (1, False)]


def test_data_without_ratings_are_refused_in_words(tmp_path: Path) -> None:
    data = bundle(tmp_path / "c", None)
    found = asking.ask(ratings.read_rated, data, {}, 0)
    assert found.result is None
    assert found.reason == "c has no ratings, so nobody knows which items were liked"
    alike = asking.ask(ratings.read_rated, bundle(tmp_path / "d", [5] * 6), {}, 0)
    assert "have one answer" in alike.reason


def test_parts_without_events_are_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    data = bundle(folder, [5, 3, 4, 3.5, 4, 1])
    events = pl.read_parquet(folder / "interactions.parquet")
    events.with_columns(timestamp=pl.lit(DAY0)).write_parquet(folder / "interactions.parquet")
    assert "the validation part of f has no rated event" in asking.ask(ratings.read_rated, data, {}, 0).reason
    events.with_columns(user_id=pl.lit(7)).write_parquet(folder / "interactions.parquet")
    assert "no rated event of f belongs to a user" in asking.ask(ratings.read_rated, data, {}, 0).reason


def test_times_that_are_positions_are_refused_in_words(data: NamedDataset) -> None:
    places = replace(data, timestamps=np.arange(len(data.timestamps)))
    assert "only positions" in asking.ask(ratings.read_rated, places, {}, 0).reason


def test_other_errors_are_not_taken_for_an_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        asking.ask(lambda: 1 / 0)


def test_one_moment_divides_the_events_of_all_users(planted: Rated) -> None:
    last = [planted.time[planted.part == part].max() for part in (TRAIN, VALID)]
    first = [planted.time[planted.part == part].min() for part in (VALID, TEST)]
    assert (np.array(last) < np.array(first)).all()
    sizes = np.bincount(planted.part)
    assert sizes[TRAIN] > 4 * sizes[VALID] > 0


def test_withheld_items_have_no_training_event_but_some_are_asked_for(planted: Rated) -> None:
    assert planted.withheld.sum() == round(ratings.WITHHELD * (len(planted.withheld) - 1))
    assert not planted.withheld[planted.item[planted.part == TRAIN]].any()
    assert planted.withheld[planted.item[planted.part != TRAIN]].any()


def test_planted_answers_depend_on_taste_and_leaf_and_not_on_nuisance(data: NamedDataset) -> None:
    truth = load_truth(data.path, data)
    first = ratings._planted(data, truth, 0)
    other = truth | {"text_nuisance": truth["text_nuisance"][::-1]}
    assert first.equals(ratings._planted(data, other, 0))
    assert not first.equals(ratings._planted(data, truth, 1))
    by_branch = first.with_columns(branch=truth["level_1"][first["item"].to_numpy()])
    rates = by_branch.group_by("user", "branch").agg(pl.col("liked").mean(), pl.len()).filter(pl.col("len") > 2)
    assert rates["liked"].std() > 0.3, "users agree with themselves within a branch"


def test_a_page_of_ratings_knows_nothing_of_itself() -> None:
    events = rated([0, 0, 0, 0], [1, 2, 3, 4], [10, 20, 20, 30], [True, True, False, True], [TRAIN] * 4)
    known = ratings.known_before(events)
    assert known.liked.tolist() == [[0, 0], [1, 0], [1, 0], [1, 2]]
    assert known.disliked[:, 0].tolist() == [0, 0, 0, 3]
    assert known.user_events.tolist() == [0, 1, 1, 3]
    rate = (2 + ratings.PRIOR * 0.75) / (3 + ratings.PRIOR)
    assert known.user_rate[3] == pytest.approx(np.log(rate / (1 - rate)))


def test_of_items_training_knows_the_past_and_the_test_all_of_training() -> None:
    liked, part = [True, False, True, True, True, True], [TRAIN] * 3 + [TEST] * 3
    events = rated([0, 1, 2, 3, 4, 5], [7, 7, 7, 7, 8, 7], [10, 20, 30, 40, 50, 60], liked, part)
    known = ratings.known_before(events)
    assert known.item_events.tolist() == [0, 1, 2, 3, 0, 3]
    assert known.age.tolist() == [0, 10, 20, 30, 0, 50]
    rate = (2 + ratings.PRIOR * 2 / 3) / (3 + ratings.PRIOR)
    assert known.item_rate[3] == pytest.approx(np.log(rate / (1 - rate)))


def test_users_are_kept_apart_and_only_the_last_items_are_read() -> None:
    count = ratings.HISTORY + 5
    user, liked = [*([0, 1] * count), 2], [*([True] * 2 * count), False]
    events = rated(user, list(range(1, 2 * count + 2)), list(range(2 * count + 1)), liked, [TRAIN] * (2 * count + 1))
    last = ratings.known_before(events).liked[-2]
    assert last.tolist() == list(range(2 * count - 2 * ratings.HISTORY, 2 * count, 2))


def test_what_makes_ids_ends_before_the_split(data: NamedDataset, planted: Rated) -> None:
    before = ratings.before_the_split(data, planted)
    cut = planted.time[planted.part != TRAIN].min()
    assert before.timestamps.max() < cut
    assert not planted.withheld[before.sequences.items].any()
    assert (before.cold[1:] == planted.withheld[1:]).all()
    assert before.content_hash != data.content_hash
    assert before.n_users == len(before.users) < data.n_users
    user = int(np.flatnonzero(data.users == before.users[0])[0])
    own = planted.item[(planted.user == user) & (planted.part == TRAIN)]
    assert before.sequences.items[: before.sequences.offsets[1]].tolist() == own.tolist()


def test_ids_need_something_to_learn_from(data: NamedDataset, planted: Rated) -> None:
    few = planted._replace(part=np.where(np.arange(len(planted.part)) < 2, TRAIN, TEST))
    assert "3 events before the split" in asking.ask(ratings.before_the_split, data, few).reason
