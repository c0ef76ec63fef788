"""Stage 2: a sequence model that emits semantic IDs code by code, or items (SASRec), with similarity reweighting."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import AdamW

from . import decoding
from .batching import gather_padded, history_batches, window_batches
from .blocks import Transformer, causal_mask, dropout
from .config import EvaluationConfig, RecommenderConfig
from .data import Dataset, Sequences
from .metrics import Ranks, concat_ranks, per_user, rank_users, ranks_from_lists, sample_users
from .semantic_ids import PrefixTree, SemanticIds, build_tree
from .similarity import SimilarityBias
from .training import History, Task, fit

INIT_STD = 0.02  # standard deviation of embeddings at the start


class CodeHead(nn.Module):
    """Depth transformer: the next item's codes one after another, each given the state and the codes before.

        log p(ID | h) = sum_l log softmax(out_l . table_l)[c_l],  out_l from h, e_1(c_1), e_1(c_1) + e_2(c_2), ...

    Args: tables: the code embeddings, shared with the input side. layers, width, heads, dropout: of its blocks.
    Source: Lee et al. 2022 (RQ-Transformer), section 3.2.2. Choice: output weights tied to the code embeddings.
    """

    def __init__(self, tables: nn.ModuleList, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.tables = tables
        self.start = nn.Linear(width, width)
        self.depth = nn.Parameter(torch.randn(len(tables), width) * INIT_STD)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(table.num_embeddings)) for table in tables)
        self.blocks = Transformer(layers, width, heads, dropout)

    def log_probs(self, out: Float[Tensor, "P D"], level: int) -> Float[Tensor, "P K"]:
        """Log-probabilities in nats over all codes of a level, legal or not."""
        return (out @ self.tables[level].weight.T + self.biases[level]).log_softmax(-1)

    def forward(self, states: Float[Tensor, "P D"], codes: Int[Tensor, "P L"]) -> Float[Tensor, "P"]:
        """Log-probability of whole IDs in nats, all levels in one pass (teacher forcing)."""
        tokens = [self.start(states)]
        for level in range(codes.shape[1] - 1):
            before = tokens[-1] if level else torch.zeros_like(states)
            tokens.append(before + self.tables[level](codes[:, level]))
        x = torch.stack(tokens, 1) + self.depth
        mask = causal_mask(codes.shape[1], states.device)
        out, _ = self.blocks(x, [mask] * len(self.blocks.blocks))
        picked = [
            self.log_probs(out[:, level], level).gather(1, codes[:, level, None]) for level in range(codes.shape[1])
        ]
        return torch.cat(picked, 1).sum(1)


class SequenceModel(nn.Module):
    """Transformer over a user's items. `ids` None is SASRec: item embeddings in and, tied, a softmax over items out.

    Args: n_items: N. ids: semantic IDs; an item's input is the sum of its code embeddings. config: sizes and switches.
    Source: Kang and McAuley 2018 (SASRec) for the item softmax; method.md, stage 2, for codes and reweighting.
    """

    def __init__(self, n_items: int, ids: SemanticIds | None, config: RecommenderConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(config.history, config.width)
        self.blocks = Transformer(config.layers, config.width, config.heads, config.dropout)
        self.tables = nn.ModuleList()
        self.items = self.head = self.reweighting = None
        if ids is None or config.output == "items":
            self.items = nn.Embedding(n_items + 1, config.width)
        if ids is not None and config.output == "codes":
            self.register_buffer("code_ids", torch.from_numpy(ids.code_ids), persistent=False)
            self.tables.extend(nn.Embedding(size, config.width) for size in ids.sizes)
            self.head = CodeHead(self.tables, config.depth_layers, config.width, config.heads, config.dropout)
        for table in (self.position, self.items, *self.tables):
            if table is not None:
                nn.init.normal_(table.weight, std=INIT_STD)
        if ids is not None and ids.signals and config.output == "codes" and config.init_from_codebook:
            self._start_from(ids)
        if ids is not None and ids.signals and config.reweight:
            self.reweighting = SimilarityBias(
                torch.from_numpy(ids.signal_vectors),
                torch.from_numpy(ids.present),
                list(ids.signals),
                layers=config.layers,
                heads=config.heads,
                buckets=config.buckets,
                edges=config.bucket_edges,
                which=config.channels,
            )

    @torch.no_grad()
    def _start_from(self, ids: SemanticIds) -> None:
        """Copy stage 1's codebook into the tables of the learned positions, scaled to the usual size of embeddings.

        Choice: one scale for all levels keeps coarse codes larger than fine ones; a width other than E is reached by a
        random projection; with `concat` each signal's positions start from the same shared codebook.
        """
        codebook = torch.from_numpy(ids.codebook)
        if codebook.shape[2] != self.config.width:
            codebook = codebook @ torch.randn(codebook.shape[2], self.config.width) / codebook.shape[2] ** 0.5
        codebook = codebook * (INIT_STD / codebook[0].std().clamp_min(1e-8))
        for position in range(ids.learned):
            self.tables[position].weight.copy_(codebook[position % len(codebook)])

    def embed(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """What the backbone reads of items, before positions."""
        if self.items is not None:
            return self.items(item_ids)
        codes = self.code_ids[item_ids]
        return sum(table(codes[..., level]) for level, table in enumerate(self.tables))

    def biases(self, item_ids: Int[Tensor, "B T"]) -> list[Float[Tensor, "#B #H T T"]]:
        """Additive attention bias of each layer: the causal mask, plus the reweighting where there is one."""
        mask = causal_mask(item_ids.shape[1], item_ids.device)[None, None]
        if self.reweighting is None:
            return [mask] * self.config.layers
        return [mask + offset for offset in self.reweighting(item_ids)]

    def states(self, item_ids: Int[Tensor, "B T"]) -> tuple[Float[Tensor, "B T D"], list[Float[Tensor, "B H T T"]]]:
        """Backbone outputs and every layer's attention weights; padding (0) must be on the right."""
        x = self.embed(item_ids) * self.config.width**0.5 + self.position.weight[: item_ids.shape[1]]
        x = dropout(x, self.config.dropout, self.training)
        return self.blocks(x, self.biases(item_ids))

    def last_states(self, item_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """State behind each user's last event, from which the next item is predicted."""
        states, _ = self.states(item_ids)
        last = (item_ids > 0).sum(1).sub(1).clamp_min(0)
        return states[torch.arange(len(states), device=states.device), last]

    def loss(self, rows: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Mean negative log-probability of each window's next items in nats (full softmax; IDs: summed over codes)."""
        inputs, targets = rows[:, :-1], rows[:, 1:]
        states, _ = self.states(inputs)
        real = targets > 0
        if self.head is not None:
            return {"loss": -self.head(states[real], self.code_ids[targets[real]]).mean()}
        logits = states[real] @ self.items.weight[1:].T
        return {"loss": F.cross_entropy(logits, targets[real] - 1)}


@dataclass(frozen=True)
class Recommender:
    """A trained sequence model and what turns its states into rankings.

    Args: model: in eval mode. tree: prefix tree of the IDs; None for item scores. history: T.
    """

    model: SequenceModel
    tree: PrefixTree | None

    @torch.inference_mode()
    def scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Float[Tensor, "B rows"]:
        """Exact scores (B, N+1) of every item in nats for users' histories; column 0 is -inf."""
        sizes = np.minimum(np.diff(history.offsets)[users], self.model.config.history)
        states = self.model.last_states(gather_padded(history.items, history.offsets[users + 1] - sizes, sizes))
        if self.tree is not None:
            return decoding.exact_scores(self.model.head, states, self.tree)
        table = states @ self.model.items.weight.T
        table[:, 0] = -torch.inf
        return table

    @torch.inference_mode()
    def beam(
        self, rows: Int[Tensor, "B T"], width: int, masked: Tensor | None = None
    ) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Item rows (0 where fewer) and scores in nats by beam search; `masked` rows leave the tree first."""
        return decoding.beam_search(self.model.head, self.model.last_states(rows), self.tree, width, masked)


def beam_ranks(
    recommender: Recommender,
    data: Dataset,
    part: Literal["valid", "test"],
    users: Int[np.ndarray, "S"],
    evaluation: EvaluationConfig,
    masked: bool = False,
) -> Ranks:
    """Ranks of users' targets in their beams, in the order of `users`; a target that no beam reached counts as zero."""
    history, targets, parts, order = data.history(part), data.targets(part), [], []
    length = recommender.model.config.history
    for asked, rows in history_batches(history, users, length, evaluation.batch):
        sizes = np.diff(history.offsets)[asked]
        gone = gather_padded(history.items, history.offsets[asked], sizes) if masked else None
        items, scores = recommender.beam(rows, evaluation.beam, gone)
        parts.append(ranks_from_lists(items, targets[asked], scores))
        order.append(asked)
    back = np.argsort(np.concatenate(order))[np.argsort(np.argsort(users))]
    return Ranks(*(field[back] for field in concat_ranks(parts)))


def early_score(recommender: Recommender, data: Dataset, users: np.ndarray, evaluation: EvaluationConfig) -> float:
    """Validation NDCG@10, history kept, on a fixed sample of users: by beam where the model emits IDs, else exact."""
    if recommender.tree is not None:
        ranks = beam_ranks(recommender, data, "valid", users, evaluation)
    else:
        history, targets = data.history("valid"), data.targets("valid")
        ranks = rank_users(recommender.scores, history, targets, users, ("kept",), evaluation.batch)["kept"]
    return float(per_user(ranks)["ndcg@10"].mean())


def build_recommender(n_items: int, ids: SemanticIds | None, config: RecommenderConfig, seed: int) -> Recommender:
    """A fresh recommender; equal arguments give equal parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequenceModel(n_items, ids, config)
    tree = None if model.head is None else build_tree(ids.code_ids)
    return Recommender(model.eval(), tree)


def fit_recommender(
    data: Dataset,
    ids: SemanticIds | None,
    config: RecommenderConfig,
    evaluation: EvaluationConfig,
    seed: int,
    directory: Path,
) -> tuple[Recommender, History]:
    """Train stage 2 on training events with early stopping on validation NDCG@10; resumes from `directory`.

    Args: ids: semantic IDs, or None for SASRec. seed: initialisation and batches.
    Raises: FloatingPointError on a non-finite loss.
    """
    recommender = build_recommender(data.n_items, ids, config, seed)
    model, sequences = recommender.model, data.train()
    users = sample_users(data.n_users, evaluation.early_users)
    optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    task = Task(
        "recommender" if ids is not None else "sasrec",
        model,
        [optimizer],
        lambda epoch: window_batches(sequences, config.history, config.batch_users, (seed, epoch), config.epoch_steps),
        model.loss,
        score=lambda: early_score(recommender, data, users, evaluation),
    )
    history = fit(
        task,
        seed=seed,
        epochs=config.epochs,
        directory=directory,
        evaluate_every=config.evaluate_every,
        patience=config.patience,
    )
    return recommender, history
