"""Ranking metrics over the full catalogue.

The unit of everything here is one user with one target item. A score table is ranked once (`rank_scores`, or
`ranks_from_lists` for beam search); every metric, mean and interval follows from the `Ranks` that come out.
Scores, lists and rows may be renumbered freely: no metric depends on an item's number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int32
from torch import Tensor
from torch.nn import functional

from .dataset import Sequences

RECALL_AT = (1, 5, 10, 20)
NDCG_AT = (5, 10, 20)
Scorer = Callable[[Sequences, Int[np.ndarray, "B"]], Float[Tensor, "B rows"]]  # (histories, users) -> scores


class Ranks(NamedTuple):
    """Where each user's target landed, one row per user; a tie is kept as a tie, not broken."""

    greater: Int32[np.ndarray, "U"]  # items scored strictly above the target
    ties: Int32[np.ndarray, "U"]  # items scored exactly as the target, itself included; 0: the target is not retrieved
    top: Int32[np.ndarray, "U k"]  # recommended item rows, best first; 0 where there are fewer


def _top(scores: Float[Tensor, "B W"], rows: Int[Tensor, "B W"], k: int) -> Int[Tensor, "B k"]:
    """Rows of the k best scores; among equals the leftmost columns win, which `topk` alone does not promise."""
    width = min(k, scores.shape[1])
    kth = scores.topk(width, dim=1).values[:, -1:]
    line, column = (scores >= kth).nonzero(as_tuple=True)  # at least `width` per line: those level with the last stay
    order = scores[line, column].argsort(descending=True, stable=True)
    order = order[line[order].argsort(stable=True)]  # by line, then best first, then left to right
    size = line.bincount(minlength=len(scores))
    first = size.cumsum(0) - size
    columns = column[order[first[:, None] + torch.arange(width, device=scores.device)]]  # (B, width)
    best = rows.gather(1, columns).masked_fill(scores.gather(1, columns) == -torch.inf, 0)
    return functional.pad(best, (0, k - width))


def _ranks(scores: Float[Tensor, "B W"], target: Float[Tensor, "B 1"], rows: Int[Tensor, "B W"], k: int) -> Ranks:
    """Count what stands above and level with each target's score; a target at -inf is not retrieved."""
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} scores are NaN and cannot be ranked; look for a diverged model")
    greater = (scores > target).sum(1)
    ties = (scores == target).sum(1).masked_fill(target[:, 0] == -torch.inf, 0)
    return Ranks(*(part.to("cpu", torch.int32).numpy() for part in (greater, ties, _top(scores, rows, k))))


def rank_scores(scores: Float[Tensor, "B rows"], targets: Int[np.ndarray | Tensor, "B"], k: int = 20) -> Ranks:
    """Rank each user's target among all items.

        greater[b] = #{j : scores[b, j] > scores[b, target_b]},  ties[b] = #{j : scores[b, j] = scores[b, target_b]}

    Args:
        scores: (B, N+1), any monotone unit; column 0 (padding) is ignored, excluded items hold -inf.
        targets: (B,), item rows 1..N.
        k: length of the recommended list kept in `top`.
    Returns: Ranks of B users, on the CPU.
    Raises: ValueError for a target outside 1..N or a NaN score.
    Choice: a target that was itself excluded (-inf) counts as not retrieved; equal scores enter `top` by lower row,
        which favours nobody since rows are permuted at load.
    """
    aim = torch.as_tensor(targets, device=scores.device).long()
    n_items = scores.shape[1] - 1
    wrong = aim[(aim < 1) | (aim > n_items)]
    if len(wrong):
        raise ValueError(f"target row {int(wrong[0])} is outside 1..{n_items}; pass item rows, not item ids")
    rows = torch.arange(1, n_items + 1, device=scores.device).expand(len(scores), -1)
    return _ranks(scores[:, 1:], scores.gather(1, aim[:, None]), rows, k)


