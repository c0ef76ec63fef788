"""Laws of the baselines' parts: gated blocks, losses with negatives, and which model a row's settings ask for."""

import math
from dataclasses import asdict, fields, replace
from functools import cache, partial

import block_laws
import numpy as np
import pytest
import recommender_laws as laws
import torch
import torch.nn.functional as F
from block_laws import HEADS, KEYS, LAYERS, USERS, WIDTH
from recommender_laws import EVALUATION, SIZES, N, alike
from tiny import lab_recommender_config, normal, planted_data, recommender_config, same_tensors, semantic_ids
from torch import nn

from bbqrec_core import RecommenderConfig, SequenceModel, Sequences, fit_recommender
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_core.transformer import Block, causal_mask
from bbqrec_lab.baselines.bsarec import LOWEST, SHARE, FrequencyBlock, low_pass
from bbqrec_lab.baselines.code_level_model import TokenModel
from bbqrec_lab.baselines.counting import Popularity, item_cosines, transition_counts
from bbqrec_lab.baselines.esasrec import CALIBRATION, GatedBlock, NegativesModel, gbce_power
from bbqrec_lab.baselines.features_model import FeaturesModel, item_features
from bbqrec_lab.baselines.hstu import BUCKETS, HstuBlock, HstuModel, time_bucket
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.settings import VariantRecommenderConfig

