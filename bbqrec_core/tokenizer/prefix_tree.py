"""The prefix tree of the IDs that exist, built by one sort: what beam search walks on."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

_BLOCK = 2**13  # rows that are joined at a time, so that they stay in the cache


def in_order(
    table: Int[np.ndarray, "N columns"], bits: int, head: Int[np.ndarray, "N"] | None = None
) -> tuple[Integer[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Sort the rows of a table, equal ones by their place.

    Choice: where no head takes up room, its place is in a row's number too, since sorting numbers is ten times as fast
    as finding their order; rows are joined block by block, in the cache.

    Args: table: from 0 to 2^bits. head: a number before the first column. Numbers and head, or row, take up to 63 bits.
    Returns: each row as one number, `bits` a column; and the rows, from 0.
    """
    count = len(table)
    place = count.bit_length()
    key = np.zeros(count, np.int64) if head is None else head.astype(np.int64)
    for start in range(0, count, _BLOCK):
        block = key[start : start + _BLOCK]
        for column in table[start : start + _BLOCK].T:
            block <<= bits
            block |= column
        if head is None:
            block <<= place
            block |= np.arange(start, start + len(block))
    if head is not None:
        order = np.argsort(key, kind="stable")
        return key[order], order.astype(np.int32)
    key.sort()
    rows = np.empty(count, np.int32)
    numbers = np.empty(count, np.uint32 if bits * table.shape[1] <= 32 else np.int64)
    np.bitwise_and(key, (1 << place) - 1, out=rows, casting="unsafe")  # straight into 32 bits: new memory takes time
    np.right_shift(key, place, out=numbers, casting="unsafe")
    return numbers, rows


def runs(
    numbers: Integer[np.ndarray, "N"],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "runs"], Integer[np.ndarray, "runs"]]:
    """Runs of equal ones in sorted numbers.

    Returns: the run of every number, the place of the first of each run, and the number of each run.
    """
    opens = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    if opens.all():  # as IDs are after a repair
        return np.arange(len(numbers), dtype=np.int32), np.arange(len(numbers), dtype=np.int32), numbers
    first = np.flatnonzero(opens).astype(np.int32)
    return np.cumsum(opens, dtype=np.int32) - np.int32(1), first, numbers[first]


class PrefixTree(NamedTuple):
    """The tree of existing IDs in compressed rows: nodes of a depth are sorted, children of a node are neighbours.

    All numbers have 32 bits: 29 bytes an item for ten million items of four codes.

    first: per depth d < sid_len, (nodes_d + 1,): children of node n are `first[d][n] .. first[d][n+1]` at depth d+1.
    code, parent: per depth d >= 1 (entry 0 of the tuple is depth 1), (nodes_d,).
    leaf: leaf of every item row, (N+1,); row 0 holds -1.
    items, starts: items of leaf n are `items[starts[n]:starts[n+1]]`, more than one where IDs collide.
    max_fanout: (sid_len + 1,): most children of a node, per depth d < sid_len, and most items of a leaf.
    unseen: per depth d >= 1, (nodes_d,): nodes below which there is no item that training saw; empty where not asked.
    """

    first: tuple[Tensor, ...]
    code: tuple[Tensor, ...]
    parent: tuple[Tensor, ...]
    leaf: Tensor
    items: Tensor
    starts: Tensor
    max_fanout: Tensor
    unseen: tuple[Tensor, ...] = ()

    @property
    def leaves(self) -> int:
        """Number of distinct IDs."""
        return len(self.starts) - 1

    def to(self, device: torch.device | str) -> "PrefixTree":
        """The tree on another device; `max_fanout`, read once a depth as sizes of tensors, stays on the CPU."""
        depths = (self.first, self.code, self.parent, self.unseen)
        first, code, parent, unseen = (tuple(part.to(device) for part in parts) for parts in depths)
        rows = (part.to(device) for part in (self.leaf, self.items, self.starts))
        return PrefixTree(first, code, parent, *rows, self.max_fanout, unseen)


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
    max_fanout = [np.diff(begin).max(initial=0) for begin in (*first, begins[0])]
    levels = [tuple(map(torch.from_numpy, part)) for part in (first, code[::-1], parent, unseen[::-1])]
    if head is not None:
        upper = (head.first, head.code, head.parent, head.unseen)
        levels = [high + low for high, low in zip(upper, levels, strict=True)]
        max_fanout = [*head.max_fanout[:-1].numpy(), *max_fanout]
    rows = map(torch.from_numpy, (leaf, items, begins[0]))
    return PrefixTree(*levels[:3], *rows, torch.tensor(max_fanout), levels[3])


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
