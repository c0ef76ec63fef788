"""State and views of the inspector compared with counts by hand, and its controls without a browser."""

import codecs
import html
import io
import json
import re
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import polars as pl
import pytest
from tiny import ids_config, lab_tokenizer_config, planted_data, semantic_ids

from bbqrec_lab.baselines.tokenizers import make_tokenized
from bbqrec_lab.store import Store
from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.inspector import views
from bbqrec_lab.widgets.inspector import widget as inspector
from bbqrec_lab.widgets.inspector.atlas import (
    BANDS,
    MOST,
    Atlas,
    Space,
    State,
    asking,
    choices,
    colouring,
    counted,
    export,
    from_json,
    matches,
    named,
    near,
    rows_with,
    selecting,
    survey,
    terms,
    to_json,
    under,
)

# The warning comes from jupyter-scatter, which uses a deprecated pandas option.
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")
TOY = np.array([[0, 0], [4, 1], [4, 7], [2, 1], [4, 1], [2, 3], [4, 5]])  # row 0 is padding


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """Two tokenizers of 24 planted items; the second has random IDs."""
    folder = tmp_path_factory.mktemp("atlas")
    data = planted_data(folder)
    trained = {
        name: make_tokenized(data, ids_config(source=source), lab_tokenizer_config(), 0, folder / name)
        for name, source in (("learned", "learned"), ("chance", "random"))
    }
    return survey(data, trained, Store(folder / "store"), "pca")


@pytest.fixture
def tool(atlas: Atlas, tmp_path: Path) -> inspector.Inspector:
    return inspector.Inspector(atlas, tmp_path)


def plain(page: str) -> str:
    """The text of a page."""
    return html.unescape(re.sub(r"<[^>]+>", " ", page.replace(html_cards.STYLE, "")))


def test_codes_and_prefixes_find_their_items() -> None:
    assert rows_with(TOY, [4]).tolist() == [1, 2, 4, 6]
    assert rows_with(TOY, [4, 1]).tolist() == [1, 4]
    assert rows_with(TOY, [None, 1]).tolist() == [1, 3, 4]
    assert rows_with(TOY, [0]).tolist() == [], "padding is not an item"
    assert choices(TOY, [4], 1) == [(1, 2), (5, 1), (7, 1)]
    assert choices(TOY, [None], 1) == [(1, 3), (3, 1), (5, 1), (7, 1)]
    assert choices(TOY, [], 0) == [(2, 2), (4, 4)]


def test_a_code_of_another_branch_is_dropped(atlas: Atlas) -> None:
    codes = atlas.ids.code_ids
    first = int(codes[1, 0])
    absent = next(code for code in range(9) if not ((codes[1:, 0] == first) & (codes[1:, 1] == code)).any())
    fields = asking(atlas, [first, absent])
    assert fields["wanted"] == (first, None)
    assert sorted(fields["selected"]) == rows_with(codes, [first]).tolist()
    counts = atlas.items.counts[list(fields["selected"])]
    assert (np.diff(counts) <= 0).all(), "the most popular comes first"
    assert fields["focus"] == fields["selected"][0]
    assert asking(atlas, [None, None]) == selecting(())


def test_only_a_selected_item_can_be_looked_into() -> None:
    with pytest.raises(ValueError, match="item row 3 is not selected"):
        State(selected=(1, 2), focus=3)


def test_titles_are_found_whatever_the_case(atlas: Atlas) -> None:
    title = atlas.items.titles[5]
    part = title[2:7].upper()
    found = matches(atlas, f" {part} ")
    expected = [row for row in range(1, atlas.items.n_items + 1) if part.lower() in atlas.items.titles[row].lower()]
    assert sorted(found) == expected
    assert matches(atlas, title[:3])[0] in [
        row for row in range(1, atlas.items.n_items + 1) if atlas.items.titles[row].startswith(title[:3])
    ]
    assert matches(atlas, "  ") == []
    assert len(matches(atlas, "a", most=4)) == 4


