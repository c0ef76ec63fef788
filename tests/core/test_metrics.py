"""Ranking metrics against enumeration, hand arithmetic and laws; intervals against scipy and simulated truth."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import toy_data

from bbqrec_core import Sequences, metrics
from bbqrec_lab.experiments import statistics

NAMES = ["recall@1", "recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20"]
unhurried = settings(max_examples=50, deadline=None)  # a busy machine must not fail a law
few_levels = st.lists(st.integers(0, 3), min_size=2, max_size=30)  # scores on four levels: ties everywhere


def rank_one(scores: list[float], target: int) -> metrics.Ranks:
    """Ranks of one user from the scores of items 1..N."""
    return metrics.rank_scores(torch.tensor([[math.nan, *map(float, scores)]]), np.array([target]))


def metric_one(scores: list[float], target: int) -> dict[str, float]:
    """All metrics of one user as plain numbers."""
    return {name: float(value[0]) for name, value in metrics.per_user(rank_one(scores, target)).items()}


def metric_by_orders(scores: list[float], target: int) -> dict[str, float]:
    """The definition: average over every order of all items that agrees with the scores."""
    totals, orders = dict.fromkeys(NAMES, 0.0), 0
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        orders += 1
        place = order.index(target - 1) + 1
        for name in NAMES:
            kind, k = name.split("@")
            totals[name] += (place <= int(k)) * (1 if kind == "recall" else 1 / math.log2(place + 1))
    return {name: total / orders for name, total in totals.items()}


# One user, one target.


@pytest.mark.parametrize(
    ("scores", "target"),
    [([3, 1, 2, 5, 4, 0, 6], 3), ([1, 1, 1, 1, 1, 1, 1], 4), ([2, 2, 1, 1, 1, 3, 0], 5), ([5, 5, 1, 0, 4, 4, 4], 1)],
)
def test_tied_metrics_are_the_mean_over_every_order_of_the_tied_items(scores, target):
    assert metric_one(scores, target) == pytest.approx(metric_by_orders(scores, target), abs=1e-12)


def test_metrics_of_a_target_in_third_place_by_hand():
    got = metric_one([9, 8, 7, 6, 5], 3)
    assert got == pytest.approx(dict(zip(NAMES, [0, 1, 1, 1, 0.5, 0.5, 0.5], strict=True)))  # 1 / log2(3 + 1) = 1/2


def test_ties_average_the_metric_and_not_the_rank():
    got = metric_one([1, 1, 1], 2)  # places 1, 2, 3 with mean rank 2, whose own values would be 0 and 0.63
    assert got["recall@1"] == pytest.approx(1 / 3)
    assert got["ndcg@5"] == pytest.approx((1 + 1 / math.log2(3) + 1 / 2) / 3)


def test_ties_across_the_cut_count_the_places_inside_it():
    scores = [9, 8, 7, 6, 1, 1, 1, 1, 0]  # four tied on places 5 to 8
    assert metric_one(scores, 7)["recall@5"] == pytest.approx(1 / 4)
    assert metric_one(scores, 7)["ndcg@5"] == pytest.approx(1 / math.log2(6) / 4)


@unhurried
@given(few_levels, st.randoms(use_true_random=False))
def test_renumbering_items_never_changes_a_metric(scores, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    target = random.randrange(len(scores))
    moved = metric_one([scores[old] for old in order], order.index(target) + 1)
    assert moved == metric_one(scores, target + 1)


@unhurried
@given(few_levels, st.data(), st.integers(1, 3))
def test_raising_the_targets_score_never_lowers_a_metric(scores, data, rise):
    target = data.draw(st.integers(1, len(scores)))
    before = metric_one(scores, target)
    scores[target - 1] += rise
    after = metric_one(scores, target)
    assert all(after[name] >= before[name] - 1e-12 for name in NAMES)


@unhurried
@given(few_levels, st.data())
def test_recall_and_ndcg_grow_with_the_cut_and_recall_bounds_ndcg(scores, data):
    got = metric_one(scores, data.draw(st.integers(1, len(scores))))
    for kind, cuts in (("recall", metrics.RECALL_AT), ("ndcg", metrics.NDCG_AT)):
        values = [got[f"{kind}@{k}"] for k in cuts]
        assert all(low <= high + 1e-12 for low, high in itertools.pairwise(values))
    assert all(0 <= got[f"ndcg@{k}"] <= got[f"recall@{k}"] + 1e-12 <= 1 + 1e-12 for k in metrics.NDCG_AT)


@unhurried
@given(few_levels)
def test_targets_share_out_exactly_the_gain_of_the_cut(scores):
    each = [metric_one(scores, target) for target in range(1, len(scores) + 1)]
    totals = {name: sum(one[name] for one in each) for name in NAMES}
    for k in metrics.RECALL_AT:
        assert totals[f"recall@{k}"] == pytest.approx(min(k, len(scores)))
    for k in metrics.NDCG_AT:
        gains = [1 / math.log2(place + 1) for place in range(1, min(k, len(scores)) + 1)]
        assert totals[f"ndcg@{k}"] == pytest.approx(sum(gains))


# Score tables.


def test_ranks_agree_with_sorting_each_line_in_a_loop():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 7, (11, 38), generator=generator).float()  # 37 items on 7 levels: ties at every edge
    targets = torch.randint(1, 38, (11,), generator=generator)
    ranks = metrics.rank_scores(scores, targets)
    for b in range(11):
        line = {row: float(scores[b, row]) for row in range(1, 38)}
        aim = line[int(targets[b])]
        assert ranks.greater[b] == sum(value > aim for value in line.values())
        assert ranks.ties[b] == sum(value == aim for value in line.values())
        assert ranks.top[b].tolist() == sorted(line, key=lambda row: (-line[row], row))[:20]


def test_the_padding_column_is_ignored_whatever_it_holds():
    table = torch.tensor([[0.0, 2.0, 3.0, 1.0]])
    reference = metrics.rank_scores(table, np.array([1]))
    for value in (math.inf, -math.inf, math.nan, 2.0):
        table[0, 0] = value
        for got, expected in zip(metrics.rank_scores(table, np.array([1])), reference, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_excluded_items_leave_the_list_and_an_excluded_target_scores_zero():
    table = torch.tensor([[0.0, -math.inf, 3.0, -math.inf], [0.0, 1.0, -math.inf, 2.0]])
    ranks = metrics.rank_scores(table, np.array([1, 1]), k=5)
    assert ranks.top.tolist() == [[2, 0, 0, 0, 0], [3, 1, 0, 0, 0]]
    assert ranks.ties.tolist() == [0, 1]
    assert [float(values[0]) for values in metrics.per_user(ranks).values()] == [0.0] * len(NAMES)


def test_batches_joined_equal_the_whole_and_no_users_give_no_metrics():
    scores, targets = torch.randn(7, 14, generator=torch.Generator().manual_seed(1)), np.arange(1, 8)
    whole = metrics.rank_scores(scores, targets)
    parts = [metrics.rank_scores(scores[rows], targets[rows]) for rows in (slice(0, 3), slice(3, 3), slice(3, 7))]
    for got, expected in zip(metrics.concat_ranks(parts), whole, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert all(len(values) == 0 for values in metrics.per_user(parts[1]).values())


def test_wrong_targets_and_scores_are_refused_by_value():
    scores = torch.zeros(1, 4)
    for target in (0, 4, -1):
        with pytest.raises(ValueError, match=f"target row {target} is outside 1..3"):
            metrics.rank_scores(scores, np.array([target]))
    with pytest.raises(ValueError, match="1 scores are NaN"):
        rank_one([1, math.nan, 2], 1)
    with pytest.raises(ValueError, match="no Ranks"):
        metrics.concat_ranks([])


# Beam lists.


def test_a_beam_that_holds_the_whole_catalogue_ranks_like_exact_scores():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(0, 5, (5, 24), generator=generator).float()
    targets = torch.randint(1, 24, (5,), generator=generator)
    lists = torch.stack([torch.randperm(23, generator=generator) + 1 for _ in range(5)])
    exact = metrics.rank_scores(scores, targets)
    for got, expected in zip(metrics.ranks_from_lists(lists, targets, scores.gather(1, lists)), exact, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_target_the_beam_missed_makes_every_metric_zero():
    lists = torch.tensor([[5, 0, 2, 0]] * 2)
    scores = torch.tensor([[-1.0, 9.0, -3.0, 9.0]] * 2)  # the score of empty places means nothing
    ranks = metrics.ranks_from_lists(lists, np.array([7, 2]), scores, k=4)
    assert ranks.top.tolist() == [[5, 2, 0, 0]] * 2
    assert ranks.ties.tolist() == [0, 1]
    assert [float(values[0]) for values in metrics.per_user(ranks).values()] == [0.0] * len(NAMES)
    assert metrics.per_user(ranks)["ndcg@5"][1] == pytest.approx(1 / math.log2(3))


def test_an_item_listed_twice_is_refused():
    with pytest.raises(ValueError, match="item row 4 is listed twice"):
        metrics.ranks_from_lists(torch.tensor([[4, 1, 4]]), np.array([1]), torch.zeros(1, 3))


# Users, histories and segments.


HISTORY = Sequences(np.array([0, 2, 3, 6]), np.array([1, 4, 2, 5, 3, 1], dtype=np.int32))


def test_masking_hides_each_users_own_history_and_nothing_else():
    scores = torch.zeros(2, 6)
    masked = metrics.mask_history(scores, HISTORY, np.array([2, 0]))
    assert [torch.where(line == -torch.inf)[0].tolist() for line in masked] == [[1, 3, 5], [1, 4]]
    assert not scores.any()


def test_ranking_users_in_batches_changes_nothing_and_scores_once():
    table = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    targets, users, asked = np.array([2, 5, 4]), np.array([2, 0, 1]), []

    def scorer(history: Sequences, some: np.ndarray) -> torch.Tensor:
        asked.extend(some.tolist())
        return table[some]

    ranks = metrics.rank_users(scorer, HISTORY, targets, users, batch=2)
    assert asked == [2, 0, 1]
    for got, expected in zip(ranks["kept"], metrics.rank_scores(table[users], targets[users]), strict=True):
        np.testing.assert_array_equal(got, expected)
    hidden = metrics.mask_history(table[users], HISTORY, users)
    for got, expected in zip(ranks["masked"], metrics.rank_scores(hidden, targets[users]), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match=r"kept or masked.*hidden"):
        metrics.rank_users(scorer, HISTORY, targets, users, kinds=("hidden",))


def test_the_tuning_sample_is_fixed_sorted_and_capped():
    sample = metrics.sample_users(5000)
    assert len(sample) == 2000
    assert (np.diff(sample) > 0).all()
    np.testing.assert_array_equal(sample, metrics.sample_users(5000))
    np.testing.assert_array_equal(metrics.sample_users(7), np.arange(7))


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
    for bad in (np.zeros((2, 10), dtype=int), rows[:, :9]):
        with pytest.raises(ValueError, match="need lists of 10 rows"):
            statistics.list_metrics(bad, np.ones(21, dtype=int))


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
