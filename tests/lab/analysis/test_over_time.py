"""Sentences of the notebook on time: their words follow the numbers that they quote, of either sign and at zero."""

import numpy as np
import polars as pl
import pytest

from bbqrec_lab.analysis import over_time


def cost(**changes: object) -> pl.DataFrame:
    """Two policies of one learner; `changes` are of the second."""
    row = {"learner": "m", "policy": "history", "ndcg@10": 0.1, "low": 0.09, "high": 0.11, "learning": 0.0}
    row |= {"per day": 0.0, "day low": -1.0, "day high": 1.0}
    row |= {"difference": None, "difference low": None, "difference high": None}
    floats = {name: pl.Float64 for name in ("difference", "difference low", "difference high")}
    return pl.DataFrame([row, row | {"policy": "updates"} | changes], schema_overrides=floats)


def curve(early: float, late: float) -> pl.DataFrame:
    """`updates` is ahead of `history` by `early` before day 2 and by `late` after it."""
    rows = [
        {"learner": "m", "policy": policy, "metric": "ndcg@10", "period": period, "day": day, "value": value}
        for period, (day, gap) in enumerate(((1.0, early), (3.0, late)))
        for policy, value in (("history", 0.1), ("updates", 0.1 + gap))
    ]
    return pl.DataFrame(rows)


def test_the_future_is_quoted_or_denied() -> None:
    said = over_time.future(np.array([0.0, 0.2, 0.4]), np.array([np.nan, 0.5, 0.7]))
    assert "For 66.7 % of the users" in said
    assert "20.0 % of all training events" in said
    assert said.endswith("and 60.0 % of those of the target's own item.")
    assert over_time.future(np.array([0.1]), np.array([np.nan])).endswith("in the future.")
    assert "knows nothing of the future" in over_time.future(np.zeros(3), np.zeros(3))


def test_items_held_out_of_one_split_are_told() -> None:
    assert "cold_items holds 2 of 3 items" in over_time.held_out(np.array([True, True, False, True]))
    assert over_time.held_out(None) == over_time.held_out(np.array([True, False])) == ""


@pytest.mark.parametrize(
    ("second", "ahead", "words"),
    [
        ((0.1, 0.2), [], ["All 2 variants keep their order", "b leads with 0.2000"]),
        ((0.3, 0.2), [], ["a passes b", "in 0 of these 1 changes the 95 % interval"]),
        ((0.3, 0.2), [("a", "b")], ["a passes b", "in 1 of these 1 changes the 95 % interval"]),
        ((0.3, 0.2), [("b", "a")], ["in 0 of these 1 changes", "lies above 0 (each pair by itself)."]),
    ],
)
def test_a_change_of_order_is_named_with_its_intervals(second: tuple, ahead: list, words: list[str]) -> None:
    said = over_time.order({"a": 0.1, "b": 0.2}, dict(zip("ab", second, strict=True)), ahead)
    assert all(part in said for part in words), said


@pytest.mark.parametrize(
    ("bounds", "word"),
    [((0.001, 0.003), " gains "), ((-0.003, -0.001), " loses "), ((-0.003, 0.001), "neither clearly gains nor loses")],
)
def test_a_change_per_day_needs_its_interval(bounds: tuple, word: str) -> None:
    table = cost(**{"per day": np.mean(bounds), "day low": bounds[0], "day high": bounds[1]})
    said = over_time.decay(table, "m", "updates")
    assert word in said
    assert f"{np.mean(bounds):+.5f} ({bounds[0]:+.5f} to {bounds[1]:+.5f})" in said


@pytest.mark.parametrize(
    ("bounds", "word"),
    [((0.01, 0.03), "better than"), ((-0.03, -0.01), "worse than"), ((-0.01, 0.02), "not clearly different from")],
)
def test_a_policy_is_better_only_if_its_interval_says_so(bounds: tuple, word: str) -> None:
    changes = {"difference": np.mean(bounds), "difference low": bounds[0], "difference high": bounds[1]}
    said = over_time.step(curve(0, 0), cost(**changes, learning=12.4), "m", "updates", "history")
    assert f"updates is {word} history over the 2 periods" in said
    assert said.endswith("for 12 s of learning.")
    assert "which was not run" in over_time.step(curve(0, 0), cost(), "m", "history", "history")


def test_the_winner_says_who_is_near() -> None:
    assert "no other overlaps" in over_time.winner(cost(**{"ndcg@10": 0.3, "low": 0.25, "high": 0.35}))
    said = over_time.winner(cost(**{"ndcg@10": 0.12, "low": 0.105, "high": 0.13}))
    assert said.startswith("Best over all lists: m under updates, NDCG@10 0.1200")
    assert "the intervals of 1 others overlap" in said


def fresh(low: float, high: float, rank: float = 5.0, lists: int = 9) -> pl.DataFrame:
    """A way with bounds, and a control with recall 0.2 to 0.3."""
    row = {"new items": 4, "recommended": 0.5, "lists": lists, "median rank": rank}
    own = {"way": "m", "recall@20": (low + high) / 2, "low": low, "high": high}
    return pl.DataFrame([row | own, row | {"way": "even", "recall@20": 0.25, "low": 0.2, "high": 0.3}])


def test_new_items_are_held_against_controls_by_their_bounds() -> None:
    for bounds, word in (((0.4, 0.5), "above even"), ((0.0, 0.1), "below even"), ((0.1, 0.4), "not clearly different")):
        said = over_time.fresh(fresh(*bounds), "m", ["even"])
        assert f"{word}" in said, said
        assert "even (0.250)" in said
    assert "50 % of the 4 new items" in over_time.fresh(fresh(0.4, 0.5), "m", ["even"])
    assert over_time.fresh(fresh(0.0, 0.0, np.inf), "m", ["even"]).endswith("the median rank is infinite.")
    assert over_time.fresh(fresh(0.4, 0.5, lists=0), "m", ["even"]).startswith("No new item has an event")


@pytest.mark.parametrize(
    ("bounds", "word"), [((0.01, 0.07), "more"), ((-0.05, -0.01), "less"), ((-0.01, 0.03), "not clearly more or less")]
)
def test_learning_is_worth_more_or_less_after_a_drift(bounds: tuple, word: str) -> None:
    row = {"learner": "m", "before": -0.02, "after": 0.02, "gain": 0.04, "low": bounds[0], "high": bounds[1]}
    said = over_time.after_drift(pl.DataFrame([row]), "m", "history", "updates")
    assert "by -0.0200 NDCG@10 before the drift and by +0.0200 after it" in said
    assert f"is worth {word} once the world has changed, +0.0400 ({bounds[0]:+.4f} to {bounds[1]:+.4f})" in said
    nothing = pl.DataFrame([row | dict.fromkeys(("before", "after", "gain", "low", "high"))])
    assert "no list on both sides" in over_time.after_drift(nothing, "m", "history", "updates")
