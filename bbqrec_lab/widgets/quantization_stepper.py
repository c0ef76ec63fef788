"""Residual quantization of one point in the plane, step by step: drag the point and see the residual of each level."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import anywidget
import ipywidgets
import torch
import traitlets
from jaxtyping import Float, Int
from torch import Tensor

from bbqrec_core.tokenizer.quantizer import nearest_code
from bbqrec_lab.plots.style import CATEGORIES
from bbqrec_lab.widgets.html_cards import Html, chips, section, table, text
from bbqrec_lab.widgets.state_board import LABEL, Live

STEP = 0.05  # grid of the coordinates: below 2 pixels, and large enough for one press of an arrow key
QUIET, STRONG = "#9aa3ad", "#222222"
_DRAG = """
function render({ model, el }) {
  const box = document.createElement("div");
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "The plane. Arrow keys move the point; with Shift, ten steps at a time.");
  el.append(box);
  let waiting = false, next = null, dragging = false;
  const send = (message) => {
    if (waiting) { next = message; return; }  // one message at a time: a slow kernel gets only the last move
    waiting = true;
    model.send(message);
  };
  const draw = () => {
    box.innerHTML = model.get("value");
    waiting = false;
    if (next) { const message = next; next = null; send(message); }
  };
  const follow = (event) => {
    const plane = box.querySelector("svg[data-plane]");
    if (!plane) return;
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(plane.getScreenCTM().inverse());
    send({ to: [place.x, -place.y] });
  };
  box.addEventListener("pointerdown", (event) => {
    if (!event.target.closest("svg[data-plane]")) return;
    dragging = true;
    box.setPointerCapture(event.pointerId);
    follow(event);
  });
  box.addEventListener("pointermove", (event) => { if (dragging) follow(event); });
  for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { dragging = false; });
  box.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();  // otherwise JupyterLab moves to the next cell
    send({ by: way.map((steps) => steps * (event.shiftKey ? 10 : 1)) });
  });
  model.on("change:value", draw);
  model.on("change:answers", draw);
  draw();
}
export default { render };
"""


@dataclass(frozen=True, eq=False)
class Plane:
    """The fixed data of the view.

    Args: codebook: (L, K, 2). points, names: fixed points to start from, (P, 2), and their names.
    Raises: ValueError for a codebook that is not two-dimensional, or if points and names differ in number.
    """

    codebook: Float[Tensor, "L K width"]
    points: Float[Tensor, "P width"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.codebook.shape[2] != 2 or len(self.points) != len(self.names):
            shape = tuple(self.codebook.shape)
            raise ValueError(f"want a codebook (L, K, 2), one name per point; got {shape} and {len(self.names)} names")

    @property
    def reach(self) -> float:
        """Half the side of the drawn square."""
        return 1.2 * float(torch.cat([self.points, self.codebook[0]]).abs().max())


def _snapped(value: float) -> float:
    return round(round(value / STEP) * STEP, 2)


@dataclass(frozen=True)
class StepperState:
    """The position of the point, in multiples of `STEP`, and the number of levels in use.

    Choice: a slider in the browser returns a value that differs in the last digits; rounding gives the same state.
    """

    x: float
    y: float
    levels: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _snapped(self.x))
        object.__setattr__(self, "y", _snapped(self.y))


class Walk(NamedTuple):
    """One point through the levels: codes (L,) and residuals (L+1, 2), the input of each level and the final one."""

    codes: Int[Tensor, "L"]
    residuals: Float[Tensor, "steps 2"]

    @property
    def lengths(self) -> list[float]:
        """Norm of each residual."""
        return self.residuals.norm(dim=1).tolist()


def walk(plane: Plane, state: StepperState) -> Walk:
    """Quantize the point as `ResidualQuantizer` does: `c_l = argmin_k |r - C_l[k]|`, then `r <- r - C_l[c_l]`."""
    residuals, codes = [torch.tensor([state.x, state.y])], []
    for book in plane.codebook[: state.levels]:
        codes.append(nearest_code(residuals[-1], book))
        residuals.append(residuals[-1] - book[codes[-1]])
    return Walk(torch.stack(codes), torch.stack(residuals))


def _vector(point: Tensor) -> str:
    return "({:.2f}, {:.2f})".format(*(round(value, 2) + 0.0 for value in point.tolist()))


def _arrow(start: Tensor, end: Tensor, colour: str, thick: float, dashed: bool = False) -> str:
    """A line with an arrow head, in units of the plane; y is negated because it points down in SVG."""
    (x, y), (u, v) = start.tolist(), end.tolist()
    way = end - start
    length = float(way.norm())
    dash = f' stroke-dasharray="{2 * thick} {1.5 * thick}"' if dashed else ""
    line = (
        f'<line x1="{x:.3f}" y1="{-y:.3f}" x2="{u:.3f}" y2="{-v:.3f}" stroke="{colour}" stroke-width="{thick}"{dash}/>'
    )
    if dashed or length < 5 * thick:
        return line
    along, across = way / length, torch.stack([-way[1], way[0]]) / length
    corners = [end, end - 5 * thick * along + 2 * thick * across, end - 5 * thick * along - 2 * thick * across]
    head = " ".join(f"{p[0]:.3f},{-p[1]:.3f}" for p in corners)
    return f'{line}<polygon points="{head}" fill="{colour}"/>'


def _words(place: Tensor, words: str, size: float, colour: str = STRONG, lift: float = 0.0) -> str:
    x, y = place.tolist()
    where = f'x="{x:.3f}" y="{-y - lift + 0.35 * size:.3f}"'
    return f'<text {where} font-size="{size:.3f}" text-anchor="middle" fill="{colour}">{text(words)}</text>'


def _canvas(reach: float, pixels: int, label: str, parts: list[str], mark: str = "") -> str:
    axes = f'<path d="M{-reach} 0H{reach}M0 {-reach}V{reach}" stroke="#d5dae0" stroke-width="{reach / 150:.4f}"/>'
    box = f'width="{pixels}" height="{pixels}" viewBox="{-reach} {-reach} {2 * reach} {2 * reach}"'
    look = 'style="border:1px solid #c3c9d0;background:#fff"'
    return f'<svg {mark} {box} role="img" aria-label="{label}" {look}>{axes}{"".join(parts)}</svg>'


def _rings(book: Tensor, chosen: int, colour: str, unit: float) -> list[str]:
    """The codes of a level as circles with their numbers; the chosen one is filled."""
    parts = []
    for code, place in enumerate(book):
        x, y = place.tolist()
        mine = code == chosen
        look = f'fill="{colour if mine else "#fff"}" stroke="{colour if mine else QUIET}" stroke-width="{unit / 4:.4f}"'
        parts.append(f'<circle cx="{x:.3f}" cy="{-y:.3f}" r="{1.4 * unit:.3f}" {look}/>')
        parts.append(_words(place, str(code), 2.1 * unit, "#fff" if mine else STRONG))
    return parts


def _whole_plane(plane: Plane, found: Walk) -> str:
    """The point and the path to it: one arrow per level from the origin, and a dashed line for the final residual."""
    reach, place, parts = plane.reach, torch.zeros(2), []
    unit = reach / 42
    for name, point in zip(plane.names, plane.points, strict=True):
        x, y = point.tolist()
        parts.append(f'<circle cx="{x:.3f}" cy="{-y:.3f}" r="{unit / 2:.3f}" fill="{QUIET}"/>')
        parts.append(_words(point, name, 3 * unit, "#5b646e", lift=2.2 * unit))
    for level, code in enumerate(found.codes.tolist()):
        for x, y in (place + plane.codebook[level]).tolist():
            look = f'r="{unit:.3f}" fill="none" stroke="{CATEGORIES[level]}" stroke-width="{unit / 4:.3f}"'
            parts.append(f'<circle cx="{x:.3f}" cy="{-y:.3f}" {look}/>')
        end = place + plane.codebook[level, code]
        parts.append(_arrow(place, end, CATEGORIES[level], unit / 2.2))
        place = end
    point = found.residuals[0]
    parts.append(_arrow(place, point, STRONG, unit / 3, dashed=True))
    x, y = point.tolist()
    look = f'r="{1.3 * unit:.3f}" fill="{STRONG}" stroke="#fff" stroke-width="{unit / 3:.3f}" style="cursor:grab"'
    parts.append(f'<circle cx="{x:.3f}" cy="{-y:.3f}" {look}/>')
    label = f"The point is at {_vector(point)}; the sum of the chosen vectors is {_vector(place)}."
    return _canvas(reach, 330, label, parts, 'data-plane="1"')


def _one_level(plane: Plane, found: Walk, level: int) -> str:
    """The input of a level, its codes, the nearest one, and a dashed line for the residual."""
    arriving, code, book = found.residuals[level], int(found.codes[level]), plane.codebook[level]
    reach = 1.3 * max(float(book.abs().max()), float(arriving.abs().max()), 0.3 * plane.reach)
    unit = reach / 15
    parts = [_arrow(torch.zeros(2), book[code], CATEGORIES[level], unit / 4)]
    parts += [*_rings(book, code, CATEGORIES[level], unit), _arrow(book[code], arriving, STRONG, unit / 6, dashed=True)]
    x, y = arriving.tolist()
    parts.append(f'<circle cx="{x:.3f}" cy="{-y:.3f}" r="{unit / 2:.3f}" fill="{STRONG}"/>')
    drawing = _canvas(reach, 160, f"Level {level + 1}: code {code} is nearest.", parts)
    return f'<figure style="margin:0"><figcaption>level {level + 1}: code {code}</figcaption>{drawing}</figure>'


def _bars(lengths: Sequence[float]) -> str:
    """Norm of the residual at each step, as bars on one scale."""
    names = ["the point"] + [f"after level {level}" for level in range(1, len(lengths))]
    rows = []
    for name, length in zip(names, lengths, strict=True):
        bar = (
            f'<div style="height:12px;width:{220 * length / max(max(lengths), 1e-9):.0f}px;background:{STRONG}"></div>'
        )
        rows.append((name, Html(bar), Html(f"<b>{length:.2f}</b>")))
    return table(("length of the residual", "", ""), rows)


def view(plane: Plane, state: StepperState) -> Html:
    """The plane with the path to the point, a small plane per level, residual lengths, and all numbers."""
    found = walk(plane, state)
    lengths, codes = found.lengths, found.codes.tolist()
    size = plane.codebook.shape[1]
    levels = "".join(_one_level(plane, found, level) for level in range(len(codes)))
    side = f'<div style="display:flex;gap:10px;flex-wrap:wrap">{levels}</div>{_bars(lengths)}'
    rows = []
    for level, (code, book) in enumerate(zip(codes, plane.codebook, strict=False)):
        arriving, left = found.residuals[level], found.residuals[level + 1]
        away = [f"{float((arriving - vector).norm()):.2f}" for vector in book]
        away[code] = Html(f"<b>{away[code]}</b>")
        rows.append((level + 1, _vector(arriving), *away, code, _vector(book[code]), _vector(left)))
    head = ("level", "input", *(f"distance to {code}" for code in range(size)), "nearest", "its vector", "residual")
    shown = chips(codes, [size] * len(codes), len(codes))
    saved = (
        f"the residual has {100 * lengths[-1] / lengths[0]:.0f} % of its length"
        if lengths[0]
        else "the point is the origin"
    )
    line = Html(f"<p>The ID of {text(_vector(found.residuals[0]))} is {shown}: {saved}.</p>")
    drawn = f'<div style="display:flex;gap:16px;flex-wrap:wrap">{_whole_plane(plane, found)}<div>{side}</div></div>'
    return section("Drag the point", line, Html(drawn), table(head, rows))


class DragPlane(anywidget.AnyWidget):
    """Shows HTML and reports the position to which the point is dragged, or the steps of an arrow key."""

    _esm = _DRAG
    value = traitlets.Unicode().tag(sync=True)
    answers = traitlets.Int().tag(sync=True)  # counts replies: needed if the picture does not change


class Stepper(Live):
    """The live view: drag the point, press arrow keys on the plane, move the sliders, or choose a named point.

    Args: plane: codebook and named points; the view starts at the first point.
    """

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        levels = len(plane.codebook)
        edge = _snapped(plane.reach)
        wide = {"style": LABEL, "layout": {"width": "330px"}}
        number = {"min": -edge, "max": edge, "step": STEP, "readout_format": ".2f"} | wide
        x, y = ipywidgets.FloatSlider(description="x", **number), ipywidgets.FloatSlider(description="y", **number)
        used = ipywidgets.IntSlider(min=1, max=levels, description="number of levels", **wide)
        places = [("(your own point)", -1), *((name, index) for index, name in enumerate(plane.names))]
        self.place = ipywidgets.Dropdown(options=places, value=-1, description="go to point", style=LABEL)
        self.edge, picture = edge, DragPlane()
        picture.on_msg(lambda _, message, __: self._move(message))
        above = [ipywidgets.HBox([x, y]), ipywidgets.HBox([used, self.place])]
        start = StepperState(*plane.points[0].tolist(), levels)
        controls = {"x": x, "y": y, "levels": used}
        super().__init__("bb-stepper", start, lambda s: view(plane, s), controls, above, picture)
        self.board.watch(self.place, self._jump)

    def follow(self, state: StepperState) -> None:
        """Set the sliders, and select the named point if the point is at its position."""
        super().follow(state)
        near = (self.plane.points - torch.tensor([state.x, state.y])).norm(dim=1) < STEP / 2
        self.place.value = int(near.int().argmax()) if near.any() else -1

    def _jump(self, index: int) -> None:
        """Go to a named point; -1 is the reader's own point, which stays."""
        if index >= 0:
            self._to(*self.plane.points[index].tolist())

    def _move(self, message: dict) -> None:
        """Handle a message of the browser: a position or a number of steps; reply even if the point does not move."""
        if "to" in message:
            self._to(*message["to"])
        else:
            self._to(*(v + STEP * by for v, by in zip((self.state.x, self.state.y), message["by"], strict=True)))
        self.picture.answers += 1

    def _to(self, *place: float) -> None:
        x, y = (min(max(v, -self.edge), self.edge) for v in place)
        self.board.change(x=x, y=y)
