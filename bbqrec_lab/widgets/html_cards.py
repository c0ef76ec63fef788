"""Items as HTML: cards with image, title and ID chips, small tables, error messages. Pure functions of plain data.

Every function returns `Html`. All other input is text and is escaped, so a title can never become markup.
"""

import base64
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import matplotlib as mpl
import numpy as np
import polars as pl
from jaxtyping import Int
from PIL import Image

from bbqrec_core import SemanticIds
from bbqrec_lab import escaping
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.plots.style import ORDERED, Genre, genres, picture, title_and_year

TURNING = "[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"  # marks of direction, and of byte order
THUMBNAIL = 110  # pixels of the longer side
STYLE = """<style>
.bb { font: 13px/1.35 var(--jp-ui-font-family, system-ui, sans-serif); color: var(--jp-ui-font-color1, #222); }
.bb h4 { margin: 6px 0 4px; font-size: 13px; font-weight: 600; }
.bb p { margin: 3px 0; }
.bb-cards { display: flex; flex-wrap: wrap; gap: 8px; }
.bb-card { width: 116px; box-sizing: border-box; padding: 6px; border: 1px solid var(--jp-border-color1, #bbb);
  border-radius: 4px; background: var(--jp-layout-color1, #fff); font-size: 12px; line-height: 1.25; }
.bb-card img, .bb-card svg { display: block; height: 92px; max-width: 100%; margin: 0 auto 4px; object-fit: contain; }
.bb-title { font-weight: 600; overflow: hidden; display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical; min-height: 2.5em; overflow-wrap: anywhere; }
.bb-about { color: var(--jp-ui-font-color2, #555); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bb-note { margin-top: 2px; }
.bb-chips { display: inline-flex; gap: 2px; flex-wrap: wrap; }
.bb-chip { min-width: 1.4em; padding: 0 4px; border-radius: 8px; text-align: center; font-size: 11px; line-height: 16px;
  font-variant-numeric: tabular-nums; }
.bb-extra { background: none; border: 1px dashed var(--jp-ui-font-color2, #555); line-height: 14px; }
.bb-mini { display: flex; gap: 6px; align-items: center; margin: 3px 0; line-height: 1.2; }
.bb-mini img, .bb-mini svg { flex: none; width: 30px; height: 38px; object-fit: contain; }
.bb-mini > div { min-width: 0; }
.bb-line { display: block; font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bb-columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 4px 16px; }
.bb-columns > * { min-width: 0; }
.bb-key { display: inline-block; white-space: nowrap; margin-right: 10px; }
.bb-dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 3px; }
.bb-scroll { overflow-x: auto; }
.bb table { border-collapse: collapse; margin: 2px 0; font-size: 12px; }
.bb th, .bb td { padding: 2px 8px 2px 0; text-align: left; vertical-align: top; border: 0; background: none; }
.bb th { border-bottom: 1px solid var(--jp-border-color1, #bbb); font-weight: 600; }
.bb td.bb-number { text-align: right; font-variant-numeric: tabular-nums; }
.bb-error { padding: 6px 10px; border-left: 4px solid #b3261e; background: #fdecea; color: #5c0f0a; }
.bb-empty { color: var(--jp-ui-font-color2, #555); font-style: italic; }
</style>"""


class Html(str):
    """Text that is already HTML; any other text is escaped before display."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The data that the cards show for each item. Entry 0 of every field is padding.

    Args: titles: N+1, the title, or `item ID` if there is no title. source_ids: N+1, as in the bundle.
        code_ids: (N+1, sid_len). sizes: number of codes at each position. learned: number of positions that come from
        the codebook. images: N+1 image files or None. categories: N+1 tuples, empty if unknown.
        counts: (N+1,), training events.
    """

    titles: tuple[str, ...]
    source_ids: tuple[str, ...]
    code_ids: Int[np.ndarray, "N sid_len"]
    sizes: tuple[int, ...]
    learned: int
    images: tuple[str | None, ...]
    categories: tuple[tuple[str, ...], ...]
    counts: Int[np.ndarray, "N"]

    @cached_property
    def genres(self) -> list[Genre]:
        """The first category of each item and its colour."""
        return _genres(self.categories)

    @property
    def n_items(self) -> int:
        """N, without padding."""
        return len(self.titles) - 1


