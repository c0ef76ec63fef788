"""Sentences about a replay. Each one chooses its words by the numbers that it quotes; a difference needs its interval.

They take the tables of `bbqrec_lab.replay.curves`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool, Float

from bbqrec_lab.experiments.statistics import swaps
from bbqrec_lab.experiments.tables import listed


def _bounded(value: float, low: float, high: float, form: str = ".4f") -> str:
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def _sign(low: float, high: float) -> int:
    """1 or -1 if the interval lies above or below 0, else 0."""
    return int(low > 0) - int(high < 0)


def future(any_event: Float[np.ndarray, "U"], own_item: Float[np.ndarray, "U"]) -> str:
    """How much of training is later than the targets of leave-one-out.

    Args: as `time_split.Leak`.
    """
    own, users = own_item[np.isfinite(own_item)], 100 * float((any_event > 0).mean())
    if not (any_event > 0).any():
        return "No training event is later than any target: here leave-one-out knows nothing of the future."
    told = f"For {users:.1f} % of the users leave-one-out trains on events of others that are later than their target"
    told += f"; the median user has {100 * np.median(any_event):.1f} % of all training events in the future"
    return told + (f", and {100 * np.median(own):.1f} % of those of the target's own item." if len(own) else ".")


def held_out(cold: Bool[np.ndarray, "rows"] | None) -> str:
    """That `cold_items` counts in one split only; empty if no item is held out.

    Args: cold: as in `Dataset`.
    """
    items = 0 if cold is None else int(cold[1:].sum())
    if not items:
        return ""
    return (
        f"cold_items holds {items} of {len(cold) - 1} items out of the training of leave-one-out in section 3. The "
        "split by time and the replay ignore it: their new items are those that come later."
    )


def order(first: Mapping[str, float], second: Mapping[str, float], ahead: Sequence[tuple[str, str]]) -> str:
    """Whether the order of variants changes between leave-one-out and the split by time.

    Args: first, second: NDCG@10 by variant. ahead: pairs (better, worse) on the split by time whose interval of the
        difference lies above 0, each pair by itself.
    """
    changed = swaps(first, second)
    if not changed:
        best = max(second, key=second.get)
        return (
            f"All {len(first)} variants keep their order under the split by time; {best} leads with {second[best]:.4f}."
        )
    sure = [(a, b) for a, b in changed if (b, a) in ahead]
    told = listed([f"{b} passes {a}" for a, b in changed])
    how = f"in {len(sure)} of these {len(changed)} changes the 95 % interval of the difference there lies above 0"
    return f"The order changes under the split by time: {told}; {how} (each pair by itself)."


def decay(costs: pl.DataFrame, learner: str, policy: str) -> str:
    """Whether a policy loses accuracy with time: the change of NDCG@10 per day."""
    row = costs.row(by_predicate=(pl.col("learner") == learner) & (pl.col("policy") == policy), named=True)
    day, low, high = row["per day"], row["day low"], row["day high"]
    told = _bounded(day, low, high, "+.5f")
    word = {1: "gains", -1: "loses", 0: "neither clearly gains nor loses"}[_sign(low, high)]
    return f"{learner} under the policy {policy} {word} NDCG@10 with time: {told} a day."


def step(curves: pl.DataFrame, costs: pl.DataFrame, learner: str, policy: str, against: str) -> str:
    """What one more thing to learn is worth, from the paired difference to `against`.

    Args: costs: with `against` as its reference.
    """
    row = costs.row(by_predicate=(pl.col("learner") == learner) & (pl.col("policy") == policy), named=True)
    if row["difference"] is None:
        return f"{learner}: {policy} cannot be compared with {against}, which was not run."
    low, high = row["difference low"], row["difference high"]
    word = {1: "better than", -1: "worse than", 0: "not clearly different from"}[_sign(low, high)]
    periods = curves["period"].n_unique()
    return (
        f"{learner}: {policy} is {word} {against} over the {periods} periods, NDCG@10 "
        f"{_bounded(row['difference'], low, high, '+.4f')}, for {row['learning']:.0f} s of learning."
    )


def winner(costs: pl.DataFrame) -> str:
    """The learner and policy with the best NDCG@10 of all lists, and those whose intervals overlap with its own."""
    best = costs.sort("ndcg@10", descending=True).row(0, named=True)
    rest = costs.filter(pl.col("ndcg@10") < best["ndcg@10"])
    near = [f"{n} ({p})" for n, p in rest.filter(pl.col("high") >= best["low"]).select("learner", "policy").iter_rows()]
    told = f"Best over all lists: {best['learner']} under {best['policy']}, NDCG@10 "
    told += _bounded(best["ndcg@10"], best["low"], best["high"])
    return told + (f"; the intervals of {len(near)} others overlap with its own." if near else "; no other overlaps.")


def fresh(table: pl.DataFrame, way: str, controls: Sequence[str]) -> str:
    """How new items fare under a way to rank them, against the controls.

    Args: table: from `replay.curves.new_items`.
    """
    rows = {row["way"]: row for row in table.iter_rows(named=True)}
    own = rows[way]
    if not own["new items"] or not own["lists"]:
        return "No new item has an event, so there is nothing to compare."
    shown = f"{100 * own['recommended']:.0f} % of the {own['new items']} new items are recommended at least once"
    kinds: dict[str, list[str]] = {"above": [], "below": [], "not clearly different from": []}
    for name in controls:
        other = rows[name]
        kind = "above" if own["low"] > other["high"] else "below" if own["high"] < other["low"] else list(kinds)[2]
        kinds[kind].append(f"{name} ({other['recall@20']:.3f})")
    told = ", ".join(f"{kind} {listed(names)}" for kind, names in kinds.items() if names)
    rank = f"{own['median rank']:.0f}" if np.isfinite(own["median rank"]) else "infinite"
    recall = _bounded(own["recall@20"], own["low"], own["high"], ".3f")
    return f"{way}: {shown}; Recall@20 of their first events is {recall}, {told}; the median rank is {rank}."


def after_drift(around: pl.DataFrame, learner: str, fixed: str, learning: str) -> str:
    """Whether a policy that learns is ahead of a fixed one after a drift more than before it.

    Args: around: from `replay.curves.around`.
    """
    row = around.row(by_predicate=pl.col("learner") == learner, named=True)
    if row["gain"] is None:
        return f"{learner}: the drift has no list on both sides, so the policies cannot be compared before and after."
    word = {1: "more", -1: "less", 0: "not clearly more or less"}[_sign(row["low"], row["high"])]
    return (
        f"{learner}: {learning} differs from {fixed} by {row['before']:+.4f} NDCG@10 before the drift and by "
        f"{row['after']:+.4f} after it: learning is worth {word} once the world has changed, "
        f"{_bounded(row['gain'], row['low'], row['high'], '+.4f')}."
    )
