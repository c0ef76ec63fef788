"""The live page of `bbqrec serve` in a browser: the log grows, the list changes, titles are never markup."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import console_problems
from served import Server, make_run, vectors_of

from bbqrec_lab.datasets.reading import NamedDataset

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[NamedDataset, Path]:
    return make_run(tmp_path_factory.mktemp("served"))


@pytest.fixture
def server(run: tuple[NamedDataset, Path], tmp_path: Path) -> Iterator[Server]:
    with Server(run[1], state=tmp_path / "state.sqlite") as found:
        found.ask("/items", {"item_id": "evil", "title": EVIL, "vectors": vectors_of(run[0], 3)})
        yield found


@pytest.fixture
def page(chromium: Callable, server: Server) -> Iterator[object]:
    found = chromium(1280, 800)
    found.goto(f"http://127.0.0.1:{server.port}/")
    yield found
    found.close()


def send(page: object, user: str, item: str) -> None:
    """Send an event by keyboard."""
    page.get_by_label("User").first.fill(user)
    page.get_by_label("Item").fill(item)
    page.get_by_label("Item").press("Enter")


def test_the_log_grows_and_the_list_changes(run: tuple[NamedDataset, Path], page: object, server: Server) -> None:
    first, second, third = map(str, run[0].items["item_id"][:3])
    expect(page.locator("#run")).to_have_text(run[1].name)
    send(page, "ann", first)
    expect(page.locator("#log tr")).to_have_count(1)
    expect(page.locator("#basis")).to_have_text("User ann, by the history")
    expect(page.locator("#list tr")).to_have_count(10)
    assert first not in page.locator("#list").inner_text()
    server.ask("/events", {"events": [{"user_id": "ann", "item_id": second}]})  # from elsewhere
    expect(page.locator("#log tr")).to_have_count(2)
    expect(page.locator("#counts")).to_have_text("2 live events")
    expect(page.locator("#list")).not_to_contain_text(second)
    wanted = server.ask("/recommend/ann", k=10)[1]["items"]
    found = page.locator("#list tr")
    for row, item in enumerate(wanted):
        expect(found.nth(row)).to_contain_text(item["item_id"])
    page.get_by_label("follow the newest event").uncheck()
    server.ask("/events", {"events": [{"user_id": "bob", "item_id": third}]})
    expect(page.locator("#log tr")).to_have_count(3)
    expect(page.locator("#basis")).to_have_text("User ann, by the history")
    page.locator("#user").fill("nobody")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#basis")).to_have_text("User nobody, no events: the most popular items")


def test_titles_and_names_are_never_markup(page: object) -> None:
    send(page, EVIL, "evil")
    expect(page.locator("#log")).to_contain_text(EVIL)
    expect(page.locator("#basis")).to_contain_text(EVIL)
    assert page.locator("img").count() == 0
    assert page.title() == "bbqrec serve"
    assert console_problems(page) == page.outside == page.failed == [], "the policy of the page refuses nothing of it"


def test_a_refusal_is_shown_and_goes_away(run: tuple[NamedDataset, Path], page: object) -> None:
    send(page, "ann", "nothing")
    expect(page.locator("#error")).to_contain_text("no item 'nothing'")
    send(page, "ann", str(run[0].items["item_id"][0]))
    expect(page.locator("#error")).to_be_hidden()


def test_with_a_token_the_page_asks_for_it(run: tuple[NamedDataset, Path], chromium: Callable, tmp_path: Path) -> None:
    with Server(run[1], "--host", "0.0.0.0", state=tmp_path / "s.sqlite", BBQREC_TOKEN="sesame") as server:
        page = chromium(1280, 800)
        page.goto(f"http://127.0.0.1:{server.port}/")
        expect(page.locator("#error")).to_contain_text("no valid token")
        page.get_by_label("Token").fill("sesame")
        page.get_by_role("button", name="Use").click()
        expect(page.locator("#counts")).to_have_text("0 live events")
        expect(page.get_by_label("Token")).to_be_hidden()
        page.close()
