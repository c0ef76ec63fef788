"""The stepper: its numbers equal those of the quantizer, and every way to move the point gives the same view."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbqrec_core import ResidualQuantizer
from bbqrec_lab.widgets.html_cards import page
from bbqrec_lab.widgets.quantization_stepper import Plane, Stepper, StepperState, view, walk

CODEBOOK = torch.tensor(
    [
        [[2.0, 2.0], [-2.0, 1.0], [0.0, -2.0]],
        [[1.2, 0.0], [-0.8, 1.0], [-0.6, -0.8]],
        [[0.4, 0], [-0.2, 0.3], [0, -0.4]],
    ]
)
PLANE = Plane(CODEBOOK, torch.tensor([[3.0, 1.5], [-0.3, -3.1]]), ("A", "B"))
COORDINATE = st.floats(-4, 4).map(lambda v: round(v, 2))


@given(COORDINATE, COORDINATE, st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_the_walk_is_the_quantizers(x: float, y: float, levels: int) -> None:
    quantizer = ResidualQuantizer(levels, 3, 2, ema_decay=0.9)
    quantizer.codebook.copy_(CODEBOOK[:levels])
    state = StepperState(x, y, levels)
    point, found = torch.tensor([state.x, state.y]), walk(PLANE, state)
    seen = quantizer(point)
    assert torch.equal(found.codes, seen.codes)
    assert torch.allclose(found.residuals[:-1], seen.residuals)
    assert torch.allclose(quantizer.decode(found.codes) + found.residuals[-1], point, atol=1e-5)


def test_the_view_says_the_numbers_of_the_walk() -> None:
    shown = view(PLANE, StepperState(3.0, 1.5, 3))
    assert [f"{length:.2f}" for length in walk(PLANE, StepperState(3.0, 1.5, 3)).lengths] == [
        "3.35",
        "1.12",
        "0.54",
        "0.22",
    ]
    assert all(f"<b>{length}</b>" in shown for length in ("3.35", "1.12", "0.54", "0.22"))
    assert "the residual has 7 % of its length" in shown
    assert shown.count("<svg") == 4  # the plane, and one per level


def test_fewer_levels_draw_fewer_steps() -> None:
    assert view(PLANE, StepperState(3.0, 1.5, 1)).count("<svg") == 2
    assert "the point is the origin" in view(PLANE, StepperState(0.0, 0.0, 1))


def test_sliders_drag_keys_and_names_lead_to_one_picture() -> None:
    live = Stepper(PLANE)
    live.controls["x"].value, live.controls["y"].value = -0.3, -3.1
    wanted = live.picture.value
    assert wanted == page(view(PLANE, StepperState(-0.3, -3.1, 3)))
    assert live.place.label == "B"

    def press_keys() -> None:
        live.board.change(x=-0.35, y=-3.0)
        live.picture._handle_custom_msg({"by": [1, -2]}, [])

    for way in (
        lambda: live.picture._handle_custom_msg({"to": [-0.31, -3.09]}, []),
        press_keys,
        lambda: setattr(live.place, "value", 1),
    ):
        live.board.change(x=1.0, y=1.0)
        assert live.picture.value != wanted
        assert live.place.value == -1
        way()
        assert live.picture.value == wanted
        assert (live.controls["x"].value, live.controls["y"].value) == (-0.3, -3.1)


def test_a_point_cannot_leave_the_plane() -> None:
    live = Stepper(PLANE)
    live.picture._handle_custom_msg({"to": [99.0, -99.0]}, [])
    assert (live.state.x, live.state.y) == (live.controls["x"].max, live.controls["y"].min)


def test_a_drag_that_changes_nothing_is_answered_too() -> None:
    live = Stepper(PLANE)
    before = live.picture.answers
    live.picture._handle_custom_msg({"to": [live.state.x, live.state.y]}, [])
    assert live.picture.answers > before


def test_a_slider_that_hands_back_its_value_draws_nothing_again() -> None:
    live = Stepper(PLANE)
    before = live.board.answers
    live.controls["x"].value += 1e-12
    assert live.board.answers == before


def test_a_codebook_outside_the_plane_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codebook \(L, K, 2\)"):
        Plane(torch.zeros(2, 3, 3), torch.zeros(1, 3), ("A",))
    with pytest.raises(ValueError, match="one name per point"):
        Plane(CODEBOOK, PLANE.points, ("A",))
