"""The house style of all figures, functions that save and show a figure, and parts that several figures share."""

import io
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import seaborn as sns
from jaxtyping import Bool, Float, Num, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from bbqrec_lab import escaping
from bbqrec_lab.datasets.pictures import read_picture
from bbqrec_lab.store import write_atomic

WIDTH, HEIGHT = 5.0, 3.2  # inches, of one panel
WIDEST = 7.1  # inches of a whole figure: the book shows up to 688 pixels in a window of 1280, 96 to the inch
SMALLEST = 8  # points: no text of a figure is smaller
BROWN, VIOLET = "#8c5a2b", "#4b3f99"  # in place of two colours of the palette that are too pale for a marker
CATEGORIES = (*sns.color_palette("colorblind", 5).as_hex(), BROWN, VIOLET, "#949494")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))
KINDS = {  # name -> category: what has one of these names looks the same in every figure
    **{"main": 0, "baseline": 1, "control": 2, "ablation": 3, "ceiling": 4},  # groups of variants
    **{"bbqrec": 0, "tiger": 1, "random-ids": 2, "whole": 0},  # a variant drawn alone for its group
    **{"only bbqrec": 0, "only the baseline": 1, "both": 4, "neither": 7},  # whose target is found
    **{"seen items included": 5, "seen items filtered": 6},  # ways to rank
    **{"none": 7, "nearest": 5, "sinkhorn": 4, "extra": 6},  # repairs of IDs
}
GREY, INK = "0.78", "0.25"  # GREY: everything not highlighted; INK: reference lines and notes
RASTER = 1500  # a scatter with more points is stored as pixels inside the SVG
ORDERED, SIGNED = "cividis", "PuOr"  # colour maps; centre SIGNED on zero
OTHER_SCRIPTS = (  # fonts for letters that the first font lacks; the installed ones are used
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC"),
    *("Hiragino Sans", "Microsoft YaHei", "MS Gothic", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Sans Thai"),
    *("Noto Sans Devanagari", "Noto Sans Arabic", "Noto Sans Hebrew", "Nirmala UI", "Leelawadee UI", "Thonburi"),
    *("FreeSans", "Arial Unicode MS", "Noto Emoji", "Symbola", "Segoe UI Emoji", "Segoe UI Symbol", "Unifont"),
)
_LONG = re.compile(r"(?<![\d.])\d{4,}")  # the whole part of a number from 1,000
_NO_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
_boxed: set[str] = set()  # letters without a glyph that a notebook has named


def use_house_style() -> None:
    """Set matplotlib's defaults for all figures; no other code changes them. The user's choice of fonts stays."""
    fonts = {name: list(mpl.rcParams[name]) for name in ("font.family", "font.sans-serif", "font.serif")}
    installed = set(font_manager.get_font_names())
    others = [name for name in OTHER_SCRIPTS if name in installed and name not in fonts["font.family"]]
    mpl.rcdefaults()
    mpl.rcParams.update(
        fonts
        | {
            "font.family": [*fonts["font.family"], *others],
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=CATEGORIES),
            "image.cmap": ORDERED,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "savefig.dpi": 200,
            "text.parse_math": False,  # a dollar sign of a title begins no formula
            "svg.hashsalt": "bbqrec",  # otherwise the ids inside an SVG differ from run to run
        }
    )


def caption(what: str, data: str, finding: str, seeds: int = 0) -> str:
    """The caption of a figure: what it shows, the data, the number of trained seeds (0: none), and one finding."""
    trained = {0: "", 1: ", 1 seed"}.get(seeds, f", {seeds} seeds")
    sentences = (what, f"Data: {data}{trained}", f"Finding: {finding}")
    return " ".join(f"{sentence.strip().rstrip('.')}." for sentence in sentences)


def save_figure(fig: Figure, name: str, folder: str | Path, text: str) -> Path:
    """Write `folder/name.png` (200 dpi) and `folder/name.svg`; equal pictures give equal bytes.

    Args: text: the caption; it becomes the title of the SVG and the description of the PNG, for screen readers.
    Returns: the path of the PNG.
    Raises: ValueError for an empty caption.
    """
    path, letters = _write(fig, name, folder, text)
    if letters:
        warnings.warn(_told_of_boxes(letters), UserWarning, stacklevel=2)
    return path


