"""Ranks from sparse scores equal those from a score per user and item, to the last tie and the last place."""

import numpy as np
import pytest
from toys import toy_data

from bbqrec_core import metrics
from bbqrec_lab.baselines import sparse_ranking
from bbqrec_lab.baselines.content_knn import ContentKnn
from bbqrec_lab.baselines.counting import ItemKnn, Markov, Popularity


def sequences(seed, users, n_items, tail=0.0):
    """Histories of 3 to 15 items with repeats; a share `tail` of the items never comes in training."""
    rng = np.random.default_rng(seed)
    known = max(int(n_items * (1 - tail)), 2)
    weights = 1 / np.arange(1, known + 1)
    drawn = [rng.choice(known, rng.integers(3, 16), p=weights / weights.sum()) + 1 for _ in range(users)]
    for history in drawn[::5]:
        history[-1] = n_items  # a target without training events
    return [history.tolist() for history in drawn]


@pytest.mark.parametrize("kind", [Popularity, Markov, ItemKnn, ContentKnn])
@pytest.mark.parametrize(("users", "n_items", "tail"), [(23, 7, 0.0), (41, 60, 0.3), (60, 400, 0.8)])
@pytest.mark.parametrize("batch", [1, 16, 256])
def test_ranks_equal_those_of_all_scores(kind, users, n_items, tail, batch):
    data = toy_data(sequences(users, users, n_items, tail), n_items)
    model = kind.fit(data)
    for part in ("valid", "test"):
        asked = data.history(part), data.targets(part), np.random.default_rng(0).permutation(data.n_users)
        wanted = metrics.rank_users(model.scores, *asked)
        found = sparse_ranking.rank_sparse(model.sparse_scores, model.classes, *asked, batch=batch)
        for mode in ("included", "filtered"):
            for name, ours, theirs in zip(metrics.Ranks._fields, found[mode], wanted[mode], strict=True):
                assert np.array_equal(ours, theirs), (part, mode, name)


def test_a_user_who_had_every_item_has_an_empty_list_and_finds_nothing():
    data = toy_data([[1, 2, 3, 1, 2, 3], [1, 2, 1, 2, 1]], 3)
    ranks = Popularity.fit(data).ranks(data.history("test"), data.targets("test"), np.arange(2), ("filtered",))
    assert not ranks["filtered"].top[0].any()
    assert ranks["filtered"].ties.tolist() == [0, 0]
    assert ranks["filtered"].top[1].tolist() == [3, *[0] * 19]


def test_no_score_per_user_and_item_is_made(monkeypatch):
    """Memory follows the items that a user's history touches, not the catalogue."""
    data = toy_data(sequences(3, 200, 50), 300_000)
    model = Markov.fit(data)
    monkeypatch.setattr(sparse_ranking.SparseScores, "dense", None)
    scores = model.sparse_scores(data.history("test"), np.arange(200))
    assert len(scores.value) < 200 * 50
    assert scores.rest.shape == (200, len(np.unique(data.train_counts()[1:])) + (0 not in data.train_counts()[1:]))
    ranks = model.ranks(data.history("test"), data.targets("test"), np.arange(200), ("included",))["included"]
    assert (ranks.greater < 300_000).all()
