"""Residual quantization: a codebook of L levels of K vectors, shared by all signals that pass through it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ..kernels import argmin_rows, mean_square


class Quantized(NamedTuple):
    """The result of quantizing signals (any leading axes, written *S)."""

    vectors: Float[Tensor, "*S E"]  # sum of the codebook vectors; gradient is that of the signals (straight-through)
    codes: Int[Tensor, "*S L"]
    residuals: Float[Tensor, "L *S E"]  # input of each level, with gradient to the signals
    loss: Float[Tensor, "*S"]  # commitment loss, mean over E, summed over levels


def nearest_code(residual: Float[Tensor, "*S E"], table: Float[Tensor, "K E"]) -> Int[Tensor, "*S"]:
    """Index of the nearest row of `table`, `argmin_k |r - C[k]|`, by one matrix product; the lowest index wins ties."""
    flat = residual.reshape(-1, residual.shape[-1])
    distance = torch.addmm(table.square().sum(-1), flat, table.T, alpha=-2)  # |r|^2 is the same for every k
    return argmin_rows(distance).reshape(residual.shape[:-1])


def kmeans_plus_plus(points: Float[Tensor, "P E"], clusters: int, generator: Generator) -> Float[Tensor, "K E"]:
    """Draw centres from the points, by squared distance to earlier ones. Source: Arthur and Vassilvitskii 2007."""
    picks = [int(torch.randint(len(points), (1,), generator=generator))]
    gap = torch.full((len(points),), torch.inf)
    for _ in range(clusters - 1):
        gap = torch.minimum(gap, (points - points[picks[-1]]).square().sum(-1))
        picks.append(int(torch.multinomial(gap + 1e-12, 1, generator=generator)))  # distances of equal points are 0
    return points[picks].clone()


def kmeans(
    points: Float[Tensor, "P E"], clusters: int, generator: Generator, iterations: int = 10
) -> Float[Tensor, "K E"]:
    """Lloyd's algorithm after `kmeans_plus_plus`; an empty cluster moves to the point with the largest error.

    If there are fewer points than clusters, points are repeated with a little noise.
    """
    if len(points) < clusters:
        picks = torch.randint(len(points), (clusters - len(points),), generator=generator)
        noise = torch.randn(len(picks), points.shape[1], generator=generator) * points.std() * 0.01
        points = torch.cat([points, points[picks] + noise])
    centres = kmeans_plus_plus(points, clusters, generator)
    for _ in range(iterations):
        codes = nearest_code(points, centres)
        counts = torch.bincount(codes, minlength=clusters)
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        error = (points - centres[codes]).square().sum(-1)
        centres = sums / counts.clamp_min(1)[:, None]
        empty = counts == 0
        centres[empty] = points[error.topk(int(empty.sum())).indices]
    return centres


class ResidualQuantizer(nn.Module):
    """Quantize in L steps; each level quantizes the residual of the level before.

        r_0 = b;  c_l = argmin_k |r_{l-1} - C_l[k]|;  r_l = r_{l-1} - C_l[c_l];  q(b) = sum_l C_l[c_l]

    Args: levels, codes, width: L, K, E. commitment: weight of `|r_{l-1} - sg C_l[c_l]|^2`. ema_decay: in [0, 1); codes
            are moving averages of the residuals that chose them. revive_every: steps between revivals of unused codes;
            0 never revives.
    Source: Lee et al. 2022 (RQ-VAE) section 3.1; van den Oord et al. 2017 appendix A.1 for the moving averages.
    Choice: k-means initialisation level by level; a dead code moves to a random residual of the current batch.
    """

    def __init__(
        self,
        levels: int,
        codes: int,
        width: int,
        *,
        commitment: float = 0.25,
        ema_decay: float = 0.95,
        revive_every: int = 0,
    ) -> None:
        super().__init__()
        self.commitment, self.ema_decay, self.revive_every = commitment, ema_decay, revive_every
        start = torch.randn(levels, codes, width) / width**0.5
        self.register_buffer("codebook", start)  # (L, K, E)
        self.register_buffer("counts", torch.ones(levels, codes))  # moving number of signals per code
        self.register_buffer("sums", start.clone())  # moving sum of their residuals
        self.register_buffer("usage", torch.zeros(levels, codes, dtype=torch.long))  # choices since the last revival
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, signal: Float[Tensor, "*S E"]) -> Quantized:
        """Quantize signals without changing state (`observe` does that)."""
        codes, residuals = [], [signal]
        for table in self.codebook.detach():
            codes.append(nearest_code(residuals[-1].detach(), table))
            residuals.append(residuals[-1] - F.embedding(codes[-1], table))
        left = torch.stack(residuals)
        loss = self.commitment * mean_square(left[1:]).sum(0)  # the next residual is the distance to the code
        return Quantized(signal - left[-1].detach(), torch.stack(codes, -1), left[:-1], loss)

    def decode(self, codes: Int[Tensor, "*S L"]) -> Float[Tensor, "*S E"]:
        """The quantized vector of codes, `sum_l C_l[c_l]`."""
        return sum(F.embedding(codes[..., level], table) for level, table in enumerate(self.codebook))

    @torch.no_grad()
    def initialise(
        self, signals: Float[Tensor, "*S E"], generator: Generator, present: Bool[Tensor, "*S"] | None = None
    ) -> None:
        """Set the codes of each level to the k-means centres of the residuals of `present` signals."""
        residual = signals.flatten(0, -2) if present is None else signals[present]
        for level in range(len(self.codebook)):
            centres = kmeans(residual, self.codebook.shape[1], generator)
            self.codebook[level].copy_(centres)
            residual = residual - centres[nearest_code(residual, centres)]
        self.sums.copy_(self.codebook)
        self.counts.fill_(1)

    @torch.no_grad()
    def observe(self, seen: Quantized, present: Tensor | None = None) -> None:
        """Update moving averages, code usage and dead codes from a batch, without signals that are not `present`."""
        levels, size, width = self.codebook.shape
        codes, residuals = seen.codes.reshape(-1, levels).T, seen.residuals.reshape(levels, -1, width)
        keep = torch.ones_like(codes[0], dtype=torch.bool) if present is None else present.reshape(-1)
        place = codes.where(keep, size) + torch.arange(levels, device=codes.device)[:, None] * (size + 1)
        place = place.flatten()  # all levels at once; excluded signals go to an extra code per level
        count = torch.bincount(place, minlength=levels * (size + 1)).view(levels, -1)[:, :size]
        self.usage += count
        self.steps += 1
        total = residuals.new_zeros(levels * (size + 1), width).index_add_(0, place, residuals.flatten(0, 1))
        self.average(count, total.view(levels, -1, width)[:, :size])
        if self.revive_every > 0 and int(self.steps) % self.revive_every == 0:
            for level in range(levels if keep.any() else 0):
                self._revive(level, residuals[level][keep])
            self.usage.zero_()

    def average(self, count: Int[Tensor, "L K"], total: Float[Tensor, "L K E"]) -> None:
        """Update the moving averages from the number of signals per code and the sum of their residuals."""
        self.sums.lerp_(total, 1 - self.ema_decay)
        self.counts.lerp_(count.to(self.counts.dtype), 1 - self.ema_decay)
        weight = self.counts[..., None]  # near 0 the mean is undefined: the code stays unchanged
        self.codebook.copy_(torch.where(weight > 1e-3, self.sums / weight.clamp_min(1e-3), self.codebook))

    def _revive(self, level: int, residuals: Float[Tensor, "P E"]) -> None:
        """Move the codes of a level that were unused since the last revival to random residuals."""
        dead = (self.usage[level] == 0).nonzero().squeeze(-1)
        picks = residuals[torch.randint(len(residuals), (len(dead),))]
        self.codebook[level, dead] = picks
        self.sums[level, dead] = picks
        self.counts[level, dead] = 1.0
