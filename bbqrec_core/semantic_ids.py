"""Semantic IDs: the integer table, its prefix tree, its health figures and the repairs that make IDs unique."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .artifacts import load_arrays, save_arrays
from .ordering import in_order, runs


@dataclass(frozen=True)
class SemanticIds:
    """The IDs of a catalogue and what stage 2 and the pictures need beside them. Row 0 is padding.

    Args: code_ids: (N+1, sid_len). sizes: codes possible at each of the sid_len positions.
        learned: how many of the positions come from the codebook (the others disambiguate).
        signals: names of the quantized signals, modalities then `id`; empty for IDs without meaning.
        signal_codes: (N+1, S, L). present: (N+1, S). signal_vectors: what stage 2 compares, (N+1, S, V), the quantized
            vectors (V = E) unless it was told otherwise.
        codebook: (learned, K, E), the table of each learned position.
        raw_codes: (N+1, sid_len before the repair), to judge collisions by.
    """

    code_ids: Int[np.ndarray, "N sid_len"]
    sizes: tuple[int, ...]
    learned: int
    signals: tuple[str, ...]
    signal_codes: Int[np.ndarray, "N S L"]
    signal_vectors: Float[np.ndarray, "N S V"]
    present: Bool[np.ndarray, "N S"]
    codebook: Float[np.ndarray, "learned K E"]
    raw_codes: Int[np.ndarray, "N learned"]

    @property
    def sid_len(self) -> int:
        """Integers in one semantic ID."""
        return self.code_ids.shape[1]

    def save(self, path: Path) -> None:
        """Write to one `.npz`."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        names = np.array(self.signals, dtype=str) if self.signals else np.zeros(0, dtype="U1")
        save_arrays(path, **arrays, sizes=np.array(self.sizes), learned=np.array(self.learned), signals=names)

    @classmethod
    def load(cls, path: Path) -> "SemanticIds":
        """Read what `save` wrote."""
        arrays = load_arrays(path)
        sizes, learned = tuple(map(int, arrays.pop("sizes"))), int(arrays.pop("learned"))
        return cls(sizes=sizes, learned=learned, signals=tuple(map(str, arrays.pop("signals"))), **arrays)


class PrefixTree(NamedTuple):
    """The tree of existing IDs in compressed rows: nodes of a depth are sorted, children of a node are neighbours.

    All numbers have 32 bits: 29 bytes an item for ten million items of four codes.

    first: per depth d < sid_len, (nodes_d + 1,): children of node n are `first[d][n] .. first[d][n+1]` at depth d+1.
    code, parent: per depth d >= 1 (entry 0 of the tuple is depth 1), (nodes_d,).
    leaf: leaf of every item row, (N+1,); row 0 holds -1.
    items, starts: items of leaf n are `items[starts[n]:starts[n+1]]`, more than one where IDs collide.
    widest: (sid_len + 1,): most children of a node, per depth d < sid_len, and most items of a leaf.
    unseen: per depth d >= 1, (nodes_d,): nodes below which there is no item that training saw; empty where not asked.
    """

    first: tuple[Tensor, ...]
    code: tuple[Tensor, ...]
    parent: tuple[Tensor, ...]
    leaf: Tensor
    items: Tensor
    starts: Tensor
    widest: Tensor
    unseen: tuple[Tensor, ...] = ()

    @property
    def leaves(self) -> int:
        """Number of distinct IDs."""
        return len(self.starts) - 1

    def to(self, device: torch.device | str) -> "PrefixTree":
        """The tree on another device; `widest`, read once a depth as sizes of tensors, stays on the CPU."""
        depths = (self.first, self.code, self.parent, self.unseen)
        first, code, parent, unseen = (tuple(part.to(device) for part in parts) for parts in depths)
        rows = (part.to(device) for part in (self.leaf, self.items, self.starts))
        return PrefixTree(first, code, parent, *rows, self.widest, unseen)


