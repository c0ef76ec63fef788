"""Statistics of the main table: segments, list metrics, intervals, expectations against outcomes, shared hits."""

from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int

from bbqrec_core import Dataset

LIST_AT = 10


class Interval(NamedTuple):
    """A paired comparison: mean difference a - b in metric units, its 95 % bounds, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def segments(data: Dataset, part: Literal["valid", "test"]) -> dict[str, Bool[np.ndarray, "U"]]:
    """The users of each reported segment.

    - `head items` / `tail items`: the target has at least / fewer than c training events. c is the largest count such
      that the items with c or more training events have at least half of all training events.
    - `short histories` / `long histories`: the history is at most / longer than the median length of this part.
    - `cold items`, if some items are held out of training: the target is one of them.

    Returns: `all`, the two pairs, and `cold items` if there are any; each pair divides the users, a side may be empty.
    Choice: a threshold on counts, so equally popular items are never separated by their row number.
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


def slices(data: Dataset, part: Literal["valid", "test"]) -> dict[str, Bool[np.ndarray, "U"]]:
    """The segments, and for each modality that some targets lack, the users whose target has it and the others."""
    found = segments(data, part)
    for name, present in data.presence.items():
        has = present[data.targets(part)]
        if has.any() and not has.all():
            found |= {f"with {name}": has, f"without {name}": ~has}
    return found


