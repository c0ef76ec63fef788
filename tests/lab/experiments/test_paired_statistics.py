"""Segments and lists by hand; intervals against scipy and simulated truth."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import toy_data

from bbqrec_lab.experiments import statistics

unhurried = settings(max_examples=50, deadline=None)  # a busy machine must not fail a law


# Segments.


def test_head_items_hold_half_of_the_training_events_and_equals_stay_together():
    # Training events: item 1 four times, items 2 and 3 twice each, item 4 once. Half of 9 is 4.5: one of 2 and 3 would
    # do, but they are equally popular, so both are head. Item 5 is never trained on.
    train = [[1, 1, 2], [1, 1, 2, 3], [3, 4]]
    data = toy_data([[*train[0], 9, 4], [*train[1], 9, 3], [*train[2], 9, 5]], 9)
    got = statistics.segments(data, "test")
    assert got["head items"].tolist() == [False, True, False]
    assert got["tail items"].tolist() == [True, False, True]
    assert got["all"].all()
    assert statistics.segments(data, "valid")["tail items"].all()  # item 9 everywhere


def test_one_item_that_holds_half_of_the_events_is_the_whole_head():
    data = toy_data([[1, 1, 2, 3, 1, 2], [1, 2, 3]], 3)  # trained: 1 three times, 2 and 3 once each
    assert statistics.segments(data, "valid")["head items"].tolist() == [True, False]
    exact = toy_data([[1, 1, 2, 3, 1, 2]], 3)  # trained: 1 twice of four, exactly half
    assert statistics.segments(exact, "test")["head items"].tolist() == [False]


def test_short_histories_are_those_up_to_the_median_of_their_part():
    data = toy_data([[1] * length for length in (3, 4, 5, 9)], 1)
    assert statistics.segments(data, "test")["short histories"].tolist() == [True, True, False, False]
    assert statistics.segments(data, "valid")["long histories"].tolist() == [False, False, True, True]
    same = statistics.segments(toy_data([[1] * 4] * 3, 1), "test")
    assert same["short histories"].all()
    assert not same["long histories"].any()


# Lists.


def test_list_metrics_by_hand_and_by_pairs():
    top = np.zeros((3, 20), dtype=np.int32)
    top[0, :3], top[1, :2], top[2, 9], top[2, 10] = [1, 2, 3], [1, 2], 1, 5  # item 5 stands in place 11
    exposure, counts = np.array([3, 2, 1, 0, 0]), np.array([0, 60, 12, 6, 3, 3])
    got = statistics.list_metrics(top, counts)
    assert got["coverage@10"] == pytest.approx(3 / 5)
    assert got["popularity@10"] == pytest.approx((3 * 60 + 2 * 12 + 6) / 6)
    pairs = np.abs(exposure[:, None] - exposure).sum()
    assert got["gini@10"] == pytest.approx(pairs / (2 * 5**2 * exposure.mean()))


def test_equal_exposure_has_gini_zero_and_one_item_for_all_the_largest():
    rows = np.arange(1, 21).reshape(2, 10)
    assert statistics.list_metrics(rows, np.ones(21, dtype=int))["gini@10"] == pytest.approx(0)
    one = np.zeros((4, 10), dtype=int)
    one[:, 0] = 7
    assert statistics.list_metrics(one, np.ones(21, dtype=int))["gini@10"] == pytest.approx(1 - 1 / 20)
    with pytest.raises(ValueError, match="need lists of 10 rows"):
        statistics.list_metrics(rows[:, :9], np.ones(21, dtype=int))


def test_lists_without_any_item_have_list_metrics_zero():
    found = statistics.list_metrics(np.zeros((2, 10), dtype=int), np.ones(21, dtype=int))
    assert found == {"coverage@10": 0, "gini@10": 0, "popularity@10": 0}


# Paired comparisons.


def test_the_randomisation_p_value_agrees_with_scipy_over_all_sign_flips():
    difference = np.array([0.5, 0.1, -0.2, 0.4, 0.3, 0.0, 0.2])  # zeros and equal sums included
    exact = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=np.inf)
    got = statistics.paired_bootstrap(difference, np.zeros(7), n=40_000)
    assert got.p == pytest.approx(exact.pvalue, abs=0.01)  # 4 standard errors of 40,000 draws


def test_the_interval_agrees_with_scipys_percentile_bootstrap():
    a, b = np.random.default_rng(0).random((2, 41))
    peer = stats.bootstrap((a, b), lambda x, y, axis: (x - y).mean(axis), paired=True, method="percentile", rng=1)
    got = statistics.paired_bootstrap(a, b)
    assert got.difference == pytest.approx((a - b).mean())
    assert (got.low, got.high) == pytest.approx(peer.confidence_interval, abs=0.01)  # a tenth of its half width


def test_intervals_cover_the_true_difference_about_95_times_in_100_and_p_is_uniform_without_one():
    rng, runs, truth = np.random.default_rng(4), 1000, 0.05
    covered, rejected = 0, 0
    for run in range(runs):
        shared = rng.normal(size=120)  # users differ far more than recommenders do: only pairing sees the difference
        a, b, c = (shared + 0.3 * rng.normal(size=120) + shift for shift in (truth, 0, 0))
        effect, null = statistics.paired_bootstrap(a, b, 300, run), statistics.paired_bootstrap(b, c, 300, run)
        covered += effect.low <= truth <= effect.high
        rejected += null.p <= 0.05
    assert 0.91 <= covered / runs <= 0.97  # 120 users and 300 draws give about 0.94; 4 standard errors are 0.03
    assert rejected / runs <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_seeds_are_averaged_and_a_single_run_stands_for_itself():
    rng = np.random.default_rng(5)
    a, b = rng.random((3, 50)), rng.random(50)
    assert statistics.paired_bootstrap(a, b, 500) == statistics.paired_bootstrap(a.mean(0), b[None], 500)
    assert statistics.paired_bootstrap(a, b, 500) != statistics.paired_bootstrap(a, b, 500, seed=1)


def test_a_recommender_does_not_differ_from_itself():
    a = np.random.default_rng(6).random(30)
    assert statistics.paired_bootstrap(a, a, 100) == (0.0, 0.0, 0.0, 1.0)


def test_draws_in_chunks_are_all_made():
    a = np.random.default_rng(7).random(2**20)  # two draws to a chunk, three chunks; every flip of zeros is extreme
    assert statistics.paired_bootstrap(a, a, n=5).p == 1


def test_comparisons_of_different_users_or_unfinished_runs_are_refused():
    for a, b, n in ((np.ones(3), np.ones(4), 9), (np.ones(0), np.ones(0), 9), (np.ones(3), np.ones(3), 0)):
        with pytest.raises(ValueError, match="same users on both sides"):
            statistics.paired_bootstrap(a, b, n)
    with pytest.raises(ValueError, match="1 of 2 users"):
        statistics.paired_bootstrap(np.array([np.nan, 1.0]), np.ones(2), 9)


def test_holm_adjusts_known_values():
    np.testing.assert_allclose(statistics.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm(np.array([0.6, 0.9])), [1, 1])
    assert statistics.holm(np.array([])).size == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        statistics.holm(np.array([0.2, 1.2]))


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_bonferroni_test(p_values):
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(range(len(p_values)), size)]
    for i, adjusted in enumerate(statistics.holm(np.array(p_values))):
        closed = max(min(1, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s)
        assert adjusted == pytest.approx(closed)


def test_targets_that_were_held_out_of_training_are_a_segment():
    data = toy_data([[1, 2, 3], [1, 3, 2], [2, 1, 3]], 3)
    assert "cold items" not in statistics.segments(data, "test")
    cold = dataclasses.replace(data, cold=np.array([True, False, False, True]))
    assert statistics.segments(cold, "test")["cold items"].tolist() == [True, False, True]
    assert statistics.segments(cold, "valid")["cold items"].tolist() == [False, True, False]
