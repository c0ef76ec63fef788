"""The codebook inspector in a real browser: each control by mouse and by keyboard, in JupyterLab and Voila."""

import io
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from browser import (
    Server,
    answered,
    console_problems,
    copy_notebook,
    open_and_run,
    output_errors,
    said_milliseconds,
    words,
)
from PIL import Image

pytestmark = pytest.mark.browser
WIDGET = ".bb-inspector"
PARAMETERS = {"dataset": "planted-smoke", "preset": "smoke", "seed": 0}


class Desk:
    """The widget on an open page: the texts of its panels, and its controls by label."""

    def __init__(self, page: object, runs: Path) -> None:
        self.page, self.runs, self.box, self.times = page, runs, page.locator(WIDGET), []
        self.box.scroll_into_view_if_needed()

    def control(self, label: str) -> object:
        """The one control with this label."""
        return self.box.get_by_label(label, exact=True)

    def button(self, name: str) -> object:
        return self.box.get_by_role("button", name=name)

    def text(self) -> str:
        """The text of the widget without the counter in the status line, which always changes."""
        return re.sub(r"Update \d+, \d+ ms\.", "", self.box.inner_text())

    def html(self) -> str:
        """The HTML of the panels, which also changes with an image."""
        return "".join(self.box.locator("section").evaluate_all("all => all.map(one => one.outerHTML)"))

    def does(self, act: Callable[[], object]) -> None:
        """Run `act`, wait for the complete update, and assert that the display changes."""
        before = self.text() + self.html()
        self.times.append(answered(self.page, WIDGET, act))
        assert self.text() + self.html() != before, "the update is complete, but nothing changed"

    def picture(self) -> bytes:
        """A screenshot of the map."""
        self.page.mouse.move(5, 5)
        self.page.wait_for_timeout(700)  # points fade into their new colours
        return self.box.locator("canvas").first.screenshot()

    def press(self, control: object, *keys: str) -> None:
        """Focus a control and press keys on it, without a mouse."""
        control.focus()
        for key in keys:
            self.page.keyboard.press(key)


def chosen(chooser: object) -> str:
    """The text of the selected option."""
    (text,) = words(chooser.locator("option:checked"))
    return text


@pytest.fixture(scope="module")
def desk(lab: Server, chromium: Callable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """The widget in JupyterLab after all cells have run."""
    runs = tmp_path_factory.mktemp("runs")
    notebook = copy_notebook("07", lab.folder, out_dir=str(runs), **PARAMETERS)
    page = chromium(1500, 1700)
    open_and_run(page, lab, notebook)
    page.wait_for_selector(f"{WIDGET} canvas")
    yield Desk(page, runs)
    page.close()


def test_all_cells_run_without_an_error(desk: Desk) -> None:
    assert output_errors(desk.page) == []
    assert desk.box.locator(".bb-card").count() > 0
    assert desk.box.locator(".bb-chip").count() > 0


def test_the_map_is_drawn_and_recoloured_by_mouse_and_keyboard(desk: Desk) -> None:
    level = desk.picture()
    assert len(level) > 4000, "an empty canvas compresses to less"
    desk.does(lambda: desk.control("Colour map by").select_option("popularity"))
    popularity = desk.picture()
    assert popularity != level
    desk.does(lambda: desk.press(desk.control("Colour map by"), "ArrowDown"))
    assert desk.control("Colour map by").input_value() == "category"
    desk.does(lambda: desk.press(desk.control("Colour map by"), "ArrowDown"))
    assert desk.picture() != popularity
    assert "shared IDs" in desk.text() or "items)" in desk.text()


def test_the_canvas_behind_the_map_is_no_larger(desk: Desk) -> None:
    sizes = "one => [one.width, one.height]"
    shown = desk.box.locator("canvas").first.evaluate(sizes)
    assert desk.page.evaluate(f"() => ({sizes})(jupyterScatter.renderer.canvas)") == shown


def test_a_lasso_on_the_map_selects_what_it_encloses(desk: Desk) -> None:
    area = desk.box.locator("canvas").first.bounding_box()
    left, top, width, height = (area[key] for key in ("x", "y", "width", "height"))
    corners = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95), (0.06, 0.08)]

    def draw() -> None:
        places = [(left + x * width, top + y * height) for x, y in corners]
        desk.page.mouse.move(*places[0])
        desk.page.mouse.down()
        for place in places[1:]:
            desk.page.mouse.move(*place, steps=12)
            desk.page.wait_for_timeout(60)
        desk.page.mouse.up()

    desk.does(draw)
    selected = int(re.search(r"Selected items: (\d+) of", desk.text())[1])
    assert selected > 60, "nearly all of the 120 points lie inside"


