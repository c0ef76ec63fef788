"""Explanations of a recommendation: attention, beam, shared codes, leave-one-out scores, steps between codes."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from bbqrec_core import PrefixTree, Recommender, SemanticIds, Sequences
from bbqrec_core.dataset import gather_padded
from bbqrec_core.recommender import decoding
from bbqrec_core.tokenizer.semantic_ids import paths


@runtime_checkable
class Scorer(Protocol):
    """A model that scores items after a history: a recommender or a counting baseline."""

    def scores(self, history: Sequences, users: np.ndarray) -> Tensor: ...


def readable(recommender: object) -> Recommender:
    """Return the recommender if these views support it.

    Raises: ValueError for a model without attention, or one that reads codes: its attention has one row per code.
    """
    if not isinstance(recommender, Recommender):
        raise ValueError(
            f"{type(recommender).__name__} has no attention and no beam: choose a run with a sequence model"
        )
    if recommender.model.per_item > 1:
        raise ValueError("this run reads histories code by code: choose a run with granularity item")
    return recommender


def signal_names(recommender: Recommender) -> tuple[str, ...]:
    """Signals that the reweighting compares, in order; empty without reweighting."""
    table = recommender.model.reweighting
    return tuple(dict.fromkeys(c.name.split("-")[0] for c in table.channels)) if table is not None else ()


def channels_of(recommender: Recommender, signals: Collection[str]) -> list[str]:
    """Names of the channels that compare one of the given signals with itself or with another signal."""
    table = recommender.model.reweighting
    return [c.name for c in table.channels if set(c.name.split("-")) & set(signals)] if table is not None else []


def rescaled(recommender: Recommender, scale: float = 1.0, off: Collection[str] = ()) -> Recommender:
    """The recommender with each learned offset times `scale`, and times 0 in channels that compare signals in `off`.

    Scale 1 equals the model and scale 0 equals the model without offsets, both bit for bit. All other parameters are
    shared with the original.
    """
    if recommender.model.reweighting is None:
        return recommender
    kept = [*recommender.model.parameters(), *recommender.model.buffers()]
    model = copy.deepcopy(recommender.model, {id(tensor): tensor for tensor in kept})
    silent = channels_of(recommender, off)
    factors = [0.0 if channel.name in silent else scale for channel in model.reweighting.channels]
    table = model.reweighting.table.detach() * torch.tensor(factors)[None, :, None, None]
    model.reweighting.table = nn.Parameter(table, requires_grad=False)
    return replace(recommender, model=model)


def read_part(recommender: Recommender, rows: Sequence[int]) -> Int[Tensor, "one T"]:
    """The last events of a history, at most as many as the model reads.

    Raises: ValueError for an empty history.
    """
    if not len(rows):
        raise ValueError("the history is empty: add an item first")
    return torch.tensor([list(map(int, rows))[-recommender.model.config.max_events :]])


@torch.no_grad()
def attention(recommender: Recommender, rows: Sequence[int]) -> Float[Tensor, "layers H T T"]:
    """Attention weights between the events that the model reads, for each layer and head; rows sum to 1."""
    return torch.stack([weights[0] for weights in recommender.model.states(read_part(recommender, rows))[1]])


def all_scores(
    scorer: Scorer, histories: Sequence[Sequence[int]], known: Collection[int] = ()
) -> Float[Tensor, "B rows"]:
    """Exact scores of each item after each history, in the scorer's units; -inf for padding and for `known` rows."""
    sizes = np.array([len(rows) for rows in histories])
    items = np.concatenate([np.asarray(rows, dtype=np.int32) for rows in histories])
    asked = Sequences(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), items)
    scores = scorer.scores(asked, np.arange(len(histories))).clone()
    scores[:, list(known)] = -torch.inf
    return scores


@torch.no_grad()
def score_offsets(recommender: Recommender, rows: Sequence[int]) -> Float[Tensor, "rows"] | None:
    """Offset in nats that score reweighting adds for each item after a history; None for a model without it.

    A model that only generates IDs adds these numbers too, but summed over the items below each prefix.
    """
    scoring = recommender.model.scoring
    if scoring is None or not len(scoring.slope):
        return None
    return scoring.offsets(read_part(recommender, rows))[0][0]


@torch.no_grad()
def chances(recommender: Recommender, rows: Sequence[int]) -> dict[str, Float[np.ndarray, "rows"]]:
    """Probability of each item row after a history, by each output that the model has: `by its ID`, `direct`.

    Items that share an ID have equal probabilities by ID, and row 0 has none. Items of the history are not left out.

    Raises: ValueError for an empty history.
    """
    prompt, found = recommender.model.prompt(read_part(recommender, rows)), {}
    if recommender.tree is not None:
        found["by its ID"] = prompt.id_scores(recommender.tree)[0].exp().numpy()
    if prompt.items is not None:
        found["direct"] = prompt.items[0].softmax(-1).numpy()
    return found


