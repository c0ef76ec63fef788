"""The codebook inspector as a widget: a map of all items, labelled controls, and panels about their semantic IDs.

The state is in `atlas` and its views are in `views`; this module connects them with controls.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.colors import to_rgba

from bbqrec_lab.notebook import Workspace
from bbqrec_lab.store import write_atomic
from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.inspector import views
from bbqrec_lab.widgets.inspector.atlas import (
    STEPS,
    Atlas,
    State,
    asking,
    choices,
    colouring,
    counted,
    export_bytes,
    from_json,
    matches,
    named,
    selecting,
    survey,
    to_json,
    under,
)
from bbqrec_lab.widgets.inspector.overlay import MapOverlay
from bbqrec_lab.widgets.inspector.page import Clicks, SmallCanvas
from bbqrec_lab.widgets.state_board import LiveBox, Progress, StateBoard

ANY = -1  # the option "any" of a level; None would mean that the dropdown has no value
LISTED = 200  # maximum number of options in the dropdown of selected items
MAP_HEIGHT = 430  # before the page fits the map to its column
WIDE = widgets.Layout(width="99%")
BOUND = ("colour", "query", "words", "level", "compared", "beside")  # controls that hold the field of the same name
REST = "no coloured group"  # what the tooltip says about a grey point
NARROW = {"description_width": "110px"}


def survey_workspace(space: Workspace, names: list[str]) -> Atlas:
    """Compute the atlas of the tokenizers of a workspace, with a progress bar; missing tokenizers are trained.

    Args: names: variants; the first is inspected.
    """
    bar = Progress(STEPS + len(names), "Preparing the inspector")
    tokenizers = {}
    for name in names:
        bar.step(f"tokenizer {name}")
        tokenizers[name] = space.tokenizer(name)
    method = "pca" if space.preset == "smoke" else "umap"
    try:
        return survey(space.data, tokenizers, space.store, method, space.seed, bar.step)
    finally:
        bar.close()


class Inspector:
    """The widget of an atlas; a notebook displays `box`.

    Args: folder: destination of the exported selection, `inspector_selection.csv`. state: the initial state.
    """

    def __init__(self, atlas: Atlas, folder: str | Path, state: State | None = None) -> None:
        self.atlas, self.file = atlas, Path(folder) / "inspector_selection.csv"
        panels = {"panels": lambda state: views.panels_view(atlas, state)}
        panels |= {"legend": lambda state: views.legend_view(atlas, state)}
        panels |= {"second": lambda state: views.second_legend_view(atlas, state)}
        panels |= {"export": lambda state: views.export_view(atlas, state)}
        self.board = StateBoard(state or State(), panels)
        self.map, self.second = ItemMap(atlas, self.board), SecondMap(atlas, self.board)
        self.overlay = MapOverlay(
            atlas.plane,
            1 + np.argsort(-atlas.items.counts[1:], kind="stable"),
            atlas.regions,
            lambda rows: faces(atlas, rows),
            lambda report: self.board.act(lambda: self._picked(report)),
            self._moved,
        )
        self.controls = self._controls()
        self.codes = [
            widgets.Dropdown(description=f"Code at level {position + 1}", style=NARROW, layout=WIDE)
            for position in range(atlas.ids.learned)
        ]
        self.clicks = Clicks(lambda report: self.board.act(lambda: self._picked(report)))
        self._wire()
        self.board.follow()
        self.board.show()
        self.box = self._lay_out()

    def _controls(self) -> dict[str, Any]:
        """All controls by name, with their visible labels."""
        atlas = self.atlas
        levels = [(str(level), level) for level in range(1, atlas.ids.learned + 1)]
        looks = {"style": NARROW, "layout": WIDE}
        return {
            "colour": widgets.Dropdown(options=atlas.colourings, description="Colour map by", **looks),
            "query": widgets.Text(description="Title or item ID", placeholder="part of a title", **looks),
            "found": widgets.Select(description="Matches", rows=4, **looks),
            "all": widgets.Button(description="Select all matches", layout=WIDE),
            "clear": widgets.Button(description="Clear selection", layout=WIDE),
            "focus": widgets.Dropdown(description="Item in detail", **looks),
            "words": widgets.Checkbox(description="Words on the map", indent=False, layout=WIDE),
            "level": widgets.Dropdown(options=levels, description="Codebook level", **looks),
            "compared": widgets.Dropdown(options=[("nothing", ""), *zip(atlas.others, atlas.others, strict=True)]),
            "beside": widgets.Checkbox(description="Second map with its codes", indent=False, layout=WIDE),
            "save": widgets.Button(description="Save selection as CSV", layout=WIDE),
            "state": widgets.Text(description="State as JSON", continuous_update=False, **looks),
        }

    def _wire(self) -> None:
        """Connect the controls with the state, in both directions."""
        board, controls = self.board, self.controls
        controls["compared"].description, controls["compared"].style = "Compare with", NARROW
        controls["compared"].layout = WIDE
        for name in BOUND:
            if name != "beside":
                board.bind(controls[name], name)
        board.watch(controls["beside"], self._place_beside)
        board.bind(controls["focus"], "focus", lambda row: row or 0)
        board.watch(controls["found"], self._choose)
        for code in self.codes:
            board.watch(code, lambda _: board.change(**asking(self.atlas, self._asked())))
        board.press(controls["all"], lambda: board.change(**selecting(matches(self.atlas, board.state.query))))
        board.press(controls["clear"], lambda: board.change(**selecting(())))
        board.press(controls["save"], self._save)
        board.watch(controls["state"], self._restore)
        board.listeners += [self._follow, self._follow_codes, self.second.follow, self.map.follow]
        self.clicks.observe(lambda change: self._follow_theme(change["new"]), names="dark")

    def _follow_theme(self, dark: bool) -> None:
        """Draw the maps on the background of the page's theme."""
        mark = self.box.add_class if dark else self.box.remove_class
        mark("bb-dark")
        self.map.set_theme(dark)
        self.second.set_theme(dark)
        self.overlay.paint(*self.map.groups(self.board.state.colour))

    def _place_beside(self, wanted: bool) -> None:
        """Show or hide the second map; without a tokenizer to compare with, take the first of the others."""
        self.board.change(beside=wanted, compared=self.board.state.compared or next(iter(self.atlas.others), ""))

    def _choose(self, row: int | None) -> None:
        """Select one of the matches; None means that no match is chosen."""
        if row:
            self.board.change(**selecting([row]))

    def _picked(self, report: Mapping[str, Any]) -> None:
        """Answer a click on a panel: focus a selected item, or select another one, or the items with a code."""
        if "codes" in report:
            self.board.change(**asking(self.atlas, report["codes"]))
        elif report["row"] in self.board.state.selected:
            self.board.change(focus=report["row"])
        else:
            self.board.change(**selecting([report["row"]]))

    def _moved(self, view: tuple[float, float, float]) -> None:
        """Keep what the map shows in the state; no panel depends on it."""
        if not self.board.quiet:
            self.board.note(view=view)

    def _restore(self, text: str) -> None:
        """Set the state that a reader has pasted."""
        self.board.change(**vars(from_json(self.atlas, text)))

    def _follow(self, state: State) -> None:
        """Set the controls from the state."""
        items, controls = self.atlas.items, self.controls
        for name in BOUND:
            controls[name].value = getattr(state, name)
        found = matches(self.atlas, state.query)
        listed = [(named(items, row), row) for row in found]
        if state.query.strip() and not found:
            listed = [(f"no match for “{state.query.strip()}”", 0)]
        offer(controls["found"], listed, next(iter(state.selected), None))
        chosen = [(named(items, row), row) for row in state.selected[:LISTED]]
        offer(controls["focus"], chosen or [("(nothing is selected)", 0)], state.focus)
        controls["all"].disabled, controls["clear"].disabled = not found, not state.selected
        controls["beside"].disabled = not self.atlas.others
        controls["state"].value = to_json(self.atlas, state)
        self.overlay.words, self.overlay.view = state.words, list(state.view)
        self.overlay.paint(*self.map.groups(state.colour))

    def _follow_codes(self, state: State) -> None:
        """Offer at each level the codes that exist below the earlier codes, with their numbers of items."""
        wanted = [*state.wanted, *[None] * (len(self.codes) - len(state.wanted))]
        for position, chooser in enumerate(self.codes):
            there = choices(self.atlas.ids.code_ids, wanted, position)
            options = [("any", ANY), *((f"{code} ({counted(count)})", code) for code, count in there)]
            offer(chooser, options, ANY if wanted[position] is None else wanted[position])

    def _asked(self) -> list[int | None]:
        """The code chosen at each level."""
        return [None if one.value in (None, ANY) else one.value for one in self.codes]

    def _save(self) -> None:
        """Write the selection to the file and report it."""
        if not self.board.state.selected:
            raise ValueError("nothing is selected: select items, then save again")
        write_atomic(self.file, export_bytes(self.atlas, self.board.state))
        count = len(self.board.state.selected)
        self.board.tell(f"{count} row{'' if count == 1 else 's'} saved to {self.file.name} in the tables folder.")

    def _lay_out(self) -> widgets.Box:
        """Map, controls and panels; `Clicks` lays them out beside each other where there is room."""
        boxes, controls = self.board.boxes, self.controls
        by_title = [controls["query"], controls["found"], controls["all"], controls["clear"]]
        side = [
            *by_title,
            *self.codes,
            *(controls[name] for name in ("focus", "colour", "words", "level", "compared", "beside", "save")),
        ]
        parts = {
            "bb-map": [self.map.box, boxes["legend"], self.overlay, SmallCanvas(layout=widgets.Layout(display="none"))],
            "bb-second": [self.second.box.add_class("bb-scatter"), boxes["second"].add_class("bb-legend")],
            "bb-side": [*side, boxes["export"], controls["state"], self.board.status],
            "bb-panels": [boxes["panels"]],
        }
        for name, one in (
            ("bb-scatter", self.map.box),
            ("bb-legend", boxes["legend"]),
            ("bb-state", controls["state"]),
        ):
            one.add_class(name)
        desk = self.second.desk
        desk.children = [widgets.VBox(children).add_class(name) for name, children in parts.items()]
        desk.children[1].add_class("bb-map")
        box = LiveBox([desk.add_class("bb-desk"), self.clicks], layout=widgets.Layout(width="100%"))
        return box.add_class("bb-inspector")


