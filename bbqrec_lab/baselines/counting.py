"""Counting baselines: popularity, item-item cosine, the linear model EASE, and a Markov chain over three items.

All are fitted on training events only (`Dataset.train`). EASE is ranked by the same code as every model
(`metrics.rank_users`), the others by `rank_sparse`, with equal results. Each can be saved into the folder of a run and
loaded from it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy import sparse
from scipy.linalg import lapack
from torch import Tensor

from bbqrec_core import Dataset, Ranks, Sequences, per_user, rank_users
from bbqrec_core.dataset import gather_padded
from bbqrec_core.metrics import sample_users
from bbqrec_lab.baselines.sparse_ranking import EventClasses, SparseScores, event_classes, rank_sparse
from bbqrec_lab.store import load_arrays, save_arrays

LAG_WEIGHTS = ((1.0, 0.0, 0.0), (1.0, 0.5, 0.0), (1.0, 0.5, 0.25), (1.0, 0.8, 0.6), (1.0, 1.0, 1.0))
PSEUDO_COUNTS = (1.0, 3.0, 10.0, 30.0, 100.0)
DECAYS = (1.0, 0.8, 0.6, 0.4, 0.2)
SHRINKAGES = (0.0, 3.0, 10.0, 30.0, 100.0)
NEIGHBOURS = 1000  # kept per item: 50,000 items take at most 600 MB
BLOCK = 256  # items compared with all others at a time
PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0)
DENSE_ITEMS = 30_000  # most items of `Ease`: its table then takes 4 GB, and 11 GB while it is computed


class Trial(NamedTuple):
    """One setting of a baseline and its validation NDCG@10 (primary protocol) on the tuning sample."""

    settings: tuple[float, ...]
    ndcg: float


def valid_ndcg(data: Dataset, ranks_of: Callable[..., dict[str, Ranks]]) -> float:
    """Mean validation NDCG@10, primary protocol, on the fixed sample of at most 2,000 users for tuning."""
    history, targets, users = data.history("valid"), data.targets("valid"), sample_users(data.n_users)
    ranks = ranks_of(history, targets, users, (data.seen_items,))[data.seen_items]
    return float(per_user(ranks)["ndcg@10"].mean())


class SparseBaseline:
    """A baseline with `counts` (N+1,), events of items, whose scores are sparse: its ranks, and scores of all items."""

    counts: Int[np.ndarray, "rows"]

    @cached_property
    def classes(self) -> EventClasses:
        """The items by their number of training events."""
        return event_classes(self.counts)

    def scores(self, history: Sequences, users: slice | Int[np.ndarray, "B"]) -> Float32[Tensor, "B rows"]:
        """Return (B, N+1) scores in the unit of the class; column 0 is -inf."""
        asked = np.arange(len(history.offsets) - 1)[users]
        return self.sparse_scores(history, asked).dense(self.classes)

    def ranks(
        self,
        history: Sequences,
        targets: Int[np.ndarray, "U"],
        users: Int[np.ndarray, "S"],
        kinds: tuple[str, ...] = ("included", "filtered"),
    ) -> dict[str, Ranks]:
        """As `metrics.rank_users` of `scores`, without a score per user and item."""
        return rank_sparse(self.sparse_scores, self.classes, history, targets, users, kinds)


@dataclass(frozen=True)
class Popularity(SparseBaseline):
    """Score every item by its number of training events, the same for every user."""

    counts: Int[np.ndarray, "rows"]  # (N+1,), events
    trials: tuple[Trial, ...] = field(default=())  # empty: nothing is tuned

    @classmethod
    def fit(cls, data: Dataset) -> "Popularity":
        """Count training events per item; nothing is tuned."""
        return cls(data.train_counts())

    def save(self, directory: Path) -> None:
        """Write into `directory`."""
        save_arrays(directory / "popularity.npz", counts=self.counts)

    @classmethod
    def load(cls, directory: Path) -> "Popularity":
        """Read what `save` wrote."""
        return cls(load_arrays(directory / "popularity.npz")["counts"])

    def sparse_scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> SparseScores:
        """Scores in events; no item has an own one."""
        nothing = np.zeros(0, np.int64)
        rest = np.tile(self.classes.events.astype(np.float32), (len(users), 1))
        return SparseScores(nothing, nothing, nothing.astype(np.float32), rest)


def transition_counts(train: Sequences, lag: int, n_items: int) -> sparse.csr_array:
    """Count how often item j came `lag` steps after item i in a user's sequence: entry (i, j), (N+1, N+1)."""
    owner = np.repeat(np.arange(len(train.offsets) - 1), np.diff(train.offsets))
    same = owner[lag:] == owner[:-lag]
    pairs = train.items[:-lag][same], train.items[lag:][same]
    ones = np.ones(len(pairs[0]), dtype=np.float64)
    return sparse.coo_array((ones, pairs), shape=(n_items + 1, n_items + 1)).tocsr()  # repeated pairs are summed


