"""Laws of the rivals' parts: gated blocks, losses with negatives, and which model a row's settings ask for."""

import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import planted_data, recommender_config, same_tensors, semantic_ids
from torch import nn

from bbqrec_core import (
    EvaluationConfig,
    RecommenderConfig,
    SequenceModel,
    Sequences,
    build_recommender,
    fit_recommender,
    rank_scores,
)
from bbqrec_core.metrics import filter_seen
from bbqrec_core.recommender.fit import early_score
from bbqrec_core.transformer import Block, Transformer, causal_mask, select_query
from bbqrec_lab.baselines.code_level_model import TokenModel
from bbqrec_lab.baselines.counting import Popularity, item_cosines, transition_counts
from bbqrec_lab.baselines.esasrec import GatedBlock, NegativesModel
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.settings import RowConfig

USERS, HEADS, KEYS = 2, 3, 7
LAYERS, WIDTH = 2, 6
N, SIZES = 24, (5, 5, 3)
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=7)
FEATURES = torch.randn(N + 1, 7, generator=torch.Generator().manual_seed(5)).index_fill(0, torch.tensor([0, 4]), 0.0)
GATED = {"output": "both", "features": True, "block": "ligr"}  # all that the model can hold, on gated blocks


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("rival-models"))


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


@pytest.fixture(scope="module")
def run(data, ids, tmp_path_factory):
    """fit(**settings) -> (Recommender, History), each distinct one trained once."""
    made = {}

    def fit(evaluation=EVALUATION, seed=0, **changes):
        key = (evaluation, seed, *sorted(changes.items()))
        if key not in made:
            config, folder = recommender_config(**changes), tmp_path_factory.mktemp("r") / "c"
            made[key] = fit_recommender(data, ids, config, evaluation, seed, folder, make_model)
        return made[key]

    return fit


