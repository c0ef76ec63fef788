"""Base of the live widgets: controls that each set one field of a state, a view of the state, and a status line."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anywidget
import ipywidgets
import ipywidgets as widgets
import traitlets

from bbqrec_lab import escaping
from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.html_cards import Html

Panels = Mapping[str, Callable[[Any], html_cards.Html]]


class LiveBox(ipywidgets.VBox):
    """A box of live widgets; on a page that shows text alone it is one sentence and not a listing of its parts."""

    def __repr__(self) -> str:
        return "(A live view: it needs a running notebook.)"


class QuietBox(ipywidgets.HBox):
    """A row of widgets that leaves nothing on a page that shows text alone."""

    def __repr__(self) -> str:
        return ""


class StatusLine(anywidget.AnyWidget):
    """The last line of a widget, HTML in `value`; it also keeps JupyterLab shortcuts away from the controls.

    JupyterLab uses arrow keys, Enter and letters as its own shortcuts unless the focused element suppresses them.
    Without this, an arrow key on a dropdown would move to the next cell.
    """

    _esm = """
    function render({ model, el }) {
      const show = () => { el.innerHTML = model.get("value"); };
      const keep = (tries) => {
        const output = el.closest(".jp-OutputArea");
        const mark = (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true");
        if (output) output.addEventListener("focusin", mark);
        else if (tries) requestAnimationFrame(() => keep(tries - 1));
      };
      model.on("change:value", show);
      show();
      keep(100);
    }
    export default { render };
    """
    value = traitlets.Unicode("").tag(sync=True)


class StateBoard:
    """One state, the panels that show it, and a status line that says when an update is complete.

    Args: state: a frozen dataclass. panels: name -> pure function from the state to HTML; a panel whose function raises
        shows the error message, and the other panels are not affected.
    """

    def __init__(self, state: Any, panels: Panels) -> None:
        self.state, self.panels, self.answers = state, panels, 0
        self.boxes = {name: widgets.HTML() for name in panels}
        self.status = StatusLine()
        self.seconds: list[float] = []
        self.listeners: list[Callable[[Any], None]] = []
        self.quiet = self.troubled = False

    def show(self) -> None:
        """Draw every panel, then the status line: when its number appears, all panels are up to date."""
        begin = time.perf_counter()
        self.draw()
        self.say(begin)

    def draw(self) -> None:
        """Draw every panel. All are computed before the first is sent, because a busy browser slows the kernel."""
        made = {name: safely(view, self.state) for name, view in self.panels.items()}
        for name, panel in made.items():
            self.boxes[name].value = panel

    def tell(self, words: str) -> None:
        """Count an update that only shows a text in the status line."""
        self.say(time.perf_counter(), told=words)

    def say(self, begin: float, problem: object = "", told: str = "") -> None:
        """Count an update that began at `begin` (of `time.perf_counter`) and write the status line."""
        self.answers, self.troubled = self.answers + 1, bool(problem)
        self.seconds.append(time.perf_counter() - begin)
        words = escaping.html(f"{told} Update {self.answers}, {1000 * self.seconds[-1]:.0f} ms.".strip())
        line = f'<p class="bb-status" role="status" data-answer="{self.answers}">{words}</p>'
        self.status.value = html_cards.page(html_cards.error_panel(problem) if problem else "", html_cards.Html(line))

    def change(self, **fields: object) -> None:
        """Set fields of the state, draw, and call the listeners; if no field changes, nothing happens.

        A picture that the browser draws slowly should be the last listener: then panels, controls and the status line
        do not wait for it.

        If the state rejects a value, it stays unchanged. The error is shown until the next change, even a change back
        to the current value.
        """
        begin = time.perf_counter()
        try:
            state = replace(self.state, **fields)
            if state == self.state and not self.troubled:
                return
            self.state = state
            self.draw()
            self.follow()
        except Exception as problem:  # nothing above catches it, and the reader must see it
            self.say(begin, problem)
            return
        self.say(begin)

    def note(self, **fields: object) -> None:
        """Set fields that no panel shows; controls follow, and the status line stays as it is."""
        self.state = replace(self.state, **fields)
        self.follow()

    def follow(self) -> None:
        """Set the controls from the state; events that they send during this call are ignored."""
        self.quiet = True
        try:
            for listener in self.listeners:
                listener(self.state)
        finally:
            self.quiet = False

    def bind(self, control: widgets.Widget, field: str, reading: Callable[[Any], Any] = lambda value: value) -> None:
        """Connect a control with a field of the state; `reading` converts the value."""
        self.watch(control, lambda value: self.change(**{field: reading(value)}))

    def watch(self, control: widgets.Widget, act: Callable[[Any], object]) -> None:
        """Call `act` with the new value when a reader moves a control."""

        def moved(change: Mapping[str, Any]) -> None:
            if not self.quiet:
                self.act(lambda: act(change["new"]))

        control.observe(moved, names="value")

    def press(self, button: widgets.Button, act: Callable[[], object]) -> None:
        """Connect a button with an action; errors are shown in the status line."""
        button.on_click(lambda _: self.act(act))

    def act(self, deed: Callable[[], object]) -> None:
        """Run an action of the reader; an error is shown in the status line."""
        begin = time.perf_counter()
        try:
            deed()
        except Exception as problem:
            self.say(begin, problem)


def safely(view: Callable[[Any], html_cards.Html], state: Any) -> html_cards.Html:
    """Return a panel for a state, or an error message: the area is never empty without a reason."""
    try:
        return html_cards.page(view(state))
    except Exception as problem:
        return html_cards.page(html_cards.error_panel(problem))


class Progress:
    """A progress bar for set-up work: `step` names the next step, `close` hides the bar.

    Args: steps: number of steps. description: what is being prepared.
    """

    def __init__(self, steps: int, description: str) -> None:
        from IPython.display import display

        self.bar = widgets.IntProgress(0, 0, steps, description=description, style={"description_width": "auto"})
        self.label = widgets.Label()
        self.box = QuietBox([self.bar, self.label])
        display(self.box)

    def step(self, what: str) -> None:
        """Name the step that begins now."""
        self.label.value = what
        self.bar.value += 1

    def close(self) -> None:
        """Hide the bar. It is not closed, because a page that is opened later must still find the widget."""
        self.box.layout.display = "none"


LABEL = {"description_width": "initial"}


class Live(LiveBox):
    """A live widget: a board with one panel, `view`, and the controls that change its state.

    Args: name: CSS class of the outermost box. state: a frozen dataclass. view: state -> HTML.
        controls: field of the state -> the widget that holds its value. above: rows of widgets above the picture.
        picture: the widget that shows the HTML; it needs a `value`.
    """

    def __init__(
        self,
        name: str,
        state: Any,
        view: Callable[[Any], Html],
        controls: Mapping[str, ipywidgets.ValueWidget],
        above: Sequence[ipywidgets.Widget],
        picture: ipywidgets.Widget | None = None,
    ) -> None:
        self.board, self.controls = StateBoard(state, {"view": view}), dict(controls)
        self.picture = self.board.boxes["view"] if picture is None else picture
        self.board.boxes["view"] = self.picture
        super().__init__([*above, self.picture, self.board.status])
        self.add_class(name)
        for field, control in self.controls.items():
            self.board.bind(control, field)
        self.board.listeners.append(self.follow)
        self.board.follow()
        self.board.show()

    @property
    def state(self) -> Any:
        """The current state."""
        return self.board.state

    def follow(self, state: Any) -> None:
        """Set every control to the value of its field."""
        for field, control in self.controls.items():
            control.value = getattr(state, field)