def _steps_back(history: Sequences, users: Int[np.ndarray, "B"], lag: int) -> Int[np.ndarray, "B"]:
    """Item `lag` steps before the target (1 is the last of the history), row 0 if the history is shorter."""
    end = history.offsets[users + 1]
    present = end - lag >= history.offsets[users]
    return np.where(present, history.items[np.where(present, end - lag, 0)], 0)


@dataclass(frozen=True)
class Markov(SparseBaseline):
    """A Markov chain of order three with additive lags.

        score(j) = sum over s = 1..3 of w_s * P_s(j | i_s),   i_s = the item s steps back
        P_s(j | i) = (C_s[i, j] + e * pop(j)) / (sum over j of C_s[i, j] + e)

    C_s counts training pairs s steps apart, pop is the share of training events, e the pseudo-count (in transitions)
    that pulls rare items towards popularity. An item without a successor, and a step before the start of the history,
    give pop only, so an empty history gives the order of `Popularity`.

    Choice: three steps; the form and the grid of settings are ours.
    """

    weights: tuple[float, ...]  # w_s, unitless
    pseudo_count: float  # e, transitions
    counts: Int[np.ndarray, "rows"]  # (N+1,), events
    transitions: tuple[sparse.csr_array, ...]  # C_s, (N+1, N+1) each
    trials: tuple[Trial, ...] = field(default=())  # all settings that were tried

    @classmethod
    def fit(cls, data: Dataset) -> "Markov":
        """Count transitions on training events, then choose weights and pseudo-count on validation.

        25 trials: `LAG_WEIGHTS` (orders 1 to 3) x `PSEUDO_COUNTS`. The first with the best mean NDCG@10 in the
        primary protocol (`Dataset.seen_items`), on the
        fixed sample of at most 2,000 users (`metrics.sample_users`) wins. Test events are not used.

        Returns: the chosen chain, with every trial in `trials`.
        """
        train, counts = data.train(), data.train_counts()
        lags = range(1, len(LAG_WEIGHTS[0]) + 1)
        transitions = tuple(transition_counts(train, lag, data.n_items) for lag in lags)
        trials = []
        for weights, pseudo_count in itertools.product(LAG_WEIGHTS, PSEUDO_COUNTS):
            chain = cls(weights, pseudo_count, counts, transitions)
            trials.append(Trial((*weights, pseudo_count), valid_ndcg(data, chain.ranks)))
        *weights, pseudo_count = max(trials, key=lambda trial: trial.ndcg).settings
        return cls(tuple(weights), pseudo_count, counts, transitions, tuple(trials))

    def save(self, directory: Path) -> None:
        """Write the chosen chain into `directory`, without its trials."""
        numbers = {"weights": np.array(self.weights), "pseudo_count": np.array(self.pseudo_count)}
        save_arrays(directory / "markov.npz", counts=self.counts, **numbers)
        for lag, counts in enumerate(self.transitions):
            sparse.save_npz(directory / f"markov_{lag}.npz", counts)

    @classmethod
    def load(cls, directory: Path) -> "Markov":
        """Read what `save` wrote."""
        saved = load_arrays(directory / "markov.npz")
        transitions = tuple(sparse.load_npz(directory / f"markov_{lag}.npz") for lag in range(len(saved["weights"])))
        return cls(tuple(saved["weights"]), float(saved["pseudo_count"]), saved["counts"], transitions)

    def sparse_scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> SparseScores:
        """Weighted sums of probabilities, unitless; items that followed none of the last three have no own score."""
        total, n_rows, lags = self.counts.sum(), len(self.counts), []
        for lag, (weight, counts) in enumerate(zip(self.weights, self.transitions, strict=True), start=1):
            if weight:
                followed = counts[_steps_back(history, users, lag)].tocoo()  # (B, N+1); row 0 is empty
                lags.append((followed, weight / (followed.sum(1) + self.pseudo_count)))
        pairs = np.concatenate([followed.row.astype(np.int64) * n_rows + followed.col for followed, _ in lags])
        pairs, where = np.unique(pairs, return_inverse=True)
        user, row = np.divmod(pairs, n_rows)
        value, rest, start = np.zeros(len(pairs)), np.zeros((len(users), len(self.classes.events))), 0
        pull, pull_by_class = (self.pseudo_count * (n / total) for n in (self.counts[row], self.classes.events))
        for followed, scale in lags:
            found = np.zeros(len(pairs))
            found[where[start : start + followed.nnz]] = followed.data
            value += scale[user] * (found + pull)
            rest += scale[:, None] * pull_by_class
            start += followed.nnz
        return SparseScores(user, row, value.astype(np.float32), rest.astype(np.float32))


