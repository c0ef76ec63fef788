"""Ablations of the reweighting: offsets linear in the similarity, even buckets, fewer channels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec_core import SimilarityBias
from bbqrec_core.recommender.similarity_bias import SPECIAL, all_channels, mark, quantile_edges
from bbqrec_core.transformer import select_query
from bbqrec_lab.settings import VariantRecommenderConfig


class LinearSimilarity(SimilarityBias):
    """The continuous form: one bucket, whose offset is multiplied by the cosine.

        bias[layer][b, h, i, j] = sum_channel table[layer, channel, 0, h] * cos(q_i, k_j)

    and `table[layer, channel, 1 + special, h]` if the pair has no cosine: same item, missing signal, padding. The
    cosines need one matrix product per channel and batch; the gradient reaches `table` but not the vectors.

    Args: as `SimilarityBias`, with no edges. Choice: a control for the buckets, not part of the method.
    """

    def compare_all(self) -> None:
        """Nothing is computed beforehand: a cosine takes four times the memory of a bucket."""

    def forward(
        self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "B H _ T"]]:
        """As `SimilarityBias.forward`."""
        cosine, special = self.compare(item_ids, item_ids)
        kind = mark(torch.full_like(cosine, -1), special, 0)
        columns = [cosine * (kind < 0), *((kind == each).to(cosine) for each in range(SPECIAL))]
        inputs = torch.stack(columns, -1).movedim(0, -2).flatten(-2)  # (B, T, T, channels * slots)
        top = inputs if last is None else select_query(inputs.permute(0, 3, 1, 2), last).permute(0, 2, 3, 1)
        pairs = [(inputs, table) for table in self.table[:-1]] + [(top, self.table[-1])]
        return [(given @ table.flatten(0, 1)).permute(0, 3, 1, 2) for given, table in pairs]


def make_reweighting(
    vectors: Float[Tensor, "N S E"], present: Bool[Tensor, "N S"], signals: list[str], config: VariantRecommenderConfig
) -> SimilarityBias:
    """The reweighting of a variant, called like `build_reweighting`.

    Raw features of two modalities differ in width and meaning, so they are compared within a modality only.
    """
    channels, sizes = all_channels(signals), {"layers": config.layers, "heads": config.heads}
    if config.channels == "same" or config.similarity == "features":
        channels = channels[: len(signals)]
    if config.similarity_form == "linear":
        return LinearSimilarity(vectors, present, channels, vectors.new_zeros(len(channels), 0), **sizes)
    if config.bucket_edges == "uniform":
        edges = torch.linspace(-1, 1, config.buckets + 1, dtype=vectors.dtype)[1:-1].repeat(len(channels), 1)
    else:
        edges = quantile_edges(vectors, present, channels, config.buckets)
    return SimilarityBias(vectors, present, channels, edges, **sizes)
