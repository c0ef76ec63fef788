"""Semantic IDs: the integer table, the prefix tree of existing IDs, health figures, and the repair for unique IDs."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SemanticIds:
    """The IDs of a catalogue, with the codes and vectors that stage 2 and the plots need. Row 0 is padding."""

    code_ids: Int[np.ndarray, "N sid_len"]
    sizes: tuple[int, ...]  # number of codes at each of the sid_len positions
    learned: int  # number of positions that come from the codebook; the others disambiguate
    signals: tuple[str, ...]  # names of the quantized signals, modalities then `id`; empty for IDs without signals
    signal_codes: Int[np.ndarray, "N S L"]
    signal_vectors: Float[np.ndarray, "N S V"]  # compared by the reweighting; by default quantized vectors (V = E)
    present: Bool[np.ndarray, "N S"]
    codebook: Float[np.ndarray, "learned K E"]
    raw_codes: Int[np.ndarray, "N learned"]  # the IDs before the repair, to measure collisions

    @property
    def sid_len(self) -> int:
        """Number of codes in one semantic ID."""
        return self.code_ids.shape[1]

    def save(self, path: Path) -> None:
        """Write to one `.npz`."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "SemanticIds":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        sizes, learned = tuple(map(int, arrays.pop("sizes"))), int(arrays.pop("learned"))
        return cls(sizes=sizes, learned=learned, signals=tuple(map(str, arrays.pop("signals"))), **arrays)


class PrefixTree(NamedTuple):
    """The tree of existing IDs in compressed rows: nodes of a depth are sorted, children of a node are consecutive.

    All numbers have 32 bits: 29 bytes per item for ten million items of four codes. Entry 0 of `first` and `max_fanout`
    is depth 0, the root; entry 0 of `code`, `parent` and `unseen` is depth 1.
    """

    first: tuple[Tensor, ...]  # (nodes_d + 1,): children of node n are `first[d][n] .. first[d][n+1]` at depth d + 1
    code: tuple[Tensor, ...]  # (nodes_d,), the last code of each node
    parent: tuple[Tensor, ...]  # (nodes_d,)
    leaf: Tensor  # leaf of every item row, (N+1,); row 0 holds -1
    items: Tensor  # items of leaf n are `items[starts[n]:starts[n+1]]`, more than one if IDs collide
    starts: Tensor
    max_fanout: Tensor  # (sid_len + 1,): most children of a node per depth, then most items of a leaf
    unseen: tuple[Tensor, ...] = ()  # (nodes_d,): True if training saw no item below; empty if not requested

    @property
    def leaves(self) -> int:
        """Number of distinct IDs."""
        return len(self.starts) - 1

    def to(self, device: torch.device | str) -> "PrefixTree":
        """Move the tree to a device; `max_fanout` stays on the CPU because it gives sizes of tensors."""
        put = lambda part: tuple(map(put, part)) if isinstance(part, tuple) else part.to(device)  # noqa: E731
        return PrefixTree(*map(put, self))._replace(max_fanout=self.max_fanout)


def build_tree(code_ids: Int[np.ndarray, "N sid_len"], seen: Bool[np.ndarray, "N"] | None = None) -> PrefixTree:
    """Build the prefix tree of an ID table, whose row 0 is padding, by one sort, from the deepest nodes upwards.

    Args: seen: item rows that training saw, to compute `PrefixTree.unseen`.
    Choice: each row becomes one number, of its codes and then its place: a sort is ten times as fast as an argsort.
        Numbers of more than 63 bits are Python's, which are slower.
    """
    count, length = len(code_ids) - 1, code_ids.shape[1]
    bits, place = max(int(code_ids[1:].max(initial=0)).bit_length(), 1), count.bit_length()
    ids = np.zeros(count, np.int64 if bits * length + place < 64 else object)
    for column in code_ids[1:].T:
        ids <<= bits
        ids |= column
    ids <<= place
    ids |= np.arange(count)
    ids.sort()
    items = (ids & (1 << place) - 1).astype(np.int32) + np.int32(1)
    ids >>= place
    known = None if seen is None else seen[items]
    first, code, parent, unseen = [], [], [], []  # deepest first
    for _ in range(length):
        opens = np.append(True, ids[1:] != ids[:-1])[: len(ids)]  # a run of equal numbers is a node
        start = np.flatnonzero(opens)
        parent.append(np.cumsum(opens, dtype=np.int32) - np.int32(1))  # of each node one deeper, or of each item
        first.append(np.append(start, len(ids)).astype(np.int32))
        code.append((ids[start] & (1 << bits) - 1).astype(np.int32))
        ids = ids[start] >> bits
        if known is not None:
            known = np.logical_or.reduceat(known, start) if len(start) else known
            unseen.append(~known)
    parent.append(np.zeros(len(ids), np.int32))  # of the nodes of depth 1: the root
    first.append(np.array([0, len(ids)], np.int32))
    leaf = np.full(len(code_ids), -1, np.int32)
    leaf[items] = parent[0]
    max_fanout = torch.tensor([np.diff(begin).max(initial=0) for begin in first[::-1]])
    depths = (first, code, parent, unseen)
    first, code, parent, unseen = (tuple(map(torch.from_numpy, part[::-1])) for part in depths)
    rows = torch.from_numpy(leaf), torch.from_numpy(items), first[-1]
    return PrefixTree(first[:-1], code, parent[:-1], *rows, max_fanout, unseen)