def test_search_lists_and_selects(desk: Desk) -> None:
    desk.control("Title or item ID").click()
    before = desk.control("Matches").locator("option").count()
    answered(desk.page, WIDGET, lambda: desk.page.keyboard.type("har"))
    desk.page.wait_for_timeout(500)
    options = words(desk.control("Matches").locator("option"))
    assert options
    assert len(options) != before
    assert all("har" in title.casefold() for title in options)
    desk.does(lambda: desk.control("Matches").locator("option").first.click())
    assert f"nearest items of {options[0]}".casefold() in desk.text().casefold()
    desk.does(lambda: desk.press(desk.control("Matches"), "ArrowDown"))
    assert f"nearest items of {options[1]}".casefold() in desk.text().casefold()
    assert "Selected items: 1 of" in desk.text()


def test_an_item_is_found_by_its_id_and_a_search_without_hits_says_so(desk: Desk) -> None:
    title = chosen(desk.control("Item in detail"))
    known = re.search(r" · item (\S+)$", title)[1]
    desk.does(lambda: desk.control("Title or item ID").fill(known))
    assert words(desk.control("Matches").locator("option"))[0] == title
    desk.does(lambda: desk.control("Title or item ID").fill("no such thing"))
    assert words(desk.control("Matches").locator("option")) == ["no match for “no such thing”"]
    assert desk.button("Select all matches").is_disabled()
    desk.does(lambda: desk.control("Title or item ID").fill("har"))


def selected(desk: Desk) -> int:
    """The number of selected items."""
    return int(re.search(r"Selected items: ([\d,]+) of", desk.text())[1].replace(",", ""))


@pytest.mark.parametrize("key", ["", "Enter", "Space"])
def test_cards_neighbours_and_codes_are_clicked_by_mouse_and_keyboard(desk: Desk, key: str) -> None:
    def hit(place: object) -> None:
        desk.does(lambda: desk.press(place, key) if key else place.click())

    desk.does(lambda: desk.control("Code at level 1").select_option(index=3 if key == "Enter" else 2))
    many, second = selected(desk), desk.box.locator(".bb-card .bb-title").nth(1)
    name = second.inner_text()
    hit(second)
    assert f"Path in the prefix tree: {name} · item" in desk.text(), "a selected item comes into focus"
    assert desk.box.locator(".bb-card.bb-focus .bb-title").inner_text() == name
    assert selected(desk) == many
    hit(desk.box.locator("[data-prefix=''] .bb-chip").first)
    code = desk.box.locator(".bb-card .bb-chip").first.inner_text()
    assert chosen(desk.control("Code at level 1")).startswith(f"{code} ("), "a code of the tree selects its items"
    path = desk.box.locator("tr:nth-child(2) .bb-chips").first.locator(".bb-chip")
    prefix = path.all_inner_texts()
    hit(path.last)
    assert desk.box.locator(".bb-card").first.locator(".bb-chip").all_inner_texts()[:2] == prefix
    shown = {card.get_attribute("data-row") for card in desk.box.locator(".bb-card").all()}
    near = next(one for one in desk.box.locator(".bb-mini").all() if one.get_attribute("data-row") not in shown)
    name = near.locator(".bb-line").inner_text()
    hit(near.locator(".bb-line"))
    assert selected(desk) == 1
    assert desk.box.locator(".bb-card .bb-title").inner_text() == name, "a neighbour is selected"
    if key:
        focus = "() => document.activeElement.closest('.bb-panels') !== null"
        assert desk.page.evaluate(focus), "the keyboard stays in the panels"


