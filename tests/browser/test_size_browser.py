"""Large widgets in a real browser: tens of thousands of points on the map, and update times on a large dataset.

The second half runs on the bundle in BBQREC_BUNDLE, with the sizes of preset `quick` and one epoch of training:
`BBQREC_BUNDLE=path/to/ml-1m make browser ARGS=tests/browser/test_size_browser.py`. Every median is printed. Only the
share of the kernel has a limit, because tests run on busy machines whose browser draws without a GPU.
"""

import os
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
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
    words,
)
from made import CORNERS

pytestmark = pytest.mark.browser
POINTS, REPEATS, MILLISECONDS = 40_000, 5, 200
WIDGET = ".bb-inspector"
BUNDLE = os.environ.get("BBQREC_BUNDLE", "")
ONCE = {"tokenizer.epochs": 1, "recommender.epochs": 1, "recommender.epoch_steps": 20}

# Watch the map: record when its pixels change for the first and the last time.
WATCH_MAP = """() => {
    const map = document.querySelector('.bb-inspector canvas'), small = new OffscreenCanvas(96, 96);
    const pen = small.getContext('2d', { willReadFrequently: true });
    const sum = () => {
        pen.clearRect(0, 0, 96, 96); pen.drawImage(map, 0, 0, 96, 96);
        return pen.getImageData(0, 0, 96, 96).data.reduce((all, one, at) => (all * 31 + one + at) % 1e9, 0);
    };
    const seen = window.mapSeen = { begin: 0, first: 0, last: 0, frames: 0 };
    let before = sum();
    const look = () => {
        const now = sum();
        if (now !== before) { seen.last = performance.now(); seen.first ||= seen.last; }
        before = now; seen.frames += 1;
        window.mapSeen === seen && requestAnimationFrame(look);
    };
    for (const kind of ['change', 'click', 'pointerup', 'mouseup'])
        document.querySelector('.bb-inspector').addEventListener(
            kind, () => { seen.begin ||= performance.now(); }, { capture: true });
    requestAnimationFrame(look);
}"""
# Measure the time of each animation frame while the points move.
FRAMES = """() => new Promise(done => {
    const times = []; let last = performance.now();
    const tick = now => {
        times.push(now - last); last = now;
        times.length < 40 ? requestAnimationFrame(tick) : done(times);
    };
    requestAnimationFrame(tick);
})"""


class Page:
    """The inspector on an open page, with the times of its updates and of its map."""

    def __init__(self, page: object) -> None:
        self.page, self.box, self.answers, self.own, self.drawn = page, page.locator(WIDGET), [], [], []
        self.box.scroll_into_view_if_needed()
        self.map = self.box.locator("canvas").first

    def does(self, act: Callable[[], object]) -> None:
        """Run `act` and record the time of the update, in the page and in the kernel."""
        self.answers.append(1000 * answered(self.page, WIDGET, act))
        self.own.append(said_milliseconds(self.page, WIDGET))

    def redraws(self, act: Callable[[], object]) -> None:
        """Run `act` and record the time until the map changes. Watching slows the page: no update time is recorded."""
        self.page.wait_for_timeout(700)  # points fade into their colours
        self.page.evaluate(WATCH_MAP)
        answered(self.page, WIDGET, act)
        self.page.wait_for_function("() => window.mapSeen.first")
        seen = self.page.evaluate("() => window.mapSeen")
        self.drawn.append(seen["first"] - seen["begin"])
        self.page.evaluate("() => { window.mapSeen = null; }")

    def control(self, label: str) -> object:
        return self.box.get_by_label(label, exact=True)

    def says(self, label: str, printed: Callable[[str], object]) -> float:
        """Print the medians since the last call, and return the share of the kernel."""
        whole, own = statistics.median(self.answers), statistics.median(self.own)
        drawn = f"; the map shows it after {statistics.median(self.drawn):.0f} ms" if self.drawn else ""
        printed(f"{label}: median of {len(self.answers)} updates {whole:.0f} ms, {own:.0f} of it in the kernel{drawn}")
        self.answers, self.own, self.drawn = [], [], []
        return own