def faces(atlas: Atlas, rows: Sequence[int]) -> dict[int, str]:
    """HTML of the pictures, or of the covers, of some items."""
    return {row: html_cards.face(atlas.items, row) for row in rows if 0 < row <= atlas.items.n_items}


def offer(chooser: Any, options: list[tuple[str, Any]], value: Any) -> None:
    """Set options and value of a dropdown or list; the value is None if it is no option. Only changes are sent."""
    if tuple(chooser.options) != tuple(options):
        chooser.options = options
    there = value if any(value == one for _, one in options) else None
    if chooser.value != there:
        chooser.value = there


class ItemMap:
    """All items as points of a WebGL scatter plot; a lasso or a click selects items.

    Args: board: its state holds the selection and the colouring. dark: whether the page has a dark theme.
    """

    def __init__(self, atlas: Atlas, board: StateBoard, dark: bool = False) -> None:
        import jscatter
        import pandas as pd

        columns: dict[str, Any] = {"x": atlas.plane[:, 0], "y": atlas.plane[:, 1]}
        self.colours: dict[str, dict[str, str]] = {}
        for by in atlas.colourings:
            groups = colouring(atlas, by)
            columns[by], self.colours[by] = as_column(groups, views.palette(by, len(groups)), len(atlas.plane))
        columns["item"] = [
            f"{named(atlas.items, row)} · ID {_joined(atlas, row)}" for row in range(1, len(atlas.plane) + 1)
        ]
        self.board, self.columns, self.coloured, self.dark = board, columns, "", dark
        self.scatter = jscatter.Scatter(data=pd.DataFrame(columns), x="x", y="y", height=MAP_HEIGHT)
        self.scatter.xy(x_scale=padded(columns["x"], 0.04), y_scale=padded(columns["y"], 0.04))
        self.scatter.options(regl_scatterplot_options={"height": "auto", "pointSizeSelected": 4})
        self.box = self.scatter.show(["pan_zoom", "lasso", "full_screen", "download", "reset"])
        self.scatter.background(views.PAPER[dark])
        self.scatter.axes(False)
        self.scatter.size(float(np.clip(30_000 / len(atlas.plane), 3, 8)))
        # The default opacity by density hides isolated points. The call has an effect only after `show`.
        self.scatter.opacity(0.9, by=None, unselected=views.FADED[dark])
        self.scatter.mouse("lasso")
        self.scatter.tooltip(True, properties=["color"], histograms=False, preview="item", preview_text_lines=5)
        self.scatter.widget.view_sync = f"bb-{id(board)}"  # maps with the same mark show the same part
        self.scatter.widget.observe(self._selected, names="selection")

    def groups(self, by: str) -> tuple[np.ndarray, list[str]]:
        """The group of each point in a colouring, and the colours of the groups."""
        return self.columns[by].codes, list(self._colours(by).values())

    def _colours(self, by: str) -> dict[str, str]:
        """The colour of each group of a colouring, under the theme of the page."""
        known = self.colours[by]
        return known | ({REST: views.GREY[self.dark]} if REST in known else {})

    def set_theme(self, dark: bool) -> None:
        """Draw the map on the background of a light or a dark theme."""
        if dark == self.dark:
            return
        self.dark = dark
        with self.scatter.widget.hold_sync():
            # Not `scatter.background`: after `show`, it brings back the axes and the legend, whose colours it sets.
            self.scatter.widget.background_color = list(to_rgba(views.PAPER[dark]))
            self.scatter.widget.opacity_unselected = views.FADED[dark]
            self._paint(self.coloured)

    def _selected(self, change: Mapping[str, Any]) -> None:
        points = [] if change["new"] is None else np.asarray(change["new"]).astype(int).tolist()
        rows = [point + 1 for point in points]
        if not self.board.quiet and set(rows) != set(self.board.state.selected):
            self.board.act(lambda: self.board.change(**selecting(rows)))

    def follow(self, state: State) -> None:
        """Apply colouring and selection in one message, because the page redraws the whole map for every message."""
        with self.scatter.widget.hold_sync():
            if state.colour != self.coloured:
                self._paint(state.colour)
            points = [row - 1 for row in state.selected]
            if set(points) != set(np.asarray(self.scatter.selection()).tolist()):
                self.scatter.selection(points or None)

    def _paint(self, by: str) -> None:
        """Colour the points; all are grey if this tokenizer has no such level."""
        self.coloured = by
        if by not in self.colours:
            self.scatter.color(default=views.GREY[self.dark], by=None)
            return
        self.scatter.color(by=by, map=self._colours(by))
        # Fewer of these than groups would be ignored: a selected point would keep the colour of its group.
        chosen = [views.CHOSEN[self.dark]] * len(self.colours[by])
        self.scatter.widget.color_selected = self.scatter.widget.color_hover = chosen