def _item_sets(train: Sequences, n_items: int) -> sparse.csr_array:
    """Whether each user has each item, (U, N+1), 1 or 0; a repeated item is in the set once."""
    owner = np.repeat(np.arange(len(train.offsets) - 1, dtype=np.int32), np.diff(train.offsets))
    sets = sparse.coo_array((np.ones(len(owner)), (owner, train.items)), shape=(len(train.offsets) - 1, n_items + 1))
    sets = sets.tocsr()
    sets.data[:] = 1
    return sets


def _decayed_counts(history: Sequences, users: Int[np.ndarray, "B"], decay: float, n_items: int) -> sparse.csr_array:
    """Events of each item in each history, (B, N+1), an event weighted by decay^back; back is 0 for the last event."""
    sizes = np.diff(history.offsets)[users]
    rows = gather_padded(history.items, history.offsets[users], sizes).numpy()  # (B, T), padded on the right
    back = sizes[:, None] - 1 - np.arange(rows.shape[1])
    line, place = np.nonzero(back >= 0)
    shape = (len(users), n_items + 1)
    return sparse.coo_array((decay ** back[line, place], (line, rows[line, place])), shape=shape).tocsr()


def item_cosines(train: Sequences, n_items: int, shrinkage: float, neighbours: int) -> sparse.csr_array:
    """Cosine similarity of items as sets of users, shrunk: (N+1, N+1), zero between an item and itself.

        s(i, j) = n_ij / (sqrt(n_i * n_j) + shrinkage),   n_ij users with both items, n_i users with item i

    It is computed in blocks of items, so no table of all pairs is needed.

    Args: shrinkage: in users; it reduces cosines of few users. neighbours: number of largest entries kept per row;
        entries equal to the last of them are kept too, so the numbers of items do not decide.
    """
    sets = _item_sets(train, n_items)
    length, of_item = np.sqrt(sets.sum(0)), sets.T.tocsr()
    blocks = []
    for start in range(0, n_items + 1, BLOCK):
        both = (of_item[start : start + BLOCK] @ sets).tocoo()
        shape, other = both.shape, both.row + start != both.col
        row, column = both.row[other], both.col[other]
        cosine = both.data[other] / (length[row + start] * length[column] + shrinkage)
        stay = _largest(row, cosine, neighbours)
        blocks.append(sparse.coo_array((cosine[stay], (row[stay], column[stay])), shape=shape).tocsr())
    return sparse.vstack(blocks).tocsr()