def catalogue(data: NamedDataset, ids: SemanticIds) -> Catalogue:
    """The items of a dataset under one set of semantic IDs.

    Raises: ValueError if the number of IDs differs from the number of items.
    """
    if len(ids.code_ids) != data.n_items + 1:
        raise ValueError(
            f"{len(ids.code_ids) - 1} semantic IDs for {data.n_items} items: they belong to another dataset"
        )
    titles, images = titles_and_images(data)
    categories = [tuple(map(str, names or ())) for names in data.items["categories"].to_list()]
    return Catalogue(
        titles=tuple(titles),
        source_ids=("", *map(str, data.items["item_id"].to_list())),
        code_ids=ids.code_ids,
        sizes=ids.sizes,
        learned=ids.learned,
        images=tuple(images),
        categories=((), *categories),
        counts=data.train_counts(),
    )


def text(value: object) -> Html:
    """Return any value as HTML: `Html` unchanged, all else escaped; floats with four significant digits."""
    if isinstance(value, Html):
        return value
    return Html(escaping.html(f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)))


@lru_cache(maxsize=4096)
def code_colour(code: int, size: int) -> tuple[str, str]:
    """Return background and text colour of a chip: the ordered colour map over 0 .. size - 1, with dark or light text.

    Choice: an ordered colour map is readable with every kind of colour vision; the number on the chip names the code.
    """
    red, green, blue, _ = mpl.colormaps[ORDERED](code / max(size - 1, 1))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    back = mpl.colors.to_hex((red, green, blue))
    return back, "#000000" if luminance > 0.179 else "#ffffff"  # where black and white letters have equal contrast


def chips(
    codes: Sequence[int] | Int[np.ndarray, "positions"], sizes: Sequence[int], learned: int, first: int = 0
) -> Html:
    """Draw a semantic ID, or a prefix of it, as one chip per code: the number on a coloured background.

    A chip of a learned position has `data-level` (from 1) and `data-code`, for scripts of the page.

    Args: codes: the first positions of an ID. sizes: number of codes at each position. learned: positions from this one
        on only number the items that share an ID, and get a plain chip. first: position of the first code.
    """
    shown = []
    for position, (code, size) in enumerate(zip(map(int, codes), sizes[first:], strict=False), first):
        if position < learned:
            back, letters = code_colour(code, size)
            style = f'class="bb-chip" style="background:{back};color:{letters}"'
            data = f'data-level="{position + 1}" data-code="{code}" title="level {position + 1}, code {code}"'
            shown.append(f"<span {style} {data}>{code}</span>")
        else:
            shown.append(f'<span class="bb-chip bb-extra" title="number {code} of this ID">{code}</span>')
    return Html(f'<span class="bb-chips">{"".join(shown)}</span>')