class SecondMap:
    """A second map beside the first: the same items at the same places, coloured by the codes of another tokenizer.

    It shares the selection and the part of the map in view. Nothing is made before a reader asks for it.

    Args: board: its state says whether and of which tokenizer the map is shown.
    """

    def __init__(self, atlas: Atlas, board: StateBoard) -> None:
        self.atlas, self.board = atlas, board
        self.maps: dict[str, ItemMap] = {}
        self.box, self.desk, self.dark = widgets.VBox(), widgets.Box(), False

    def set_theme(self, dark: bool) -> None:
        """Draw this map, and those of tokenizers chosen later, under a light or a dark theme."""
        self.dark = dark
        for one in self.maps.values():
            one.set_theme(dark)

    def follow(self, state: State) -> None:
        """Show the map of the compared tokenizer if the state asks for it, else none."""
        name = state.compared if state.beside else ""
        if not name:
            self.box.children = ()
            self.desk.remove_class("bb-beside")
            return
        if name not in self.maps:
            self.maps[name] = ItemMap(under(self.atlas, name), self.board, self.dark)
        there = self.maps[name]
        there.follow(state)
        if self.box.children != (there.box,):
            x, y, zoom = state.view
            there.scatter.widget.camera_target, there.scatter.widget.camera_distance = [x, y], 1 / zoom
            self.desk.add_class("bb-beside")  # first, because the map takes the size that it finds
            self.box.children = (there.box,)


def _joined(atlas: Atlas, row: int) -> str:
    """The semantic ID of an item as text."""
    return "-".join(map(str, atlas.items.code_ids[row].tolist()))


def padded(values: np.ndarray, share: float) -> tuple[float, float]:
    """The range of the values plus a share of it at both ends, so that no point lies on the edge of the map."""
    low, high = float(values.min()), float(values.max())
    return low - share * (high - low), high + share * (high - low)


def as_column(groups: Mapping[str, np.ndarray], colours: list[str], points: int) -> tuple[Any, dict[str, str]]:
    """Groups of points as one column of names, and the colour of each name; the first group of a point counts."""
    import pandas as pd

    names = np.full(points, REST, dtype=object)
    for name, member in reversed(groups.items()):
        names[member] = name
    known = {**dict(zip(groups, colours, strict=True)), REST: views.GREY[False]}
    present = {name: colour for name, colour in known.items() if (names == name).any()}
    return pd.Categorical(names, categories=list(present)), present
