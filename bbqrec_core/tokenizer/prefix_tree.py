"""The prefix tree of existing IDs, built by one sort; beam search walks on it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

_BLOCK = 2**13  # rows per block, so that a block stays in cache


def in_order(
    table: Int[np.ndarray, "N columns"], bits: int, head: Int[np.ndarray, "N"] | None = None
) -> tuple[Integer[np.ndarray, "N"], Int[np.ndarray, "N"]]:
    """Sort the rows of a table; equal rows keep their order.

    Choice: without `head`, the number of a row also contains its place, because a sort is ten times as fast as an
    argsort. Numbers are built block by block, in cache.

    Args: table: values from 0 to 2^bits. head: a number before the first column. All together take up to 63 bits.
    Returns: each row as one number with `bits` per column, sorted; and the sorted row indices, from 0.
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
    np.bitwise_and(key, (1 << place) - 1, out=rows, casting="unsafe")  # directly to 32 bits: less new memory
    np.right_shift(key, place, out=numbers, casting="unsafe")
    return numbers, rows


def runs(
    numbers: Integer[np.ndarray, "N"],
) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "runs"], Integer[np.ndarray, "runs"]]:
    """Runs of equal values in sorted numbers.

    Returns: the run of every number, the start of each run, and the value of each run.
    """
    opens = np.append(True, numbers[1:] != numbers[:-1])[: len(numbers)]
    if opens.all():  # repaired IDs
        return np.arange(len(numbers), dtype=np.int32), np.arange(len(numbers), dtype=np.int32), numbers
    first = np.flatnonzero(opens).astype(np.int32)
    return np.cumsum(opens, dtype=np.int32) - np.int32(1), first, numbers[first]


class PrefixTree(NamedTuple):
    """The tree of existing IDs in compressed rows: nodes of a depth are sorted, children of a node are consecutive.

    All numbers have 32 bits: 29 bytes per item for ten million items of four codes.

    first: per depth d < sid_len, (nodes_d + 1,): children of node n are `first[d][n] .. first[d][n+1]` at depth d+1.
    code, parent: per depth d >= 1 (entry 0 of the tuple is depth 1), (nodes_d,).
    leaf: leaf of every item row, (N+1,); row 0 holds -1.
    items, starts: items of leaf n are `items[starts[n]:starts[n+1]]`, more than one if IDs collide.
    max_fanout: (sid_len + 1,): maximum number of children of a node per depth d < sid_len, and of items of a leaf.
    unseen: per depth d >= 1, (nodes_d,): True if training saw no item below the node; empty if not requested.
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
        """Move the tree to a device; `max_fanout` stays on the CPU because it gives sizes of tensors."""
        depths = (self.first, self.code, self.parent, self.unseen)
        first, code, parent, unseen = (tuple(part.to(device) for part in parts) for parts in depths)
        rows = (part.to(device) for part in (self.leaf, self.items, self.starts))
        return PrefixTree(first, code, parent, *rows, self.max_fanout, unseen)


def build_tree(code_ids: Int[np.ndarray, "N sid_len"], seen: Bool[np.ndarray, "N"] | None = None) -> PrefixTree:
    """Build the prefix tree of an ID table, whose row 0 is padding, by one sort, from the deepest nodes upwards.

    If an ID does not fit into a number of 64 bits, its first positions get their own tree, and a leaf replaces them.

    Args: seen: item rows that training saw, to compute `PrefixTree.unseen`.
    """
    count, length = len(code_ids) - 1, code_ids.shape[1]
    bits = max(int(code_ids[1:].max(initial=0)).bit_length(), 1)
    fit = min((63 - count.bit_length()) // bits, length)  # positions that fit next to a row or a leaf
    head = build_tree(code_ids[:, : length - fit], seen) if fit < length else None
    ids, items = in_order(code_ids[1:, length - fit :], bits, None if head is None else head.leaf[1:].numpy())
    items += 1
    known = None if seen is None else seen[items]
    begins, above, code, unseen = [], [], [], []  # deepest first
    for _ in range(fit):
        run, start, ids = runs(ids)  # a run is a node; it groups nodes one deeper, or items
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
    tops = np.arange(2 if head is None else head.leaves + 1)  # the rest of an ID: the root, or a leaf of `head`
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
    """All children of nodes as pairs: the index into `node`, the child, and where the pairs of each entry begin.

    The last two are the columns and row starts of a compressed sparse matrix.
    """
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
