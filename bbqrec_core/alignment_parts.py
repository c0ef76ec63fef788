"""Small parts of stage 1's model: standardised signals, the variational Gaussian, contrast of matching rows."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

LOG_VARIANCE = 3.0  # bound of the variational Gaussian's log-variance; unbounded, CLUB's contrast diverges


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a ReLU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def spread(vectors: Float[Tensor, "*S E"]) -> Float[Tensor, "*S E"]:
    """Scale vectors to length sqrt(E), so that a coordinate is of size 1 whatever E is; zero stays zero."""
    return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5


def masked_mean(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean over the true entries of `mask`; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def info_nce(first: Float[Tensor, "R E"], second: Float[Tensor, "R E"], temperature: float) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of matching rows by cosine, in nats."""
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).T / temperature
    own = torch.arange(len(first), device=first.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class Parts(NamedTuple):
    """Items taken apart: `signals` (R, S, E), which are `present` (R, S), and `specific` parts (R, M, W)."""

    signals: Float[Tensor, "R S E"]
    present: Bool[Tensor, "R S"]
    specific: Float[Tensor, "R M W"]


class Standardise(nn.Module):
    """Centre and scale every signal over the items that have it, then give each vector length sqrt(E).

    Signals that keep offsets of their own fall into different regions of the shared codebook, and a fused ID is left
    with a part of its codes; without an offset, a code can mean the same in every signal.

    Args: signals, width: S, E. Choice: moving statistics as in batch normalisation, momentum 0.1, no affine part.
    """

    def __init__(self, signals: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(signals, width))
        self.register_buffer("variance", torch.ones(signals, width))

    def forward(self, signals: Float[Tensor, "R S E"], present: Bool[Tensor, "R S"]) -> Float[Tensor, "R S E"]:
        """Standardised signals: by the statistics of this batch in training, else by the moving ones."""
        mean, variance = self.mean, self.variance
        if self.training:
            weight = present[..., None] / present.sum(0)[:, None].clamp_min(1)  # (R, S, 1)
            seen = (present.sum(0) > 1)[:, None]  # of one vector, the deviation is 0: the moving statistics serve
            mean = torch.where(seen, (weight * signals).sum(0), self.mean)
            variance = torch.where(seen, (weight * (signals - mean).square()).sum(0), self.variance)
            with torch.no_grad():
                self.mean.copy_(torch.where(seen, self.mean.lerp(mean, 0.1), self.mean))
                self.variance.copy_(torch.where(seen, self.variance.lerp(variance, 0.1), self.variance))
        return spread((signals - mean) / (variance + 1e-5).sqrt())


class Variational(nn.Module):
    """The Gaussian q(s | b) of CLUB for one modality; `forward` gives log q per pair, up to its constant, in nats."""

    def __init__(self, behaviour: int, specific: int, hidden: int) -> None:
        super().__init__()
        self.net = mlp(behaviour, hidden, 2 * specific)

    def forward(self, specific: Float[Tensor, "R W"], behaviour: Float[Tensor, "R E"]) -> Float[Tensor, "R"]:
        mean, raw = self.net(behaviour).chunk(2, dim=-1)
        log_variance = LOG_VARIANCE * torch.tanh(raw)
        return -0.5 * ((specific - mean).square() / log_variance.exp() + log_variance).sum(-1)
