"""Laws of the stage-1 loss: each term against a loop, and exactly the intended parameters get gradient."""

import itertools
import math

import pytest
import tokenizer_laws as laws
import torch
import torch.nn.functional as F
from tiny import normal, tokenizer_config
from tokenizer_laws import (
    DIMS,
    DRAWN,
    NARROW,
    SILENT,
    SIZES,
    WIDTH,
    WINDOWS,
    N,
    encoded,
    gradients,
)

from bbqrec_core.tokenizer.model import (
    LOG_VARIANCE,
    Standardise,
    Tokenizer,
    Variational,
    masked_mean,
    scale_to_sqrt_width,
)


def make(dims=DIMS, missing=True, training=False, **changes):
    """The core's tokenizer as `tokenizer_laws.untrained` has it."""
    return laws.untrained(Tokenizer, tokenizer_config(**(SIZES | changes)), dims, missing, training)


# ---- the whole


def test_the_loss_is_the_sum_of_its_parts_and_each_weight_scales_its_own():
    weights = {"mutual_information": "w_mi", "cross_modal": "w_cross", "sequence": "w_seq"}
    laws.loss_is_the_sum_of_its_parts(make, weights)


def test_quantization_is_the_mean_over_units_that_exist():
    model = make(w_seq=0.0)
    _, _, present, seen, _ = encoded(model, DRAWN)
    values = [seen.loss[r, u] for r in range(len(DRAWN)) for u in range(4) if present[r, u]]
    found = model.losses(WINDOWS, DRAWN, learn=False)["quantization"]
    torch.testing.assert_close(found, sum(values) / len(values))


# ---- signals and units


def test_signals_are_the_encoders_answers_then_the_id():
    raw, scaled = make(normalise=False), make(normalise=True)
    signals = raw.parts(DRAWN).signals
    assert raw.signals == (*DIMS, "id")
    for index, name in enumerate(DIMS):
        torch.testing.assert_close(signals[:, index], raw.behaviour[name](getattr(raw, f"feature_{name}")[DRAWN]))
    torch.testing.assert_close(signals[:, 2], raw.id_signal.weight[DRAWN])
    lengths = scaled.parts(DRAWN).signals.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, math.sqrt(WIDTH)))


def test_specific_parts_are_narrow_and_of_fixed_length():
    model = make()
    found = model.parts(DRAWN).specific
    assert found.shape == (len(DRAWN), 2, NARROW)
    raw = model.specific["text"](model.feature_text[DRAWN])
    torch.testing.assert_close(found[:, 1], raw / raw.norm(dim=-1, keepdim=True) * math.sqrt(NARROW))
    assert make(specific=False).parts(DRAWN).specific.shape == (len(DRAWN), 2, 0)
    assert make({}).parts(DRAWN).specific.shape == (len(DRAWN), 0, 0)


def test_spread_gives_length_root_e_and_leaves_zero_alone():
    vectors = normal(3, 2, WIDTH)
    vectors[1, 0] = 0
    lengths = scale_to_sqrt_width(vectors).norm(dim=-1)
    assert float(lengths[1, 0]) == 0
    assert lengths[[0, 2]].flatten().tolist() == pytest.approx([math.sqrt(WIDTH)] * 4)


def test_standardising_is_the_loop_over_items_that_have_the_signal():
    layer, signals = Standardise(2, WIDTH).double(), 3 * normal(7, 2, WIDTH) + 5
    present = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1], [1, 0], [1, 0], [0, 0]], dtype=torch.bool)
    found = layer(signals, present)
    for s in range(2):
        mine = signals[present[:, s], s]
        mean, variance = mine.mean(0), mine.var(0, correction=0)
        near = {"rtol": 1e-5, "atol": 1e-6}  # shares of the batch are float32
        torch.testing.assert_close(
            found[:, s], scale_to_sqrt_width((signals[:, s] - mean) / (variance + 1e-5).sqrt()), **near
        )
        torch.testing.assert_close(layer.mean[s], 0.1 * mean, **near)
        torch.testing.assert_close(layer.variance[s], 0.9 + 0.1 * variance, **near)
    layer.eval()
    before = layer.mean.clone()
    wanted = scale_to_sqrt_width((signals - layer.mean) / (layer.variance + 1e-5).sqrt())
    torch.testing.assert_close(layer(signals, present), wanted)
    assert torch.equal(layer.mean, before)


def test_the_fused_unit_is_the_gated_mean_of_present_signals():
    model = make(normalise=False)
    with torch.no_grad():
        model.gates.copy_(torch.tensor([0.3, -1.0, 0.8]))
    rows = torch.arange(N + 1)
    signals = model.parts(rows).signals
    units, present = model.units(signals, model.present[rows])
    assert torch.equal(units[:, :3], signals)
    for row in range(N + 1):
        here = [s for s in range(3) if model.present[row, s]]
        assert bool(present[row, 3]) == bool(here)
        odds = [model.gates[s].exp() for s in here]
        mean = sum((odd / sum(odds) * signals[row, s] for odd, s in zip(odds, here, strict=True)), torch.zeros(WIDTH))
        torch.testing.assert_close(units[row, 3], mean, check_dtype=False)
    assert not model.present[11].any()


