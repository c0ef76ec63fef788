"""What the page does without the kernel: the layout of the inspector, clicks on its panels, and the size of its canvas.

Both widgets here are invisible: they act on the elements around them.
"""

from collections.abc import Callable, Mapping

import anywidget
import traitlets


class Clicks(anywidget.AnyWidget):
    """Lays out the inspector, and reports clicks on items and codes of its panels.

    A click on an element with `data-row` reports `{"row": item row}`. A click on a chip reports `{"codes": [...]}`, the
    wanted code per position, null for any: inside an ID, the codes up to the chip; for a single chip, the `data-prefix`
    around it and then its code. Chips inside `data-other` belong to another tokenizer and report nothing. Enter and
    Space do the same; the chips of cards and neighbours cannot be reached by Tab, because there are too many.

    `dark` says whether the page has a dark theme now. Pages without a kernel keep the light map.

    Choice: `container` queries lay out by the width of the notebook, which side bars change, not of the window.

    Args: picked: called with each report.
    """

    dark = traitlets.Bool(False).tag(sync=True)

    def __init__(self, picked: Callable[[Mapping[str, object]], object]) -> None:
        super().__init__(layout={"display": "none"})
        self.on_msg(lambda _, content, buffers: picked(content))

    _esm = r"""
    const levelAndCode = ({ dataset }) => ("code" in dataset ? [Number(dataset.level), Number(dataset.code)] : []);
    function codesOf(chip) {
      const [level, code] = levelAndCode(chip);
      if (!level || chip.closest("[data-other]")) return null;
      const row = [...chip.parentElement.children], before = row.slice(0, row.indexOf(chip));
      const prefix = chip.closest("[data-prefix]")?.dataset.prefix.split(",").filter(Boolean).map(Number);
      if (levelAndCode(row[0])[0] === 1) return [...before.map((one) => levelAndCode(one)[1]), code];
      return [...(prefix ?? Array(level - 1).fill(null)), code];
    }
    function reportOf(target) {
      const chip = target.closest(".bb-chip"), codes = chip && codesOf(chip), item = target.closest("[data-row]");
      if (codes) return { codes };
      return item ? { row: Number(item.dataset.row) } : null;
    }
    function isDark(element) {  // by the nearest background that is not transparent
      for (let at = element; at; at = at.parentElement) {
        const [r, g, b, alpha = 1] = getComputedStyle(at).backgroundColor.match(/[\d.]+/g).map(Number);
        if (alpha > 0.5) return 0.299 * r + 0.587 * g + 0.114 * b < 128;
      }
      return false;
    }
    function followTheme(model, box) {
      const tell = () => {
        const dark = isDark(box);
        if (dark === model.get("dark")) return;
        model.set("dark", dark);
        model.save_changes();
      };
      const watch = new MutationObserver(() => setTimeout(tell, 300));  // the style sheet of a theme is loaded later
      const attributes = { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-name"] };
      for (const one of [document.documentElement, document.body]) watch.observe(one, attributes);
      tell();
      return () => watch.disconnect();
    }
    function attach(model, box) {
      const panels = box.querySelector(".bb-panels");
      let back = null;  // the report of the last key: its element gets the focus again when the panels are redrawn
      const stops = () => panels.querySelectorAll("[tabindex]");
      const prepare = () => {
        for (const item of panels.querySelectorAll("[data-row]")) {
          const stop = item.querySelector(".bb-title, .bb-line") ?? item;
          stop.tabIndex = 0;
          stop.setAttribute("role", "button");
        }
        for (const chip of panels.querySelectorAll(".bb-chip")) {
          const codes = codesOf(chip);
          if (!codes) continue;
          chip.classList.add("bb-pick");
          if (chip.closest("[data-row]")) continue;
          chip.tabIndex = 0;
          chip.setAttribute("role", "button");
          chip.setAttribute("aria-label", `select the items with ${codes.map((one) => one ?? "any").join("-")}`);
        }
        if (back && !panels.contains(document.activeElement)) {
          const same = [...stops()].find((one) => JSON.stringify(reportOf(one)) === back) ?? stops()[0];
          same?.focus({ preventScroll: true });
        }
        back = null;
      };
      const report = (event) => {
        const told = reportOf(event.target);
        if (!told) return false;
        panels.scrollTop = 0;
        model.send(told);
        return JSON.stringify(told);
      };
      panels.addEventListener("click", report);
      panels.addEventListener("keydown", (event) => {
        if (!["Enter", " "].includes(event.key) || event.target.getAttribute("role") !== "button") return;
        event.preventDefault();
        back = report(event);
      });
      box.addEventListener("pointerover", ({ target }) => {
        if (target.tagName === "OPTION") target.title = target.textContent;  // a narrow list cuts it
      });
      box.addEventListener("focusin", ({ target }) => { if (target.matches(".bb-state input")) target.select(); });
      new MutationObserver(prepare).observe(panels, { childList: true, subtree: true });
      prepare();
    }
    function render({ model, el }) {
      let over = false, end = () => {};
      const wait = (tries) => {
        const box = el.closest(".bb-inspector");
        if (over) return;
        if (!box?.querySelector(".bb-panels")) {
          if (tries) setTimeout(wait, 100, tries - 1);
          return;
        }
        attach(model, box);
        end = followTheme(model, box);
      };
      wait(600);
      return () => { over = true; end(); };
    }
    export default { render };
    """

    _css = """
    .bb-inspector { container-type: inline-size; }
    .bb-desk { display: grid; gap: 4px 12px; overflow: hidden; height: clamp(540px, 100vh - 136px, 1000px); }
    .bb-map { --bb-legend: 84px; }
    .bb-desk > * { min-width: 0; min-height: 0; }
    .bb-map { display: flex; flex-direction: column; container-type: size; }
    .bb-scatter { flex: none; height: min(100cqh - var(--bb-legend), 100cqw - 40px); overflow: hidden; }
    .bb-scatter div:has(canvas) { height: 100% !important; min-width: 0; }
    .bb-legend { flex: 1 1 0; min-height: 0; overflow-y: auto; }
    .bb-legend .bb { font-size: 12px; line-height: 1.3; }
    .bb-legend p { margin: 0 0 2px; }
    .bb-second:not(:has(canvas)) { display: none; }
    .bb-side { overflow: hidden auto; padding-right: 4px; }
    .bb-side > * { flex: none; }
    .bb-panels { overflow: hidden auto; padding-right: 6px; }
    .bb-panels > *, .bb-panels .widget-html-content { flex: none; min-width: 0; width: 100%; margin: 0; }
    .bb-inspector .bb-line, .bb-inspector .bb-about { white-space: normal; overflow-wrap: anywhere; }
    .bb-inspector .bb-title { -webkit-line-clamp: 4; }
    .bb-panels td .bb-chips { flex-wrap: nowrap; }
    .bb-panels .bb-key { margin-right: 6px; }
    .bb-panels .bb-cards { flex-wrap: nowrap; overflow-x: auto; padding: 3px; }
    .bb-panels .bb-card { flex: none; }
    .bb-panels .bb-card img, .bb-panels .bb-card svg { height: 66px; }
    .bb-inspector .bb-focus { outline: 2px solid var(--jp-ui-font-color0, #111); }
    .bb-panels [data-row], .bb-panels .bb-pick { cursor: pointer; }
    .bb-panels .bb-card:hover, .bb-panels .bb-mini:hover, .bb-panels .bb-item:hover {
      background: var(--jp-layout-color2, #eee); }
    .bb-panels .bb-pick:hover, .bb-panels [tabindex]:focus-visible {
      outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
    .bb-item { text-decoration: underline dotted; }
    @container (min-width: 960px) {
      .bb-desk { grid-template: 1fr / 246px minmax(0, 10fr) minmax(0, 10fr); }
      .bb-side { order: -1; }
      .bb-beside { grid-template: 12fr 9fr / 246px minmax(0, 1fr) minmax(0, 1fr); }
      .bb-beside .bb-map { --bb-legend: 112px; }
      .bb-beside .bb-side { grid-row: 1 / 3; }
      .bb-beside .bb-panels { grid-column: 2 / 4; }
    }
    @container (min-width: 600px) and (max-width: 959.9px) {
      .bb-desk { grid-template: 14fr 9fr / minmax(0, 1fr) minmax(0, 1fr); }
      .bb-map { --bb-legend: 140px; }
      .bb-desk:not(.bb-beside) .bb-panels { grid-area: 1 / 2 / 3 / 3; }
    }
    @container (max-width: 599.9px) {
      .bb-desk { grid-template-columns: minmax(0, 1fr); height: auto; }
      .bb-map { height: calc(100cqw + 90px); --bb-legend: 130px; }
    }
    """


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