def fresh(ids, **changes):
    """A recommender on gated blocks in float64 with similarity tables and vectors of prefixes that are not zero."""
    config = recommender_config(**(GATED | changes))
    made = build_recommender(N, ids, config, 3, FEATURES, make=make_model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in (made.model.reweighting.table, *(part.weight for part in made.model.vectors.prefixes)):
            weight.normal_(generator=generator)
    made.model.double()
    return made


# ---- which model


def test_settings_pick_the_model_and_its_blocks(ids):
    for changes, given, kind, block in (
        ({}, ids, SequenceModel, Block),
        ({}, None, SequenceModel, Block),
        ({"output": "both", "block": "ligr"}, ids, SequenceModel, GatedBlock),
        ({"output": "items", "loss": "bce"}, None, NegativesModel, Block),
        ({"output": "items", "loss": "sampled"}, ids, NegativesModel, Block),
        ({"output": "items", "loss": "sampled", "block": "ligr"}, None, NegativesModel, GatedBlock),
        ({"granularity": "code"}, ids, TokenModel, Block),
        ({"granularity": "code"}, None, SequenceModel, Block),
        ({"granularity": "code", "output": "both"}, ids, SequenceModel, Block),
    ):
        made = make_model(N, given, recommender_config(**changes), None)
        assert type(made) is kind
        assert [type(part) for part in made.blocks.blocks] == [block] * LAYERS
        if made.head is not None and kind is SequenceModel:
            assert [type(part) for part in made.head.blocks.blocks] == [
                Block
            ]  # over a few codes, whatever the backbone


def test_a_row_with_the_settings_of_the_core_is_the_model_of_the_core(data, ids, run, tmp_path):
    found, history = run()
    plain = RecommenderConfig(
        **{spec.name: getattr(recommender_config(), spec.name) for spec in fields(RecommenderConfig)}
    )
    wanted, other = fit_recommender(data, ids, plain, EVALUATION, 0, tmp_path / "c")
    assert same_tensors(found.model.state_dict(), wanted.model.state_dict())
    assert history.epochs == other.epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "bce"}, "loss must be ce unless output is items, got loss=bce, output=codes"),
        ({"loss": "sampled", "output": "both"}, "got loss=sampled, output=both"),
        ({"features": True}, "set output to items or both, got output=codes"),
        ({"width": 7, "heads": 2}, "width must be a multiple of heads, got width=7, heads=2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recommender_config(**changes)


CHANGES = {
    "loss": "sampled",
    "negatives": 2,
    "granularity": "code",
    "similarity": "features",
    "similarity_form": "linear",
    "block": "ligr",
}
NEEDS = {"loss": {"output": "items"}, "negatives": {"output": "items", "loss": "sampled"}}


def test_every_setting_has_a_test_that_changes_it():
    shared = [spec.name for spec in fields(RecommenderConfig)]  # test_fit_recommender.py changes these
    assert [*shared, *CHANGES] == [spec.name for spec in fields(RowConfig)]
    base = asdict(recommender_config())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_a_result(run, name):
    base = NEEDS.get(name, {})
    (first, before), (second, after) = run(**base), run(**(base | {name: CHANGES[name]}))
    assert not (same_tensors(first.model.state_dict(), second.model.state_dict()) and before.epochs == after.epochs)


def test_a_model_without_ids_ignores_the_settings_of_codes():
    for output in ("codes", "items", "both"):
        for granularity in ("item", "code"):
            model = make_model(N, None, recommender_config(output=output, granularity=granularity), None)
            assert model.head is None
            assert model.items is not None


# ---- gated blocks


def stack(dropout=0.0):
    torch.manual_seed(0)
    return Transformer(LAYERS, WIDTH, HEADS, dropout, GatedBlock).double().eval()


def biases(length):
    return [causal_mask(length)[None, None] + 0.5 * normal(USERS, HEADS, length, length, seed=n) for n in range(LAYERS)]


def test_a_gated_block_multiplies_each_branch_by_a_gate_of_the_stream():
    torch.manual_seed(0)
    block, x = GatedBlock(WIDTH, HEADS, 0.0).double(), normal(USERS, KEYS, WIDTH)
    y, _ = block(x, causal_mask(KEYS))
    heads = F.scaled_dot_product_attention(*block.project(x), is_causal=True)
    middle = x + torch.sigmoid(block.gate_attention(x)) * block.out(torch.cat(heads.unbind(1), -1))
    hidden = block.norm_forward(middle) @ block.up.weight.T
    swish, linear = hidden[..., : 4 * WIDTH], hidden[..., 4 * WIDTH :]
    forward = (swish * torch.sigmoid(swish) * linear) @ block.down.weight.T
    torch.testing.assert_close(y, middle + torch.sigmoid(block.gate_forward(middle)) * forward)


def test_closed_gates_leave_the_stream_as_it_is():
    block, x = GatedBlock(WIDTH, HEADS, 0.0).double(), normal(USERS, KEYS, WIDTH)
    for gate in (block.gate_attention, block.gate_forward):
        torch.nn.init.constant_(gate.bias, -1e9)
    assert torch.equal(block(x, causal_mask(KEYS))[0], x)


def test_attention_rows_sum_to_one_and_look_at_nothing_later():
    _, maps = stack()(normal(USERS, KEYS, WIDTH), biases(KEYS))
    assert len(maps) == LAYERS
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(USERS, HEADS, KEYS, dtype=torch.float64))
        assert bool((weights.triu(1) == 0).all())
        assert bool((weights >= 0).all())


def test_a_later_position_changes_no_earlier_output():
    model, x = stack(), normal(USERS, KEYS, WIDTH)
    changed = x.clone()
    changed[:, 4:] = normal(USERS, KEYS - 4, WIDTH, seed=9)
    before, after = (model(version, biases(KEYS))[0] for version in (x, changed))
    assert torch.equal(before[:, :4], after[:, :4])
    assert bool((before[:, 4:] != after[:, 4:]).any(-1).all())


