"""Figures of a replay show every number that they are given."""

import numpy as np
import polars as pl
import pytest

from bbqrec_lab import plots


def table() -> pl.DataFrame:
    rows = [
        {"metric": metric, "name": name, "day": day, "value": value, "low": value - 0.01, "high": value + 0.02}
        for metric in ("ndcg@10", "recall@10")
        for name, values in (("a", (0.1, 0.2)), ("b", (0.3, 0.4)))
        for day, value in zip((3.0, 9.0), values, strict=True)
    ]
    return pl.DataFrame(rows)


def test_curves_have_a_line_for_each_name_and_mark_the_drift() -> None:
    labels = {"ndcg@10": "NDCG@10", "recall@10": "Recall@10"}
    figure = plots.period_curves(table(), labels, "name", ["b", "a"], 5.0)
    first, second = figure.axes
    assert [ax.get_ylabel() for ax in (first, second)] == ["NDCG@10", "Recall@10"]
    drift, *lines = first.lines
    assert list(drift.get_xdata()) == [5.0, 5.0]
    assert [list(line.get_ydata()) for line in lines] == [[0.3, 0.4], [0.1, 0.2]]
    spans = [np.array(segment)[:, 1] for part in first.collections for segment in part.get_segments()]
    assert np.allclose(spans, [[0.29, 0.32], [0.39, 0.42], [0.09, 0.12], [0.19, 0.22]])
    assert not plots.period_curves(table(), labels, "name", ["a"]).axes[0].texts


def test_cost_names_what_learns_and_the_best_that_does_not() -> None:
    rows = {"learner": "m", "ndcg@10": [0.1, 0.2, 0.3], "low": [0.1] * 3, "high": [0.4] * 3}
    costs = pl.DataFrame(rows | {"policy": ["nothing", "history", "updates"], "learning": [0.0, 0.0, 20.0]})
    figure = plots.cost_and_quality(costs, ["m"])
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.texts] == ["history", "updates"]
    assert list(ax.lines[0].get_xdata()) == [0.1, 0.1, 20.0]
    figure.canvas.draw()
    assert "10" in [label.get_text() for label in ax.get_xticklabels()]


def test_shares_of_the_future_fall_from_all_users() -> None:
    (ax,) = plots.future_shares({"all": np.array([0.0, 0.5, np.nan, 0.25, 1.0])}).axes
    line = ax.lines[0]
    assert list(line.get_xdata()) == [0, 25, 50, 100]
    assert list(line.get_ydata()) == [100, 75, 50, 25]


def test_splits_stand_side_by_side_in_one_order() -> None:
    values = {"a": [(0.2, 0.1, 0.3), (0.1, 0.0, 0.2)], "b": [(0.1, 0.0, 0.2), (0.3, 0.2, 0.4)]}
    first, second = plots.paired_splits(values, ("one", "two")).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["b", "a"]
    assert list(second.lines[0].get_xdata()) == pytest.approx([0.3, 0.1])
    assert [ax.get_title(loc="left") or ax.get_title() for ax in (first, second)] == ["one", "two"]