@lru_cache(maxsize=4096)
def thumbnail(file: str) -> str:
    """Return an image file as a small JPEG in a data URI; each file is read once per process."""
    target = io.BytesIO()
    Image.fromarray(picture(file, THUMBNAIL)).save(target, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()


def face(items: Catalogue, row: int) -> Html:
    """The image of an item, or a cover in the colour of its first category, with the title and the year."""
    title, file = items.titles[row], items.images[row]
    if file:
        return Html(f'<img src="{thumbnail(str(file))}" alt="image of {escaping.html(title)}">')
    name, year = title_and_year(title)
    genre, lines = items.genres[row], textwrap.wrap(name, 12, max_lines=4, placeholder="…")
    drawn = "".join(
        f'<text x="35" y="{30 + 12 * line}" text-anchor="middle" font-size="10" fill="#222">{part}</text>'
        for line, part in enumerate(map(escaping.html, lines))
    )
    return Html(
        f'<svg viewBox="0 0 70 92" role="img" aria-label="no image"><rect x="1" y="1" width="68" height="90" rx="4" '
        f'fill="{genre.pale}" stroke="{genre.colour}"/>'
        f'<rect x="1" y="1" width="68" height="12" rx="4" fill="{genre.colour}"/>{drawn}'
        f'<text x="35" y="85" text-anchor="middle" font-size="11" fill="#222">{year}</text></svg>'
    )


def card(items: Catalogue, row: int, note: object = "") -> Html:
    """One item: image, title, ID as chips, categories (or the source's id if unknown), and an optional note."""
    title = escaping.html(items.titles[row])
    about = ", ".join(items.categories[row]) or f"item {items.source_ids[row]}"
    last = f'<div class="bb-note">{text(note)}</div>' if str(note) else ""
    return Html(
        f'<div class="bb-card" data-row="{row}" title="{title}">{face(items, row)}<div class="bb-title">{title}</div>'
        f"{chips(items.code_ids[row], items.sizes, items.learned)}"
        f'<div class="bb-about">{escaping.html(about)}</div>{last}</div>'
    )


def mini(items: Catalogue, row: int, note: object = "") -> Html:
    """One item as one line: small image, title, ID as chips, and a note."""
    title = escaping.html(items.titles[row])
    last = f'<span class="bb-about">{text(note)}</span>' if str(note) else ""
    body = f'<span class="bb-line" title="{title}">{title}</span>'
    codes = chips(items.code_ids[row], items.sizes, items.learned)
    return Html(f'<div class="bb-mini" data-row="{row}">{face(items, row)}<div>{body}{codes} {last}</div></div>')


def columns(parts: Mapping[str, object]) -> Html:
    """Sections side by side, or below each other if there is not enough room."""
    return Html(f'<div class="bb-columns">{"".join(section(title, part) for title, part in parts.items())}</div>')


def card_row(
    items: Catalogue, rows: Iterable[int], notes: Sequence[object] = (), empty: str = "Nothing to show."
) -> Html:
    """Cards side by side, or the text `empty` if there are none.

    Args: notes: one per card, or none.
    """
    rows = [int(row) for row in rows]
    if not rows:
        return Html(f'<p class="bb-empty">{escaping.html(empty)}</p>')
    shown = [card(items, row, note) for row, note in zip(rows, notes or [""] * len(rows), strict=True)]
    return Html(f'<div class="bb-cards">{"".join(shown)}</div>')


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A small table; numbers are right-aligned."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Html(f'<div class="bb-scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def _cell(value: object) -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    kind = ' class="bb-number"' if number else ""
    return f"<td{kind}>{text(value)}</td>"


def section(title: str, *parts: object) -> Html:
    """A section of a view with a heading; every part that is not `Html` becomes a paragraph of text."""
    body = "".join(part if isinstance(part, Html) else f"<p>{text(part)}</p>" for part in parts)
    return Html(f"<section><h4>{escaping.html(title)}</h4>{body}</section>")


def error_panel(problem: object) -> Html:
    """An error message, or the text of an exception; its type is named unless it is `ValueError`."""
    kind = f"{type(problem).__name__}: " if isinstance(problem, Exception) and type(problem) is not ValueError else ""
    return Html(f'<div class="bb-error" role="alert">{escaping.html(kind + (str(problem) or "no message"))}</div>')


def page(*parts: object) -> Html:
    """Join parts into one piece of HTML that includes its style, for `ipywidgets.HTML` or `IPython.display.HTML`."""
    return Html(f'{STYLE}<div class="bb">{"".join(map(text, parts))}</div>')


def genres_of(data: NamedDataset) -> list[Genre]:
    """Per item row (0 is padding): the first category and its colour, for figures; cards have `Catalogue.genres`."""
    return _genres([(), *(names or () for names in data.items["categories"].to_list())])


def _genres(categories: Iterable[Sequence[object]]) -> list[Genre]:
    return genres([str(next(iter(names), "")) for names in categories])


def titles_and_images(data: NamedDataset) -> tuple[list[str], list[str | None]]:
    """Per item row (0 is padding): the title, or `item ID` if there is no title; and the image file or None.

    Titles are on one line, without the invisible signs that turn the text around them.
    """
    ids = pl.concat_str(pl.lit("item "), pl.col("item_id").cast(pl.String))
    title = pl.col("title").cast(pl.String).str.replace_all(TURNING, "").str.replace_all(r"\s+", " ")
    names = data.items.select(pl.coalesce(title.str.strip_chars().replace("", None), ids)).to_series().to_list()
    return ["", *names], [None, *data.items["image"].to_list()]