def test_items_are_found_by_their_id_first(atlas: Atlas) -> None:
    ids = ("", *(f"7{row}" for row in range(1, atlas.items.n_items + 1)))
    titles = tuple("Film 72" if row == 5 else f"film {row}" for row in range(atlas.items.n_items + 1))
    items = replace(atlas.items, source_ids=ids, titles=titles)
    other = replace(atlas, items=items, folded=tuple(map(str.casefold, titles)))
    found = matches(other, "72")
    assert found[:2] == [2, 5], "the item with this ID, then titles that contain it"
    assert sorted(found[2:]) == list(range(20, 25)), "then IDs that begin with it"
    assert named(items, 2) == "film 2 · item 72"
    assert named(replace(items, titles=("", *(f"item {known}" for known in ids[1:]))), 2) == "item 72"


def test_one_item_is_no_items() -> None:
    assert [counted(number) for number in (0, 1, 2, 1234)] == ["0 items", "1 item", "2 items", "1,234 items"]


def test_the_legend_counts_grey_points_and_fits_the_method(atlas: Atlas) -> None:
    by = "collision group"
    grey = atlas.items.n_items - int(np.any([*colouring(atlas, by).values()], axis=0).sum())
    assert grey > 0, "the case has grey points"
    page = plain(views.legend_view(atlas, State((1, 2), 1, by)))
    assert f"Grey: {counted(grey)} in no coloured group. Ringed: 2 selected. PCA map" in page
    assert "UMAP" not in page
    assert "UMAP map: near points are similar" in plain(views.legend_view(replace(atlas, method="UMAP"), State()))
    assert views.GREY[False] not in views.legend_view(atlas, State(colour=by)), "grey has no key as a group has"
    assert "Grey: " not in plain(views.legend_view(atlas, State(colour="popularity"))), "each item has a band"


def test_cards_and_neighbours_show_item_ids_and_the_focus(atlas: Atlas) -> None:
    page = views.panels_view(atlas, State((4, 9), 9))
    assert re.findall(r'class="bb-card bb-focus" data-row="(\d+)"', page) == ["9"]
    shown = plain(page)
    neighbour = int(near(atlas.spaces["behaviour"], 9)[0][0])
    for row in (4, 9, neighbour):
        assert f"item {atlas.items.source_ids[row]}" in shown


def test_chips_of_siblings_know_their_prefix_and_those_of_another_tokenizer_are_marked(atlas: Atlas) -> None:
    page = views.panels_view(atlas, State((4,), 4, compared="chance"))
    own = atlas.ids.code_ids[4].tolist()
    known = re.findall(r'data-prefix="([^"]*)"', page)
    assert known[0] == ""
    assert all(prefix == ",".join(map(str, own[: prefix.count(",") + 1])) for prefix in known[1:])
    assert page.count("data-other") == 1


