"""Laws of the quantizers of ablations, against loops over tiny tensors in float64 and against a peer.

The peer is `vector-quantize-pytorch`, as in test_peers.py. It trains codebook and signal by one squared error with one
weight; ours adds up two errors with a weight each.
"""

import peers
import pytest
import quantizer_laws as laws
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantizer_laws import CODES, ITEMS, LEVELS, WIDTH, by_loop, signals

from bbqrec_core import ResidualQuantizer
from bbqrec_lab.baselines.variant_quantizer import QUANTIZERS, GradientQuantizer, RotationQuantizer, rotate_to

every_kind = pytest.mark.parametrize(("gradient", "update"), QUANTIZERS)


@every_kind
def test_forward_is_the_loop_over_levels(gradient, update):
    laws.forward_is_the_loop_over_levels(QUANTIZERS[gradient, update], 0.3 + (update == "gradient"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_decoding_the_codes_returns_the_rotated_vector(seed):
    laws.decoding_the_codes_returns_the_quantized_vector(RotationQuantizer, seed)


@every_kind
def test_kinds_differ_in_gradient_and_parameters_alone(gradient, update):
    plain, other = laws.make(ResidualQuantizer), laws.make(QUANTIZERS[gradient, update])
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in plain.state_dict().items())
    assert set(dict(other.named_parameters())) == ({"codebook"} if update == "gradient" else set())


@every_kind
def test_what_the_core_keeps_with_batches_is_kept(gradient, update):
    kind = QUANTIZERS[gradient, update]
    laws.absent_signals_leave_no_trace(kind)
    laws.dead_codes_move_onto_residuals_of_the_batch(kind)
    laws.all_state_travels_with_the_state_dict(kind)


@every_kind
def test_where_a_code_is_the_signal_every_estimator_hands_the_gradient_on(gradient, update):
    laws.where_a_code_is_the_signal_the_gradient_is_handed_on(QUANTIZERS[gradient, update])


def test_a_learned_codebook_hands_the_gradient_on_unchanged():
    laws.straight_through_hands_the_gradient_on_unchanged(GradientQuantizer)


def test_rotation_hands_the_gradient_on_rotated_and_scaled():
    quantizer, signal = laws.make(RotationQuantizer), signals().requires_grad_()
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
    quantizer, signal = laws.make(GradientQuantizer, commitment=0.3), signals().requires_grad_()
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


def test_the_rotated_gradient_is_the_peers_at_one_level():
    peers.estimated_gradient_is_the_peers_at_one_level(RotationQuantizer, rotation_trick=True)


def test_the_gradients_of_codebook_and_commitment_loss_are_the_peers_at_equal_weights():
    quantizer = peers.ours(peers.normal(peers.LEVELS, peers.CODES, peers.WIDTH), GradientQuantizer, commitment=1.0)
    kept = peers.clear(quantizer, peers.normal(peers.ITEMS, peers.WIDTH, seed=1))
    mine, theirs = (peers.normal(peers.ITEMS, peers.WIDTH, seed=1)[kept].requires_grad_() for _ in range(2))
    loss = quantizer(mine).loss.mean()
    loss.backward()
    peer = peers.peer_of(quantizer, learnable_codebook=True, ema_update=False, commitment_weight=1.0).train()
    for layer in peer.layers:
        layer.freeze_codebook = False
    _, _, losses = peer(theirs[None])
    losses.sum().backward()
    torch.testing.assert_close(loss, 2 * losses.sum())  # a frozen side each, where the peer counts the error once
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-7, rtol=1e-4)
    moved = torch.stack([layer._codebook.embed.grad[0] for layer in peer.layers])
    torch.testing.assert_close(quantizer.codebook.grad, moved, atol=1e-6, rtol=1e-4)
