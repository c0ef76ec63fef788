"""A widget of one picture: controls over it that each set one field of a state, and the line that tells of answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets

from .cards import Html
from .wiring import Board

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
        self.board, self.controls = Board(state, {"view": view}), dict(controls)
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
