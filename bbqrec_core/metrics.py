"""Ranking metrics over the full catalogue.

One user has one target item. Scores are ranked once (`rank_scores`, or `ranks_from_lists` for beam search), and all
metrics, means and intervals are computed from the resulting `Ranks`. No metric depends on the numbering of items.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32
from torch import Tensor
from torch.nn import functional

from .dataset import Sequences, gather_padded

RECALL_AT = (1, 5, 10, 20)
NDCG_AT = (5, 10, 20)
LISTED = 20  # items of a recommended list that are kept
Scorer = Callable[[Sequences, Int[np.ndarray, "B"]], Float[Tensor, "B rows"]]  # (histories, users) -> scores


class Ranks(NamedTuple):
    """The rank of each user's target, one row per user; ties are kept, not broken."""

    greater: Int32[np.ndarray, "U"]  # items scored strictly above the target
    ties: Int32[np.ndarray, "U"]  # items with the score of the target, including itself; 0: not retrieved
    top: Int32[np.ndarray, "U k"]  # recommended item rows, best first, padded with 0


def _top(scores: Float[Tensor, "B W"], rows: Int[Tensor, "B W"], k: int) -> Int[Tensor, "B k"]:
    """Rows of the k best scores; the leftmost column wins ties, which `topk` does not guarantee."""
    width = min(k, scores.shape[1])
    kth = scores.topk(width, dim=1).values[:, -1:]
    line, column = (scores >= kth).nonzero(as_tuple=True)  # at least `width` per line: ties with the last one stay
    order = scores[line, column].argsort(descending=True, stable=True)
    order = order[line[order].argsort(stable=True)]  # by line, then best first, then left to right
    size = line.bincount(minlength=len(scores))
    first = size.cumsum(0) - size
    columns = column[order[first[:, None] + torch.arange(width, device=scores.device)]]  # (B, width)
    best = rows.gather(1, columns).masked_fill(scores.gather(1, columns) == -torch.inf, 0)
    return functional.pad(best, (0, k - width))


def _ranks(scores: Float[Tensor, "B W"], target: Float[Tensor, "B 1"], rows: Int[Tensor, "B W"], k: int) -> Ranks:
    """Count the scores above and equal to each target's; a target at -inf is not retrieved."""
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} scores are NaN: check whether training diverged")
    greater = (scores > target).sum(1)
    ties = (scores == target).sum(1).masked_fill(target[:, 0] == -torch.inf, 0)
    return Ranks(*(part.to("cpu", torch.int32).numpy() for part in (greater, ties, _top(scores, rows, k))))


def rank_scores(scores: Float[Tensor, "B rows"], targets: Int[np.ndarray | Tensor, "B"], k: int = LISTED) -> Ranks:
    """Rank each user's target among all items.

        greater[b] = #{j : scores[b, j] > scores[b, target_b]},  ties[b] = #{j : scores[b, j] = scores[b, target_b]}

    Args: scores: any monotone unit; column 0 (padding) is ignored, -inf excludes an item. targets: item rows 1..N.
        k: length of the recommended list kept in `top`.
    Raises: ValueError for a target outside 1..N or a NaN score.
    Choice: an excluded target (-inf) counts as not retrieved. `top` orders equal scores by row; rows are permuted at
        load, so this favours no item.
    """
    aim = torch.as_tensor(targets, device=scores.device).long()
    n_items = scores.shape[1] - 1
    wrong = aim[(aim < 1) | (aim > n_items)]
    if len(wrong):
        raise ValueError(f"target row {int(wrong[0])} is outside 1..{n_items}; pass item rows, not item ids")
    rows = torch.arange(1, n_items + 1, device=scores.device).expand(len(scores), -1)
    return _ranks(scores[:, 1:], scores.gather(1, aim[:, None]), rows, k)


