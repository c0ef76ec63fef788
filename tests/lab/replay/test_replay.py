"""The replay: nothing from the future, batches as one by one, counts that grow as if counted anew, renamed tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replayed import DATA, PERIODS, config, learner, made_stream

from bbqrec_core import Sequences
from bbqrec_lab.baselines.counting import ItemKnn, item_cosines
from bbqrec_lab.replay import rounds
from bbqrec_lab.replay.counting import GrowingKnn, SlidingPopularity, window_counts
from bbqrec_lab.replay.learners import POLICIES, TokenLearner
from bbqrec_lab.replay.rounds import Row, replay
from bbqrec_lab.replay.stream import Stream, make_stream
from bbqrec_lab.replay.tokens import renamed, renamed_weights, renaming
from bbqrec_lab.store import Store


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    return made_stream(tmp_path_factory.mktemp("data"))


def test_the_catalogue_grows_and_withheld_items_have_no_past(stream: Stream) -> None:
    items, times = stream.sequences.items, stream.sequences.times
    assert stream.withheld.sum() == round(0.2 * DATA.items)
    assert times[stream.withheld[items]].min() >= stream.moments[1]
    assert set(stream.joined[stream.withheld]) <= {1, 2}
    for row in range(1, stream.n_items + 1):
        first = times[items == row].min(initial=stream.moments[-1])
        period = np.searchsorted(stream.moments, first, side="right") - 1
        assert stream.withheld[row] or stream.joined[row] == max(period, 0) or not (items == row).any()
    assert (np.diff(stream.times(slice(None))) >= 0).all()
    assert (stream.times(stream.bounds[:-1]) >= stream.moments[:-1]).all()


def test_what_is_known_before_a_period_is_before_it(stream: Stream) -> None:
    for period in range(PERIODS):
        split = stream.known_before(period)
        assert split.sequences.times.max() < stream.moments[period]
        assert split.sequences.items.max() <= split.n_items == stream.sizes[max(period - 1, 0)]
        assert split.train().times.max() < split.valid_from < split.test_from == stream.moments[period]


def test_a_history_is_what_the_user_did_before_and_the_catalogue_has(stream: Stream) -> None:
    place = stream.bounds[2] + 1
    user = stream.users(np.array([place]))[0]
    own = [p for p in range(place) if stream.users(np.array([p]))[0] == user]
    history = stream.histories(np.array([place]), stream.n_items)
    assert history.items[: history.offsets[1]].tolist() == stream.items(np.array(own)).tolist()
    few = stream.histories(np.array([place]), 5)
    assert few.items[: few.offsets[1]].tolist() == [row for row in stream.items(np.array(own)) if row <= 5]
    frozen = stream.histories(np.array([place]), stream.n_items, frozen=True)
    early = [p for p in own if p < stream.bounds[0]]
    assert frozen.items[: frozen.offsets[1]].tolist() == stream.items(np.array(early)).tolist()


@pytest.mark.parametrize(
    ("policy", "tokens"), [*((policy, True) for policy in POLICIES), ("history", False), ("updates", False)]
)
def test_batches_give_the_lists_of_one_by_one(stream: Stream, tmp_path: Path, policy: str, tokens: bool) -> None:
    few = replace(stream, asked=stream.asked & (np.arange(len(stream.asked)) % 4 == 0))  # batches of one may be empty
    found = [replay(few, learner(policy, tmp_path / "once", tokens), batch) for batch in (256, 1)]
    (places, ranks, *_), (again, single, *_) = found
    assert (places == again).all()
    assert len(places) == few.asked[stream.bounds[0] :].sum()
    assert (ranks.greater == single.greater).mean() > 0.95  # rounding may exchange two items of almost equal score
    assert (ranks.top[:, 0] == single.top[:, 0]).mean() > 0.95


@pytest.mark.parametrize("policy", rounds.WITHOUT_TRAINING)
@pytest.mark.parametrize("kind", [SlidingPopularity, GrowingKnn])
def test_counts_in_batches_are_those_of_one_by_one(stream: Stream, policy: str, kind: type) -> None:
    (places, ranks, *_), (again, single, *_) = (replay(stream, kind(policy), batch) for batch in (256, 1))
    assert (places == again).all()
    assert all((one == other).all() for one, other in zip(ranks, single, strict=True))


def test_only_policies_that_know_new_items_recommend_them(stream: Stream, tmp_path: Path) -> None:
    new = {}
    for policy in ("history", "new items"):
        places, ranks, *_ = replay(stream, learner(policy, tmp_path / policy, start=tmp_path / "start"))
        joined = stream.joined[stream.items(places)]
        new[policy] = ranks.ties[joined > 0], ranks.ties[joined == 0]
    assert (new["history"][0] == 0).all()
    assert (new["history"][1] > 0).all()
    assert (new["new items"][0] > 0).all()


def test_a_policy_that_learns_nothing_ignores_what_happens(stream: Stream, tmp_path: Path) -> None:
    model = learner("nothing", tmp_path)
    model.begin(stream, 0)
    start, stop = int(stream.bounds[0]), int(stream.bounds[-1])
    users, scores = stream.users(np.arange(start, stop)), model.scores(stream, start, stop)
    for user in np.unique(users):
        same = scores[torch.from_numpy(users == user)]
        assert torch.allclose(same, same[:1].expand_as(same), atol=1e-4)


def test_updates_change_the_model_and_retraining_keeps_the_tokens(stream: Stream, tmp_path: Path) -> None:
    before = {}
    for policy in ("new items", "updates", "retrained", "remade"):
        model = learner(policy, tmp_path / policy, start=tmp_path / "start")
        for period in range(PERIODS):
            model.begin(stream, period)
        before[policy] = model
    fixed = before["new items"]
    codes = rounds_ids(fixed)
    assert not np.allclose(
        fixed.scorer.model.position.weight.detach(), before["updates"].scorer.model.position.weight.detach()
    )
    for policy in ("updates", "retrained"):
        assert (rounds_ids(before[policy]) == codes).all()
    assert rounds_ids(before["remade"]).shape == codes.shape
    assert {model.known for model in before.values()} == {stream.n_items}


def rounds_ids(model: TokenLearner) -> np.ndarray:
    """Codes of all items, those that joined too."""
    from bbqrec_lab.serving.live_model import extended_ids

    return extended_ids(model.ids, model.added).code_ids


def test_growing_counts_are_those_of_counting_anew(stream: Stream) -> None:
    knn = GrowingKnn("updates", decay=0.6, shrinkage=3.0)
    knn.start(stream.n_items)
    everything = np.arange(stream.bounds[-1])
    for user, item in zip(stream.users(everything), stream.items(everything), strict=True):
        knn.learn(int(user), int(item))
    knn.known = stream.n_items
    train = Sequences(stream.sequences.offsets, stream.sequences.items)
    whole = ItemKnn(0.6, item_cosines(train, stream.n_items, 3.0, 1000), np.bincount(train.items))
    scores = whole.scores(train, np.arange(9))
    for user in range(9):
        own = train.items[train.offsets[user] : train.offsets[user + 1]]
        assert np.allclose(knn.score(own)[1:], scores[user, 1:], atol=1e-5)


def test_a_window_slides() -> None:
    found = window_counts(np.array([1, 2, 2, 1, 3, 9]), np.array([0, 3, 3, 6]), 3, 3)
    assert found[:, 1:].tolist() == [[0, 0, 0], [1, 2, 0], [1, 2, 0], [1, 0, 1]]
    assert window_counts(np.array([1, 2, 2]), np.array([3]), 0, 2)[0, 1:].tolist() == [1, 2]


def test_renaming_undoes_a_permutation_and_changes_no_vector(stream: Stream, tmp_path: Path) -> None:
    model = learner("new items", tmp_path)
    model.begin(stream, 0)
    ids, rng = model.ids, np.random.default_rng(0)
    mixed = [rng.permutation(size) for size in ids.sizes[: ids.learned]]
    other = renamed(ids, mixed)
    levels = np.arange(ids.learned)
    assert not np.array_equal(other.code_ids, ids.code_ids)
    assert np.allclose(other.codebook[levels, other.raw_codes], ids.codebook[levels, ids.raw_codes])
    back = renamed(other, renaming(ids.raw_codes[1:], other.raw_codes[1:], ids.sizes))
    assert (back.raw_codes[1:] == ids.raw_codes[1:]).all()
    key = "quantizer.books.0.codebook"
    weights = renamed_weights(model.weights, mixed)
    assert np.allclose(weights[key].numpy(), other.codebook)
    assert not np.allclose(model.weights[key].numpy(), other.codebook)


def test_rows_are_stored_and_a_policy_that_cannot_be_followed_is_refused(stream: Stream, tmp_path: Path) -> None:
    store, settings = Store(tmp_path), config()
    first = rounds.run_row(stream, Row("item-knn", "updates", 0), settings, store)
    again = rounds.run_row(stream, Row("item-knn", "updates", 0), settings, store)
    assert (first.metric("ndcg@10") == again.metric("ndcg@10")).all()
    assert (first.learning == again.learning).all()
    with pytest.raises(ValueError, match="popularity cannot follow the policy 'retrained': choose from nothing"):
        rounds.run_row(stream, Row("popularity", "retrained", 0), settings, store)
    assert {row.policy for row in rounds.plan([0, 1]) if row.seed == 1} == set(POLICIES) - set(rounds.ONE_SEED)


def test_wrong_numbers_are_refused(stream: Stream) -> None:
    for wrong in ({"periods": 9}, {"periods": 0}, {"until": 5, "periods": 4}, {"withheld": 1.0}, {"start": 0.0}):
        with pytest.raises(ValueError, match="need 1 to 8 periods"):
            make_stream(stream.source, **wrong)