FEATURES = laws.features_of_some_items()
KINDS = {  # all that a model can hold, on both kinds of blocks
    "features": {"output": "both", "features": True},
    "gated": {"output": "both", "features": True, "block": "ligr"},
    "filtered": {"output": "both", "features": True, "block": "bsarec"},
    "hstu": {"output": "both", "features": True, "block": "hstu"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return planted_data(tmp_path_factory.mktemp("baseline-models"))


@pytest.fixture(scope="module")
def ids():
    return semantic_ids(N, SIZES)


@pytest.fixture(scope="module")
def fit(data, ids):
    """fit(folder, dataset, ...) -> (Recommender, TrainingLog) of a row."""

    def fit(folder, dataset=data, evaluation=EVALUATION, seed=0, **changes):
        config = lab_recommender_config(**changes)
        make = partial(make_model, features=item_features(dataset) if config.features else None)
        return fit_recommender(dataset, ids, config, evaluation, seed, folder, make)

    return fit


@pytest.fixture(scope="module")
def run(fit, tmp_path_factory):
    """run(**settings) -> (Recommender, TrainingLog), each distinct one trained once."""
    return cache(lambda **named: fit(tmp_path_factory.mktemp("r") / "c", **named))


def fresh(kind, ids, **changes):
    return laws.fresh(ids, lab_recommender_config(**(KINDS[kind] | changes)), partial(make_model, features=FEATURES))


# ---- which model


def test_settings_pick_the_model_and_its_blocks(ids):
    for changes, given, kind, block in (
        ({}, ids, SequenceModel, Block),
        ({}, None, SequenceModel, Block),
        ({"output": "both", "block": "ligr"}, ids, SequenceModel, GatedBlock),
        ({"output": "items", "features": True}, None, FeaturesModel, Block),
        ({"output": "both", "features": True, "block": "ligr"}, ids, FeaturesModel, GatedBlock),
        ({"output": "items", "features": True, "loss": "bce"}, None, NegativesModel, Block),
        ({"output": "items", "loss": "bce"}, None, NegativesModel, Block),
        ({"output": "items", "loss": "gbce"}, None, NegativesModel, Block),
        ({"output": "items", "loss": "sampled"}, ids, NegativesModel, Block),
        ({"output": "items", "loss": "sampled", "block": "ligr"}, None, NegativesModel, GatedBlock),
        ({"output": "items", "block": "bsarec"}, None, SequenceModel, FrequencyBlock),
        ({"output": "items", "block": "hstu"}, None, HstuModel, HstuBlock),
        ({"output": "both", "features": True, "block": "hstu"}, ids, HstuModel, HstuBlock),
        ({"output": "items", "loss": "sampled", "block": "hstu"}, None, HstuModel, HstuBlock),
        ({"granularity": "code"}, ids, TokenModel, Block),
        ({"granularity": "code"}, None, SequenceModel, Block),
        ({"granularity": "code", "output": "both"}, ids, SequenceModel, Block),
    ):
        made = make_model(N, given, lab_recommender_config(**changes), FEATURES if changes.get("features") else None)
        assert type(made) is kind
        assert [type(part) for part in made.blocks.blocks] == [block] * LAYERS
        if made.head is not None and kind is not TokenModel:
            heads = [type(part) for part in made.head.blocks.blocks]
            assert heads == [Block]  # over a few codes, whatever the backbone


def test_a_row_with_the_settings_of_the_core_is_the_model_of_the_core(data, ids, run, tmp_path):
    assert type(recommender_config()) is RecommenderConfig
    assert asdict(recommender_config()).items() <= asdict(lab_recommender_config()).items()
    assert alike(run(), fit_recommender(data, ids, recommender_config(), EVALUATION, 0, tmp_path / "c"))


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
        lab_recommender_config(**changes)
    with pytest.raises(ValueError, match=message):
        replace(lab_recommender_config(), **changes)


CHANGES = {
    "loss": "sampled",
    "negatives": 2,
    "features": True,
    "granularity": "code",
    "similarity": "features",
    "similarity_form": "linear",
    "bucket_edges": "uniform",
    "channels": "same",
    "block": "ligr",
}
NEEDS = {
    "loss": {"output": "items"},
    "negatives": {"output": "items", "loss": "sampled"},
    "features": {"output": "items"},
}


def test_every_setting_has_a_test_that_changes_it():
    shared = [spec.name for spec in fields(RecommenderConfig)]  # test_fit_recommender.py changes these
    assert [*shared, *CHANGES] == [spec.name for spec in fields(VariantRecommenderConfig)]
    base = asdict(lab_recommender_config())
    assert all(base[name] != value for name, value in CHANGES.items())


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_a_result(run, name):
    base = NEEDS.get(name, {})
    assert not alike(run(**base), run(**(base | {name: CHANGES[name]})))


def test_a_model_without_ids_ignores_the_settings_of_codes():
    for output in ("codes", "items", "both"):
        for granularity in ("item", "code"):
            model = make_model(N, None, lab_recommender_config(output=output, granularity=granularity), None)
            assert model.head is None
            assert model.items is not None


# ---- gated blocks


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


kinds_of_block = pytest.mark.parametrize("kind", [GatedBlock, FrequencyBlock, HstuBlock])


@pytest.mark.parametrize("kind", [GatedBlock, FrequencyBlock])
def test_attention_rows_sum_to_one_and_look_at_nothing_later(kind):
    block_laws.attention_rows_sum_to_one_and_look_at_nothing_later(kind)


@kinds_of_block
def test_a_later_position_changes_no_earlier_output(kind):
    block_laws.later_position_changes_no_earlier_output(kind)


@kinds_of_block
def test_one_position_a_user_is_that_of_one_pass(kind):
    block_laws.one_position_a_user_is_that_of_one_pass(kind)


def test_growing_position_by_position_equals_one_pass():
    block_laws.growing_position_by_position_equals_one_pass(GatedBlock)
    block_laws.growing_position_by_position_equals_one_pass(HstuBlock)
    block_laws.growing_position_by_position_equals_one_pass(FrequencyBlock, (1, USERS, 1, KEYS, WIDTH))


@kinds_of_block
def test_dropout_acts_in_training_only(kind):
    block_laws.dropout_acts_in_training_only(kind)


# ---- the frequency filter


@pytest.mark.parametrize("length", [1, 2, 4, 5, 6, 7, 12, 31])
def test_the_low_pass_gives_what_a_transform_of_the_prefix_gives_at_its_last_position(length):
    x = normal(length, 3)
    spectrum = torch.fft.fft(x, dim=0)
    k = torch.arange(length)
    spectrum[torch.minimum(k, length - k) > LOWEST // 2] = 0  # a component and its conjugate
    slow = torch.fft.ifft(spectrum, dim=0)
    assert slow.imag.abs().max() < 1e-12
    torch.testing.assert_close(low_pass(31)[length - 1, :length] @ x, slow.real[-1])
    assert low_pass(31)[length - 1, length:].eq(0).all()


def test_a_length_that_was_ranked_first_can_be_trained_with():
    with torch.inference_mode():
        low_pass(37)
    weight = torch.ones(37, 2, dtype=torch.float64, requires_grad=True)
    (low_pass(37) @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, torch.ones_like(weight) * low_pass(37).sum(0)[:, None])


def test_the_low_pass_keeps_what_is_constant_and_all_of_a_short_past():
    low = low_pass(40)
    torch.testing.assert_close(low.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(low[:LOWEST], torch.eye(40, dtype=torch.float64)[:LOWEST])
    assert low[LOWEST, LOWEST] < 0.9


def test_a_filter_weighs_fast_changes_by_the_square_of_its_channel():
    block, y = FrequencyBlock(WIDTH, HEADS, 0.0).double(), normal(USERS, 11, WIDTH)
    with torch.no_grad():
        block.beta[:] = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0])
    low = low_pass(11) @ y
    torch.testing.assert_close(block.filter(y), low + torch.tensor([0, 1, 1, 4, 0.25, 9]) * (y - low))


def test_a_frequency_block_mixes_the_filter_with_attention():
    torch.manual_seed(0)
    block, x = FrequencyBlock(WIDTH, HEADS, 0.0).double(), normal(USERS, KEYS, WIDTH)
    torch.nn.init.zeros_(block.out.bias)
    heads = F.scaled_dot_product_attention(*block.project(x), is_causal=True)
    attended = block.out(torch.cat(heads.unbind(1), -1))
    middle = x + SHARE * block.filter(block.norm_attention(x)) + (1 - SHARE) * attended
    forward = block.down(F.relu(block.up(block.norm_forward(middle))))
    torch.testing.assert_close(block(x, causal_mask(KEYS))[0], middle + forward)


# ---- HSTU


def test_pointwise_attention_looks_at_nothing_later():
    assert all((weights < 0).any() for weights in block_laws.attention_looks_at_nothing_later(HstuBlock))


def test_an_hstu_block_is_what_its_formula_says():
    torch.manual_seed(0)
    block, x = HstuBlock(WIDTH, HEADS, 0.0).double(), normal(USERS, KEYS, WIDTH)
    bias, width = normal(HEADS, KEYS, KEYS, seed=3), WIDTH // HEADS
    y, weights = block(x, bias + causal_mask(KEYS))
    normed = F.layer_norm(x, (WIDTH,))
    q, k, v = F.silu(normed @ block.qkv.weight.T + block.qkv.bias).split(WIDTH, -1)
    gate = F.silu(normed @ block.gate.weight.T + block.gate.bias)
    for user in range(USERS):
        for i in range(KEYS):
            rows = []
            for head, part in enumerate(torch.arange(WIDTH).split(width)):
                logits = torch.stack([q[user, i, part] @ k[user, j, part] + bias[head, i, j] for j in range(i + 1)])
                own = logits * logits.sigmoid() / (i + 1)
                torch.testing.assert_close(weights[user, head, i, : i + 1], own)
                rows.append(sum(own[j] * v[user, j, part] for j in range(i + 1)))
            gated = F.layer_norm(torch.cat(rows), (WIDTH,)) * gate[user, i]
            torch.testing.assert_close(y[user, i], x[user, i] + block.out.weight @ gated + block.out.bias)


def test_hstu_has_a_finite_gradient_for_every_parameter_and_no_feed_forward(ids):
    model = fresh("hstu", ids).model
    model.loss(laws.as_read(model, torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])))["loss"].backward()
    assert not any(name in key for key, _ in model.blocks.named_parameters() for name in ("up", "down", "forward"))
    assert all(bool(part.grad.isfinite().all()) for part in model.parameters() if part.grad is not None)
    assert bool(model.lag.grad.any(1).all())
    assert bool(model.gap.grad.flatten(1).any(1).all())