def test_a_state_is_copied_and_restored(desk: Desk) -> None:
    desk.does(lambda: desk.control("Code at level 1").select_option(index=1))
    field = desk.control("State as JSON")
    state, text = field.input_value(), desk.text()
    desk.does(lambda: desk.control("Colour map by").select_option("popularity"))
    desk.does(desk.button("Clear selection").click)

    def paste() -> None:
        field.fill(state)
        desk.page.keyboard.press("Enter")

    desk.does(paste)
    assert desk.text() == text
    answered(desk.page, WIDGET, lambda: (field.fill("{}"), desk.page.keyboard.press("Enter")))
    assert "a state has the fields tokenizer, selected" in desk.box.inner_text()
    desk.does(lambda: desk.control("Code at level 1").select_option(index=2))


def stage(desk: Desk) -> object:
    """The map, which takes keys."""
    return desk.box.get_by_role("group", name=re.compile("^Map"))


def plot(desk: Desk, part: str, name: str) -> object:
    """A property of the plot in a part of the widget."""
    find = (
        "([canvas, name]) => { let one = canvas; while (!one.api) one = one.parentElement; return one.api.get(name) }"
    )
    return desk.page.evaluate(find, [desk.box.locator(f"{part} canvas").first.element_handle(), name])


def viewed(desk: Desk, act: Callable[[], object]) -> list[float]:
    """Run `act`, wait until the map has moved and the state knows it, and return the view in the state."""
    layer = desk.box.locator(".bb-layer").first
    before = now = json.loads(layer.get_attribute("data-view"))
    act()
    for _ in range(100):
        desk.page.wait_for_timeout(150)
        last, now = now, json.loads(layer.get_attribute("data-view"))
        state = json.loads(desk.control("State as JSON").input_value())["view"]
        if now == last and now != pytest.approx(before, abs=0.01) and state == pytest.approx(now, abs=0.002):
            return now
    raise AssertionError(f"the map shows {now}, the state holds {state}")


def places(locator: object) -> list[dict]:
    """The boxes of all elements."""
    return locator.evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")


def inside(box: dict, area: dict) -> bool:
    """Whether a box lies wholly in an area."""
    return all(
        area[edge] <= box[edge] and box[edge] + box[size] <= area[edge] + area[size]
        for edge, size in (("x", "width"), ("y", "height"))
    )


def test_words_name_regions_without_overlap_and_change_with_the_zoom(desk: Desk) -> None:
    words_shown, control = desk.box.locator(".bb-word"), desk.control("Words on the map")
    first, area = sorted(words(words_shown)), desk.box.locator("canvas").first.bounding_box()
    assert len(first) > 1
    boxes = places(words_shown)
    for at, one in enumerate(boxes):
        assert area["x"] - 1 <= one["left"] < one["right"] <= area["x"] + area["width"] + 1
        for other in boxes[:at]:
            apart = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert apart or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
    desk.does(lambda: desk.press(control, "Space"))
    assert words_shown.count() == 0
    desk.does(control.click)
    assert sorted(words(words_shown)) == first
    view = viewed(desk, lambda: desk.press(stage(desk), "+", "+", "+", "ArrowRight"))
    assert view[2] == pytest.approx(1.4**3, abs=0.01)
    assert view[0] > 0
    assert sorted(words(words_shown)) != first
    assert viewed(desk, lambda: desk.press(stage(desk), "0")) == [0, 0, 1]
    assert sorted(words(words_shown)) == first


