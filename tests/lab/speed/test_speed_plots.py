"""Pictures of speed show every number that they are given."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from bbqrec_lab.speed import plots as speed_plots

STAGES = ("encode vectors", "evaluation")


def drawn(figure: Figure) -> Figure:
    figure.canvas.draw()
    return figure


def test_beams_are_lines_above_which_the_whole_tree_is_grey() -> None:
    (ax,) = drawn(speed_plots.carried({"beam 1": (1, 1, 1), "beam 5": (1, 4, 5)}, (1, 4, 16))).axes
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 1, 1], [1, 4, 5]]
    assert ax.collections[0].get_datalim(ax.transData).y1 == pytest.approx(16)
    assert ax.get_ylim()[1] > 16


def test_latencies_rise_to_all_requests_with_p50_and_p99_marked() -> None:
    spent = np.arange(1.0, 102.0)
    (ax,) = drawn(speed_plots.latencies({"a": spent[::-1], "b": 2 * spent})).axes
    steps, marks = ax.lines[0], ax.lines[1]
    assert steps.get_xdata().tolist() == spent.tolist()
    assert steps.get_ydata()[-1] == 100
    assert marks.get_xdata().tolist() == [51.0, 100.0]
    assert ax.lines[3].get_xdata().tolist() == [102.0, 200.0]
    assert [text.get_text() for text in ax.texts] == ["p50", "p99"]


def test_steps_stand_one_after_another_and_models_without_one_have_none() -> None:
    lines = [("a", "history", 1.0), ("a", "level 1, model", 2.0), ("a", "level 1, search", 0.5), ("b", "history", 3.0)]
    (ax,) = drawn(speed_plots.steps(pl.DataFrame(lines, ["model", "step", "ms"], orient="row"))).axes
    bars = [[(bar.get_x(), bar.get_width()) for bar in part] for part in ax.containers]
    assert bars == [[(0, 1), (0, 3)], [(1, 2), (3, 0)], [(3, 0.5), (3, 0)]]
    assert [part.get_label() for part in ax.containers] == ["history", "level 1, model", "level 1, search"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_sizes_have_a_panel_an_axis_and_a_line_a_model_with_own_values_marked() -> None:
    lines = [
        (axis, value, value == 4, model, kind, ms * value, ms, 9.0)
        for axis in ("L", "W")
        for value in (2, 4, 8)
        for model, ms in (("a", 1.0), ("b", 2.0))
        for kind in ("single", "batch")
    ]
    costs = pl.DataFrame(lines, ["axis", "value", "own", "model", "kind", "ms", "low", "high"], orient="row")
    figure = drawn(speed_plots.sizes(costs, {"L": "codes", "W": "beam"}))
    assert len(figure.axes) == 4
    for ax in figure.axes:
        found = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 3]
        assert found == [[2.0, 4.0, 8.0], [4.0, 8.0, 16.0]]
        assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2] == [4]
        assert [round(tick) for tick in ax.get_xticks()] == [2, 4, 8]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "codes", "beam"]


def made_curves(spread: float = 0.0) -> pl.DataFrame:
    lines = [
        (stage, axis, size, cost, 1e-3 * size**2, 1e-3 * size**2 * (1 - spread), 1e-3 * size**2 * (1 + spread))
        for stage, axis in zip(STAGES, ("items", "users"), strict=True)
        for size in (10, 20, 40)
        for cost in ("seconds", "bytes")
    ]
    return pl.DataFrame(lines, ["stage", "axis", "size", "cost", "value", "low", "high"], orient="row")


def test_growth_has_the_fitted_line_and_its_slope_in_milliseconds() -> None:
    figure = drawn(speed_plots.growth(made_curves(0.1), {"items": "items", "users": "people"}))
    for ax, word in zip(figure.axes, ("items", "people"), strict=True):
        assert [text.get_text() for text in ax.texts] == ["2.00"]
        assert any(np.allclose(line.get_ydata(), (100, 1600)) for line in ax.lines if len(line.get_ydata()) == 2)
        assert any(np.allclose(line.get_ydata(), (100, 400, 1600)) for line in ax.lines if len(line.get_ydata()) == 3)
        assert ax.get_xlabel() == word


def test_two_sizes_draw_no_line() -> None:
    figure = speed_plots.growth(made_curves().filter(pl.col("size") < 40), {"items": "items"})
    assert [text.get_text() for text in figure.axes[0].texts] == []


def test_units_are_multiples_of_the_cheapest_and_bytes_are_bytes() -> None:
    time, held = drawn(speed_plots.unit_costs(made_curves(), "items")).axes
    assert time.lines[0].get_ydata().tolist() == pytest.approx([1, 2, 4])
    assert held.lines[0].get_ydata().tolist() == pytest.approx([0.01, 0.02, 0.04])
    assert len(time.lines) == 1  # of this axis alone


def test_ticks_are_different_numbers_however_close_the_costs() -> None:
    lines = [("L", v, v == 2, "a", kind, 1 + v / 9, 1.0, 2.0) for v in (2, 3, 4) for kind in ("single", "batch")]
    costs = pl.DataFrame(lines, ["axis", "value", "own", "model", "kind", "ms", "low", "high"], orient="row")
    ax = drawn(speed_plots.sizes(costs, {"L": "codes"})).axes[0]
    low, high = ax.get_ylim()
    shown = [label.get_text() for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert len(shown) >= 2
    assert len(set(shown)) == len(shown)


def test_a_size_near_another_has_no_tick_of_its_own() -> None:
    lines = [("N", v, v == 120, "a", kind, 1, 0.9, 1.1) for v in (100, 120, 300, 1000) for kind in ("single", "batch")]
    costs = pl.DataFrame(lines, ["axis", "value", "own", "model", "kind", "ms", "low", "high"], orient="row")
    below = drawn(speed_plots.sizes(costs, {"N": "items of the catalogue"})).axes[1]
    assert [label.get_text() for label in below.get_xticklabels()] == ["100", "300", "1,000"]


def test_sizes_up_to_ten_millions_are_labelled_without_overlap_and_eight_codes_have_a_tick() -> None:
    points = [("items", float(10**power)) for power in range(3, 8)] + [("L", float(size)) for size in range(2, 9)]
    lines = [("encode vectors", axis, size, "seconds", size, size, size) for axis, size in points]
    lines += [("evaluation", "users", float(size), "seconds", size, size, size) for size in (1, 2, 4)]
    curves = pl.DataFrame(lines, ["stage", "axis", "size", "cost", "value", "low", "high"], orient="row")
    figure = drawn(speed_plots.growth(curves, {"items": "items", "users": "users", "L": "codes"}))
    for ax, last in zip(figure.axes, (None, None, "8"), strict=False):
        low, high = ax.get_xlim()
        labels = [label for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert last is None or labels[-1].get_text() == last