@pytest.fixture
def printed(capsys: pytest.CaptureFixture) -> Callable[[str], None]:
    """Print without the output capture of pytest."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end=" ")

    return say


@pytest.fixture(scope="module")
def crowd(lab: Server, chromium: Callable) -> Iterator[Page]:
    """The inspector on a synthetic catalogue, in JupyterLab."""
    code = (
        f"import sys\nsys.path.insert(0, {str(ROOT / 'tests')!r})\nfrom made import made_atlas\n"
        f"from bbqrec_lab.widgets.inspector import Inspector\ntool = Inspector(made_atlas({POINTS}), '.')\ntool.box"
    )
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=kernel)
    lab.folder.mkdir(exist_ok=True)
    nbformat.write(notebook, lab.folder / "crowd.ipynb")
    page = chromium(1500, 1500)
    open_and_run(page, lab, lab.folder / "crowd.ipynb")
    page.wait_for_selector(f"{WIDGET} canvas")
    page.wait_for_timeout(2000)
    yield Page(page)
    page.close()


def test_tens_of_thousands_of_points_are_recoloured_at_once(crowd: Page, printed: Callable) -> None:
    for measure in (crowd.does, crowd.redraws):
        for colour in REPEATS * ("popularity", "level 2", "level 1"):
            measure(lambda colour=colour: crowd.control("Colour map by").select_option(colour))
    assert crowd.says(f"{POINTS:,} points, another colouring", printed) < MILLISECONDS


def test_a_code_of_many_is_selected_at_once(crowd: Page, printed: Callable) -> None:
    for code in range(1, 1 + 2 * REPEATS):
        measure = crowd.does if code > REPEATS else crowd.redraws
        measure(lambda code=code: crowd.control("Code at level 1").select_option(index=code))
        assert int(re.search(r"Selected items: (\d+) of 40,000", crowd.box.inner_text())[1]) > 300
    assert crowd.says(f"{POINTS:,} points, a code chosen", printed) < MILLISECONDS


def corner(crowd: Page, at: int) -> tuple[float, float]:
    """Page position of the item at a corner of the map: axis ranges are padded, and the height sets the scale."""
    area = crowd.map.bounding_box()
    middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    x, y = CORNERS[at]
    return middle[0] + x / 1.08 * area["height"] / 2, middle[1] - y / 1.08 * area["height"] / 2


def test_a_single_click_selects_the_point_below_it(crowd: Page, printed: Callable) -> None:
    area = crowd.map.bounding_box()
    assert area["width"] >= area["height"] > 300, "all points fit into the width"
    for at in range(len(CORNERS)):
        x, y = corner(crowd, at)
        crowd.page.mouse.move(x, y, steps=3)
        crowd.page.wait_for_timeout(200)
        crowd.does(lambda x=x, y=y: crowd.page.mouse.click(x, y))
        assert "Selected items: 1 of 40,000" in crowd.box.inner_text()
        (title,) = words(crowd.control("Item in detail").locator("option:checked"))
        assert title.endswith(f" {at + 1}"), title
    crowd.says(f"{POINTS:,} points, one clicked", printed)


def test_a_lasso_over_thousands_is_answered(crowd: Page, printed: Callable) -> None:
    area = crowd.map.bounding_box()

    def draw() -> None:
        for step, (x, y) in enumerate([(0.2, 0.3), (0.8, 0.3), (0.8, 0.7), (0.2, 0.7), (0.21, 0.32)]):
            crowd.page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"], steps=10)
            crowd.page.wait_for_timeout(60)
            if not step:
                crowd.page.mouse.down()
        crowd.page.mouse.up()

    crowd.does(draw)
    assert int(re.search(r"Selected items: (\d+) of", crowd.box.inner_text())[1]) > 1000
    crowd.says(f"{POINTS:,} points, a lasso, its drawing included", printed)


def test_the_map_moves_fluently(crowd: Page, printed: Callable) -> None:
    area = crowd.map.bounding_box()
    crowd.page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    crowd.page.evaluate(f"() => {{ window.times = ({FRAMES})(); }}")
    for _ in range(12):
        crowd.page.mouse.wheel(0, -60)
        crowd.page.wait_for_timeout(30)
    times = crowd.page.evaluate("() => window.times")
    printed(f"{POINTS:,} points zoomed: a frame takes {statistics.median(times):.0f} ms, at most {max(times):.0f} ms")


def test_the_made_catalogue_left_no_error(crowd: Page) -> None:
    assert output_errors(crowd.page) == []
    assert console_problems(crowd.page) == []
    assert crowd.page.outside == []


@pytest.fixture(scope="module")
def large(lab: Server, tmp_path_factory: pytest.TempPathFactory, chromium: Callable) -> Iterator[Callable]:
    """A function that opens a notebook on the bundle in BBQREC_BUNDLE."""
    if not BUNDLE:
        pytest.skip("BBQREC_BUNDLE is not set")
    runs, pages = tmp_path_factory.mktemp("runs"), []

    def opened(number: str) -> object:
        given = {"dataset": str(Path(BUNDLE).resolve()), "preset": "quick", "overrides": ONCE, "out_dir": str(runs)}
        page = chromium(1500, 1800)
        pages.append(page)
        page.set_default_timeout(900_000)
        page.route("**/files/figures/*", lambda route: route.fulfill(status=200, body=""))
        open_and_run(page, lab, copy_notebook(number, lab.folder, **given))
        return page

    yield opened
    for page in pages:
        page.close()


def test_the_inspector_answers_quickly_on_a_large_dataset(large: Callable, printed: Callable) -> None:
    here = Page(large("07"))
    here.page.wait_for_selector(f"{WIDGET} canvas")
    for measure in (here.does, here.redraws):
        for colour in REPEATS * ("popularity", "level 1"):
            measure(lambda colour=colour: here.control("Colour map by").select_option(colour))
    medians = [here.says("inspector, another colouring", printed)]
    for code in range(1, 1 + 2 * REPEATS):
        measure = here.does if code > REPEATS else here.redraws
        measure(lambda code=code: here.control("Code at level 1").select_option(index=code))
    medians.append(here.says("inspector, a code chosen", printed))
    for index in range(1, 1 + REPEATS):
        here.does(lambda index=index: here.control("Item in detail").select_option(index=index))
    medians.append(here.says("inspector, an item shown in detail", printed))
    here.control("Title or item ID").click()
    for key in "the s":
        here.does(lambda key=key: here.page.keyboard.type(key))
    medians.append(here.says("inspector, a letter of a title", printed))
    assert output_errors(here.page) == []
    assert console_problems(here.page) == []
    assert max(medians) < MILLISECONDS


def test_explorer_and_playground_answer_quickly_on_a_large_dataset(large: Callable, printed: Callable) -> None:
    from test_live_browser import Desk

    page = large("04")
    explorer, playground = Desk(page, ".bb-explorer"), Desk(page, ".bb-playground")
    for _ in range(REPEATS):
        explorer.does(lambda: explorer.button("next user").click())
        explorer.does(lambda: explorer.press(explorer.slider("offset scale"), "ArrowRight"))
        explorer.does(lambda: explorer.press(explorer.slider("number of events"), "ArrowLeft"))
    for _ in range(REPEATS):
        playground.does(lambda: playground.button(re.compile(r"^\+ ")).first.click())
        playground.does(lambda: playground.press(playground.slider("beam width"), "ArrowRight"))
        playground.does(lambda: playground.control("text").click())
    for name, desk in (("explorer", explorer), ("playground", playground)):
        whole, own = 1000 * statistics.median(desk.times), statistics.median(desk.own)
        printed(f"{name}: median of {len(desk.times)} updates {whole:.0f} ms, {own:.0f} of it in the kernel")
        assert own < MILLISECONDS
    assert output_errors(page) == []
    assert console_problems(page) == []
