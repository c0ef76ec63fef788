"""What the live views share: controls change a frozen state, a pure function draws it, problems appear in words."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import ipywidgets

from .cards import Html, error_panel, page

State = TypeVar("State")
LABEL = {"description_width": "initial"}


class Live(ipywidgets.VBox):
    """Wiring alone: each control sets one field of the state, and every change draws the state anew.

    Args: state: a frozen dataclass; a ValueError of its checks, or of `view`, is shown instead of the picture.
        view: state -> HTML. controls: field of the state -> the widget whose value it is.
        picture: where the HTML goes; any widget with a `value`. above: rows of widgets over the picture.
    """

    def __init__(
        self,
        state: State,
        view: Callable[[State], Html],
        controls: Mapping[str, ipywidgets.ValueWidget],
        above: list[ipywidgets.Widget],
        picture: ipywidgets.Widget | None = None,
    ) -> None:
        self.state, self.draw, self.controls, self.failed = state, view, dict(controls), False
        self.picture = ipywidgets.HTML() if picture is None else picture
        super().__init__([*above, self.picture])
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self.change(**{name: change["new"]}), "value")
        self.refresh()

    def change(self, **fields: object) -> None:
        """Replace fields of the state and draw it; a refused value leaves the state and says why."""
        try:
            wanted = replace(self.state, **fields)
        except ValueError as problem:
            self.fail(problem)
            return
        if wanted != self.state or self.failed:
            self.state = wanted
            self.refresh()

    def refresh(self) -> None:
        """Draw the state, then let the controls say what it holds."""
        try:
            shown = self.draw(self.state)
        except Exception as problem:  # an error in a callback would be lost: the reader sees it where the answer goes
            self.fail(problem)
            return
        self.failed = False
        self.picture.value = page(shown)
        self.follow()

    def follow(self) -> None:
        """Set every control to its field; equal values change nothing, so that this ends."""
        for name, control in self.controls.items():
            if control.value != getattr(self.state, name):
                control.value = getattr(self.state, name)

    def fail(self, problem: Exception) -> None:
        """Show what went wrong in place of the picture."""
        self.failed = True
        self.picture.value = page(error_panel(problem))