def _largest(row: Int[np.ndarray, "n"], value: Float[np.ndarray, "n"], keep: int) -> Bool[np.ndarray, "n"]:
    """Whether each entry is among the `keep` largest of its row, or equal to the least of them."""
    order, size = np.lexsort((-value, row)), np.bincount(row)
    least = np.cumsum(size) - size + np.minimum(size, keep) - 1  # position in `order` of the last kept entry per row
    return value >= value[order][least[row]]


@dataclass(frozen=True)
class ItemKnn(SparseBaseline):
    """Item-item cosine: items that share users with the items of the history; later items count more.

        score(j) = sum over the history's events i of decay^back(i) * s(i, j),   back = 0 for the last event

    s is that of `item_cosines`. Items that share no user with the history rank below all others, by popularity:
    they score -1 / (1 + training events), so an empty history gives the order of `Popularity`.

    Source: Deshpande and Karypis 2004 (item-based top-N), cosine; decay and grid are ours.
    """

    decay: float  # unitless; 1 ignores the order
    similar: sparse.csr_array  # s, (N+1, N+1)
    counts: Int[np.ndarray, "rows"]  # (N+1,), events
    trials: tuple[Trial, ...] = field(default=())  # all settings that were tried

    @classmethod
    def fit(cls, data: Dataset) -> "ItemKnn":
        """Compute cosines on training events, then choose shrinkage and decay on validation.

        25 trials: `SHRINKAGES` x `DECAYS`, chosen as for `Markov`. Test events are not used.

        Returns: the chosen model, with every trial (shrinkage, decay) in `trials`.
        """
        trials, train, counts = [], data.train(), data.train_counts()
        for shrinkage in SHRINKAGES:
            similar = item_cosines(train, data.n_items, shrinkage, NEIGHBOURS)
            for decay in DECAYS:
                trials.append(Trial((shrinkage, decay), valid_ndcg(data, cls(decay, similar, counts).ranks)))
        shrinkage, decay = max(trials, key=lambda trial: trial.ndcg).settings
        return cls(decay, item_cosines(train, data.n_items, shrinkage, NEIGHBOURS), counts, tuple(trials))

    def sparse_scores(self, history: Sequences, users: Int[np.ndarray, "B"]) -> SparseScores:
        """Cosines summed with decaying weights, unitless; items that share no user with the history have no own."""
        table = (_decayed_counts(history, users, self.decay, len(self.counts) - 1) @ self.similar).tocoo()
        there = table.data > 0
        user, row, value = (part[there] for part in (table.row, table.col, table.data))
        rest = np.tile((-1 / (1 + self.classes.events)).astype(np.float32), (len(users), 1))
        return SparseScores(user, row, value.astype(np.float32), rest)

    def save(self, directory: Path) -> None:
        """Write the chosen model into `directory`, without its trials."""
        save_arrays(directory / "knn.npz", decay=np.array(self.decay), counts=self.counts)
        sparse.save_npz(directory / "knn_similar.npz", self.similar)

    @classmethod
    def load(cls, directory: Path) -> "ItemKnn":
        """Read what `save` wrote."""
        saved = load_arrays(directory / "knn.npz")
        return cls(float(saved["decay"]), sparse.load_npz(directory / "knn_similar.npz"), saved["counts"])


def ease_weights(together: sparse.sparray, penalty: float) -> Float32[np.ndarray, "rows rows"]:
    """The weights of EASE in closed form, (N+1, N+1), unitless; the diagonal is 0.

        P = (X'X + penalty * I)^-1,   B = I - P diag(P)^-1

    Each column j of B minimises |x_j - X b|^2 + penalty * |b|^2 under b_j = 0.

    Args: together: X'X, users with both items, (N+1, N+1). penalty: lambda, in users, above 0.
    Source: Steck 2019, the closed form of section 3.
    Choice: a Cholesky inverse in float64 that overwrites one table, so it needs no second table of that size.
    """
    table = together.toarray(order="F").astype(np.float64, copy=False)
    table.flat[:: len(table) + 1] += penalty
    table, wrong = lapack.dpotrf(table, lower=1, overwrite_a=1)
    assert wrong == 0, "the penalty makes the matrix positive definite"
    table, _ = lapack.dpotri(table, lower=1, overwrite_c=1)
    for row in range(len(table)):
        table[row, row + 1 :] = table[row + 1 :, row]  # only the lower half was written
    table /= -table.diagonal().copy()
    np.fill_diagonal(table, 0)
    return table.astype(np.float32, order="C")


