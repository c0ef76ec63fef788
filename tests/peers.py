"""The residual quantizer of `vector-quantize-pytorch` over the codebooks of ours, and where codes can be compared.

It is part of the extra `dev`. Codes are compared where they are clear, that is where no level has a second code nearly
as near as the chosen one: between two codes that are level, float32 decides by the order of its sums.
"""

from functools import partial

import tiny
import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from bbqrec_core import ResidualQuantizer

LEVELS, CODES, WIDTH, ITEMS = 3, 16, 12, 1500
normal = partial(tiny.normal, dtype=torch.float32)


def ours(codebook: Tensor, kind: type[ResidualQuantizer] = ResidualQuantizer, **options: object) -> ResidualQuantizer:
    """Our residual quantizer over a codebook (L, K, E)."""
    quantizer = kind(*codebook.shape, **options)
    with torch.no_grad():
        quantizer.codebook.copy_(codebook)
    return quantizer


def peer_of(quantizer: ResidualQuantizer, **options: object) -> ResidualVQ:
    """The peer's residual quantizer over the codebook of ours, frozen but for the gradients that it hands on."""
    levels, codes, width = quantizer.codebook.shape
    peer = ResidualVQ(dim=width, num_quantizers=levels, codebook_size=codes, freeze_codebook=True, **options)
    with torch.no_grad():
        for layer, table in zip(peer.layers, quantizer.codebook, strict=True):
            layer._codebook.embed.copy_(table[None])
    return peer


def clear(quantizer: ResidualQuantizer, points: Tensor, relative: float = 1e-4) -> Tensor:
    """Which points have, at every level, a nearest code nearer than the next by a share of the point's own square."""
    seen = quantizer(points)
    gaps = []
    for table, residual in zip(quantizer.codebook, seen.residuals, strict=True):
        two = torch.cdist(residual, table, compute_mode="donot_use_mm_for_euclid_dist").square().topk(2, largest=False)
        gaps.append(two.values[:, 1] - two.values[:, 0])
    kept = torch.stack(gaps).amin(0) > relative * points.square().sum(1)
    assert kept.float().mean() > 0.97  # else the comparison would be of few
    return kept


def estimated_gradient_is_the_peers_at_one_level(kind: type[ResidualQuantizer], rotation_trick: bool) -> None:
    """Where codes are clear."""
    quantizer, incoming = ours(normal(1, CODES, WIDTH), kind), normal(ITEMS, WIDTH, seed=5)
    kept = clear(quantizer, normal(ITEMS, WIDTH, seed=1))
    mine, theirs = (normal(ITEMS, WIDTH, seed=1).requires_grad_() for _ in range(2))
    quantizer(mine).vectors.backward(incoming)
    peer_of(quantizer, rotation_trick=rotation_trick).train()(theirs[None])[0].backward(incoming[None])
    torch.testing.assert_close(mine.grad[kept], theirs.grad[kept], atol=1e-5, rtol=1e-5)
