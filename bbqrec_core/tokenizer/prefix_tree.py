"""The prefix tree of existing IDs, built by one sort; beam search walks on it."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor


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

    Choice: each row becomes one number, of its codes and then its place: a sort is ten times as fast as an argsort.
        Numbers of more than 63 bits are Python's, which are slower.

    Args: seen: item rows that training saw, to compute `PrefixTree.unseen`.
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
