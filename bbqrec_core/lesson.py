"""What a notebook says to its reader beside figures: tables, what to notice, and checks of exercises."""

from pathlib import Path

import numpy as np
import polars as pl

from . import tables
from .data import Dataset

NOT_YET = "Not answered yet: put your answer in place of None and run the cell again."


def faces(data: Dataset) -> tuple[list[str], list[str | None]]:
    """By item row (0 is padding): the title, or the source's id where there is none; and the picture file or None."""
    ids = pl.concat_str(pl.lit("item "), pl.col("item_id").cast(pl.String))
    names = data.items.select(pl.coalesce(pl.col("title").cast(pl.String), ids)).to_series().to_list()
    return ["", *names], [None, *data.items["image"].to_list()]


def notice(*points: str) -> None:
    """Display what to notice in the picture above, one bullet a point; points quote numbers of this very run."""
    _say("\n".join(["**What to notice.**", "", *(f"- {point}" for point in points)]))


def show_table(
    frame: pl.DataFrame,
    name: str,
    folder: str | Path,
    caption: str,
    most: int = 40,
    shown: pl.DataFrame | None = None,
) -> None:
    """Save a table by `tables.save_table` and display its first `most` rows, or what is `shown` instead."""
    shown = frame.head(most) if shown is None else shown
    tables.save_table(frame, name, folder, caption, shown)
    _say(tables.markdown(shown, caption))


def verdict(answer: object, right: object, tolerance: float = 0.0) -> str:
    """What to tell a reader about an answer: not there yet, right, or to look again; never the right answer itself.

    Args: answer: None, a number, a text or a list of them. tolerance: allowed difference of numbers.
    """
    if answer is None:
        return NOT_YET
    asked, given = np.atleast_1d(np.asarray(right)), np.atleast_1d(np.asarray(answer))
    if asked.shape != given.shape:
        return f"Look again: {len(asked)} values were asked for, this is {len(given)}."
    if asked.dtype.kind in "US" or given.dtype.kind in "US":
        same = np.char.lower(asked.astype(str)) == np.char.lower(given.astype(str))
    else:
        same = np.abs(asked.astype(float) - given.astype(float)) <= tolerance
    return "Right." if same.all() else f"Look again: {int(same.sum())} of {len(same)} right."


def check(answer: object, right: object, tolerance: float = 0.0) -> None:
    """Display the verdict on an answer to an exercise."""
    _say(f"*{verdict(answer, right, tolerance)}*")


def solve(answer: object, right: object, tolerance: float = 0.0) -> None:
    """Display the answer of a solved exercise with its verdict.

    Raises: AssertionError if the check of the exercise would not take it.
    """
    said = verdict(answer, right, tolerance)
    assert said == "Right.", f"{answer!r}: {said}"
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in np.atleast_1d(answer).tolist()]
    _say(f"*Answer: {', '.join(shown)}. {said}*")


def _say(text: str) -> None:
    from IPython.display import Markdown, display

    display(Markdown(text))
