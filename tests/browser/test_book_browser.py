"""The book in a real browser, opened from disk without network: pages, links, figures, formulas, widgets."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import console_problems, missing

from bbqrec_lab.suite import book

pytestmark = pytest.mark.browser
DATASET, ONLY = "planted-smoke", "02,04,07"
WIDGETS = {"02": [".bb-stepper"], "04": [".bb-explorer", ".bb-playground"], "07": [".bb-inspector"]}
UNSEEN = "all => all.filter(one => !one.naturalWidth && !one.closest('[hidden]')).map(one => one.src)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book of the notebooks with widgets, built with the same commands that users run."""
    if reason := missing("sphinx", "myst_nb", "sphinx_book_theme", "voila"):
        pytest.skip(reason)
    runs = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-c", "import sys; from bbqrec_lab.cli import main; sys.exit(main())"]
    options = ["--dataset", DATASET, "--preset", "smoke", "--out", str(runs)]
    for name, more in (("reproduce", ["--only", ONLY]), ("book", [])):
        done = subprocess.run([*command, name, *options, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    return runs / "book" / DATASET / "smoke"


@pytest.fixture(scope="module")
def page(chromium: Callable, site: Path) -> Iterator[object]:
    """A page that blocks all requests except those for files."""
    page = chromium(1400, 1000)
    page.route(re.compile("^(?!file:|data:|blob:)"), lambda route: route.abort())
    page.context.set_offline(True)
    yield page
    page.close()


@pytest.fixture(autouse=True)
def _nothing_from_before(page: object) -> None:
    """Each test reports only its own problems."""
    for told in (page.failed, page.outside, page.problems):
        told.clear()


def opened(page: object, site: Path, name: str) -> object:
    """Open a page and wait until its scripts have run."""
    page.goto((site / name).as_uri())
    page.wait_for_load_state("load")
    return page


def drawn(page: object) -> None:
    """Wait until every widget has replaced its placeholder text."""
    page.wait_for_function("() => !document.querySelector('.bb-undrawn:last-child')")


def nothing_wrong(page: object) -> None:
    """Assert: no request failed or left the machine, no console error, no image without pixels."""
    drawn(page)
    assert (page.failed, page.outside, console_problems(page)) == ([], [], [])
    page.locator("img").evaluate_all("all => all.forEach(one => { one.loading = 'eager' })")
    page.wait_for_function("() => [...document.images].every(one => one.complete)")
    assert page.locator("img").evaluate_all(UNSEEN) == []


def test_a_missing_file_is_a_failed_request_and_a_script_of_the_page_before_is_not(
    page: object, tmp_path: Path
) -> None:
    (tmp_path / "slow.html").write_text("<title>slow</title><script async src='slow.js'></script>")
    (tmp_path / "next.html").write_text("<title>next</title><script src='missing.js'></script>")
    gone = []
    page.on("requestfailed", lambda asked: gone.append(asked.url))
    page.route("**/slow.js", lambda route: None)  # is never answered
    page.goto((tmp_path / "slow.html").as_uri(), wait_until="commit")
    page.wait_for_timeout(300)
    page.goto((tmp_path / "next.html").as_uri())
    page.wait_for_timeout(300)
    page.unroute("**/slow.js")
    assert [url.rpartition("/")[2] for url in gone] == ["slow.js", "missing.js"]
    assert [url.rpartition("/")[2] for url in page.failed] == ["missing.js"]


def test_every_page_is_reached_from_the_first_and_shows_all_it_has(page: object, site: Path) -> None:
    opened(page, site, "index.html")
    links = page.locator("#pst-primary-sidebar a.internal").evaluate_all("all => all.map(one => one.href)")
    names = {link.rpartition("/")[2].partition("#")[0] for link in links}
    assert {"02_codebook_training.html", "07_codebook_inspector.html", "data.html", "datasets.html"} <= names
    for link in dict.fromkeys(links):
        page.goto(link)
        assert page.locator("h1").first.inner_text().strip()
        assert not re.search(r"\| *(---|—) *\|", page.locator("article").inner_text()), (
            "a table is shown as its Markdown source"
        )
        nothing_wrong(page)


def test_a_reader_walks_through_by_clicks_and_finds_words(page: object, site: Path) -> None:
    opened(page, site, "index.html")
    page.locator("#pst-primary-sidebar").get_by_role("link", name=re.compile("^04 ")).click()
    page.wait_for_url("**/04_attention_reweighting.html")
    drawn(page)
    page.locator(".prev-next-footer a.right-next, a.right-next").first.click()
    page.wait_for_url("**/07_codebook_inspector.html")
    drawn(page)
    page.goto((site / "search.html").as_uri() + "?q=lasso")
    page.wait_for_selector("#search-results li a")
    nothing_wrong(page)


def test_formulas_are_drawn(page: object, site: Path) -> None:
    for number in ("02", "04"):
        (name,) = site.glob(f"notebooks/{number}_*.html")
        opened(page, site, f"notebooks/{name.name}")
        sizes = page.locator("math").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert sizes, f"no formula in {name.name}"
        assert min(sizes) > 5, "a single small letter has 8 pixels"
        assert "$" not in page.locator("article").inner_text().replace("$BBQREC_CACHE", "")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1920, "light"), (1280, "dark"), (1920, "dark")])