def build_tree(code_ids: Int[np.ndarray, "N sid_len"], seen: Bool[np.ndarray, "N"] | None = None) -> PrefixTree:
    """The prefix tree of an ID table whose row 0 is padding, by one sort; deepest nodes first, so that steps shrink.

    Of IDs that are too long for a number of 64 bits, the first positions get a tree, and its leaves stand for them.

    Args: seen: item rows that training saw, to fill `PrefixTree.unseen`.
    """
    count, length = len(code_ids) - 1, code_ids.shape[1]
    bits = max(int(code_ids[1:].max(initial=0)).bit_length(), 1)
    fit = min((63 - count.bit_length()) // bits, length)  # positions that fit in beside a row or a leaf
    head = build_tree(code_ids[:, : length - fit], seen) if fit < length else None
    ids, items = in_order(code_ids[1:, length - fit :], bits, None if head is None else head.leaf[1:].numpy())
    items += 1
    known = None if seen is None else seen[items]
    begins, above, code, unseen = [], [], [], []  # deepest first
    for _ in range(fit):
        run, start, ids = runs(ids)  # a run is a node: of nodes one deeper, of items at first
        above.append(run)
        begins.append(np.append(start, np.int32(len(run))))
        code.append(ids.astype(np.int32))
        code[-1] &= (1 << bits) - 1
        ids = ids >> bits
        if known is not None:
            known = np.logical_or.reduceat(known, start) if len(start) else known
            unseen.append(~known)
    leaf = np.empty(len(code_ids), np.int32)
    leaf[0], leaf[items] = -1, above[0]
    tops = np.arange(2 if head is None else head.leaves + 1)  # what is left of an ID is its parent: the root, or a leaf
    first = [np.searchsorted(ids, tops).astype(np.int32), *begins[:0:-1]]
    parent = [ids.astype(np.int32), *above[:0:-1]]
    widest = [np.diff(begin).max(initial=0) for begin in (*first, begins[0])]
    levels = [tuple(map(torch.from_numpy, part)) for part in (first, code[::-1], parent, unseen[::-1])]
    if head is not None:
        upper = (head.first, head.code, head.parent, head.unseen)
        levels = [high + low for high, low in zip(upper, levels, strict=True)]
        widest = [*head.widest[:-1].numpy(), *widest]
    rows = map(torch.from_numpy, (leaf, items, begins[0]))
    return PrefixTree(*levels[:3], *rows, torch.tensor(widest), levels[3])


def children(
    first: Int[Tensor, "nodes_plus_1"], node: Int[Tensor, "rows"]
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"], Int[Tensor, "rows_plus_1"]]:
    """All children of nodes as pairs: which entry of `node` a child belongs to, the child itself, and where the pairs
    of each entry begin: the last two are the columns and row starts of a compressed sparse matrix.
    """
    start, fan_out = first[node], first[node + 1] - first[node]
    row = torch.repeat_interleave(fan_out)
    begins = torch.cat([fan_out.new_zeros(1), fan_out]).cumsum(0)
    return row, (start - begins[:-1])[row] + torch.arange(len(row), device=row.device), begins


def padded_children(
    first: Int[Tensor, "nodes_plus_1"], node: Int[Tensor, "*rows"], fan_out: int
) -> tuple[Int[Tensor, "*rows fan_out"], Bool[Tensor, "*rows fan_out"]]:
    """All children of nodes side by side, `fan_out` a node, and which are real: a node with fewer repeats its last."""
    begin, end = first[node][..., None], first[node + 1][..., None]
    child = begin + torch.arange(fan_out, device=node.device)
    return torch.minimum(child, end - 1), child < end


def paths(tree: PrefixTree, leaf: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows sid_len"]:
    """The nodes from depth 1 down to given leaves."""
    nodes = [leaf]
    for parent in reversed(tree.parent[1:]):
        nodes.append(parent[nodes[-1]])
    return torch.stack(nodes[::-1], -1)


def group_sizes(code_ids: Int[np.ndarray, "N sid_len"]) -> tuple[Int[np.ndarray, "groups"], Int[np.ndarray, "N-1"]]:
    """How many items share each distinct ID, and the group of every item (row 0, padding, is left out of both)."""
    _, group, size = np.unique(code_ids[1:], axis=0, return_inverse=True, return_counts=True)
    return size, group.reshape(-1)


def health(code_ids: Int[np.ndarray, "N sid_len"], sizes: tuple[int, ...]) -> dict[str, float | list[float]]:
    """Figures that show what is wrong with a set of IDs, before or after a repair.

    Returns: `collision_rate` = 1 - distinct IDs / items; `colliding_items`, the items that share an ID;
        `largest_group`; and per position: `used`, `dead` codes, `perplexity` of their use (1 .. size), and
        `fan_out`, mean children of a prefix.
    """
    size, _ = group_sizes(code_ids)
    table, tree = code_ids[1:], build_tree(code_ids)
    used, perplexity = [], []
    for position, codes in enumerate(sizes):
        share = np.bincount(table[:, position], minlength=codes) / len(table)
        used.append(int((share > 0).sum()))
        perplexity.append(float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum())))
    nodes = [1] + [len(level) for level in tree.code]
    return {
        "collision_rate": float(1 - len(size) / len(table)),
        "colliding_items": int(size[size > 1].sum()),
        "largest_group": int(size.max()),
        "used": used,
        "dead": [codes - seen for codes, seen in zip(sizes, used, strict=True)],
        "perplexity": perplexity,
        "fan_out": [nodes[depth + 1] / nodes[depth] for depth in range(len(sizes))],
    }


def append_extra(code_ids: Int[np.ndarray, "N sid_len"]) -> tuple[Int[np.ndarray, "N longer"], int]:
    """TIGER's repair: one more position numbers the items of a colliding group; returns the table and its size.

    Rows are permuted at load, so the number says nothing of an item's original number.
    Source: Rajput et al. 2023 (TIGER), section 3.1.
    """
    _, group = group_sizes(code_ids)
    order = np.argsort(group, kind="stable")
    ranked = group[order]
    begins = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    position = np.arange(len(ranked))
    number = position - np.maximum.accumulate(np.where(begins, position, 0))
    extra = np.zeros((len(code_ids), 1), dtype=code_ids.dtype)
    extra[order + 1, 0] = number
    return np.hstack([code_ids, extra]), int(number.max()) + 1


def move_to_free(
    code_ids: Int[np.ndarray, "N sid_len"], residual: Float[np.ndarray, "N E"], table: Float[np.ndarray, "K E"]
) -> Int[np.ndarray, "N sid_len"]:
    """Give colliding items the nearest last code that is free below their prefix; the best served item stays.

    Args: residual: what the last level was asked to quantize. table: its codes.
    Returns: the new table. Items stay colliding where a prefix has no free code left.
    """
    repaired = code_ids.copy()
    size, group = group_sizes(code_ids)
    _, prefix = group_sizes(code_ids[:, :-1]) if code_ids.shape[1] > 1 else (None, np.zeros(len(group), dtype=int))
    for crowded in np.unique(prefix[size[group] > 1]):
        members = np.flatnonzero(prefix == crowded)
        gap = np.square(residual[members + 1, None] - table).sum(-1)  # (members, K)
        own = gap[np.arange(len(members)), code_ids[members + 1, -1]]
        taken: set[int] = set()
        waiting = []
        for index in np.argsort(own, kind="stable"):
            code = int(code_ids[members[index] + 1, -1])
            waiting.append(index) if code in taken else taken.add(code)
        for index in waiting:
            free = [code for code in np.argsort(gap[index], kind="stable") if int(code) not in taken]
            if free:
                repaired[members[index] + 1, -1] = free[0]
                taken.add(int(free[0]))
    return repaired


def sinkhorn(
    cost: Float[np.ndarray, "n K"], regularisation: float = 0.05, iterations: int = 50
) -> Float[np.ndarray, "n K"]:
    """Entropic transport of n <= K items (mass 1 each) onto K codes that take at most 1 each, by scaling both in turn.

    Args: cost: any unit; it is divided by its mean. Source: Cuturi 2013; its use on codes, LC-Rec (Zheng et al. 2024).
    """
    plan = np.exp(-(cost - cost.min(1, keepdims=True)) / (regularisation * max(float(cost.mean()), 1e-12)))
    for _ in range(iterations):
        plan /= np.maximum(plan.sum(0), 1)
        plan /= np.maximum(plan.sum(1, keepdims=True), 1e-300)
    return plan


def spread_by_transport(
    code_ids: Int[np.ndarray, "N sid_len"], residual: Float[np.ndarray, "N E"], table: Float[np.ndarray, "K E"]
) -> Int[np.ndarray, "N sid_len"]:
    """Give colliding items new last codes by `sinkhorn`, all colliding items of a prefix at once, at most K of them.

    Codes that items without a collision hold stay theirs. What the plan leaves together, `move_to_free` parts.

    Args, returns: as `move_to_free`.
    """
    repaired = code_ids.copy()
    size, group = group_sizes(code_ids)
    _, prefix = group_sizes(code_ids[:, :-1]) if code_ids.shape[1] > 1 else (None, np.zeros(len(group), dtype=int))
    for crowded in np.unique(prefix[size[group] > 1]):
        members = np.flatnonzero((prefix == crowded) & (size[group] > 1))
        own = np.square(residual[members + 1] - table[code_ids[members + 1, -1]]).sum(-1)
        members = members[np.argsort(own, kind="stable")[: len(table)]]
        held = code_ids[np.flatnonzero((prefix == crowded) & (size[group] == 1)) + 1, -1]
        free = np.setdiff1d(np.arange(len(table)), held)
        if len(free):
            cost = np.square(residual[members + 1, None] - table[free]).sum(-1)
            repaired[members + 1, -1] = free[sinkhorn(cost).argmax(1)]
    return move_to_free(repaired, residual, table)
