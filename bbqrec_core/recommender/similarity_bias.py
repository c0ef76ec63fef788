"""Similarity reweighting: a learned attention offset per bucket of the similarity of two items' signals."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Generator, Tensor, nn

from ..config import RecommenderConfig
from ..kernels import _LookUp, bucket_of, pick
from ..transformer import select_query

PAIR_BYTES = 2**28  # size limit of the table of all pairs: 7,300 items in five channels
SPECIAL = 3  # extra buckets for pairs without a cosine: the same item, a missing signal, padding


class Channel(NamedTuple):
    """Compares signal `query` of the attending item with signal `key` of the attended item (signal indices)."""

    name: str
    query: int
    key: int


def all_channels(signals: list[str]) -> list[Channel]:
    """Each signal with itself, then the ordered pairs of different modalities; `id` is comparable with none of them."""
    same = [Channel(f"{name}-{name}", index, index) for index, name in enumerate(signals)]
    named = [(index, name) for index, name in enumerate(signals) if name != "id"]
    return same + [Channel(f"{one}-{other}", i, j) for i, one in named for j, other in named if i != j]


def quantile_edges(
    vectors: Float[Tensor, "N S E"], present: Bool[Tensor, "N S"], channels: list[Channel], buckets: int
) -> Float[Tensor, "C edges"]:
    """The S - 1 inner edges per channel that cut a sample of pairs of different items into equal parts."""
    generator, edges = Generator().manual_seed(0), []
    rows = present.any(-1).nonzero().squeeze(-1)
    for channel in channels:
        edges.append(torch.linspace(-1, 1, buckets + 1, dtype=vectors.dtype)[1:-1])
        if not len(rows):
            continue
        first, second = (rows[torch.randint(len(rows), (50_000,), generator=generator)] for _ in range(2))
        keep = (first != second) & present[first, channel.query] & present[second, channel.key]
        if keep.any():
            one, other = vectors[first[keep], channel.query], vectors[second[keep], channel.key]
            cosine = F.cosine_similarity(one, other, dim=-1)
            # many pairs of quantized vectors lie exactly on a quantile: a small shift keeps rounding from parting them
            edges[-1] = torch.quantile(cosine, torch.linspace(0, 1, buckets + 1, dtype=cosine.dtype)[1:-1]) + 1e-5
    return torch.stack(edges)


def mark(values: Shaped[Tensor, "*pairs"], special: tuple[Tensor, ...], first: int) -> Shaped[Tensor, "*pairs"]:
    """Overwrite pairs without a cosine: `first` for the same item, + 1 missing signal, + 2 padding; the last wins."""
    for kind, pairs in enumerate(special):
        values.masked_fill_(pairs, first + kind)
    return values


class SimilarityBias(nn.Module):
    """Learn one logit offset per layer, channel, head and similarity bucket.

        bias[layer][b, h, i, j] = sum_channel table[layer, channel, bucket(cos(q_i, k_j)), h]
        weight = softmax(q.k / sqrt(D/H) + bias): each weight is multiplied by exp(bias) before normalisation

    Buckets are integers, so the gradient reaches `table` but not the vectors.

    Args: vectors: quantized signals of every item row. present: which signals an item has. channels: C pairs of signals
            to compare. edges: inner edges of the buckets of each, (C, S - 1). layers, heads: of the backbone.
    Source: arXiv 2504.06636, discretized similarity reweighting [abstract]; its form here is ours.
    Choice: a zero table, so training starts from plain attention; extra buckets for same item, missing and padding.
    """

    def __init__(
        self,
        vectors: Float[Tensor, "N S E"],
        present: Bool[Tensor, "N S"],
        channels: list[Channel],
        edges: Float[Tensor, "C edges"],
        *,
        layers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.channels, self.buckets = channels, edges.shape[1] + 1
        self.register_buffer("vectors", F.normalize(vectors, dim=-1))
        self.register_buffer("present", present)
        self.register_buffer("edges", edges)
        self.register_buffer("query", torch.tensor([channel.query for channel in channels]), persistent=False)
        self.register_buffer("key", torch.tensor([channel.key for channel in channels]), persistent=False)
        self.table = nn.Parameter(torch.zeros(layers, len(channels), self.buckets + SPECIAL, heads))  # logits
        self.register_buffer("pairs", self.compare_all(), persistent=False)

    def compare(
        self, rows: Int[Tensor, "B T"], columns: Int[Tensor, "B R"]
    ) -> tuple[Float[Tensor, "C B T R"], tuple[Bool[Tensor, "..."], ...]]:
        """The cosine of every pair per channel, and the pairs without one, in the order of `mark`."""
        same = rows[:, :, None] == columns[:, None, :]
        padding = (rows == 0)[:, :, None] | (columns == 0)[:, None, :]
        vectors, present, count = self.vectors.flatten(0, 1), self.present.flatten(), self.present.shape[1]
        query, key = rows * count + self.query[:, None, None], columns * count + self.key[:, None, None]  # (C, B, ...)
        missing = ~(present[query][..., None] & present[key][..., None, :])
        return pick(vectors, query) @ pick(vectors, key).mT, (same, missing, padding)

    def _buckets(self, rows: Int[Tensor, "B T"], columns: Int[Tensor, "B R"]) -> UInt8[Tensor, "C B T R"]:
        """Compute the bucket of every pair and channel from the vectors."""
        cosine, special = self.compare(rows, columns)
        return mark(bucket_of(cosine, self.edges), special, self.buckets)

    @torch.no_grad()
    def compare_all(self) -> UInt8[Tensor, "rows_rows C"] | None:
        """Buckets of all pairs of items, those of a pair adjacent in memory; None if more than `PAIR_BYTES`."""
        everyone = torch.arange(len(self.vectors))
        if len(self.channels) * len(everyone) ** 2 > PAIR_BYTES:
            return None
        blocks = [self._buckets(rows[None], everyone[None]).flatten(1).T for rows in everyone.split(128)]
        return torch.cat(blocks).contiguous()

    def bucket_ids(self, item_ids: Int[Tensor, "B T"]) -> Int[Tensor, "C B T T"]:
        """Bucket of every pair of positions per channel: 0..S-1 by cosine, then same item, missing, padding."""
        if self.pairs is None:
            return self._buckets(item_ids, item_ids).int()
        pair = item_ids[:, :, None] * len(self.vectors) + item_ids[:, None, :]
        return self.pairs.index_select(0, pair.flatten()).T.int().view(-1, *pair.shape)

    def forward(
        self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "B H _ T"]]:
        """The offset of each layer, to be added to its attention logits; without the causal mask.

        Args: last: if given, the last layer's offset is that of one position per user, (B, H, 1, T).
        """
        bucket = self.bucket_ids(item_ids)
        top = bucket if last is None else select_query(bucket.transpose(0, 1), last).transpose(0, 1)
        return [*(_LookUp.apply(table, bucket) for table in self.table[:-1]), _LookUp.apply(self.table[-1], top)]


def build_reweighting(
    vectors: Float[Tensor, "N S E"], present: Bool[Tensor, "N S"], signals: list[str], config: RecommenderConfig
) -> SimilarityBias:
    """The reweighting of a configuration, over named signals; vectors and present as for `SimilarityBias`."""
    channels = all_channels(signals)
    edges = quantile_edges(vectors, present, channels, config.buckets)
    return SimilarityBias(vectors, present, channels, edges, layers=config.layers, heads=config.heads)
