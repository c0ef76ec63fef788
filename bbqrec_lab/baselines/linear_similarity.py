"""A control for the buckets: attention offsets that are linear in the similarity."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bbqrec_core import SimilarityBias
from bbqrec_core.recommender.similarity_bias import SPECIAL, SignalPairs, build_reweighting, mark
from bbqrec_core.transformer import select_query
from bbqrec_lab.settings import VariantRecommenderConfig


class LinearSimilarity(SignalPairs):
    """The continuous form: an offset proportional to the cosine instead of one per bucket.

        bias[layer][b, h, i, j] = sum_channel table[layer, channel, 0, h] * cos(q_i, k_j)

    and `table[layer, channel, 1 + special, h]` if the pair has no cosine: same item, missing signal, padding. The
    cosines need one matrix product per channel and batch; the gradient reaches `table` but not the vectors.

    Args: as `SimilarityBias`. Choice: a control for the buckets, not part of the method.
    """

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
) -> SimilarityBias | LinearSimilarity:
    """The reweighting of a variant, called like `build_reweighting`.

    Raw features of two modalities differ in width and meaning, so they are compared within a modality only.
    """
    which = "same" if config.similarity == "features" else config.channels
    if config.similarity_form == "linear":
        return LinearSimilarity(vectors, present, signals, layers=config.layers, heads=config.heads, which=which)
    return build_reweighting(vectors, present, signals, replace(config, channels=which))
