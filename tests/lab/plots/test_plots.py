"""Figures: the same picture gives the same bytes, says in words what it shows, and no text lies on another."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bbqrec_core.tokenizer import semantic_ids
from bbqrec_lab import plots
from bbqrec_lab.experiments import variants

RNG = np.random.default_rng(0)
LONG = "The $5 film with a title that goes on (and on), part 2: the $6 sequel"
NAMES = ("bbqrec", "tiger", "random-ids")


@pytest.fixture(autouse=True)
def style() -> None:
    plots.use_house_style()


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.new("RGB", (40, 90), "#c33").save(path)
    return str(path)


def crowded(fig: Figure) -> list[str]:
    """Texts that lie on each other or outside the picture, in words."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    boxes, undrawn = [], _undrawn(fig)
    for text in fig.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in undrawn:
            boxes.append((text.get_text(), text.get_window_extent(canvas.get_renderer())))
    width, height = fig.bbox.width, fig.bbox.height
    found = [
        f"{name!r} leaves the picture"
        for name, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for (one, a), (two, b) in combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 1 and down > 1:
            found.append(f"{one!r} lies on {two!r}")
    return found


def _undrawn(fig: Figure) -> set[int]:
    """Ids of labels of ticks beyond the limits of their axis, which matplotlib keeps and does not draw."""
    found = set()
    for ax in fig.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = sorted(limits)
            slack = 1e-9 * (high - low)
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not (ax.axison and low - slack <= tick.get_loc() <= high + slack):
                    found |= {id(tick.label1), id(tick.label2)}
    return found


def probe_frame(signals: int) -> pl.DataFrame:
    kinds = ("raw", "behaviour", "quantized", "specific")
    rows = [
        (f"signal{signal}: {kind}", factor, 0.6, 0.5, 0.7, 0.1, 0.55)
        for factor in ("behaviour factor", "own nuisance", "a category with a long name", "popular half")
        for signal in range(signals)
        for kind in kinds
    ]
    columns = ["part", "factor", "accuracy", "low", "high", "chance", "gain"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def points_of_phase(settings: tuple[str, ...] = ("whole", "no CLUB", "neither term")) -> pl.DataFrame:
    rows = [
        (setting, ratio, seed, 0.3 * seed + 0.1 * index, 0.5)
        for ratio in (0.1, 0.3, 1.0, 3.0, 10.0)
        for seed in (0, 1)
        for index, setting in enumerate(settings)
    ]
    return pl.DataFrame(rows, schema=["setting", "ratio", "seed", "behaviour", "nuisance"], orient="row")


def figures(png: str) -> dict[str, Callable[[], Figure]]:
    """How to draw every figure of notebooks 01 to 03 on inputs that are hard to draw."""
    rng = np.random.default_rng(0)
    names, files = [LONG, "x", "Two words", "7", "", "A (1999)"], [png, None, png, None, None, png]
    wide = rng.normal(size=(6, 384)).astype(np.float32)
    narrow = rng.normal(size=(6, 10)).astype(np.float32)
    some, plane = np.array([1, 1, 0, 1, 0, 1], bool), rng.normal(size=(400, 2)).astype(np.float32)
    counts = (3000 / np.arange(1, 400)).astype(np.int64)
    codes = rng.integers(0, 9, (400, 3))
    combos = {"image + text + graph + id": 0.812, "text + id": 0.101, "id": 0.08, "nothing": 0.007}
    cases = ("none", "nearest", "sinkhorn", "extra")
    health = {name: {case: 9.0 * i + j for j, case in enumerate(cases)} for i, name in enumerate(NAMES)}
    one_known = {name: {"": 0.1 if name == "tiger" else np.nan} for name in NAMES}
    single = {f"{name}-{i}": {"": 0.1 * i if i else np.nan} for i in range(9) for name in NAMES}
    curves = {name: (np.array([0.02, 0.05, 0.11, np.nan]), np.full(4, 0.004)) for name in NAMES}
    chance = {f"signal{i} and signal{i + 1}, level {level}": (0.4, 0.1) for i in range(3) for level in (1, 2, 3)}
    epochs, levels = list(range(1, 61)), rng.integers(90, 128, (60, 4))
    points = np.array([[3.0, 1.5], [1.5, 3.2], [-0.9, 1.5]])
    book = np.array([[[2.0, 2], [-2, 1], [0, -2]], [[1.2, 0], [-0.8, 1], [-0.6, -0.8]]])
    chosen = np.array([[0, 0], [0, 1], [1, 0]])
    steps = np.stack([points, points - book[0][chosen[:, 0]], points - book[0][chosen[:, 0]] - book[1][chosen[:, 1]]])
    groups = {f"code {i}": codes[:, 0] == i for i in range(5)}
    long_names = {f"other shared IDs ({n} items)": np.ones(len(plane), bool) for n in range(40, 47)}
    numbers = {
        name: rng.permutation(400) + 1 for name in ("the bundle's order", "by first appearance", "rows used here")
    }
    losses = {
        name: rng.normal(size=60).tolist() for name in ("loss", "reconstruction", "mutual_information", "cross_modal")
    }
    twelve = {"titles": [[LONG] * 6, names], "pictures": [[None] * 6, files]}
    return {
        "item cards": lambda: plots.item_cards(
            names, files, {"graph": narrow, "text": wide}, {"graph": some, "text": ~some}
        ),
        "item cards without a modality": lambda: plots.item_cards(names, files, {}, {}),
        "lengths": lambda: plots.lengths_and_popularity(rng.integers(3, 700, 900), counts),
        "equal lengths": lambda: plots.lengths_and_popularity(np.full(9, 5), np.array([1, 0, 2, 5])),
        "interactions": lambda: plots.interaction_map(
            rng.integers(0, 900, 5000), rng.integers(0, 1700, 5000), (900, 1700)
        ),
        "few interactions": lambda: plots.interaction_map(np.array([0, 1, 2]), np.array([0, 1, 3]), (3, 4)),
        "time gaps": lambda: plots.time_gaps(rng.integers(0, 200_000, 500), 0.44),
        "numbering": lambda: plots.numbering(numbers, rng.integers(0, 99, 400), dict.fromkeys(numbers, -0.91)),
        "presence": lambda: plots.presence_bars(combos, combos),
        "card rows": lambda: plots.card_rows(["code 127, 1234 items", "text"], **twelve, first="the item asked about"),
        "audience": lambda: plots.audience_by_space(
            {"graph": (0.2, 0.01), "text": (0.1, 0.02), "image": (0.11, 0.01)}, 0.05
        ),
        "split": lambda: plots.split([3, 4, 9, 30]),
        "by hand": lambda: plots.quantization_steps(steps, book, chosen, list("ABC")),
        "losses": lambda: plots.training_curves(epochs, losses),
        "one epoch": lambda: plots.training_curves([1], {"loss": [1.0]}),
        "code use": lambda: plots.code_use(epochs, levels, levels * 0.9, 128),
        "probes": lambda: plots.probe_dots(probe_frame(3)),
        "one factor": lambda: plots.probe_dots(probe_frame(1).filter(pl.col("factor") == "own nuisance")),
        "against chance": lambda: plots.against_chance(chance, "share of items", "by chance"),
        "map": lambda: plots.code_maps(plane, codes, [plane[:9], plane[9:18]], "UMAP"),
        "map of one level": lambda: plots.code_maps(plane, codes[:, :1], [plane[:9]], "PCA"),
        "maps": lambda: plots.coloured_maps(plane, dict.fromkeys(NAMES, groups), "UMAP"),
        "maps with long names": lambda: plots.coloured_maps(
            plane * [1, 3],
            {name: long_names for name in NAMES},
            "PCA",
        ),
        "ledger": lambda: plots.ledger({"collision rate (%)": health, "items in the largest group": health}),
        "ledger of many": lambda: plots.ledger(
            {"shared users below a code (times any two)": single, "NDCG@10": single, "codebook vectors": single}
        ),
        "ledger of four": lambda: plots.ledger(
            dict.fromkeys(("items that share an ID", "even use of the first code", "children of a first code"), single)
            | {"shared users below a code (times any two)": single}
        ),
        "ledger with one far off": lambda: plots.ledger(
            {
                "collision rate (%)": {name: {"": 1300.0 ** (i == 2)} for i, name in enumerate(NAMES)},
                "NDCG@10": one_known,
            }
        ),
        "one tokenizer": lambda: plots.ledger({"NDCG@10": {"bbqrec": {"": np.nan}}}),
        "stability": lambda: plots.stability(dict.fromkeys(NAMES, tuple(np.array([[0.6], [0.3], [0.1]])))),
        "agreement of trees": lambda: plots.tree_agreement(
            {name: np.array([[0.41, -0.001, 1], [np.nan] * 3])[: 1 + i % 2] for i, name in enumerate(NAMES)}
        ),
        "phase": lambda: plots.phase(points_of_phase()),
        "one rank curve": lambda: plots.rank_curves({"groups": dict.fromkeys(NAMES, counts)}, "rank", "items"),
        "rank curves": lambda: plots.rank_curves(
            {f"position {i}": dict.fromkeys(NAMES[: 1 + i % 3], counts) for i in range(5)}, "rank of the code", "items"
        ),
        "purity": lambda: plots.purity({"shared users (cosine)": curves, "same behaviour factor (share)": curves}),
        "tree": lambda: plots.prefix_tree(codes[:40], [LONG] * 40, learned=2),
        "tree of two": lambda: plots.prefix_tree(np.array([[127, 3], [127, 99]]), ["a", LONG], learned=2),
    }


@pytest.fixture(scope="module")
def drawn(png: str) -> dict[str, Figure]:
    plots.use_house_style()
    return {name: draw() for name, draw in figures(png).items()}


def test_no_text_lies_on_another_or_leaves_the_picture(drawn: dict[str, Figure]) -> None:
    assert {name: found for name, fig in drawn.items() if (found := crowded(fig))} == {}


def test_every_axis_with_numbers_says_what_they_are(drawn: dict[str, Figure]) -> None:
    bare = [
        (name, which)
        for name, fig in drawn.items()
        for which in "xy"
        for ax in fig.axes[:1]
        if len(getattr(ax, f"get_{which}ticks")())
        and any(t.get_text() for t in getattr(ax, f"get_{which}ticklabels")())
        if not getattr(ax, f"get_{which}label")() and not getattr(fig, f"get_sup{which}label")()
        if any(t.get_text()[:1].isdigit() for t in getattr(ax, f"get_{which}ticklabels")())
    ]
    assert bare == []


def test_crowding_is_seen() -> None:
    fig, axes = plots.panels(1)
    axes[0, 0].text(0.5, 0.5, "one")
    axes[0, 0].text(0.52, 0.5, "two")
    fig.text(0.99, 0.5, "beyond the edge")
    assert {"'one' lies on 'two'", "'beyond the edge' leaves the picture"} <= set(crowded(fig))


def test_the_same_picture_gives_the_same_bytes(png: str, tmp_path: Path) -> None:
    for name in ("item cards", "map"):
        for folder in ("one", "two"):
            plots.save_figure(figures(png)[name](), name, tmp_path / folder, "What. Data: d. Finding.")
        for suffix in ("png", "svg"):
            one, two = (tmp_path / folder / f"{name}.{suffix}" for folder in ("one", "two"))
            assert one.read_bytes() == two.read_bytes(), (name, suffix)


def test_a_figure_carries_its_caption_and_no_date(tmp_path: Path) -> None:
    text = plots.caption("Loss < 1 & falling", "ml-100k", "it fell by 3 %.", seeds=2)
    assert text == "Loss < 1 & falling. Data: ml-100k, 2 seeds. Finding: it fell by 3 %."
    fig, _ = plots.panels(1)
    path = plots.save_figure(fig, "loss", tmp_path, text)
    svg = path.with_suffix(".svg").read_text()
    assert "<title>Loss &lt; 1 &amp; falling. Data: ml-100k, 2 seeds. Finding: it fell by 3 %.</title>" in svg
    assert "dc:date" not in svg
    with Image.open(path) as image:
        assert image.info["Description"] == text
        assert "Software" not in image.info
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)


def test_a_figure_without_words_is_refused(tmp_path: Path) -> None:
    fig, _ = plots.panels(1)
    with pytest.raises(ValueError, match="'loss' has the caption ' '"):
        plots.save_figure(fig, "loss", tmp_path, " ")
    assert list(tmp_path.iterdir()) == []


def test_the_style_does_not_depend_on_what_was_set_before() -> None:
    mpl.rcParams["font.size"] = 30
    mpl.rcParams["axes.grid"] = True
    plots.use_house_style()
    assert mpl.rcParams["font.size"] == 10
    assert not mpl.rcParams["axes.grid"]


def test_no_two_categories_look_alike_even_without_colour() -> None:
    looks = [plots.look(index) for index in range(8)]
    assert len({look["marker"] for look in looks}) == 8
    assert len({str(look["linestyle"]) for look in looks}) == 8
    assert "linestyle" not in plots.look(0, line=False)
    with pytest.raises(ValueError, match="category 8: at most 8"):
        plots.look(8)


def test_log_axes_have_plain_numbers() -> None:
    fig, axes = plots.panels(2)
    axes[0, 0].plot([1, 20_000], [1, 5])
    axes[0, 1].plot([3, 30], [0.01, 1])
    for ax in axes[0]:
        plots.log_counts(ax)
    FigureCanvasAgg(fig).draw()
    texts = [label.get_text() for ax in axes[0] for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    assert {"1", "10,000", "5", "10", "0.01"} <= set(texts)
    assert not any("$" in text for text in texts)


def test_short_keeps_a_dollar_sign_and_cuts_at_words() -> None:
    assert plots.short("A $5 film") == "A $5 film"
    assert plots.short("one two three four", 9) == "one two…"
    assert plots.short("one two three four", 9, lines=2) == "one two\nthree…"
    assert plots.short("one two three", 9, lines=2) == "one two\nthree"
    assert len(plots.short("x" * 99, 10)) <= 11


def test_a_picture_is_shrunk_and_kept_in_shape(png: str) -> None:
    assert plots.picture(png, pixels=30).shape == (30, 13, 3)


def test_no_category_is_too_pale_for_a_marker_on_white() -> None:
    linear = np.array([mpl.colors.to_rgb(colour) for colour in plots.CATEGORIES])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    contrast = 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    assert contrast.min() > 2.5


def test_a_map_colours_the_groups_and_greys_the_rest() -> None:
    _, axes = plots.panels(1)
    plane = RNG.normal(size=(50, 2))
    plots.highlight(axes[0, 0], plane, {"a": np.arange(50) < 5, "b": np.arange(50) >= 48})
    sizes = [len(points.get_offsets()) for points in axes[0, 0].collections]
    assert sizes == [50, 5, 2]


def test_the_tree_has_one_box_per_prefix_and_one_title_per_item() -> None:
    codes = np.array([[1, 4], [1, 4], [1, 2], [1, 7]])
    fig = plots.prefix_tree(codes, ["a", "b", "c", "d"], learned=2, most=3)
    texts = [text.get_text() for text in fig.axes[0].texts]
    assert sorted(texts) == sorted(["1", "2", "4", "c", "a", "b"])
    assert fig.axes[0].get_title(loc="left") == "3 of 4 items"
    assert len(semantic_ids.build_tree(np.vstack([codes[:1], codes[:3]])).code[1]) == 2


def test_rank_curves_leave_unused_codes_out_and_keep_a_tokenizers_colour() -> None:
    fig = plots.rank_curves({"one": {"a": np.array([3, 0, 5]), "b": np.ones(3)}, "two": {"b": np.ones(2)}}, "", "")
    first, second = fig.axes[:2]
    assert first.lines[0].get_ydata().tolist() == [5, 3]
    assert first.lines[1].get_color() == second.lines[0].get_color() != first.lines[0].get_color()


def test_the_purity_of_a_depth_without_pairs_is_not_drawn() -> None:
    mean, error = np.array([0.1, 0.2, np.nan]), np.array([0.01, 0.01, np.nan])
    line = plots.purity({"cosine": {"a": (mean, error)}}).axes[0].containers[0].lines[0]
    assert np.isnan(line.get_ydata()[2])


def test_a_ledger_shows_every_value_once_and_leaves_out_what_is_not_known() -> None:
    rows = {"a": {"none": 3.0, "extra": 0.0}, "b": {"none": 2.0, "extra": np.nan}}
    fig = plots.ledger({"rate": rows})
    places = {
        tuple(line.get_xydata()[0])
        for line in fig.axes[0].lines
        if line.get_linestyle() == "None" and len(line.get_xdata())
    }
    shown = {place for place in places if np.isfinite(place[0])}
    assert {(value, round(row)) for value, row in shown} == {(3.0, 0), (0.0, 0), (2.0, 1)}
    same = plots.ledger({"rate": {"a": {"none": 1.0, "extra": 1.0}}}).axes[0].lines
    rows = [line.get_ydata()[0] for line in same if len(line.get_ydata())]
    assert abs(rows[0] - rows[1]) > 0.1, "equal values must not cover each other"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["none", "extra"]
    low, high = fig.axes[0].get_xlim()
    assert low < 0
    assert high > 3
    skewed = plots.ledger({"rate": {name: {"": value} for name, value in zip("abcd", (0.0, 1, 2, 70), strict=True)}})
    assert (fig.axes[0].get_xscale(), skewed.axes[0].get_xscale()) == ("linear", "symlog")
    assert not plots.ledger({"rate": {"a": {"": 1.0}}}).legends


def test_the_agreement_of_trees_is_on_one_scale_and_names_what_has_none() -> None:
    fig = plots.tree_agreement({"a": np.array([[0.2, -0.001]]), "b": np.array([[0.9, np.nan]])})
    assert {image.get_clim() for ax in fig.axes for image in ax.images} == {(0, 1)}
    assert [text.get_text() for ax in fig.axes[:2] for text in ax.texts] == ["0.20", "0.00", "0.90", "n/a"]


def test_the_enlarged_map_has_only_the_items_and_crosses_of_its_code() -> None:
    plane = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    codes = np.array([[0, i % 9] for i in range(40)] + [[1, 0]] * 20)
    fig = plots.code_maps(plane, codes, [plane[:2], plane[2:11]], "UMAP")
    pale, grey, *coloured, crosses = [len(part.get_offsets()) for part in fig.axes[1].collections]
    assert (pale, grey, crosses) == (20, 40, 6), "items of other codes are apart, and only six codes have a cross"
    assert coloured == [5, 5, 5, 5, 4, 4]
    sixth = fig.axes[1].collections[-1].get_offsets()[0]
    assert sixth.tolist() == pytest.approx(plane[2].tolist()), "second code 0 is the first of those in use"


def test_a_small_group_is_drawn_over_a_large_one_and_with_larger_marks() -> None:
    plane, few = np.zeros((200, 2), np.float32), np.arange(200) < 2
    (ax,) = plots.coloured_maps(plane, {"events": {"few": few, "many": ~few}}, "PCA").axes
    small, large = ax.collections[1:]
    assert small.get_zorder() > large.get_zorder()
    assert small.get_sizes()[0] > large.get_sizes()[0]


def test_no_tick_of_a_wide_ledger_is_at_the_edge_of_its_panel() -> None:
    (ax,) = plots.ledger({"items": {name: {"": n} for name, n in zip("abcd", (1.0, 2, 3, 812), strict=True)}}).axes
    assert max(ax.get_xticks()) == 100


def test_stability_is_drawn_beside_what_chance_gives() -> None:
    of = (np.array([0.6, 0.4]), np.array([0.5, 0.3]), np.array([0.1, 0.05]))
    left, right = plots.stability({"a": of}).axes
    assert left.lines[0].get_ydata().tolist() == [0.6, 0.4]
    assert [line.get_ydata().tolist() for line in right.lines] == [[0.5, 0.3], [0.1, 0.05]]
    assert right.lines[1].get_markerfacecolor() == "white"


def test_a_phase_diagram_draws_the_mean_and_the_range_over_seeds() -> None:
    left, right = plots.phase(points_of_phase(("a", "b"))).axes[:2]
    assert left.lines[1].get_ydata() == pytest.approx([0.25] * 5)  # of 0.1 and 0.4
    band = left.collections[1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.1, 0.4))
    assert left.lines[1].get_xdata().tolist() == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert right.lines[0].get_ydata() == pytest.approx([0.5] * 5)


def test_frequent_categories_have_a_colour_of_their_own_and_none_is_grey() -> None:
    found = plots.genres([*"abbb", "", *"cdefghi"])
    colour = {genre.name: genre.colour for genre in found}
    assert len({colour[name] for name in "bacdef"}) == 6
    assert {colour[name] for name in "ghi"} == {plots.CATEGORIES[6]}
    assert plots.CATEGORIES[7] not in colour.values()
    assert plots.genres(["b", "a"])[1].colour == plots.genres(["a"])[0].colour == plots.CATEGORIES[0]


def test_a_card_without_a_picture_is_a_cover_with_title_year_and_category() -> None:
    (genre,) = plots.genres(["Drama"])
    fig = plots.card_rows(["row"], [["Rain (1932)", "Rain"]], [[None, None]], genres=[[genre, plots.UNKNOWN_GENRE]])
    texts = [[text.get_text() for text in ax.texts] for ax in fig.axes]
    assert texts == [["Rain", "1932\nDrama"], ["Rain", ""]]
    assert mpl.colors.to_hex(fig.axes[0].get_facecolor()) == genre.pale


def test_fonts_that_the_user_chose_are_kept_and_come_first() -> None:
    mpl.rcParams["font.family"] = ["DejaVu Serif"]
    plots.use_house_style()
    plots.use_house_style()
    assert mpl.rcParams["font.family"][0] == "DejaVu Serif"
    assert len(set(mpl.rcParams["font.family"])) == len(mpl.rcParams["font.family"])
    mpl.rcdefaults()


def test_letters_without_a_glyph_are_named_once_and_not_one_by_one(tmp_path: Path) -> None:
    mpl.rcParams["font.family"] = ["DejaVu Sans"]
    fig, axes = plots.panels(1)
    axes[0, 0].set_title("\U000f0000\U000f0001\U000f0001")  # no font has private letters
    with pytest.warns(UserWarning, match="^Boxes stand for 2 letters that no installed font has") as caught:
        plots.save_figure(fig, "boxes", tmp_path, "A caption.")
    assert len(caught) == 1
    mpl.rcdefaults()


def test_no_text_is_too_small_to_read_where_the_book_shows_it(drawn: dict[str, Figure]) -> None:
    small = {
        (name, text.get_text())
        for name, fig in drawn.items()
        for text in fig.findobj(Text)
        if text.get_text().strip() and text.get_fontsize() < plots.SMALLEST
    }
    assert small == set()
    assert {name: fig.get_figwidth() for name, fig in drawn.items() if fig.get_figwidth() > plots.WIDEST} == {}


def test_a_name_that_stands_for_a_group_looks_the_same_wherever_it_is_drawn() -> None:
    alone, among = plots.looks(["random-ids"]), plots.looks(["x", "control", "random-ids", "bbqrec"], line=False)
    assert among["random-ids"]["color"] == alone["random-ids"]["color"] == among["control"]["color"]
    assert among["bbqrec"] == plots.looks(["main"], line=False)["main"]
    assert [plots.looks(["a", "b"])[name] for name in "ab"] == [plots.look(0), plots.look(1)]
    assert plots.looks(["a", "bbqrec", "b"])["a"] == plots.look(1), "a free category, not that of bbqrec"
    groups = [plots.KINDS[name] for name in ("main", "baseline", "control", "ablation", "ceiling")]
    assert len(set(groups)) == 5


def test_a_tokenizer_drawn_alone_has_the_colour_of_its_group() -> None:
    expected = {name: plots.look(plots.KINDS[variants.VARIANTS[name].group])["color"] for name in NAMES}
    counts = dict.fromkeys(reversed(NAMES), np.array([3, 2, 1]))
    curves = {name: (np.array([0.1, 0.2]), np.full(2, 0.01)) for name in reversed(NAMES)}
    seeds = dict.fromkeys(reversed(NAMES), tuple(np.array([[0.6], [0.3], [0.1]])))
    ranked = plots.rank_curves({"": counts}, "rank", "items").axes[0].lines
    assert {line.get_label(): line.get_color() for line in ranked} == expected
    bars = plots.purity({"cosine": curves}).axes[0].containers
    assert {bar.get_label(): bar.lines[0].get_color() for bar in bars} == expected
    stable = {line.get_label(): line.get_color() for line in plots.stability(seeds).axes[0].lines}
    assert {name: stable[name] for name in NAMES} == expected


def test_numbers_on_axes_have_thousands_separators_and_words_stay_words() -> None:
    fig, axes = plots.panels(2)
    axes[0, 0].plot([0, 25_000_000], [-12_000, 0.5])
    axes[0, 1].barh(["a word", "10000"], [0.25, 0.5])
    FigureCanvasAgg(fig).draw()
    across, up, words = (
        [label.get_text() for label in labels]
        for labels in (axes[0, 0].get_xticklabels(), axes[0, 0].get_yticklabels(), axes[0, 1].get_yticklabels())
    )
    assert "10,000,000" in across
    assert "−10,000" in up
    assert words == ["a word", "10000"]