def _write(fig: Figure, name: str, folder: str | Path, text: str) -> tuple[Path, set[str]]:
    """`save_figure`, and the letters that no installed font has."""
    if not text.strip():
        raise ValueError(f"figure {name!r} has the caption {text!r}: describe the figure, use plots.caption")
    folder, text = Path(folder), escaping.one_line(text)
    notes = {"png": {"Software": None, "Description": text}, "svg": {"Date": None, "Creator": None, "Title": text}}
    for suffix, metadata in notes.items():
        target = io.BytesIO()
        letters = _draw(fig, target, format=suffix, metadata=metadata)
        write_atomic(folder / f"{name}.{suffix}", target.getvalue())
    return folder / f"{name}.png", letters


def _draw(fig: Figure, target: io.BytesIO, **options: object) -> set[str]:
    """Write a figure; returns the letters without a glyph, for which matplotlib would warn one by one."""
    for shown in fig.findobj(Text):
        shown.set_text(escaping.printable(shown.get_text()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fig.savefig(target, **options)
    letters = set()
    for warning in caught:
        if found := _NO_GLYPH.search(str(warning.message)):
            letters.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return letters


def show_figure(fig: Figure, name: str, folder: str | Path, text: str) -> None:
    """Save a figure and display the saved file in the notebook, with its caption below."""
    from IPython.display import Image, Markdown, display

    path, letters = _write(fig, name, folder, text)
    display(Image(path.read_bytes(), format="png", width=int(fig.get_figwidth() * 110), alt=escaping.one_line(text)))
    display(Markdown(f"*{escaping.markdown(text)}*"))
    if new := letters - _boxed:
        _boxed.update(new)
        display(Markdown(f"*{escaping.markdown(_told_of_boxes(new))}*"))


def _told_of_boxes(letters: set[str]) -> str:
    some = "".join(sorted(letters)[:8])
    return (
        f"Boxes stand for {len(letters)} letters that no installed font has ({some}): install fonts such as Noto Sans."
    )


class Thousands(ScalarFormatter):
    """Numbers of a linear axis with thousands separators, without a common offset or power of ten."""

    def __init__(self) -> None:
        super().__init__(useOffset=False)
        self.set_powerlimits((-9, 15))

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick at `x`."""
        return _LONG.sub(lambda found: f"{int(found[0]):,}", super().__call__(x, pos), count=1)


def panels(columns: int, rows: int = 1, *, width: float = 3.4, height: float = 3.0, **options: object) -> tuple:
    """A figure of equal panels and its axes as an array (rows, columns); sizes in inches per panel.

    The whole is at most `WIDEST`, so that the book never shrinks its text.

    Args: options: of `Figure.subplots`, for example `sharex` and `sharey`.
    """
    fig = Figure(figsize=(min(width * columns, WIDEST), height * rows), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(Thousands())
            axis.isDefault_majfmt = True  # an axis of words replaces it
    return fig, axes


def look(index: int, *, line: bool = True) -> dict[str, object]:
    """Colour, marker and, for lines, dash of category `index` (below 8); colour is never the only difference.

    Raises: ValueError for an index outside the available categories.
    """
    if not 0 <= index < len(CATEGORIES):
        raise ValueError(f"category {index}: at most {len(CATEGORIES)} exist; highlight a few, draw the others grey")
    dash = {"linestyle": DASHES[index]} if line else {}
    return {"color": CATEGORIES[index], "marker": MARKERS[index]} | dash


def categories(names: Iterable[str]) -> dict[str, int]:
    """The category of each name, for `look`: that of `KINDS`, and for other names the first that is free."""
    names = list(dict.fromkeys(names))
    found = {name: KINDS[name] for name in names if name in KINDS}
    free = (index for index in count() if index not in found.values())
    rest = {name: next(free) for name in names if name not in found}
    return {name: (found | rest)[name] for name in names}


def looks(names: Iterable[str], *, line: bool = True) -> dict[str, dict[str, object]]:
    """The look of each name: one colour and marker for a group of variants in the whole suite.

    Raises: ValueError for more names than categories.
    """
    return {name: look(index, line=line) for name, index in categories(names).items()}


def short(text: object, length: int = 24, lines: int = 1) -> str:
    """Text for a figure: wrapped to `lines` of `length` letters, cut with an ellipsis."""
    kept = textwrap.wrap(str(text), length, max_lines=lines, placeholder="…", break_on_hyphens=False)
    return escaping.printable("\n".join(kept))


def log_counts(ax: Axes, which: str = "xy") -> None:
    """Make axes logarithmic, with plain numbers (1, 10, 1,000) as labels; call it after drawing."""
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        if name in which:
            getattr(ax, f"set_{name}scale")("log")
            low, high = sorted(getattr(ax, f"get_{name}lim")())
            steps = (1, 3) if high < 400 * low else (1,)
            if high < 40 * low:
                steps = (1, 2, 5)
            axis.set_major_locator(LogLocator(subs=steps, numticks=6))
            axis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}")
            )
            axis.set_minor_formatter(NullFormatter())


def legend_below(fig: Figure, ax: Axes, columns: int = 4) -> None:
    """One legend for the whole figure, outside the panels, so it covers nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        fig.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)))


