"""Laws of the residual quantizer, against loops over tiny tensors in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec_core import ResidualQuantizer
from bbqrec_core.kernels import argmin_rows
from bbqrec_core.tokenizer.quantizer import ENCODE_BLOCK, kmeans, kmeans_plus_plus, nearest_code, rotate_to

LEVELS, CODES, WIDTH, ITEMS = 3, 5, 7, 11
GRADIENTS = ("straight-through", "rotation")
seeds = given(seed=st.integers(0, 2**31 - 1))
few = settings(max_examples=15, deadline=None)


def make(seed=0, **options):
    torch.manual_seed(seed)
    return ResidualQuantizer(LEVELS, CODES, WIDTH, **options).double()


def signals(seed=1, items=ITEMS):
    return torch.randn(items, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(signal, codebook):
    """Codes (L,), residuals (L, E) and quantized vector of one signal, one comparison at a time."""
    residual, codes, residuals = signal.clone(), [], []
    for table in codebook.detach():
        best = min(range(len(table)), key=lambda k: float(((residual - table[k]) ** 2).sum()))
        codes.append(best)
        residuals.append(residual.clone())
        residual = residual - table[best]
    return torch.tensor(codes), torch.stack(residuals), signal - residual


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_forward_is_the_loop_over_levels(gradient, decay):
    quantizer = make(gradient=gradient, ema_decay=decay, commitment=0.3)
    signal = signals()
    seen = quantizer(signal)
    for item in range(ITEMS):
        codes, residuals, vector = by_loop(signal[item], quantizer.codebook)
        assert torch.equal(seen.codes[item], codes)
        torch.testing.assert_close(seen.residuals[:, item], residuals)
        torch.testing.assert_close(seen.vectors[item], vector)
        chosen = quantizer.codebook.detach()[torch.arange(LEVELS), codes]
        error = (residuals - chosen).square().mean(1).sum()  # mean over E, summed over levels
        torch.testing.assert_close(seen.loss[item].detach(), error * (0.3 + (decay is None)))


def test_leading_axes_are_only_a_shape():
    quantizer = make()
    signal = signals(items=6)
    flat, folded = quantizer(signal), quantizer(signal.view(2, 3, WIDTH))
    assert torch.equal(folded.codes, flat.codes.view(2, 3, LEVELS))
    assert torch.equal(folded.vectors, flat.vectors.view(2, 3, WIDTH))
    assert torch.equal(folded.loss, flat.loss.view(2, 3))
    assert torch.equal(folded.residuals, flat.residuals.view(LEVELS, 2, 3, WIDTH))


def test_equally_near_codes_go_to_the_lowest_index():
    table = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    assert nearest_code(torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64), table).tolist() == [1, 1]


@few
@seeds
def test_no_code_is_nearer_than_the_chosen_one(seed):
    quantizer = make(seed)
    seen = quantizer(signals(seed + 1))
    for level, table in enumerate(quantizer.codebook):
        gaps = torch.cdist(seen.residuals[level], table, compute_mode="donot_use_mm_for_euclid_dist")
        chosen = gaps.gather(1, seen.codes[:, level, None])
        assert bool((chosen <= gaps + 1e-12).all())


@pytest.mark.parametrize("shape", [(0,), (), (ENCODE_BLOCK,), (2, ENCODE_BLOCK + 3)])
def test_encoding_in_blocks_gives_the_codes_of_the_whole(shape):
    quantizer = make()
    signal = torch.randn(*shape, WIDTH, dtype=torch.float64)
    before = signal.clone()
    assert torch.equal(quantizer.encode(signal), quantizer(signal).codes)
    assert torch.equal(signal, before)


def test_the_lowest_index_wins_among_equals_and_before_what_is_not_a_number():
    nan, inf = torch.nan, torch.inf
    rows = torch.tensor([[2.0, 1, 1], [1, 1, 1], [3, nan, 1], [inf, inf, -inf], [nan, nan, 0]])
    assert argmin_rows(rows).tolist() == rows.argmin(-1).tolist() == [1, 0, 1, 2, 0]


@few
@seeds
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_decoding_the_codes_returns_the_quantized_vector(gradient, seed):
    quantizer = make(seed, gradient=gradient)
    signal = signals(seed + 1)
    seen = quantizer(signal)
    assert torch.equal(quantizer.encode(signal), seen.codes)
    torch.testing.assert_close(quantizer.decode(seen.codes), seen.vectors)


@few
@seeds
def test_relabelling_codes_changes_no_quantized_vector(seed):
    quantizer, signal = make(seed), signals(seed + 1)
    before = quantizer(signal)
    order = torch.stack([torch.randperm(CODES) for _ in range(LEVELS)])
    with torch.no_grad():
        quantizer.codebook.copy_(torch.stack([table[p] for table, p in zip(quantizer.codebook, order, strict=True)]))
    after = quantizer(signal)
    assert torch.equal(after.vectors, before.vectors)
    assert torch.equal(order[torch.arange(LEVELS), after.codes], before.codes)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_straight_through_hands_the_gradient_on_unchanged(decay):
    quantizer, signal = make(ema_decay=decay), signals().requires_grad_()
    incoming = signals(seed=3)
    quantizer(signal).vectors.backward(incoming)
    assert torch.equal(signal.grad, incoming)
    assert quantizer.codebook.grad is None


def test_rotation_hands_the_gradient_on_rotated_and_scaled():
    quantizer, signal = make(gradient="rotation"), signals().requires_grad_()
    incoming = signals(seed=3)
    vectors = quantizer(signal).vectors
    vectors.backward(incoming)
    for item in range(ITEMS):
        source, target = signal[item].detach(), vectors[item].detach()
        e, q = source / source.norm(), target / target.norm()
        axis = (e + q) / (e + q).norm()
        rotation = torch.eye(WIDTH, dtype=torch.float64) - 2 * torch.outer(axis, axis) + 2 * torch.outer(q, e)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(WIDTH, dtype=torch.float64))
        torch.testing.assert_close(rotation @ e, q)
        matrix = rotation * target.norm() / source.norm()
        torch.testing.assert_close(signal.grad[item], matrix.T @ incoming[item])
    assert quantizer.codebook.grad is None


def test_rotation_reaches_its_target_from_any_direction():
    target = signals()
    for signal in (target, -target, 3 * target, signals(seed=9)):
        torch.testing.assert_close(rotate_to(signal, target), target)


def test_a_learned_codebook_is_moved_by_the_codebook_loss_alone():
    quantizer, signal = make(ema_decay=None, commitment=0.3), signals().requires_grad_()
    seen = quantizer(signal)
    seen.loss.sum().backward()
    wanted, commitment = torch.zeros(LEVELS, CODES, WIDTH, dtype=torch.float64), torch.zeros(ITEMS, WIDTH).double()
    for item in range(ITEMS):
        codes, residuals, _ = by_loop(signal[item].detach(), quantizer.codebook)
        for level in range(LEVELS):
            gap = residuals[level] - quantizer.codebook[level, codes[level]].detach()
            wanted[level, codes[level]] -= 2 * gap / WIDTH
            commitment[item] += 0.3 * 2 * gap / WIDTH
    torch.testing.assert_close(quantizer.codebook.grad, wanted)
    torch.testing.assert_close(signal.grad, commitment)


def test_a_codebook_of_moving_averages_has_no_parameter():
    assert dict(make(ema_decay=0.9).named_parameters()) == {}
    assert set(dict(make().named_parameters())) == {"codebook"}


def test_moving_averages_follow_the_loop():
    decay = 0.8
    quantizer = make(ema_decay=decay)
    codebook, counts, sums = quantizer.codebook.clone(), torch.ones(LEVELS, CODES), quantizer.codebook.clone()
    for step in range(3):
        signal = signals(seed=step, items=4)
        quantizer.observe(quantizer(signal))
        found = [by_loop(vector, codebook) for vector in signal]
        for level in range(LEVELS):
            for code in range(CODES):
                mine = [residuals[level] for codes, residuals, _ in found if codes[level] == code]
                counts[level, code] = decay * counts[level, code] + (1 - decay) * len(mine)
                sums[level, code] = decay * sums[level, code] + (1 - decay) * sum(mine, torch.zeros(WIDTH).double())
        codebook = sums / counts[..., None]
        torch.testing.assert_close(quantizer.codebook, codebook)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_code_that_nothing_chooses_stays_where_it_is(decay):
    quantizer = make(ema_decay=decay)
    far = torch.full((WIDTH,), 50.0, dtype=torch.float64)
    quantizer.codebook[:, 2] = quantizer.sums[:, 2] = far
    for step in range(40):
        quantizer.observe(quantizer(signals(seed=step)))
    torch.testing.assert_close(quantizer.codebook[:, 2], far.expand(LEVELS, -1))


@pytest.mark.parametrize("decay", [None, 0.9])
def test_signals_that_are_absent_leave_no_trace(decay):
    mixed, pure = make(ema_decay=decay, revive_every=1), make(ema_decay=decay, revive_every=1)
    signal, present = signals(), torch.arange(ITEMS) % 3 > 0
    for quantizer, seen, mask in ((mixed, signal, present), (pure, signal[present], None)):
        torch.manual_seed(5)
        quantizer.observe(quantizer(seen), mask)
    assert all(torch.equal(value, pure.state_dict()[name]) for name, value in mixed.state_dict().items())


@pytest.mark.parametrize("decay", [None, 0.9])
def test_dead_codes_move_onto_residuals_of_the_batch_when_their_time_comes(decay):
    quantizer = make(ema_decay=decay, revive_every=2)
    with torch.no_grad():
        quantizer.codebook[:, 3] = quantizer.sums[:, 3] = 100.0
    quantizer.observe(quantizer(signals()))
    assert bool((quantizer.codebook[:, 3] > 50).all())
    assert int(quantizer.usage.sum()) == ITEMS * LEVELS
    seen = quantizer(signals(seed=2))
    used = quantizer.usage.clone()
    alive = quantizer.codebook.clone()
    quantizer.observe(seen)
    for level in range(LEVELS):
        used[level] += torch.bincount(seen.codes[:, level], minlength=CODES)
        dead = used[level] == 0
        assert bool(dead[3])
        for code in range(CODES):
            moved = (quantizer.codebook[level, code] - seen.residuals[level]).abs().sum(-1).min() < 1e-12
            assert bool(moved) == bool(dead[code])
        if decay is None:
            assert torch.equal(quantizer.codebook[level, ~dead], alive[level, ~dead])
        else:
            assert torch.equal(quantizer.counts[level, dead], torch.ones(int(dead.sum())).double())
            assert torch.equal(quantizer.sums[level, dead], quantizer.codebook[level, dead])
    assert int(quantizer.usage.sum()) == 0


def test_kmeans_plus_plus_draws_from_every_group_and_never_the_same_point_twice():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(8.0)[:, None].repeat(50, 3) * 100 + torch.randn(400, 3, generator=generator)
    for seed in range(10):
        found = kmeans_plus_plus(groups, 8, torch.Generator().manual_seed(seed))
        assert sorted((found[:, 0] / 100).round().tolist()) == list(range(8))  # drawn evenly: 1 in 400 such draws
    assert len(kmeans_plus_plus(groups, 400, generator).unique(dim=0)) == 400


def test_kmeans_plus_plus_draws_by_squared_distance():
    points = torch.tensor([[0.0], [1.0], [3.0]])
    second = [kmeans_plus_plus(points, 2, torch.Generator().manual_seed(seed))[:, 0].tolist() for seed in range(3000)]
    after_zero = [pick[1] for pick in second if pick[0] == 0]
    assert np.mean([pick == 3 for pick in after_zero]) == pytest.approx(0.9, abs=0.04)  # 9 to 1; se .0095


def test_kmeans_finds_groups_that_lie_apart():
    centres = 100 * torch.eye(4, WIDTH, dtype=torch.float64)
    points = (centres[:, None] + signals(items=12).view(4, 3, WIDTH)).flatten(0, 1)
    found = kmeans(points, 4, torch.Generator().manual_seed(0), iterations=20)
    truth = points.view(4, 3, WIDTH).mean(1)
    assert sorted(nearest_code(truth, found).tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found[nearest_code(truth, found)], truth)


@pytest.mark.parametrize("points", [1, 3])
def test_kmeans_gives_every_cluster_a_centre_where_points_are_fewer(points):
    given_points = signals(items=points)
    found = kmeans(given_points, CODES, torch.Generator().manual_seed(0))
    assert found.shape == (CODES, WIDTH)
    assert len(found.unique(dim=0)) == CODES
    torch.testing.assert_close(found[nearest_code(given_points, found)], given_points, atol=0.2, rtol=0)


def test_kmeans_survives_points_that_all_agree():
    found = kmeans(torch.ones(9, WIDTH, dtype=torch.float64), CODES, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.ones(CODES, WIDTH, dtype=torch.float64))


@few
@seeds
def test_kmeans_is_no_worse_than_its_start(seed):
    points = signals(seed, items=40)
    errors = [
        float((points - centres[nearest_code(points, centres)]).square().sum())
        for centres in (kmeans(points, CODES, torch.Generator().manual_seed(seed), n) for n in (0, 10))
    ]
    assert errors[1] <= errors[0] + 1e-9


def test_initialising_sets_each_level_to_the_clusters_of_what_is_left():
    quantizer, points = make(ema_decay=0.9), signals(items=40)
    quantizer.initialise(points, torch.Generator().manual_seed(0))
    generator, residual = torch.Generator().manual_seed(0), points
    for table in quantizer.codebook:
        torch.testing.assert_close(table, kmeans(residual, CODES, generator))
        residual = residual - table[nearest_code(residual, table)]
    assert torch.equal(quantizer.sums, quantizer.codebook)
    assert torch.equal(quantizer.counts, torch.ones(LEVELS, CODES).double())


def test_all_state_travels_with_the_state_dict():
    first, second = make(ema_decay=0.8, revive_every=3), make(seed=4, ema_decay=0.8, revive_every=3)
    first.observe(first(signals()))
    second.load_state_dict(first.state_dict())
    for quantizer in (first, second):
        for step in range(4):
            torch.manual_seed(step)
            quantizer.observe(quantizer(signals(seed=step)))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