@dataclass(frozen=True)
class Ease:
    """EASE: a linear model from the items of the history to all items; later items count more.

        score(j) = sum over the history's events i of decay^back(i) * B[i, j],   back = 0 for the last event

    B is that of `ease_weights` on training events; it can be negative. Items whose score is exactly 0 share no chain of
    users with the history. They rank below all others, by popularity: their score is the user's least score minus
    1 / (1 + training events), so an empty history gives the order of `Popularity`.

    Source: Steck 2019 (WWW, arXiv 1905.03375).
    Choice: decay and grid are ours; decay 1 is EASE as published, up to repeated events, which count each time.
    """

    decay: float  # unitless; 1 ignores the order
    weights: Float32[np.ndarray, "rows rows"]  # B, (N+1, N+1)
    counts: Int[np.ndarray, "rows"]  # (N+1,), events
    trials: tuple[Trial, ...] = field(default=())  # all settings that were tried

    @classmethod
    def fit(cls, data: Dataset) -> "Ease":
        """Solve for B on training events, then choose penalty and decay on validation.

        25 trials: `PENALTIES` x `DECAYS`, chosen as for `Markov`. Test events are not used.

        Returns: the chosen model, with every trial (penalty, decay) in `trials`.
        Raises: ValueError for more than `DENSE_ITEMS` items.
        """
        if data.n_items > DENSE_ITEMS:
            remedy = "raise data.k_core, or use item-knn, which keeps a few neighbours per item"
            raise ValueError(
                f"EASE holds all pairs of items, at most {DENSE_ITEMS} items, got {data.n_items}: {remedy}"
            )
        trials, sets, counts = [], _item_sets(data.train(), data.n_items), data.train_counts()
        together = sets.T @ sets
        for penalty in PENALTIES:
            weights = ease_weights(together, penalty)
            for decay in DECAYS:
                trials.append(Trial((penalty, decay), valid_ndcg(data, cls(decay, weights, counts).ranks)))
        penalty, decay = max(trials, key=lambda trial: trial.ndcg).settings
        return cls(decay, ease_weights(together, penalty), counts, tuple(trials))

    def scores(self, history: Sequences, users: slice | Int[np.ndarray, "B"]) -> Float32[Tensor, "B rows"]:
        """Return (B, N+1) scores: weights summed with decay, unitless; column 0 is -inf."""
        asked = np.arange(len(history.offsets) - 1)[users]
        events = _decayed_counts(history, asked, self.decay, len(self.counts) - 1)
        table = events.astype(np.float32) @ self.weights  # in float64, each call would copy the weights
        below = (table.min(1, keepdims=True) - 1 / (1 + self.counts)).astype(np.float32)
        table = torch.from_numpy(np.where(table != 0, table, below))
        table[:, 0] = -torch.inf
        return table

    def ranks(
        self,
        history: Sequences,
        targets: Int[np.ndarray, "U"],
        users: Int[np.ndarray, "S"],
        kinds: tuple[str, ...] = ("included", "filtered"),
    ) -> dict[str, Ranks]:
        """Ranks by the scores of all items."""
        return rank_users(self.scores, history, targets, users, kinds)

    def save(self, directory: Path) -> None:
        """Write the chosen model into `directory`, without its trials."""
        save_arrays(directory / "ease.npz", decay=np.array(self.decay), counts=self.counts, weights=self.weights)

    @classmethod
    def load(cls, directory: Path) -> "Ease":
        """Read what `save` wrote."""
        saved = load_arrays(directory / "ease.npz")
        return cls(float(saved["decay"]), saved["weights"], saved["counts"])
