"""Rows of the benchmark table: medians and quartiles of two sides that are timed in turn, their ratio, and its aim."""

from typing import NamedTuple

import numpy as np

from bbqrec_lab.measure import Side


class Row(NamedTuple):
    """A line of bench.csv. `low` and `high` are quartiles; `ratio` is the median over pairs of repetitions.

    With an aim of `>=` the ratio is how many times faster (or smaller) our side is; with `<=` it is our cost over
    theirs. `checked` states on what both sides agreed before the timing.
    """

    work: str
    peer: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    aim: str
    met: bool
    ours_low: float
    ours_high: float
    theirs_low: float
    theirs_high: float
    ratio_low: float
    ratio_high: float
    repetitions: int
    checked: str


def judge(aim: str, ratio: float, ours: float) -> bool:
    """Whether an aim is met: `>= 2` and `<= 2` bound the ratio, `ours <= 40` bounds our value, empty is always met."""
    if not aim:
        return True
    subject, _, bound = aim.rpartition("= ")
    value = ours if subject.startswith("ours") else ratio
    return value >= float(bound) if subject.endswith(">") else value <= float(bound)


def make_row(
    work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, ratio: np.ndarray, aim: str, checked: str
) -> Row:
    """A row from the values of all repetitions (a single value if it has no spread)."""
    (low, middle, high), (their_low, their_middle, their_high), (ratio_low, ratio_middle, ratio_high) = (
        (float(value) for value in np.percentile(np.atleast_1d(part), (25, 50, 75))) for part in (ours, theirs, ratio)
    )
    met = judge(aim, ratio_middle, middle)
    spread = (low, high, their_low, their_high, ratio_low, ratio_high)
    return Row(work, peer, unit, middle, their_middle, ratio_middle, aim, met, *spread, np.size(ours), checked)


def rate_row(
    work: str,
    peer: str,
    unit: str,
    sides: tuple[Side, Side],
    seconds: tuple[np.ndarray, np.ndarray],
    aim: str,
    checked: str,
) -> Row:
    """A row of rates (units of work per second); the ratio is ours over theirs, pair by pair."""
    ours, theirs = (side.amount / spent for side, spent in zip(sides, seconds, strict=True))
    return make_row(work, peer, f"{unit}/s", ours, theirs, ours / theirs, aim, checked)


def cost_row(work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, aim: str, checked: str) -> Row:
    """A row of costs (seconds, bytes); the ratio is ours over theirs, pair by pair."""
    return make_row(work, peer, unit, ours, theirs, ours / theirs, aim, checked)


def gain_row(work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, aim: str, checked: str) -> Row:
    """A row of costs with the inverse ratio, theirs over ours, pair by pair."""
    return make_row(work, peer, unit, ours, theirs, theirs / ours, aim, checked)
