"""What commands print: a table for people, or the same rows as JSON."""

import os
import sys
from typing import TYPE_CHECKING

from bbqrec_lab import escaping

if TYPE_CHECKING:
    import polars as pl


def print_rows(frame: "pl.DataFrame", caption: str, as_json: bool, shown: "pl.DataFrame | None" = None) -> None:
    """Print a frame on standard output.

    Args: as_json: print a list with one object per row instead of a table. shown: columns of the table, if fewer.
    """
    from bbqrec_lab.experiments import tables

    if as_json:
        tables.show_json(frame)
    else:
        tables.show(frame if shown is None else shown, caption)


def print_json(content: object) -> None:
    """Print JSON on standard output."""
    print(escaping.json(content))


def open_streams() -> None:
    """Give closed or missing standard streams (`>&-`) to the null device, before a file of ours takes their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def let_go_of_output() -> None:
    """Send what standard output cannot take (a closed pipe, a full disk) nowhere, so that Python ends quietly."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def accept_all_letters() -> None:
    """Write letters that a pipe or terminal cannot encode as `\\xe9` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