# ---- each term against a loop


def test_reconstruction_is_the_loop_over_items_and_modalities():
    model = make(w_codes_only=0.6, w_seq=0.0)
    _, _, present, seen, items = encoded(model, DRAWN)
    specific, total = model.parts(DRAWN).specific, 0
    for m, name in enumerate(DIMS):
        errors = []
        for r, row in enumerate(DRAWN):
            if present[r, m]:
                x = getattr(model, f"feature_{name}")[row]
                both = model.decoders[name](torch.cat([specific[r, m], seen.vectors[r, m]]))
                alone = model.decoders[name](torch.cat([torch.zeros(NARROW).double(), items[r]]))
                errors.append(((both - x) ** 2).mean() + 0.6 * ((alone - x) ** 2).mean())
        total = total + sum(errors) / len(errors) / 2
    torch.testing.assert_close(model.losses(WINDOWS, DRAWN, learn=False)["reconstruction"], total)


def test_specific_parts_are_dropped_for_whole_items_in_training_only():
    model = make(specific_dropout=1.0, normalise=False, w_codes_only=0.0, w_seq=0.0)
    other = make(specific_dropout=1.0, normalise=False, w_codes_only=0.0, w_seq=0.0)
    with torch.no_grad():
        for parameter in other.specific.parameters():
            parameter.add_(1.0)
    values = {}
    for training in (True, False):
        found = [m.train(training).losses(WINDOWS, DRAWN, learn=False)["reconstruction"] for m in (model, other)]
        values[training] = torch.equal(*found)
    assert values == {True: True, False: False}


def test_mutual_information_is_the_contrast_of_own_and_shuffled_pairs():
    model = make()
    parts = model.parts(DRAWN)
    torch.manual_seed(3)
    found = model.mutual_information(parts)
    torch.manual_seed(3)
    total = 0
    for m, name in enumerate(DIMS):
        here = [r for r in range(len(DRAWN)) if parts.present[r, m]]
        shift = int(torch.randint(1, len(here), ()))
        other = [(place - shift) % len(here) for place in range(len(here))]
        assert all(other[place] != place for place in range(len(here)))
        q = model.variational[name]
        for place, r in enumerate(here):
            own = q(parts.specific[r, m][None], parts.signals[r, m][None])
            shuffled = q(parts.specific[here[other[place]], m][None], parts.signals[r, m][None])
            total = total + (own - shuffled).sum() / len(here) / NARROW / 2
    torch.testing.assert_close(found, total)


def test_the_variational_network_is_a_gaussian_with_bounded_variance():
    q = Variational(WIDTH, 2, 7).double()
    with torch.no_grad():
        q.net[2].weight.mul_(40)
    behaviour, specific = 9 * normal(4, WIDTH), normal(4, 2, seed=1)
    mean, raw = q.net(behaviour).chunk(2, -1)
    deviation = (LOG_VARIANCE * raw.tanh() / 2).exp()
    wanted = torch.distributions.Normal(mean, deviation).log_prob(specific).sum(-1) + math.log(2 * math.pi)
    torch.testing.assert_close(q(specific, behaviour), wanted)
    assert bool((deviation <= math.exp(LOG_VARIANCE / 2)).all())


def test_the_variational_loss_is_minus_the_mean_log_likelihood():
    model = make()
    parts, total = model.parts(DRAWN), 0
    for m, name in enumerate(DIMS):
        rows = [r for r in range(len(DRAWN)) if parts.present[r, m]]
        for r in rows:
            total = total - model.variational[name](parts.specific[r, m][None], parts.signals[r, m][None])[0] / len(
                rows
            )
    torch.testing.assert_close(model.variational_loss(parts), total)


def test_cross_modal_is_info_nce_over_all_pairs_of_signals():
    model = make(temperature=0.3)
    _, _, present, seen, _ = encoded(model, DRAWN)
    unit = F.normalize(seen.vectors, dim=-1)
    losses = []
    for i, j in itertools.combinations(range(3), 2):
        rows = [r for r in range(len(DRAWN)) if present[r, i] and present[r, j]]
        for a, b in ((i, j), (j, i)):
            for n, r in enumerate(rows):
                logits = torch.stack([unit[r, a] @ unit[o, b] for o in rows]) / 0.3
                losses.append((torch.logsumexp(logits, 0) - logits[n]) / (2 * len(rows)))
    torch.testing.assert_close(model.cross_modal(seen.vectors, present[:, :3]), sum(losses) / 3)


def test_cross_modal_without_two_items_in_common_is_zero():
    model = make()
    vectors, present = normal(3, 4, WIDTH), torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    assert float(model.cross_modal(vectors, present)) == 0
    assert set(make({}).losses(WINDOWS, DRAWN, learn=False)) == {"loss", "quantization", "sequence"}


