"""Ranking metrics over the full catalogue, segments of users, and paired comparisons of two recommenders.

The unit of everything here is one user with one target item. A score table is ranked once (`rank_scores`, or
`ranks_from_lists` for beam search); every metric, mean and interval follows from the `Ranks` that come out.
Scores, lists and rows may be renumbered freely: no metric depends on an item's number.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int32
from torch import Tensor
from torch.nn import functional

from .data import Dataset, Sequences

RECALL_AT = (1, 5, 10, 20)
NDCG_AT = (5, 10, 20)
LIST_AT = 10
Scorer = Callable[[Sequences, Int[np.ndarray, "B"]], Float[Tensor, "B rows"]]  # (histories, users) -> scores


class Ranks(NamedTuple):
    """Where each user's target landed, one row per user; a tie is kept as a tie, not broken."""

    greater: Int32[np.ndarray, "U"]  # items scored strictly above the target
    ties: Int32[np.ndarray, "U"]  # items scored exactly as the target, itself included; 0: the target is not retrieved
    top: Int32[np.ndarray, "U k"]  # recommended item rows, best first; 0 where there are fewer


class Interval(NamedTuple):
    """A paired comparison: mean difference a - b in metric units, its 95 % bounds, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


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


def mask_history(
    scores: Float[Tensor, "B rows"], history: Sequences, users: Int[np.ndarray, "B"]
) -> Float[Tensor, "B rows"]:
    """Copy scores with -inf on every item of the user's history: `history = masked` in the tables."""
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
    kinds: tuple[str, ...] = ("kept", "masked"),
    batch: int = 256,
) -> dict[str, Ranks]:
    """Score users batch by batch, once, and rank with the history kept in the catalogue and masked out of it.

    Args:
        scorer: gives (B, N+1) scores for the users it is handed; column 0 is ignored.
        history: evaluation histories of all users; targets: (U,), their item rows; users: (S,), who is scored.
        kinds: which of "kept" and "masked" to rank; batch: users scored at a time, without effect on the result.
    Returns: Ranks for each kind, in the order of `users`.
    Raises: ValueError for another kind.
    """
    if unknown := set(kinds) - {"kept", "masked"}:
        raise ValueError(f"history must be kept or masked, got {sorted(unknown)}")
    parts: dict[str, list[Ranks]] = {kind: [] for kind in kinds}
    for start in range(0, len(users), batch):
        some = users[start : start + batch]
        scores = scorer(history, some)
        for kind in kinds:
            ranked = mask_history(scores, history, some) if kind == "masked" else scores
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


def segments(data: Dataset, part: Literal["valid", "test"]) -> dict[str, Bool[np.ndarray, "U"]]:
    """Which users belong to each reported segment.

    - `head items` / `tail items`: the target's training events are at least / below c, where c is the largest count
      such that the items with c or more training events together hold at least half of all training events.
    - `short histories` / `long histories`: the history is at or below / above the median length of this part.
    - `cold items`, where some are held out of training: the target is one of them.

    Returns: `all`, the two pairs and perhaps the last; each pair divides the users, and one side may be empty.
    Choice: a threshold on counts, so that equally popular items are never separated by their number.
    """
    counts = data.train_counts()
    falling = np.sort(counts[1:])[::-1]
    threshold = falling[np.searchsorted(np.cumsum(falling), falling.sum() / 2)]
    head = counts[data.targets(part)] >= threshold
    lengths = np.diff(data.history(part).offsets)
    short = lengths <= np.median(lengths)
    return {
        "all": np.ones_like(head),
        "head items": head,
        "tail items": ~head,
        "short histories": short,
        "long histories": ~short,
        **({} if data.cold is None else {"cold items": data.cold[data.targets(part)]}),
    }


def list_metrics(top: Int[np.ndarray, "U k"], counts: Int[np.ndarray, "rows"]) -> dict[str, float]:
    """What the recommended lists of all users look like together, whoever the targets were.

    Args: top: recommended rows, best first, 0 where fewer. counts: (N+1,), training events per item.
    Returns:
        coverage@10: share of the catalogue recommended to at least one user, in [0, 1];
        gini@10: inequality of exposure, 0 (all items alike) to 1 - 1/N (one item takes all);
        popularity@10: mean training events of a recommended item, in events.
    Raises: ValueError for lists shorter than 10 or without any item.
    """
    shown = top[:, :LIST_AT][top[:, :LIST_AT] > 0]
    if top.shape[1] < LIST_AT or not len(shown):
        raise ValueError(f"need lists of {LIST_AT} rows, not all empty, got {top.shape=} with {len(shown)} items")
    n_items = len(counts) - 1
    exposure = np.sort(np.bincount(shown, minlength=n_items + 1)[1:])
    place = np.arange(1, n_items + 1)
    return {
        f"coverage@{LIST_AT}": float((exposure > 0).mean()),
        f"gini@{LIST_AT}": float(((2 * place - n_items - 1) * exposure).sum() / (n_items * exposure.sum())),
        f"popularity@{LIST_AT}": float(counts[shown].mean()),
    }


def paired_bootstrap(
    a: Float[np.ndarray, "*seeds_a U_a"], b: Float[np.ndarray, "*seeds_b U_b"], n: int = 10_000, seed: int = 0
) -> Interval:
    """Compare two recommenders on the same users.

        d[u] = mean over seeds of a[:, u] - mean over seeds of b[:, u]

    Bounds: 2.5 and 97.5 percentiles of mean(d) over users drawn with replacement. p-value: paired randomisation, the
    signs of d flipped at random, p = (1 + #{|flipped mean| >= |mean|}) / (n + 1), never below 1 / (n + 1).

    Args: a, b: one metric per user, (seeds, U) or (U,), users in the same order. n: draws of each kind. seed: of both.
    Returns: Interval. It speaks of other users like these, for the models at hand: seeds are averaged, not resampled.
    Raises: ValueError for different users, no users, values that are not finite, or n below 1.
    """
    if a.shape[-1] != b.shape[-1] or not a.size or not b.size or n < 1:
        raise ValueError(f"need the same users on both sides and n >= 1, got {a.shape=}, {b.shape=}, {n=}")
    difference = np.atleast_2d(a).mean(0) - np.atleast_2d(b).mean(0)
    if bad := int((~np.isfinite(difference)).sum()):
        raise ValueError(f"{bad} of {len(difference)} users have values that are not finite; compare finished runs")
    draw, flip = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    users, moved = len(difference), difference[difference != 0]  # a zero keeps its value whatever its sign
    means, extreme = [], 0
    edge = abs(difference.sum()) * (1 - 1e-12)  # rounding must not lose the flips that equal what was observed
    step = max(1, 2**21 // users)  # 16 MiB of draws at a time
    for start in range(0, n, step):
        rows = min(step, n - start)
        means.append(difference[draw.integers(users, size=(rows, users))].mean(1))
        signs = 2.0 * flip.integers(2, size=(rows, len(moved)), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ moved) >= edge).sum())
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(difference.mean()), float(low), float(high), (1 + extreme) / (n + 1))


def holm(p_values: Float[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    """Adjust the p-values of m tests for being m (Holm's step-down); p_(1) is the smallest.

        adjusted_(i) = max over j <= i of min(1, (m - j + 1) * p_(j))

    Returns: adjusted values in the order given; rejecting those below alpha keeps the family-wise error below alpha.
    Raises: ValueError for a value outside [0, 1].
    """
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p_values.tolist()}")
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
