"""Interactions as a sorted table of ranks: twins, the k-core and time ties, each in whole-array steps.

A table of events has the columns user and item (ranks from 0), time, and row (in the file), sorted by all four.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Shaped

from bbqrec_core.dataset import MIN_EVENTS

_BLOCK = 2**17  # rows that numpy handles at a time, so that what it makes on the way stays in the cache
_STRETCH = 2**12  # rows in which the order of time is looked at at once: short, so that most hold no row out of order
_TABLE = 2**16  # a table of so many ids is always small


def _compact(ids: pl.Series, rows: int) -> tuple[int, int] | None:
    """Lowest value and width of the range of integer ids, where a table over it is small beside a column of `rows`."""
    if not ids.dtype.is_integer() or ids.null_count() == len(ids):
        return None
    low = int(ids.min())
    width = int(ids.max()) - low + 1
    return (low, width) if width <= max(rows // 2, _TABLE) and low > -(2**63) else None


def _places(ids: pl.Series, low: int) -> Iterator[tuple[slice, np.ndarray]]:
    """How far above `low` integer ids lie, block by block; nulls as 0. What lies beyond 64 bits is far outside too."""
    for start in range(0, len(ids), _BLOCK):
        block = ids.slice(start, _BLOCK)
        if block.null_count():
            block = block.fill_null(low)
        yield slice(start, start + len(block)), block.cast(pl.Int64).to_numpy() - low


def numbered(ids: pl.Series) -> tuple[pl.Series, Int[np.ndarray, "N"]]:
    """The distinct ids, sorted, without null; and the rank of every id among them, which means nothing for a null.

    Choice: integers close together are ticked off in a table; how far above the lowest one they lie becomes their rank.
    """
    compact = _compact(ids, len(ids))
    if compact is None:
        distinct = ids.drop_nulls().unique().sort()
        return distinct, ranks_or_none(ids, distinct)
    low, width = compact
    found, ranks = np.zeros(width, bool), np.empty(len(ids), np.int32)
    for block, place in _places(ids, low):
        found[place] = True  # nulls stand for the lowest id, which is there
        ranks[block] = place
    table = np.cumsum(found, dtype=np.int32) - np.int32(1)
    for start in range(0, len(ids), _BLOCK):
        block = ranks[start : start + _BLOCK]
        np.take(table, block, out=block, mode="clip")
    return pl.Series(ids.name, np.flatnonzero(found) + low, ids.dtype), ranks


def ranks_or_none(ids: pl.Series, vocabulary: pl.Series) -> Int[np.ndarray, "N"]:
    """Rank of every id in the sorted `vocabulary`, -1 where it is null or not in there.

    Choice: integers close together through a table, block by block: a join takes ten times as long and more memory.
    """
    compact = _compact(vocabulary, len(ids)) if ids.dtype.is_integer() else None
    if compact is None:
        table = pl.DataFrame({"id": vocabulary, "rank": np.arange(len(vocabulary), dtype=np.int32)})
        joined = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
        return joined["rank"].fill_null(-1).to_numpy(writable=True)
    low, width = compact
    table = np.full(width + 2, -1, np.int32)  # its first and last entry are what lies outside
    table[1:-1][vocabulary.cast(pl.Int64).to_numpy() - low] = np.arange(len(vocabulary), dtype=np.int32)
    ranks = np.empty(len(ids), np.int32)
    for block, place in _places(ids, low - 1):  # nulls fall on the first entry
        np.take(table, place, out=ranks[block], mode="clip")
    return ranks


def ranks_in(ids: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Rank of every id in the sorted `vocabulary`, null where it is not in there."""
    ranks = pl.Series("rank", ranks_or_none(ids, vocabulary))
    return ranks.zip_with(ranks >= 0, pl.Series("rank", [None], pl.Int32))


def filtered(column: pl.Series, kept: pl.Series, into: Shaped[np.ndarray, "N"]) -> Shaped[np.ndarray, "kept"]:
    """The rows of a column that are kept, moved to the front of `into`, which may be the memory of the column itself.

    Choice: block by block and in place, because memory that is new takes longer than what is done with it.
    """
    end = 0
    for start in range(0, len(column), _BLOCK):
        block = column.slice(start, _BLOCK).filter(kept.slice(start, _BLOCK)).to_numpy()
        into[end : end + len(block)] = block
        end += len(block)
    return into[:end]