def list_metrics(top: Int[np.ndarray, "U k"], counts: Int[np.ndarray, "rows"]) -> dict[str, float]:
    """Coverage, exposure and popularity of the recommended lists of all users; targets play no role.

    Args: top: recommended rows, best first, padded with 0. counts: (N+1,), training events per item.
    Returns:
        coverage@10: share of the catalogue recommended to at least one user, in [0, 1];
        gini@10: inequality of exposure, 0 (all items equal) to 1 - 1/N (one item has all exposure);
        popularity@10: mean training events of a recommended item, in events.
    Raises: ValueError for lists shorter than 10.
    Choice: all three are 0 if every list is empty, as when every user has had every item and seen items are filtered.
    """
    if top.shape[1] < LIST_AT:
        raise ValueError(f"need lists of {LIST_AT} rows, got {top.shape=}")
    shown = top[:, :LIST_AT][top[:, :LIST_AT] > 0]
    if not len(shown):
        return {f"{name}@{LIST_AT}": 0.0 for name in ("coverage", "gini", "popularity")}
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

    Bounds: 2.5 and 97.5 percentiles of mean(d) over users drawn with replacement. p-value: paired randomisation test
    with random signs of d, p = (1 + #{|flipped mean| >= |mean|}) / (n + 1), never below 1 / (n + 1).

    Args: a, b: one metric per user, (seeds, U) or (U,), users in the same order. n: number of draws for the bounds and
        for the p-value. seed: of all draws.
    Returns: Interval. It covers the sampling of users for these trained models: seeds are averaged, not resampled.
    Raises: ValueError for different users, no users, values that are not finite, or n below 1.
    """
    if a.shape[-1] != b.shape[-1] or not a.size or not b.size or n < 1:
        raise ValueError(f"need the same users on both sides and n >= 1, got {a.shape=}, {b.shape=}, {n=}")
    difference = np.atleast_2d(a).mean(0) - np.atleast_2d(b).mean(0)
    if bad := int((~np.isfinite(difference)).sum()):
        raise ValueError(f"{bad} of {len(difference)} users have non-finite values; compare finished runs")
    draw, flip = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    users, moved = len(difference), difference[difference != 0]  # the sign of a zero has no effect
    means, extreme = [], 0
    edge = abs(difference.sum()) * (1 - 1e-12)  # tolerance: rounding must not lose flips that equal the observed sum
    for rows in _blocks(n, users):
        means.append(difference[draw.integers(users, size=(rows, users))].mean(1))
        signs = 2.0 * flip.integers(2, size=(rows, len(moved)), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ moved) >= edge).sum())
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(difference.mean()), float(low), float(high), (1 + extreme) / (n + 1))


def _blocks(draws: int, units: int) -> list[int]:
    """Numbers of draws of all units that take at most 16 MiB at a time, in order."""
    step = max(1, 2**21 // units)
    return [min(step, draws - start) for start in range(0, draws, step)]


def cluster_bootstrap(
    parts: Float[np.ndarray, "K Q"], clusters: Int[np.ndarray, "Q"], n: int = 2000, seed: int = 0
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K n"]]:
    """Sums over observations that come in clusters, such as the lists of one user, which are alike.

    Args: parts: K values of each observation. clusters: the cluster of each. n: number of draws.
    Returns: the K sums, and those of each draw of as many clusters with replacement, each with all its observations.
    """
    _, owner = np.unique(clusters, return_inverse=True)
    sums, rng = np.stack([np.bincount(owner, part) for part in parts]), np.random.default_rng(seed)
    found = [sums[:, rng.integers(sums.shape[1], size=(rows, sums.shape[1]))].sum(2) for rows in _blocks(n, sums.size)]
    return sums.sum(1), np.concatenate(found, 1)


def cluster_means(
    values: Float[np.ndarray, "Q"], clusters: Int[np.ndarray, "Q"], n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean over observations, and its 95 % bounds over clusters as in `cluster_bootstrap`."""
    _, (total, size) = cluster_bootstrap(np.stack([values, np.ones_like(values)]), clusters, n, seed)
    low, high = np.percentile(total / size, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def with_holm(table: pl.DataFrame) -> pl.DataFrame:
    """The table with its p-values (column `p`) after Holm over all its lines, in a column `p_holm`."""
    adjusted = holm(table["p"].to_numpy()) if len(table) else []
    return table.with_columns(pl.Series("p_holm", adjusted, pl.Float64))


def holm(p_values: Float[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    """Adjust the p-values of m tests for multiple testing (Holm's step-down); p_(1) is the smallest.

        adjusted_(i) = max over j <= i of min(1, (m - j + 1) * p_(j))

    Returns: adjusted values in the given order. Rejecting values below alpha keeps the family-wise error below alpha.
    Raises: ValueError for a value outside [0, 1].
    """
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p_values.tolist()}")
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


CLEAR = 0.05  # a difference is clear if its p-value after Holm is below this


def family(compared: pl.DataFrame, metric: str, against: Collection[str] | None = None) -> pl.DataFrame:
    """The comparisons of one question, with p-values that Holm's method corrects for these tests and no others.

    Args: compared: `runs.intervals`. metric: of the question; rows ranked by beam search are included. against: the
        variants that the question is about; None is all.
    Returns: the rows of `compared`, in its order; their number is the number of tests.
    """
    asked = compared.filter(pl.col("metric").str.starts_with(metric))
    if against is not None:
        asked = asked.filter(pl.col("against").is_in(list(against)))
    return with_holm(asked)


OUTCOMES = ("as expected", "the other way round", "open")


class Expectation(NamedTuple):
    """The expectation before the run: whether `bbqrec` is better (`ahead`) than a baseline, and why."""

    ahead: bool
    because: str


EXPECTED: dict[str, Expectation] = {
    "popularity": Expectation(True, "popularity ignores the user"),
    "item-knn": Expectation(True, "pair counts ignore the order of events"),
    "content-knn": Expectation(True, "what items are like ignores what users do"),
    "ease": Expectation(True, "a linear model of item sets ignores the order of events"),
    "markov": Expectation(True, "a three-step chain ignores the rest of the history"),
    "sasrec": Expectation(True, "it knows neither content nor which items come together"),
    "sasrec-bce": Expectation(True, "one negative per target is a weak training signal"),
    "gsasrec": Expectation(False, "gSASRec trains separate item vectors as well as the full softmax does"),
    "sasrec-strong": Expectation(False, "it has all of the model but the IDs"),
    "sasrec-features": Expectation(True, "added features are not bound to behaviour"),
    "esasrec": Expectation(False, "eSASRec is the strongest published form of SASRec"),
    "bsarec": Expectation(True, "a frequency filter smooths separate item vectors, which still share nothing"),
    "hstu": Expectation(False, "HSTU knows the times of events, which bbqrec ignores"),
    "tiger": Expectation(
        True, "its tokenizer knows text alone, its recommender neither item vectors nor counts of pairs"
    ),
    "tiger-joined": Expectation(True, "joined features are not bound to behaviour"),
    "mql4grec": Expectation(True, "separate codebooks share nothing between modalities"),
    "letter": Expectation(True, "LETTER uses only SASRec's behaviour, in one signal"),
    "random-ids": Expectation(True, "random codes carry no information beside the item vectors"),
    "random-generation": Expectation(True, "random codes carry no information, and nothing else knows the item"),
    "rq-kmeans": Expectation(True, "plain k-means learns nothing from behaviour"),
    "rq-sasrec": Expectation(True, "codes of SASRec's vectors contain no content"),
    "published-codes": Expectation(True, "codes of one modality contain no behaviour"),
}


def by_variant(rows: pl.DataFrame, metric: str, seen_items: str, segment: str = "all") -> dict[str, np.ndarray]:
    """One metric of each variant, one entry per seed, in the order of the table.

    Args: rows: `main_results` in long form. metric: for example `ndcg@10`; rows ranked by beam search are included.
        seen_items: `included` or `filtered`. segment: a key of `segments`.
    """
    named = (pl.col("metric") == metric) | pl.col("metric").str.starts_with(f"{metric} ")
    chosen = rows.filter(named & (pl.col("seen_items") == seen_items) & (pl.col("segment") == segment))
    return {name: part["value"].to_numpy() for (name,), part in chosen.group_by("variant", maintain_order=True)}


def by_cutoff(
    rows: pl.DataFrame, cutoffs: tuple[int, ...], seen_items: str, variants: list[str]
) -> dict[str, Float64[np.ndarray, "cutoffs"]]:
    """Recall at each cut-off by variant, mean over seeds."""
    found = {name: [] for name in variants}
    for k in cutoffs:
        values = by_variant(rows, f"recall@{k}", seen_items)
        for name in variants:
            found[name].append(values[name].mean())
    return {name: np.array(values, float) for name, values in found.items()}


def outcomes(compared: pl.DataFrame, metric: str = "ndcg@10") -> pl.DataFrame:
    """Expected and measured result of each baseline and control.

    A difference is clear if its p-value after Holm is below 0.05; otherwise the outcome is open, for either sign.

    Args: compared: `runs.intervals` against `bbqrec`; variants without an expectation are left out.
    Returns: columns against, seen_items, expected, because, difference, low, high, outcome (one of `OUTCOMES`).
    """
    table = []
    for row in compared.filter(pl.col("metric") == metric).iter_rows(named=True):
        if row["against"] in EXPECTED:
            ahead, because = EXPECTED[row["against"]]
            agrees = (row["difference"] > 0) == ahead
            outcome = OUTCOMES[0] if agrees else OUTCOMES[1]
            if row["p_holm"] >= CLEAR:
                outcome = OUTCOMES[2]
            expected = "ahead" if ahead else "behind"
            found = (row["difference"], row["low"], row["high"], outcome)
            table.append((row["against"], row["seen_items"], expected, because, *found))
    columns = ["against", "seen_items", "expected", "because", "difference", "low", "high", "outcome"]
    floats = {name: pl.Float64 for name in columns[4:7]}
    return pl.DataFrame(table, schema={name: floats.get(name, pl.String) for name in columns}, orient="row")


def shared_hits(ours: Float[np.ndarray, "U"], theirs: Float[np.ndarray, "U"]) -> dict[str, float]:
    """Shares of users whose target is found by both recommenders, by one of them, or by neither; they sum to 1.

        both = mean_u(a_u b_u),  only ours = mean_u(a_u (1 - b_u)),  ...

    Args: ours, theirs: Recall@k of each user in [0, 1]; a fraction comes from a tie at the end of the list.
    Choice: if both have a fraction, the orders of the two ties are treated as independent.
    """
    parts = {
        "both": ours * theirs,
        "only bbqrec": ours * (1 - theirs),
        "only the baseline": (1 - ours) * theirs,
        "neither": (1 - ours) * (1 - theirs),
    }
    return {name: float(values.mean()) for name, values in parts.items()}


def swaps(first: Mapping[str, float], second: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs (winner by `first`, winner by `second`) of variants that two scorings rank in opposite order."""
    names = list(first)
    pairs = [(a, b) if first[a] > first[b] else (b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [(a, b) for a, b in pairs if second[a] < second[b] and first[a] != first[b]]
