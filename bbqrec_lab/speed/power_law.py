"""How cost grows with size: exponents with intervals, the sizes between which it is linear, and what lies beyond."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy.optimize import nnls
from scipy.stats import t as student

SLACK = 0.25  # how much more than at its cheapest a unit may cost where growth still counts as linear
LEAST = 3  # points that a line through logarithms needs: two fix it, the third says how well


class Power(NamedTuple):
    """cost = constant * size ** exponent; `low` and `high` are the exponent's 95 % interval."""

    exponent: float
    low: float
    high: float
    constant: float

    def at(self, size: float) -> float:
        """The cost of a size, measured or not."""
        return self.constant * size**self.exponent


class Growth(NamedTuple):
    """What a curve of costs says.

    power: over all sizes. upper: over the larger half of them (3 at least), where what is paid once weighs least.
    linear_from, linear_to: see `linear_range`. fixed, unit: of cost = fixed + unit * size.
    """

    power: Power
    upper: Power
    linear_from: float
    linear_to: float
    fixed: float
    unit: float


def fit_power(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> Power:
    """Least squares through logarithms.

        log cost = log constant + exponent * log size

    The interval is that of the slope by Student's t from the scatter about the line, so it is wide where points are few
    or where the curve is no power of the size.

    Args: costs: any unit above 0, one for each size.
    Raises: ValueError for fewer than three different sizes, or for a size or cost that is not above 0.
    """
    if len(set(sizes.tolist())) < LEAST or len(sizes) != len(costs):
        raise ValueError(f"need {LEAST} sizes at least and a cost for each, got {len(sizes)} sizes, {len(costs)} costs")
    if not (np.all(sizes > 0) and np.all(costs > 0)):
        raise ValueError(f"sizes and costs must be above 0, got from {min(sizes)} and from {min(costs)}")
    x, y = np.log(sizes), np.log(costs)
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    left = y - y.mean() - slope * centred
    error = float(np.sqrt(left @ left / (len(x) - 2) / (centred @ centred)))
    wide = float(student.ppf(0.975, len(x) - 2)) * error
    return Power(slope, slope - wide, slope + wide, float(np.exp(y.mean() - slope * x.mean())))


def linear_range(
    sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"], slack: float = SLACK
) -> tuple[float, float]:
    """Between which sizes a unit costs at most 1 + `slack` times what it costs at its cheapest.

    Below, what is paid once whatever the size weighs most; above, the curve has left the line upwards. Between measured
    sizes the bound is found on the straight line through their logarithms.

    Returns: (from, to): 0 where the smallest size is inside, infinity where the largest is. (inf, inf) for a curve that
        is cheapest at its end and still flatter than linear there by more than `slack`: it has not become linear yet.
    """
    each = costs / sizes
    best, limit = int(each.argmin()), each.min() * (1 + slack)
    if best == len(sizes) - 1:
        last = np.log(costs[-1] / costs[-2]) / np.log(sizes[-1] / sizes[-2])
        if last < 1 - slack:
            return np.inf, np.inf
    above = np.flatnonzero(each > limit)
    before, after = above[above < best], above[above > best]
    start = _crossing(sizes, each, int(before[-1]), limit) if len(before) else 0.0
    return start, _crossing(sizes, each, int(after[0]) - 1, limit) if len(after) else np.inf


def _crossing(sizes: np.ndarray, each: np.ndarray, left: int, limit: float) -> float:
    """Where the line between points `left` and `left + 1` meets the limit, both axes logarithmic."""
    low, high = np.log(each[left : left + 2])
    share = (np.log(limit) - low) / (high - low)
    return float(sizes[left] * (sizes[left + 1] / sizes[left]) ** share)


def fixed_and_unit(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> tuple[float, float]:
    """What is paid once and what a unit adds: cost = fixed + unit * size, neither below 0, least relative errors."""
    rows = np.stack([np.ones(len(sizes)), sizes / sizes[-1]], 1) / costs[:, None]
    (fixed, unit), _ = nnls(rows, np.ones(len(sizes)))
    return float(fixed), float(unit / sizes[-1])


def growth(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> Growth:
    """All that is read off a curve; sizes in rising order.

    Raises: ValueError as `fit_power`.
    """
    order = np.argsort(sizes)
    sizes, costs = np.asarray(sizes)[order], np.asarray(costs, float)[order]
    half = max(LEAST, -(-len(sizes) // 2))
    return Growth(
        fit_power(sizes, costs),
        fit_power(sizes[-half:], costs[-half:]),
        *linear_range(sizes, costs),
        *fixed_and_unit(sizes, costs),
    )


def beyond(found: Growth, size: float) -> tuple[float, float]:
    """The cost of a size far beyond what was measured, by two readings of the same curve, the lower one first.

    One goes on with the exponent of the upper half; the other has a fixed part and equal units. A curve that is still
    flat where measuring ends follows neither for sure: then the two lie far apart, which is the answer.
    """
    readings = found.upper.at(size), found.fixed + found.unit * size
    return min(readings), max(readings)


def described(found: Growth) -> str:
    """Where a curve is linear, in words."""
    if np.isinf(found.linear_from):
        return "flatter throughout"
    if not found.linear_from and np.isinf(found.linear_to):
        return "throughout"
    start = f"from {_round(found.linear_from)}" if found.linear_from else ""
    end = f"up to {_round(found.linear_to)}" if np.isfinite(found.linear_to) else ""
    return " ".join(filter(None, (start, end)))


def _round(size: float) -> str:
    """Two digits, as a plain number."""
    return f"{float(f'{size:.2g}'):,.0f}" if size >= 10 else f"{size:.2g}"
