"""Counting baselines against plain loops, and on sequences whose next item is known."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import sparse
from toys import toy_data

from bbqrec_core import Dataset, Sequences, metrics
from bbqrec_core.recommender.score_bias import compare_content
from bbqrec_lab.baselines import counting
from bbqrec_lab.baselines.content_knn import ContentKnn
from bbqrec_lab.baselines.counting import (
    DECAYS,
    LAG_WEIGHTS,
    PENALTIES,
    PSEUDO_COUNTS,
    SHRINKAGES,
    Ease,
    ItemKnn,
    Markov,
    Popularity,
    ease_weights,
    item_cosines,
    transition_counts,
)

BASELINES = (Popularity, Markov, ItemKnn, ContentKnn, Ease)


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
    assert (metrics.per_user(ranks["included"])["recall@1"] == 1).all()


def test_two_steps_back_decide_where_one_cannot():
    # After 1 come 2 and 3 equally often; what came before the 1 says which. Sequences of 9 ask so in the test, those of
    # 10 in validation, so the fit has reason to look further back than one step.
    data = toy_data([(walk * 4)[:length] for walk in ([4, 1, 2], [5, 1, 3]) for length in (9, 10)], 5)
    chain = Markov.fit(data)
    first = dataclasses.replace(chain, weights=(1.0, 0.0, 0.0))
    history, targets, users = data.history("test"), data.targets("test"), np.array([0, 2])
    good, tied = (metrics.rank_users(c.scores, history, targets, users)["included"] for c in (chain, first))
    assert (good.greater == 0).all()
    assert (good.ties == 1).all()
    assert (tied.ties == 2).all()


def test_fit_tries_the_stated_grid_and_keeps_the_best_on_validation():
    data = toy_data(random_sequences(1), 13)
    chain = Markov.fit(data)
    assert f"{len(chain.trials)} trials" in Markov.fit.__doc__
    grid = itertools.product(LAG_WEIGHTS, PSEUDO_COUNTS)
    assert [trial.settings for trial in chain.trials] == [(*weights, count) for weights, count in grid]
    for trial in chain.trials[::6]:
        again = dataclasses.replace(chain, weights=trial.settings[:3], pseudo_count=trial.settings[3])
        ranks = metrics.rank_users(again.scores, data.history("valid"), data.targets("valid"), np.arange(data.n_users))
        assert metrics.per_user(ranks["included"])["ndcg@10"].mean() == trial.ndcg
    best = max(trial.ndcg for trial in chain.trials)
    assert ((*chain.weights, chain.pseudo_count), best) in chain.trials


def test_test_events_never_reach_a_fitted_baseline():
    sequences = random_sequences(2)
    rng = np.random.default_rng(3)
    changed = [[*s[:-1], int(rng.integers(1, 14))] for s in sequences]
    history = toy_data(sequences, 13).history("valid")
    for kind in BASELINES:
        before, after = (kind.fit(toy_data(s, 13)).scores(history, slice(None)) for s in (sequences, changed))
        assert torch.equal(before, after)


def test_renumbering_items_renumbers_the_scores():
    sequences, order = random_sequences(4), np.random.default_rng(5).permutation(13) + 1
    plain, moved = toy_data(sequences, 13), toy_data([[int(order[i - 1]) for i in s] for s in sequences], 13)
    for kind in BASELINES:
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


def loop_cosine(train: list[list[int]], i: int, j: int, shrinkage: float) -> float:
    """Users of both items over the geometric mean of the users of each, shrunk; nothing between an item and itself."""
    users = [{user for user, taken in enumerate(train) if item in taken} for item in (i, j)]
    shared = len(users[0] & users[1])
    return shared / ((len(users[0]) * len(users[1])) ** 0.5 + shrinkage) if shared and i != j else 0.0


@pytest.mark.parametrize("part", ["valid", "test"])
def test_item_knn_scores_equal_the_formula_in_a_loop(part):
    sequences = random_sequences(6)
    sequences[4][:3] = [2, 5, 2]  # taken twice: one user, two events
    data, train = toy_data(sequences, 13), [s[:-2] for s in sequences]
    baseline = ItemKnn(0.6, item_cosines(data.train(), 13, 1.5, 13), data.train_counts())
    users, cut = np.array([4, 0, 17, 22]), {"valid": -2, "test": -1}[part]
    scores = baseline.scores(data.history(part), users)
    assert scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all()
    for line, user in enumerate(users):
        history = sequences[user][:cut][::-1]
        for j in range(1, 14):
            wanted = sum(0.6**back * loop_cosine(train, i, j, 1.5) for back, i in enumerate(history))
            wanted = wanted or -1 / (1 + sum(s.count(j) for s in train))
            assert scores[line, j].item() == pytest.approx(wanted, rel=1e-6)
    assert (scores[:, 1:] < 0).any()


def test_an_item_keeps_its_nearest_neighbours_and_those_level_with_the_last():
    sequences = random_sequences(7, users=40, n_items=31)
    train = toy_data(sequences, 31).train()
    whole, few = (item_cosines(train, 31, 2.0, keep).toarray() for keep in (31, 4))
    ties = 0
    for full, kept in zip(whole, few, strict=True):
        least = np.sort(full)[::-1][3]
        assert kept.tolist() == np.where(full >= least, full, 0).tolist()
        ties += (kept > 0).sum() > 4
    assert ties > 0
    assert (few > 0).sum() < (whole > 0).sum()


@pytest.mark.parametrize("block", [1, 5, 14])
def test_similarities_are_the_same_in_blocks_of_any_size(monkeypatch, block):
    train = toy_data(random_sequences(8), 13).train()
    wanted = item_cosines(train, 13, 1.0, 5).toarray()
    monkeypatch.setattr(counting, "BLOCK", block)
    assert np.array_equal(item_cosines(train, 13, 1.0, 5).toarray(), wanted)


def test_item_knn_tries_the_stated_grid_and_keeps_the_best_on_validation():
    data = toy_data(random_sequences(1), 13)
    baseline = ItemKnn.fit(data)
    assert f"{len(baseline.trials)} trials" in ItemKnn.fit.__doc__
    assert [trial.settings for trial in baseline.trials] == list(itertools.product(SHRINKAGES, DECAYS))
    for trial in baseline.trials[::6]:
        again = ItemKnn(trial.settings[1], item_cosines(data.train(), 13, trial.settings[0], 13), baseline.counts)
        ranks = metrics.rank_users(again.scores, data.history("valid"), data.targets("valid"), np.arange(data.n_users))
        assert metrics.per_user(ranks["included"])["ndcg@10"].mean() == trial.ndcg
    shrinkage, decay = max(baseline.trials, key=lambda trial: trial.ndcg).settings
    assert baseline.decay == decay
    assert np.array_equal(baseline.similar.toarray(), item_cosines(data.train(), 13, shrinkage, 13).toarray())


def test_item_knn_finds_the_other_half_of_pairs_taken_together():
    rng = np.random.default_rng(9)
    sequences = [np.add.outer(2 * rng.permutation(10), [1, 2]).flatten().tolist() for _ in range(30)]
    data = toy_data(sequences, 20)  # pairs (1, 2), (3, 4) ... in any order, each item at the end beside its other half
    train = [sequence[: 2 * rng.integers(1, 5)] for sequence in sequences]
    similar = item_cosines(toy_data([[*s, 1, 1] for s in train], 20).train(), 20, 0.0, 20)
    ranks = metrics.rank_users(
        ItemKnn(0.1, similar, data.train_counts()).scores, data.history("test"), data.targets("test"), np.arange(30)
    )
    assert (metrics.per_user(ranks["filtered"])["recall@1"] == 1).all()


def test_an_item_without_company_falls_back_to_popularity():
    data = toy_data([[1, 2, 1, 2, 2, 3, 4, 4], [5, 4, 4]], 5)
    history = Sequences(np.array([0, 1, 1]), np.array([5], dtype=np.int32))  # one lonely item; nothing at all
    scores = ItemKnn.fit(data).scores(history, slice(None))[:, 1:]
    assert scores.argsort(descending=True, stable=True).tolist() == [[1, 0, 2, 4, 3]] * 2
    assert torch.equal(scores[0], scores[1])


def users_by_items(train: list[list[int]], n_items: int) -> np.ndarray:
    """Whether each user has each item, (U, N+1); an item taken twice counts once."""
    return np.array([[float(item in taken) for item in range(n_items + 1)] for taken in train])


def ease_of(data: Dataset, penalty: float, decay: float) -> Ease:
    """EASE with given settings, from a dense table of users and items."""
    sets = users_by_items(np.split(data.train().items, data.train().offsets[1:-1]), data.n_items)
    return Ease(decay, ease_weights(sparse.csr_array(sets.T @ sets), penalty), data.train_counts())


@pytest.mark.parametrize("penalty", [0.5, 20.0])
def test_ease_weights_solve_least_squares_for_each_item_without_the_item_itself(penalty):
    sets = users_by_items(random_sequences(11, users=40), 13)
    weights = ease_weights(sparse.csr_array(sets.T @ sets), penalty)
    assert weights.dtype == np.float32
    for j in range(14):
        others = np.arange(14) != j
        known = np.vstack([sets[:, others], penalty**0.5 * np.eye(13)])  # the penalty as thirteen more users
        wanted = np.linalg.lstsq(known, np.append(sets[:, j], np.zeros(13)), rcond=None)[0]
        np.testing.assert_allclose(weights[others, j], wanted, atol=1e-6)
        assert weights[j, j] == 0


def test_ease_of_two_items_is_what_the_formula_gives_by_hand():
    # Users have {1, 2}, {1}, {1}. Item 2 from item 1: 1 / (3 + 1); item 1 from item 2: 1 / (1 + 1).
    data = toy_data([[1, 2, 2, 9, 9], [1, 9, 9], [1, 9, 9]], 9)
    weights = ease_of(data, 1.0, 1.0).weights
    assert weights[1, 2] == pytest.approx(1 / 4)
    assert weights[2, 1] == pytest.approx(1 / 2)
    assert np.count_nonzero(weights) == 2


@pytest.mark.parametrize("part", ["valid", "test"])
def test_ease_scores_sum_the_weights_of_the_events_with_decay(part):
    sequences = random_sequences(12)
    sequences[4][:3] = [2, 5, 2]  # an event each time, though it trains as one
    data = toy_data(sequences, 14)  # item 14 has no events
    model = ease_of(data, 0.3, 0.3)
    users, cut = np.array([4, 0, 17, 22]), {"valid": -2, "test": -1}[part]
    scores = model.scores(data.history(part), users)
    assert scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all()
    for line, user in enumerate(users):
        history = sequences[user][:cut][::-1]
        wanted = sum(0.3**back * model.weights[i].astype(float) for back, i in enumerate(history))
        for j in range(1, 15):
            below = min(wanted) - 1 / (1 + sum(s[:-2].count(j) for s in sequences))
            assert scores[line, j].item() == pytest.approx(wanted[j] or below, rel=1e-5, abs=1e-7)
        assert wanted[14] == 0
    assert ((scores[:, 1:12] < 0) & (scores[:, 1:12] > scores[:, 14:])).any()  # below 0, yet above what is unreachable


def test_ease_tries_the_stated_grid_and_keeps_the_best_on_validation():
    data = toy_data(random_sequences(1), 13)
    model = Ease.fit(data)
    assert f"{len(model.trials)} trials" in Ease.fit.__doc__
    assert [trial.settings for trial in model.trials] == list(itertools.product(PENALTIES, DECAYS))
    for trial in model.trials[::6]:
        again = ease_of(data, *trial.settings)
        ranks = metrics.rank_users(again.scores, data.history("valid"), data.targets("valid"), np.arange(data.n_users))
        assert metrics.per_user(ranks["included"])["ndcg@10"].mean() == trial.ndcg
    penalty, decay = max(model.trials, key=lambda trial: trial.ndcg).settings
    assert model.decay == decay
    assert np.array_equal(model.weights, ease_of(data, penalty, decay).weights)


def test_items_that_ease_cannot_reach_rank_last_by_popularity():
    data = toy_data([[1, 2, 1, 2, 2, 3, 4, 4], [5, 6, 7, 6, 5, 7, 7], [5, 6, 4, 4], [5, 7, 4, 4]], 7)
    history = Sequences(np.array([0, 1, 1]), np.array([5], dtype=np.int32))  # one item; nothing at all
    model = ease_of(data, 0.5, 1.0)
    one, none = model.scores(history, slice(None))[:, 1:]
    assert model.weights[6, 7] < 0
    assert one.argsort(descending=True, stable=True).tolist()[2:] == [4, 1, 0, 2, 3]  # after 6 and 7
    assert none.argsort(descending=True, stable=True).tolist() == [4, 1, 5, 0, 6, 2, 3]


def content_data(seed: int = 0, cold: tuple[int, ...] = ()) -> Dataset:
    """Toy data whose items have three features each."""
    features = np.random.default_rng(seed).normal(size=(14, 3)).astype(np.float32)
    features[0] = 0
    held = np.isin(np.arange(14), [0, *cold]) if cold else None
    data = toy_data(random_sequences(seed), 13)
    return dataclasses.replace(data, features={"text": features}, presence={"text": np.arange(14) > 0}, cold=held)


def test_content_neighbours_score_by_cosines_of_features_in_a_loop():
    data = content_data()
    model, history = ContentKnn.fit(data), data.history("test")
    vectors = data.features["text"][1:] - data.features["text"][1:].mean(0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = model.scores(history, slice(None))
    for user in range(data.n_users):
        events = history.items[history.offsets[user] : history.offsets[user + 1]][::-1]
        for item in range(1, 14):
            parts = [
                model.decay**back * max(unit[i - 1] @ unit[item - 1], 0) ** 3 * (i != item)
                for back, i in enumerate(events)
            ]
            wanted = sum(parts) or -1 / (1 + data.train_counts()[item])
            assert scores[user, item] == pytest.approx(wanted, abs=1e-5)
    assert model.decay == max(model.trials, key=lambda trial: trial.ndcg).settings[0]
    assert [trial.settings[0] for trial in model.trials] == list(DECAYS)


def test_content_neighbours_rank_an_item_without_events_above_strangers_and_item_knn_does_not():
    data = content_data(1, cold=(4,))
    assert data.train_counts()[4] == 0
    alike = int(compare_content(data, 1)[0][4, 0])
    history = Sequences(np.array([0, 1]), np.array([alike], dtype=np.int32))
    ranks = {
        kind: kind.fit(data).scores(history, slice(None))[0].argsort(descending=True) for kind in (ContentKnn, ItemKnn)
    }
    place = {kind: order.tolist().index(4) for kind, order in ranks.items()}
    assert place[ContentKnn] < 6
    assert place[ItemKnn] > 8


def test_content_neighbours_without_features_rank_by_popularity():
    data, history = toy_data(random_sequences(2), 13), Sequences(np.array([0, 2]), np.array([1, 2], dtype=np.int32))
    found, popular = (kind.fit(data).scores(history, slice(None))[0] for kind in (ContentKnn, Popularity))
    assert torch.equal(found.argsort(stable=True), popular.argsort(stable=True))


def test_ease_refuses_a_catalogue_whose_pairs_do_not_fit(monkeypatch):
    data = toy_data(random_sequences(13), 13)
    monkeypatch.setattr(counting, "DENSE_ITEMS", 12)
    with pytest.raises(ValueError, match=r"at most 12 items, got 13: raise data.k_core, or use item-knn"):
        Ease.fit(data)


@pytest.mark.parametrize("kind", BASELINES)
def test_a_saved_baseline_scores_as_before(kind, tmp_path):
    data = toy_data(random_sequences(10), 13)
    baseline = kind.fit(data)
    baseline.save(tmp_path)
    history = data.history("test")
    assert torch.equal(kind.load(tmp_path).scores(history, slice(None)), baseline.scores(history, slice(None)))
