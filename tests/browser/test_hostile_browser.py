"""A bundle whose every text attacks: in a real browser, report, book, live page and exported notebooks do no harm."""

import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hostile
import pytest
from browser import answered, console_problems, missing

pytestmark = pytest.mark.browser
COMMAND = [sys.executable, "-c", "import sys; from bbqrec_lab.cli import main; sys.exit(main())"]
NOTEBOOKS = sorted(file.stem for file in (Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))
HOSTS = ("cdnjs.cloudflare.com", "cdn.jsdelivr.net", "unpkg.com")  # of the template of nbconvert, not of our pages
LIVE = """() => [...document.querySelectorAll('*')].flatMap(one => [...one.attributes].filter(({ name, value }) =>
    (name.startsWith('on') && value.includes('struck')) || /^\\s*javascript:/i.test(value) ||
    (/^(href|src|srcset|action|data|style|xlink:href)$/.test(name) && value.includes(HOST))
).map(({ name, value }) => `${one.tagName} ${name}=${value}`))""".replace("HOST", repr(hostile.OUTSIDE))


class Made(NamedTuple):
    """The bundle, the folder of its run, the pages of its book, and all that the commands printed."""

    bundle: Path
    run: Path
    book: Path
    printed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Rows, notebooks, report and book of the bundle, made with the commands that users run."""
    if reason := missing("sphinx", "myst_nb", "sphinx_book_theme", "voila"):
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("hostile")
    bundle, out = hostile.write(home), home / "runs {dataset} [1]"
    options = ["--dataset", str(bundle), "--preset", "smoke", "--out", str(out)]
    asked = [["data", "check", str(bundle)], ["reproduce", *options, "--seeds", "0"], ["book", *options]]
    asked += [["runs", "--out", str(out)], ["runs", "--out", str(out), "--json"]]
    asked += [["recommend", "--dataset", str(bundle), "--out", str(out), "--item", f"0{hostile.TEXTS[0]}"]]
    printed = ""
    for words in asked:
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, errors="surrogateescape")
        assert done.returncode == 0, done.stderr[-3000:]
        printed += done.stdout + done.stderr
    return Made(bundle, out / bundle.name / "smoke", out / "book" / bundle.name / "smoke", printed)


@pytest.fixture
def page(chromium: Callable) -> Iterator[object]:
    """A page that asks nothing but files and this machine."""
    page = chromium(1400, 1000)
    page.dialogs = []
    page.on("dialog", lambda shown: (page.dialogs.append(shown.message), shown.dismiss()))
    page.route(re.compile("^(?!file:|data:|blob:|http://127\\.0\\.0\\.1:)"), lambda route: route.abort())
    yield page
    page.close()


def harmless(page: object, file: Path) -> None:
    """Open a file and assert: no script of the data ran or could, and no request left the machine."""
    page.goto(file.as_uri())
    page.wait_for_load_state("load")
    page.wait_for_timeout(500)
    unharmed(page, file.name)


def unharmed(page: object, name: str) -> None:
    """Assert of an open page what `harmless` says."""
    assert page.evaluate("() => window.struck") is None, f"{name}: a script of the data ran"
    assert page.evaluate(LIVE) == [], name
    assert page.dialogs == []
    assert [url for url in page.outside if not any(host in url for host in HOSTS)] == [], name


def test_a_page_that_shows_a_text_as_it_is_is_noticed(page: object, tmp_path: Path) -> None:
    """The check itself: every kind of attack is found where nothing is escaped."""
    for text in (hostile.TEXTS[0], hostile.TEXTS[2], f"<a href=' javascript:{hostile.STRIKE}'>x</a>"):
        (tmp_path / "raw.html").write_text(f"<p>{text}</p>")
        with pytest.raises(AssertionError):
            harmless(page, tmp_path / "raw.html")
    (tmp_path / "raw.html").write_text(f"<img src='https://{hostile.OUTSIDE}/a.png'>")
    with pytest.raises(AssertionError):
        harmless(page, tmp_path / "raw.html")


def test_the_report(page: object, made: Made) -> None:
    harmless(page, made.run / "index.html")
    assert "$x^{" in page.locator("h1").inner_text()
    assert page.locator("table").count() > 1


def test_every_page_of_the_book_with_its_widgets(page: object, made: Made) -> None:
    pages = sorted(made.book.glob("notebooks/[0-9]*.html"))
    assert [file.stem for file in pages] == NOTEBOOKS
    for file in [made.book / "index.html", *pages]:
        harmless(page, file)
        page.wait_for_function("() => !document.querySelector('.bb-undrawn:last-child')")
        assert page.evaluate("() => window.struck") is None, file.name
        assert page.evaluate(LIVE) == [], file.name
        assert console_problems(page) == []
    (inspector,) = (file for file in pages if file.name.startswith("07"))
    page.goto(inspector.as_uri())
    page.wait_for_selector(".bb-inspector .bb-card")
    assert hostile.TEXTS[0] in page.locator("article").inner_text()


def test_the_live_inspector_whatever_its_controls_show(page: object, made: Made, voila: Callable) -> None:
    out = made.run.parents[1]
    server = voila("inspector", f"--dataset={made.bundle}", "--preset=smoke", f"--out={out}")
    page.goto(server.url)
    page.wait_for_selector(".bb-inspector canvas")
    page.wait_for_selector(".bb-inspector .bb-status")
    box = page.locator(".bb-inspector")

    def does(act: Callable[[], object]) -> None:
        answered(page, ".bb-inspector", act)
        unharmed(page, "the live inspector")

    unharmed(page, "the live inspector")
    for part in ("script", "1", "e"):
        does(lambda part=part: box.get_by_label("Title or item ID").fill(part))
        does(lambda: box.get_by_role("button", name="Select all matches").click())
    shown = box.inner_text()
    for colouring in ("category", "popularity"):
        does(lambda colouring=colouring: box.get_by_label("Colour map by").select_option(colouring))
    does(lambda: box.get_by_label("Second map with its codes").click())
    does(lambda: box.get_by_label("Words on the map").click())
    area = box.locator("canvas").first.bounding_box()
    for step in range(12):  # tooltips of the map
        page.mouse.move(area["x"] + area["width"] * step / 12, area["y"] + area["height"] * (step % 4 + 0.5) / 4)
        page.wait_for_timeout(150)
    unharmed(page, "the live inspector")
    for text in hostile.TEXTS[:3]:
        assert text in shown
    log = server.log.read_text()
    assert [one for one in log if unicodedata.category(one) in ("Cc", "Cs", "Zl") and one not in "\n\t"] == []


def test_every_notebook_exported_by_nbconvert(page: object, made: Made, tmp_path: Path) -> None:
    from nbconvert import HTMLExporter

    files = sorted(made.run.glob("notebooks/[0-9]*.ipynb"))
    assert [file.stem for file in files] == NOTEBOOKS
    for file in files:
        target = tmp_path / f"{file.stem}.html"
        target.write_text(HTMLExporter().from_filename(str(file))[0], encoding="utf-8")
        harmless(page, target)


def test_no_command_printed_a_control(made: Made) -> None:
    assert [
        one for one in set(made.printed) if unicodedata.category(one) in ("Cc", "Cs", "Zl") and one not in "\n\t"
    ] == []
    assert "\\x1b[31m<img" in made.printed
