"""Open a table of any layout: delimited text, JSON or Python-literal lines, parquet; one file or a folder of parts."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bbqrec_lab.datasets.importing.report import refused
from bbqrec_lab.datasets.importing.text_files import (
    COMPRESSED,
    FAULT,
    UNIT,
    as_object,
    json_copy,
    open_bytes,
    plain_suffix,
    records,
    sample,
    utf8_copy,
)
from bbqrec_lab.datasets.importing.times import recognise

_PARQUET, _JSON = (".parquet", ".pq"), (".json", ".jsonl", ".ndjson")
_TEXT = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".item", "")
ENDINGS = (*_PARQUET, *_JSON, *_TEXT[:-1])
_PROBED = 10_000  # rows that columns and types are guessed from
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", "::": "'::'", UNIT: "'::'", " ": "blanks"}


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Args: file: as given. path: what is scanned, the file or a copy of it. kind: text, json or parquet. probe: its first
        rows, as text unless it is parquet. separator, header, quoted: of text. encoding: of the file. literal: lines
        are Python literals. typed: columns of JSON whose sampled values are all numbers.
    """

    file: Path
    path: Path
    kind: str
    probe: pl.DataFrame
    separator: str = ""
    header: bool = True
    quoted: bool = True
    encoding: str = "utf-8"
    literal: bool = False
    typed: frozenset[str] = frozenset()

    @property
    def layout(self) -> str:
        """The layout in words."""
        if self.kind == "parquet":
            return "parquet"
        packed = f", {self.file.suffix.lower()[1:]}" if self.file.suffix.lower() in COMPRESSED else ""
        if self.kind == "json":
            return f"{'Python-literal' if self.literal else 'JSON'} lines{packed}"
        header = "header" if self.header else "no header"
        coded = "" if self.encoding.startswith("utf-8") else f", {self.encoding}"
        return f"text, {_NAMES[self.separator]} between fields, {header}{coded}{packed}"

    def scan(self, columns: Sequence[str], row: str = "") -> pl.LazyFrame:
        """The given columns lazily, and the column of faults; null where the file lacks one.

        Args: row: name of a column with the number of the record, from 0; empty for none.
        """
        names = list(self.probe.columns)
        if self.kind == "parquet":
            frame = pl.scan_parquet(self.path, glob=False, row_index_name=row or None)
        elif self.kind == "json":
            schema = dict.fromkeys([*names, FAULT], pl.String)
            frame = pl.scan_ndjson(self.path, schema=schema, row_index_name=row or None)
        else:
            frame = pl.scan_csv(
                self.path,
                has_header=self.header,
                separator=self.separator,
                quote_char='"' if self.quoted else None,
                schema=dict.fromkeys([*names, FAULT], pl.String),  # a field too many falls into the last
                missing_columns="insert",
                truncate_ragged_lines=True,
                row_index_name=row or None,
                glob=False,
            )
        absent = [name for name in columns if name not in names]
        absent += [FAULT] if self.kind == "parquet" else []
        frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
        return frame.select(*([row] if row else []), *columns, FAULT)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Line number and text of each record, in the order of the rows of a scan."""
        text = self.kind == "text"
        found = records(self.file, self.encoding, text and self.quoted, blank=text)  # polars reads blank lines as rows
        if text and self.header:
            next((line for line in found if line[1].strip()), None)
        return found

    def is_short(self, record: str) -> bool:
        """Whether a record of delimited text has fewer fields than the table has columns."""
        if self.kind != "text":
            return False
        if not self.quoted:
            separator = "::" if self.separator == UNIT else self.separator
            return record.count(separator) + 1 < self.probe.width
        return len(next(csv.reader([record], delimiter=self.separator), [])) < self.probe.width

    def places(self, rows: Sequence[int]) -> dict[int, tuple[int, str]]:
        """Line number (from 1) and text of rows of a scan; in parquet the number of the row, and no text."""
        if self.kind == "parquet":
            return {row: (row + 1, "") for row in rows}
        wanted, last = set(rows), max(rows)
        return {row: place for row, place in zip(range(last + 1), self.lines(), strict=False) if row in wanted}

    def what(self, short: bool) -> str:
        """What is wrong with a whole record."""
        if self.kind == "json":
            return "not an object in JSON"
        return "fewer fields than columns" if short else "more fields than columns"

    def mended(self, scratch: Path, columns: Sequence[str]) -> "Part":
        """The same part read from a copy in which bad lines are marked and the text is UTF-8."""
        copy = scratch / f"{len(list(scratch.iterdir()))}.copy"
        if self.kind == "json":
            json_copy(self.file, copy, columns)
            return replace(self, path=copy)
        encoding = utf8_copy(self.file, copy, self.encoding, "::" if self.separator in ("::", UNIT) else "")
        return replace(self, path=copy, encoding=encoding)


@dataclass(frozen=True)
class Table:
    """A table of one or more files. Args: name: for messages. parts: its files, in the order of their names."""

    name: Path
    parts: tuple[Part, ...]

    @property
    def probe(self) -> pl.DataFrame:
        """The first rows, with the columns of all parts."""
        frames = [part.probe.head(_PROBED // len(self.parts) + 100) for part in self.parts[:20]]
        return pl.concat(frames, how="diagonal_relaxed")

    @property
    def layout(self) -> str:
        """The layout in words."""
        words = self.parts[0].layout
        return f"{words}, {len(self.parts)} part files" if len(self.parts) > 1 else words

    @property
    def typed(self) -> bool:
        """Whether the values have the types of the file, as in parquet, and are not all text."""
        return self.parts[0].kind == "parquet"

    def scan(self, columns: Sequence[str]) -> pl.LazyFrame:
        """The given columns of all parts lazily, and the column of faults."""
        frames = [part.scan(columns) for part in self.parts]
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")

    def mended(self, scratch: Path, columns: Sequence[str]) -> "Table":
        """The table read from copies in which bad lines are marked and the text is UTF-8."""
        return replace(self, parts=tuple(part.mended(scratch, columns) for part in self.parts))


def open_table(files: Sequence[Path], name: Path, scratch: Path) -> Table:
    """Open files as one table.

    Raises: BundleError naming the file that cannot be read, with the remedy.
    """
    parts = [_open(file, scratch) for file in files]
    return Table(name, tuple(part for part in parts if part.probe.height) or tuple(parts[:1]))


def _open(file: Path, scratch: Path) -> Part:
    """Open one file by its ending and content."""
    suffix = plain_suffix(file)
    try:
        with open_bytes(file) as stream:
            magic = stream.read(4)
    except OSError as error:
        raise refused(file, f"cannot be read ({error})", "check that it is there and complete") from error
    if not magic:
        raise refused(file, "the file is empty", "write it again")
    if magic == b"PAR1" or suffix in _PARQUET:
        return _open_parquet(file)
    if magic[:2] in (b"PK", b"\xd0\xcf"):
        raise refused(file, "an archive or a workbook, not a table", "unpack it, or export the sheet as CSV")
    text, encoding = sample(file)
    first = text.lstrip("\ufeff \r\n")[:1]
    if first == "[" and suffix in _JSON:
        raise refused(file, "one JSON array", "store one object per line (`jq -c '.[]' FILE` does)")
    return _open_json(file, text, encoding) if first == "{" else _open_text(file, text, encoding, suffix, scratch)


def _open_parquet(file: Path) -> Part:
    try:
        probe = pl.scan_parquet(file, glob=False).head(_PROBED).collect()
    except _UNREADABLE as error:
        cause = (str(error).strip().splitlines() or ["damaged"])[0]
        raise refused(file, f"cannot be read as parquet ({cause})", "write it again, it may be truncated") from error
    return Part(file, file, "parquet", probe)


def _open_json(file: Path, text: str, encoding: str) -> Part:
    """JSON or Python-literal lines; columns are the names in the first lines."""
    rows, strict = [], 0
    for line in text.splitlines()[:_PROBED]:
        try:
            rows.append(as_object(line.strip()))
            strict += _is_json(line)
        except ValueError:
            continue  # counted when the whole file is read
    if not rows:
        raise refused(file, "no line is a JSON object or a Python dict", "store one object per line")
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    probe = pl.DataFrame(
        {name: [_as_text(row.get(name)) for row in rows] for name in names}, dict.fromkeys(names, pl.String)
    )
    typed = frozenset(n for n, column in values.items() if all(type(value) in (int, float) for value in column))
    return Part(file, file, "json", probe, encoding=encoding, literal=strict < len(rows), typed=typed)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _open_text(file: Path, text: str, encoding: str, suffix: str, scratch: Path) -> Part:
    """Delimited text: find separator, quotes and header."""
    if "\0" in text[:1000]:
        raise refused(file, "a binary file of no known layout", f"give a table ending in {', '.join(ENDINGS)}")
    lines = [line for line in text.split("\n") if line.strip()]
    fixed = {".inter": "\t", ".item": "\t"}.get(suffix)
    separator = fixed or _separator(lines[:100]) or {".csv": ",", ".tsv": "\t"}.get(suffix)  # a table of one column
    if not separator:
        raise refused(
            file, f"no separator found in its first line {lines[0][:60]!r}", "separate fields by commas or tabs"
        )
    edges = re.escape(separator)
    quoted = separator == "," or bool(re.search(f'(^|{edges})"[^"\n]*"({edges}|\r?$)', text, re.MULTILINE))
    if separator == "::":
        text, quoted = text.replace("::", UNIT), False
    field = UNIT if separator == "::" else separator
    options = {"separator": field, "quote_char": '"' if quoted else None, "infer_schema": False}
    content = io.BytesIO(text.encode())
    try:
        probe = pl.read_csv(content, has_header=False, truncate_ragged_lines=True, n_rows=_PROBED, **options)
    except pl.exceptions.PolarsError as error:
        raise refused(
            file, f"cannot be read as a table ({str(error).splitlines()[0]})", "check its first lines"
        ) from error
    probe = probe.filter(~pl.all_horizontal(pl.all().is_null()))
    header = suffix in (".inter", ".item") or _has_header(probe)
    if header:
        names = [(name or "").strip() for name in probe.row(0)]
        names = [name or f"column_{at}" for at, name in enumerate(names, start=1)]
        if len(set(names)) < len(names):
            raise refused(file, f"its header names a column twice: {', '.join(names)}", "rename one of them")
        probe = probe.slice(1).rename(dict(zip(probe.columns, names, strict=True)))
    else:
        probe = probe.rename({name: f"column_{at}" for at, name in enumerate(probe.columns, start=1)})
    part = Part(file, file, "text", probe, field, header, quoted, encoding)
    direct = separator != "::" and encoding.startswith("utf-8")
    return part if direct else part.mended(scratch, ())


def _separator(lines: Sequence[str]) -> str:
    """The mark that most lines have equally often, at least once."""
    for mark in ("::", "\t", ";", "|", ",", " "):
        counts = [line.count(mark) for line in lines]
        usual = max(set(counts), key=counts.count)
        if counts[0] and usual and (counts.count(usual) >= 0.6 * len(counts)):
            if mark in (";", "|") and lines[0].count(",") > lines[0].count(mark):
                continue  # a list inside a field
            return mark
    return "," if lines[0].count(",") else ""


def _has_header(probe: pl.DataFrame) -> bool:
    """Whether the first row has names: none of its cells is a number or a time."""
    cells = [cell.strip() for cell in probe.row(0) if cell and cell.strip()]
    numbers = pl.Series(cells, dtype=pl.String).cast(pl.Float64, strict=False).is_finite().any()
    return not numbers and all(recognise(pl.Series([cell])) is None for cell in cells)