def lines(
    ax: Axes, x: Sequence[float], series: dict[str, Num[np.ndarray, "_"]], xlabel: str, ylabel: str, *, each: int = 10
) -> None:
    """Draw at most 8 named lines over common x, each with its own colour, dash and marker (about `each` per line)."""
    styles = looks(series)
    for name, values in series.items():
        ax.plot(x, values, label=name, markersize=3, markevery=max(1, len(x) // each), **styles[name])
    ax.set(xlabel=xlabel, ylabel=ylabel)


def highlight(ax: Axes, plane: Float[np.ndarray, "R 2"], groups: dict[str, Bool[np.ndarray, "R"]]) -> None:
    """Scatter all points in grey and at most eight named groups in colour, each with its own marker.

    Small groups are drawn over large ones, and those of few points with larger marks: otherwise nobody sees them.
    The axes are hidden, because directions and distances of a projection have no unit.
    """
    many, size = len(plane) > RASTER, float(np.clip(20_000 / len(plane), 4, 22))
    ax.scatter(*plane.T, s=size / 2, color=GREY, linewidths=0, rasterized=many)
    for index, (name, member) in enumerate(groups.items()):
        style, share = look(index, line=False), member.sum() / max(len(plane), 1)
        style |= {"s": size * (2.5 if share < 0.02 else 1), "zorder": 2 + 1 - share}
        ax.scatter(*plane[member].T, label=name, linewidths=0, rasterized=many, **style)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def picture(file: str | Path, pixels: int = 160) -> UInt8[np.ndarray, "height width 3"]:
    """A picture file as an RGB array, at most `pixels` high and wide; see `read_picture`."""
    small = read_picture(file)
    small.thumbnail((pixels, pixels))
    return np.asarray(small)


def title_and_year(title: str) -> tuple[str, str]:
    """A title without the year in brackets at its end, and this year, or an empty text."""
    found = re.fullmatch(r"(.*\S)\s*\((\d{4})\)\s*", title, re.DOTALL)
    return found.groups() if found else (title, "")


class Genre(NamedTuple):
    """The first category of an item, empty if unknown, and its colour."""

    name: str
    colour: str

    @property
    def pale(self) -> str:
        """The colour as a background of black letters."""
        return mpl.colors.to_hex(1 - 0.25 * (1 - np.array(mpl.colors.to_rgb(self.colour))))


UNKNOWN_GENRE = Genre("", CATEGORIES[0])


def genres(categories: Sequence[str]) -> list[Genre]:
    """Name and colour of each item's first category; the six most frequent ones have a colour of their own.

    Args: categories: of all items of a dataset, so that a category has one colour in all of its figures and cards.
    """
    order = sorted(Counter(filter(None, categories)).items(), key=lambda counted: (-counted[1], counted[0]))
    place = {name: min(rank, 6) for rank, (name, _) in enumerate(order)}  # the eighth colour would be grey
    return [Genre(name, CATEGORIES[place[name]]) if name else UNKNOWN_GENRE for name in categories]


def card(ax: Axes, title: str, file: str | None, *, frame: str = GREY, genre: Genre = UNKNOWN_GENRE) -> None:
    """Draw one item: its picture below its title, or a cover in the colour of its category with title and year."""
    if file:
        ax.imshow(picture(file), interpolation="antialiased")
        ax.set_title(short(title, 15, 2), fontsize=SMALLEST, loc="center")
    else:
        name, year = title_and_year(title)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", facecolor=genre.pale)
        ax.axhspan(0.9, 1, color=genre.colour, linewidth=0)
        ax.text(0.5, 0.56, short(name, 13, 4), ha="center", va="center", color="black", fontsize=SMALLEST)
        about = [part for part in (year, short(genre.name, 12)) if part]
        ax.text(0.5, 0.05, "\n".join(about), ha="center", va="bottom", color=INK, fontsize=SMALLEST)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color=frame, linewidth=1)