def test_times_fall_into_buckets_of_equal_width_in_their_logarithm():
    seconds = torch.tensor([-5, 0, 1, 2, 3, 4, 60, 3_600, 86_400, 31_536_000, 2**62])
    wanted = [min(int(math.log(max(t, 1)) / 0.301), 127) for t in seconds.tolist()]
    assert time_bucket(seconds).tolist() == wanted
    assert wanted[3:] == [2, 3, 4, 13, 27, 37, 57, 127]
    assert BUCKETS == 128


@torch.no_grad()
@pytest.mark.parametrize("last", [None, torch.tensor([3, 1])])
def test_offsets_of_hstu_come_from_lag_and_time_to_the_querys_own_event(last):
    model = laws.fresh(None, lab_recommender_config(output="items", block="hstu", max_events=9), make_model).model
    items = torch.tensor([[3, 8, 3, 17], [5, 6, 0, 0]])
    times = torch.tensor([[100, 100, 160, 90_000], [7, 5_000, 0, 0]])
    for given, known in ((torch.stack([items, times], -1), times), (items, torch.zeros_like(items))):
        found = model.biases(given, last)
        assert len(found) == LAYERS
        for layer, bias in enumerate(found):
            for user in range(2):
                for i in range(4) if last is None or layer < LAYERS - 1 else [int(last[user])]:
                    row = bias.expand(2, -1, -1, -1)[user, 0, i if bias.shape[2] > 1 else 0]
                    for j in range(4):
                        gap = int(time_bucket(known[user, i] - known[user, j]))
                        wanted = model.lag[layer, i - j] + model.gap[layer, 0, gap, 0] if j <= i else -torch.inf
                        assert row[j].item() == pytest.approx(float(wanted))


