"""Figures of stage 2 show the numbers they were given, on scales that allow the comparison they invite."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from bbqrec_lab import plots

LAYERS, CHANNELS, BUCKETS, HEADS = 2, 5, 7, 3
NAMES = [f"channel {index}" for index in range(CHANNELS)]
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(LAYERS, CHANNELS, BUCKETS + 3, HEADS))
TABLE[:, :, -1] = 9.0  # padding: never to be seen
EDGES = np.sort(RNG.uniform(-1, 1, (CHANNELS, BUCKETS - 1)))
MAP = np.where(np.tri(3, 5, 2) > 0, RNG.random((3, 5)), np.nan)
GROUPS = {"ours": "main", "theirs": "baseline", "half": "ablation", "absent": "ablation"}
SEEDS = {"ours": np.array([0.2, 0.4, 0.3]), "theirs": np.array([0.1]), "half": np.array([0.25, 0.05])}
SIZES = pl.DataFrame(
    [(s, v, v == 8, seed, 0.1 + 0.01 * v + 0.002 * seed) for s in "SLKE" for v in (4, 8, 1024) for seed in (0, 1)],
    schema=["size", "value", "own", "seed", "filtered"],
    orient="row",
)
MASSES = np.geomspace([0.002, 0.5, 3e-5], [7.0, 40.0, 1.4], 60, axis=1)
SCORES = RNG.normal(size=(3, 60))
PAIRS = ["pairs, decay 0.5", "pairs, decay 0.8", "content, decay 0.8"]
SPREAD = np.array([[0.3, 0.1, 0.5], [-0.2, -0.4, 0.1]])


@pytest.fixture(autouse=True)
def _style() -> None:
    plots.use_house_style()


def maps_figure(**options: object) -> Figure:
    maps = {"small": 0.25 * MAP, "large": MAP, "nothing": np.full((3, 5), np.nan)}
    return plots.heat_maps(maps, ["row one", "two", "three"], list("abcde"), "weight", **options)


SEGMENTS = [f"NDCG@10, {name}" for name in ("head items", "tail items", "short histories", "long histories")]
FIGURES: dict[str, Callable[[], Figure]] = {
    "vectors": lambda: plots.vectors_plane(np.array([[3.0, 0.0], [-0.2, 0.1]]), ["a long name", "another"]),
    "maps": maps_figure,
    "four maps": lambda: plots.heat_maps(
        {f"title {i}": MAP for i in range(4)}, ["a row with a very long name"] * 3, ["a column as long"] * 5, "weight"
    ),
    "scores": lambda: plots.training_scores(
        [1, 2], {"a": np.array([0.1, 0.2])}, {"a level with a name": 0.15}, "NDCG@10"
    ),
    "curves": lambda: plots.bias_curves(TABLE, EDGES, NAMES),
    "one curve": lambda: plots.bias_curves(TABLE[:1, :1], EDGES[:1], NAMES[:1]),
    "shares": lambda: plots.bucket_shares(np.full((CHANNELS, BUCKETS), 1 / BUCKETS), EDGES, NAMES),
    "score curves": lambda: plots.score_curves(MASSES, SCORES, PAIRS),
    "a narrow score curve": lambda: plots.score_curves(1 + MASSES[1:2] / 40, SCORES[:1], PAIRS[:1]),
    "intervals": lambda: plots.intervals(
        ["one", "a line with a long name"], {"included": SPREAD}, {"included": np.array([True, False])}, "difference"
    ),
    "small intervals": lambda: plots.intervals(
        ["one", "target at cosine -0.35 to 0.13"],
        {"included": SPREAD / 60},
        {"included": np.array([True, False])},
        "difference",
    ),
    "one panel": lambda: plots.seed_points({"NDCG@10": SEEDS}, GROUPS, "ours"),
    "sizes": lambda: plots.size_curves(SIZES, dict.fromkeys("SLKE", "a size of a name"), "filtered", "NDCG@10"),
    "four panels": lambda: plots.seed_points(
        dict.fromkeys(SEGMENTS, SEEDS), GROUPS | {"no-score-reweighting": "a"}, "ours"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_and_no_legend_lies_on_anything(name: str) -> None:
    fig = FIGURES[name]()
    fig.draw_without_rendering()
    drawn, paper = fig.get_tightbbox(), fig.bbox_inches
    assert (drawn.min >= paper.min - 0.01).all()
    assert (drawn.max <= paper.max + 0.01).all()
    below = [legend.get_window_extent() for legend in fig.legends]
    others = [ax.get_tightbbox() for ax in fig.axes]
    others += [text.get_window_extent() for text in (fig._supxlabel, fig._supylabel) if text is not None]
    assert not any(legend.overlaps(other) for legend in below for other in others)


@pytest.mark.parametrize("name", FIGURES)
def test_labels_of_an_axis_leave_each_other_room(name: str) -> None:
    fig = FIGURES[name]()
    fig.draw_without_rendering()
    for axis in [part for ax in fig.axes for part in (ax.xaxis, ax.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        shown = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = [label.get_window_extent() for label in shown if label.get_visible() and label.get_text()]
        assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])


@pytest.mark.parametrize("name", FIGURES)
def test_names_of_axes_leave_each_other_room_and_are_large_enough_for_the_book(name: str) -> None:
    fig = FIGURES[name]()
    fig.draw_without_rendering()
    boxes = [ax.xaxis.label.get_window_extent() for ax in fig.axes if ax.get_visible() and ax.get_xlabel()]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
    small = {text.get_text() for text in fig.findobj(Text) if text.get_fontsize() < plots.SMALLEST}
    assert not {text for text in small if text.strip()}
    assert fig.get_figwidth() <= plots.WIDEST


def test_compared_maps_share_one_scale_and_one_colour_bar() -> None:
    fig = maps_figure()
    images = [ax.images[0] for ax in fig.axes if ax.images]
    assert [image.get_clim() for image in images] == [(0, np.nanmax(MAP))] * 3
    assert len(fig.axes) == 3 + 1
    fig.draw_without_rendering()
    assert len({round(ax.get_position().width, 6) for ax in fig.axes[:3]}) == 1, "the bar takes room from all alike"
    signed = maps_figure(signed=True)
    assert signed.axes[0].images[0].get_clim() == (-np.nanmax(MAP), np.nanmax(MAP))


def test_a_cell_without_a_value_stays_blank_and_without_a_number() -> None:
    fig = maps_figure(numbers=".2f")
    large = fig.axes[1]
    np.testing.assert_array_equal(np.ma.getmaskarray(large.images[0].get_array()), np.isnan(MAP))
    written = {text.get_position(): text.get_text() for text in large.texts}
    assert written == {(c, r): f"{MAP[r, c]:.2f}" for r, c in zip(*np.nonzero(~np.isnan(MAP)), strict=True)}


def test_maps_without_any_value_are_refused() -> None:
    with pytest.raises(ValueError, match="no finite value in empty"):
        plots.heat_maps({"empty": np.full((2, 2), np.nan)}, ["a", "b"], ["a", "b"], "weight")


def test_every_offset_but_that_of_padding_is_drawn_on_one_scale() -> None:
    fig = plots.bias_curves(TABLE, EDGES, NAMES)
    for channel, ax in enumerate(fig.axes):
        lines = [line for line in ax.lines if len(line.get_xdata()) > 2 or line.get_linestyle() == "None"]
        drawn = [line.get_ydata() for line in lines]
        wanted = [
            part for layer, head in np.ndindex(LAYERS, HEADS)
            for part in np.split(TABLE[layer, channel, :-1, head], [BUCKETS])
        ]  # fmt: skip
        assert len(drawn) == len(wanted)
        assert all(np.array_equal(a, b) for a, b in zip(drawn, wanted, strict=True))
    limits = {ax.get_ylim() for ax in fig.axes}
    assert len(limits) == 1
    assert limits.pop()[1] == pytest.approx(1.1 * np.abs(TABLE[:, :, :-1]).max())


def test_a_table_near_zero_looks_flat() -> None:
    fig = plots.bias_curves(TABLE / 1e6, EDGES, NAMES)
    assert fig.axes[0].get_ylim()[1] >= 0.1


def test_a_boundary_is_labelled_with_its_own_cosine() -> None:
    ax = plots.bucket_shares(np.full((CHANNELS, BUCKETS), 1 / BUCKETS), EDGES, NAMES).axes[2]
    labels = {tick.get_text(): place for tick, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert labels[f"{EDGES[2, 0]:.2f}"] == 0.5
    assert labels[f"{EDGES[2, -1]:.2f}"] == BUCKETS - 1.5


def test_shares_are_drawn_in_percent_against_even_shares() -> None:
    shares = RNG.dirichlet(np.ones(BUCKETS), CHANNELS)
    fig = plots.bucket_shares(shares, EDGES, NAMES)
    for ax, values in zip(fig.axes, shares, strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in ax.patches], 100 * values)
        assert ax.lines[0].get_ydata()[0] == pytest.approx(100 / BUCKETS)


def test_score_curves_are_drawn_over_their_own_masses_on_one_scale_of_nats() -> None:
    fig = plots.score_curves(MASSES, SCORES, PAIRS)
    assert [ax.get_title(loc="left") for ax in fig.axes] == PAIRS
    for ax, mass, values in zip(fig.axes, MASSES, SCORES, strict=True):
        curve = next(line for line in ax.lines if len(line.get_xdata()) == len(mass))
        np.testing.assert_array_equal(curve.get_xydata(), np.stack([mass, values], 1))
        assert ax.get_xscale() == "log"
    limits = {ax.get_ylim() for ax in fig.axes}
    assert len(limits) == 1
    assert limits.pop() == pytest.approx((1.1 * SCORES.min(), 1.1 * SCORES.max()))
    assert plots.score_curves(MASSES, SCORES / 1e6, PAIRS).axes[0].get_ylim()[1] >= 0.1, "near zero looks flat"


def test_an_interval_shows_its_numbers_and_only_clear_ones_are_filled() -> None:
    clear = {"included": np.array([True, False]), "filtered": np.array([False, False])}
    fig = plots.intervals(["one", "two"], {"included": SPREAD, "filtered": SPREAD + 1}, clear, "difference")
    bars, dots, filled, bars_masked, dots_masked, filled_masked = fig.axes[0].collections
    np.testing.assert_allclose([segment[:, 0] for segment in bars.get_segments()], SPREAD[:, 1:])
    np.testing.assert_allclose(dots.get_offsets()[:, 0], SPREAD[:, 0])
    np.testing.assert_allclose(filled.get_offsets()[:, 0], SPREAD[:1, 0])
    np.testing.assert_allclose([segment[:, 0] for segment in bars_masked.get_segments()], SPREAD[:, 1:] + 1)
    np.testing.assert_allclose(dots_masked.get_offsets()[:, 0], SPREAD[:, 0] + 1)
    assert len(filled_masked.get_offsets()) == 0
    assert to_hex(dots.get_facecolor()[0]) == "#ffffff"
    assert to_hex(filled.get_facecolor()[0]) == plots.CATEGORIES[0]
    assert (dots.get_offsets()[:, 1] != dots_masked.get_offsets()[:, 1]).all()
    low, high = fig.axes[0].get_ylim()
    assert low > high, "the first label stands at the top"


def test_every_seed_is_a_point_and_the_bar_is_their_mean() -> None:
    ax = plots.seed_points({"NDCG@10": SEEDS}, GROUPS, "ours").axes[0]
    points = {round(y): [] for y in range(4)}
    for cloud in ax.collections:
        for x, y in cloud.get_offsets():
            points[round(y)].append(x)
    assert [points[line] for line in range(4)] == [[0.2, 0.4, 0.3], [0.1], [0.25, 0.05], []]
    bars = {float(np.mean(line.get_ydata())): line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 2}
    assert bars == pytest.approx({0.0: 0.3, 1.0: 0.1, 2.0: 0.15})
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 0.8] == pytest.approx([0.3])


def test_a_size_curve_has_every_seed_and_goes_through_the_means() -> None:
    fig = plots.size_curves(SIZES, dict.fromkeys("SLKE", "size"), "filtered", "NDCG@10")
    shown = [ax for ax in fig.axes if ax.get_visible()]
    assert len(shown) == 4
    assert shown[0].lines[0].get_xdata().tolist() == [4, 8, 1024]
    assert shown[0].lines[0].get_ydata() == pytest.approx([0.141, 0.181, 10.341])
    dots, ring = shown[0].collections
    assert len(dots.get_offsets()) == 6
    assert ring.get_offsets().tolist() == [pytest.approx([8, 0.181])]
    assert [tick.get_text() for tick in shown[0].get_xticklabels()] == ["4", "8", "1,024"]


def test_groups_are_told_apart_by_colour_and_by_marker() -> None:
    fig = plots.seed_points({"NDCG@10": SEEDS}, GROUPS, "ours")
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["main", "baseline", "ablation"]
    colours = {to_hex(cloud.get_facecolor()[0]) for cloud in fig.axes[0].collections if len(cloud.get_offsets())}
    shapes = {cloud.get_paths()[0].vertices.tobytes() for cloud in fig.axes[0].collections if len(cloud.get_offsets())}
    assert len(colours) == 3
    assert len(shapes) == 3


def test_a_group_looks_the_same_in_every_figure_whichever_groups_are_beside_it() -> None:
    kinds = {"a": "control", "b": "ablation", "c": "main", "d": "baseline", "e": "ceiling"}
    for some in (kinds, dict(reversed(kinds.items())), {"a": "control", "c": "main"}):
        figures = (
            plots.seed_points({"NDCG@10": dict.fromkeys(some, np.array([0.2]))}, some, "c"),
            plots.quality_for_cost(dict.fromkeys(some, 2.0), dict.fromkeys(some, 0.1), some),
        )
        for fig in figures:
            clouds = {cloud.get_label(): cloud for cloud in fig.axes[0].collections if len(cloud.get_offsets())}
            for group in some.values():
                style = plots.look(plots.KINDS[group], line=False)
                assert to_hex(clouds[group].get_facecolor()[0]) == style["color"], group


def test_a_series_that_stopped_early_is_drawn_as_far_as_it_goes() -> None:
    series = {"long": np.array([0.1, 0.2, 0.3]), "short": np.array([0.1, 0.5])}
    ax = plots.training_scores([2, 4, 6], series, {"top": 0.9}, "NDCG@10").axes[0]
    long, short, level = ax.lines
    assert (list(long.get_xdata()), list(short.get_xdata())) == ([2, 4, 6], [2, 4])
    np.testing.assert_array_equal(short.get_ydata(), series["short"])
    assert set(level.get_ydata()) == {0.9}
    assert [text.get_text() for text in ax.texts] == ["top"]


def test_arrows_keep_their_direction_and_end_on_the_circle() -> None:
    fig = plots.vectors_plane(np.array([[3.0, 4.0], [-0.2, 0.0]]), ["a", "b"])
    tips = [text.xy for text in fig.axes[0].texts if not text.get_text()]
    np.testing.assert_allclose(tips, [[0.6, 0.8], [-1, 0]])