def test_pictures_appear_at_high_zoom_and_are_clicked(desk: Desk) -> None:
    shots, area = desk.box.locator(".bb-shot"), desk.box.locator("canvas").first.bounding_box()
    assert shots.count() == 0
    desk.page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)

    def wheel() -> None:
        for _ in range(4):
            desk.page.mouse.wheel(0, -120)
            desk.page.wait_for_timeout(40)

    assert viewed(desk, wheel)[2] > 2
    shots.first.wait_for()
    assert desk.box.locator(".bb-shot img").count() > 0, "these data have pictures"
    desk.does(desk.button("Clear selection").click)
    one, box = next((one, one.bounding_box()) for one in shots.all() if inside(one.bounding_box(), area))
    name = one.locator("img, svg").get_attribute("alt")
    corner = box["x"] + box["width"] - 6, box["y"] + box["height"] / 2 + 8  # beside the point
    desk.does(lambda: desk.page.mouse.click(*corner))
    assert "Selected items: 1 of" in desk.text()
    assert name is None or name.removeprefix("image of ") == desk.box.locator(".bb-card .bb-title").inner_text()
    desk.page.wait_for_timeout(300)
    assert desk.box.locator(".bb-shot.bb-chosen").count() == 1, "the selected item keeps its picture"


def test_the_view_of_the_map_is_part_of_the_state(desk: Desk) -> None:
    field, layer = desk.control("State as JSON"), desk.box.locator(".bb-layer").first
    view = viewed(desk, lambda: desk.press(stage(desk), "ArrowDown"))
    state, panels = field.input_value(), desk.html()
    assert viewed(desk, lambda: desk.press(stage(desk), "0")) == [0, 0, 1]
    assert desk.html() == panels, "moving the map changes no panel"
    desk.does(desk.button("Clear selection").click)
    answered(desk.page, WIDGET, lambda: (field.fill(state), desk.page.keyboard.press("Enter")))
    desk.page.wait_for_timeout(600)
    assert json.loads(layer.get_attribute("data-view")) == pytest.approx(view, abs=0.002)
    assert desk.html() == panels
    assert viewed(desk, lambda: desk.press(stage(desk), "0")) == [0, 0, 1]
    desk.does(lambda: desk.control("Code at level 1").select_option(index=1))


def test_a_second_map_shares_selection_and_view(desk: Desk) -> None:
    control, second = desk.control("Second map with its codes"), desk.box.locator(".bb-second")
    assert not second.is_visible()
    desk.does(lambda: desk.control("Compare with").select_option("random-ids"))
    desk.does(lambda: desk.press(control, "Space"))
    second.locator("canvas").first.wait_for()
    assert second.locator(".bb-legend b").inner_text() == "random-ids"
    area = second.locator("canvas").first.bounding_box()
    desk.page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)
    desk.page.wait_for_timeout(700)
    assert len(second.locator("canvas").first.screenshot()) > 4000, "an empty canvas compresses to less"

    def wheel() -> None:
        for _ in range(3):
            desk.page.mouse.wheel(0, -120)
            desk.page.wait_for_timeout(40)

    zoom = viewed(desk, wheel)[2]
    assert zoom > 1.5, "the first map follows the second"
    assert 1 / plot(desk, ".bb-second", "cameraDistance") == pytest.approx(zoom, abs=0.01)
    assert viewed(desk, lambda: desk.press(stage(desk), "0")) == [0, 0, 1]
    desk.page.wait_for_timeout(700)
    assert plot(desk, ".bb-second", "cameraDistance") == 1, "the second map follows the first"
    corners = [(0.05, 0.05), (0.5, 0.05), (0.5, 0.95), (0.05, 0.95), (0.06, 0.08)]

    def draw() -> None:
        for step, (x, y) in enumerate(corners):
            desk.page.mouse.move(area["x"] + x * area["width"], area["y"] + y * area["height"], steps=12)
            desk.page.wait_for_timeout(60)
            if not step:
                desk.page.mouse.down()
        desk.page.mouse.up()

    desk.does(draw)
    assert 10 < selected(desk) < 110
    for part in (".bb-map", ".bb-second"):
        assert len(plot(desk, part, "selectedPoints")) == selected(desk), part
    desk.does(control.click)
    assert not second.is_visible()
    desk.does(lambda: desk.control("Compare with").select_option("nothing"))
    desk.does(lambda: desk.control("Code at level 1").select_option(index=1))


def bar(desk: Desk) -> float:
    """Brightness of the buttons' bar beside the map, 0 to 255."""
    colour = "one => getComputedStyle(one).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    return max(desk.box.locator("[data-jss-theme]").first.evaluate(colour))


