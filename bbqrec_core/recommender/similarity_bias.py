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


def channels(signals: list[str], which: str) -> list[Channel]:
    """Channels over named signals: `same` compares each signal with itself, `all` adds the ordered pairs of modalities.

    The ID signal, named `id`, is compared with itself only, because ID vectors are not comparable with a modality.
    """
    same = [Channel(f"{name}-{name}", index, index) for index, name in enumerate(signals)]
    if which == "same":
        return same
    mixed = [(i, j) for i in range(len(signals)) for j in range(len(signals)) if i != j]
    named = [(i, j) for i, j in mixed if "id" not in (signals[i], signals[j])]
    return same + [Channel(f"{signals[i]}-{signals[j]}", i, j) for i, j in named]


def bucket_edges(
    vectors: Float[Tensor, "N S E"],
    present: Bool[Tensor, "N S"],
    channel: Channel,
    buckets: int,
    kind: str,
    generator: Generator,
) -> Float[Tensor, "edges"]:
    """The S - 1 inner edges of the buckets of a channel.

    Args: kind: `uniform` cuts [-1, 1] evenly; `quantile` cuts a sample of pairs of different items into equal parts.
    """
    even = torch.linspace(-1, 1, buckets + 1, dtype=vectors.dtype)[1:-1]
    rows = present.any(-1).nonzero().squeeze(-1)
    if kind == "uniform" or not len(rows):
        return even
    first, second = (rows[torch.randint(len(rows), (50_000,), generator=generator)] for _ in range(2))
    keep = (first != second) & present[first, channel.query] & present[second, channel.key]
    if not keep.any():
        return even
    first, second = first[keep], second[keep]
    cosine = F.cosine_similarity(vectors[first, channel.query], vectors[second, channel.key], dim=-1)
    # many pairs of quantized vectors lie exactly on a quantile: a small shift keeps rounding from separating them
    return torch.quantile(cosine, torch.linspace(0, 1, buckets + 1, dtype=cosine.dtype)[1:-1]) + 1e-5


def mark(values: Shaped[Tensor, "*pairs"], special: tuple[Tensor, ...], first: int) -> Shaped[Tensor, "*pairs"]:
    """Overwrite pairs without a cosine: `first` for the same item, + 1 missing signal, + 2 padding; the last wins."""
    for kind, pairs in enumerate(special):
        values.masked_fill_(pairs, first + kind)
    return values


class SignalPairs(nn.Module):
    """Base of all reweighting: unit vectors of the signals, channels, and a table of offsets that starts at zero.

    Args: slots: number of offsets (or slopes) per channel, layer and head.
    """

    def __init__(
        self,
        vectors: Float[Tensor, "N S E"],
        present: Bool[Tensor, "N S"],
        signals: list[str],
        *,
        layers: int,
        heads: int,
        which: str,
        slots: int = 1 + SPECIAL,
    ) -> None:
        super().__init__()
        self.channels = channels(signals, which)
        self.register_buffer("vectors", F.normalize(vectors, dim=-1))
        self.register_buffer("present", present)
        self.register_buffer("query", torch.tensor([channel.query for channel in self.channels]), persistent=False)
        self.register_buffer("key", torch.tensor([channel.key for channel in self.channels]), persistent=False)
        self.table = nn.Parameter(torch.zeros(layers, len(self.channels), slots, heads))  # logits

    def _signals(
        self, rows: Int[Tensor, "B T"], signal: Int[Tensor, "C"]
    ) -> tuple[Float[Tensor, "C B T E"], Bool[Tensor, "C B T"]]:
        """The vectors of the signal of each channel, and which items have it."""
        slot = rows * self.present.shape[1] + signal[:, None, None]
        return pick(self.vectors.flatten(0, 1), slot), self.present.flatten()[slot]

    def compare(
        self, rows: Int[Tensor, "B T"], columns: Int[Tensor, "B R"]
    ) -> tuple[Float[Tensor, "C B T R"], tuple[Bool[Tensor, "..."], ...]]:
        """The cosine of every pair per channel, and the pairs without one, in the order of `mark`."""
        same = rows[:, :, None] == columns[:, None, :]
        padding = (rows == 0)[:, :, None] | (columns == 0)[:, None, :]
        (queries, there), (keys, here) = self._signals(rows, self.query), self._signals(columns, self.key)
        missing = ~(there[..., None] & here[..., None, :])
        return queries @ keys.mT, (same, missing, padding)


class SimilarityBias(SignalPairs):
    """Learn one logit offset per layer, channel, head and similarity bucket.

        bias[layer][b, h, i, j] = sum_channel table[layer, channel, bucket(cos(q_i, k_j)), h]
        weight = softmax(q.k / sqrt(D/H) + bias): each weight is multiplied by exp(bias) before normalisation

    Buckets are integers, so the gradient reaches `table` but not the vectors.

    Args: vectors: quantized signals of every item row, (N+1, S, E). present: which signals an item has.
        signals: their names. layers, heads: of the backbone. buckets: S. edges: `quantile` or `uniform`.
        which: `same` or `all` channels.
    Source: arXiv 2504.06636, discretized similarity reweighting [abstract]; its form here is ours.
    Choice: a zero table, so training starts from plain attention; extra buckets for same item, missing and padding.
    """

    def __init__(
        self,
        vectors: Float[Tensor, "N S E"],
        present: Bool[Tensor, "N S"],
        signals: list[str],
        *,
        layers: int,
        heads: int,
        buckets: int,
        edges: str,
        which: str,
    ) -> None:
        super().__init__(vectors, present, signals, layers=layers, heads=heads, which=which, slots=buckets + SPECIAL)
        self.buckets = buckets
        generator = Generator().manual_seed(0)
        cuts = [bucket_edges(vectors, present, channel, buckets, edges, generator) for channel in self.channels]
        self.register_buffer("edges", torch.stack(cuts))  # (channels, S - 1)
        self.register_buffer("pairs", self._compare_all(), persistent=False)

    def _buckets(self, rows: Int[Tensor, "B T"], columns: Int[Tensor, "B R"]) -> UInt8[Tensor, "C B T R"]:
        """Compute the bucket of every pair and channel from the vectors."""
        cosine, special = self.compare(rows, columns)
        return mark(bucket_of(cosine, self.edges), special, self.buckets)

    @torch.no_grad()
    def _compare_all(self) -> UInt8[Tensor, "rows_rows C"] | None:
        """Buckets of all pairs of items, one byte each, if they fit into `PAIR_BYTES`; None otherwise.

        The channels of a pair are adjacent in memory, so a pair costs one access.
        """
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
    """The reweighting of a configuration; vectors, present and signals as for `SimilarityBias`."""
    sizes = {"layers": config.layers, "heads": config.heads, "buckets": config.buckets}
    return SimilarityBias(vectors, present, signals, edges=config.bucket_edges, which=config.channels, **sizes)