def ranks_from_lists(
    lists: Int[Tensor, "B W"], targets: Int[np.ndarray | Tensor, "B"], scores: Float[Tensor, "B W"], k: int = 20
) -> Ranks:
    """Rank each user's target within a beam's candidates: missing means not retrieved, so every metric is zero.

    Args:
        lists: (B, W), distinct item rows in any order, 0 where the beam found fewer.
        targets: (B,), item rows 1..N.
        scores: (B, W), log-probabilities in nats (or any monotone unit) of the listed items.
        k: length of the recommended list kept in `top`.
    Returns: Ranks; `greater` counts listed items only. Items that share an ID must be listed together, or the ties cut
        off by the beam's edge are not counted.
    Raises: ValueError for an item listed twice for one user, or a NaN score.
    """
    lists, order = lists.sort(dim=1)  # by row, so that equal scores meet the same rule as in `rank_scores`
    twice = (lists[:, 1:] == lists[:, :-1]) & (lists[:, 1:] > 0)
    if twice.any():
        raise ValueError(f"item row {int(lists[:, 1:][twice][0])} is listed twice for a user; merge its beams first")
    scores = scores.gather(1, order).masked_fill(lists == 0, -torch.inf)
    found = lists == torch.as_tensor(targets, device=lists.device)[:, None]
    return _ranks(scores, scores.masked_fill(~found, -torch.inf).amax(1, keepdim=True), lists, k)


def concat_ranks(parts: Sequence[Ranks]) -> Ranks:
    """Join the Ranks of consecutive batches. Raises: ValueError when there is none."""
    if not parts:
        raise ValueError("got no Ranks to join; rank at least one batch of users")
    return Ranks(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def filter_seen(
    scores: Float[Tensor, "B rows"], history: Sequences, users: Int[np.ndarray, "B"]
) -> Float[Tensor, "B rows"]:
    """Copy scores with -inf on every item of the user's history: `seen_items = filtered` in the tables."""
    lengths = np.diff(history.offsets)[users]
    line = np.repeat(np.arange(len(users)), lengths)
    first = history.offsets[users] - (np.cumsum(lengths) - lengths)  # so that first[line] + arange walks each history
    items = history.items[first[line] + np.arange(len(line))]
    masked = scores.clone()
    masked[torch.from_numpy(line), torch.from_numpy(items).long()] = -torch.inf
    return masked


def rank_users(
    scorer: Scorer,
    history: Sequences,
    targets: Int[np.ndarray, "U"],
    users: Int[np.ndarray, "S"],
    kinds: tuple[str, ...] = ("included", "filtered"),
    batch: int = 256,
) -> dict[str, Ranks]:
    """Score users batch by batch, once, and rank with the seen items included in the catalogue and masked out of it.

    Args:
        scorer: gives (B, N+1) scores for the users it is handed; column 0 is ignored.
        history: evaluation histories of all users; targets: (U,), their item rows; users: (S,), who is scored.
        kinds: which of "included" and "filtered" to rank; batch: users scored at a time, without effect on the result.
    Returns: Ranks for each kind, in the order of `users`.
    Raises: ValueError for another kind.
    """
    if unknown := set(kinds) - {"included", "filtered"}:
        raise ValueError(f"seen items must be included or filtered, got {sorted(unknown)}")
    parts: dict[str, list[Ranks]] = {kind: [] for kind in kinds}
    for start in range(0, len(users), batch):
        some = users[start : start + batch]
        scores = scorer(history, some)
        for kind in kinds:
            ranked = filter_seen(scores, history, some) if kind == "filtered" else scores
            parts[kind].append(rank_scores(ranked, targets[some]))
    return {kind: concat_ranks(ranks) for kind, ranks in parts.items()}


def sample_users(n_users: int, limit: int = 2000) -> Int[np.ndarray, "S"]:
    """Draw the fixed, sorted sample of at most `limit` users on which training stops and baselines are tuned."""
    return np.sort(np.random.default_rng(0).choice(n_users, min(limit, n_users), replace=False))


def per_user(ranks: Ranks) -> dict[str, Float64[np.ndarray, "U"]]:
    """Recall@{1,5,10,20} and NDCG@{5,10,20} of each user, averaged over the orders of tied items.

        metric@k = (1 / ties) * sum over r = greater+1 .. greater+ties of gain_k(r)
        gain_k(r) = [r <= k] for Recall, [r <= k] / log2(r + 1) for NDCG

    Computed from cumulative gains. This is the mean of the metric, not the metric of the mean rank.

    Args: ranks: one target per user, so Recall is also the hit rate and the ideal DCG is 1.
    Returns: metric name -> values in [0, 1]; zero where the target was not retrieved.
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
