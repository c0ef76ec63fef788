"""The baseline BSARec: blocks that mix self-attention with a filter that tells slow from fast changes of the input."""

from functools import cache

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from bbqrec_core.kernels import dropout
from bbqrec_core.transformer import Block

SHARE = 0.7  # alpha: of the filter in the mixture; attention has the rest
LOWEST = 5  # c: components of the Fourier transform that are low: the mean and two pairs of conjugates


@cache
@torch.inference_mode(False)  # a cached tensor of inference mode could not be trained with
def low_pass(length: int) -> Float64[Tensor, "T T"]:
    """Row t projects positions 0..t onto their `LOWEST` lowest frequencies and gives the value at t.

        low[t, s] = (1 + sum over k of w_k * cos(2 pi k (t - s) / n)) / n for s <= t, else 0;   n = t + 1

    with k = 1 .. LOWEST // 2; w_k is 2, but 1 for k = n / 2 and 0 for k > n / 2. So the first `LOWEST` rows are those
    of the identity, and every row sums to 1.
    """
    position = torch.arange(length, dtype=torch.float64)
    n, back = position[:, None] + 1, position[:, None] - position
    low = torch.ones(length, length, dtype=torch.float64)
    for k in range(1, LOWEST // 2 + 1):
        weight = (2 * k < n).double() + (2 * k <= n).double()
        low += weight * torch.cos(2 * torch.pi * k * back / n)
    return (low / n).tril()


class FrequencyBlock(Block):
    """BSARec's block: a frequency filter and self-attention, mixed, then the feed-forward.

        x + alpha * filter(norm(x)) + (1 - alpha) * attention(norm(x)), then x + feed-forward(norm(x))
        filter(y) = low(y) + beta^2 * (y - low(y)),   one beta per channel

    Source: Shin et al. 2024 (AAAI, arXiv 2312.10325), with alpha 0.7 and c 5, their choice on Beauty; they tuned both
        per dataset.
    Choice: they transform the whole window, padding included, and train on its last position only. Here all positions
        are trained at once, where that would show the target. So each position filters its own past (`low_pass`): what
        a transform of the prefix alone gives at its last position. Norms and feed-forward are those of `Block`, so the
        row differs from `sasrec` in the mixture only.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.beta = nn.Parameter(torch.randn(width))

    def filter(self, y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The low frequencies of each position's past, plus the rest times beta^2."""
        low = low_pass(y.shape[1]).to(y) @ y
        return low + self.beta**2 * (y - low)

    def _filtered(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The stream with its filter branch added."""
        return x + dropout(SHARE * self.filter(self.norm_attention(x)), self.dropout, self.training)

    def forward(self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "... T T"]) -> tuple[Tensor, Tensor]:
        """As `Block.forward`; the weights are those of attention."""
        query, key, value = self.project(x)
        attended, weights = self.attend(query, key, value, bias)
        return self.merge(self._filtered(x), (1 - SHARE) * attended), weights

    def last_position(
        self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "B #H one T"], last: Int[Tensor, "B"]
    ) -> Tensor:
        """As `Block.last_position`."""
        user, (query, key, value) = torch.arange(len(x), device=x.device), self.project(x)
        attended, _ = self.attend(query[user, :, last][:, :, None], key, value, bias)
        return self.merge(self._filtered(x)[user, last][:, None], (1 - SHARE) * attended)

    def extend(
        self, x: Float[Tensor, "B one D"], cache: Float[Tensor, "one B one t D"] | None
    ) -> tuple[Tensor, Tensor]:
        """As `Block.extend`; the cache is the stream itself, since the filter reads all of it."""
        grown = x[None, :, None] if cache is None else torch.cat([cache, x[None, :, None]], dim=-2)
        last = torch.full((len(x),), grown.shape[-2] - 1, device=x.device)
        return self.last_position(grown[0, :, 0], x.new_zeros(len(x), 1, 1, grown.shape[-2]), last), grown