def ranking(scores: Float[Tensor, "rows"]) -> Int[np.ndarray, "rows"]:
    """Rank of each item row, 1 for the best, ties broken by row; 0 for items with score -inf."""
    order = scores.sort(descending=True, stable=True).indices.numpy()
    ranks = np.zeros(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return np.where(scores.isneginf().numpy(), 0, ranks)


def best(ranks: Int[np.ndarray, "rows"], k: int) -> list[int]:
    """Item rows with ranks 1 to k, fewer if fewer items have a rank."""
    order = np.argsort(np.where(ranks == 0, len(ranks) + 1, ranks), kind="stable")
    return order[: min(k, int((ranks > 0).sum()))].tolist()


class Depth(NamedTuple):
    """The beam at one depth of the prefix tree, best first.

    prefixes: (W, depth). scores: log-probability in nats. parent: index of the parent in the depth above. items: number
    of catalogue items below, without those of the history. nodes: number of prefixes of this depth in the whole tree.
    """

    prefixes: Int[np.ndarray, "W depth"]
    scores: Float[np.ndarray, "W"]
    parent: Int[np.ndarray, "W"]
    items: Int[np.ndarray, "W"]
    nodes: int


def cut(tree: PrefixTree, depth: int) -> PrefixTree:
    """The prefix tree down to `depth` (1 .. sid_len); each leaf holds all items below it."""
    node = tree.leaf[tree.items]
    for parent in reversed(tree.parent[depth:]):
        node = parent[node]
    below = torch.bincount(node, minlength=len(tree.code[depth - 1]))
    leaf = torch.full_like(tree.leaf, -1)
    leaf[tree.items] = node
    starts = torch.cat([torch.zeros(1, dtype=torch.long), below.cumsum(0)])
    levels = (part[:depth] for part in (tree.first, tree.code, tree.parent))
    max_fanout = torch.cat([tree.max_fanout[:depth], below.max()[None]])
    return PrefixTree(*levels, leaf, tree.items, starts, max_fanout, tree.unseen[:depth])


@torch.no_grad()
def unfold(recommender: Recommender, rows: Sequence[int], width: int) -> list[Depth]:
    """The beam of `Recommender.beam` at each depth, with the items of the history removed from the tree.

    A search that stops early has the same beam at that depth as a full one, so each depth searches a cut tree.

    Raises: ValueError for a model without a code head, or an empty history.
    """
    if recommender.tree is None:
        raise ValueError("this run scores items directly: it has no codes to unfold")
    read = read_part(recommender, rows)
    vectors, gone = recommender.model.vectors, torch.tensor([sorted(set(map(int, rows)))])
    codes = torch.stack([vectors.code_of(d, node) for d, node in enumerate(vectors.node.unbind(1))], 1)
    depths: list[Depth] = []
    for depth in range(1, codes.shape[1] + 1):
        tree = cut(recommender.tree, depth)
        items, scores = decoding.beam_search(recommender.model.prompt(read).frontier(), tree, width, gone)
        real = items[0] > 0
        node = tree.leaf[items[0][real]].numpy()
        _, first, size = np.unique(node, return_index=True, return_counts=True)
        lines = np.argsort(first)  # one line per prefix, in beam order
        prefixes = codes[items[0][real]][:, :depth].numpy()[first[lines]]
        above = {tuple(prefix): line for line, prefix in enumerate(depths[-1].prefixes.tolist())} if depths else {(): 0}
        parent = np.array([above[tuple(prefix[:-1])] for prefix in prefixes.tolist()], dtype=np.int64)
        depths.append(Depth(prefixes, scores[0][real].numpy()[first[lines]], parent, size[lines], tree.leaves))
    return depths


def beam_items(recommender: Recommender, rows: Sequence[int], width: int) -> list[int]:
    """Items found by beam search after a history, best first, without items of the history; at most `width`."""
    gone = torch.tensor([sorted(set(map(int, rows)))])
    items, _ = recommender.beam(read_part(recommender, rows), width, gone)
    return items[0][items[0] > 0][:width].tolist()


def leaf_scores(prompt: decoding.Prompt, tree: PrefixTree, leaf: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Log-probability in nats of one leaf for each user."""
    path, frontier = paths(tree, leaf).unbind(-1), prompt.frontier()
    score, everyone = torch.zeros_like(prompt.states[:, 0]), torch.arange(len(leaf), device=leaf.device)
    for depth, node in enumerate(path):
        code = tree.code[depth][node]
        score = score + decoding.backed_off(frontier.log_probs[everyone, code], tree, depth, node)
        if depth + 1 < len(path):
            frontier.advance(everyone, node)
    return score


@torch.no_grad()
def without_each(
    recommender: Recommender, rows: Sequence[int], items: Sequence[int]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "T k"]]:
    """Scores of `items` after the read part of a history, and after the same part without event t, for each t.

    For a history of one event the second result is empty, (0, k).
    """
    kept = read_part(recommender, rows)[0].tolist()
    shorter = [kept[:t] + kept[t + 1 :] for t in range(len(kept))] if len(kept) > 1 else []
    histories, asked = [kept, *shorter], torch.tensor(list(map(int, items)), dtype=torch.long)
    if recommender.tree is None or recommender.model.items is not None:
        scores = all_scores(recommender, histories)[:, asked]
        return scores[0], scores[1:]
    sizes = np.array([len(history) for history in histories])
    flat = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    model, padded = recommender.model, gather_padded(flat, np.cumsum(sizes) - sizes, sizes)
    prompt = model.prompt(padded).select(torch.arange(len(histories)).repeat_interleave(len(asked)))
    leaf = recommender.tree.leaf[asked].repeat(len(histories))
    scores = leaf_scores(prompt, recommender.tree, leaf).view(len(histories), -1)
    return scores[0], scores[1:]


def shared_codes(code_ids: Int[np.ndarray, "N sid_len"], item: int, rows: Sequence[int]) -> tuple[int, int]:
    """The longest prefix that an item's ID shares with a history: the latest event that has it, and its length.

    Returns: (place in `rows`, number of shared codes); (0, 0) if no event shares the first code.
    """
    found = (0, 0)
    for place, row in enumerate(rows):
        differ = code_ids[item] != code_ids[row]
        length = int(differ.argmax()) if differ.any() else len(differ)
        if length >= max(found[1], 1):
            found = (place, length)
    return found


def shared_prefix(
    first: Int[np.ndarray, "R positions"], second: Int[np.ndarray, "H positions"]
) -> Int[np.ndarray, "R H"]:
    """Number of leading codes that the IDs of each pair of items share, from 0 to the number of positions."""
    same = first[:, None] == second[None]
    return np.cumprod(same, axis=-1, dtype=np.int64).sum(-1)  # the product is 0 after the first difference


def longest_shared(
    ids: SemanticIds, history: Sequences, users: Int[np.ndarray, "U"], lists: Int[np.ndarray, "U k"]
) -> Int[np.ndarray, "U k"]:
    """For each listed item, the length of the longest learned prefix that it shares with an item of the history.

    Args: history: of all users, each with at least one item. users: one user per list. lists: item rows; for row 0 (no
        item) the result is 0.
    """
    codes, found = ids.code_ids[:, : ids.learned], np.zeros(lists.shape, np.int64)
    for line, user in enumerate(users):
        past = history.items[history.offsets[user] : history.offsets[user + 1]]
        found[line] = shared_prefix(codes[lists[line]], codes[past]).max(1)
    return np.where(lists > 0, found, 0)


def draw_others(
    history: Sequences, users: Int[np.ndarray, "U"], n_items: int, k: int, rng: np.random.Generator
) -> Int[np.ndarray, "U k"]:
    """For each user, k item rows drawn uniformly from items outside the history; padded with 0 if fewer are left."""
    drawn = np.zeros((len(users), k), np.int64)
    for line, user in enumerate(users):
        past = history.items[history.offsets[user] : history.offsets[user + 1]]
        left = np.setdiff1d(np.arange(1, n_items + 1), past)
        drawn[line, : min(k, len(left))] = rng.choice(left, min(k, len(left)), replace=False)
    return drawn


def step_lift(codes: Int[np.ndarray, "N"], train: Sequences, size: int) -> Float64[np.ndarray, "K K"]:
    """Lift of each pair of codes in consecutive events of a user: observed count over the count expected by chance.

        lift[a, b] = n(a, b) n / (n(a, .) n(., b)),  n(a, b) = steps from an item with code a to one with code b

    Args: codes: of each item row at one level. train: training events. size: K.
    Returns: (K, K), 0 for a step that never occurs.
    """
    inside = np.ones(len(train.items), bool)
    begins = train.offsets[:-1]
    inside[begins[begins < len(inside)]] = False  # a change of user is not a step
    before, after = codes[train.items[:-1]][inside[1:]], codes[train.items[1:]][inside[1:]]
    steps = np.bincount(before * size + after, minlength=size * size).reshape(size, size)
    chance = np.outer(steps.sum(1), steps.sum(0)) / max(steps.sum(), 1)
    return np.divide(steps, chance, out=np.zeros((size, size)), where=chance > 0)
