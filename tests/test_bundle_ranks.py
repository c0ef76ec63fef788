"""Ids become ranks and late rows are counted through tables and one sort: as a join and a walk over users say."""

import numpy as np
import polars as pl
import pytest

from bbqrec_core import bundle

FAR = 2**63


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_BLOCK", 7)


@pytest.mark.parametrize("vocabulary", [[-3, 0, 4, 5], [0, 2**40], [FAR - 9, FAR - 1], [-FAR, 3 - FAR]])
def test_a_rank_is_the_place_in_the_vocabulary_and_null_outside_it(vocabulary: list[int]) -> None:
    ids = [*vocabulary, None, 1, -FAR, FAR - 1, *vocabulary[::-1], None]
    wanted = [vocabulary.index(value) if value in vocabulary else None for value in ids]
    ranks = bundle.ranks_in(pl.Series(ids, dtype=pl.Int64), pl.Series(vocabulary, dtype=pl.Int64))
    assert ranks.to_list() == wanted
    assert ranks.dtype == pl.Int32


def test_strings_have_ranks_too() -> None:
    assert bundle.ranks_in(pl.Series(["b", None, "z", "a"]), pl.Series(["a", "b"])).to_list() == [1, None, None, 0]


@pytest.mark.parametrize("ids", [[5, None, -2, 5, 9], [0, 2**50, None, 0], [None, FAR - 1, FAR - 3], ["b", None, "a"]])
def test_distinct_ids_are_sorted_and_without_null(ids: list) -> None:
    assert bundle._distinct(pl.Series("id", ids)).to_list() == sorted({value for value in ids if value is not None})


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
    assert bundle._late(pl.DataFrame({"user": user, "time": time})) == late