def ranks_from_lists(
    lists: Int[Tensor, "B W"], targets: Int[np.ndarray | Tensor, "B"], scores: Float[Tensor, "B W"], k: int = LISTED
) -> Ranks:
    """Rank each user's target among the candidates of a beam; a missing target has all metrics zero.

    Args: lists: distinct item rows in any order, padded with 0; all items that share an ID, or ties are missed.
        targets: item rows 1..N. scores: of the listed items, in any monotone unit. k: as in `rank_scores`.
    Returns: Ranks; `greater` counts listed items only.
    Raises: ValueError for an item listed twice for one user, or a NaN score.
    """
    lists, order = lists.sort(dim=1)  # by row, so that ties have the same order as in `rank_scores`
    twice = (lists[:, 1:] == lists[:, :-1]) & (lists[:, 1:] > 0)
    if twice.any():
        raise ValueError(f"item row {int(lists[:, 1:][twice][0])} is listed twice for a user: merge its beams first")
    scores = scores.gather(1, order).masked_fill(lists == 0, -torch.inf)
    found = lists == torch.as_tensor(targets, device=lists.device)[:, None]
    return _ranks(scores, scores.masked_fill(~found, -torch.inf).amax(1, keepdim=True), lists, k)


def concat_ranks(parts: Sequence[Ranks]) -> Ranks:
    """Concatenate the Ranks of batches. Raises: ValueError if there is none."""
    if not parts:
        raise ValueError("got no Ranks to concatenate: rank at least one batch of users")
    return Ranks(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def filter_seen(
    scores: Float[Tensor, "B rows"], history: Sequences, users: Int[np.ndarray, "B"]
) -> Float[Tensor, "B rows"]:
    """Copy of the scores with -inf for the items of each user's history and for padding."""
    seen = gather_padded(history.items, history.offsets[users], np.diff(history.offsets)[users])
    return scores.scatter(1, seen.to(scores.device), -torch.inf)


def rank_users(
    scorer: Scorer,
    history: Sequences,
    targets: Int[np.ndarray, "U"],
    users: Int[np.ndarray, "S"],
    kinds: tuple[str, ...] = ("included", "filtered"),
    batch: int = 256,
) -> dict[str, Ranks]:
    """Score users in batches, once, and rank with seen items included and filtered.

    Args: history: of all users. targets: their item rows. users: the users to score.
    Returns: Ranks for each kind, in the order of `users`.
    Raises: ValueError for another kind.
    """
    if unknown := set(kinds) - {"included", "filtered"}:
        raise ValueError(f"seen items must be included or filtered, got {sorted(unknown)}")
    shapes = (len(users),), (len(users),), (len(users), LISTED)
    found = {kind: Ranks(*(np.empty(shape, np.int32) for shape in shapes)) for kind in kinds}  # allocated before blocks
    for start in range(0, len(users), batch):
        some = users[start : start + batch]
        scores = scorer(history, some)
        for kind in kinds:
            ranked = filter_seen(scores, history, some) if kind == "filtered" else scores
            for field, values in zip(found[kind], rank_scores(ranked, targets[some]), strict=True):
                field[start : start + batch] = values
    return found


def sample_users(n_users: int, limit: int = 2000) -> Int[np.ndarray, "S"]:
    """The fixed, sorted sample of at most `limit` users for early stopping and for tuning baselines."""
    return np.sort(np.random.default_rng(0).choice(n_users, min(limit, n_users), replace=False))


def per_user(ranks: Ranks) -> dict[str, Float64[np.ndarray, "U"]]:
    """Recall@{1,5,10,20} and NDCG@{5,10,20} per user, averaged over all orders of tied items.

        metric@k = (1 / ties) * sum over r = greater+1 .. greater+ties of gain_k(r)
        gain_k(r) = [r <= k] for Recall, [r <= k] / log2(r + 1) for NDCG

    This is the mean of the metric, not the metric of the mean rank. One target per user: Recall is the hit rate and the
    ideal DCG is 1. Values are in [0, 1], and 0 if the target was not retrieved.
    """
    discount = 1 / np.log2(np.arange(2, max(RECALL_AT + NDCG_AT) + 2))
    wanted = [(f"recall@{k}", np.ones(k)) for k in RECALL_AT] + [(f"ndcg@{k}", discount[:k]) for k in NDCG_AT]
    values = {}
    for name, gain in wanted:
        total = np.concatenate([[0.0], np.cumsum(gain)])
        above = np.minimum(ranks.greater, len(gain))
        through = np.minimum(ranks.greater + ranks.ties, len(gain))
        values[name] = (total[through] - total[above]) / np.maximum(ranks.ties, 1)
    return values
