"""Interactions as a sorted table of ranks: duplicates, k-core and time ties, all as operations on whole arrays.

A table of events has the columns user and item (ranks from 0), time, and row (in the file), sorted by all four.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, Shaped

from bbqrec_core.dataset import MIN_EVENTS

_BLOCK = 2**17  # rows per numpy operation, so temporary arrays stay in the cache
_STRETCH = 2**12  # rows per check of the time order: short, so most blocks have no row out of order
_TABLE = 2**16  # a table of this many ids is always small


def _compact(ids: pl.Series, rows: int) -> tuple[int, int] | None:
    """Lowest value and width of the range of integer ids; None if a table over it is not small next to `rows` rows."""
    if not ids.dtype.is_integer() or ids.null_count() == len(ids):
        return None
    low = int(ids.min())
    width = int(ids.max()) - low + 1
    return (low, width) if width <= max(rows // 2, _TABLE) and low > -(2**63) else None


def _places(ids: pl.Series, low: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Integer ids minus `low`, block by block; 0 for nulls. A difference beyond 64 bits is out of range too."""
    for start in range(0, len(ids), _BLOCK):
        block = ids.slice(start, _BLOCK)
        if block.null_count():
            block = block.fill_null(low)
        yield slice(start, start + len(block)), block.cast(pl.Int64).to_numpy() - low


def numbered(ids: pl.Series) -> tuple[pl.Series, Int[np.ndarray, "N"]]:
    """The distinct ids, sorted, without null; and the rank of every id among them, arbitrary for a null.

    Choice: for integers in a narrow range, a table marks the ids that occur; its cumulative sum gives the ranks.
    """
    compact = _compact(ids, len(ids))
    if compact is None:
        distinct = ids.drop_nulls().unique().sort()
        return distinct, ranks_or_none(ids, distinct)
    low, width = compact
    found, ranks = np.zeros(width, bool), np.empty(len(ids), np.int32)
    for block, place in _places(ids, low):
        found[place] = True  # nulls count as the lowest id, which occurs
        ranks[block] = place
    table = np.cumsum(found, dtype=np.int32) - np.int32(1)
    for start in range(0, len(ids), _BLOCK):
        block = ranks[start : start + _BLOCK]
        np.take(table, block, out=block, mode="clip")
    return pl.Series(ids.name, np.flatnonzero(found) + low, ids.dtype), ranks


def ranks_or_none(ids: pl.Series, vocabulary: pl.Series) -> Int[np.ndarray, "N"]:
    """Rank of every id in the sorted `vocabulary`, -1 if it is null or not in it.

    Choice: integers in a narrow range use a table, block by block; a join takes ten times as long and more memory.
    """
    compact = _compact(vocabulary, len(ids)) if ids.dtype.is_integer() else None
    if compact is None:
        table = pl.DataFrame({"id": vocabulary, "rank": np.arange(len(vocabulary), dtype=np.int32)})
        joined = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
        return joined["rank"].fill_null(-1).to_numpy(writable=True)
    low, width = compact
    table = np.full(width + 2, -1, np.int32)  # the first and last entry are for ids outside the range
    table[1:-1][vocabulary.cast(pl.Int64).to_numpy() - low] = np.arange(len(vocabulary), dtype=np.int32)
    ranks = np.empty(len(ids), np.int32)
    for block, place in _places(ids, low - 1):  # nulls use the first entry
        np.take(table, place, out=ranks[block], mode="clip")
    return ranks


def ranks_in(ids: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Rank of every id in the sorted `vocabulary`, null if it is not in it."""
    ranks = pl.Series("rank", ranks_or_none(ids, vocabulary))
    return ranks.zip_with(ranks >= 0, pl.Series("rank", [None], pl.Int32))


def filtered(column: pl.Series, kept: pl.Series, into: Shaped[np.ndarray, "N"]) -> Shaped[np.ndarray, "kept"]:
    """The kept rows of a column, moved to the front of `into`, which may be the memory of the column itself.

    Choice: block by block and in place, because the allocation of new memory takes longer than the filter.
    """
    end = 0
    for start in range(0, len(column), _BLOCK):
        block = column.slice(start, _BLOCK).filter(kept.slice(start, _BLOCK)).to_numpy()
        into[end : end + len(block)] = block
        end += len(block)
    return into[:end]


def late_rows(events: pl.DataFrame) -> int:
    """Number of rows that are older than the previous row of their user.

    Choice: the check is limited to users with a row that is older than some earlier row of the file; a file in time
    order has few of them. One sort by (user, row) brings the rows of each user together.
    """
    user, time = (events[name].to_numpy() for name in ("user", "time"))
    looked_at, newest = np.zeros(int(user.max(initial=0)) + 1, bool), time[:1]
    for start in range(0, len(time), _STRETCH):
        block = np.append(newest, time[start : start + _STRETCH])
        if (block[1:] < block[:-1]).any():  # five times as fast as a running maximum, which few blocks then need
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
        block = key[start : start + _BLOCK + 1]  # one more row, for the pair across the edge
        then, owner = time[block & 0xFFFFFFFF], block >> 32
        late += int(((then[1:] < then[:-1]) & (owner[1:] == owner[:-1])).sum())
    return late


def clean(events: pl.DataFrame, k_core: int) -> tuple[pl.DataFrame, dict[str, int]]:
    """Sorted events without duplicates, without users of fewer than three events, and within the k-core.

    Args: events: in any order. k_core: minimum of events per remaining user and item; 0 keeps all items.
    Returns: the remaining events, and the number of users and events that each reason removed.
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
    """Sorted events without those that equal the previous one in user, item and time."""
    twin = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("user", "item", "time"))
    return events.filter(~twin.fill_null(False))


def keep_core(events: pl.DataFrame, least_user: int, least_item: int) -> pl.DataFrame:
    """The largest subset in which each user has `least_user` events and each remaining item has `least_item`.

    Removing an event can push another user or item below its threshold, so the filter repeats until none is below.
    """
    while True:
        user, item = events["user"].to_numpy(), events["item"].to_numpy()
        enough = (np.bincount(user) >= least_user)[user] & (np.bincount(item) >= least_item)[item]
        if enough.all():
            return events
        events = events.filter(enough)


def _keep_long(events: pl.DataFrame) -> pl.DataFrame:
    """Events of users with enough events for the split."""
    return keep_core(events, MIN_EVENTS, 0)


def tied(events: pl.DataFrame) -> Bool[np.ndarray, "events"]:
    """Whether another event of the same user has the same time."""
    again = _same_moment(events)
    return again | np.append(again[1:], False)


def repeats(events: pl.DataFrame) -> int:
    """Number of events that repeat an earlier (user, item) pair."""
    pair = events["user"].to_numpy().astype(np.int64) << 32 | events["item"].to_numpy()
    pair.sort()
    return int((pair[1:] == pair[:-1]).sum())


def break_ties(events: pl.DataFrame, key: Shaped[np.ndarray, "events"]) -> pl.DataFrame:
    """Sort the events of one user at one time by ascending `key`; all others keep their position."""
    moment = np.cumsum(~_same_moment(events), dtype=np.int32)
    at = np.flatnonzero(tied(events))
    order = np.arange(events.height, dtype=np.uint32)
    order[at] = at[np.lexsort((key[at], moment[at]))]
    return events[order]


def _same_moment(events: pl.DataFrame) -> Bool[np.ndarray, "events"]:
    """Whether an event has the user and time of the previous event."""
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("user", "time"))
    return events.select(same.fill_null(False)).to_series().to_numpy()
