"""Interleaved repetitions of two sides, and rows with medians, spreads and a ratio that meets its aim or does not."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Plan:
    """How a row is measured.

    Args: scale: share of the full size, so that tests take seconds. repetitions: timed runs of each side after one
        that warms up. clock: `wall`, or `cpu`, the processor time of this process and its
        children, for a machine with other work.
    """

    scale: float = 1.0
    repetitions: int = 5
    clock: str = "wall"

    def size(self, full: int, least: int = 1) -> int:
        """A size scaled down, `least` at least."""
        return max(round(full * self.scale), least)

    def now(self) -> float:
        """Seconds on the chosen clock."""
        if self.clock == "wall":
            return time.perf_counter()
        finished = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + finished.ru_utime + finished.ru_stime


class Side(NamedTuple):
    """One of the two: `run` is a repetition, `amount` the units of work in it (vectors, targets, users)."""

    run: Callable[[], object]
    amount: float = 1.0


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


def timed(run: Callable[[], object], plan: Plan) -> float:
    """Seconds that one call takes."""
    start = plan.now()
    run()
    return plan.now() - start


def interleave(sides: dict[str, Side], plan: Plan, warm_up: int = 1) -> dict[str, np.ndarray]:
    """Seconds of every repetition of every side: all sides in turn, and each second round in the opposite order.

    So whatever else the machine does meets all sides alike, and neither always runs behind the other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warm_up):
        for side in sides.values():
            side.run()
    for repetition in range(plan.repetitions):
        for name in list(sides)[:: -1 if repetition % 2 else 1]:
            seconds[name].append(timed(sides[name].run, plan))
    return {name: np.array(values) for name, values in seconds.items()}


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
