"""Transformer blocks with an additive attention bias, used by every sequence model here."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .kernels import dropout

INIT_STD = 0.02  # standard deviation of embeddings at the start
FEW = 8  # up to this many keys, attention uses sums of products


def causal_mask(length: int, device: torch.device | None = None) -> Float[Tensor, "T T"]:
    """Additive mask: 0 for a position itself and earlier ones, -inf for later ones."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


def select_query(pairs: Tensor, row: Int[Tensor, "B"]) -> Tensor:
    """Select the row of one query per user, (#B, #H, T, R) -> (B, #H, 1, R)."""
    return pairs.expand(len(row), -1, -1, -1)[torch.arange(len(row), device=row.device), :, row][:, :, None]


def attention(
    query: Float[Tensor, "B H T d"],
    key: Float[Tensor, "B H R d"],
    value: Float[Tensor, "B H R d"],
    bias: Float[Tensor, "... T R"],
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H T R"]]:
    """Attended values and weights, `softmax(q.k/sqrt(d) + bias)`; a bias of 0 is plain attention.

    Choice: no fused kernel: this is as fast on CPU with a learned bias, and it returns the weights. For few keys (the
    codes of one ID), sums of products take half the time of matrix products.
    """
    if key.shape[-2] > FEW:
        weights = (query @ key.mT / query.shape[-1] ** 0.5 + bias).softmax(-1)
        return weights @ value, weights
    scores = (query[..., :, None, :] * key[..., None, :, :]).sum(-1)
    weights = (scores / query.shape[-1] ** 0.5 + bias).softmax(-1)
    return (weights[..., None] * value[..., None, :, :]).sum(-2), weights


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + feed-forward(norm(x)), with ReLU as in SASRec.

    Args: width: D. heads: H, divides D. dropout: dropout rate of each branch.
    """

    attend = staticmethod(attention)  # a block with other weights overrides it

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the normalised input, each (B, H, T, D/H)."""
        return self._heads(self.qkv(self.norm_attention(x)), 3)

    def _heads(self, x: Float[Tensor, "B T nD"], count: int) -> tuple[Tensor, ...]:
        """Split `count` concatenated projections, each (B, H, T, D/H)."""
        return tuple(part.transpose(1, 2) for part in x.unflatten(-1, (count, self.heads, -1)).unbind(-3))

    def merge(self, x: Float[Tensor, "B T D"], attended: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
        """Add the attended values, then the feed-forward branch, to the residual stream."""
        x = x + dropout(self.out(attended.transpose(1, 2).flatten(-2)), self.dropout, self.training)
        return x + dropout(self.down(F.relu(self.up(self.norm_forward(x)))), self.dropout, self.training)

    def forward(self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "... T T"]) -> tuple[Tensor, Tensor]:
        """The new residual stream (B, T, D) and the attention weights (B, H, T, T)."""
        query, key, value = self.project(x)
        attended, weights = self.attend(query, key, value, bias)
        return self.merge(x, attended), weights

    def last_position(
        self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "B #H one T"], last: Int[Tensor, "B"]
    ) -> Tensor:
        """The new stream of `forward` at one position per user, (B, 1, D); `bias` holds that position's row."""
        user, width, normed = torch.arange(len(x), device=x.device), x.shape[-1], self.norm_attention(x)
        weight, offset = self.qkv.weight, self.qkv.bias
        (query,) = self._heads(F.linear(normed[user, last][:, None], weight[:width], offset[:width]), 1)
        key, value = self._heads(F.linear(normed, weight[width:], offset[width:]), 2)
        return self.merge(x[user, last][:, None], self.attend(query, key, value, bias)[0])

    def extend(self, x: Float[Tensor, "B one D"], cache: Float[Tensor, "two B H t d"] | None) -> tuple[Tensor, Tensor]:
        """Append one position to cached ones: the new stream (B, 1, D) and the extended cache of keys and values."""
        query, key, value = self.project(x)
        grown = torch.stack([key, value])
        if cache is None:
            return self.merge(x, value), grown  # a softmax over one key is 1
        grown = torch.cat([cache, grown], dim=-2)
        attended, _ = self.attend(query, *grown, x.new_zeros(1, grown.shape[-2]))
        return self.merge(x, attended), grown


class Transformer(nn.Module):
    """A stack of blocks with a final layer norm.

    Args: layers, width, heads, dropout: as in `Block`. kind: class of the blocks.
    """

    def __init__(self, layers: int, width: int, heads: int, dropout: float, kind: type[Block] = Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(kind(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B T D"], biases: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Outputs (B, T, D) and each block's attention weights (B, H, T, T), with one additive bias per block."""
        maps = []
        for block, bias in zip(self.blocks, biases, strict=True):
            x, weights = block(x, bias)
            maps.append(weights)
        return self.norm(x), maps

    def last_position(
        self, x: Float[Tensor, "B T D"], biases: list[Tensor], last: Int[Tensor, "B"]
    ) -> Float[Tensor, "B D"]:
        """The output of `forward` at one position per user; the last bias is that position's, from `select_query`."""
        for block, bias in zip(self.blocks[:-1], biases, strict=False):
            x, _ = block(x, bias)
        return self.norm(self.blocks[-1].last_position(x, biases[-1], last))[:, 0]

    def extend(self, x: Float[Tensor, "B one D"], caches: list[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """Append one position to every block, causal by construction: outputs (B, 1, D) and the extended caches."""
        grown = []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.extend(x, cache)
            grown.append(cache)
        return self.norm(x), grown
