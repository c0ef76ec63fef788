"""Growth of cost with size: exponents with intervals, the range of linear growth, and extrapolation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy.optimize import nnls
from scipy.stats import t as student

SLACK = 0.25  # growth counts as linear if a unit costs at most this share more than the minimum
LEAST = 3  # minimum points of a fit in logarithms: two determine the line, the third gives an error


class Power(NamedTuple):
    """cost = constant * size ** exponent; `low` and `high` are the exponent's 95 % interval."""

    exponent: float
    low: float
    high: float
    constant: float

    def at(self, size: float) -> float:
        """The fitted cost at any size."""
        return self.constant * size**self.exponent


class Growth(NamedTuple):
    """Fits of a cost curve.

    power: over all sizes. upper: over the larger half of them (at least 3), where a fixed cost has the least weight.
    linear_from, linear_to: see `linear_range`. fixed, unit: of cost = fixed + unit * size.
    """

    power: Power
    upper: Power
    linear_from: float
    linear_to: float
    fixed: float
    unit: float


def fit_power(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> Power:
    """Fit a power law by least squares on logarithms.

        log cost = log constant + exponent * log size

    The interval of the slope uses Student's t and the residuals of the fit, so it is wide if there are few points or if
    the curve is not a power of the size.

    Args: costs: above 0, in any unit, one per size.
    Raises: ValueError for fewer than three different sizes, or for a size or cost that is not above 0.
    """
    if len(set(sizes.tolist())) < LEAST or len(sizes) != len(costs):
        raise ValueError(f"need at least {LEAST} sizes and a cost for each, got {len(sizes)} sizes, {len(costs)} costs")
    if not (np.all(sizes > 0) and np.all(costs > 0)):
        raise ValueError(f"sizes and costs must be above 0, the smallest are {min(sizes)} and {min(costs)}")
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
    """The range of sizes where the cost per unit is at most 1 + `slack` times its minimum.

    Below the range a fixed cost dominates; above it the curve grows faster than linear. Between measured sizes the
    bound is interpolated linearly in logarithms.

    Returns: (from, to): 0 if the smallest size is inside, infinity if the largest is. (inf, inf) for a curve whose unit
        cost is lowest at its end and that is still flatter than linear there by more than `slack`.
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
    """The size where the line between points `left` and `left + 1` crosses the limit, both axes logarithmic."""
    low, high = np.log(each[left : left + 2])
    share = (np.log(limit) - low) / (high - low)
    return float(sizes[left] * (sizes[left + 1] / sizes[left]) ** share)


def fixed_and_unit(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> tuple[float, float]:
    """Fit cost = fixed + unit * size with both at least 0, by least squares of relative errors."""
    rows = np.stack([np.ones(len(sizes)), sizes / sizes[-1]], 1) / costs[:, None]
    (fixed, unit), _ = nnls(rows, np.ones(len(sizes)))
    return float(fixed), float(unit / sizes[-1])


def growth(sizes: Num[np.ndarray, "sizes"], costs: Float[np.ndarray, "sizes"]) -> Growth:
    """All fits of a cost curve; sizes in any order.

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
    """The cost at a size far beyond the measured ones, by two extrapolations of one curve, the lower value first.

    One continues the power law of the upper half; the other has a fixed part and a constant cost per unit. If a curve
    is still flat at the largest size, neither is reliable; the two values then differ strongly.
    """
    readings = found.upper.at(size), found.fixed + found.unit * size
    return min(readings), max(readings)


def described(found: Growth) -> str:
    """The linear range of a curve as text."""
    if np.isinf(found.linear_from):
        return "flatter throughout"
    if not found.linear_from and np.isinf(found.linear_to):
        return "throughout"
    start = f"from {_round(found.linear_from)}" if found.linear_from else ""
    end = f"up to {_round(found.linear_to)}" if np.isfinite(found.linear_to) else ""
    return " ".join(filter(None, (start, end)))


def _round(size: float) -> str:
    """A number rounded to two digits, as text."""
    return f"{float(f'{size:.2g}'):,.0f}" if size >= 10 else f"{size:.2g}"
