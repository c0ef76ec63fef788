"""Train a sequence model, and rank items with it by exact scores or by beam search over IDs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import AdamW

from ..config import EvaluationConfig, RecommenderConfig
from ..dataset import Dataset, Sequences, gather_padded, history_batches, window_batches, windows
from ..metrics import LISTED, Ranks, concat_ranks, per_user, rank_users, ranks_from_lists, sample_users
from ..tokenizer.semantic_ids import PrefixTree, SemanticIds, build_tree
from ..training import Report, Task, TrainingLog, best_device, epochs_for, fit
from .decoding import Rankable, beam_search
from .sequence_model import SequenceModel

TRUSTS = (0.5, 1.0, 2.0, 0.7, 1.4, 4.0, 0.25, 0.1)  # weights of the transformer beside score reweighting
EARLY = 3  # how many of them each evaluation of a model with item vectors tries; others rank slower and try one
ROUNDING = 1e-3  # nats, above the rounding error of sums in another order
WIDER = 4  # candidates of a beam that both heads rank, per item of the list
OFFSET_USERS, OFFSET_NUMBERS = 64, 2**20  # per step of training it; users x items at most
OFFSET_RATE, OFFSET_DECAY = 0.1, 0.3  # peak learning rate and weight decay of its tables
ModelMaker = Callable[[int, SemanticIds | None, RecommenderConfig], SequenceModel]


@dataclass(frozen=True)
class Recommender:
    """A trained sequence model that scores and ranks items.

        score = log p(ID), or the item's logit, or with both heads w_codes log p(ID) + log softmax(logits)[item]

    Choice: with both heads, the beam finds candidates by their IDs alone and ranks them by the sum, so beam and exact
        scores are equal.
    """

    model: SequenceModel  # in eval mode
    tree: PrefixTree | None  # of the IDs; None if the model generates none

    @property
    def device(self) -> torch.device:
        """The device of the model, the tree, and all scores and lists."""
        return self.model.position.weight.device

    def to(self, device: torch.device | str) -> "Recommender":
        """Move model and tree to a device."""
        return Recommender(self.model.to(device), None if self.tree is None else self.tree.to(device))

    @torch.inference_mode()
    def scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Float[Tensor, "B rows"]:
        """Exact scores (B, N+1) of every item for users' histories, in nats with codes; column 0 is -inf."""
        return self._scores(self.model.prompt(self._rows(history, users)))

    @torch.inference_mode()
    def ranking_scores(
        self, history: Sequences, users: Int[np.ndarray, "B"], k: int = LISTED
    ) -> Float[Tensor, "B rows"]:
        """`scores`, but possibly -inf for items below the k-th best unseen one, which no list or metric at k shows.

        These are most of a large catalogue, and the prefixes above them are not extended. A beam finds k good items.
        """
        prompt, sizes = self.model.prompt(self._rows(history, users)), np.diff(history.offsets)[users]
        if self.tree is None:
            return self._scores(prompt)
        seen = gather_padded(history.items, history.offsets[users], sizes).to(self.device)
        best = self._beam(prompt, k if prompt.items is None else WIDER * k, seen)[1]
        return self._scores(prompt, best.topk(k).values[:, -1] - ROUNDING if best.shape[1] >= k else None)

    def _scores(self, prompt: Rankable, floor: Float[Tensor, "B"] | None = None) -> Float[Tensor, "B rows"]:
        """Exact scores; items below the floor of a user may be -inf."""
        if self.tree is None:
            return prompt.items
        if prompt.items is None:
            return prompt.id_scores(self.tree, floor)
        items, share = prompt.items.log_softmax(-1), self.model.config.w_codes
        return share * prompt.id_scores(self.tree, None if floor is None else floor / share, items / share) + items

    def _rows(self, history: Sequences, users: Int[np.ndarray, "B"]) -> Int[Tensor, "B T ..."]:
        """The last events of each history, as many as the model reads, 0 pads."""
        sizes = np.minimum(np.diff(history.offsets)[users], self.model.config.max_events)
        return gather_padded(history.rows(self.model.timed), history.offsets[users + 1] - sizes, sizes).to(self.device)

    @torch.inference_mode()
    def beam(
        self, rows: Int[Tensor, "B T ..."], width: int, masked: Tensor | None = None
    ) -> tuple[Int[Tensor, "B W"], Float[Tensor, "B W"]]:
        """Best items (0 pads) and scores in nats by beam search, without the `masked` rows."""
        return self._beam(self.model.prompt(rows), width, masked)

    def _beam(self, prompt: Rankable, width: int, masked: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `beam`."""
        items, scores = beam_search(prompt.frontier(), self.tree, width, masked)
        if prompt.items is None:
            return items, scores
        scores = self.model.config.w_codes * scores + prompt.items.log_softmax(-1).gather(1, items)
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
    """Ranks of users' targets in their beams, in the order of `users`; a target outside the beam counts as zero."""
    history, targets, parts, order = data.history(part), data.targets(part), [], []
    length, timed = recommender.model.config.max_events, recommender.model.timed
    for asked, rows in history_batches(history, users, length, evaluation.batch, timed):
        sizes = np.diff(history.offsets)[asked]
        gone = gather_padded(history.items, history.offsets[asked], sizes).to(recommender.device) if masked else None
        items, scores = recommender.beam(rows.to(recommender.device), evaluation.beam, gone)
        parts.append(ranks_from_lists(items, targets[asked], scores))
        order.append(asked)
    back = np.argsort(np.concatenate(order))[np.argsort(np.argsort(users))]
    return Ranks(*(field[back] for field in concat_ranks(parts)))


def early_score(recommender: Recommender, data: Dataset, users: np.ndarray, evaluation: EvaluationConfig) -> float:
    """Validation NDCG@10 of users, primary protocol (`Dataset.seen_items`): by beam, or by the item softmax if any."""
    kind = data.seen_items
    if recommender.model.items is None:
        ranks = beam_ranks(recommender, data, "valid", users, evaluation, kind == "filtered")
    else:
        history, targets = data.history("valid"), data.targets("valid")
        scores = Recommender(recommender.model, None).scores  # codes weigh little beside it and take ten times as long
        ranks = rank_users(scores, history, targets, users, (kind,), evaluation.batch)[kind]
    return float(per_user(ranks)["ndcg@10"].mean())


def build_recommender(
    n_items: int,
    ids: SemanticIds | None,
    config: RecommenderConfig,
    seed: int,
    seen: Bool[np.ndarray, "N"] | None = None,
    make: ModelMaker = SequenceModel,
) -> Recommender:
    """A new recommender; equal arguments give equal parameters.

    Args: seen: item rows that training sees, for `unseen="backoff"`; None is all. make: as `SequenceModel`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make(n_items, ids, config)
    tree = None if model.head is None else build_tree(ids.code_ids, seen if config.unseen == "backoff" else None)
    return Recommender(model.eval(), tree)


def fit_offsets(model: SequenceModel, data: Dataset, seed: int, directory: Path, progress: Report = None) -> None:
    """Count pairs of items in training histories, compare their features, and learn the offsets of score reweighting.

    Choice: they learn before the transformer and apart from it, and `ScoreBias.trust` weighs both. Trained together,
        the transformer overfits what the counts leave over: on ml-100k NDCG was lower than without them.
    """
    scoring, train = model.scoring, data.train()
    scoring.observe(data)
    groups = {"params": [scoring.slope], "lr": OFFSET_RATE / 5, "weight_decay": 0.0}, {"params": [scoring.table]}
    optimizer = AdamW(groups, lr=OFFSET_RATE, weight_decay=OFFSET_DECAY)
    users = max(min(OFFSET_USERS, OFFSET_NUMBERS // len(scoring.events)), 1)

    def batches(epoch: int) -> list[Tensor]:
        return window_batches(train, model.config.max_events, users, (seed, epoch, 1), model.config.score_steps)

    task = Task("score offsets", scoring, [optimizer], batches, scoring.loss)
    epochs = epochs_for(model.config.score_steps, len(batches(0)), 1)
    fit(task, seed, epochs, directory, progress=progress)


def fit_recommender(
    data: Dataset,
    ids: SemanticIds | None,
    config: RecommenderConfig,
    evaluation: EvaluationConfig,
    seed: int,
    directory: Path,
    make: ModelMaker = SequenceModel,
    progress: Report = None,
) -> tuple[Recommender, TrainingLog]:
    """Train stage 2 on training events with early stopping on validation NDCG@10; resumes from `directory`.

    It trains and ranks on a GPU if there is one; the initial weights do not depend on the device. Each evaluation tries
    several `TRUSTS` of score reweighting; the best of all is kept, by more users, with the weights of the best epoch.

    Args: ids: semantic IDs, or None for SASRec. seed: of initial weights and batches. make: as in `build_recommender`.
    Raises: FloatingPointError on a non-finite loss.
    """
    recommender = build_recommender(data.n_items, ids, config, seed, data.train_counts() > 0, make).to(best_device())
    model, sequences = recommender.model, data.train()
    if weighed := model.config.score_reweight:
        fit_offsets(model, data, seed, directory / "offsets", progress)
    per_window = windows(sequences, config.max_events, np.random.default_rng(0))[1].mean()  # targets
    size = max(round(config.batch_events / per_window), 1)
    users, first = sample_users(data.n_users, evaluation.early_users), TRUSTS[: 1 if model.items is None else EARLY]
    groups = [{"params": [value for name, value in model.named_parameters() if name != "scoring.seen"]}]
    if model.scoring is not None:  # `seen` has to move by several nats
        groups.append({"params": [model.scoring.seen], "lr": OFFSET_RATE, "weight_decay": 0.0})
    optimizer = AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def batches(epoch: int) -> list[Tensor]:
        return window_batches(sequences, config.max_events, size, (seed, epoch), config.epoch_steps, model.timed)

    def score(trusts: tuple[float, ...] = first, users: np.ndarray = users) -> float:
        found = []  # a later epoch trusts the transformer more
        for trust in trusts if weighed else (1.0,):
            if model.scoring is not None:
                model.scoring.trust.fill_(trust)
            found.append((early_score(recommender, data, users, evaluation), trust))
        if model.scoring is not None:
            model.scoring.trust.fill_(max(found)[1])
        return max(found)[0]

    name = "sasrec" if ids is None else "recommender"
    task = Task(name, model, [optimizer], batches, model.loss, score, precision=config.precision)
    epochs = epochs_for(config.min_steps, len(batches(0)), config.epochs)
    log = fit(task, seed, epochs, directory, config.evaluate_every, config.patience, progress)
    if weighed:
        many = users if model.items is None else sample_users(data.n_users, 4 * evaluation.early_users)  # less noise
        log.epochs[log.best_epoch - 1] |= {"score": score(TRUSTS, many), "trust": float(model.scoring.trust)}
    return recommender, log