def late_rows(events: pl.DataFrame) -> int:
    """Rows that are older than the row of their user before.

    Choice: only users with a row that is older than any row before it are looked at, which in a file in the order of
    time are few; their rows come together by one sort of (user, row).
    """
    user, time = (events[name].to_numpy() for name in ("user", "time"))
    looked_at, newest = np.zeros(int(user.max(initial=0)) + 1, bool), time[:1]
    for start in range(0, len(time), _STRETCH):
        block = np.append(newest, time[start : start + _STRETCH])
        if (block[1:] < block[:-1]).any():  # five times as fast as a running maximum, which few stretches then need
            highest = np.maximum.accumulate(block)
            looked_at[user[start : start + _STRETCH][highest[1:] > block[1:]]] = True
            block = highest
        newest = block[-1:]
    hit = np.empty(len(user), bool)
    for start in range(0, len(user), _BLOCK):
        np.take(looked_at, user[start : start + _BLOCK], out=hit[start : start + _BLOCK], mode="clip")
    key = np.flatnonzero(hit)
    key |= user[key].astype(np.int64) << 32
    key.sort()
    late = 0
    for start in range(0, len(key), _BLOCK):
        block = key[start : start + _BLOCK + 1]  # one more: pairs across the edge
        then, owner = time[block & 0xFFFFFFFF], block >> 32
        late += int(((then[1:] < then[:-1]) & (owner[1:] == owner[:-1])).sum())
    return late


def clean(events: pl.DataFrame, k_core: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Sorted events without twins, without users of fewer than three, and without what is outside the k-core.

    Args: events: in any order. k_core: least events of each user and item that stay; 0 leaves items alone.
    Returns: the events that stay, and how many users and events each reason took.
    """
    report = {}
    events = events.sort("user", "time", "item", "row")
    steps = {"exact duplicate rows": drop_twins, f"users with fewer than {MIN_EVENTS} events": _keep_long}
    if k_core:
        steps[f"{k_core}-core"] = lambda table: keep_core(table, max(MIN_EVENTS, k_core), k_core)
    for reason, step in steps.items():
        kept = step(events)
        report[f"dropped: {reason}, events"] = events.height - kept.height
        report[f"dropped: {reason}, users"] = events["user"].n_unique() - kept["user"].n_unique()
        events = kept
    return events, report


def drop_twins(events: pl.DataFrame) -> pl.DataFrame:
    """Sorted events without those that equal the one before in user, item and time."""
    twin = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("user", "item", "time"))
    return events.filter(~twin.fill_null(False))


def keep_core(events: pl.DataFrame, least_user: int, least_item: int) -> pl.DataFrame:
    """The largest subset where each user has `least_user` events and each item that is left has `least_item`.

    Leaving out an event can push another user or item below its threshold, so the counts are repeated until none is.
    """
    while True:
        user, item = events["user"].to_numpy(), events["item"].to_numpy()
        enough = (np.bincount(user) >= least_user)[user] & (np.bincount(item) >= least_item)[item]
        if enough.all():
            return events
        events = events.filter(enough)


def _keep_long(events: pl.DataFrame) -> pl.DataFrame:
    """Events of users who have enough of them to be split."""
    return keep_core(events, MIN_EVENTS, 0)


def tied(events: pl.DataFrame) -> Bool[np.ndarray, "events"]:
    """Whether another event of the same user has the same time."""
    again = _same_moment(events)
    return again | np.append(again[1:], False)


def repeats(events: pl.DataFrame) -> int:
    """Events of a (user, item) pair beyond the first."""
    pair = events["user"].to_numpy().astype(np.int64) << 32 | events["item"].to_numpy()
    pair.sort()
    return int((pair[1:] == pair[:-1]).sum())


def break_ties(events: pl.DataFrame, key: Shaped[np.ndarray, "events"]) -> pl.DataFrame:
    """Put the events of one user at one time in ascending order of `key`; all others stay where they are."""
    moment = np.cumsum(~_same_moment(events), dtype=np.int32)
    at = np.flatnonzero(tied(events))
    order = np.arange(events.height, dtype=np.uint32)
    order[at] = at[np.lexsort((key[at], moment[at]))]
    return events[order]


def _same_moment(events: pl.DataFrame) -> Bool[np.ndarray, "events"]:
    """Whether an event has user and time of the event before it."""
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("user", "time"))
    return events.select(same.fill_null(False)).to_series().to_numpy()
