"""Cards show every item, with or without title and image, and never turn text into markup."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import items, write
from PIL import Image
from tiny import semantic_ids
from toys import toy_data

from bbqrec_lab.datasets.reading import read_bundle
from bbqrec_lab.plots import CATEGORIES, UNKNOWN_GENRE
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.widgets import html_cards

SIZES = (7, 7, 3)
EVIL = '<script>alert("x")</script> & more'


class Tags(HTMLParser):
    """Collect tags, attributes and text as an HTML parser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":  # the only tag without an end tag
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture
def shown(tmp_path: Path) -> html_cards.Catalogue:
    data = read_bundle(write(tmp_path / "five"), DataConfig())
    return html_cards.catalogue(data, semantic_ids(data.n_items, SIZES))


def row_of(shown: html_cards.Catalogue, source_id: str) -> int:
    return shown.source_ids.index(source_id)


def test_an_item_without_title_or_picture_still_has_a_full_card(shown: html_cards.Catalogue) -> None:
    row = row_of(shown, "12")
    page = Tags(html_cards.card(shown, row))
    assert "item 12" in "".join(page.text)
    assert [tag for tag, _ in page.tags].count("svg") == 1
    assert "img" not in dict(page.tags)
    numbers = [int(code) for code in re.findall(r">(\d+)</span>", html_cards.card(shown, row))]
    assert numbers == shown.code_ids[row].tolist()
    assert page.open == []


def test_a_card_without_a_picture_has_a_cover_with_title_year_and_the_colour_of_its_category(tmp_path: Path) -> None:
    table = items().with_columns(
        title=pl.lit("Star of the Seas (1997)"), categories=pl.Series([["b"], ["a"], ["b"], [], ["b"]]), image=None
    )
    data = read_bundle(write(tmp_path / "covers", table=table), DataConfig())
    shown = html_cards.catalogue(data, semantic_ids(data.n_items, SIZES))
    assert shown.genres == html_cards.genres_of(data)
    for row in range(1, 6):
        face = html_cards.face(shown, row)
        assert re.findall(r">([^<]+)</text>", face) == ["Star of the", "Seas", "1997"]
        first = {"b": CATEGORIES[0], "a": CATEGORIES[1], "": UNKNOWN_GENRE.colour}[shown.genres[row].name]
        assert face.count(first) == 2


