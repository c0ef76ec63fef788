"""Ids become ranks and late rows are counted through tables and one sort: as a join and a walk over users say."""

import numpy as np
import polars as pl
import pytest

from bbqrec_lab.datasets import interactions

FAR = 2**63


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactions, "_BLOCK", 7)
    monkeypatch.setattr(interactions, "_STRETCH", 5)


@pytest.mark.parametrize("vocabulary", [[-3, 0, 4, 5], [0, 2**40], [FAR - 9, FAR - 1], [-FAR, 3 - FAR]])
def test_a_rank_is_the_place_in_the_vocabulary_and_null_outside_it(vocabulary: list[int]) -> None:
    ids = [*vocabulary, None, 1, -FAR, FAR - 1, *vocabulary[::-1], None]
    wanted = [vocabulary.index(value) if value in vocabulary else None for value in ids]
    ranks = interactions.ranks_in(pl.Series(ids, dtype=pl.Int64), pl.Series(vocabulary, dtype=pl.Int64))
    assert ranks.to_list() == wanted
    assert ranks.dtype == pl.Int32


def test_strings_have_ranks_too() -> None:
    assert interactions.ranks_in(pl.Series(["b", None, "z", "a"]), pl.Series(["a", "b"])).to_list() == [
        1,
        None,
        None,
        0,
    ]


@pytest.mark.parametrize("ids", [[5, None, -2, 5, 9], [0, 2**50, None, 0], [None, FAR - 1, FAR - 3], ["b", None, "a"]])
def test_ids_are_numbered_in_their_order_and_nulls_are_none_of_them(ids: list) -> None:
    distinct, ranks = interactions.numbered(pl.Series("id", ids * 3))
    wanted = sorted({value for value in ids if value is not None})
    assert distinct.to_list() == wanted
    assert [rank for rank, value in zip(ranks, ids * 3, strict=True) if value is not None] == [
        wanted.index(value) for value in ids * 3 if value is not None
    ]
    assert ranks.dtype == np.int32


@pytest.mark.parametrize("dtype", [pl.Int32, pl.Int64, pl.Float64])
@pytest.mark.parametrize("drop", [(), (0, 6, 7, 19)])
def test_rows_that_are_kept_come_in_one_piece_from_chunks_or_in_place(dtype: pl.DataType, drop: tuple) -> None:
    values = [None if place in drop else place for place in range(20)]
    column = pl.concat([pl.Series(values[:9], dtype=dtype), pl.Series(values[9:], dtype=dtype)], rechunk=False)
    kept = column.is_not_null()
    wanted = [value for value in values if value is not None]
    apart = interactions.filtered(column, kept, into=np.empty(len(wanted), column.head(0).to_numpy().dtype))
    own = np.arange(20)
    assert apart.tolist() == interactions.filtered(pl.Series(own), kept, into=own).tolist() == wanted


@pytest.mark.parametrize("order", ["as drawn", "by user", "by time, but for some"])
def test_late_rows_are_those_older_than_the_row_of_their_user_before(order: str) -> None:
    rng = np.random.default_rng(0)
    user, time = rng.integers(0, 5, 100).astype(np.int32), rng.integers(0, 30, 100)
    if order == "by user":
        user.sort()
    if order == "by time, but for some":
        time.sort()
        time[[12, 40, 99]] = 0, 2, 1
    last: dict[int, int] = {}
    late = 0
    for who, when in zip(user.tolist(), time.tolist(), strict=True):
        late += when < last.get(who, -1)
        last[who] = when
    assert late > (20 if order != "by time, but for some" else 0)
    assert interactions.late_rows(pl.DataFrame({"user": user, "time": time})) == late


def test_no_row_is_late_where_there_are_none() -> None:
    assert interactions.late_rows(pl.DataFrame({"user": np.zeros(0, np.int32), "time": np.zeros(0, np.int64)})) == 0


def test_a_row_is_late_after_a_stretch_that_ended_with_a_late_one() -> None:
    user, time = np.int32([0, 1, 1, 1, 0, 1, 0, 0]), np.array([5, 6, 7, 8, 1, 2, 9, 9])
    assert interactions.late_rows(pl.DataFrame({"user": user, "time": time})) == 2
