"""Code granularity of stage 2 as in TIGER: one position per code instead of one per item, and its beam search."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bbqrec_core import PrefixTree, RecommenderConfig, SemanticIds, SequenceModel, beam_search
from bbqrec_core.recommender.code_embeddings import CodeOutputs, CodeVectors
from bbqrec_core.recommender.decoding import Extendable
from bbqrec_core.transformer import INIT_STD, attention, causal_mask, select_query


class TokenHead(CodeOutputs):
    """Outputs of a backbone that reads codes: its state at a token predicts the next code.

    Args: vectors: of the codes, shared with the input side. width: D.
    """

    def __init__(self, vectors: CodeVectors, width: int) -> None:
        super().__init__(vectors)
        self.depth = nn.Parameter(torch.randn(len(vectors), width) * INIT_STD)  # level embeddings of the input


class TokenModel(SequenceModel):
    """Transformer over the codes of a user's items, L tokens per item; each state predicts the next code.

        log p(ID | history) = sum_l log softmax(state of the token before code l . v_l)[c_l]

    Similarity reweighting: tokens use the offsets of their items. But these depend on all codes of an item, and a token
    must not see later codes. So a query uses the offsets of the last *complete* item up to it, and the codes of an
    incomplete item have the offset of padding for the queries inside it.

    Source: Rajput et al. 2023 (TIGER), section 3.2, for the flattened sequence.
    Choice: a decoder only instead of their encoder and decoder, so both granularities use the same blocks; a token's
        position vector is that of its item plus that of its level. No lag bias, and no offsets of scores.
    """

    def __init__(self, n_items: int, ids: SemanticIds, config: RecommenderConfig, **options: object) -> None:
        plain = replace(config, lag_bias=False, seen_offset=False, score_reweight=False)
        super().__init__(n_items, ids, plain, **options)
        self.per_item = len(ids.sizes)
        self.position = nn.Embedding(config.max_events + 1, config.width)  # one more for the item that is generated
        nn.init.normal_(self.position.weight, std=INIT_STD)

    def prompt(self, item_ids: Int[Tensor, "B T"]) -> "TokenPrompt":
        """As `SequenceModel.prompt`."""
        return TokenPrompt(self, item_ids)

    def make_head(self) -> TokenHead:
        """A head without depth transformer: the backbone itself predicts the codes."""
        return TokenHead(self.vectors, self.config.width)

    def embed(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B TL D"]:
        """Vectors of all codes, item after item."""
        return torch.stack(self.code_vectors(item_ids), 2).flatten(1, 2)

    def positions(self, length: int) -> Float[Tensor, "TL D"]:
        """The position vector of each token of the first `length` items: that of the item plus that of the level."""
        return (self.position.weight[:length, None] + self.head.depth).flatten(0, 1)

    def biases(
        self, item_ids: Int[Tensor, "B T"], last: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "#B #H _ TL"]]:
        """As `SequenceModel.biases`, between tokens: the causal mask plus the offsets of their items."""
        *lower, top = self._between_all(item_ids)
        return [*lower, top if last is None else select_query(top, last)]

    def _between_all(self, item_ids: Int[Tensor, "B T"]) -> list[Float[Tensor, "#B #H TL TL"]]:
        """`biases` at every position."""
        users, length = item_ids.shape
        mask = causal_mask(length * self.per_item, item_ids.device)[None, None]
        if self.reweighting is None:
            return [mask] * self.config.layers
        item = torch.arange(1, length + 1, device=item_ids.device).repeat_interleave(self.per_item)  # 0 is no item
        complete = item - 1
        complete[self.per_item - 1 :: self.per_item] += 1
        key = torch.where(item > complete[:, None], 0, item)  # (queries, keys)
        shifted = torch.cat([item_ids.new_zeros(users, 1), item_ids], 1)
        return [mask + offset[:, :, complete[:, None], key] for offset in self.reweighting(shifted)]

    def loss(self, rows: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Mean negative log-probability of each window's next items in nats, summed over their codes."""
        states, _ = self.states(rows)
        real, levels = rows[:, 1:] > 0, self.per_item
        before = states[:, levels - 1 : -1].unflatten(1, (-1, levels))[real]  # (P, L, D): the state before each code
        return {"loss": -self.head.log_prob(before, self.vectors.node[rows[:, 1:][real]]).mean()}