def test_a_picture_becomes_a_small_inline_image(shown: html_cards.Catalogue) -> None:
    page = html_cards.card(shown, row_of(shown, "11"))
    (source,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (4, 3)
    assert "<svg" not in page
    assert 'alt="image of beech"' in page


def test_large_pictures_are_cut_down(tmp_path: Path) -> None:
    Image.new("RGB", (1200, 400), "red").save(tmp_path / "large.png")
    data = base64.b64decode(html_cards.thumbnail(str(tmp_path / "large.png")).partition(",")[2])
    assert max(Image.open(io.BytesIO(data)).size) == html_cards.THUMBNAIL


def test_categories_or_else_the_source_id_stand_below(shown: html_cards.Catalogue) -> None:
    assert "tree, wood" in html_cards.card(shown, row_of(shown, "12"))
    assert "item 14" in html_cards.card(shown, row_of(shown, "14"))


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    bundle = write(tmp_path / "evil", table=items().with_columns(title=pl.lit(EVIL), categories=pl.lit([EVIL])))
    data = read_bundle(bundle, DataConfig())
    shown = html_cards.catalogue(data, semantic_ids(data.n_items, SIZES))
    page = html_cards.page(
        html_cards.section(EVIL, EVIL, html_cards.card_row(shown, range(1, 6), [EVIL] * 5)),
        html_cards.table([EVIL], [[EVIL]]),
        html_cards.error_panel(EVIL),
        html_cards.card_row(shown, [], empty=EVIL),
        EVIL,
    )
    parsed = Tags(page.removeprefix(html_cards.STYLE))
    assert "script" not in dict(parsed.tags)
    assert parsed.open == []
    assert "".join(parsed.text).count(EVIL) == 5 * 3 + 4 + 7  # four covers, in lines


def test_a_bundle_of_bare_ids_gives_cards_too(tmp_path: Path) -> None:
    table = items().select("item_id")
    data = read_bundle(write(tmp_path / "bare", table=table), DataConfig())
    shown = html_cards.catalogue(data, semantic_ids(data.n_items, SIZES))
    assert set(shown.titles[1:]) == {f"item {number}" for number in table["item_id"]}
    assert Tags(html_cards.card_row(shown, range(1, 6))).open == []


def test_catalogue_follows_the_item_rows(tmp_path: Path, shown: html_cards.Catalogue) -> None:
    data = read_bundle(tmp_path / "five", DataConfig())
    for row, (number, title) in enumerate(data.items.select("item_id", "title").iter_rows(), 1):
        assert shown.source_ids[row] == str(number)
        assert shown.titles[row] == (title or f"item {number}")
    assert np.array_equal(shown.counts, data.train_counts())
    assert shown.n_items == 5
    with pytest.raises(ValueError, match="9 semantic IDs for 5 items"):
        html_cards.catalogue(data, semantic_ids(9, SIZES))


def test_chips_are_coloured_by_code_and_always_numbered() -> None:
    page = Tags(html_cards.chips([2, 2, 5], SIZES, learned=2))
    assert page.text == ["2", "2", "5"]
    styles = [attrs.get("style") for _, attrs in page.tags]
    assert styles[1] == styles[2] is not None
    assert html_cards.code_colour(2, 7) != html_cards.code_colour(3, 7)
    assert [(attrs["data-level"], attrs["data-code"]) for _, attrs in page.tags[1:-1]] == [("1", "2"), ("2", "2")]
    assert "data-code" not in page.tags[-1][1], "a number that tells equal IDs apart is no code"
    assert "bb-extra" in page.tags[-1][1]["class"]
    assert "style" not in page.tags[-1][1]
    assert Tags(html_cards.chips([4], SIZES, learned=2)).text == ["4"]  # a prefix


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("size", [1, 2, 256])
def test_chips_can_be_read_on_every_colour(size: int) -> None:
    for code in range(size):
        dark, light = sorted(map(_luminance, html_cards.code_colour(code, size)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG contrast of small text"


def test_notes_are_one_a_card(shown: html_cards.Catalogue) -> None:
    assert "p 0.25" in html_cards.card_row(shown, [2, 3], ["p 0.5", "p 0.25"])
    with pytest.raises(ValueError, match="shorter"):
        html_cards.card_row(shown, [2, 3], ["p 0.5"])


def test_tables_keep_chips_and_align_numbers() -> None:
    page = html_cards.table(["ID", "items", "share"], [[html_cards.chips([1], SIZES, 2), 12, 0.123456]])
    assert "bb-chip" in page
    assert '<td class="bb-number">12</td><td class="bb-number">0.1235</td>' in page
    assert Tags(page).open == []


def test_errors_say_what_happened() -> None:
    assert "KeyError: 'lost'" in Tags(html_cards.error_panel(KeyError("lost"))).text
    assert Tags(html_cards.error_panel(ValueError("give a prefix"))).text == ["give a prefix"]
    assert "RuntimeError: no message" in Tags(html_cards.error_panel(RuntimeError())).text
    assert 'role="alert"' in html_cards.error_panel("x")


def test_titles_are_on_one_line_without_signs_that_turn_the_text() -> None:
    data = toy_data([[1, 2, 3]], 4)
    titles = ["First\nsecond\t line ", "\u202eturned", "\ufeff \u2066", None]
    table = data.items.with_columns(title=pl.Series(titles, dtype=pl.String), image=pl.lit(None, pl.String))
    names, _ = html_cards.titles_and_images(replace(data, items=table))
    assert names == ["", "First second line", "turned", "item 3", "item 4"]