def test_code_stays_in_its_column_and_lists_keep_their_bullets(
    page: object, site: Path, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    page.emulate_media(color_scheme=scheme)
    for number in WIDGETS:
        (name,) = site.glob(f"notebooks/{number}_*.html")
        drawn(opened(page, site, f"notebooks/{name.name}"))
        page.wait_for_timeout(1000)  # style sheets of widgets come with them
        code = page.locator(".cell_input pre")
        assert code.count()
        assert code.evaluate_all("all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length") == 0
        assert page.locator("article ul > li").count()
        bullets = page.locator("article ul > li:not(.bb-widget *)")
        assert set(bullets.evaluate_all("all => all.map(one => getComputedStyle(one).listStyleType)")) <= {
            "disc",
            "circle",
        }
        assert page.evaluate("() => document.documentElement.dataset.theme") == scheme
        paper = page.locator(".text_html:has(.bb-place), .cell_output img:not(.bb-widget *)")
        colours = paper.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
        assert scheme == "light" or set(colours) == {"rgb(255, 255, 255)"}, "colours of widgets and figures need white"
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.emulate_media(color_scheme="light")


def test_solutions_are_folded_and_open_by_a_click_or_a_key(page: object, site: Path) -> None:
    opened(page, site, "notebooks/02_codebook_training.html")
    solutions = page.locator(".bb-solution")
    assert solutions.count() == 3
    assert not solutions.locator("pre").first.is_visible()
    solutions.first.locator("summary").click()
    assert "answer_1 = " in solutions.first.locator("pre").inner_text()
    solutions.nth(1).locator("summary").focus()
    page.keyboard.press("Enter")
    assert solutions.nth(1).locator("pre").is_visible()
    nothing_wrong(page)


@pytest.mark.parametrize("number", WIDGETS)
def test_widgets_stand_as_the_run_left_them_under_a_line_that_says_so(page: object, site: Path, number: str) -> None:
    (name,) = site.glob(f"notebooks/{number}_*.html")
    opened(page, site, f"notebooks/{name.name}")
    assert page.locator(".bb-widget").count() == len(WIDGETS[number])
    for kind in WIDGETS[number]:
        widget = page.locator(kind)
        widget.locator("section").first.wait_for()
        place = page.locator(".bb-place").filter(has=widget)
        assert "Its controls need a running Python kernel: use make lab" in place.inner_text()
        assert book.UNDRAWN not in place.inner_text()
        assert widget.bounding_box()["height"] > 300
        assert widget.locator("select, input, button").evaluate_all("all => all.some(one => one.disabled)")
    nothing_wrong(page)


def test_the_map_is_drawn_and_still_moves(page: object, site: Path) -> None:
    opened(page, site, "notebooks/07_codebook_inspector.html")
    canvas = page.locator(".bb-inspector canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    before = canvas.screenshot()
    assert len(before) > 4000, "an empty canvas compresses to less"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 60, steps=5)
    page.mouse.up()
    page.wait_for_timeout(800)
    assert canvas.screenshot() != before
    nothing_wrong(page)


def test_the_plane_of_the_stepper_takes_a_drag_without_an_error(page: object, site: Path) -> None:
    opened(page, site, "notebooks/02_codebook_training.html")
    plane = page.locator(".bb-stepper svg[data-plane]")
    plane.wait_for()
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 150, steps=4)
    page.mouse.up()
    page.wait_for_timeout(300)
    nothing_wrong(page)


def test_a_widget_that_cannot_be_drawn_says_so(page: object, site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "_static" / "widgets" / "controls.js").unlink()
    opened(page, tmp_path / "site", "notebooks/02_codebook_training.html")
    page.wait_for_timeout(1500)
    told = page.locator(".bb-place").inner_text()
    assert "The figures above show the same content" in told
    assert book.UNDRAWN in told


@pytest.mark.parametrize("width", [420, 1000])
def test_nothing_is_wider_than_a_narrow_window(page: object, site: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("index.html", "notebooks/04_attention_reweighting.html", "notebooks/index.html"):
        opened(page, site, name)
        page.wait_for_timeout(500)
        assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, name
    page.set_viewport_size({"width": 1400, "height": 1000})
