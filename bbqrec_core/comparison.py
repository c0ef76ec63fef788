"""The main table read: what was expected of each rival, what came out, and whose targets two recommenders share."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float, Float64

CLEAR = 0.05  # p after Holm below which a difference counts
OUTCOMES = ("as expected", "the other way round", "open")


class Expectation(NamedTuple):
    """What one would say before the run: is `bbqrec` better (`ahead`) than a rival, and why."""

    ahead: bool
    because: str


EXPECTED: dict[str, Expectation] = {
    "popularity": Expectation(True, "popularity does not know the user"),
    "item-knn": Expectation(True, "counting pairs knows no order"),
    "markov": Expectation(True, "three steps of counting forget the rest of the history"),
    "sasrec": Expectation(True, "the premise of semantic IDs: like items learn from each other, lone vectors do not"),
    "sasrec-bce": Expectation(True, "one negative a target is a weak way to train"),
    "sasrec-features": Expectation(True, "features that are merely added are not bound to behaviour"),
    "esasrec": Expectation(False, "eSASRec is the strongest published form of SASRec"),
    "hybrid": Expectation(False, "hybrid has the same codes and an item softmax beside them"),
    "tiger": Expectation(True, "TIGER's tokenizer reads text and no behaviour"),
    "tiger-joined": Expectation(True, "joined features are not bound to behaviour"),
    "mql4grec": Expectation(True, "a codebook for each modality shares nothing between them"),
    "letter": Expectation(True, "LETTER takes behaviour from SASRec alone, in one signal"),
    "random-ids": Expectation(True, "random codes mean nothing"),
    "rq-kmeans": Expectation(True, "nothing in plain k-means is learned from behaviour"),
    "rq-sasrec": Expectation(True, "codes of SASRec's vectors know no content"),
    "published-codes": Expectation(True, "codes of one modality know no behaviour"),
}


def by_variant(rows: pl.DataFrame, metric: str, history: str, segment: str = "all") -> dict[str, np.ndarray]:
    """One metric of every variant, an entry per seed, in the order of the table.

    Args: rows: `main_results` in long form. metric: such as `ndcg@10`; rows ranked by beam count under that name too.
        history: `kept` or `masked`. segment: as in `metrics.segments`.
    """
    named = (pl.col("metric") == metric) | pl.col("metric").str.starts_with(f"{metric} ")
    chosen = rows.filter(named & (pl.col("history") == history) & (pl.col("segment") == segment))
    return {name: part["value"].to_numpy() for (name,), part in chosen.group_by("variant", maintain_order=True)}


def by_cutoff(
    rows: pl.DataFrame, cutoffs: tuple[int, ...], history: str, variants: list[str]
) -> dict[str, Float64[np.ndarray, "cutoffs"]]:
    """Recall at each cut-off by variant, mean over seeds."""
    found = {name: [] for name in variants}
    for k in cutoffs:
        values = by_variant(rows, f"recall@{k}", history)
        for name in variants:
            found[name].append(values[name].mean())
    return {name: np.array(values, float) for name, values in found.items()}


def outcomes(compared: pl.DataFrame, metric: str = "ndcg@10") -> pl.DataFrame:
    """What was expected of every rival and control, and what the intervals say.

    A difference is clear where its p-value after Holm is below 0.05; else the question is open, whatever its sign.

    Args: compared: of `experiments.intervals` against `bbqrec`; variants without an expectation are left out.
    Returns: columns against, history, expected, because, difference, low, high, outcome (one of `OUTCOMES`).
    """
    table = []
    for row in compared.filter(pl.col("metric") == metric).iter_rows(named=True):
        if row["against"] in EXPECTED:
            ahead, because = EXPECTED[row["against"]]
            agrees = (row["difference"] > 0) == ahead
            outcome = OUTCOMES[2] if row["p_holm"] >= CLEAR else OUTCOMES[0] if agrees else OUTCOMES[1]
            expected = "ahead" if ahead else "behind"
            found = (row["difference"], row["low"], row["high"], outcome)
            table.append((row["against"], row["history"], expected, because, *found))
    columns = ["against", "history", "expected", "because", "difference", "low", "high", "outcome"]
    floats = {name: pl.Float64 for name in columns[4:7]}
    return pl.DataFrame(table, schema={name: floats.get(name, pl.String) for name in columns}, orient="row")


def shared_hits(ours: Float[np.ndarray, "U"], theirs: Float[np.ndarray, "U"]) -> dict[str, float]:
    """Shares of users whose target both find, only we find, only they find, nobody finds; they sum to 1.

        both = mean_u(a_u b_u),  only ours = mean_u(a_u (1 - b_u)),  ...

    Args: ours, theirs: Recall@k of each user in [0, 1]; a fraction is a tie at the edge of the list.
    Choice: where both have a fraction, the two orders are taken as drawn apart.
    """
    parts = {
        "both": ours * theirs,
        "only bbqrec": ours * (1 - theirs),
        "only the rival": (1 - ours) * theirs,
        "neither": (1 - ours) * (1 - theirs),
    }
    return {name: float(values.mean()) for name, values in parts.items()}


def swaps(first: Mapping[str, float], second: Mapping[str, float]) -> list[tuple[str, str]]:
    """Pairs (winner by `first`, winner by `second`) that two scorings of the same variants put in opposite order."""
    names = list(first)
    pairs = [(a, b) if first[a] > first[b] else (b, a) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [(a, b) for a, b in pairs if second[a] < second[b] and first[a] != first[b]]
