"""The replay: nothing from the future, batches as one by one, counts that grow as if counted anew, renamed tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from replayed import DATA, PERIODS, config, learner, made_stream

from bbqrec_core import SemanticIds, Sequences
from bbqrec_core.tokenizer.semantic_ids import build_tree, group_sizes
from bbqrec_lab.baselines.counting import ItemKnn, item_cosines
from bbqrec_lab.baselines.tokenizers import resolve_signals
from bbqrec_lab.datasets.time_split import TimeSplit
from bbqrec_lab.replay import learners, rounds
from bbqrec_lab.replay.counting import GrowingKnn, SlidingPopularity, window_counts
from bbqrec_lab.replay.learners import POLICIES, TokenLearner, maker_of, popular_first, warm
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


@pytest.mark.parametrize("tokens", [True, False])
def test_models_train_elsewhere_and_answer_on_the_cpu(
    stream: Stream, tmp_path: Path, device: torch.device, tokens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners, "best_device", lambda: device)
    monkeypatch.setattr(learners, "UPDATE_STEPS", {"smoke": 1})
    trained, fit = [], learners.fit
    monkeypatch.setattr(learners, "fit", lambda task, *given: (trained.append(task.device.type), fit(task, *given)))
    model = learner("updates", tmp_path, tokens, r_layers=1, r_score_steps=1, r_batch_events=10**4)
    for period in range(2 if tokens else 1):
        model.begin(stream, period)
        start = int(stream.bounds[period])
        scores = model.scores(stream, start, start + 4)
        assert scores.device == model.scorer.device == torch.device("cpu")
        assert scores[:, 1:].isfinite().all()
    assert trained == [device.type] * tokens


def behaves(name: str, ids: SemanticIds, split: TimeSplit) -> bool:
    """Whether IDs have what a setting asks for."""
    sizes = group_sizes(ids.code_ids)[0]
    if name == "features":
        return np.array_equal(ids.signal_vectors[:, 1, : split.features["text"].shape[1]], split.features["text"])
    if name == "signals":  # before quantization no two items are equal
        return len(np.unique(ids.signal_vectors[ids.present[:, 0], 0], axis=0)) == ids.present[:, 0].sum()
    if name == "joined":
        return ids.signals == ("image+text", "id")
    return ids.sid_len == ids.learned + (name == "extra") and sizes.max() == 1


SETTINGS = {
    "features": {"r_similarity": "features"},
    "signals": {"r_similarity": "signals"},
    "joined": {"joined": True},
    "extra": {"uniqueness": "extra"},
    "transport": {"transport": True, "uniqueness": "none", "codes": 20},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_follow_every_setting_of_a_run(stream: Stream, tmp_path: Path, name: str) -> None:
    model, split = learner("remade", tmp_path, **SETTINGS[name]), stream.known_before(0)
    model.config = replace(model.config, tokenizer=resolve_signals(model.config.tokenizer, split))
    for period in range(2):
        model.begin(stream, period)
        assert behaves(name, model.ids, stream.known_before(period))
    assert model.known == stream.sizes[1]
    start = int(stream.bounds[1])
    assert model.scores(stream, start, start + 9)[:, 1:].isfinite().all()


def test_ids_without_an_encoder_are_refused_before_any_training(stream: Stream, tmp_path: Path) -> None:
    for changes, why in (({"source": "random"}, "source=random"), ({"w_align": 1.0}, "aligned with a SASRec")):
        with pytest.raises(ValueError, match=why):
            rounds.run_row(stream, Row("bbqrec", "history", 0), config(**changes), Store(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_warm_start_takes_what_is_learned_and_no_buckets(stream: Stream, tmp_path: Path) -> None:
    model = learner("remade", tmp_path)
    model.begin(stream, 0)
    old = model.scorer.model
    with torch.no_grad():
        for value in old.parameters():
            value += 1
    shifted = replace(model.ids, signal_vectors=np.roll(model.ids.signal_vectors, 1, 0) ** 3)
    build = warm(maker_of(stream.known_before(0), model.config, old), old, model.ids)
    new = build(len(shifted.code_ids) - 1, shifted, model.config.recommender)
    taken = dict(old.named_parameters(remove_duplicate=False))
    for name, value in new.named_parameters(remove_duplicate=False):
        assert torch.equal(value[1:], taken[name][1:]) if name == "items.weight" else torch.equal(value, taken[name])
    assert not torch.equal(new.reweighting.edges, old.reweighting.edges)
    assert torch.equal(new.reweighting.pairs, new.reweighting.compare_all())


def test_what_was_trained_on_keeps_no_even_share(stream: Stream, tmp_path: Path) -> None:
    """In the last period nothing joins, so the tree stays that of the catalogue."""
    still = replace(stream, sizes=np.append(stream.sizes[:2], stream.sizes[1]))
    model = learner("updates", tmp_path)
    for period in range(PERIODS):
        model.begin(still, period)
    known = np.bincount(stream.items(slice(0, int(stream.bounds[2]))), minlength=model.known + 1)[: model.known + 1] > 0
    assert (model.seen == known).all()
    wanted = build_tree(model.ids.code_ids, known)
    assert all(torch.equal(one, other) for one, other in zip(model.scorer.tree.unseen, wanted.unseen, strict=True))
    model.begin(stream, 0)
    assert (model.seen == (stream.known_before(0).train_counts() > 0)).all()


def test_users_without_a_history_get_shares_of_events() -> None:
    history = Sequences(np.array([0, 0, 1]), np.array([1, 0], np.int32))
    scores = torch.tensor([[-np.inf, 1.0, 2.0, 3.0]] * 2)
    found = popular_first(scores, history, np.array([0, 5, 0]))
    assert torch.equal(found[1], scores[1])
    assert found[0, 1:].exp().tolist() == pytest.approx([6 / 8, 1 / 8, 1 / 8])
    assert found[0, 0] == -torch.inf


def test_a_damaged_checkpoint_is_set_aside_and_the_row_is_made(stream: Stream, tmp_path: Path) -> None:
    one = learner("updates", tmp_path / "one")
    one.begin(stream, 0)
    (again,) = (tmp_path / "one" / "start" / "tokens").glob("epoch-*.safetensors")
    again.write_bytes(again.read_bytes()[:-9])
    for path in (tmp_path / "one" / "start").glob("epoch-*.safetensors"):
        path.write_bytes(b"damaged")
    two = learner("updates", tmp_path / "one")
    two.begin(stream, 0)
    assert (two.ids.code_ids == one.ids.code_ids).all()
    assert len(list((tmp_path / "one" / "start").rglob("*.damaged"))) >= 2


def test_data_that_number_their_items_otherwise_have_other_keys(stream: Stream, tmp_path: Path) -> None:
    other = made_stream(tmp_path, split_seed=1)
    assert other.source.content_hash == stream.source.content_hash
    assert rounds.stream_key(other)["events"] != rounds.stream_key(stream)["events"]
    assert rounds.stream_key(made_stream(tmp_path / "same")) == rounds.stream_key(stream)


def test_a_modality_that_no_item_of_the_start_has_is_left_out(stream: Stream) -> None:
    joined = np.zeros(stream.n_items + 1, np.int64)
    joined[stream.rows] = stream.joined
    late = stream.source.presence["text"] & (joined > 0)
    source = replace(stream.source, presence=stream.source.presence | {"text": late})
    found = make_stream(source, PERIODS, 0.6, withheld=0.2, seed=1)
    assert late.any()
    assert list(found.features) == list(found.presence) == [name for name in stream.features if name != "text"]


def test_what_is_learned_between_lists_is_no_part_of_answering(stream: Stream) -> None:
    class Slow(SlidingPopularity):
        """Says that it learns for an hour in every batch."""

        def scores(self, stream: Stream, start: int, stop: int) -> torch.Tensor:
            self.spent += 3600.0
            return super().scores(stream, start, stop)

    *_, learning, answering = replay(stream, Slow("history"), batch=10**6)
    assert np.allclose(learning, 3600, atol=60)
    assert np.allclose(answering, -3600, atol=60)
    spent = {}
    for policy in ("history", "updates"):
        knn = GrowingKnn(policy)
        replay(stream, knn)
        spent[policy] = knn.spent
    assert spent["history"] == 0 < spent["updates"]


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
