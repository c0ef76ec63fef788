"""Fits on made-up costs whose answer is known."""

import numpy as np
import pytest

from bbqrec_lab.speed import power_law

SIZES = np.array([1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6])


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found_exactly(exponent: float) -> None:
    found = power_law.fit_power(SIZES, 3e-6 * SIZES**exponent)
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert found.constant == pytest.approx(3e-6, rel=1e-6)
    assert found.high - found.low < 1e-6
    assert found.at(1e9) == pytest.approx(3e-6 * 1e9**exponent, rel=1e-6)


def test_the_interval_is_the_textbook_one_of_a_slope() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.5, 2.5, 4.0])
    found = power_law.fit_power(np.exp(x), np.exp(y))
    slope, error = 0.9, np.sqrt(0.45 / 2 / 5)  # by hand: residuals -0.15, 0.45, -0.45, 0.15
    assert found.exponent == pytest.approx(slope)
    assert found.high - found.exponent == pytest.approx(4.302653 * error, rel=1e-5)
    assert found.exponent - found.low == pytest.approx(found.high - found.exponent)


def test_intervals_cover_the_true_exponent_as_often_as_they_say() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        found = power_law.fit_power(SIZES, SIZES**1.2 * np.exp(0.1 * rng.standard_normal(len(SIZES))))
        inside += found.low <= 1.2 <= found.high
    assert 0.92 < inside / 400 < 0.98


@pytest.mark.parametrize(
    ("sizes", "costs"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 0, 1]), ([0, 1, 2], [1, 1, 1])]
)
def test_what_no_line_can_be_drawn_through_is_refused(sizes: list, costs: list) -> None:
    with pytest.raises(ValueError, match="sizes"):
        power_law.fit_power(np.array(sizes), np.array(costs, float))


def test_a_curve_with_a_fixed_part_becomes_linear_where_that_part_is_a_quarter() -> None:
    fine = np.geomspace(1e3, 1e7, 200)
    start, end = power_law.linear_range(fine, 1e4 + fine)  # a unit costs 1 + 1e4 / size, at least 1.001
    assert start == pytest.approx(4e4, rel=0.01)
    assert end == np.inf


def test_a_curve_that_bends_upwards_leaves_linear_a_little_above_the_bend() -> None:
    fine = np.geomspace(1e3, 1e7, 200)
    start, end = power_law.linear_range(fine, fine * np.maximum(1, fine / 1e5) ** 0.5)
    assert start == 0
    assert end == pytest.approx(1e5 * 1.25**2, rel=0.01)


def test_between_a_fixed_part_and_a_bend_both_ends_are_found_on_coarse_sizes() -> None:
    costs = np.maximum(SIZES, 1e4) * np.maximum(1, SIZES / 1e5)
    start, end = power_law.linear_range(SIZES, costs)
    assert start == pytest.approx(1e4 / 1.25)
    assert end == pytest.approx(1.25e5)


def test_a_flat_curve_is_not_called_linear_and_a_straight_one_is_throughout() -> None:
    assert power_law.linear_range(SIZES, np.ones(7)) == (np.inf, np.inf)
    assert power_law.linear_range(SIZES, 2e-6 * SIZES) == (0, np.inf)
    described = [power_law.described(power_law.growth(SIZES, costs)) for costs in (np.ones(7), SIZES, SIZES**2)]
    assert described == ["flatter throughout", "throughout", "up to 1,200"]


def test_fixed_part_and_unit_are_told_apart_and_never_negative() -> None:
    assert power_law.fixed_and_unit(SIZES, 5 + 2e-5 * SIZES) == pytest.approx((5, 2e-5))
    assert power_law.fixed_and_unit(SIZES, SIZES**1.5)[0] == 0
    assert power_law.fixed_and_unit(SIZES, 1 / SIZES)[1] == 0


def test_beyond_what_was_measured_two_readings_bound_the_answer() -> None:
    straight = power_law.growth(SIZES, 2e-6 * SIZES)
    assert power_law.beyond(straight, 1e9) == pytest.approx((2000, 2000))
    both = power_law.growth(SIZES, 5 + 2e-6 * SIZES)
    low, high = power_law.beyond(both, 1e9)
    assert low < 100 < high == pytest.approx(2005)  # still half fixed at a million: a power is far too low
    assert power_law.beyond(power_law.growth(SIZES, SIZES**1.5), 1e9)[1] == pytest.approx(1e9**1.5)


def test_the_upper_half_is_what_the_upper_exponent_is_fitted_to() -> None:
    found = power_law.growth(SIZES[::-1], (np.maximum(SIZES, 3e4))[::-1])  # any order
    assert found.upper.exponent == pytest.approx(1)
    assert 0.4 < found.power.exponent < 0.9
