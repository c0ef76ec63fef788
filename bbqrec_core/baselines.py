"""Rivals that learn by counting: popularity, and a Markov chain that looks three steps back.

Both are fitted on training events alone (`Dataset.train`) and score evaluation histories through the same ranking as
every model (`metrics.rank_users`).
"""

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Num
from scipy import sparse
from torch import Tensor

from .data import Dataset, Sequences
from .metrics import per_user, rank_users, sample_users

LAG_WEIGHTS = ((1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (1.0, 0.5, 0.25), (1.0, 0.8, 0.6), (1.0, 1.0, 1.0))
PSEUDO_COUNTS = (1.0, 3.0, 10.0, 30.0, 100.0)


class Trial(NamedTuple):
    """One setting of the chain and its validation NDCG@10 (history kept) on the tuning sample."""

    weights: tuple[float, ...]
    pseudo_count: float
    ndcg: float


def _dense(scores: Num[np.ndarray, "B rows"]) -> Float32[Tensor, "B rows"]:
    """Hand scores over as a tensor of their own, with the padding item out of reach."""
    table = torch.from_numpy(scores.astype(np.float32))
    table[:, 0] = -torch.inf
    return table


@dataclass(frozen=True)
class Popularity:
    """Score every item by its number of training events, whoever asks."""

    counts: Int[np.ndarray, "rows"]  # (N+1,), events

    @classmethod
    def fit(cls, data: Dataset) -> "Popularity":
        """Count training events per item; nothing is tuned (one trial)."""
        return cls(data.train_counts())

    def scores(self, history: Sequences, users: slice | Int[np.ndarray, "B"]) -> Float32[Tensor, "B rows"]:
        """Give (B, N+1) scores in events, the same for each user; column 0 is -inf."""
        asked = np.arange(len(history.offsets) - 1)[users]
        return _dense(np.tile(self.counts, (len(asked), 1)))


def transition_counts(train: Sequences, lag: int, n_items: int) -> sparse.csr_array:
    """Count how often item j came `lag` steps after item i in one user's sequence: entry (i, j), (N+1, N+1)."""
    owner = np.repeat(np.arange(len(train.offsets) - 1), np.diff(train.offsets))
    same = owner[lag:] == owner[:-lag]
    pairs = train.items[:-lag][same], train.items[lag:][same]
    ones = np.ones(len(pairs[0]), dtype=np.float64)
    return sparse.coo_array((ones, pairs), shape=(n_items + 1, n_items + 1)).tocsr()  # repeated pairs are summed


def _steps_back(history: Sequences, users: Int[np.ndarray, "B"], lag: int) -> Int[np.ndarray, "B"]:
    """Item `lag` steps before the target (1 = the last of the history), row 0 where the history is shorter."""
    end = history.offsets[users + 1]
    present = end - lag >= history.offsets[users]
    return np.where(present, history.items[np.where(present, end - lag, 0)], 0)


@dataclass(frozen=True)
class Markov:
    """A Markov chain of order three with additive lags.

        score(j) = sum over s = 1..3 of w_s * P_s(j | i_s),   i_s = the item s steps back
        P_s(j | i) = (C_s[i, j] + e * pop(j)) / (sum over j of C_s[i, j] + e)

    C_s counts training pairs s steps apart, pop is the share of training events, e the pseudo-count (in transitions)
    that pulls rare items towards popularity. An item never followed, and a step before the history began, count as
    pop alone, so an empty history falls back to `Popularity`'s order.

    Source: the strong simple rival named in method.md; form and grid are ours.
    """

    weights: tuple[float, ...]  # w_s, unitless
    pseudo_count: float  # e, transitions
    shares: Float[np.ndarray, "rows"]  # pop, sums to 1
    counts: tuple[sparse.csr_array, ...]  # C_s, (N+1, N+1) each
    trials: tuple[Trial, ...] = field(default=())  # all that was tried

    @classmethod
    def fit(cls, data: Dataset) -> "Markov":
        """Count transitions on training events, then choose weights and pseudo-count on validation.

        25 trials: `LAG_WEIGHTS` (orders 1 to 3) x `PSEUDO_COUNTS`, the first best by mean NDCG@10 with the history kept
        on the fixed sample of at most 2,000 users (`metrics.sample_users`). Test events are never looked at.

        Returns: the chosen chain, with every trial in `trials`.
        """
        train, popularity = data.train(), data.train_counts()
        shares = popularity / popularity.sum()
        counts = tuple(transition_counts(train, lag, data.n_items) for lag in range(1, len(LAG_WEIGHTS[0]) + 1))
        history, targets, users = data.history("valid"), data.targets("valid"), sample_users(data.n_users)
        trials = []
        for weights, pseudo_count in itertools.product(LAG_WEIGHTS, PSEUDO_COUNTS):
            chain = cls(weights, pseudo_count, shares, counts)
            ranks = rank_users(chain.scores, history, targets, users, kinds=("kept",))["kept"]
            trials.append(Trial(weights, pseudo_count, float(per_user(ranks)["ndcg@10"].mean())))
        best = max(trials, key=lambda trial: trial.ndcg)
        return cls(best.weights, best.pseudo_count, shares, counts, tuple(trials))

    def scores(self, history: Sequences, users: slice | Int[np.ndarray, "B"]) -> Float32[Tensor, "B rows"]:
        """Give (B, N+1) scores: probabilities summed with the weights, unitless; column 0 is -inf."""
        asked = np.arange(len(history.offsets) - 1)[users]
        table = np.zeros((len(asked), len(self.shares)))
        for lag, (weight, counts) in enumerate(zip(self.weights, self.counts, strict=True), start=1):
            followed = counts[_steps_back(history, asked, lag)]  # (B, N+1), sparse; row 0 is empty
            scale = weight / (followed.sum(1) + self.pseudo_count)  # (B,)
            table += scale[:, None] * (followed.toarray() + self.pseudo_count * self.shares)
        return _dense(table)
