"""What lies on top of the map: words of its regions, pictures of single items at high zoom, and keys that move it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets
from jaxtyping import Float, Int

from bbqrec_lab.analysis.maps import Region

ENDLESS = 99  # the last level of a region without parts: JSON has no infinity


class MapOverlay(anywidget.AnyWidget):
    """Words and pictures on the map of jupyter-scatter beside it, and the part of the map that is in view.

    Words belong to regions (`maps.regions`). Of each level of detail, the largest regions come first, and a label that
    would cover another one is left out. Pictures replace points when at most 150 items are in view, and grow when at
    most 12 are; the page asks for those that it has room for, the selected and the most popular first. Their frames
    have the colours of the points. A click on a picture reports `{"row": item row}`. Arrow keys move the map, + and -
    change its zoom, 0 shows all of it.

    Choice: this uses the plot that jupyter-scatter keeps at its element in the page. Its own labels need a table format
    with a package that nothing else needs, and one font size per zoom; its points cannot be pictures.

    Args: plane: (N, 2). order: item rows, the most important first. regions: of the map. faces: item rows -> HTML of
        their pictures. picked: called with the report of a click. moved: called with the view after a reader moved the
        map: x and y of the centre (the map reaches from -1 to 1 at zoom 1) and zoom.
    """

    plane = traitlets.Bytes().tag(sync=True)
    order = traitlets.Bytes().tag(sync=True)
    regions = traitlets.List().tag(sync=True)
    groups = traitlets.Bytes().tag(sync=True)  # per point, its index in `colours`
    colours = traitlets.List().tag(sync=True)
    words = traitlets.Bool(True).tag(sync=True)
    view = traitlets.List([0, 0, 1]).tag(sync=True)

    def __init__(
        self,
        plane: Float[np.ndarray, "N 2"],
        order: Int[np.ndarray, "N"],
        regions: Sequence[Region],
        faces: Callable[[Sequence[int]], Mapping[int, str]],
        picked: Callable[[Mapping[str, object]], object],
        moved: Callable[[tuple[float, ...]], object],
    ) -> None:
        told = [
            [of.x, of.y, " · ".join(of.words), of.first, min(of.last, ENDLESS)]
            for of in sorted(regions, key=lambda of: -of.items)
            if of.words
        ]
        super().__init__(
            plane=np.ascontiguousarray(plane, dtype=np.float32).tobytes(),
            order=np.ascontiguousarray(order, dtype=np.int32).tobytes(),
            regions=told,
            layout={"display": "none"},
        )
        self.faces, self.picked = faces, picked
        self.on_msg(lambda _, content, buffers: self._asked(content))
        self.observe(lambda change: moved(tuple(change["new"])), names="view")

    def paint(self, groups: Int[np.ndarray, "N"], colours: Sequence[str]) -> None:
        """Give the pictures frames in the colours of their points: `groups` are indices of `colours`."""
        with self.hold_sync():
            self.groups, self.colours = np.asarray(groups, dtype=np.uint8).tobytes(), list(colours)

    def _asked(self, content: Mapping[str, Any]) -> None:
        """Send pictures, or pass a click on."""
        if "faces" in content:
            self.send({"faces": {str(row): face for row, face in self.faces(content["faces"]).items()}})
        else:
            self.picked(content)

    _esm = r"""
    const WIDTH = 46, HEIGHT = 60, MOST = 150, FEW = 12, ASKED = 24, STEP = 0.3;
    const numbers = (data, kind) => new kind(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
    const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

    function attach(model, stage, signal) {
      const api = stage.api, layer = document.createElement("div");
      const plane = numbers(model.get("plane"), Float32Array), order = numbers(model.get("order"), Int32Array);
      const faces = new Map(), asked = new Set(), shown = new Map();  // shown: key -> { element, x, y, row }
      let due = 0, rest = 0;
      layer.className = "bb-layer";
      stage.querySelector("canvas").parentElement.append(layer);  // below the tooltip
      stage.tabIndex = 0;
      stage.setAttribute("role", "group");
      stage.setAttribute("aria-label", "Map: arrow keys move it, plus and minus change the zoom, 0 shows all of it");

      const seen = () => {
        const { target, distance } = api.get("camera");
        return [target[0], target[1], 1 / distance[0]].map((one) => Math.round(1000 * one) / 1000 + 0);
      };
      const show = ([x, y, zoom]) => api.zoomToLocation([x, y], 1 / zoom);
      const same = (a, b) => a.every((one, at) => Math.abs(one - b[at]) < 0.002);
      const move = () => {
        const across = api.get("xScale"), down = api.get("yScale");
        for (const { element, x, y, dx, dy } of shown.values())
          element.style.transform = `translate(${across(x) + dx}px, ${down(y) + dy}px) translate(-50%, -50%)`;
      };
      const put = (key, kind, x, y, fill) => {
        const had = shown.get(key);
        if (had) return had;
        const element = document.createElement("div"), made = { element, x, y, dx: 0, dy: 0 };
        element.className = kind;
        fill(element);
        layer.append(element);
        shown.set(key, made);
        return made;
      };

      function labels(level, across, down, area, taken) {
        const placed = [];
        for (const [x, y, text, first, last] of model.get("words") ? model.get("regions") : []) {
          if (level < first || level > last) continue;
          const px = across(x), py = down(y), w = 7 * text.length + 10, h = 19;
          if (px < 0 || py < 0 || px > area.w || py > area.h) continue;
          if (placed.some((one) => one.text === text && Math.hypot(one.px - px, one.py - py) < 130)) continue;
          const left = Math.min(Math.max(px, w / 2), area.w - w / 2);
          const fits = [0, -h, h, -2 * h, 2 * h].find((by) => {
            const box = { x: left - w / 2, y: py + by - h / 2, w, h };
            return box.y >= 0 && box.y + h <= area.h && !taken.some((other) => overlap(box, other));
          });
          if (fits === undefined) continue;
          placed.push({ text, px, py });
          taken.push({ x: left - w / 2, y: py + fits - h / 2, w, h });
          const made = put(`${text} ${x} ${y}`, "bb-word", x, y, (element) => { element.textContent = text; });
          Object.assign(made, { kept: true, dx: left - px, dy: fits });
        }
      }

      function pictures(zoom, across, down, area, taken) {
        const inside = [], chosen = new Set(api.get("selectedPoints"));
        const group = numbers(model.get("groups"), Uint8Array), colours = model.get("colours");
        if (zoom < 2) return;
        for (const row of order) {
          const x = across(plane[2 * row - 2]), y = down(plane[2 * row - 1]);
          if (x < 0 || y < 0 || x > area.w || y > area.h) continue;
          if (inside.push({ row, x, y, first: chosen.has(row - 1) }) > MOST) return;
        }
        const lacking = [], large = inside.length > FEW ? 1 : 1.7;
        layer.style.setProperty("--bb-large", large);
        for (const { row, x, y } of [...inside.filter((one) => one.first), ...inside.filter((one) => !one.first)]) {
          const box = { x: x - large * WIDTH / 2, y: y - large * HEIGHT / 2, w: large * WIDTH, h: large * HEIGHT };
          if (taken.some((other) => overlap(box, other))) continue;
          taken.push(box);
          if (!faces.has(row)) {
            if (!asked.has(row) && lacking.length < ASKED) lacking.push(row);
            continue;
          }
          const made = put(row, "bb-shot", plane[2 * row - 2], plane[2 * row - 1], (element) => {
            element.innerHTML = faces.get(row);
          });
          Object.assign(made, { kept: true, row });
          made.element.style.setProperty("--bb-group", colours[group[row - 1]] ?? "#999");
          made.element.classList.toggle("bb-chosen", chosen.has(row - 1));
        }
        lacking.forEach((row) => asked.add(row));
        if (lacking.length) model.send({ faces: lacking });
      }

      function layout() {
        due = 0;
        const area = { w: stage.clientWidth, h: stage.clientHeight }, taken = [], zoom = seen()[2];
        const across = api.get("xScale"), down = api.get("yScale");
        if (!across || !area.w || !api.get("isPointsDrawn")) return;
        for (const one of shown.values()) one.kept = false;
        labels(Math.max(0, Math.round(Math.log2(zoom))), across, down, area, taken);
        pictures(zoom, across, down, area, taken);
        for (const [key, one] of shown)
          if (!one.kept) { one.element.remove(); shown.delete(key); }
        move();
        layer.dataset.view = JSON.stringify(seen());
      }
      const later = () => { due ||= setTimeout(layout, 90); };
      const report = () => {
        const view = seen();
        if (same(view, model.get("view"))) return;
        model.set("view", view);
        model.save_changes();
      };
      const drawn = () => {
        move();
        later();
        if (same(seen(), model.get("view"))) return;
        clearTimeout(rest);
        rest = setTimeout(report, 250);
      };

      api.subscribe("drawing", drawn);
      const watch = new ResizeObserver(later);
      watch.observe(stage);
      const follow = () => { if (!same(seen(), model.get("view"))) show(model.get("view")); };
      model.on("change:view", follow);
      model.on("change:words", layout);
      model.on("change:groups", layout);
      const receive = (told) => {
        for (const [row, face] of Object.entries(told.faces ?? {})) faces.set(Number(row), face);
        later();
      };
      model.on("msg:custom", receive);

      let down = null;
      stage.addEventListener("mousedown", ({ clientX, clientY }) => { down = [clientX, clientY]; }, true);
      stage.addEventListener("click", (event) => {
        if (!down || Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 4) return;
        for (const { element, row } of shown.values()) {
          const area = element.getBoundingClientRect();
          const hit = event.clientX >= area.left && event.clientX <= area.right
            && event.clientY >= area.top && event.clientY <= area.bottom;
          if (!row || !hit) continue;
          event.stopPropagation();
          model.send({ row });
          return;
        }
      }, true);
      stage.addEventListener("keydown", (event) => {
        const [x, y, zoom] = seen(), by = STEP / zoom;
        const to = {
          ArrowLeft: [x - by, y, zoom], ArrowRight: [x + by, y, zoom], ArrowUp: [x, y + by, zoom],
          ArrowDown: [x, y - by, zoom], "+": [x, y, 1.4 * zoom], "=": [x, y, 1.4 * zoom], "-": [x, y, zoom / 1.4],
          0: [0, 0, 1],
        }[event.key];
        if (!to || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        show(to);
      });
      signal.push(() => {
        watch.disconnect();
        model.off("change:view", follow);
        model.off("change:words", layout);
        model.off("change:groups", layout);
        model.off("msg:custom", receive);
        layer.remove();
      });
      follow();
      layout();
    }

    function render({ model, el }) {
      const ends = [];
      let over = false;
      const wait = (tries) => {
        let stage = el.closest(".bb-map")?.querySelector(".bb-scatter canvas");
        while (stage && !stage.api) stage = stage.parentElement;
        if (over) return;
        if (stage && stage.api.get("isPointsDrawn")) attach(model, stage, ends);
        else if (tries) setTimeout(wait, 100, tries - 1);
      };
      wait(600);
      return () => { over = true; ends.forEach((end) => end()); };
    }
    export default { render };
    """

    _css = """
    .bb-layer { position: absolute; inset: 0; overflow: hidden; pointer-events: none; }
    .bb-layer > div { position: absolute; left: 0; top: 0; will-change: transform; }
    .bb-word { font: 600 12px/1.3 var(--jp-ui-font-family, system-ui, sans-serif); color: #222; white-space: nowrap;
      text-shadow: 0 0 2px #fff, 0 0 2px #fff, 0 0 4px #fff, 0 0 4px #fff, 0 0 6px #fff; }
    .bb-dark .bb-word { color: #f0f0f0;
      text-shadow: 0 0 2px #111, 0 0 2px #111, 0 0 4px #111, 0 0 4px #111, 0 0 6px #111; }
    .bb-shot { display: grid; place-items: center;
      width: calc(42px * var(--bb-large)); height: calc(56px * var(--bb-large)); }
    .bb-shot img, .bb-shot svg { max-width: 100%; max-height: 100%; display: block; border-radius: 3px;
      box-shadow: 0 0 0 2px var(--bb-group), 0 1px 4px 2px #0004; }
    .bb-shot svg rect { fill: #f6f6f6; stroke: none; }
    .bb-shot.bb-chosen img, .bb-shot.bb-chosen svg { box-shadow: 0 0 0 2px var(--bb-group), 0 0 0 5px #111; }
    .bb-dark .bb-shot.bb-chosen :is(img, svg) { box-shadow: 0 0 0 2px var(--bb-group), 0 0 0 5px #fff; }
    /* the bar of buttons misses a change of the background that comes before it is drawn */
    .bb-dark .bb-scatter [data-jss-theme] { background-color: #111 !important; --jss-bg: #1e1e1e;
      --jss-bg-hover: #2a2a2a; --jss-bg-input: #2a2a2a; --jss-text: #e0e0e0; --jss-text-secondary: #9ca3af;
      --jss-border: #404040; }
    .bb-scatter [role=group]:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
    """
