"""The head of stage 2: log-probabilities of codes, level by level, from a state."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..transformer import INIT_STD, Transformer, causal_mask
from .code_embeddings import CodeVectors

Offsets = Callable[[Float[Tensor, "R K"], int, Int[Tensor, "R"]], Float[Tensor, "R K"]]  # (logits, level, above)


class CodeOutputs(nn.Module):
    """Shared by all heads over codes: the `vectors`, tied to the input side, and `biases`, one per code and level."""

    def __init__(self, vectors: CodeVectors) -> None:
        super().__init__()
        self.vectors = vectors
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(table.num_embeddings)) for table in vectors.codes)

    def log_probs(
        self, out: Float[Tensor, "P D"], level: int, above: Int[Tensor, "P"], offsets: Offsets | None = None
    ) -> Float[Tensor, "P K"]:
        """Log-probabilities in nats of all codes of a level, legal or not, after the prefixes of nodes `above`.

        Args: offsets: of score reweighting; adds those of each row to its logits.
        """
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
