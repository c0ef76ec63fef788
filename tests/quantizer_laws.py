"""Laws of residual quantizers that the core's and those of ablations both keep; the tests of each call them."""

import torch
from torch import Tensor

from bbqrec_core import ResidualQuantizer

LEVELS, CODES, WIDTH, ITEMS = 3, 5, 7, 11


def make(kind: type[ResidualQuantizer], seed: int = 0, **options: object) -> ResidualQuantizer:
    """A quantizer in float64; equal seeds give equal codebooks."""
    torch.manual_seed(seed)
    return kind(LEVELS, CODES, WIDTH, **options).double()


def signals(seed: int = 1, items: int = ITEMS) -> Tensor:
    """Random signals (items, WIDTH)."""
    return torch.randn(items, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(signal: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (L,), residuals (L, E) and quantized vector of one signal, one comparison at a time."""
    residual, codes, residuals = signal.clone(), [], []
    for table in codebook.detach():
        best = min(range(len(table)), key=lambda k: float(((residual - table[k]) ** 2).sum()))
        codes.append(best)
        residuals.append(residual.clone())
        residual = residual - table[best]
    return torch.tensor(codes), torch.stack(residuals), signal - residual


def forward_is_the_loop_over_levels(kind: type[ResidualQuantizer], weight: float) -> None:
    """The loss is `weight` times the error of each level, at commitment 0.3."""
    quantizer, signal = make(kind, commitment=0.3), signals()
    seen = quantizer(signal)
    for item in range(ITEMS):
        codes, residuals, vector = by_loop(signal[item], quantizer.codebook)
        assert torch.equal(seen.codes[item], codes)
        torch.testing.assert_close(seen.residuals[:, item], residuals)
        torch.testing.assert_close(seen.vectors[item], vector)
        chosen = quantizer.codebook.detach()[torch.arange(LEVELS), codes]
        error = (residuals - chosen).square().mean(1).sum()  # mean over E, summed over levels
        torch.testing.assert_close(seen.loss[item].detach(), error * weight)


def decoding_the_codes_returns_the_quantized_vector(kind: type[ResidualQuantizer], seed: int) -> None:
    """For any seed."""
    quantizer, signal = make(kind, seed), signals(seed + 1)
    seen = quantizer(signal)
    torch.testing.assert_close(quantizer.decode(seen.codes), seen.vectors)


def straight_through_hands_the_gradient_on_unchanged(kind: type[ResidualQuantizer]) -> None:
    """And gives the codebook none."""
    quantizer, signal = make(kind), signals().requires_grad_()
    incoming = signals(seed=3)
    quantizer(signal).vectors.backward(incoming)
    assert torch.equal(signal.grad, incoming)
    assert quantizer.codebook.grad is None


def where_a_code_is_the_signal_the_gradient_is_handed_on(kind: type[ResidualQuantizer]) -> None:
    """Whatever the estimator is."""
    quantizer = kind(1, 5, 6).double()
    signal = quantizer.codebook[0].detach().clone().requires_grad_()
    incoming = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quantizer(signal).vectors.backward(incoming)
    torch.testing.assert_close(signal.grad, incoming, atol=1e-9, rtol=1e-9)


def absent_signals_leave_no_trace(kind: type[ResidualQuantizer]) -> None:
    """All state after an update is that without them."""
    mixed, pure = make(kind, revive_every=1), make(kind, revive_every=1)
    signal, present = signals(), torch.arange(ITEMS) % 3 > 0
    for quantizer, seen, mask in ((mixed, signal, present), (pure, signal[present], None)):
        torch.manual_seed(5)
        quantizer.observe(quantizer(seen), mask)
    assert all(torch.equal(value, pure.state_dict()[name]) for name, value in mixed.state_dict().items())


def dead_codes_move_onto_residuals_of_the_batch(kind: type[ResidualQuantizer]) -> None:
    """At every second step, and those alone that nothing chose since."""
    quantizer = make(kind, revive_every=2)
    with torch.no_grad():
        quantizer.codebook[:, 3] = quantizer.sums[:, 3] = 100.0
    quantizer.observe(quantizer(signals()))
    assert bool((quantizer.codebook[:, 3] > 50).all())
    assert int(quantizer.usage.sum()) == ITEMS * LEVELS
    seen = quantizer(signals(seed=2))
    used, alive = quantizer.usage.clone(), quantizer.codebook.detach().clone()
    quantizer.observe(seen)
    for level in range(LEVELS):
        used[level] += torch.bincount(seen.codes[:, level], minlength=CODES)
        dead = used[level] == 0
        assert bool(dead[3])
        for code in range(CODES):
            moved = (quantizer.codebook[level, code] - seen.residuals[level]).abs().sum(-1).min() < 1e-12
            assert bool(moved) == bool(dead[code])
        assert torch.equal(quantizer.counts[level, dead], torch.ones(int(dead.sum())).double())
        assert torch.equal(quantizer.sums[level, dead], quantizer.codebook[level, dead])
        if isinstance(quantizer.codebook, torch.nn.Parameter):  # only its optimizer moves the others
            assert torch.equal(quantizer.codebook[level, ~dead], alive[level, ~dead])
    assert int(quantizer.usage.sum()) == 0


def all_state_travels_with_the_state_dict(kind: type[ResidualQuantizer]) -> None:
    """A loaded quantizer goes on as the saved one does."""
    first, second = make(kind, ema_decay=0.8, revive_every=3), make(kind, seed=4, ema_decay=0.8, revive_every=3)
    first.observe(first(signals()))
    second.load_state_dict(first.state_dict())
    for quantizer in (first, second):
        for step in range(4):
            torch.manual_seed(step)
            quantizer.observe(quantizer(signals(seed=step)))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
