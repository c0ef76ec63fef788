"""The codebook inspector as a widget: a map of all items, labelled controls, and panels about their semantic IDs.

The state is in `atlas` and its views are in `views`; this module connects them with controls.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np

from bbqrec_lab.notebook import Workspace
from bbqrec_lab.store import write_atomic
from bbqrec_lab.widgets.inspector import views
from bbqrec_lab.widgets.inspector.atlas import (
    STEPS,
    Atlas,
    State,
    asking,
    choices,
    colouring,
    export,
    matches,
    selecting,
    survey,
)
from bbqrec_lab.widgets.state_board import Progress, StateBoard

ANY = -1  # the option "any" of a level; None would mean that the dropdown has no value
LISTED = 200  # maximum number of options in the dropdown of selected items
MAP_HEIGHT = 430
WIDE = widgets.Layout(width="99%")
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
        panels |= {"export": lambda state: views.export_view(atlas, state)}
        self.board = StateBoard(state or State(), panels)
        self.map = ItemMap(atlas, self.board)
        self.controls = self._controls()
        self.codes = [
            widgets.Dropdown(description=f"Code at level {position + 1}", style=NARROW, layout=WIDE)
            for position in range(atlas.ids.learned)
        ]
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
            "query": widgets.Text(description="Title contains", placeholder="part of a title", **looks),
            "found": widgets.Select(description="Matches", rows=5, **looks),
            "all": widgets.Button(description="Select all matches", layout=widgets.Layout(width="48%")),
            "clear": widgets.Button(description="Clear selection", layout=widgets.Layout(width="48%")),
            "focus": widgets.Dropdown(description="Item in detail", **looks),
            "level": widgets.Dropdown(options=levels, description="Codebook level", **looks),
            "compared": widgets.Dropdown(options=[("nothing", ""), *zip(atlas.others, atlas.others, strict=True)]),
            "save": widgets.Button(description="Save selection as CSV", layout=widgets.Layout(width="98%")),
        }

    def _wire(self) -> None:
        """Connect the controls with the state, in both directions."""
        board, controls = self.board, self.controls
        controls["compared"].description, controls["compared"].style = "Compare with", NARROW
        controls["compared"].layout = WIDE
        for name in ("colour", "query", "level", "compared"):
            board.bind(controls[name], name)
        board.bind(controls["focus"], "focus", lambda row: row or 0)
        board.watch(controls["found"], self._choose)
        for code in self.codes:
            board.watch(code, lambda _: board.change(**asking(self.atlas, self._asked())))
        board.press(controls["all"], lambda: board.change(**selecting(matches(self.atlas, board.state.query))))
        board.press(controls["clear"], lambda: board.change(**selecting(())))
        board.press(controls["save"], self._save)
        board.listeners += [self._follow, self._follow_codes, self.map.follow]

    def _choose(self, row: int | None) -> None:
        """Select one of the matches; None means that no match is chosen."""
        if row:
            self.board.change(**selecting([row]))

    def _follow(self, state: State) -> None:
        """Set the controls from the state."""
        titles, controls = self.atlas.items.titles, self.controls
        for name in ("colour", "query", "level", "compared"):
            controls[name].value = getattr(state, name)
        found = matches(self.atlas, state.query)
        offer(controls["found"], [(titles[row], row) for row in found], next(iter(state.selected), None))
        chosen = [(titles[row], row) for row in state.selected[:LISTED]]
        offer(controls["focus"], chosen or [("(nothing is selected)", 0)], state.focus)
        controls["all"].disabled, controls["clear"].disabled = not found, not state.selected

    def _follow_codes(self, state: State) -> None:
        """Offer at each level the codes that exist below the earlier codes, with their numbers of items."""
        wanted = [*state.wanted, *[None] * (len(self.codes) - len(state.wanted))]
        for position, chooser in enumerate(self.codes):
            there = choices(self.atlas.ids.code_ids, wanted, position)
            options = [("any", ANY), *((f"{code} ({count} items)", code) for code, count in there)]
            offer(chooser, options, ANY if wanted[position] is None else wanted[position])

    def _asked(self) -> list[int | None]:
        """The code chosen at each level."""
        return [None if one.value in (None, ANY) else one.value for one in self.codes]

    def _save(self) -> None:
        """Write the selection to the file and report it."""
        if not self.board.state.selected:
            raise ValueError("nothing is selected: select items, then save again")
        write_atomic(self.file, export(self.atlas, self.board.state).write_csv())
        self.board.tell(f"{len(self.board.state.selected)} rows saved to {self.file.name} in the tables folder.")

    def _lay_out(self) -> widgets.Box:
        """Map on the left, controls on the right, panels below."""
        boxes, controls = self.board.boxes, self.controls
        buttons = widgets.HBox([controls["all"], controls["clear"]])
        by_title = [controls["query"], controls["found"], buttons]
        right = [controls["colour"], *by_title, *self.codes, controls["focus"], controls["level"], controls["compared"]]
        right += [controls["save"], boxes["export"]]
        drawn = [self.map.box, SmallCanvas(layout=widgets.Layout(display="none")), boxes["legend"]]
        left = widgets.VBox(drawn, layout=widgets.Layout(flex="3 1 380px", min_width="0"))
        side = widgets.VBox(right, layout=widgets.Layout(flex="2 1 330px", min_width="0"))
        top = widgets.Box([left, side], layout=widgets.Layout(display="flex", flex_flow="row wrap", width="100%"))
        box = widgets.VBox([top, self.board.status, boxes["panels"]], layout=widgets.Layout(width="100%"))
        box.add_class("bb-inspector")
        return box


def offer(chooser: Any, options: list[tuple[str, Any]], value: Any) -> None:
    """Set options and value of a dropdown or list; the value is None if it is no option. Only changes are sent."""
    if tuple(chooser.options) != tuple(options):
        chooser.options = options
    there = value if any(value == one for _, one in options) else None
    if chooser.value != there:
        chooser.value = there


class SmallCanvas(anywidget.AnyWidget):
    """An invisible widget that reduces the hidden canvas of jupyter-scatter to the size of the map.

    All maps of a page share that canvas. By default it is as large as the window, and its centre is copied to the map.
    Without a GPU the drawing time is proportional to the pixels of the canvas; a window has ten times those of a map.

    Choice: this uses the undocumented renderer that jupyter-scatter keeps in the page; without it, maps are drawn as
    usual.
    """

    _esm = """
    function fit(renderer) {
      const draw = renderer.render;
      renderer.bbFits = true;
      renderer.render = (act, map) => {
        const { canvas } = renderer, ratio = window.devicePixelRatio;
        if (map.width && map.height && (canvas.width !== map.width || canvas.height !== map.height)) {
          renderer.resize((map.width + 0.5) / ratio, (map.height + 0.5) / ratio);  // because a canvas rounds down
          renderer.refresh();
        }
        draw(act, map);
      };
    }
    function render() {
      const wait = (tries) => {
        const renderer = window.jupyterScatter?.renderer;
        if (renderer && !renderer.bbFits) fit(renderer);
        if (!renderer && tries) setTimeout(wait, 100, tries - 1);
      };
      wait(600);
    }
    export default { render };
    """


class ItemMap:
    """All items as points of a WebGL scatter plot; a lasso or a click selects items.

    Args: board: its state holds the selection and the colouring.
    """

    def __init__(self, atlas: Atlas, board: StateBoard) -> None:
        import jscatter
        import pandas as pd

        columns: dict[str, Any] = {"x": atlas.plane[:, 0], "y": atlas.plane[:, 1]}
        self.colours: dict[str, dict[str, str]] = {}
        for by in atlas.colourings:
            groups = colouring(atlas, by)
            columns[by], self.colours[by] = as_column(groups, views.palette(by, len(groups)), len(atlas.plane))
        columns["title"] = list(atlas.items.titles[1:])
        self.board, self.coloured = board, ""
        self.scatter = jscatter.Scatter(data=pd.DataFrame(columns), x="x", y="y", height=MAP_HEIGHT)
        self.scatter.xy(
            x_scale=padded(columns["x"], 0.04), y_scale=padded(columns["y"], 0.25)
        )  # the map is wider than high
        self.box = self.scatter.show(["pan_zoom", "lasso", "full_screen", "download", "reset"])
        self.scatter.background("white")
        self.scatter.axes(False)
        self.scatter.size(float(np.clip(30_000 / len(atlas.plane), 3, 8)))
        # The default opacity by density hides isolated points. The call has an effect only after `show`.
        self.scatter.opacity(0.9, by=None, unselected=0.4)
        self.scatter.mouse("lasso")
        self.scatter.tooltip(True, properties=["color"], histograms=False, preview="title")
        self.scatter.widget.observe(self._selected, names="selection")

    def _selected(self, change: Mapping[str, Any]) -> None:
        points = [] if change["new"] is None else np.asarray(change["new"]).astype(int).tolist()
        rows = [point + 1 for point in points]
        if not self.board.quiet and set(rows) != set(self.board.state.selected):
            self.board.act(lambda: self.board.change(**selecting(rows)))

    def follow(self, state: State) -> None:
        """Apply colouring and selection in one message, because the page redraws the whole map for every message."""
        with self.scatter.widget.hold_sync():
            if state.colour != self.coloured:
                self.scatter.color(by=state.colour, map=self.colours[state.colour])
                self.coloured = state.colour
            points = [row - 1 for row in state.selected]
            if set(points) != set(np.asarray(self.scatter.selection()).tolist()):
                self.scatter.selection(points or None)


def padded(values: np.ndarray, share: float) -> tuple[float, float]:
    """The range of the values plus a share of it at both ends, so that no point lies on the edge of the map."""
    low, high = float(values.min()), float(values.max())
    return low - share * (high - low), high + share * (high - low)


def as_column(groups: Mapping[str, np.ndarray], colours: list[str], points: int) -> tuple[Any, dict[str, str]]:
    """Groups of points as one column of names, and the colour of each name; the first group of a point counts."""
    import pandas as pd

    names = np.full(points, "other", dtype=object)
    for name, member in reversed(groups.items()):
        names[member] = name
    known = {**dict(zip(groups, colours, strict=True)), "other": views.GREY}
    present = {name: colour for name, colour in known.items() if (names == name).any()}
    return pd.Categorical(names, categories=list(present)), present
