"""What an encoder reads of an item: texts without markup, titles where texts lack, no placeholders."""

import polars as pl
import pytest

from bbqrec_lab.datasets import content


def series(*texts: str | None) -> pl.Series:
    return pl.Series("text", texts, dtype=pl.String)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Salt &amp; Pepper <b>Mill</b>", "Salt & Pepper Mill"),
        ("<img src=x onerror=alert(1)> <span id=a>Tea</span>\nno. 1", "Tea no. 1"),
        ("&lt;b&gt;Tea&lt;/b&gt;", "Tea"),
        ("Tea<script>alert('<b>')</script><!-- old -->", "Tea"),
        ("a < b and c > d", "a < b and c > d"),
        ("AT&T, 5 > 4", "AT&T, 5 > 4"),
        ("two\n lines", "two\n lines"),
    ],
)
def test_markup_is_left_out_and_other_texts_stay_as_they_are(text: str, seen: str) -> None:
    assert content.plain(series(text, None)).to_list() == [seen, None]


@pytest.mark.parametrize(
    "text",
    [
        *("no description", "No Description Available.", "N/A", "n/a.", "--", "...", "—", "None", "(none)", " "),
        *("<p></p>", "&nbsp;", "<div><br/></div>", "暂无描述", "Keine Beschreibung", "Lorem ipsum dolor"),
    ],
)
def test_a_text_that_says_nothing_is_a_placeholder(text: str) -> None:
    assert content.is_placeholder(series(text)).to_list() == [True]


@pytest.mark.parametrize(
    "text", ["7", "绿茶", "🍵🫖", "Nana", "no description of war", "C++", "<b>Tea</b>", "ชา", None]
)
def test_a_text_that_says_something_is_none(text: str | None) -> None:
    assert content.is_placeholder(series(text)).to_list() == [False]


def test_titles_and_categories_stand_in_for_texts_item_by_item() -> None:
    rows = [
        ("Tea", "A green tea", ["drinks"]),
        ("Cup", None, ["kitchen", "blue"]),
        ("Pot", "n/a", None),
        ("n/a", None, ["garden"]),
        (None, None, None),
        ("-", None, ["none"]),
    ]
    schema = {"title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
    found = content.texts_to_encode(pl.DataFrame(rows, schema=schema, orient="row"))
    assert found.to_list() == ["A green tea", "Cup. kitchen, blue", "Pot", "garden", None, None]


@pytest.mark.parametrize(("pictured", "limit"), [(1, 5), (100, 5), (300, 15), (1_000_000, 100)])
def test_variants_may_share_a_picture_but_a_twentieth_of_the_shop_may_not(pictured: int, limit: int) -> None:
    assert content.shared_limit(pictured) == limit