def test_the_map_follows_the_theme(desk: Desk) -> None:
    def corner() -> int:
        """Brightness of the map where no point lies."""
        return Image.open(io.BytesIO(desk.picture())).convert("L").getpixel((3, 3))

    def turn(theme: str) -> None:
        desk.page.evaluate(f"() => jupyterapp.commands.execute('apputils:change-theme', {{ theme: '{theme}' }})")

    assert corner() > 240
    assert bar(desk) > 240
    turn("JupyterLab Dark")
    desk.box.and_(desk.page.locator(".bb-dark")).wait_for()
    assert corner() < 30
    assert bar(desk) < 30
    turn("JupyterLab Light")
    desk.page.wait_for_function("() => !document.querySelector('.bb-dark')")
    assert corner() > 240


@pytest.mark.parametrize("key", ["", "Space", "Enter"])
def test_buttons_work_by_mouse_and_keyboard(desk: Desk, key: str) -> None:
    for name, told in (("Clear selection", "Selected items: 0"), ("Select all matches", "Selected items: ")):
        button = desk.button(name)
        if key:
            desk.does(lambda button=button: desk.press(button, key))
        else:
            desk.does(button.click)
        assert told in desk.text()
    assert "Selected items: 0" not in desk.text()


def test_codes_and_prefixes_select_without_a_mouse(desk: Desk) -> None:
    first, second = desk.control("Code at level 1"), desk.control("Code at level 2")
    desk.does(lambda: first.select_option(index=2))
    code, count = re.match(r"(\d+) \((\d+) items?\)", chosen(first)).groups()
    assert f"Selected items: {count} of" in desk.text()
    chips = desk.box.locator(".bb-card .bb-chip:first-child").all_inner_texts()
    assert set(chips) == {code}
    desk.does(lambda: desk.press(first, "ArrowUp"))
    desk.does(lambda: desk.press(second, "ArrowDown"))
    prefix = [re.match(r"\d+", chosen(of))[0] for of in (first, second)]
    assert desk.box.locator(".bb-card").first.locator(".bb-chip").all_inner_texts()[:2] == prefix
    desk.does(lambda: second.select_option(index=0))


def test_each_further_chooser_changes_its_panel(desk: Desk) -> None:
    focus, level, compared = (desk.control(name) for name in ("Item in detail", "Codebook level", "Compare with"))
    desk.does(lambda: focus.select_option(index=1))
    desk.does(lambda: desk.press(focus, "ArrowUp"))
    title = chosen(focus)
    assert f"Path in the prefix tree: {title}" in desk.text()
    desk.does(lambda: level.select_option("2"))
    assert "Codebook of level 2" in desk.text()
    desk.does(lambda: desk.press(level, "ArrowUp"))
    assert "Codebook of level 1" in desk.text()
    desk.does(lambda: compared.select_option("random-ids"))
    assert "Compare bbqrec with random-ids" in desk.text()
    desk.does(lambda: desk.press(compared, "ArrowUp"))
    assert "Compare bbqrec with tiger" in desk.text()


def test_the_selection_leaves_as_csv_twice(desk: Desk) -> None:
    shown = int(re.search(r"Selected items: (\d+) of", desk.text())[1])
    with desk.page.expect_download() as waiting:
        desk.box.get_by_role("link", name=re.compile("as CSV")).click()
    assert pl.read_csv(Path(waiting.value.path())).height == shown
    answered(desk.page, WIDGET, lambda: desk.button("Save selection as CSV").click())
    (saved,) = desk.runs.rglob("inspector_selection.csv")
    assert pl.read_csv(saved).height == shown
    saved.unlink()
    answered(desk.page, WIDGET, lambda: desk.press(desk.button("Save selection as CSV"), "Enter"))
    assert saved.exists()


def test_errors_are_said_in_words_and_go_away(desk: Desk) -> None:
    answered(desk.page, WIDGET, lambda: desk.button("Clear selection").click())
    answered(desk.page, WIDGET, lambda: desk.button("Save selection as CSV").click())
    assert "nothing is selected: select items, then save again" in desk.box.inner_text()
    answered(desk.page, WIDGET, lambda: desk.press(desk.control("Code at level 1"), "ArrowDown"))
    assert desk.box.locator(".bb-error").count() == 0


