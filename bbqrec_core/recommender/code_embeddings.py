"""The vectors of codes for the input and output of stage 2: one per code, and one per longer prefix of an ID."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..kernels import _Products, pick
from ..tokenizer.prefix_tree import build_tree, children, padded_children, paths
from ..transformer import INIT_STD

PairValues = Callable[[Int[Tensor, "*pairs"], Int[Tensor, "*pairs"]], Float[Tensor, "*pairs"]]


class CodeVectors(nn.Module):
    """A vector e per code of each position and, with `prefixes`, a vector p per prefix of two codes or more.

        v(c_1 .. c_l) = e_l(c_l) + p_l(c_1 .. c_l)

    A later code refines the codes before it, so its meaning depends on them; e alone cannot express this. The longest
    prefix is the whole ID, so each item has its own vector, as in SASRec, and items share vectors of common prefixes.

    Args: code_ids, sizes: of `SemanticIds`. width: D. prefixes: False omits p.
    Source: n-grams of semantic IDs, Singh et al. 2024 (arXiv 2306.08121); prefixes, Zheng et al. 2025 (arXiv
        2504.02137), both for the input of a ranking model. Choice: the output side uses them too, so that a head over
        codes can express what a softmax over items can. p starts at zero, so prefixes that training never saw add 0.
    """

    def __init__(
        self, code_ids: Int[np.ndarray, "N sid_len"], sizes: tuple[int, ...], width: int, prefixes: bool
    ) -> None:
        super().__init__()
        tree = build_tree(code_ids)
        self.codes = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for table in self.codes:
            nn.init.normal_(table.weight, std=INIT_STD)
        self.prefixes = nn.ModuleList(nn.Embedding(len(code), width) for code in tree.code[1:] if prefixes)
        for table in self.prefixes:
            nn.init.zeros_(table.weight)
        node = paths(tree, tree.leaf.clamp_min(0))  # (N+1, sid_len): the item's node at each depth
        self.register_buffer("node", node, persistent=False)
        self.max_fanout = tree.max_fanout.tolist()  # maximum number of children of a node at each depth
        for depth, (code, parent, first) in enumerate(zip(tree.code, tree.parent, tree.first, strict=True)):
            self.register_buffer(f"code_{depth}", code, persistent=False)
            self.register_buffer(f"parent_{depth}", parent, persistent=False)
            self.register_buffer(f"first_{depth}", first, persistent=False)

    def __len__(self) -> int:
        """Number of codes in one ID."""
        return len(self.codes)

    def code_of(self, position: int, node: Int[Tensor, "*nodes"]) -> Int[Tensor, "*nodes"]:
        """The last code of the prefixes of tree nodes; `position` counts from 0."""
        return getattr(self, f"code_{position}")[node]

    def forward(self, position: int, node: Int[Tensor, "*nodes"]) -> Float[Tensor, "*nodes D"]:
        """v of the prefixes of tree nodes at depth `position` + 1."""
        vectors = pick(self.codes[position].weight, self.code_of(position, node))
        return vectors + pick(self.prefixes[position - 1].weight, node) if self.prefixes and position else vectors

    def logits(self, out: Float[Tensor, "P D"], position: int, above: Int[Tensor, "P"]) -> Float[Tensor, "P K"]:
        """`out` . v for all K codes after the prefixes `above`; a code without a node has no p."""
        logits = out @ self.codes[position].weight.T
        if not (self.prefixes and position):
            return logits
        first, table = getattr(self, f"first_{position}"), self.prefixes[position - 1].weight
        if torch.compiler.is_compiling() or out.device.type != "cpu":  # sizes must not depend on the input
            child, real = padded_children(first, above, self.max_fanout[position])
            own = (out[:, None] * pick(table, child)).sum(-1).masked_fill(~real, 0)
            return logits.scatter_add(1, self.code_of(position, child).long(), own)
        row, child, begins = children(first, above)
        own = _Products.apply(out, table, begins, child)
        return logits.index_put((row, self.code_of(position, child)), own, accumulate=True)

    def add_to_children(
        self, logits: Float[Tensor, "R K"], position: int, above: Int[Tensor, "R"], values: PairValues
    ) -> Float[Tensor, "R K"]:
        """Add `values(row, child)` to the logits of the children of each row's prefix `above`."""
        first = getattr(self, f"first_{position}")
        if torch.compiler.is_compiling() or logits.device.type != "cpu":  # as in `logits`
            child, real = padded_children(first, above, self.max_fanout[position])
            row = torch.arange(len(above), device=above.device)[:, None].expand_as(child)
            return logits.scatter_add(1, self.code_of(position, child).long(), values(row, child).masked_fill(~real, 0))
        row, child, _ = children(first, above)
        return logits.index_put((row, self.code_of(position, child)), values(row, child), accumulate=True)
