"""Pictures of the main table show every number that they are given."""

from itertools import combinations

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


def test_names_of_points_cover_neither_points_nor_each_other() -> None:
    minutes = {"popularity": 0.001, "item-knn": 0.2, "sasrec": 0.32, "bbqrec": 1.96, "random-ids": 2.0, "tiger": 2.4}
    quality = {
        "popularity": 0.04,
        "item-knn": 0.108,
        "sasrec": 0.103,
        "bbqrec": 0.131,
        "random-ids": 0.1326,
        "tiger": 0.13,
    }
    (ax,) = plots.quality_for_cost(minutes, quality, dict.fromkeys(minutes, "baseline")).axes
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == len(minutes)
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    places = ax.transData.transform([(minutes[name], quality[name]) for name in minutes])
    assert not any(box.contains(*place) for box in boxes for place in places)


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


ENDS = [(low, low + width) for low in (0.0, 0.02, 0.046) for width in (0.08, 0.0825)]


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
@pytest.mark.parametrize("ends", [*ENDS, (4.0, 312.0)])
def test_ticks_of_seed_points_leave_each_other_room(panels: int, ends: tuple[float, float]) -> None:
    found = {"bbqrec": np.array(ends), "no-score-reweighting": np.array(ends[:1])}
    groups = {"bbqrec": "main", "no-score-reweighting": "ablation"}
    fig = plots.seed_points({f"NDCG@10, part {n}": found for n in range(panels)}, groups, "bbqrec")
    fig.draw_without_rendering()
    boxes = []
    for ax in fig.axes:
        low, high = ax.get_xlim()
        shown = [tick.label1 for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert shown
        boxes += [label.get_window_extent() for label in shown]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