def test_every_control_has_a_label(desk: Desk) -> None:
    unnamed = desk.box.locator("select, input, button").evaluate_all(
        "all => all.filter(one => one.offsetParent && !(one.labels?.length && one.labels[0].innerText.trim())"
        " && !one.innerText.trim() && !one.title && !one.ariaLabel).map(one => one.outerHTML)"
    )
    assert unnamed == []


def test_nothing_went_wrong_and_answers_were_quick(desk: Desk, capsys: pytest.CaptureFixture) -> None:
    median = 1000 * statistics.median(desk.times)
    with capsys.disabled():
        print(f"\ninspector: median of {len(desk.times)} answers {median:.0f} ms in the browser", end=" ")
        print(f"(last one {said_milliseconds(desk.page, WIDGET):.0f} ms in the kernel)")
    assert len(desk.times) > 12
    assert output_errors(desk.page) == []
    assert console_problems(desk.page) == []
    assert desk.page.outside == []


def whole_legends(desk: Desk) -> None:
    """Assert that every legend is shown whole, in the window."""
    height = desk.page.viewport_size["height"]
    for legend in desk.box.locator(".bb-legend").all():
        if legend.is_visible():
            assert legend.evaluate("one => one.scrollHeight - one.clientHeight") <= 1, legend.inner_text()
            assert legend.bounding_box()["y"] + legend.bounding_box()["height"] <= height


def one_screen(desk: Desk) -> None:
    """Assert that map and panels are in the window, side by side and whole."""
    size = desk.page.viewport_size
    places = {name: desk.box.locator(name).first.bounding_box() for name in ("canvas", ".bb-panels", ".bb-side")}
    for name, area in places.items():
        assert area["y"] >= 0, name
        assert area["y"] + area["height"] <= size["height"], name
        assert area["x"] + area["width"] <= size["width"], name
    assert places["canvas"]["x"] + places["canvas"]["width"] <= places[".bb-panels"]["x"], "nothing covers the map"
    drawn = desk.box.locator("canvas").first.evaluate("one => [one.width, one.height]")
    assert drawn == pytest.approx([places["canvas"]["width"], places["canvas"]["height"]], abs=1.5)
    assert min(drawn) > 200
    inside = "one => one.scrollWidth - one.clientWidth"
    assert desk.box.locator(".bb-panels").evaluate(inside) <= 0, "no panel is cut at its right"
    whole_legends(desk)


def test_the_same_page_through_voila(voila: Callable, chromium: Callable, desk: Desk) -> None:
    server = voila("inspector", "--dataset=planted-smoke", "--preset=smoke", f"--out={desk.runs}", "--theme=dark")
    page = chromium(1280, 800)
    page.goto(server.url)
    page.wait_for_selector(f"{WIDGET} canvas")
    page.locator(f"{WIDGET}.bb-dark").wait_for()
    page.wait_for_function(f"() => document.querySelector('{WIDGET} .bb-status')")
    time.sleep(1)
    here = Desk(page, desk.runs)
    assert bar(here) < 30
    one_screen(here)
    page.set_viewport_size({"width": 700, "height": 800})
    page.wait_for_timeout(800)
    one_screen(here)
    page.set_viewport_size({"width": 1280, "height": 800})
    here.does(here.control("Second map with its codes").click)
    page.wait_for_timeout(1500)
    assert here.box.locator(".bb-second canvas").first.bounding_box()["y"] == pytest.approx(
        here.box.locator("canvas").first.bounding_box()["y"], abs=1
    )
    whole_legends(here)
    here.does(here.control("Second map with its codes").click)
    here.does(lambda: here.control("Code at level 1").select_option(index=3))
    here.does(lambda: here.press(here.control("Code at level 1"), "ArrowUp"))
    here.does(lambda: here.control("Compare with").select_option("random-ids"))
    here.does(lambda: here.button("Clear selection").click())
    assert output_errors(page) == []
    assert console_problems(page) == []
    assert page.outside == []