def test_one_position_a_user_is_that_of_one_pass():
    model, x, row = stack(), normal(USERS, KEYS, WIDTH), torch.tensor([1, 4])
    for given in (biases(KEYS), [causal_mask(KEYS).double()[None, None]] * LAYERS):  # for each head, or one for all
        whole, _ = model(x, given)
        there = [*given[:-1], select_query(given[-1], row)]
        torch.testing.assert_close(model.last_position(x, there, row), whole[torch.arange(USERS), row])


def test_growing_position_by_position_equals_one_pass():
    model, x = stack(), normal(USERS, KEYS, WIDTH)
    whole, _ = model(x, [causal_mask(KEYS)] * LAYERS)
    caches = [None] * LAYERS
    for position in range(KEYS):
        out, caches = model.extend(x[:, position, None], caches)
        torch.testing.assert_close(out[:, 0], whole[:, position])
    assert all(cache.shape == (2, USERS, HEADS, KEYS, WIDTH // HEADS) for cache in caches)


def test_dropout_acts_in_training_only():
    model, x = stack(dropout=0.5), normal(USERS, KEYS, WIDTH)
    plain = stack()(x, biases(KEYS))[0]
    assert torch.equal(model(x, biases(KEYS))[0], plain)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(x, biases(KEYS))[0], plain)


# ---- the sequence model on gated blocks; test_fit_recommender.py has these laws on plain ones


def test_padding_never_changes_a_score(ids):
    model = fresh(ids, max_events=9).model
    row = torch.tensor([[3, 8, 3, 17]])
    padded = torch.cat([row, torch.zeros(1, 5, dtype=torch.long)], 1)
    company = torch.cat([padded, torch.arange(1, 10)[None]])
    for rows in (padded, company):
        torch.testing.assert_close(model.last_states(rows)[:1], model.last_states(row))
        torch.testing.assert_close(model.states(rows)[0][:1, :4], model.states(row)[0])
    alone = model.loss(row)["loss"]
    torch.testing.assert_close(model.loss(padded)["loss"], alone)


@pytest.mark.parametrize("form", ["buckets", "linear"])
def test_the_last_state_alone_is_that_of_one_pass_over_all(form, ids):
    model = fresh(ids, similarity_form=form).model
    rows = torch.tensor([[3, 8, 3, 17], [5, 9, 0, 0], [4, 0, 0, 0]])
    last = (rows > 0).sum(1) - 1
    torch.testing.assert_close(model.last_states(rows), model.states(rows)[0][torch.arange(3), last])


def test_a_later_item_changes_no_earlier_state(ids):
    model = fresh(ids).model
    before, after = (model.states(torch.tensor([rows]))[0] for rows in ([4, 9, 2, 7, 1], [4, 9, 2, 11, 20]))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


def test_scores_come_in_the_order_of_the_users_asked(ids, data):
    recommender = fresh(ids)
    history = data.history("test")
    one_by_one = torch.cat([recommender.scores(history, np.array([user])) for user in range(data.n_users)])
    assert one_by_one.shape == (data.n_users, N + 1)
    for users in (np.arange(data.n_users), np.array([5, 2, 19, 2, 0]), np.arange(data.n_users)[::-1]):
        torch.testing.assert_close(recommender.scores(history, users), one_by_one[users.copy()])
    assert bool((one_by_one[:, 0] == -torch.inf).all())
    assert bool(one_by_one[:, 1:].isfinite().all())


def test_scores_read_the_last_events_only(ids):
    long = Sequences(np.array([0, 6, 9]), np.array([9, 8, 7, 1, 2, 3, 1, 2, 3], dtype=np.int32))
    scores = fresh(ids, max_events=3).scores(long, np.array([0, 1]))
    torch.testing.assert_close(scores[0], scores[1])


def test_an_item_enters_as_the_sum_of_all_that_the_model_holds_of_it(ids):
    model = fresh(ids).model
    for place, row in enumerate([3, 8]):
        codes, nodes = ids.code_ids[row], model.vectors.node[row]
        wanted = model.items.weight[row] + model.project.weight @ FEATURES[row].double()
        wanted = wanted + sum(table.weight[code] for table, code in zip(model.vectors.codes, codes, strict=True))
        wanted = wanted + sum(table.weight[node] for table, node in zip(model.vectors.prefixes, nodes[1:], strict=True))
        torch.testing.assert_close(model.embed(torch.tensor([[3, 8, 0]]))[0, place], wanted)


def test_two_heads_score_by_the_weighted_sum_of_both_log_probabilities(ids, data):
    recommender = fresh(ids, w_codes=2.0)
    model, history = recommender.model, data.history("test")
    scores = recommender.scores(history, np.array([3, 0]))
    for place, user in enumerate([3, 0]):
        items = history.items[history.offsets[user] : history.offsets[user + 1]][-5:]
        state = model.last_states(torch.tensor([items.tolist()]))
        logits = torch.stack([(state @ model.item_embeddings(torch.tensor([row])).T)[0, 0] for row in range(1, N + 1)])
        for row in range(1, N + 1):
            coded = model.head(state, model.vectors.node[row][None])[0]
            torch.testing.assert_close(scores[place, row], 2 * coded + logits[row - 1] - torch.logsumexp(logits, 0))


def test_two_heads_learn_from_the_weighted_sum_of_both_losses(ids):
    model, rows = fresh(ids, w_codes=2.0).model, torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    parts = model.loss(rows)
    states, targets = model.states(rows[:, :-1])[0][rows[:, 1:] > 0], rows[:, 1:][rows[:, 1:] > 0]
    torch.testing.assert_close(parts["codes"], -model.head(states, model.vectors.node[targets]).mean())
    torch.testing.assert_close(parts["items"], F.cross_entropy(states @ model.item_embeddings()[1:].T, targets - 1))
    torch.testing.assert_close(parts["loss"], 2 * parts["codes"] + parts["items"])


def test_features_are_the_same_going_in_and_coming_out_and_absent_ones_add_nothing(ids):
    model = fresh(ids).model
    vectors = model.item_embeddings()
    torch.testing.assert_close(vectors, model.items.weight + FEATURES.double() @ model.project.weight.T)
    torch.testing.assert_close(model.item_embeddings(torch.tensor([[8], [3]])), vectors[[8, 3]][:, None])
    assert torch.equal(vectors[4], model.items.weight[4])  # has none
    model.loss(torch.tensor([[1, 2]]))["loss"].backward()
    assert bool(model.project.weight.grad.any())
    assert not model.features.requires_grad


def test_permuting_items_and_what_belongs_to_them_permutes_the_scores(ids, data):
    order = np.append(0, 1 + np.random.default_rng(4).permutation(N))  # new row r holds what old row order[r] held
    moved = {
        name: value[order] if isinstance(value, np.ndarray) and name != "codebook" else value
        for name, value in vars(ids).items()
    }
    plain, other = fresh(ids), fresh(replace(ids, **moved))
    state = plain.model.state_dict()
    for name in ("items.weight", "features", "reweighting.vectors", "reweighting.present"):
        state[name] = state[name][order]
    other.model.load_state_dict(state)
    square = plain.model.reweighting.pairs.view(len(order), len(order), -1)  # buckets belong to pairs of items
    other.model.reweighting.pairs = square[order][:, order].flatten(0, 1)
    history = data.history("test")
    renamed = Sequences(history.offsets, np.argsort(order)[history.items].astype(np.int32))
    users = np.arange(data.n_users)
    torch.testing.assert_close(other.scores(renamed, users), plain.scores(history, users)[:, order])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_scores_for_ranking_leave_out_only_what_no_rank_or_list_shows(k, data, ids):
    recommender = fresh(ids)
    history, targets, users = data.history("test"), data.targets("test"), np.arange(data.n_users)
    whole, part = recommender.scores(history, users), recommender.ranking_scores(history, users, targets, k)
    for mask in (lambda scores: scores, lambda scores: filter_seen(scores, history, users)):
        for found, wanted in zip(
            rank_scores(mask(part), targets, k), rank_scores(mask(whole), targets, k), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


TRAINED = {"gated": GATED, "sampled": {"output": "items", "loss": "sampled", "block": "ligr"}}
trained = pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)


@trained
def test_training_repeats_for_its_seed_and_learns(data, ids, run, tmp_path, changes):
    config = recommender_config(**changes)
    again, history = fit_recommender(data, ids, config, EVALUATION, 0, tmp_path / "c", make_model)
    first, wanted = run(**changes)
    assert same_tensors(again.model.state_dict(), first.model.state_dict())
    assert history.epochs == wanted.epochs
    assert not same_tensors(run(seed=1, **changes)[0].model.state_dict(), first.model.state_dict())
    assert wanted.epochs[-1]["loss"] < wanted.epochs[0]["loss"]
    assert not first.model.training


@trained
def test_what_comes_back_is_the_best_epoch_by_validation(data, run, changes):
    recommender, history = run(**changes)
    scores = [row["score"] for row in history.epochs]
    assert history.best_epoch == 1 + int(np.argmax(scores))
    assert early_score(recommender, data, np.arange(data.n_users), EVALUATION) == pytest.approx(max(scores))


@trained
def test_test_events_change_nothing_that_is_trained(data, ids, run, tmp_path, changes):
    items, last = data.sequences.items.copy(), data.sequences.offsets[1:] - 1
    items[last] = items[last] % N + 1
    changed = replace(data, sequences=Sequences(data.sequences.offsets, items))
    config = recommender_config(**changes)
    found, history = fit_recommender(changed, ids, config, EVALUATION, 0, tmp_path / "c", make_model)
    assert same_tensors(found.model.state_dict(), run(**changes)[0].model.state_dict())
    assert history.epochs == run(**changes)[1].epochs


@trained
def test_the_evaluation_batch_changes_no_result(run, changes):
    (first, before), (second, after) = run(**changes), run(evaluation=replace(EVALUATION, batch=3), **changes)
    assert same_tensors(first.model.state_dict(), second.model.state_dict())
    assert [r["score"] for r in before.epochs] == pytest.approx([r["score"] for r in after.epochs])


# ---- losses with negatives


def item_scorer(n_items, **changes):
    """An untrained item model with item vectors of ordinary size."""
    torch.manual_seed(0)
    model = make_model(n_items, None, recommender_config(output="items", **changes), None).double()
    nn.init.normal_(model.items.weight)
    return model


def test_binary_loss_weighs_the_target_against_one_other_item():
    model, states = item_scorer(2, loss="bce"), torch.randn(3, 6, dtype=torch.float64)
    targets = torch.tensor([1, 2, 1])  # of two items the other one is certain
    x, y = ((states * model.items.weight[rows]).sum(1) for rows in (targets, 3 - targets))
    torch.testing.assert_close(model.item_loss(states, targets), -(x.sigmoid().log() + (-y).sigmoid().log()).mean())


@pytest.mark.parametrize("target", [1, 3, 5])
def test_the_negative_of_binary_loss_is_any_other_item_equally_often(target):
    model = item_scorer(5, loss="bce")
    with torch.no_grad():
        model.items.weight[:, 0] = torch.arange(6) * 1.0
    states = torch.eye(6, dtype=torch.float64)[:1].expand(20_000, 6)  # reads an item's number off
    found = model.item_loss(states, torch.full((20_000,), target)) - F.softplus(torch.tensor(-target * 1.0))
    others = [math.log1p(math.exp(j)) for j in range(1, 6) if j != target]
    assert found.item() == pytest.approx(np.mean(others), abs=0.05)


def test_sampled_softmax_draws_once_for_the_batch_and_drops_hits_of_the_target():
    model, state = item_scorer(2, loss="sampled", negatives=9), torch.randn(1, 6, dtype=torch.float64)
    x = (state @ model.items.weight.T)[0]
    losses, drawn = [], []
    for target in (1, 2):
        torch.manual_seed(4)
        losses.append(model.item_loss(state, torch.tensor([target])))
        drawn.append(((losses[-1].exp() - 1) * (x[target] - x[3 - target]).exp()).item())  # draws of the other
    assert drawn == pytest.approx(np.round(drawn))
    assert min(drawn) > 0
    assert sum(drawn) == pytest.approx(9)
    torch.manual_seed(4)
    torch.testing.assert_close(model.item_loss(state.expand(2, 6), torch.tensor([1, 2])), sum(losses) / 2)


def test_sampled_softmax_nears_the_full_one_as_negatives_cover_the_catalogue():
    full, many = item_scorer(5), item_scorer(5, loss="sampled", negatives=400_000)
    states, targets = torch.randn(4, 6, dtype=torch.float64), torch.tensor([1, 2, 4, 5])
    logits = states @ full.items.weight[1:].T
    own = logits.gather(1, targets[:, None] - 1)
    others = logits.scatter(1, targets[:, None] - 1, -torch.inf) + math.log(400_000 / 5)
    wanted = torch.logsumexp(torch.cat([own, others], 1), 1) - own[:, 0]
    assert many.item_loss(states, targets).item() == pytest.approx(wanted.mean().item(), abs=0.01)


@pytest.mark.parametrize(("loss", "rows"), [("bce", 3 + 3), ("sampled", 3 + 4)])
def test_losses_with_negatives_touch_the_targets_and_the_negatives_alone(loss, rows):
    model = item_scorer(97, loss=loss, negatives=4)
    model.item_loss(torch.randn(3, 6, dtype=torch.float64), torch.tensor([5, 50, 97])).backward()
    touched = model.items.weight.grad.any(1)
    assert 3 < int(touched.sum()) <= rows
    assert bool(touched[[5, 50, 97]].all())
    assert not touched[0]


@pytest.mark.parametrize("loss", ["bce", "sampled"])
def test_losses_with_negatives_learn_to_rank_the_target_first(loss):
    model = item_scorer(7, loss=loss, negatives=3)
    states, targets = torch.eye(6, dtype=torch.float64), torch.tensor([1, 2, 3, 4, 5, 7])
    optimizer = torch.optim.Adam([model.items.weight], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        model.item_loss(states, targets).backward()
        optimizer.step()
    assert torch.equal((states @ model.items.weight[1:].T).argmax(1) + 1, targets)


# ---- counting


def test_what_counts_without_order_ignores_a_shuffle_of_training_time(data):
    """Bit for bit: popularity and item-item; steps do change. test_identities.py has the tokenizer's half of it."""
    rng, items = np.random.default_rng(8), data.sequences.items.copy()
    for start, end in zip(data.sequences.offsets[:-1], data.sequences.offsets[1:] - 2, strict=True):
        items[start:end] = rng.permutation(items[start:end])
    other, users = replace(data, sequences=Sequences(data.sequences.offsets, items)), np.arange(data.n_users)
    scores = [Popularity.fit(one).scores(one.history("valid"), users) for one in (data, other)]
    assert torch.equal(*scores)
    cosines = [item_cosines(one.train(), N, 1.0, 5).toarray() for one in (data, other)]
    assert np.array_equal(*cosines)
    steps = [transition_counts(one.train(), 1, N).toarray() for one in (data, other)]
    assert not np.array_equal(*steps)
