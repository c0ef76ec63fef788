"""Stage 2: training a sequence model, and from its states to ranked items: exact scores, or beam search over IDs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import AdamW

from . import decoding
from .batching import gather_padded, history_batches, window_batches
from .config import EvaluationConfig, RecommenderConfig
from .data import Dataset, Sequences
from .devices import best_device
from .drafts import joined_features
from .metrics import Ranks, concat_ranks, per_user, rank_users, ranks_from_lists, sample_users
from .semantic_ids import PrefixTree, SemanticIds, build_tree
from .sequence_model import SequenceModel
from .token_model import TokenFrontier, TokenModel
from .training import History, Task, epochs_for, fit

SLACK = 1e-3  # nats; sums of the same terms in another order differ by less


@dataclass(frozen=True)
class Recommender:
    """A trained sequence model and what turns its states into rankings.

        score = log p(ID), or the item's logit, or with both heads w_codes log p(ID) + log softmax(logits)[item]

    Args: model: in eval mode. tree: prefix tree of the IDs; None where the model emits none.
    Choice: with both heads the beam finds candidates by their IDs alone and the sum then ranks them, so that beam and
        exact scores are the same numbers.
    """

    model: SequenceModel
    tree: PrefixTree | None

    @property
    def device(self) -> torch.device:
        """Where the model and the tree are: scores and lists are there too."""
        return self.model.position.weight.device

    def to(self, device: torch.device | str) -> "Recommender":
        """The recommender with its model moved to another device, and the tree there too."""
        return Recommender(self.model.to(device), None if self.tree is None else self.tree.to(device))

    @torch.inference_mode()
    def scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Float[Tensor, "B rows"]:
        """Exact scores (B, N+1) of every item for users' histories, nats where codes are emitted; column 0 is -inf."""
        rows = self._rows(history, users)
        if self.by_beam:
            return torch.cat([self._whole_beam(row[row > 0][None]) for row in rows])
        states = self.model.last_states(rows)
        if self.tree is None:
            return self._logits(states)
        scores = decoding.exact_scores(self.model.head, states, self.tree)
        if self.model.items is None:
            return scores
        return self.model.config.w_codes * scores + self._logits(states).log_softmax(-1)

    def _rows(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Int[Tensor, "B T"]:
        """The last events of users' histories, as many as the model reads, 0 pads."""
        sizes = np.minimum(np.diff(history.offsets)[users], self.model.config.history)
        return gather_padded(history.items, history.offsets[users + 1] - sizes, sizes).to(self.device)

    @torch.inference_mode()
    def ranking_scores(
        self, history: Sequences, users: Int[np.ndarray, "B"], targets: Int[np.ndarray, "B"], k: int = 20
    ) -> Float[Tensor, "B rows"]:
        """`scores`, but -inf for items that change neither the rank of a user's target nor a list of the best k.

        Those are below the target and below the k-th of a beam without the history's items, which a list of k has at
        least; on a wide catalogue most of the tree is then never visited. Equal to `scores` where items have logits.
        """
        if self.tree is None or self.model.items is not None or self.by_beam:
            return self.scores(history, users)
        starts = history.offsets[users]
        masked = gather_padded(history.items, starts, history.offsets[users + 1] - starts).to(self.device)
        states = self.model.last_states(self._rows(history, users))
        head, tree = self.model.head, self.tree
        best = decoding.beam_search(decoding.Frontier(head, states), tree, k, masked)[1]
        least = best.topk(k, dim=1).values[:, -1] if best.shape[1] >= k else states.new_full((len(users),), -torch.inf)
        own = decoding.leaf_scores(head, states, tree, tree.leaf[torch.from_numpy(targets).long().to(self.device)])
        return decoding.exact_scores(head, states, tree, torch.minimum(least, own) - SLACK)

    @property
    def by_beam(self) -> bool:
        """Whether histories are read code by code, so that scoring every item takes a beam as wide as the tree."""
        return isinstance(self.model, TokenModel)

    def _whole_beam(self, row: Int[Tensor, "one T"]) -> Float[Tensor, "one rows"]:
        """Scores of every item for one user from a beam that drops nothing."""
        items, scores = self.beam(row, len(self.tree.leaf))
        whole = scores.new_full((1, len(self.tree.leaf)), -torch.inf).scatter(1, items, scores)
        whole[:, 0] = -torch.inf
        return whole

    def _logits(self, states: Float[Tensor, "B D"]) -> Float[Tensor, "B rows"]:
        """Logit of every item row; column 0 is -inf."""
        logits = states @ self.model.item_vectors().T
        logits[:, 0] = -torch.inf
        return logits

    @torch.inference_mode()
    def beam(
        self, rows: Int[Tensor, "B T"], width: int, masked: Tensor | None = None
    ) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (0 where fewer) and scores in nats by beam search; `masked` rows leave the tree first."""
        if self.by_beam:
            return decoding.beam_search(TokenFrontier(self.model, rows), self.tree, width, masked)
        states = self.model.last_states(rows)
        items, scores = decoding.beam_search(decoding.Frontier(self.model.head, states), self.tree, width, masked)
        if self.model.items is None:
            return items, scores
        scores = self.model.config.w_codes * scores + self._logits(states).log_softmax(-1).gather(1, items)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return items.gather(1, order), scores


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
        gone = gather_padded(history.items, history.offsets[asked], sizes).to(recommender.device) if masked else None
        items, scores = recommender.beam(rows.to(recommender.device), evaluation.beam, gone)
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


def item_features(data: Dataset) -> Float[Tensor, "N d"] | None:
    """Scaled features of all modalities side by side, 0 where one is missing; None where the data have no modality.

    Choice: divided by sqrt(d), so that an item's features are about as long as a unit vector whatever their number.
    """
    if not data.features:
        return None
    joined, _ = joined_features(data, list(data.features))
    return torch.from_numpy(joined / np.float32(joined.shape[1] ** 0.5))


def build_recommender(
    n_items: int,
    ids: SemanticIds | None,
    config: RecommenderConfig,
    seed: int,
    features: Float[Tensor, "N d"] | None = None,
    seen: Bool[np.ndarray, "N"] | None = None,
) -> Recommender:
    """A fresh recommender; equal arguments give equal parameters.

    Args: as of `SequenceModel`. seen: item rows that training sees, which `unseen="backoff"` asks for; None is all.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ids is not None and config.output == "codes" and config.granularity == "code":
            model = TokenModel(n_items, ids, config)
        else:
            model = SequenceModel(n_items, ids, config, features)
    tree = None if model.head is None else build_tree(ids.code_ids, seen if config.unseen == "backoff" else None)
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

    It trains on a GPU where there is one, and what is returned ranks there; it starts from the same weights anywhere.

    Args: ids: semantic IDs, or None for SASRec. seed: initialisation and batches.
    Raises: FloatingPointError on a non-finite loss.
    """
    features = item_features(data) if config.features else None
    recommender = build_recommender(data.n_items, ids, config, seed, features, data.train_counts() > 0)
    recommender = recommender.to(best_device())
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
        epochs=epochs_for(config.min_steps, len(task.batches(0)), config.epochs),
        directory=directory,
        evaluate_every=config.evaluate_every,
        patience=config.patience,
    )
    return recommender, history
