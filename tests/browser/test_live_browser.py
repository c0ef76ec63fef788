"""Stepper, explorer and playground in a real browser: each control by mouse and keyboard, in JupyterLab and Voila."""

import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from browser import (
    ROOT,
    Server,
    answered,
    console_problems,
    copy_notebook,
    open_and_run,
    output_errors,
    said_milliseconds,
)

pytestmark = pytest.mark.browser
PARAMETERS = {"dataset": "planted-smoke", "preset": "smoke", "seed": 1, "overrides": {"layers": 2}}
MILLISECONDS = 200  # limit of the median time of an update


class Desk:
    """One widget on an open page: its controls by label, and its display."""

    def __init__(self, page: object, selector: str) -> None:
        self.page, self.selector, self.box = page, selector, page.locator(selector)
        self.times, self.own = [], []
        page.wait_for_selector(f"{selector} section")

    def control(self, label: str) -> object:
        """The text field, dropdown or checkbox with this label."""
        return self.box.get_by_label(label, exact=True)

    def slider(self, label: str) -> object:
        """The handle of the slider with this label."""
        named = self.page.get_by_text(label, exact=True)
        return self.box.locator(".widget-slider").filter(has=named).locator(".noUi-handle")

    def button(self, name: str | re.Pattern) -> object:
        return self.box.get_by_role("button", name=name)

    def text(self) -> str:
        """The text of the widget. It is scrolled into view first, because a notebook renders only visible cells."""
        self.box.scroll_into_view_if_needed()
        self.page.wait_for_function(f"() => document.querySelector('{self.selector} .bb').innerText.trim()")
        return self.box.inner_text()

    def shown(self) -> str:
        """The HTML of the view: texts, chips, cards and drawings."""
        return "".join(self.box.locator("section").evaluate_all("all => all.map(one => one.outerHTML)"))

    def does(self, act: Callable[[], object]) -> str:
        """Run `act`, wait for the complete update, assert that the view changed, and return its HTML."""
        before = self.shown()
        self.times.append(answered(self.page, self.selector, act))
        self.own.append(said_milliseconds(self.page, self.selector))
        after = self.shown()
        assert after != before, "the update is complete, but the view is the same"
        return after

    def drags(self, handle: object, right: float, up: float = 0.0) -> None:
        """Drag an element with the mouse by `right` and `up` pixels."""
        handle.scroll_into_view_if_needed()
        place = handle.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y - up, steps=4)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)  # wait for the last of several updates

    def press(self, control: object, *keys: str) -> None:
        """Focus a control and press keys on it, without a mouse."""
        control.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def report(self) -> None:
        """Print the median time of an update, and assert that the share of the kernel is below the limit."""
        whole, own = 1000 * statistics.median(self.times), statistics.median(self.own)
        print(
            f"\n{self.selector}: {len(self.times)} updates, median {whole:.0f} ms in the page, {own:.0f} in the kernel"
        )
        assert own < MILLISECONDS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def _own_figure(route: object) -> None:
    """Serve the committed figure of a title cell, which is missing next to the served copy of a notebook."""
    route.fulfill(path=ROOT / "figures" / Path(urlparse(route.request.url).path).name)


def opened(lab: Server, chromium: Callable, name: str, runs: Path) -> object:
    """Open a notebook on a page and run all its cells."""
    page = chromium(1400, 1800)
    page.route("**/files/figures/*", _own_figure)
    open_and_run(page, lab, copy_notebook(name, lab.folder, out_dir=str(runs), **PARAMETERS))
    return page


@pytest.fixture(scope="module")
def notebook_02_page(lab: Server, chromium: Callable, runs: Path) -> Iterator[object]:
    page = opened(lab, chromium, "02", runs)
    yield page
    page.close()


@pytest.fixture(scope="module")
def attention_page(lab: Server, chromium: Callable, runs: Path) -> Iterator[object]:
    page = opened(lab, chromium, "04", runs)
    yield page
    page.close()


@pytest.fixture(scope="module")
def stepper(notebook_02_page: object) -> Desk:
    return Desk(notebook_02_page, ".bb-stepper")


@pytest.fixture(scope="module")
def explorer(attention_page: object) -> Desk:
    return Desk(attention_page, ".bb-explorer")


@pytest.fixture(scope="module")
def playground(attention_page: object) -> Desk:
    return Desk(attention_page, ".bb-playground")


def nothing_wrong(page: object) -> None:
    """Assert: no error in any output or in the console, and no request to another machine."""
    assert output_errors(page) == []
    assert console_problems(page) == []
    assert page.outside == []