def test_a_state_becomes_json_and_comes_back(atlas: Atlas) -> None:
    first = int(atlas.ids.code_ids[3, 0])
    by_code = asking(atlas, [first])
    moved = State(**by_code, colour="popularity", query="ä", level=2, compared="chance", view=(0.25, -0.5, 3.0))
    for state in (State(), moved, replace(moved, words=False)):
        assert from_json(atlas, to_json(atlas, state)) == state
    assert atlas.items.source_ids[by_code["focus"]] in to_json(atlas, State(**by_code))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tokenizer": "mine"}, "tokenizer must be one of learned, got 'mine'"),
        ({"selected": ["nobody"]}, "this dataset has no item 'nobody'"),
        ({"selected": [""]}, "this dataset has no item ''"),
        ({"selected": "3"}, "this dataset has no item None"),
        ({"colour": "price"}, "colour must be one of level 1, .*got 'price'"),
        ({"level": 9}, "level must be one of 1, 2.* got 9"),
        ({"compared": "mine"}, "compared must be one of"),
        ({"view": [0, 0]}, r"view must be x, y and zoom, got \[0, 0\]"),
        ({"view": [0, 0, "1"]}, "view must be x, y and zoom"),
        ({"view": [0, 0, 0]}, "a positive zoom"),
        ({"beside": "yes"}, "beside must be true or false, got 'yes'"),
        ({"words": 1}, "words must be true or false, got 1"),
        ({"more": 1}, "a state has the fields tokenizer, selected"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_words(atlas: Atlas, change: dict, problem: str) -> None:
    text = json.dumps(json.loads(to_json(atlas, State())) | change)
    with pytest.raises(ValueError, match=problem):
        from_json(atlas, text)
    with pytest.raises(ValueError, match="this is no state as JSON"):
        from_json(atlas, text[:-1])


def test_moving_the_map_changes_the_state_and_no_panel(tool: inspector.Inspector) -> None:
    tool.board.change(**selecting([2, 6]))
    shown, answers = [box.value for box in tool.board.boxes.values()], tool.board.answers
    tool.overlay.view = [0.5, -0.25, 2.0]  # as the page does
    assert tool.board.state == State(**selecting([2, 6]), view=(0.5, -0.25, 2.0))
    assert ([box.value for box in tool.board.boxes.values()], tool.board.answers) == (shown, answers)
    text = tool.controls["state"].value
    tool.overlay.view = [0, 0, 1]
    tool.controls["state"].value = text
    assert tool.overlay.view == [0.5, -0.25, 2.0], "a restored state moves the map"


def test_pictures_are_sent_on_demand_in_frames_of_the_maps_colours(
    atlas: Atlas, tool: inspector.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    monkeypatch.setattr(tool.overlay, "send", sent.append)
    tool.overlay._handle_custom_msg({"faces": [3, 5, 999]}, [])
    assert sent == [{"faces": {str(row): html_cards.face(atlas.items, row) for row in (3, 5)}}]
    tool.overlay._handle_custom_msg({"row": 5}, [])
    assert tool.board.state.selected == (5,)
    for by in ("popularity", "level 1"):
        tool.board.change(colour=by)
        frames = [tool.overlay.colours[group] for group in tool.overlay.groups]
        groups = colouring(atlas, by)
        for colour, member in zip(views.palette(by, len(groups)), groups.values(), strict=True):
            assert [frame == colour for frame in frames] == member.tolist()
    order = np.frombuffer(tool.overlay.order, dtype=np.int32)
    assert (np.diff(atlas.items.counts[order]) <= 0).all(), "the most popular items get their pictures first"
    assert np.array_equal(np.frombuffer(tool.overlay.plane, dtype=np.float32).reshape(-1, 2), atlas.plane)


def test_a_second_map_has_the_codes_of_the_other_tokenizer_and_the_same_selection(
    atlas: Atlas, tool: inspector.Inspector
) -> None:
    board, controls, other = tool.board, tool.controls, under(atlas, "chance")
    assert not tool.second.maps, "nothing is made before it is asked for"
    board.change(**selecting([2, 6]), view=(0.5, 0.0, 4.0))
    controls["beside"].value = True
    assert (board.state.compared, controls["compared"].value) == ("chance", "chance"), "the first of the others"
    second = tool.second.maps["chance"]
    assert tool.second.box.children == (second.box,)
    assert second.scatter.widget.view_sync == tool.map.scatter.widget.view_sync
    assert (second.scatter.widget.camera_target, second.scatter.widget.camera_distance) == ([0.5, 0.0], 0.25)
    assert np.array_equal(second.scatter.widget.points[:, :2], tool.map.scatter.widget.points[:, :2]), "same places"
    for by in ("level 1", "collision group"):
        board.change(colour=by)
        groups, colours = second.groups(by)
        told = [colours[group] for group in groups]
        for colour, member in zip(views.palette(by, MOST), colouring(other, by).values(), strict=False):
            assert [one == colour for one in told] == member.tolist(), "its own codes"
        legend = plain(tool.board.boxes["second"].value)
        assert all(name in legend for name in colouring(other, by))
        assert "chance" in legend
    second.scatter.widget.selection = np.array([3, 8], dtype=np.uint32)
    assert board.state.selected == (4, 9)
    assert sorted(tool.map.scatter.selection().tolist()) == [3, 8]
    controls["compared"].value = ""
    assert (tool.second.box.children, plain(tool.board.boxes["second"].value).strip()) == ((), "")


def test_one_tokenizer_alone_says_how_to_get_another(atlas: Atlas, tmp_path: Path) -> None:
    alone = replace(atlas, tokens={"learned": atlas.ids}, agreement={})
    tool = inspector.Inspector(alone, tmp_path)
    assert tool.controls["beside"].disabled
    assert "add a name such as tiger or random-ids" in plain(tool.board.boxes["panels"].value)


def test_a_level_that_the_other_tokenizer_lacks_leaves_its_map_grey(atlas: Atlas, tool: inspector.Inspector) -> None:
    short = semantic_ids(atlas.items.n_items, (5,))
    assert short.learned < atlas.ids.learned
    both = replace(atlas, tokens={"learned": atlas.ids, "short": short})
    there, state = inspector.ItemMap(under(both, "short"), tool.board), State(colour="level 2", compared="short")
    there.follow(state)
    assert there.scatter.widget.color_by is None
    assert "no groups for the colouring level 2" in plain(views.second_legend_view(both, replace(state, beside=True)))


def test_terms_are_categories_rare_words_and_decades(atlas: Atlas) -> None:
    titles = ("", "The Violin (1987)", "The Harbour", "Violin War", "item 4", *["The Comet"] * 6)
    n = len(titles)
    categories = ((), ("War", "Drama"), *((),) * (n - 2))
    items = replace(atlas.items, titles=titles, categories=categories, source_ids=("", *map(str, range(1, n))))
    told = terms(items)
    assert told[:4] == [{"War", "Drama", "1980s"}, {"harbour"}, set(), set()], "frequent words and categories: no terms"
    items = replace(items, titles=(*titles, *["Other"] * 6), categories=(*categories, *((),) * 6))
    assert "violin" in terms(replace(items, source_ids=("", *map(str, range(1, n + 6)))))[0]


def test_a_click_on_a_panel_focuses_or_selects(atlas: Atlas, tool: inspector.Inspector) -> None:
    def click(**report: object) -> State:
        tool.clicks._handle_custom_msg(report, [])
        return tool.board.state

    tool.board.change(**selecting([2, 6]))
    assert (click(row=6).selected, tool.board.state.focus) == ((2, 6), 6)
    assert (click(row=9).selected, tool.board.state.focus) == ((9,), 9)
    codes = atlas.ids.code_ids[3].tolist()
    assert click(codes=codes[:1]).wanted[0] == codes[0]
    assert sorted(click(codes=[None, codes[1]]).selected) == rows_with(atlas.ids.code_ids, [None, codes[1]]).tolist()
    assert tool.codes[1].value == codes[1]


def test_a_pasted_state_is_restored_or_refused(atlas: Atlas, tool: inspector.Inspector) -> None:
    tool.board.change(**selecting([2, 6]), colour="popularity")
    text = tool.controls["state"].value
    tool.controls["clear"].click()
    assert tool.controls["state"].value != text
    tool.controls["state"].value = text
    assert (tool.board.state.selected, tool.board.state.colour) == ((2, 6), "popularity")
    tool.controls["state"].value = "nothing"
    assert "no state as JSON" in plain(tool.board.status.value)


def test_selected_points_are_black_whatever_their_group(tool: inspector.Inspector) -> None:
    for by in tool.atlas.colourings:
        tool.board.change(colour=by)
        seen = tool.map.scatter.widget
        assert len(seen.color) == len(seen.color_selected) == len(seen.color_hover), "otherwise they are ignored"


def test_all_maps_follow_the_theme_of_the_page(tool: inspector.Inspector) -> None:
    tool.board.change(colour="collision group", compared="chance", beside=True)
    first, second = tool.map.scatter.widget, tool.second.maps["chance"].scatter.widget
    light = [(one.background_color, one.color, one.color_selected) for one in (first, second)]
    assert light[0][0] == [1, 1, 1, 1]
    frames = list(tool.overlay.colours)
    tool.clicks.dark = True
    assert "bb-dark" in tool.box._dom_classes
    for one, (_, colours, _) in zip((first, second), light, strict=True):
        assert max(one.background_color[:3]) < 0.1
        assert one.color_selected == ["#ffffff"] * len(colours), "selected points are white"
        changed = [was for was, now in zip(colours, one.color, strict=True) if was != now]
        assert len(changed) <= 1, "the colours of the groups stay, only grey becomes darker"
    assert views.GREY[True] in tool.overlay.colours
    tool.board.change(compared="")
    tool.board.change(compared="chance")
    tool.clicks.dark = False
    assert [(one.background_color, one.color, one.color_selected) for one in (first, second)] == light
    assert (tool.overlay.colours, "bb-dark" in tool.box._dom_classes) == (frames, False)


def test_colourings_cover_what_they_say(atlas: Atlas) -> None:
    for by in atlas.colourings:
        groups = colouring(atlas, by)
        assert len(groups) <= MOST
        assert all(member.any() and member.shape == (atlas.items.n_items,) for member in groups.values())
        assert np.sum(list(groups.values()), axis=0).max(initial=0) <= 1, f"groups of {by} overlap"
        assert len(set(views.palette(by, len(groups)))) == len(groups)
    bands = colouring(atlas, "popularity")
    assert np.any(list(bands.values()), axis=0).all(), "every item has a number of events"
    with pytest.raises(ValueError, match=r"colour must be one of level 1, .*got 'price'"):
        colouring(atlas, "price")


def test_popularity_bands_end_where_the_next_begins(atlas: Atlas) -> None:
    counts = np.zeros_like(atlas.items.counts)
    counts[:8] = [0, 0, 1, 9, 10, 99, 100, 5000]
    bands = colouring(replace(atlas, items=replace(atlas.items, counts=counts)), "popularity")
    found = [[name for name, member in bands.items() if member[point]] for point in range(7)]
    first, second, third, fourth = BANDS
    assert found == [[first], [second], [second], [third], [third], [fourth], [fourth]]


def test_collision_groups_are_those_before_the_repair(atlas: Atlas) -> None:
    raw = atlas.ids.raw_codes.copy()
    raw[1:] = np.arange(len(raw) - 1)[:, None]
    raw[[3, 8, 11]] = 5
    shared = colouring(replace(atlas, tokens={"learned": replace(atlas.ids, raw_codes=raw)}), "collision group")
    rows = np.flatnonzero(raw[1:, 0] == 5) + 1
    (member,) = shared.values()
    assert (np.flatnonzero(member) + 1).tolist() == rows.tolist()
    assert f"({len(rows)} items)" in next(iter(shared))


def test_neighbours_are_by_cosine_and_never_the_item_itself(atlas: Atlas) -> None:
    for name, space in atlas.spaces.items():
        row = int(np.flatnonzero(space.present)[2])
        rows, cosine = near(space, row, 5)
        others = [other for other in np.flatnonzero(space.present) if other != row]
        by_hand = sorted(others, key=lambda other, s=space: -float(s.vectors[other] @ s.vectors[row]))[:5]
        assert rows.tolist() == by_hand, name
        assert cosine == pytest.approx([space.vectors[other] @ space.vectors[row] for other in by_hand], abs=1e-6)
        missing = np.flatnonzero(~space.present)[-1]
        assert missing == 0 or len(near(space, int(missing))[0]) == 0


def test_the_path_counts_items_and_siblings(atlas: Atlas) -> None:
    codes = atlas.ids.code_ids
    row = 7
    page = views.path_view(atlas, State((row,), row))
    cells = re.findall(r'<td class="bb-number">(\d+)</td><td class="bb-number">(\d+)</td>', page)
    for depth, (items, siblings) in enumerate(cells):
        below = codes[rows_with(codes, codes[row, :depth].tolist()), depth]
        assert int(items) == (below == codes[row, depth]).sum()
        assert int(siblings) == len(np.unique(below)) - 1
    assert len(cells) == codes.shape[1]
    assert atlas.items.titles[row] in page


def test_the_codebook_panel_orders_by_distance_and_counts_use(atlas: Atlas) -> None:
    row, position = 4, 1
    code, book = atlas.ids.code_ids[row, position], atlas.ids.codebook[position]
    page = views.codebook_view(atlas, State((row,), row, level=position + 1))
    shown = [int(number) for number in re.findall(r'data-level="2" data-code="(\d+)"', page)]
    order = np.argsort(np.linalg.norm(book - book[code], axis=1), kind="stable")
    assert shown == [other for other in order if other != code][: views.CODES]
    use = (atlas.ids.code_ids[1:, position] == code).sum()
    assert f"Code {code} has {use} items" in page


def test_ids_without_vectors_say_so(atlas: Atlas) -> None:
    bare = replace(atlas, tokens={"learned": replace(atlas.ids, codebook=np.zeros_like(atlas.ids.codebook))})
    assert "no codebook vectors" in views.codebook_view(bare, State((1,), 1))


def alike(atlas: Atlas, raw: list[int], final: list[int], cosine: float) -> Atlas:
    """Four items with these IDs before and after the repair; items 1 and 2 have this cosine, other pairs 0."""
    vectors = np.zeros((5, 4), dtype=np.float32)
    vectors[1:, :] = np.eye(4)
    vectors[2, :2] = cosine, np.sqrt(1 - cosine**2)
    present = np.arange(5) > 0
    before, after = (np.array([0, *codes])[:, None] for codes in (raw, final))
    ids = replace(semantic_ids(4, (9,)), raw_codes=before, code_ids=after)
    items = replace(atlas.items, code_ids=after, counts=np.array([0, 2, 4, 8, 16]))
    return replace(atlas, tokens={"learned": ids}, items=items, spaces={"text": Space(vectors, present)})


def test_the_words_on_shared_ids_follow_the_numbers(atlas: Atlas) -> None:
    told = " ".join(views.sharing(alike(atlas, [5, 5, 6, 7], [5, 4, 6, 7], 0.9)))
    assert told == (
        "2 items of 4 share their ID before the repair, in 1 group of at most 2 items. "
        "In text space their mean cosine is 0.90; that of any two items is 0.15. "
        "Items that share an ID are more alike than any two items in text space. "
        "Half of them have at most 3 training events; half of the other items at most 12. "
        "After the repair no item shares an ID."
    )
    told = " ".join(views.sharing(alike(atlas, [5, 5, 6, 7], [5, 5, 6, 7], -0.9)))
    assert "is -0.90; that of any two items is -0.15" in told
    assert "more alike than any two items in no space" in told
    assert told.endswith("After the repair 2 items share an ID.")
    assert views.sharing(alike(atlas, [5, 4, 6, 7], [5, 4, 6, 7], 0.9)) == [
        "No two of the 4 items share an ID before the repair."
    ]


def test_every_view_speaks_when_nothing_is_selected(atlas: Atlas) -> None:
    for view in views.VIEWS.values():
        assert len(plain(view(atlas, State()))) > 20
    assert "nothing to export" in views.export_view(atlas, State())


def test_comparison_counts_pairs_that_are_together(atlas: Atlas) -> None:
    rows = tuple(range(1, 10))
    page = plain(views.compare_view(atlas, State(rows, 1, compared="chance")))
    for name in ("learned", "chance"):
        first = atlas.tokens[name].code_ids[list(rows), 0]
        together = sum(first[i] == first[j] for i in range(9) for j in range(i))
        assert f"{name} {together} of 36" in page


def test_a_failing_panel_says_why_and_leaves_the_others(atlas: Atlas) -> None:
    page = views.panels_view(atlas, State((3,), 3, compared="unknown"))
    assert "KeyError: 'unknown'" in html.unescape(page)
    assert "Path in the prefix tree" in page


def test_export_holds_the_selection_in_order(atlas: Atlas) -> None:
    state = State((9, 2, 5), 9, compared="chance")
    frame = export(atlas, state)
    assert frame["item_id"].to_list() == [atlas.items.source_ids[row] for row in state.selected]
    assert frame["learned_code_1"].to_list() == atlas.ids.code_ids[[9, 2, 5], 0].tolist()
    assert frame["chance_code_2"].to_list() == atlas.tokens["chance"].code_ids[[9, 2, 5], 1].tolist()
    link = views.export_view(atlas, state)
    sent = b64decode(re.search(r"base64,([^\"]+)", link)[1])
    assert pl.read_csv(io.BytesIO(sent)).shape == frame.shape
    assert sent.startswith(codecs.BOM_UTF8), "Excel reads UTF-8 only with this mark"


def test_each_control_changes_the_state_and_what_is_shown(atlas: Atlas, tool: inspector.Inspector) -> None:
    board, controls = tool.board, tool.controls

    def shown() -> str:
        return "".join(box.value for box in board.boxes.values())

    first = int(atlas.ids.code_ids[3, 0])
    moves = [
        ("selected", lambda: setattr(tool.codes[0], "value", first)),
        ("focus", lambda: setattr(controls["focus"], "value", board.state.selected[-1])),
        ("level", lambda: setattr(controls["level"], "value", 2)),
        ("compared", lambda: setattr(controls["compared"], "value", "chance")),
        ("colour", lambda: setattr(controls["colour"], "value", "popularity")),
        ("words", lambda: setattr(controls["words"], "value", False)),
        ("selected", lambda: setattr(tool.map.scatter.widget, "selection", np.array([3, 8, 4], dtype=np.uint32))),
        ("wanted", lambda: setattr(tool.codes[1], "value", int(atlas.ids.code_ids[3, 1]))),
        ("selected", controls["clear"].click),
    ]
    for field, move in moves:
        before, old, answers = shown(), getattr(board.state, field), board.answers
        move()
        assert getattr(board.state, field) != old, field
        assert shown() != before, field
        assert board.answers == answers + 1, f"{field}: one move, one update"
        assert "bb-error" not in shown().replace(html_cards.STYLE, "")


def test_points_of_the_map_are_item_rows_less_one(tool: inspector.Inspector) -> None:
    tool.map.scatter.widget.selection = np.array([3, 8], dtype=np.uint32)
    assert tool.board.state.selected == (4, 9)
    tool.controls["clear"].click()
    assert len(tool.map.scatter.selection()) == 0
    tool.board.change(**selecting([2, 6]))
    assert sorted(tool.map.scatter.selection().tolist()) == [1, 5]


def test_the_map_is_told_last_and_once(tool: inspector.Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(ipywidgets.Widget, "_send", lambda widget, message, buffers=None: sent.append(widget))
    for change in ({"colour": "popularity"}, selecting([2, 6]), {"colour": "level 2"} | selecting([3])):
        tool.board.change(**change)
        assert sent.count(tool.map.scatter.widget) == 1, "a page draws the whole map for each message"
        assert sent[-2:] == [tool.map.scatter.widget, tool.board.status], "nothing waits for the drawing"
        sent.clear()


def test_points_that_stand_alone_are_drawn(tool: inspector.Inspector) -> None:
    assert tool.map.scatter.widget.opacity == pytest.approx(0.9), "opacity by density makes them nearly invisible"


def test_search_selects_one_or_all(atlas: Atlas, tool: inspector.Inspector) -> None:
    title = atlas.items.titles[6]
    tool.controls["query"].value = title[:4]
    found = [row for _, row in tool.controls["found"].options]
    assert 6 in found
    assert tool.controls["found"].value is None, "nothing is chosen before a reader chooses"
    tool.controls["query"].value = "no such title"
    assert [text for text, _ in tool.controls["found"].options] == ["no match for “no such title”"]
    tool.controls["found"].value = 0
    assert not tool.board.state.selected, "the message is no item"
    tool.controls["query"].value = title[:4]
    tool.controls["found"].value = 6
    assert tool.board.state.selected == (6,)
    tool.controls["all"].click()
    assert tool.board.state.selected == tuple(found)


def test_saving_writes_the_file_or_says_why_not(tool: inspector.Inspector) -> None:
    tool.controls["save"].click()
    assert "nothing is selected" in plain(tool.board.status.value)
    tool.board.change(**selecting([2, 6, 1]))
    tool.controls["save"].click()
    assert pl.read_csv(tool.file).height == 3
    assert tool.file.read_bytes().startswith(codecs.BOM_UTF8)
    assert "3 rows saved to inspector_selection.csv" in plain(tool.board.status.value)


def test_a_survey_needs_a_tokenizer(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs at least one tokenizer"):
        survey(planted_data(tmp_path), {}, Store(tmp_path))


def test_no_point_lies_on_the_edge_of_the_map() -> None:
    low, high = inspector.padded(np.array([1.0, 3.0, 5.0]), 0.25)
    assert (low, high) == (0.0, 6.0)
