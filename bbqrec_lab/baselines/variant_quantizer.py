"""Residual quantizers of ablations: the rotation trick, and a codebook that is trained by gradient."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core import ResidualQuantizer
from bbqrec_core.kernels import mean_square
from bbqrec_core.tokenizer.quantizer import Quantized


def rotate_to(signal: Float[Tensor, "*S E"], target: Float[Tensor, "*S E"]) -> Float[Tensor, "*S E"]:
    """`target` as a fixed rotation and scaling of `signal`, so that the gradient is rotated too.

    Source: Fifty et al. 2024, "Restructuring vector quantization with the rotation trick", section 4.2.
    """
    e, q = F.normalize(signal, dim=-1).detach(), F.normalize(target, dim=-1).detach()
    axis = F.normalize(e + q, dim=-1)
    scale = target.norm(dim=-1, keepdim=True).detach() / signal.norm(dim=-1, keepdim=True).detach().clamp_min(1e-8)
    along = (signal * axis).sum(-1, keepdim=True) * axis
    return scale * (signal - 2 * along + 2 * (signal * e).sum(-1, keepdim=True) * q)


class RotationQuantizer(ResidualQuantizer):
    """`ResidualQuantizer` with the estimator `rotate_to` from q(b) to b instead of straight-through."""

    def forward(self, signal: Float[Tensor, "*S E"]) -> Quantized:
        """As `ResidualQuantizer.forward`; only the gradient of the vectors differs."""
        seen = super().forward(signal)
        return seen._replace(vectors=rotate_to(signal, self.decode(seen.codes)))


class GradientQuantizer(ResidualQuantizer):
    """`ResidualQuantizer` whose codebook is a parameter, trained by gradient on `|sg r_{l-1} - C_l[c_l]|^2`.

    Choice: no moving averages, so `ema_decay` has no effect; dead codes still move to residuals.
    """

    def __init__(self, *sizes: int, **options: object) -> None:
        super().__init__(*sizes, **options)
        start = self.codebook
        del self.codebook
        self.codebook = nn.Parameter(start)  # (L, K, E)

    def forward(self, signal: Float[Tensor, "*S E"]) -> Quantized:
        """As `ResidualQuantizer.forward`; the loss has the codebook loss too."""
        seen, loss = super().forward(signal), 0.0
        for level, table in enumerate(self.codebook):
            loss = loss + mean_square(F.embedding(seen.codes[..., level], table) - seen.residuals[level].detach())
        return seen._replace(loss=loss + seen.loss)

    def average(self, count: Int[Tensor, "L K"], total: Float[Tensor, "L K E"]) -> None:
        """Leave the codebook to the optimizer."""


class RotationGradientQuantizer(RotationQuantizer, GradientQuantizer):
    """Both: the estimator of the first, the codebook of the second."""


QUANTIZERS = {  # (gradient, codebook_update) of the settings -> class
    ("straight-through", "ema"): ResidualQuantizer,
    ("rotation", "ema"): RotationQuantizer,
    ("straight-through", "gradient"): GradientQuantizer,
    ("rotation", "gradient"): RotationGradientQuantizer,
}