def where(desk: Desk) -> tuple[float, float]:
    """The position of the point, from the text of the widget."""
    found = re.search(r"The ID of \((-?[\d.]+), (-?[\d.]+)\)", desk.text())
    return float(found[1]), float(found[2])


def test_the_point_is_dragged_and_moved_by_keys(stepper: Desk) -> None:
    plane = stepper.box.locator("svg[data-plane]")
    x, y = where(stepper)
    stepper.does(lambda: stepper.drags(plane, -60, -80))
    assert where(stepper) != (x, y)
    x, y = where(stepper)
    group = stepper.box.get_by_role("group", name="The plane")
    stepper.does(lambda: stepper.press(group, "ArrowRight"))
    assert where(stepper) == (pytest.approx(x + 0.05), y)
    stepper.does(lambda: stepper.press(group, "Shift+ArrowUp"))
    assert where(stepper) == (pytest.approx(x + 0.05), pytest.approx(y + 0.5))


@pytest.mark.parametrize(("label", "axis"), [("x", 0), ("y", 1)])
def test_the_sliders_of_the_point_work(stepper: Desk, label: str, axis: int) -> None:
    before = where(stepper)[axis]
    stepper.does(lambda: stepper.press(stepper.slider(label), "ArrowLeft"))
    assert where(stepper)[axis] == pytest.approx(before - 0.05)
    stepper.does(lambda: stepper.drags(stepper.slider(label), 40))
    assert where(stepper)[axis] > before


def test_levels_and_named_points_are_chosen(stepper: Desk) -> None:
    assert stepper.does(lambda: stepper.press(stepper.slider("number of levels"), "ArrowLeft")).count("<svg") == 3
    assert stepper.does(lambda: stepper.drags(stepper.slider("number of levels"), -200)).count("<svg") == 2
    stepper.does(lambda: stepper.control("go to point").select_option("C"))
    assert where(stepper) == (-0.9, 1.5)
    stepper.does(lambda: stepper.press(stepper.control("go to point"), "ArrowDown"))
    assert where(stepper) == (-2.9, 0.5)


def test_notebook_02_shows_no_error_and_answers_in_time(stepper: Desk) -> None:
    nothing_wrong(stepper.page)
    stepper.report()


def test_notebook_04_runs_without_an_error(attention_page: object, explorer: Desk, playground: Desk) -> None:
    assert output_errors(attention_page) == []
    for desk in (explorer, playground):
        assert desk.box.locator(".bb-card").count() > 0
        assert desk.box.locator(".bb-chip").count() > 0
    assert attention_page.locator(".jp-RenderedHTML .bb-heat").count() == 3, (
        "the static copy of the view has the same three tables"
    )


def test_the_scale_of_the_offsets_moves_attention_and_ranks(explorer: Desk) -> None:
    assert "rank 1 (same)" in explorer.text()
    shown = explorer.does(lambda: explorer.press(explorer.slider("offset scale"), "ArrowRight"))
    assert "offset scale 1.10" in shown
    shown = explorer.does(lambda: explorer.drags(explorer.slider("offset scale"), 300))
    assert "offset scale 2.00" in shown


def test_the_number_of_events_changes_cards_and_maps(explorer: Desk) -> None:
    cells = explorer.box.locator(".bb-heat td").count()
    explorer.does(lambda: explorer.press(explorer.slider("number of events"), "ArrowLeft"))
    assert explorer.box.locator(".bb-heat td").count() < cells
    explorer.does(lambda: explorer.drags(explorer.slider("number of events"), -300))
    assert explorer.box.locator(".bb-heat td").count() == 3 * 2


@pytest.mark.parametrize("label", ["head", "layer", "channel"])
def test_choosers_change_the_maps(explorer: Desk, label: str) -> None:
    chooser = explorer.control(label)
    here = chooser.evaluate("one => one.selectedIndex")
    explorer.does(lambda: chooser.select_option(index=0 if here else 1))
    explorer.does(lambda: explorer.press(chooser, "ArrowDown" if here else "ArrowUp"))


def test_users_are_typed_and_walked(explorer: Desk) -> None:
    explorer.does(lambda: explorer.button("next user").click())
    explorer.does(lambda: explorer.press(explorer.button("previous user"), "Enter"))
    field = explorer.control("user id")
    field.fill("nobody")
    answered(explorer.page, explorer.selector, lambda: field.press("Enter"))
    assert "no user 'nobody'" in explorer.box.locator(".bb-error").inner_text()
    field.fill("u00007")
    explorer.does(lambda: field.press("Enter"))
    assert explorer.box.locator(".bb-error").count() == 0
    assert "of user u00007" in explorer.text()


