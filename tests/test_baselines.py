"""Counting rivals against plain loops, and on sequences whose next item is known."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from toys import toy_data

from bbqrec_core import metrics
from bbqrec_core.baselines import LAG_WEIGHTS, PSEUDO_COUNTS, Markov, Popularity, transition_counts
from bbqrec_core.data import Dataset


def random_sequences(seed: int, users: int = 23, n_items: int = 13) -> list[list[int]]:
    """Histories of 3 to 11 items; the last item is never trained on, small ones are popular."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, n_items)
    return [
        (rng.choice(n_items - 1, rng.integers(3, 12), p=weights / weights.sum()) + 1).tolist() for _ in range(users)
    ]


def loop_score(train: list[list[int]], chain: Markov, history: list[int], n_items: int) -> list[float]:
    """The formula of Markov's docstring, item by item."""
    events = [item for sequence in train for item in sequence]
    scores = []
    for j in range(1, n_items + 1):
        score = 0.0
        for lag, weight in enumerate(chain.weights, start=1):
            i = history[-lag] if len(history) >= lag else None
            next_items = [s[t] for s in train for t in range(lag, len(s)) if s[t - lag] == i]
            pull = chain.pseudo_count * events.count(j) / len(events)
            score += weight * (next_items.count(j) + pull) / (len(next_items) + chain.pseudo_count)
        scores.append(score)
    return scores


@pytest.mark.parametrize("part", ["valid", "test"])
def test_markov_scores_equal_the_formula_in_a_loop(part):
    sequences = random_sequences(0)
    data = toy_data(sequences, 13)
    chain = dataclasses.replace(Markov.fit(data), weights=(1.0, 0.5, 0.25), pseudo_count=0.7)
    users = np.array([4, 0, 17, 22])
    scores = chain.scores(data.history(part), users)
    assert scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all()
    cut = {"valid": -2, "test": -1}[part]
    for line, user in enumerate(users):
        expected = loop_score([s[:-2] for s in sequences], chain, sequences[user][:cut], 13)
        assert scores[line, 1:].tolist() == pytest.approx(expected, rel=1e-6)


def test_transitions_never_cross_users():
    data = toy_data([[1, 2, 9, 9], [3, 4, 5, 9, 9]], 9)  # trained: 1 2 | 3 4 5
    pairs = []
    for lag in (1, 2, 3):
        before, after = transition_counts(data.train(), lag, 9).nonzero()
        pairs.append(set(zip(before.tolist(), after.tolist(), strict=True)))
    assert pairs == [{(1, 2), (3, 4), (4, 5)}, {(3, 5)}, set()]


def test_repeated_transitions_are_counted_each_time():
    data = toy_data([[1, 2, 1, 2, 9, 9], [1, 2, 9, 9]], 9)
    assert transition_counts(data.train(), 1, 9)[1, 2] == 3


def cycle(order: list[int], users: int, length: int) -> Dataset:
    """Users who walk round the same cycle, each from another start."""
    return toy_data([[order[(u + t) % len(order)] for t in range(length)] for u in range(users)], max(order))


def test_markov_is_always_right_on_a_cycle():
    data = cycle([3, 7, 1, 5, 2, 6, 4], users=7, length=9)
    ranks = metrics.rank_users(Markov.fit(data).scores, data.history("test"), data.targets("test"), np.arange(7))
    assert (metrics.per_user(ranks["kept"])["recall@1"] == 1).all()


def test_two_steps_back_decide_where_one_cannot():
    # After 1 come 2 and 3 equally often; what came before the 1 says which. Sequences of 9 ask so in the test, those of
    # 10 in validation, so the fit has reason to look further back than one step.
    data = toy_data([(walk * 4)[:length] for walk in ([4, 1, 2], [5, 1, 3]) for length in (9, 10)], 5)
    chain = Markov.fit(data)
    first = dataclasses.replace(chain, weights=(1.0, 0.0, 0.0))
    history, targets, users = data.history("test"), data.targets("test"), np.array([0, 2])
    good, tied = (metrics.rank_users(c.scores, history, targets, users)["kept"] for c in (chain, first))
    assert (good.greater == 0).all()
    assert (good.ties == 1).all()
    assert (tied.ties == 2).all()


def test_fit_tries_the_stated_grid_and_keeps_the_best_on_validation():
    data = toy_data(random_sequences(1), 13)
    chain = Markov.fit(data)
    assert f"{len(chain.trials)} trials" in Markov.fit.__doc__
    assert [trial[:2] for trial in chain.trials] == list(itertools.product(LAG_WEIGHTS, PSEUDO_COUNTS))
    for trial in chain.trials[::6]:
        again = dataclasses.replace(chain, weights=trial.weights, pseudo_count=trial.pseudo_count)
        ranks = metrics.rank_users(again.scores, data.history("valid"), data.targets("valid"), np.arange(data.n_users))
        assert metrics.per_user(ranks["kept"])["ndcg@10"].mean() == trial.ndcg
    best = max(trial.ndcg for trial in chain.trials)
    assert (chain.weights, chain.pseudo_count, best) in chain.trials


def test_test_events_never_reach_a_fitted_rival():
    sequences = random_sequences(2)
    rng = np.random.default_rng(3)
    changed = [[*s[:-1], int(rng.integers(1, 14))] for s in sequences]
    history = toy_data(sequences, 13).history("valid")
    for kind in (Popularity, Markov):
        before, after = (kind.fit(toy_data(s, 13)).scores(history, slice(None)) for s in (sequences, changed))
        assert torch.equal(before, after)


def test_renumbering_items_renumbers_the_scores():
    sequences, order = random_sequences(4), np.random.default_rng(5).permutation(13) + 1
    plain, moved = toy_data(sequences, 13), toy_data([[int(order[i - 1]) for i in s] for s in sequences], 13)
    for kind in (Popularity, Markov):
        expected = kind.fit(plain).scores(plain.history("test"), slice(None))[:, 1:]
        got = kind.fit(moved).scores(moved.history("test"), slice(None))[:, order]
        assert torch.allclose(got, expected, rtol=1e-6)


def test_popularity_gives_everyone_the_training_counts():
    data = toy_data([[1, 1, 3, 2, 2], [3, 1, 2, 4], [3, 2, 2]], 4)  # trained: 1 1 3 | 3 1 | 3
    scores = Popularity.fit(data).scores(data.history("test"), np.array([1, 0]))
    assert scores.tolist() == [[-float("inf"), 3, 0, 3, 0]] * 2
    scores[0, 1] = -1.0  # masking one user's line must not reach another's
    assert scores[1, 1] == 3


def test_a_last_item_nothing_ever_followed_falls_back_to_popularity():
    data = toy_data([[1, 2, 1, 2, 2, 3, 4, 4], [5, 4, 4]], 5)
    chain = dataclasses.replace(Markov.fit(data), weights=(1.0, 0.5, 0.25))
    history = toy_data([[5, 4, 4]], 5).history("valid")  # one item, never followed; nothing further back
    shares = data.train_counts()[1:] / data.train_counts().sum()
    assert chain.scores(history, slice(None))[0, 1:].tolist() == pytest.approx((1.75 * shares).tolist())
