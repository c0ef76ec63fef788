"""The baseline HSTU: blocks with pointwise attention and gates, and offsets by the lag and the time between events."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core.dataset import item_rows
from bbqrec_core.kernels import _LookUp, dropout
from bbqrec_core.transformer import INIT_STD, Block, select_query
from bbqrec_lab.baselines.esasrec import NegativesModel

BUCKETS = 128  # of the time between two events
BUCKET_WIDTH = 0.301  # in log seconds: each bucket begins at 1.35 times the seconds of the one before


class HstuBlock(Block):
    """HSTU's block: attention without softmax, gated by the input; it has no feed-forward.

        U, V, Q, K = split(silu(f1(norm(x)))),   A = silu(Q K' + bias) / n,   x + f2(norm(A V) * U)

    n is the number of events that the query sees. The norm of A V has no parameters; up to its epsilon, it
    undoes the scale of A.

    Source: Zhai et al. 2024 (ICML, arXiv 2402.17152), equations 1 to 3.
    Choice: their n is the length of the padded window; ours does not depend on padding. Dropout is only on the branch,
        as in `Block`. Width, layers and heads are those of all rows; they have 50 and 2 layers on MovieLens-1M, 8 in
        the large model.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        del self.norm_forward, self.up, self.down
        self.gate = nn.Linear(width, width)

    def _heads(self, x: Float[Tensor, "B T nD"], count: int) -> tuple[Tensor, ...]:
        """As `Block._heads`, after the SiLU of the projections."""
        return super()._heads(F.silu(x), count)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attended values and weights; a bias of -inf gives the weight 0. Weights can be negative."""
        hidden = bias == -torch.inf
        weights = F.silu(query @ key.mT + bias.masked_fill(hidden, 0))  # silu(-inf) is no number
        weights = weights.masked_fill(hidden, 0) / (~hidden).sum(-1, keepdim=True)
        return weights @ value, weights

    def merge(self, x: Float[Tensor, "B T D"], attended: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
        """Add the normalised and gated attended values to the stream."""
        attended = attended.transpose(1, 2).flatten(-2)
        gated = F.layer_norm(attended, attended.shape[-1:]) * F.silu(self.gate(self.norm_attention(x)))
        return x + dropout(self.out(gated), self.dropout, self.training)

    def extend(self, x: Float[Tensor, "B one D"], cache: Float[Tensor, "two B H t d"] | None) -> tuple[Tensor, Tensor]:
        """As `Block.extend`; an empty cache instead of none, since the weight of a single key is not 1 here."""
        if cache is None:
            cache = x.new_zeros(2, len(x), self.heads, 0, x.shape[-1] // self.heads)
        return super().extend(x, cache)


class HstuModel(NegativesModel):
    """The sequence model with HSTU's offsets, for any loss: by the lag in positions and the time between two events.

        bias[layer][b, 1, i, j] = lag[layer, i - j] + gap[layer, bucket(t_i - t_j)],   t in seconds
        bucket(t) = min(floor(log(max(t, 1)) / 0.301), 127)

    Rows without times, (B, T), have gaps of 0 seconds. The offsets are added to the model's others, for all heads.

    Args: as of `FeaturesModel`.
    Source: Zhai et al. 2024, section 3.2 (rab), and their code for public datasets: 128 buckets, offsets per layer,
        positions added to the input.
    Choice: their query takes the time of the next event, which is the target's. Here it takes the time of its own
        event, so nothing of the target is read.
    """

    timed = True

    def __init__(self, *given: object, **options: object) -> None:
        super().__init__(*given, **options)
        config = self.config
        self.lag = nn.Parameter(torch.randn(config.layers, config.max_events) * INIT_STD)
        self.gap = nn.Parameter(torch.randn(config.layers, 1, BUCKETS, 1) * INIT_STD)

    def biases(
        self, item_ids: Int[Tensor, "B T *pair"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "#B #H _ T"]]:
        """As `SequenceModel.biases`, with HSTU's offsets."""
        items = item_rows(item_ids)
        times = item_ids[..., 1] if item_ids.ndim == 3 else torch.zeros_like(items)
        position = torch.arange(items.shape[1], device=items.device)
        lags = (position[:, None] - position).clamp_min(0)
        bucket = time_bucket(times[:, :, None] - times[:, None])[None]  # (1, B, T, T)
        own = [lag[lags] + _LookUp.apply(gap, bucket) for lag, gap in zip(self.lag, self.gap, strict=True)]
        if last is not None:
            own[-1] = select_query(own[-1], last)
        return [bias + offset for bias, offset in zip(super().biases(items, last), own, strict=True)]


def time_bucket(seconds: Int[Tensor, "*pairs"]) -> Int[Tensor, "*pairs"]:
    """The bucket of a time between two events, equally wide in its logarithm; 0 for less than 2 seconds."""
    return (seconds.clamp_min(1).log() / BUCKET_WIDTH).int().clamp_max(BUCKETS - 1)
