"""Baselines of the SASRec family: gated blocks of LiGR, and losses that compare a target with a few negatives."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core.kernels import dropout
from bbqrec_core.recommender.score_bias import Places
from bbqrec_core.transformer import Block
from bbqrec_lab.baselines.features_model import FeaturesModel

CALIBRATION = 0.75  # t of gBCE: 0 is plain binary cross-entropy, 1 gives the probabilities of the full softmax


class GatedBlock(Block):
    """LiGR's block: a gate computed from the stream scales each branch; the feed-forward is a SwiGLU.

        x + sigmoid(gate(x)) * attention(norm(x)), then x + sigmoid(gate'(x)) * down(silu(a) * b), [a, b] = up(norm(x))

    Source: Borisyuk et al. 2025 (LiGR, arXiv 2502.03417); as in eSASRec, Tikhonovich et al. 2025 (arXiv 2508.06450).
    Choice: 4D hidden units and no bias in the feed-forward, as in both papers; dropout only on branches, as in `Block`.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, heads, dropout)
        self.up, self.down = nn.Linear(width, 8 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.gate_attention, self.gate_forward = nn.Linear(width, width), nn.Linear(width, width)

    def merge(self, x: Float[Tensor, "B T D"], attended: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
        """Add the gated attended values, then the gated feed-forward branch, to the stream."""
        branch = dropout(self.out(attended.transpose(1, 2).flatten(-2)), self.dropout, self.training)
        x = x + self.gate_attention(x).sigmoid() * branch
        swish, linear = self.up(self.norm_forward(x)).chunk(2, -1)
        branch = dropout(self.down(F.silu(swish) * linear), self.dropout, self.training)
        return x + self.gate_forward(x).sigmoid() * branch


def gbce_power(negatives: int, others: int, calibration: float) -> float:
    """The power beta of the target's probability in gBCE, unitless, from the sampling rate alpha.

        alpha = negatives / others,   beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)

    Args: others: items that can be drawn, N - 1. calibration: t, 0 gives beta = 1, 1 gives beta = alpha.
    Source: Petrov and Macdonald 2023 (gSASRec), calibration of gBCE.
    Choice: alpha is at most 1, so that more negatives than items are plain binary cross-entropy.
    """
    alpha = min(negatives / max(others, 1), 1.0)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


class NegativesModel(FeaturesModel):
    """SASRec trained against a few negatives instead of the whole catalogue; x are the logits state . item vector.

        bce: -log sigmoid(x[target]) - log sigmoid(-x[other]), `other` uniform over the N - 1 other items
        gbce: (-beta log sigmoid(x[target]) - sum of log sigmoid(-x[other])) / (negatives + 1), `negatives` others
        sampled: -log softmax(x)[target] over the target and `negatives` uniform items, drawn once per batch

    Source: Kang and McAuley 2018, equation 7, for bce; Petrov and Macdonald 2023 (gSASRec, arXiv 2308.07192) for
        gbce, with their t = 0.75 and 256 negatives; Tikhonovich et al. 2025 (eSASRec) for sampled.
    Choice: only the target is excluded from the negatives (if drawn, it is removed from the softmax), not the rest of
        the user's history. For sampled, a batch shares its negatives; for gbce, each target has its own, as published,
        and the memory is targets x N.
    """

    def item_loss(
        self, states: Float[Tensor, "P D"], targets: Int[Tensor, "P"], held: Places | None = None
    ) -> Float[Tensor, ""]:
        """Mean loss in nats; `held` as in the core, for `ce` only."""
        if self.config.loss == "ce":
            return super().item_loss(states, targets, held)
        last = self.items.num_embeddings - 1
        positive = (states * self.item_embeddings(targets)).sum(-1)
        if self.config.loss == "bce":
            negative = (states[:, None] * self.item_embeddings(self._others(targets, 1))).sum(-1)
            return (F.softplus(-positive) + F.softplus(negative).sum(1)).mean()
        if self.config.loss == "gbce":
            other = self._others(targets, self.config.negatives)
            # Logits of all items take a sixth of the time of picking vectors for each target on ml-100k.
            negative = (states @ self.item_embeddings().T).gather(1, other)
            power = gbce_power(self.config.negatives, last - 1, CALIBRATION)
            return (power * F.softplus(-positive) + F.softplus(negative).sum(1)).mean() / (self.config.negatives + 1)
        others = torch.randint(1, last + 1, (self.config.negatives,), device=targets.device)
        negative = states @ self.item_embeddings(others).T
        negative = negative.masked_fill(targets[:, None] == others, -torch.inf)
        return F.cross_entropy(torch.cat([positive[:, None], negative], 1), torch.zeros_like(targets))

    def _others(self, targets: Int[Tensor, "P"], count: int) -> Int[Tensor, "P _"]:
        """For each target, `count` uniform items other than it; none if the catalogue has no other item."""
        last = self.items.num_embeddings - 1
        if last == 1:
            return targets.new_empty(len(targets), 0)
        other = torch.randint(1, last, (len(targets), count), device=targets.device)
        return other + (other >= targets[:, None]).long()  # skip the target
