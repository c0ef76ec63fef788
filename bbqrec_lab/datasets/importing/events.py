"""The interactions of a bundle: one streaming pass types ids, times and ratings, and sets bad rows aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.importing.columns import EVENT_ROLES, Columns, require
from bbqrec_lab.datasets.importing.report import SHOWN, BadRow, ImportReport, Understood, refused
from bbqrec_lab.datasets.importing.tables import Part, Table
from bbqrec_lab.datasets.importing.text_files import FAULT
from bbqrec_lab.datasets.importing.times import HALF, TimeForm, recognise, settle

MISSING = ("", "null", "NULL", "None", "NaN", "nan", "NA", "N/A", "\\N")  # texts that mean no value
_PACKED = {
    "compression": "zstd",
    "compression_level": 1,
    "row_group_size": 2**20,
}  # groups of 120,000 cost a third more
ONE_IN = 1000  # more than one bad row in a thousand (and more than one) stops the import
_FIELDS = {"user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating"}
_PART, _ROW, _ODD = "__part", "__row", "__odd"  # of a row that is set aside: its file, its record, an empty last field
_NULL, _BLANK, _SHORT, _RECORD = "null ", "blank", "short", "record"  # kinds of dropped rows; others are field names


@dataclass(frozen=True)
class Ids:
    """How a column of ids is read. Args: dtype: of the column. whole: as integers, if every text is one.

    An integer in text counts only if it reads back unchanged: 007, +7 and 1e3 are texts.
    """

    column: str
    dtype: Any
    whole: bool
    trimmed: bool = False

    def raw(self) -> pl.Expr:
        """The values as text, null if missing."""
        text = pl.col(self.column).cast(pl.Binary).cast(pl.String) if self.dtype == pl.Binary else pl.col(self.column)
        text = text.cast(pl.String)
        text = text.str.strip_chars() if self.trimmed else text
        return pl.when(~text.is_in(MISSING)).then(text)

    def read(self) -> pl.Expr:
        """The ids; null if missing, or if they are not integers where integers are expected."""
        column = pl.col(self.column)
        if self.dtype.is_integer() and self.whole:
            return column
        if self.dtype.is_float():
            whole = column.cast(pl.Int64, strict=False)
            same = pl.when(whole == column).then(whole)
            return same if self.whole else same.cast(pl.String)
        if not self.whole:
            return self.raw()
        text = column.str.strip_chars() if self.trimmed else column
        changed = (text.str.starts_with("0") & (text != "0")) | text.str.starts_with("+") | text.str.starts_with("-0")
        return pl.when(~changed).then(text.cast(pl.Int64, strict=False))

    @property
    def words(self) -> str:
        """The type for the report."""
        return "integers" if self.whole else "text"


def id_column(table: Table, column: str) -> Ids:
    """How the ids of a column are read, by the first rows.

    Choice: integers in CSV become integers; in JSON and parquet, ids keep the type of the file.
    """
    values = table.probe[column]
    dtype = values.dtype
    if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean:
        raise refused(table.name, f"column {column} cannot be an id, its type is {dtype}", "name another column")
    if dtype.is_integer():
        return Ids(column, dtype, True)
    if dtype.is_float():
        known = values.drop_nulls()
        fits = (known == known.round()).all() and (known.abs() < 2.0**53).all()
        if not fits:
            raise refused(
                table.name, f"column {column} cannot be an id, it has numbers with a fraction", "name another column"
            )
        return Ids(column, dtype, True)
    if dtype != pl.String:
        return Ids(column, dtype, False)
    kinds = {part.kind for part in table.parts}
    trimmed = bool((values != values.str.strip_chars()).any())
    known = values.str.strip_chars()
    known = known.filter(~known.is_in(MISSING) & known.is_not_null())
    whole = len(known) > 0 and (known.cast(pl.Int64, strict=False).cast(pl.String) == known).fill_null(False).all()
    if kinds == {"json"}:
        whole = whole and all(column in part.typed for part in table.parts)
    if kinds == {"parquet"}:
        whole = False
    return Ids(column, dtype, bool(whole), trimmed)


@dataclass(frozen=True)
class EventPlan:
    """How the columns of a table become interactions. Args: rating: its column, or empty."""

    table: Table
    user: Ids
    item: Ids
    time_column: str
    time: TimeForm
    rating: str

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [self.user.column, self.item.column, self.time_column, *([self.rating] if self.rating else [])]

    def dtype(self, column: str) -> Any:
        """Type of a column in the file."""
        return self.table.probe[column].dtype

    def fields(self) -> dict[str, pl.Expr]:
        """The expression of every field; a row with a fault of its own has no item."""
        item = self.item.read()
        if not self.table.typed:
            item = pl.when(pl.col(FAULT).is_null()).then(item)
        found = {
            "user_id": self.user.read(),
            "item_id": item,
            "timestamp": self.time.read(self._clean_time(), self.dtype(self.time_column)),
        }
        if self.rating:
            found["rating"] = pl.col(self.rating).cast(pl.Float32, strict=False)
        return found

    def _clean_time(self) -> pl.Expr:
        column, values = pl.col(self.time_column), self.table.probe[self.time_column]
        blanks = values.dtype == pl.String and (values != values.str.strip_chars()).any()
        return column.str.strip_chars() if blanks else column

    def missing(self) -> dict[str, pl.Expr]:
        """Per field, whether its value is missing in the file."""
        raw = {"user_id": self.user.column, "item_id": self.item.column, "timestamp": self.time_column}
        return {name: _is_missing(column, self.dtype(column)) for name, column in raw.items()}

    def scan(self) -> pl.LazyFrame:
        """The table with the columns that are read."""
        return self.table.scan(self.columns)

    def numbered(self) -> pl.LazyFrame:
        """As `scan`, with what the account of a bad row needs."""
        frames = []
        for number, part in enumerate(self.table.parts):
            last = part.probe.columns[-1:] if part.kind == "text" else []  # null where a record is blank or too short
            frame = part.scan(list(dict.fromkeys([*self.columns, *last])), row=_ROW)
            odd = pl.all_horizontal(pl.col(last).is_null()) if last else pl.lit(False)
            frame = frame.with_columns(pl.lit(number).alias(_PART), odd.alias(_ODD))
            frames.append(frame.select(_PART, _ROW, _ODD, FAULT, *self.columns))
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")

    def kind(self) -> pl.Expr:
        """What is wrong with a row that is set aside."""
        fields, missing = self.fields(), self.missing()
        kind = pl.when(pl.col(FAULT).is_not_null()).then(pl.lit(_RECORD))
        for name in missing:
            kind = kind.when(missing[name]).then(pl.lit(_NULL + name)).when(fields[name].is_null()).then(pl.lit(name))
        return kind.otherwise(None)


def _is_missing(column: str, dtype: Any) -> pl.Expr:
    """Whether a value is null, or a text that means so."""
    value = pl.col(column)
    if dtype == pl.String:
        return value.is_null() | value.str.strip_chars().is_in(MISSING)
    return value.is_null() | value.is_nan() if dtype.is_float() else value.is_null()


def plan_events(table: Table, found: Mapping[str, str], columns: Columns) -> EventPlan:
    """Decide by the first rows how the columns are read.

    Raises: BundleError if a column is not there or cannot have its role.
    """
    require(table, found, EVENT_ROLES[:3])
    form = recognise(table.probe[found["time"]], columns.zone)
    if form is None:
        raise _no_times(table, found["time"], columns.zone)
    user, item = (id_column(table, found[role]) for role in ("user", "item"))
    return EventPlan(table, user, item, found["time"], form, found.get("rating", ""))


def _no_times(table: Table, column: str, zone: str) -> BundleError:
    """The error for a column whose first rows are not times, or too few of them."""
    values = table.probe[column]
    form = recognise(values, zone, HALF)
    if form is None:
        some = ", ".join(map(repr, values.drop_nulls().head(3)))
        remedy = "store ISO text, Unix seconds or positions, or name another column with --time"
        return refused(table.name, f"no times recognised in column {column} ({some})", remedy)
    texts = values.cast(pl.String).str.strip_chars()
    read = texts.to_frame().select(form.read(pl.col(column), pl.String).is_not_null()).to_series()
    bad = texts.filter(~read & texts.is_not_null() & ~texts.is_in(MISSING))
    line = next((line for part in table.parts for line, record in part.lines() if bad[0] in record), 0)
    what = f"column {column}: {len(bad)} of the first {len(values)} values are not times of the form {form.words}"
    first = f"the first is {bad[0][:80]!r}" + (f" in line {line}" if line else "")
    return refused(table.name, f"{what}; {first}", "mend them, or name another column with --time")


def write_events(plan: EventPlan, to: Path, scratch: Path, report: ImportReport) -> EventPlan:
    """Write the interactions of a table to the parquet file `to`, with bounded memory.

    Returns: the plan as it was carried out: ids may have turned out to be text, the table may be a mended copy.
    Raises: BundleError naming the first bad row if more than one row in a thousand is bad.
    """
    aside = scratch / "aside.parquet"
    while True:
        plan = _written(plan, to, aside, scratch)
        text = _text_roles(plan, aside)
        if not text:
            break
        plan = replace(plan, **{role: replace(getattr(plan, role), whole=False) for role in text})
    left, wrong = _height(to), _height(aside)
    report.counts["rows read"] = left + wrong
    if wrong:
        _explain(plan, aside, left + wrong, report)
    aside.unlink()
    if not left:
        raise refused(
            plan.table.name, "no row with a user, an item and a time is left", "check the columns named above"
        )
    report.counts["rows kept"] = left
    if plan.rating:
        empty = pl.scan_parquet(to, glob=False).select(pl.col("rating").null_count()).collect(engine="streaming").item()
        report.counts |= {"ratings missing or not a number, left empty": empty} if empty else {}
    report.understood += _understood(plan)
    return plan


def _understood(plan: EventPlan) -> list[Understood]:
    """The lines of the report for the interactions."""
    found = [
        Understood("user_id", plan.user.column, plan.user.words),
        Understood("item_id", plan.item.column, plan.item.words),
    ]
    found.append(Understood("timestamp", plan.time_column, plan.time.words))
    return [*found, Understood("rating", plan.rating, "numbers")] if plan.rating else found


def _written(plan: EventPlan, to: Path, aside: Path, scratch: Path) -> EventPlan:
    """As `_sink`; mend the text and begin again if polars stops."""
    literal = any(part.literal for part in plan.table.parts)
    if literal:
        plan = replace(plan, table=plan.table.mended(scratch, plan.columns))
    try:
        return _sink(plan, to, aside)
    except (pl.exceptions.ComputeError, pl.exceptions.NoDataError) as error:
        if plan.table.typed or literal:
            cause = str(error).splitlines()[0]
            raise refused(
                plan.table.name, f"cannot be read ({cause})", "write it again, it may be truncated"
            ) from error
        return _sink(replace(plan, table=plan.table.mended(scratch, plan.columns)), to, aside)


def _sink(plan: EventPlan, to: Path, aside: Path) -> EventPlan:
    """Write in one pass the rows with a user, an item and a time, and `aside` the others as they stand in the file."""
    if plan.time.twin:
        plan = replace(plan, time=settle(plan.time, pl.col(plan.time_column), plan.scan()))
    typed = {f"__{name}": field for name, field in plan.fields().items()}  # a column of the file may have the name
    names = {name[2:]: name for name in typed}
    frame = plan.numbered().with_columns(**typed)
    bad = pl.any_horizontal(pl.col(names[name]).is_null() for name in plan.missing())
    kept = frame.filter(~bad).select(**{name: pl.col(column) for name, column in names.items()})
    wrong = frame.filter(bad).drop(list(typed))
    sinks = [one.sink_parquet(path, **_PACKED, lazy=True) for one, path in ((kept, to), (wrong, aside))]
    pl.collect_all(sinks, engine="streaming")
    return plan


def _height(file: Path) -> int:
    """Rows of a parquet file."""
    return pl.scan_parquet(file, glob=False).select(pl.len()).collect().item()


def _text_roles(plan: EventPlan, aside: Path) -> list[str]:
    """Roles whose ids were read as integers although some are not."""
    kinds = (
        pl.scan_parquet(aside, glob=False)
        .select(kind=plan.kind())
        .unique()
        .collect(engine="streaming")["kind"]
        .to_list()
    )
    text = [role for role in ("user", "item") if getattr(plan, role).whole and _FIELDS[role] in kinds]
    return [role for role in text if not getattr(plan, role).dtype.is_float()]


def _explain(plan: EventPlan, aside: Path, rows: int, report: ImportReport) -> None:
    """Count and show the rows that were dropped; missing values are counted, bad ones are also bounded.

    Raises: BundleError naming the first bad row if there are too many.
    """
    counts: dict[str, int] = {}
    bad: list[BadRow] = []
    for number, part in enumerate(plan.table.parts):
        of_part = pl.scan_parquet(aside, glob=False).filter(pl.col(_PART) == number)
        wrong = _dropped(plan, part, of_part)
        for kind, count in wrong.group_by("kind").len().iter_rows():
            counts[kind] = counts.get(kind, 0) + count
        faulty = wrong.filter(~pl.col("kind").str.starts_with(_NULL) & (pl.col("kind") != _BLANK))
        bad += _shown(plan, part, faulty.head(SHOWN - len(bad)), of_part)
    rows -= counts.pop(_BLANK, 0)
    report.counts["rows read"] = rows
    report.counts |= {f"dropped: {name}": counts.pop(name) for name in sorted(counts) if name.startswith(_NULL)}
    refuse_many(plan.table.name, bad, sum(counts.values()), rows)
    if counts:
        report.counts["dropped: bad rows"] = sum(counts.values())
    report.bad += bad


def refuse_many(name: Path, bad: Sequence[BadRow], count: int, rows: int) -> None:
    """Raise a BundleError naming the first bad row if more than one, and more than one in a thousand, is bad."""
    if count > max(1, rows // ONE_IN):
        what = f"{count} of {rows} rows are bad, more than one in {ONE_IN}; the first: {bad[0]}"
        raise refused(name, what, "mend the file, or name the right columns")


def _dropped(plan: EventPlan, part: Part, aside: pl.LazyFrame) -> pl.DataFrame:
    """The rows of one file that are dropped, and the kind of what is wrong."""
    wrong = aside.select(_ROW, _ODD, kind=plan.kind()).collect(engine="streaming").sort(_ROW)
    odd = _odd_records(part, wrong.filter(pl.col("kind").str.starts_with(_NULL) & pl.col(_ODD))[_ROW])
    wrong = wrong.join(odd, on=_ROW, how="left", maintain_order="left")
    return wrong.select(_ROW, kind=pl.coalesce("odd", "kind"))


def _odd_records(part: Part, rows: pl.Series) -> pl.DataFrame:
    """Those of the rows (sorted) of delimited text that are blank, or have too few fields."""
    found, wanted = [], iter(rows if part.kind == "text" else ())
    asked = next(wanted, None)
    for row, (_, record) in enumerate(part.lines() if asked is not None else ()):
        if row != asked:
            continue
        if not record.strip() or part.is_short(record):
            found.append((row, _SHORT if record.strip() else _BLANK))
        asked = next(wanted, None)
        if asked is None:
            break
    return pl.DataFrame(found, schema={_ROW: rows.dtype, "odd": pl.String}, orient="row")


def _shown(plan: EventPlan, part: Part, bad: pl.DataFrame, aside: pl.LazyFrame) -> list[BadRow]:
    """Bad rows of a part with line and value."""
    if bad.is_empty():
        return []
    columns = {"user_id": plan.user.column, "item_id": plan.item.column, "timestamp": plan.time_column}
    places = part.places(bad[_ROW].to_list())
    frame = aside.filter(pl.col(_ROW).is_in(bad[_ROW].to_list()))
    values = {row[_ROW]: row for row in frame.collect(engine="streaming").iter_rows(named=True)}
    shown = []
    for row, kind in bad.iter_rows():
        line, record = places[row]
        if kind in (_SHORT, _RECORD):
            shown.append(BadRow(part.file, line, "", record, part.what(kind == _SHORT)))
        else:
            what = "not a time of this form" if kind == "timestamp" else "not an id of this form"
            shown.append(BadRow(part.file, line, columns[kind], str(values[row][columns[kind]]), what))
    return shown