def test_the_sequence_term_is_the_loop_over_targets_with_each_candidate_once():
    """Item 2 is the target four times: it is one candidate, so it is never a negative of itself."""
    model = make(temperature=0.4)
    rows = torch.arange(N + 1)
    *_, items = encoded(model, rows)
    found = model.sequence(WINDOWS, WINDOWS, rows, items)
    targets = [int(item) for window in WINDOWS for item in window[1:] if item]
    candidates = sorted(set(targets))
    chance = {j: 1 - (1 - float(model.counts[j]) / float(model.counts.sum())) ** len(targets) for j in candidates}
    losses = []
    for window in WINDOWS:
        inputs = items[window[:-1]] + model.position.weight[:4]
        for t in range(4):
            if window[t + 1]:
                mask = torch.full((t + 1, t + 1), -torch.inf).triu(1)
                state = F.normalize(model.history_encoder(inputs[None, : t + 1], [mask])[0][0, t], dim=0)
                logits = {j: state @ F.normalize(items[j], dim=0) / 0.4 - math.log(chance[j]) for j in candidates}
                losses.append(torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[int(window[t + 1])])
    torch.testing.assert_close(found, sum(losses) / len(losses), rtol=1e-5, atol=1e-6)  # shares are float32


def test_in_the_whole_loss_the_sequence_term_reads_its_own_windows():
    laws.sequence_term_reads_its_own_windows(make(w_seq=0.7))


def test_masked_mean_of_nothing_is_zero():
    values, mask = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, False, True])
    assert float(masked_mean(values, mask)) == 2.5
    assert float(masked_mean(values, mask & False)) == 0


# ---- who gets gradient


def test_each_term_moves_the_parameters_it_should():
    model = make()
    found = model.losses(WINDOWS, DRAWN, learn=False)
    signals = {"behaviour", "id_signal", "gates"}
    assert gradients(model, found["quantization"]) == signals
    assert gradients(model, found["reconstruction"]) == signals | {"specific", "decoders"}
    assert gradients(model, found["mutual_information"]) == {"behaviour", "variational"}
    assert gradients(model, found["cross_modal"]) == {"behaviour", "id_signal"}
    assert gradients(model, found["sequence"]) == signals | {"history_encoder", "position"}
    assert gradients(model, model.variational_loss(model.parts(DRAWN))) == {"variational"}


def test_no_gradient_is_lost_to_nan_where_an_item_has_no_signal_at_all():
    model = make(training=True)
    assert not model.present[11].any()
    model.losses(torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([11, 1, 4]))["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_padding_gets_no_gradient_and_gives_none():
    model = make(training=True)
    model.losses(WINDOWS, DRAWN)["loss"].backward()
    assert not model.id_signal.weight.grad[0].any()
    assert model.id_signal.weight.grad[1].any()


def test_items_without_training_events_ignore_the_id_signal():
    model, rows = make(training=True), torch.tensor([*SILENT, 1])
    model.losses(WINDOWS, DRAWN)["loss"].backward()
    assert not model.id_signal.weight.grad[SILENT].any()
    model.eval()
    before = encoded(model, rows)
    with torch.no_grad():
        model.id_signal.weight[rows] += normal(3, WIDTH, seed=5)
    after = encoded(model, rows)
    assert torch.equal(before[1][:2, 3], after[1][:2, 3])  # the fused unit
    assert not torch.equal(before[1][2, 3], after[1][2, 3])


@pytest.mark.parametrize("changes", [{}, {"normalise": False}])
def test_features_of_an_absent_modality_change_nothing(changes):
    laws.features_of_an_absent_modality_change_nothing(make, **changes)


def test_learning_from_a_batch_moves_the_codebook_only_when_asked():
    model = make(revive_every=0)
    before = model.quantizer.codebook.clone()
    model.losses(WINDOWS, DRAWN, learn=False)
    assert torch.equal(model.quantizer.codebook, before)
    model.losses(WINDOWS, DRAWN)
    assert not torch.equal(model.quantizer.codebook, before)
    assert int(model.quantizer.steps) == 1


def test_a_tokenizer_without_any_signal_is_refused():
    with pytest.raises(ValueError, match="no signal"):
        make({}, id_signal=False)


def test_a_signal_that_one_item_of_a_batch_has_is_standardised_by_the_moving_statistics():
    layer, signals = Standardise(2, WIDTH).double(), 3 * normal(7, 2, WIDTH) + 5
    layer.train()
    everyone = torch.ones(7, 2, dtype=torch.bool)
    layer(signals, everyone)
    alone = everyone.clone()
    alone[1:, 1] = False
    mean, variance = layer.mean[1].clone(), layer.variance[1].clone()
    out = layer(signals, alone)
    torch.testing.assert_close(out[0, 1], scale_to_sqrt_width((signals[0, 1] - mean) / (variance + 1e-5).sqrt()))
    assert torch.equal(layer.mean[1], mean)


def test_the_inner_steps_see_the_parts_of_the_loss_and_run_before_club():
    model = make(training=True)
    seen = []

    def inner(parts):
        seen.append(parts)
        with torch.no_grad():
            for value in model.variational.parameters():
                value.zero_()

    found = model.losses(WINDOWS, DRAWN, fit_variational=inner)
    assert len(seen) == 1
    assert seen[0].signals.shape[0] == len(DRAWN)
    assert found["mutual_information"].item() == 0  # q says nothing once its weights are zero
