"""The model of stage 2: a transformer over items that emits semantic IDs code by code, scores items, or both."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .blocks import INIT_STD, Block, GatedBlock, Transformer, causal_mask, dropout, row_of, softmax_loss
from .code_vectors import CodeVectors, pick
from .config import RecommenderConfig
from .semantic_ids import SemanticIds
from .similarity import build_reweighting


class CodeOutputs(nn.Module):
    """What heads over codes share: the codes' `vectors`, tied to the input side, and `biases`, one a level's code."""

    def __init__(self, vectors: CodeVectors) -> None:
        super().__init__()
        self.vectors = vectors
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(table.num_embeddings)) for table in vectors.codes)

    def log_probs(self, out: Float[Tensor, "P D"], level: int, above: Int[Tensor, "P"]) -> Float[Tensor, "P K"]:
        """Log-probabilities in nats over all codes of a level, legal or not, behind the prefixes of nodes `above`."""
        return (self.vectors.logits(out, level, above) + self.biases[level]).log_softmax(-1)

    def log_prob(self, out: Float[Tensor, "P L D"], nodes: Int[Tensor, "P L"]) -> Float[Tensor, "P"]:
        """Log-probability in nats of whole IDs, given as paths of nodes and the output ahead of each code."""
        above, picked = torch.zeros_like(nodes[:, 0]), []
        for level, node in enumerate(nodes.unbind(1)):
            code = self.vectors.code_of(level, node)
            picked.append(self.log_probs(out[:, level], level, above).gather(1, code[:, None]))
            above = node
        return torch.cat(picked, 1).sum(1)


class CodeHead(CodeOutputs):
    """Depth transformer: the next item's codes one after another, each given the state and the codes before.

        log p(ID | h) = sum_l log softmax(out_l . v_l)[c_l],  out_l from h, v_1(c_1), v_1(c_1) + v_2(c_1, c_2), ...

    Args: vectors: of the codes, shared with the input side. layers, width, heads, dropout: of its blocks.
    Source: Lee et al. 2022 (RQ-Transformer), section 3.2.2. Choice: output weights tied to the codes' vectors.
    """

    def __init__(self, vectors: CodeVectors, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__(vectors)
        self.start = nn.Linear(width, width)
        self.depth = nn.Parameter(torch.randn(len(vectors), width) * INIT_STD)
        self.blocks = Transformer(layers, width, heads, dropout)

    def forward(self, states: Float[Tensor, "P D"], nodes: Int[Tensor, "P L"]) -> Float[Tensor, "P"]:
        """Log-probability in nats of whole IDs, given as paths of nodes, all levels in one pass (teacher forcing)."""
        tokens = [self.start(states)]
        for level in range(nodes.shape[1] - 1):
            before = tokens[-1] if level else torch.zeros_like(states)
            tokens.append(before + self.vectors(level, nodes[:, level]))
        x = torch.stack(tokens, 1) + self.depth
        mask = causal_mask(nodes.shape[1], states.device)
        out, _ = self.blocks(x, [mask] * len(self.blocks.blocks))
        return self.log_prob(out, nodes)


class SequenceModel(nn.Module):
    """Transformer over a user's items, with a head for their codes, a softmax over the items, or both.

    An item enters as the sum of what the model holds of it: its code embeddings where there are IDs, and its vector
    (`item_vectors`) where items are scored, which without IDs they always are: that is SASRec.

    Args: n_items: N. ids: semantic IDs or None. config: sizes and switches. features: (N+1, d), fixed, added to the
        item embeddings through a linear map; None adds nothing.
    Source: Kang and McAuley 2018 (SASRec) for the item softmax; method.md, stage 2, for codes and reweighting.
    """

    def __init__(
        self,
        n_items: int,
        ids: SemanticIds | None,
        config: RecommenderConfig,
        features: Float[Tensor, "N d"] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.per_item = config, 1  # positions that an item takes
        self.position = nn.Embedding(config.history, config.width)
        kind = GatedBlock if config.block == "ligr" else Block
        self.blocks = Transformer(config.layers, config.width, config.heads, config.dropout, kind)
        self.items = self.project = self.vectors = self.head = self.reweighting = None
        if ids is None or config.output != "codes":
            self.items = nn.Embedding(n_items + 1, config.width)
        if ids is not None:
            self.vectors = CodeVectors(ids.code_ids, ids.sizes, config.width, config.prefixes)
        if ids is not None and config.output != "items":
            self.head = self.make_head()
        if features is not None:
            self.register_buffer("features", features)  # saved with the weights: a run is loaded without its data
            self.project = nn.Linear(features.shape[1], config.width, bias=False)
        for table in (self.position, self.items, self.project):
            if table is not None:
                nn.init.normal_(table.weight, std=INIT_STD)
        if ids is not None and ids.signals:
            self._use_signals(ids)

    def make_head(self) -> CodeOutputs:
        """The head that emits codes."""
        config = self.config
        return CodeHead(self.vectors, config.depth_layers, config.width, config.heads, config.dropout)

    def _use_signals(self, ids: SemanticIds) -> None:
        """What the meaning of the codes gives: a start for their tables and the reweighting of attention."""
        config = self.config
        if config.init_from_codebook:
            self._start_from(ids)
        if config.reweight:
            vectors, present = torch.from_numpy(ids.signal_vectors), torch.from_numpy(ids.present)
            self.reweighting = build_reweighting(vectors, present, list(ids.signals), config)

    @torch.no_grad()
    def _start_from(self, ids: SemanticIds) -> None:
        """Copy stage 1's codebook into the codes of the learned positions, scaled to the usual size of embeddings.

        Choice: one scale for all levels keeps coarse codes larger than fine ones; a width other than E is reached by a
        random projection.
        """
        codebook = torch.from_numpy(ids.codebook)
        if codebook.shape[2] != self.config.width:
            codebook = codebook @ torch.randn(codebook.shape[2], self.config.width) / codebook.shape[2] ** 0.5
        codebook = codebook * (INIT_STD / codebook[0].std().clamp_min(1e-8))
        for position in range(ids.learned):
            self.vectors.codes[position].weight.copy_(codebook[position])

    def item_vectors(self, item_ids: Int[Tensor, "*rows"] | None = None) -> Float[Tensor, "*rows D"]:
        """Item embeddings plus projected features of given rows, or of all N+1: the same going in and coming out."""
        vectors = self.items.weight if item_ids is None else pick(self.items.weight, item_ids)
        if self.project is None:
            return vectors
        return vectors + self.project(self.features if item_ids is None else self.features[item_ids])

    def embed(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """What the backbone reads of items, before positions: the sum of all that the model holds of them."""
        parts = [] if self.items is None else [self.item_vectors(item_ids)]
        return sum(parts + self.code_vectors(item_ids))

    def code_vectors(self, item_ids: Int[Tensor, "*rows"]) -> list[Float[Tensor, "*rows D"]]:
        """Vectors of the items' codes, one entry a level; none without IDs."""
        if self.vectors is None:
            return []
        return [self.vectors(level, node) for level, node in enumerate(self.vectors.node[item_ids].unbind(-1))]

    def enter(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B P D"]:
        """The stream ahead of the first block, at P = T x `per_item` positions."""
        x = self.embed(item_ids) * self.config.width**0.5 + self.positions(item_ids.shape[1])
        return dropout(x, self.config.dropout, self.training)

    def positions(self, length: int) -> Float[Tensor, "T D"]:
        """What is added for the place of each of the first `length` items."""
        return self.position.weight[:length]

    def biases(
        self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "#B #H _ T"]]:
        """Additive attention bias of each layer: the causal mask, plus the reweighting where there is one.

        Args: last: the only position of each user that the last layer is asked for, as (B, #H, 1, T); None is all.
        """
        mask = causal_mask(item_ids.shape[1], item_ids.device)[None, None]
        masks = [mask] * (self.config.layers - 1) + [mask if last is None else row_of(mask, last)]
        if self.reweighting is None:
            return masks
        return [mask + offset for mask, offset in zip(masks, self.reweighting(item_ids, last), strict=True)]

    def states(self, item_ids: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B P D"], list[Float[Tensor, "B H P P"]]]:
        """Backbone outputs and each layer's attention weights at P = T x `per_item` positions; 0 pads on the right."""
        return self.blocks(self.enter(item_ids), self.biases(item_ids))

    def last_states(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """State behind each user's last event, from which the next item is predicted."""
        last = (item_ids > 0).sum(1).mul(self.per_item).sub(1).clamp_min(0)
        return self.blocks.at(self.enter(item_ids), self.biases(item_ids, last), last)

    def item_loss(self, states: Float[Tensor, "P D"], targets: Int[Tensor, "P"]) -> Float[Tensor, ""]:
        """Mean loss of the targets' logits x = state . item vector, in nats.

            ce: -log softmax(x)[target] over all N items
            bce: -log sigmoid(x[target]) - log sigmoid(-x[other]), `other` uniform over the N - 1 other items
            sampled: -log softmax(x)[target] over the target and `negatives` uniform ones, drawn once for the batch

        Source: Kang and McAuley 2018, equation 7, for bce; Tikhonovich et al. 2025 (eSASRec) for sampled.
        Choice: only the target itself is kept from the negatives (drawn by accident it leaves the softmax), not the
            rest of the user's history; negatives are shared, so that memory is targets x negatives.
        """
        if self.config.loss == "ce":
            return softmax_loss(states, self.item_vectors()[1:], targets - 1)
        last, device = self.items.num_embeddings - 1, targets.device
        positive = (states * self.item_vectors(targets)).sum(-1)
        if self.config.loss == "bce":
            other = torch.randint(1, last, targets.shape, device=device)
            other = other + (other >= targets).long()  # steps over the target
            negative = (states * self.item_vectors(other)).sum(-1)
            return (F.softplus(-positive) + F.softplus(negative)).mean()
        others = torch.randint(1, last + 1, (self.config.negatives,), device=device)
        negative = states @ self.item_vectors(others).T
        negative = negative.masked_fill(targets[:, None] == others, -torch.inf)
        return F.cross_entropy(torch.cat([positive[:, None], negative], 1), torch.zeros_like(targets))

    def loss(self, rows: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Mean loss over each window's next items in nats: of their codes (summed over levels), of items, or of both.

        With both heads the two terms stand beside their sum, in which the codes' weighs `w_codes`.
        """
        inputs, targets = rows[:, :-1], rows[:, 1:]
        states, _ = self.states(inputs)
        real = targets > 0
        states, targets = states[real], targets[real]
        parts = {}
        if self.head is not None:
            parts["codes"] = -self.head(states, self.vectors.node[targets]).mean()
        if self.items is not None:
            parts["items"] = self.item_loss(states, targets)
        if len(parts) == 1:
            return {"loss": sum(parts.values())}
        return {"loss": self.config.w_codes * parts["codes"] + parts["items"]} | parts
