"""Codes in stage 2: their vectors, for input and output, and the head that predicts them level by level."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..kernels import _Products, pick
from ..tokenizer.semantic_ids import build_tree, children, padded_children, paths
from ..transformer import INIT_STD, Transformer, causal_mask

PairValues = Callable[[Tensor, Tensor, Tensor | None], Float[Tensor, "*pairs"]]  # (row, child, begins)
# score reweighting: (logits, level, above) -> logits with the offset of each row
Offsets = Callable[[Float[Tensor, "R K"], int, Int[Tensor, "R"]], Float[Tensor, "R K"]]


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
        for name in ("code", "parent", "first"):
            for depth, part in enumerate(getattr(tree, name)):
                self.register_buffer(f"{name}_{depth}", part, persistent=False)

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
        table = self.prefixes[position - 1].weight

        def products(row: Tensor, child: Tensor, begins: Tensor | None) -> Float[Tensor, "*pairs"]:
            if begins is None:
                return (out[:, None] * pick(table, child)).sum(-1)
            return _Products.apply(out, table, begins, child)

        return self.add_to_children(logits, position, above, products)

    def add_to_children(
        self, logits: Float[Tensor, "R K"], position: int, above: Int[Tensor, "R"], values: PairValues
    ) -> Float[Tensor, "R K"]:
        """Add `values(row, child, begins)` to the logits of the children of each row's prefix `above`.

        The pairs are those of `children`, or (R, fan-out) and `begins` is None.
        """
        first = getattr(self, f"first_{position}")
        if torch.compiler.is_compiling() or logits.device.type != "cpu":  # sizes must not depend on the input
            child, real = padded_children(first, above, self.max_fanout[position])
            row = torch.arange(len(above), device=above.device)[:, None].expand_as(child)
            added = values(row, child, None).masked_fill(~real, 0)
            return logits.scatter_add(1, self.code_of(position, child).long(), added)
        row, child, begins = children(first, above)
        return logits.index_put((row, self.code_of(position, child)), values(row, child, begins), accumulate=True)


class CodeOutputs(nn.Module):
    """Shared by all heads over codes: the `vectors`, tied to the input side, and `biases`, one per code and level."""

    def __init__(self, vectors: CodeVectors) -> None:
        super().__init__()
        self.vectors = vectors
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(table.num_embeddings)) for table in vectors.codes)

    def log_probs(
        self, out: Float[Tensor, "P D"], level: int, above: Int[Tensor, "P"], offsets: Offsets | None = None
    ) -> Float[Tensor, "P K"]:
        """Log-probabilities in nats of all codes of a level, legal or not, after the prefixes of nodes `above`."""
        logits = self.vectors.logits(out, level, above) + self.biases[level]
        return (logits if offsets is None else offsets(logits, level, above)).log_softmax(-1)

    def log_prob(
        self, out: Float[Tensor, "P L D"], nodes: Int[Tensor, "P L"], offsets: Offsets | None = None
    ) -> Float[Tensor, "P"]:
        """Log-probability in nats of whole IDs, from their paths of nodes and the output before each code."""
        above, picked = torch.zeros_like(nodes[:, 0]), []
        for level, node in enumerate(nodes.unbind(1)):
            code = self.vectors.code_of(level, node)
            picked.append(self.log_probs(out[:, level], level, above, offsets).gather(1, code[:, None]))
            above = node
        return torch.cat(picked, 1).sum(1)


class CodeHead(CodeOutputs):
    """Depth transformer: predicts the codes of the next item one by one, from the state and the codes before.

        log p(ID | h) = sum_l log softmax(out_l . v_l)[c_l],  out_l from h, v_1(c_1), v_1(c_1) + v_2(c_1, c_2), ...

    Args: vectors: of the codes, shared with the input side. layers, width, heads, dropout: of its blocks.
    Source: Lee et al. 2022 (RQ-Transformer), section 3.2.2. Choice: output weights tied to the codes' vectors.
    """

    def __init__(self, vectors: CodeVectors, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__(vectors)
        self.start = nn.Linear(width, width)
        self.depth = nn.Parameter(torch.randn(len(vectors), width) * INIT_STD)
        self.blocks = Transformer(layers, width, heads, dropout)

    def forward(
        self, states: Float[Tensor, "P D"], nodes: Int[Tensor, "P L"], offsets: Offsets | None = None
    ) -> Float[Tensor, "P"]:
        """Log-probability in nats of whole IDs, from their paths of nodes, in one pass (teacher forcing)."""
        tokens = [self.start(states)]
        for level in range(nodes.shape[1] - 1):
            before = tokens[-1] if level else torch.zeros_like(states)
            tokens.append(before + self.vectors(level, nodes[:, level]))
        x = torch.stack(tokens, 1) + self.depth
        mask = causal_mask(nodes.shape[1], states.device)
        out, _ = self.blocks(x, [mask] * len(self.blocks.blocks))
        return self.log_prob(out, nodes, offsets)