def children(
    first: Int[Tensor, "nodes_plus_1"], node: Int[Tensor, "rows"]
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"], Int[Tensor, "rows_plus_1"]]:
    """All children of nodes as pairs, as of a sparse matrix: the index into `node`, the child, and where rows begin."""
    start, fan_out = first[node], first[node + 1] - first[node]
    row = torch.repeat_interleave(fan_out)
    begins = torch.cat([fan_out.new_zeros(1), fan_out]).cumsum(0)
    return row, (start - begins[:-1])[row] + torch.arange(len(row), device=row.device), begins


def padded_children(
    first: Int[Tensor, "nodes_plus_1"], node: Int[Tensor, "*rows"], fan_out: int
) -> tuple[Int[Tensor, "*rows fan_out"], Bool[Tensor, "*rows fan_out"]]:
    """Children of nodes, padded to `fan_out` per node, and which are real; padding repeats the last child."""
    begin, end = first[node][..., None], first[node + 1][..., None]
    child = begin + torch.arange(fan_out, device=node.device)
    return torch.minimum(child, end - 1), child < end


def paths(tree: PrefixTree, leaf: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows sid_len"]:
    """The nodes from depth 1 down to the given leaves."""
    nodes = [leaf]
    for parent in reversed(tree.parent[1:]):
        nodes.append(parent[nodes[-1]])
    return torch.stack(nodes[::-1], -1)


def group_sizes(code_ids: Int[np.ndarray, "N sid_len"]) -> tuple[Int[np.ndarray, "groups"], Int[np.ndarray, "N-1"]]:
    """Number of items per distinct ID, and the group of every item, both without row 0."""
    _, group, size = np.unique(code_ids[1:], axis=0, return_inverse=True, return_counts=True)
    return size, group.reshape(-1)


def health(code_ids: Int[np.ndarray, "N sid_len"], sizes: tuple[int, ...]) -> dict[str, float | list[float]]:
    """Figures that show problems of a set of IDs, before or after a repair.

    Returns: `collision_rate` = 1 - distinct IDs / items; `colliding_items`, items that share an ID; `largest_group`;
        per position: `used` and `dead` codes, `perplexity` of code use (1 .. size), and `fan_out`, children per prefix.
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


def move_to_free(
    code_ids: Int[np.ndarray, "N sid_len"], residual: Float[np.ndarray, "N E"], table: Float[np.ndarray, "K E"]
) -> Int[np.ndarray, "N sid_len"]:
    """Give colliding items the nearest free last code below their prefix; the item nearest to its code keeps it.

    Items still collide if their prefix has no free code left. `residual` is the input of the last level, `table` its
    codebook.
    """
    repaired = code_ids.copy()
    size, group = group_sizes(code_ids)
    _, prefix = group_sizes(code_ids[:, :-1]) if code_ids.shape[1] > 1 else (None, np.zeros(len(group), dtype=int))
    for crowded in np.unique(prefix[size[group] > 1]):
        members = np.flatnonzero(prefix == crowded) + 1
        codes = code_ids[members, -1]
        gap = np.square(residual[members, None] - table).sum(-1)  # (members, K)
        order = np.argsort(gap[np.arange(len(members)), codes], kind="stable")
        stay = np.unique(codes[order], return_index=True)[1]  # the first item of each code, in this order
        free = np.setdiff1d(np.arange(len(table)), codes)
        for index in np.delete(order, stay)[: len(free)]:
            nearest = free[gap[index, free].argmin()]
            repaired[members[index], -1] = nearest
            free = free[free != nearest]
    return repaired
