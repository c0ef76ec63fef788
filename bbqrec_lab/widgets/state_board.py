"""A widget of one picture: controls over it that each set one field of a state, and the line that tells of answers."""

import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anywidget
import ipywidgets
import ipywidgets as widgets
import traitlets

from bbqrec_lab.widgets import html_cards
from bbqrec_lab.widgets.html_cards import Html

Panels = Mapping[str, Callable[[Any], html_cards.Html]]


class StatusLine(anywidget.AnyWidget):
    """The last line of a widget, HTML in `value`; it also keeps the keys of the widget's controls from JupyterLab.

    JupyterLab takes arrow keys, Enter and letters for its own commands unless the element that has the focus says that
    it wants them: without this, an arrow key on a chooser would go to the next cell.
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
    """One state, the panels that show it, and a last line that says when an answer is complete.

    Args: state: a frozen dataclass. panels: name -> pure function from the state to HTML; a panel whose function raises
        shows the error in words, the others go on.
    """

    def __init__(self, state: Any, panels: Panels) -> None:
        self.state, self.panels, self.answers = state, panels, 0
        self.boxes = {name: widgets.HTML() for name in panels}
        self.status = StatusLine()
        self.seconds: list[float] = []
        self.listeners: list[Callable[[Any], None]] = []
        self.quiet = self.troubled = False

    def show(self) -> None:
        """Draw every panel for the state as it is, then the line below: a reader who sees its number sees all of it."""
        begin = time.perf_counter()
        self.draw()
        self.say(begin)

    def draw(self) -> None:
        """Every panel; all are made before one is sent: a page that draws leaves the kernel less of the machine."""
        made = {name: safely(view, self.state) for name, view in self.panels.items()}
        for name, panel in made.items():
            self.boxes[name].value = panel

    def tell(self, words: str) -> None:
        """An answer that is only a line of words."""
        self.say(time.perf_counter(), told=words)

    def say(self, begin: float, problem: object = "", told: str = "") -> None:
        """Count an answer that began at `begin` (of `time.perf_counter`) and write the line."""
        self.answers, self.troubled = self.answers + 1, bool(problem)
        self.seconds.append(time.perf_counter() - begin)
        words = html.escape(f"{told} Answer {self.answers}, {1000 * self.seconds[-1]:.0f} ms.".strip())
        line = f'<p class="bb-status" role="status" data-answer="{self.answers}">{words}</p>'
        self.status.value = html_cards.page(html_cards.error_panel(problem) if problem else "", html_cards.Html(line))

    def change(self, **fields: object) -> None:
        """Put other values into the state, draw, and let the listeners follow; without a difference nothing happens.

        A picture that takes a browser long to draw should be the last listener: panels, controls and the line below
        then do not wait until it is drawn.

        An error of the state itself (a value that it refuses) leaves the state as it was, and is shown until the next
        change, be it back to what the state has.
        """
        begin = time.perf_counter()
        try:
            state = replace(self.state, **fields)
            if state == self.state and not self.troubled:
                return
            self.state = state
            self.draw()
            self.follow()
        except Exception as problem:  # the last stop before a reader, who must see it
            self.say(begin, problem)
            return
        self.say(begin)

    def follow(self) -> None:
        """Let the controls say what the state says; what they report back meanwhile is not taken for a wish."""
        self.quiet = True
        try:
            for listener in self.listeners:
                listener(self.state)
        finally:
            self.quiet = False

    def bind(self, control: widgets.Widget, field: str, reading: Callable[[Any], Any] = lambda value: value) -> None:
        """A control whose value becomes a field of the state, read by `reading`."""
        self.watch(control, lambda value: self.change(**{field: reading(value)}))

    def watch(self, control: widgets.Widget, act: Callable[[Any], object]) -> None:
        """A control whose new value a reader chose is handed to `act`."""

        def moved(change: Mapping[str, Any]) -> None:
            if not self.quiet:
                self.act(lambda: act(change["new"]))

        control.observe(moved, names="value")

    def press(self, button: widgets.Button, act: Callable[[], object]) -> None:
        """A button that does something; its errors are shown as those of the panels are."""
        button.on_click(lambda _: self.act(act))

    def act(self, deed: Callable[[], object]) -> None:
        """Do something a reader asked for; whatever goes wrong is said in words below the panels."""
        begin = time.perf_counter()
        try:
            deed()
        except Exception as problem:
            self.say(begin, problem)


def safely(view: Callable[[Any], html_cards.Html], state: Any) -> html_cards.Html:
    """A panel for a state, or the error in words: never a silent empty area."""
    try:
        return html_cards.page(view(state))
    except Exception as problem:
        return html_cards.page(html_cards.error_panel(problem))


class Progress:
    """A bar for work that is done once: `step` names what comes next, `close` takes the bar away.

    Args: steps: how many there will be. description: what is being made ready.
    """

    def __init__(self, steps: int, description: str) -> None:
        from IPython.display import display

        self.bar = widgets.IntProgress(0, 0, steps, description=description, style={"description_width": "auto"})
        self.label = widgets.Label()
        self.box = widgets.HBox([self.bar, self.label])
        display(self.box)

    def step(self, what: str) -> None:
        """Say what is done now."""
        self.label.value = what
        self.bar.value += 1

    def close(self) -> None:
        """Leave nothing to be seen; a page that opens later must still find the widget, so it is only hidden."""
        self.box.layout.display = "none"


LABEL = {"description_width": "initial"}


class Live(ipywidgets.VBox):
    """Wiring alone: a board with one panel, `view`, and the controls that change its state.

    Args: name: class of the outermost box, by which a page finds it. state: a frozen dataclass.
        view: state -> HTML. controls: field of the state -> the widget whose value it is.
        above: rows of widgets over the picture. picture: where the HTML goes; anything with a `value`.
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
        """What is shown now."""
        return self.board.state

    def follow(self, state: Any) -> None:
        """Let every control say what its field says."""
        for field, control in self.controls.items():
            control.value = getattr(state, field)
