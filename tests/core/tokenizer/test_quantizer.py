"""Laws of the residual quantizer, against loops over tiny tensors in float64."""

import numpy as np
import pytest
import quantizer_laws as laws
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizer_laws import CODES, LEVELS, WIDTH, by_loop, signals

from bbqrec_core import ResidualQuantizer
from bbqrec_core.kernels import argmin_rows
from bbqrec_core.tokenizer.quantizer import kmeans, kmeans_plus_plus, nearest_code

seeds = given(seed=st.integers(0, 2**31 - 1))
few = settings(max_examples=15, deadline=None)


def make(seed=0, **options):
    return laws.make(ResidualQuantizer, seed, **options)


def test_forward_is_the_loop_over_levels():
    laws.forward_is_the_loop_over_levels(ResidualQuantizer, 0.3)


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


def test_the_lowest_index_wins_among_equals_and_before_what_is_not_a_number():
    nan, inf = torch.nan, torch.inf
    rows = torch.tensor([[2.0, 1, 1], [1, 1, 1], [3, nan, 1], [inf, inf, -inf], [nan, nan, 0]])
    assert argmin_rows(rows).tolist() == rows.argmin(-1).tolist() == [1, 0, 1, 2, 0]


@few
@seeds
def test_decoding_the_codes_returns_the_quantized_vector(seed):
    laws.decoding_the_codes_returns_the_quantized_vector(ResidualQuantizer, seed)


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


def test_straight_through_hands_the_gradient_on_unchanged():
    laws.straight_through_hands_the_gradient_on_unchanged(ResidualQuantizer)


def test_a_codebook_of_moving_averages_has_no_parameter():
    assert dict(make().named_parameters()) == {}


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


def test_signals_that_are_absent_leave_no_trace():
    laws.absent_signals_leave_no_trace(ResidualQuantizer)


def test_dead_codes_move_onto_residuals_of_the_batch_when_their_time_comes():
    laws.dead_codes_move_onto_residuals_of_the_batch(ResidualQuantizer)


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
    laws.all_state_travels_with_the_state_dict(ResidualQuantizer)
