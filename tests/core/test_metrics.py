"""Ranking metrics against enumeration, hand arithmetic and laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec_core import Sequences, metrics

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


# Users and histories.


HISTORY = Sequences(np.array([0, 2, 3, 6]), np.array([1, 4, 2, 5, 3, 1], dtype=np.int32))


def test_masking_hides_each_users_own_history_and_nothing_else():
    scores = torch.zeros(2, 6)
    masked = metrics.filter_seen(scores, HISTORY, np.array([2, 0]))
    assert [[1 + int(row) for row in torch.where(line == -torch.inf)[0]] for line in masked[:, 1:]] == [
        [1, 3, 5],
        [1, 4],
    ]
    assert not scores.any()


def test_ranking_users_in_batches_changes_nothing_and_scores_once():
    table = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    targets, users, asked = np.array([2, 5, 4]), np.array([2, 0, 1]), []

    def scorer(history: Sequences, some: np.ndarray) -> torch.Tensor:
        asked.extend(some.tolist())
        return table[some]

    ranks = metrics.rank_users(scorer, HISTORY, targets, users, batch=2)
    assert asked == [2, 0, 1]
    for got, expected in zip(ranks["included"], metrics.rank_scores(table[users], targets[users]), strict=True):
        np.testing.assert_array_equal(got, expected)
    hidden = metrics.filter_seen(table[users], HISTORY, users)
    for got, expected in zip(ranks["filtered"], metrics.rank_scores(hidden, targets[users]), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match=r"included or filtered.*hidden"):
        metrics.rank_users(scorer, HISTORY, targets, users, kinds=("hidden",))


def test_the_tuning_sample_is_fixed_sorted_and_capped():
    sample = metrics.sample_users(5000)
    assert len(sample) == 2000
    assert (np.diff(sample) > 0).all()
    np.testing.assert_array_equal(sample, metrics.sample_users(5000))
    np.testing.assert_array_equal(metrics.sample_users(7), np.arange(7))
