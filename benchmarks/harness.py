"""Rows of two sides timed in turn: medians, spreads and a ratio that meets its aim or does not."""

from typing import NamedTuple

import numpy as np

from bbqrec_lab.measure import Side


class Row(NamedTuple):
    """A line of bench.csv. `low` and `high` are quartiles; `ratio` is the median over pairs of repetitions.

    A ratio with an aim of `>=` says how many times faster (or smaller) ours is; with `<=`, how many times as much ours
    takes. `checked` says what both sides were found to agree in before anything was timed.
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
    """Whether an aim is met: `>= 2` and `<= 2` speak of the ratio, `ours <= 40` of our own figure, empty of nothing."""
    if not aim:
        return True
    subject, _, bound = aim.rpartition("= ")
    value = ours if subject.startswith("ours") else ratio
    return value >= float(bound) if subject.endswith(">") else value <= float(bound)


def make_row(
    work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, ratio: np.ndarray, aim: str, checked: str
) -> Row:
    """A row from the figures of every repetition (one of each where a figure has no spread)."""
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
    """A row of rates, units of work a second: how many times as fast ours is, pair by pair."""
    ours, theirs = (side.amount / spent for side, spent in zip(sides, seconds, strict=True))
    return make_row(work, peer, f"{unit}/s", ours, theirs, ours / theirs, aim, checked)


def cost_row(work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, aim: str, checked: str) -> Row:
    """A row of costs (seconds, bytes): how many times as much ours takes, pair by pair."""
    return make_row(work, peer, unit, ours, theirs, ours / theirs, aim, checked)


def gain_row(work: str, peer: str, unit: str, ours: np.ndarray, theirs: np.ndarray, aim: str, checked: str) -> Row:
    """A row of costs read the other way round: how many times less ours takes, pair by pair."""
    return make_row(work, peer, unit, ours, theirs, theirs / ours, aim, checked)
