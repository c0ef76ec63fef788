"""Interactions as a sorted table of ranks: twins, the k-core and time ties, each in whole-array steps.

A table of events has the columns user and item (ranks from 0), time, and row (in the file), sorted by all four.
"""

import numpy as np
import polars as pl
from jaxtyping import Bool, Shaped

MIN_EVENTS = 3  # of a user: one to train on, one to validate on, one to test on


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
