"""A live widget: controls and state agree, and every error is shown."""

from dataclasses import dataclass

import ipywidgets
import pytest

from bbqrec_lab.widgets.html_cards import Html, page
from bbqrec_lab.widgets.state_board import Live, Progress


@dataclass(frozen=True)
class Counter:
    """A number of at most 5."""

    number: int = 1

    def __post_init__(self) -> None:
        if self.number > 5:
            raise ValueError(f"need at most 5, got {self.number}")


def draw(state: Counter) -> Html:
    """The number, or an error for 3 and 4."""
    if state.number == 4:
        raise KeyError("four")
    if state.number == 3:
        raise ValueError("no three")
    return Html(f"<b>{state.number}</b>")


@pytest.fixture
def live() -> Live:
    return Live("bb-counter", Counter(), draw, {"number": ipywidgets.IntText()}, [])


def test_a_page_of_text_shows_a_sentence_and_no_listing_of_widgets(live: Live) -> None:
    assert live._repr_mimebundle_()["text/plain"] == "(A live view: it needs a running notebook.)"
    assert Progress(2, "work").box._repr_mimebundle_()["text/plain"] == ""


def test_the_picture_is_the_pure_view_of_the_state(live: Live) -> None:
    assert live.picture.value == page(draw(Counter(1)))
    live.controls["number"].value = 2
    assert live.state == Counter(2)
    assert live.picture.value == page(draw(Counter(2)))


def test_a_control_follows_the_state(live: Live) -> None:
    assert live.controls["number"].value == 1
    live.board.change(number=5)
    assert live.controls["number"].value == 5


def test_a_refused_value_leaves_the_state_and_says_why(live: Live) -> None:
    live.controls["number"].value = 9
    assert live.state == Counter(1)
    assert "need at most 5, got 9" in live.board.status.value
    live.controls["number"].value = 1  # the value that the state still has
    assert "need at most 5" not in live.board.status.value


@pytest.mark.parametrize(("number", "words"), [(3, "no three"), (4, "KeyError")])
def test_an_error_of_the_view_is_shown_and_goes_when_the_cause_goes(live: Live, number: int, words: str) -> None:
    live.controls["number"].value = number
    assert words in live.picture.value
    live.controls["number"].value = 1
    assert live.picture.value == page(draw(Counter(1)))


def test_any_widget_with_a_value_can_hold_the_picture() -> None:
    other = ipywidgets.HTMLMath()
    live = Live("bb-counter", Counter(2), draw, {}, [], other)
    assert other.value == page(draw(Counter(2)))
    assert other in live.children
