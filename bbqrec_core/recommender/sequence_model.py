"""The model of stage 2: a transformer over items that generates semantic IDs, scores items, or does both."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import RecommenderConfig
from ..dataset import item_rows
from ..kernels import dropout, pick, softmax_loss
from ..tokenizer.semantic_ids import SemanticIds
from ..transformer import INIT_STD, Block, Transformer, causal_mask, select_query
from .code_embeddings import CodeHead, CodeOutputs, CodeVectors
from .decoding import Prompt
from .score_bias import Places, RankingOffsets, ScoreBias, SeenOffsets
from .similarity_bias import SimilarityBias, build_reweighting


class SequenceModel(nn.Module):
    """Transformer over a user's items, with a head for their codes, a softmax over the items, or both.

    The input of an item is its embedding if items are scored, else the sum of its code vectors. Without IDs, items are
    always scored: that is SASRec.

    Args: n_items: N. ids: semantic IDs or None. config: sizes and switches. block: class of the transformer
        blocks. reweighting: builds the reweighting, with the arguments of `build_reweighting`.
    Source: Kang and McAuley 2018 (SASRec) for the item softmax; `CodeHead` and `SimilarityBias` name theirs.
    """

    sparse = 4  # with both heads, the head over codes learns from one state of so many
    timed = False  # whether it reads (B, T, 2), item rows and times in seconds, wherever the data have times

    def __init__(
        self,
        n_items: int,
        ids: SemanticIds | None,
        config: RecommenderConfig,
        block: type[Block] = Block,
        reweighting: Callable[..., SimilarityBias] = build_reweighting,
    ) -> None:
        super().__init__()
        self.config, self.per_item = config, 1  # positions per item
        self.position = nn.Embedding(config.max_events, config.width)
        self.blocks = Transformer(config.layers, config.width, config.heads, config.dropout, block)
        lags = torch.zeros(config.layers, config.heads, config.max_events)  # logits
        self.lag_bias = nn.Parameter(lags) if config.lag_bias else None
        self.items = self.vectors = self.head = self.reweighting = self.scoring = None
        if ids is None or config.output != "codes":
            self.items = nn.Embedding(n_items + 1, config.width)
        if ids is not None and config.output != "items":
            self.vectors = CodeVectors(ids.code_ids, ids.sizes, config.width, config.prefixes)
            self.head = self.make_head()
        for table in self.tables():
            nn.init.normal_(table.weight, std=INIT_STD)
        if config.seen_offset:
            self.scoring = ScoreBias(n_items, config, None if self.head is None else self.vectors.node)
        if ids is not None and ids.signals:
            if config.init_from_codebook and self.vectors is not None:
                self._start_from(ids)
            if config.reweight:
                signals = torch.from_numpy(ids.signal_vectors), torch.from_numpy(ids.present), list(ids.signals)
                self.reweighting = reweighting(*signals, config)

    def tables(self) -> list[nn.Module]:
        """The modules to initialise from N(0, INIT_STD), without the code vectors."""
        return [self.position] if self.items is None else [self.position, self.items]

    def make_head(self) -> CodeOutputs:
        """The head that generates codes."""
        config = self.config
        return CodeHead(self.vectors, config.depth_layers, config.width, config.heads, config.dropout)

    @torch.no_grad()
    def _start_from(self, ids: SemanticIds) -> None:
        """Copy the codebook of stage 1 to the vectors of the learned positions, scaled to the size of embeddings.

        Choice: one scale for all levels keeps coarse codes larger than fine ones; a random projection if D is not E.
        """
        codebook = torch.from_numpy(ids.codebook)
        if codebook.shape[2] != self.config.width:
            codebook = codebook @ torch.randn(codebook.shape[2], self.config.width) / codebook.shape[2] ** 0.5
        codebook = codebook * (INIT_STD / codebook[0].std().clamp_min(1e-8))
        for position in range(ids.learned):
            self.vectors.codes[position].weight.copy_(codebook[position])

    def item_embeddings(self, item_ids: Int[Tensor, "*rows"] | None = None) -> Float[Tensor, "*rows D"]:
        """Item embeddings of given rows, or of all N+1, tied between input and output."""
        return self.items.weight if item_ids is None else pick(self.items.weight, item_ids)

    def embed(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Input vectors of items, without positions."""
        return sum(self.code_vectors(item_ids)) if self.items is None else self.item_embeddings(item_ids)

    def code_vectors(self, item_ids: Int[Tensor, "*rows"]) -> list[Float[Tensor, "*rows D"]]:
        """Vectors of the items' codes, one entry per level."""
        return [self.vectors(level, node) for level, node in enumerate(self.vectors.node[item_ids].unbind(-1))]

    def enter(self, item_ids: Int[Tensor, "B T ..."]) -> Float[Tensor, "B P D"]:
        """The input of the first block, at P = T x `per_item` positions."""
        item_ids = item_rows(item_ids)
        x = self.embed(item_ids) * self.config.width**0.5 + self.positions(item_ids.shape[1])
        return dropout(x, self.config.dropout, self.training)

    def positions(self, length: int) -> Float[Tensor, "T D"]:
        """Position vectors of the first `length` items."""
        return self.position.weight[:length]

    def biases(
        self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "#B #H _ T"]]:
        """What `transformer.attention` adds to the logits of each layer: the causal mask, lag bias, the reweighting.

        Args: last: if given, the bias of the last layer is that of one position per user, (B, #H, 1, T).
        """
        mask = causal_mask(item_ids.shape[1], item_ids.device)[None, None]  # hides padding, which is on the right
        masks = [mask] * self.config.layers
        if self.lag_bias is not None:
            step = torch.arange(mask.shape[-1], device=mask.device)
            masks = [mask + lag[:, (step[:, None] - step).clamp_min(0)] for lag in self.lag_bias]
        masks[-1] = masks[-1] if last is None else select_query(masks[-1], last)
        if self.reweighting is None:
            return masks
        return [mask + offset for mask, offset in zip(masks, self.reweighting(item_ids, last), strict=True)]

    def states(self, item_ids: Int[Tensor, "B T ..."]) -> tuple[Float[Tensor, "B P D"], list[Float[Tensor, "B H P P"]]]:
        """Outputs and attention weights of each layer at P = T x `per_item` positions; 0 pads on the right."""
        return self.blocks(self.enter(item_ids), self.biases(item_ids))

    def last_states(self, item_ids: Int[Tensor, "B T ..."]) -> Float[Tensor, "B D"]:
        """State after the last event of each user, which predicts the next item."""
        last = (item_rows(item_ids) > 0).sum(1).mul(self.per_item).sub(1).clamp_min(0)
        return self.blocks.last_position(self.enter(item_ids), self.biases(item_ids, last), last)

    def item_loss(
        self, states: Float[Tensor, "P D"], targets: Int[Tensor, "P"], held: Places | None = None
    ) -> Float[Tensor, ""]:
        """Mean of -log softmax(state . item vectors + offset of seen items)[target] over all N items, in nats.

        Args: held: the items of the history at every position; None if the model has no offset for them.
        """
        entries = [] if held is None else [(held[0], held[1] - 1, self.scoring.seen[0].expand(len(held[0])))]
        return softmax_loss(states, self.item_embeddings()[1:], targets - 1, entries=entries)

    def prompt(self, item_ids: Int[Tensor, "B T ..."]) -> Prompt:
        """What ranking starts from, after the histories of users; the logit of padding is -inf."""
        states, codes, items = self.last_states(item_ids), None, None
        by_item, by_node = (0, None) if self.scoring is None else self.scoring.offsets(item_rows(item_ids))
        if self.head is not None and self.scoring is not None:
            users = torch.arange(len(item_ids), device=item_ids.device)
            codes = RankingOffsets(self.vectors, by_node, self.scoring.weight, users)
        if self.items is not None:
            items = states @ self.item_embeddings().T
            items = (items if self.scoring is None else self.scoring.weight * items) + by_item
            items[:, 0] = -torch.inf
        return Prompt(self.head, states, codes, items)

    def loss(self, rows: Int[Tensor, "B T ..."]) -> dict[str, Tensor]:
        """Mean loss of the next items in nats: of their codes (summed over levels), of items, or of both.

        With both heads, "loss" is the sum with weight `w_codes` of the codes, and the two terms are returned too. The
        head over codes then learns from every `sparse`th state and leaves it alone: trained together, both are worse.
        """
        inputs, targets = rows[:, :-1], item_rows(rows)[:, 1:]
        states, _ = self.states(inputs)
        real = targets > 0
        states, targets = states[real], targets[real]
        scoring, offsets, parts = self.scoring, None, {}
        held = None if scoring is None else scoring.held(torch.where(real, item_rows(inputs), 0))
        if self.head is not None:
            step = min(self.sparse, len(states)) if self.training and self.items is not None else 1
            first = int(torch.randint(step, ()))
            if held is not None:
                row, item = (part[held[0] % step == first] for part in held)
                offsets = SeenOffsets(self.vectors, scoring.held_nodes((row // step, item)), scoring.seen[1:])
            coded = (states if self.items is None else states.detach())[first::step]
            parts["codes"] = -self.head(coded, self.vectors.node[targets[first::step]], offsets).mean()
        if self.items is not None:
            parts["items"] = self.item_loss(states, targets, held)
        if len(parts) == 1:
            return {"loss": sum(parts.values())}
        return {"loss": self.config.w_codes * parts["codes"] + parts["items"]} | parts
