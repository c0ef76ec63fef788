"""What an import understood, dropped and passed over, as one table; and its errors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl

from bbqrec_lab.datasets.bundle import BundleError

SHOWN = 5  # bad rows that are shown; the rest are counted


class Understood(NamedTuple):
    """A field of the bundle, the column it comes from, and how its values are read."""

    field: str
    column: str
    how: str


class BadRow(NamedTuple):
    """A row that cannot be read: file, line (from 1; row from 1 in parquet), column, value, and what is wrong."""

    file: Path
    line: int
    column: str
    value: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: line {self.line}{', ' if self.column else ': '}{self.fault}"

    @property
    def fault(self) -> str:
        """Column, what is wrong, and the value."""
        return f"{f'column {self.column}: ' if self.column else ''}{self.what}: {self.value[:80]!r}"


@dataclass
class ImportReport:
    """The result of an import.

    Args: folder: of the bundle. understood: fields and the columns they come from. counts: what was read, dropped and
        kept, by reason. bad: the first bad rows. passed_over: columns and files that were not used, with the reason.
    """

    folder: Path
    understood: list[Understood] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)

    def table(self) -> pl.DataFrame:
        """One table of text with the columns what, from and how."""
        rows = [(name, f"<- {column}", how) for name, column, how in self.understood]
        rows += [(what, "", str(count)) for what, count in self.counts.items() if count]
        rows += [("bad row", f"{row.file.name}, line {row.line}", row.fault) for row in self.bad]
        rows += [("passed over", name, reason) for name, reason in self.passed_over]
        return pl.DataFrame(rows, schema=dict.fromkeys(("what", "from", "how"), pl.String), orient="row")

    def __str__(self) -> str:
        return "\n".join(
            " ".join(f"{what} {origin}{', ' * bool(origin)}{how}".split())
            for what, origin, how in self.table().iter_rows()
        )


def refused(file: Path | str, what: str, remedy: str) -> BundleError:
    """The error `file: what; remedy`, on one line."""
    return BundleError(" ".join(f"{file}: {what}; {remedy}".split()))