class TokenPrompt(NamedTuple):
    """What ranking starts from, as `decoding.Prompt`: the model and the histories of users."""

    model: TokenModel
    rows: Int[Tensor, "B T"]
    items: None = None

    def frontier(self) -> "TokenFrontier":
        """The start of beam search."""
        return TokenFrontier(self.model, self.rows)

    def id_scores(self, tree: PrefixTree, floor: Float[Tensor, "B"] | None = None) -> Float[Tensor, "B rows"]:
        """As `exact_scores`, by a beam search per user that drops nothing, whatever the floor."""
        return torch.cat([self._whole_beam(row[row > 0][None], tree) for row in self.rows])

    def _whole_beam(self, row: Int[Tensor, "one T"], tree: PrefixTree) -> Float[Tensor, "one rows"]:
        items, scores = beam_search(TokenFrontier(self.model, row), tree, len(tree.leaf))
        whole = scores.new_full((1, len(tree.leaf)), -torch.inf).scatter(1, items, scores)
        whole[:, 0] = -torch.inf
        return whole


class TokenFrontier(Extendable):
    """Partial IDs that extend users' histories: all beams of a user share the keys and values of the history.

    Rows are (B users x P prefixes), users outermost, as in `decoding.Frontier`.
    """

    def __init__(self, model: TokenModel, item_ids: Int[Tensor, "B T"]) -> None:
        self.model, self.level = model, 0
        self.sizes = (item_ids > 0).sum(1)
        users, tokens = torch.arange(len(item_ids), device=item_ids.device), item_ids.shape[1] * model.per_item
        first = self.sizes * model.per_item  # position of the first new token
        grown = torch.cat([item_ids, item_ids.new_zeros(len(item_ids), 1)], 1)
        x = model.enter(item_ids)
        self.past, self.bias, self.own_bias, self.own = [], [], [], []
        for block, bias in zip(model.blocks.blocks, model.biases(grown), strict=True):
            query, key, value = block.project(x)
            inside = bias[..., :tokens, :tokens]
            x = block.merge(x, attention(query, key, value, inside)[0])
            seen = bias.expand(len(users), *bias.shape[1:])[users, :, first]  # (B, #H, tokens): row of a new token
            hidden = torch.arange(tokens, device=first.device) >= first[:, None]
            self.past.append((key, value))
            self.bias.append(seen[..., :tokens].masked_fill(hidden[:, None], -torch.inf)[:, :, None])
            self.own_bias.append(seen.gather(2, first[:, None, None].expand(-1, seen.shape[1], 1))[:, :, None])
            self.own.append(key.new_zeros(2, len(users), *key.shape[1:2], 0, key.shape[3]))
        self.log_probs = model.head.log_probs(
            model.blocks.norm(x)[users, (first - 1).clamp_min(0)], 0, torch.zeros_like(users)
        )

    def advance(self, rows: Int[Tensor, "new"], nodes: Int[Tensor, "new"]) -> None:
        """Extend each given row to one child node; rows may repeat or be omitted; each user has the same number."""
        model, users = self.model, len(self.sizes)
        x = model.vectors(self.level, nodes).unflatten(0, (users, -1)) * model.config.width**0.5
        x = x + model.position(self.sizes)[:, None] + model.head.depth[self.level]
        for layer, block in enumerate(model.blocks.blocks):
            query, key, value = block.project(x)  # (B, H, P, d): one position per prefix
            new = torch.stack([key, value]).transpose(2, 3).flatten(1, 2)[..., None, :]
            self.own[layer] = torch.cat([self.own[layer][:, rows], new], -2)  # (2, B P, H, t, d)
            x = block.merge(x, self._attend(layer, query))
        self.level += 1
        self.log_probs = model.head.log_probs(model.blocks.norm(x).flatten(0, 1), self.level, nodes)

    def _attend(self, layer: int, query: Float[Tensor, "B H P d"]) -> Float[Tensor, "B H P d"]:
        """`transformer.attention` over the history, which all prefixes share, and over each prefix's own tokens."""
        own_key, own_value = self.own[layer].unflatten(1, (len(query), -1)).transpose(2, 3)  # (B, H, P, t, d)
        key, value = self.past[layer]
        scale = query.shape[-1] ** 0.5
        shared = query @ key.mT / scale + self.bias[layer]
        own = (query[..., None, :] * own_key).sum(-1) / scale + self.own_bias[layer]
        weights = torch.cat([shared, own], -1).softmax(-1)
        history, prefix = weights.split([shared.shape[-1], own.shape[-1]], -1)
        return history @ value + (prefix[..., None] * own_value).sum(-2)