def test_a_history_is_searched_clicked_together_and_cleared(playground: Desk) -> None:
    before = playground.button(re.compile(r"^\+ ")).all_inner_texts()
    playground.control("search").click()
    answered(playground.page, playground.selector, lambda: playground.page.keyboard.type("har"))
    playground.page.wait_for_timeout(500)
    hits = playground.button(re.compile(r"^\+ "))
    titles = hits.all_inner_texts()
    assert titles != before
    assert all("har" in title.casefold() for title in titles)
    playground.does(lambda: playground.button("clear history").click())
    assert "The history is empty. Search above" in playground.text()
    playground.does(lambda: hits.first.click())
    playground.does(lambda: playground.press(hits.nth(1), "Enter"))
    assert "the model reads 2 of 2 events" in playground.text()
    assert "event with the largest effect" in playground.text()
    playground.does(lambda: playground.button(re.compile("^× 1 ")).click())
    playground.does(lambda: playground.press(hits.nth(2), "Space"))
    playground.does(lambda: playground.press(playground.button(re.compile("^× 2 ")), "Enter"))
    assert "the model reads 1 of 1 events" in playground.text()
    playground.does(lambda: hits.nth(3).click())


def test_the_beam_is_widened_and_unfolded_level_by_level(playground: Desk) -> None:
    boxes = playground.box.locator("svg rect[rx='5']").count()
    playground.does(lambda: playground.press(playground.slider("beam width"), "ArrowRight"))
    assert playground.box.locator("svg rect[rx='5']").count() > boxes
    playground.does(lambda: playground.drags(playground.slider("beam width"), -40))
    shown = playground.does(lambda: playground.press(playground.slider("levels shown"), "ArrowLeft"))
    assert "Show all levels" in shown or "1 of 2 levels" in shown
    playground.does(lambda: playground.drags(playground.slider("levels shown"), 300))
    assert "Recommended, best first" in playground.text()


def test_signals_are_switched_off_and_runs_compared(playground: Desk) -> None:
    assert "Switched off: text" in playground.does(lambda: playground.control("text").click())
    shown = playground.does(lambda: playground.press(playground.control("image"), "Space"))
    assert "Switched off: text, image" in re.sub(r"Switched off: image, text", "Switched off: text, image", shown)
    playground.does(lambda: playground.control("text").click())
    shown = playground.does(lambda: playground.control("compare with").select_option("no-reweighting"))
    assert "Top 6 of no-reweighting" in shown
    shown = playground.does(lambda: playground.press(playground.control("compare with"), "ArrowUp"))
    assert "Top 6 of" not in shown


def test_notebook_04_stays_without_errors_and_answers_in_time(explorer: Desk, playground: Desk) -> None:
    nothing_wrong(explorer.page)
    explorer.report()
    playground.report()


def through_voila(voila: Callable, chromium: Callable, number: str, runs: Path) -> object:
    """Serve a notebook with Voila and open it."""
    chosen = (f"--{name}={PARAMETERS[name]}" for name in ("dataset", "preset"))
    page = chromium(1400, 1800)
    page.goto(voila("inspector", f"--notebook={number}", *chosen, f"--out={runs}").url)
    return page


def test_the_stepper_through_voila(voila: Callable, chromium: Callable, runs: Path) -> None:
    stepper = Desk(through_voila(voila, chromium, "02", runs), ".bb-stepper")
    before = where(stepper)
    stepper.does(lambda: stepper.drags(stepper.box.locator("svg[data-plane]"), -60, -80))
    assert where(stepper) != before
    stepper.does(lambda: stepper.press(stepper.slider("number of levels"), "ArrowLeft"))
    stepper.does(lambda: stepper.control("go to point").select_option("C"))
    nothing_wrong(stepper.page)


def test_explorer_and_playground_through_voila(voila: Callable, chromium: Callable, runs: Path) -> None:
    page = through_voila(voila, chromium, "04", runs)
    explorer, playground = Desk(page, ".bb-explorer"), Desk(page, ".bb-playground")
    assert "offset scale 1.10" in explorer.does(lambda: explorer.press(explorer.slider("offset scale"), "ArrowRight"))
    explorer.does(lambda: explorer.button("next user").click())
    playground.does(lambda: playground.button(re.compile(r"^\+ ")).first.click())
    playground.does(lambda: playground.press(playground.slider("beam width"), "ArrowRight"))
    nothing_wrong(page)
