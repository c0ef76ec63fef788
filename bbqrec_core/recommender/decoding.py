"""Rank items from a state: exact scores of every ID in the prefix tree, and beam search over the tree.

Both sum log-probabilities over all K codes of a level, without renormalising over legal codes; illegal codes are
removed after the log-softmax. So a beam as wide as the tree gives the exact scores.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..tokenizer.semantic_ids import PrefixTree, children, padded_children, paths
from .code_embeddings import CodeHead
from .score_bias import RankingOffsets

FEWER = 4  # typical reduction of prefixes by a floor; affects speed only
BLOCK = 2**21  # numbers per block of logits: 8 MB in float32 fit the cache and are twice as fast as 32 MB


@runtime_checkable
class Rankable(Protocol):
    """What ranking starts from, after the histories of users: logits of item rows, or None, and a head over codes."""

    items: Float[Tensor, "B rows"] | None

    def frontier(self) -> "Extendable":
        """The start of beam search."""

    def id_scores(self, tree: PrefixTree, floor: Float[Tensor, "B"] | None = None) -> Float[Tensor, "B rows"]:
        """As `exact_scores`."""


class Prompt(NamedTuple):
    """A `Rankable`: states of users and, with these parts, offsets of codes and logits of item rows."""

    head: CodeHead | None
    states: Float[Tensor, "B D"]
    offsets: RankingOffsets | None = None
    items: Float[Tensor, "B rows"] | None = None

    def select(self, users: Int[Tensor, "new"]) -> "Prompt":
        """That of some users, who may repeat, without logits of items."""
        offsets = None if self.offsets is None else self.offsets.select(users)
        return Prompt(self.head, self.states[users], offsets)

    def frontier(self) -> "Frontier":
        """The start of beam search."""
        return Frontier(self)

    def id_scores(self, tree: PrefixTree, *floors: Tensor | None) -> Float[Tensor, "B rows"]:
        """As `exact_scores`."""
        return exact_scores(self, tree, *floors)

    def split(self, users: int) -> "list[Prompt]":
        """Those of blocks of users."""
        everyone = torch.arange(len(self.states), device=self.states.device)
        return [self.select(block) for block in everyone.split(users)]


class Extendable(ABC):
    """The interface of beam search: `log_probs` (rows, K) of the next codes, and `advance` to extend rows."""

    log_probs: Tensor

    @abstractmethod
    def advance(self, rows: Int[Tensor, "new"], nodes: Int[Tensor, "new"]) -> None:
        """Extend each given row to one child node; rows may repeat or be omitted."""


class Frontier(Extendable):
    """Partial IDs: depth-transformer caches and sums of code vectors; rows are (B users x P prefixes), users first."""

    def __init__(self, prompt: Prompt) -> None:
        (self.head, self.states, self.offsets, _), self.level = prompt, 0
        head, states = self.head, self.states
        start = (head.start(states) + head.depth[0])[:, None]
        out, self.caches = head.blocks.extend(start, [None] * len(head.blocks.blocks))
        self.summed = torch.zeros_like(states)
        root = torch.zeros(len(states), dtype=torch.long, device=states.device)
        self.log_probs = head.log_probs(out[:, 0], 0, root, self.offsets)  # (rows, K), nats

    def advance(self, rows: Int[Tensor, "new"], nodes: Int[Tensor, "new"]) -> None:
        """Extend each given row to one child node; rows may repeat or be omitted."""
        head = self.head
        self.summed = self.summed.index_select(0, rows) + head.vectors(self.level, nodes)
        self.level += 1
        self.offsets = None if self.offsets is None else self.offsets.select(rows)
        caches = [cache.index_select(1, rows) for cache in self.caches]
        out, self.caches = head.blocks.extend((self.summed + head.depth[self.level])[:, None], caches)
        self.log_probs = head.log_probs(out[:, 0], self.level, nodes, self.offsets)


def backed_off(
    steps: Float[Tensor, "*nodes"], tree: PrefixTree, depth: int, node: Int[Tensor, "*nodes"] | slice
) -> Float[Tensor, "*nodes"]:
    """Log-probabilities of nodes given their parents, in nats, with an even share for nodes that training never saw.

        log p(node | parent) = -log(children of the parent)   if no item below the node was seen in training

    A head learns that a code without targets has probability 0, so it would rank new items last for any content.
    Choice: the shares of seen children do not change, so seen items keep their scores; the sum may exceed 1.
    Source: the backoff of n-gram models; TIGER (Rajput et al. 2023, section 4.3) has new items share a prefix's rank.
    """
    if not tree.unseen:
        return steps
    parent, first = tree.parent[depth][node], tree.first[depth]
    even = -(first[parent + 1] - first[parent]).log().to(steps.dtype)
    return torch.where(tree.unseen[depth][node], even, steps)


def best_below(tree: PrefixTree, values: Float[Tensor, "B rows"]) -> list[Float[Tensor, "B _"]]:
    """The largest value of the items below every node of each depth."""
    found, groups = [values[:, 1:]], [(tree.leaf[1:], tree.leaves)]
    groups += [(tree.parent[depth], len(tree.code[depth - 1])) for depth in range(len(tree.code) - 1, 0, -1)]
    for group, count in groups:
        least = values.new_full((len(values), count), -torch.inf)
        found.append(least.scatter_reduce(1, group.long().expand_as(found[-1]), found[-1], "amax"))
    return found[:0:-1]


def leaves_above(
    prompt: Prompt, tree: PrefixTree, floor: Float[Tensor, "B"], added: Float[Tensor, "B rows"] | None
) -> Float[Tensor, "B leaves"]:
    """Log-probability in nats of every leaf, at or above the floor of a user with what is `added`; others may be -inf.

    Each prefix is computed once. It is at least as probable as any ID below it, so it is not extended below the floor.
    """
    users, frontier = torch.arange(len(floor), device=floor.device), Frontier(prompt)
    node, score = torch.zeros_like(users), prompt.states.new_zeros(len(floor))
    best = None if added is None else best_below(tree, added)
    for depth, first in enumerate(tree.first):
        row, child, _ = children(first, node)
        code = tree.code[depth][child]
        total = score[row] + backed_off(frontier.log_probs[row, code], tree, depth, child)
        most = total if best is None else total + best[depth][users[row], child]
        keep = ~(most < floor[users[row]])  # NaN stays, so that ranking reports it
        row, node, score = row[keep], child[keep], total[keep]
        users = users[row]
        if depth + 1 < len(tree.first):
            frontier.advance(row, node)
    found = score.new_full((len(floor), tree.leaves), -torch.inf)
    found[users, node] = score
    return found


def exact_scores(
    prompt: Prompt,
    tree: PrefixTree,
    floor: Float[Tensor, "B"] | None = None,
    added: Float[Tensor, "B rows"] | None = None,
) -> Float[Tensor, "B rows"]:
    """Exact scores of every item row (B, N+1) in nats; items that share an ID share their score; column 0 is -inf.

    Args: floor: per user; items may be -inf if their score, and what is `added` to it later, lies below it.
    """
    most_nodes = max(len(code) for code in tree.code)
    largest = max(table.num_embeddings for table in prompt.head.vectors.codes)
    block = max(BLOCK // (most_nodes * max(largest, prompt.states.shape[1] * 2 * len(tree.code))), 1)
    if floor is None:
        floor = prompt.states.new_full((len(prompt.states),), -torch.inf)
    else:
        block = FEWER * block
    more = [None] * len(floor) if added is None else added.split(block)
    parts = zip(prompt.split(block), floor.split(block), more, strict=False)
    scores = torch.cat([leaves_above(part, tree, *limits) for part, *limits in parts])[:, tree.leaf.clamp_min(0)]
    scores[:, 0] = -torch.inf
    return scores


def among(values: Int[Tensor, "B *shape"], listed: Int[Tensor, "B H"]) -> Bool[Tensor, "B *shape"]:
    """Which values are in the sorted list of the same user."""
    flat = values.flatten(1).contiguous()
    place = torch.searchsorted(listed, flat).clamp_max(listed.shape[1] - 1)
    return (listed.gather(1, place) == flat).view_as(values)


def dead_nodes(tree: PrefixTree, rows: Int[Tensor, "B H"]) -> list[Int[Tensor, "B H"]]:
    """Nodes of each depth (1 .. sid_len) without items after the removal of a user's sorted `rows` (0 pads), sorted.

    Shorter lists are padded with an invalid node. Only nodes above the rows are visited, whatever the catalogue's size.
    """
    real = F.pad(rows[:, 1:] != rows[:, :-1], (1, 0), value=True) & (rows > 0)
    leaf, dead = tree.leaf[rows], []
    for depth, node in enumerate(paths(tree, leaf.clamp_min(0)).long().unbind(-1)):
        beyond = len(tree.code[depth])
        node = torch.where(real, node, beyond).sort(1).values
        gone = torch.searchsorted(node, node, right=True) - torch.searchsorted(node, node)
        begin, end = node.clamp_max(beyond - 1), node.clamp_max(beyond - 1) + 1
        for first in (*tree.first[depth + 1 :], tree.starts):  # from a node down to the items below it
            begin, end = first[begin], first[end]
        dead.append(torch.where(gone == end - begin, node, beyond).sort(1).values)
    return dead


def beam_search(
    frontier: Extendable, tree: PrefixTree, width: int, masked: Int[Tensor, "B H"] | None = None
) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
    """The best `width` IDs of each user by beam search over the tree, as item rows and scores in nats.

    Args: frontier: new, one row per user. masked: item rows to remove from the tree of a user, 0 pads.
    Returns: item rows (0 pads) and scores (-inf pads); colliding items are listed, so W is `width` x the largest group.
    """
    users, device = len(frontier.log_probs), frontier.log_probs.device
    masked = None if masked is None else masked.sort(1).values
    dead = None if masked is None else dead_nodes(tree, masked)
    score = frontier.log_probs.new_zeros(users, 1)
    node = torch.zeros(users, 1, dtype=torch.long, device=device)
    for depth, first in enumerate(tree.first):
        fan_out = int(tree.max_fanout[depth])
        child, real = padded_children(first, node, fan_out)  # (B, beams, fan_out)
        legal = real & (score > -torch.inf)[..., None]
        if dead is not None:
            legal = legal & ~among(child, dead[depth])
        steps = frontier.log_probs.view(users, node.shape[1], -1).gather(2, tree.code[depth][child].long())
        steps = backed_off(steps, tree, depth, child)
        total = (score[..., None] + steps).masked_fill(~legal, -torch.inf).flatten(1)
        score, pick = total.topk(min(width, total.shape[1]), dim=1)
        beam = torch.div(pick, fan_out, rounding_mode="floor")
        row = torch.arange(users, device=device)[:, None] * node.shape[1] + beam
        node = child.flatten(1).gather(1, pick)
        if depth + 1 < len(tree.first):
            frontier.advance(row.flatten(), node.flatten())
    return _items_of(tree, node, score, masked)


def _items_of(tree: PrefixTree, leaf: Tensor, score: Tensor, masked: Tensor | None) -> tuple[Tensor, Tensor]:
    """Items of leaves, best first, without the sorted `masked` rows."""
    largest = int(tree.max_fanout[-1])
    slot, real = padded_children(tree.starts, leaf, largest)  # (B, W, largest)
    real = real & (score > -torch.inf)[..., None]
    items = tree.items[slot].long()
    if masked is not None:
        real = real & ~among(items, masked)
    scores = score[..., None].expand_as(items).masked_fill(~real, -torch.inf)
    return items.masked_fill(~real, 0).flatten(1), scores.flatten(1)