def test_times_of_the_data_reach_a_model_that_reads_them_and_no_other(data, fit, run, tmp_path):
    times = data.sequences.times
    later = data.sequences._replace(times=times + 1_000 * np.arange(len(times)) ** 2 // 2)
    other, users = replace(data, sequences=later), np.arange(data.n_users)
    for block, same in (("hstu", False), ("plain", True)):
        changes = {"output": "items", "block": block, "epochs": 1}  # one epoch is the best, whatever validation says
        (model, _), (again, _) = run(**changes), fit(tmp_path / block, other, **changes)
        assert torch.equal(*(model.scores(one.history("test"), users) for one in (data, other))) is same
        assert same_tensors(again.model.state_dict(), model.model.state_dict()) is same
        both, _ = run(output="both", block=block)
        found = [beam_ranks(both, one, "test", users, EVALUATION).top for one in (data, other)]
        assert np.array_equal(*found) is same


# ---- the sequence model with features, on all kinds of blocks; test_fit_recommender.py has these laws without


@pytest.mark.parametrize("kind", KINDS)
def test_padding_never_changes_a_score(kind, ids):
    laws.padding_never_changes_a_score(fresh(kind, ids, max_events=9).model)


@pytest.mark.parametrize("form", ["buckets", "linear"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_state_alone_is_that_of_one_pass_over_all(kind, form, ids):
    laws.last_state_alone_is_that_of_one_pass_over_all(fresh(kind, ids, similarity_form=form).model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_item_changes_no_earlier_state(kind, ids):
    laws.later_item_changes_no_earlier_state(fresh(kind, ids).model)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_come_in_the_order_of_the_users_asked(kind, ids, data):
    laws.scores_come_in_the_order_of_the_users_asked(fresh(kind, ids), data)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_read_the_last_events_only(kind, ids):
    laws.scores_read_the_last_events_only(fresh(kind, ids, max_events=3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_enters_by_its_own_vector_or_by_those_of_its_codes(kind, ids):
    laws.item_enters_by_its_own_vector_or_by_those_of_its_codes(
        fresh(kind, ids).model, ids, items=True, features=FEATURES
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_heads_score_by_the_weighted_sum_of_both_log_probabilities(kind, ids, data):
    laws.two_heads_score_by_the_weighted_sum_of_both_log_probabilities(fresh(kind, ids, w_codes=2.0), data)


@pytest.mark.parametrize("kind", KINDS)
def test_two_heads_learn_from_the_weighted_sum_of_both_losses(kind, ids):
    laws.two_heads_learn_from_the_weighted_sum_of_both_losses(fresh(kind, ids, w_codes=2.0).model)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_items_and_what_belongs_to_them_permutes_the_scores(kind, ids, data):
    laws.permuting_items_and_what_belongs_to_them_permutes_the_scores(lambda some: fresh(kind, some), ids, data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 20])
def test_scores_for_ranking_leave_out_only_what_no_metric_or_list_shows(kind, k, data, ids):
    laws.scores_for_ranking_leave_out_only_what_no_metric_or_list_shows(fresh(kind, ids), data, k)


TRAINED = KINDS | {"sampled": {"output": "items", "loss": "sampled", "block": "ligr"}}
TRAINED |= {"gbce": {"output": "items", "loss": "gbce"}}
trained = pytest.mark.parametrize("changes", TRAINED.values(), ids=TRAINED)


@trained
def test_training_repeats_for_its_seed_and_learns(fit, run, tmp_path, changes):
    laws.training_repeats_for_its_seed_and_learns(
        run(**changes), fit(tmp_path / "c", **changes), run(seed=1, **changes)
    )


@trained
def test_what_comes_back_is_the_best_epoch_by_validation(data, run, changes):
    laws.what_comes_back_is_the_best_epoch_by_validation(run(**changes), data)


@trained
def test_test_events_change_nothing_that_is_trained(data, fit, run, tmp_path, changes):
    assert alike(fit(tmp_path / "c", laws.other_test_events(data), **changes), run(**changes))


@trained
def test_the_evaluation_batch_changes_no_result(run, changes):
    laws.evaluation_batch_changes_no_result(run, **changes)


# ---- losses with negatives


def item_scorer(n_items, **changes):
    """An untrained item model with item vectors of ordinary size."""
    torch.manual_seed(0)
    model = make_model(n_items, None, lab_recommender_config(output="items", **changes), None).double()
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


@pytest.mark.parametrize(
    ("negatives", "others", "t", "power"),
    [(4, 16, 0.0, 1.0), (4, 16, 1.0, 0.25), (4, 16, 0.75, 0.4375), (16, 16, 0.75, 1.0), (99, 16, 0.75, 1.0)],
)
def test_the_power_of_gbce_goes_from_one_to_the_sampling_rate(negatives, others, t, power):
    assert gbce_power(negatives, others, t) == pytest.approx(power)


def test_gbce_weighs_the_target_to_a_power_against_many_other_items():
    model, states = item_scorer(2, loss="gbce", negatives=5), torch.randn(3, 6, dtype=torch.float64)
    targets = torch.tensor([1, 2, 1])  # of two items the other one is certain, five times
    x, y = ((states * model.items.weight[rows]).sum(1) for rows in (targets, 3 - targets))
    plain = (x.sigmoid().log() + 5 * (-y).sigmoid().log()) / 6
    torch.testing.assert_close(model.item_loss(states, targets), -plain.mean())
    wide = item_scorer(41, loss="gbce", negatives=5)  # alpha is 1/8
    with torch.no_grad():
        wide.items.weight[:] = wide.items.weight[7]  # all items score alike
    x = states @ wide.items.weight[7]
    powered = (x.sigmoid() ** ((1 - CALIBRATION) + CALIBRATION / 8)).log() + 5 * (-x).sigmoid().log()
    torch.testing.assert_close(wide.item_loss(states, targets), -powered.mean() / 6)


def test_gbce_is_finite_where_a_probability_rounds_to_zero_or_one():
    model = item_scorer(2, loss="gbce", negatives=3).float()
    with torch.no_grad():
        model.items.weight[:] = torch.tensor([0.0, 1e3, -1e3])[:, None]
    states = torch.tensor([1.0, -1.0])[:, None].expand(2, 6) / 6
    lost = [model.item_loss(states[[n]], torch.tensor([1])).item() for n in range(2)]
    assert lost == pytest.approx([0, 1e3])


@pytest.mark.parametrize("target", [1, 3, 5])
def test_the_negatives_of_gbce_are_any_other_items_equally_often_and_each_target_has_its_own(target):
    model = item_scorer(5, loss="gbce", negatives=20_000)
    with torch.no_grad():
        model.items.weight[:, 0] = torch.arange(6) * 1.0
    state = torch.eye(6, dtype=torch.float64)[:1]  # reads an item's number off
    lost = model.item_loss(state, torch.tensor([target])) * 20_001 - F.softplus(torch.tensor(-target * 1.0))
    others = [math.log1p(math.exp(j)) for j in range(1, 6) if j != target]
    assert lost.item() / 20_000 == pytest.approx(np.mean(others), abs=0.05)
    few = item_scorer(50, loss="gbce", negatives=1)
    few.item_loss(state.expand(40, 6), torch.full((40,), target)).backward()
    assert int(few.items.weight.grad.any(1).sum()) > 10


@pytest.mark.parametrize(("loss", "rows"), [("bce", 3 + 3), ("gbce", 3 + 3 * 4), ("sampled", 3 + 4)])
def test_losses_with_negatives_touch_the_targets_and_the_negatives_alone(loss, rows):
    model = item_scorer(97, loss=loss, negatives=4)
    model.item_loss(torch.randn(3, 6, dtype=torch.float64), torch.tensor([5, 50, 97])).backward()
    touched = model.items.weight.grad.any(1)
    assert 3 < int(touched.sum()) <= rows
    assert bool(touched[[5, 50, 97]].all())
    assert not touched[0]


@pytest.mark.parametrize("loss", ["bce", "gbce", "sampled"])
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
