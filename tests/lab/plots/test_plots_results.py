"""Pictures of the main table show every number that they are given."""

import numpy as np
import pytest

from bbqrec_lab import plots


def test_recall_has_a_line_for_each_variant_and_a_tick_for_each_cutoff() -> None:
    values = {
        "included": {"a": np.array([0.1, 0.2]), "b": np.array([0.2, 0.1])},
        "filtered": {"a": np.array([0.3, 0.4])},
    }
    figure = plots.recall_by_cutoff(values, (1, 20))
    figure.canvas.draw()
    first, second = figure.axes
    assert [line.get_ydata().tolist() for line in first.lines] == [[0.1, 0.2], [0.2, 0.1]]
    assert [line.get_ydata().tolist() for line in second.lines] == [[0.3, 0.4]]
    assert [label.get_text() for label in second.get_xticklabels()] == ["1", "20"]


def test_parts_of_a_bar_stand_one_after_another() -> None:
    shares = {"x": {"both": 0.1, "ours": 0.2, "neither": 0.7}, "y": {"both": 0.5, "ours": 0.0, "neither": 0.5}}
    (ax,) = plots.hit_shares(shares).axes
    bars = [[(bar.get_x(), bar.get_width()) for bar in part] for part in ax.containers]
    assert np.array(bars) == pytest.approx(
        np.array([[(0, 10), (0, 50)], [(10, 20), (50, 0)], [(30, 70), (50, 50)]], float)
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]


def test_the_front_joins_what_nothing_cheaper_beats() -> None:
    minutes, quality = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, {"a": 0.2, "b": 0.1, "c": 0.3, "d": 0.25}
    (ax,) = plots.quality_for_cost(minutes, quality, dict.fromkeys("abd", "baseline") | {"c": "main"}).axes
    assert ax.lines[0].get_xdata().tolist() == [1.0, 3.0]
    assert sorted(text.get_text() for text in ax.texts) == ["a", "b", "c", "d"]
    assert sum(len(part.get_offsets()) for part in ax.collections) == 4


def test_shared_codes_are_written_into_their_cells_and_the_whole_history_stands_apart() -> None:
    shared = np.array([[0, 2, 1], [3, 0, 0]])
    figure = plots.shared_codes(shared, np.array([2, 3]), ["a", "b", "c"], ["x", "y $5"])
    ax = figure.axes[0]
    written = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    expected = {(column, row): str(value) for (row, column), value in np.ndenumerate(shared)}
    assert written == expected | {(4, 0): "2", (4, 1): "3"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c", "whole history"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y $5"]


def test_bars_of_lists_are_shares_in_per_cent() -> None:
    (ax,) = plots.shared_shares({"a": np.array([0.25, 0.75]), "b": np.array([1.0, 0.0])}).axes
    assert [[bar.get_height() for bar in part] for part in ax.containers] == [[25, 75], [100, 0]]
