"""Recognise times: numbers of any unit, ISO text, dates as people write them, and numbers whose order alone counts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

_EPOCH = pl.lit(datetime(1970, 1, 1))
_UNITS = {
    "seconds": (1e8, 1),
    "milliseconds": (1e11, 10**3),
    "microseconds": (1e14, 10**6),
    "nanoseconds": (1e17, 10**9),
}
_POLARS = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S%.f", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M")
_ISO = tuple(
    f"%Y-%m-%d{between}{clock}{zone}"
    for zone in ("", "Z", " UTC", "%#z", " %#z")  # %#z reads +02:00, +0200 and +02
    for between in "T "
    for clock in ("%H:%M:%S", "%H:%M:%S%.f", "%H:%M")
)
_PLAIN = tuple(f"{date}{clock}" for date in ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d") for clock in _CLOCKS)
_NAMED_MONTHS = ("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y")
_WORDS = tuple(f"{date}{clock}" for date in (*_NAMED_MONTHS, "%m %d, %Y") for clock in _CLOCKS)  # last: Amazon's
_MAIL = ("%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y")
_DIGITS = ("%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%d%H%M")
_TWINS = tuple(  # each with the format in which day and month change places; the first is taken if nothing decides
    (f"{first}{mark}{second}{mark}{year}{clock}", f"{second}{mark}{first}{mark}{year}{clock}")
    for mark, first, second in ((".", "%d", "%m"), ("/", "%m", "%d"), ("-", "%d", "%m"))
    for year in ("%Y", "%y")
    for clock in _CLOCKS
)
ENOUGH, HALF = 0.9, 0.5  # the share of the sampled values that a form must read, and that tells what was meant
_TRIED = 300  # values that are tried with every format


class TimeForm(NamedTuple):
    """How a column is read as time.

    Args: words: for the report. formats: of text or digits, tried in this order; empty for numbers and datetimes.
        zone: of text without an offset; empty is UTC. unit: of numbers; empty if their order alone counts.
        decimal: numbers have a fraction. twin: the format with day and month exchanged, if the sample fits both.
        bracket: texts end with the name of a zone in brackets, which repeats the offset.
    """

    words: str
    formats: tuple[str, ...] = ()
    zone: str = ""
    unit: str = ""
    decimal: bool = False
    twin: str = ""
    bracket: bool = False

    def read(self, column: pl.Expr, dtype: Any) -> pl.Expr:  # Any: beartype cannot check pl.DataType
        """The time of each value; null if it is unreadable, before 1970 or, for numbers, of another unit."""
        if self.formats:
            found = _texts(column if dtype == pl.String else column.cast(pl.String), self)
            return pl.when(found >= _EPOCH).then(found)
        if isinstance(dtype, pl.Datetime):
            found = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
            return pl.when(found >= _EPOCH).then(found)
        if dtype == pl.Date:
            return pl.when(column >= _EPOCH.dt.date()).then(column)
        return _numbers(column, self)


def _texts(column: pl.Expr, form: TimeForm) -> pl.Expr:
    """Texts as datetimes in UTC, stored without a zone."""
    if form.bracket:
        column = column.str.replace(r"\[.*\]$", "")
    found = [_text(column, text_format, form.zone) for text_format in form.formats]
    return found[0] if len(found) == 1 else pl.coalesce(found)


def _text(column: pl.Expr, text_format: str, zone: str) -> pl.Expr:
    """Texts of one format as datetimes in UTC, stored without a zone."""
    found = column.str.to_datetime(text_format, strict=False, time_unit="us", cache=False)
    if "z" in text_format:
        return found.dt.replace_time_zone(None)  # polars has converted it to UTC
    if zone and not text_format.endswith(("Z", "UTC")):
        found = found.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        return found.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return found


def _numbers(column: pl.Expr, form: TimeForm) -> pl.Expr:
    """Numbers of one unit, or numbers whose order alone counts."""
    found = column.cast(pl.Float64 if form.decimal else pl.Int64, strict=False)
    low, ticks = _UNITS.get(form.unit, (2.0**62 / 1000, 1))
    inside = pl.when((found >= 0) & (found < low * 1000)).then(found)
    if not form.unit or (form.unit == "seconds" and not form.decimal):
        return inside
    if form.decimal:
        return (inside * (10**6 / ticks)).round().cast(pl.Int64).cast(pl.Datetime("us"))
    return inside.cast(pl.Datetime(_POLARS[form.unit]))


def recognise(values: pl.Series, zone: str = "", enough: float = ENOUGH) -> TimeForm | None:
    """How the sampled values are read as time; None if they are not times.

    Args: values: of any type. zone: that of text without an offset, such as Europe/Berlin; empty is UTC.
        enough: share of the values that a form must read.
    Raises: ValueError for an unknown zone.
    """
    if zone:
        _check_zone(zone)
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime):
        return TimeForm(f"datetimes ({dtype.time_unit}), {dtype.time_zone or 'no zone: taken as UTC'}")
    if dtype == pl.Date:
        return TimeForm("dates")
    if not (dtype == pl.String or dtype.is_numeric()):
        return None
    values = values.drop_nulls()
    if dtype == pl.String:
        values = values.filter(values.str.strip_chars() != "").str.strip_chars()
    if values.is_empty():
        return None
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.is_finite().fill_null(False).mean() >= enough:
        return _digits(values, zone) or _unit(numbers.drop_nulls(), values)
    return _text_form(values, zone, enough) if dtype == pl.String else None


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {zone!r}: use a name such as Europe/Berlin or UTC") from error


def _unit(numbers: pl.Series, values: pl.Series) -> TimeForm:
    """The unit of numbers by their size: seconds since 1973 have nine digits or more."""
    middle = numbers.median()
    whole = values.cast(pl.Int64, strict=False).is_not_null().all() if values.dtype == pl.String else None
    decimal = values.dtype.is_float() if whole is None else not whole
    units = [name for name, (low, _) in _UNITS.items() if low <= middle < low * 1000]
    if units:
        return TimeForm(f"{units[0]}{', with a fraction' if decimal else ''}", unit=units[0], decimal=decimal)
    between = " between 0 and 1" if numbers.min() >= 0 and numbers.max() <= 1 else ""
    return TimeForm(f"numbers{between}, order alone", decimal=decimal)


def _digits(values: pl.Series, zone: str) -> TimeForm | None:
    """Dates and times as one number, such as 20210304 or 20210304050607."""
    texts = values.cast(pl.String)
    lengths = texts.str.len_bytes().unique()
    if len(lengths) != 1 or lengths[0] not in (8, 12, 14):
        return None
    text_format = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M"}[lengths[0]]
    form = TimeForm(_in_words(f"digits {text_format}", (text_format,), zone), (text_format,), zone)
    years = texts.str.slice(0, 4).cast(pl.Int64, strict=False)
    likely = years.is_between(1970, 2100).all() and _share(texts, form) == 1
    return form if likely else None


def _shares(texts: pl.Series, forms: Mapping[str, TimeForm]) -> dict[str, float]:
    """Share of the texts that each form reads."""
    column = pl.col("texts")
    found = {name: form.read(column, pl.String).is_not_null().mean() for name, form in forms.items()}
    return texts.to_frame("texts").select(**found).row(0, named=True)


def _share(texts: pl.Series, form: TimeForm) -> float:
    """Share of the texts that a form reads."""
    return _shares(texts, {"form": form})["form"]


def _text_form(texts: pl.Series, zone: str, enough: float) -> TimeForm | None:
    """The formats that read the sampled texts."""
    bracket = texts.str.contains(r"\[[A-Za-z_/+-]+\]$").any()
    few = texts.gather_every(max(len(texts) // _TRIED, 1))
    alone = (*_ISO, *_PLAIN, *_WORDS, *_MAIL)
    every = (*alone, *(name for pair in _TWINS for name in pair))
    shares = _shares(few, {name: TimeForm("", (name,), bracket=bracket) for name in every})
    best = max(shares, key=lambda name: shares[name])  # the first of equals
    if not shares[best]:
        return None
    formats, twin = [best], ""
    pair = next((pair for pair in _TWINS if best in pair), None)
    if pair:
        one, other = (_share(texts, TimeForm("", (name,))) for name in pair)
        formats, twin = [pair[0] if one >= other else pair[1]], pair[1] if one == other else ""
    date = best.split("%Y")[0] if pair else ""
    related = [
        name for name in shares if name not in (best, twin) and (name.startswith(date) if pair else name in alone)
    ]
    for name in sorted(related, key=lambda name: -shares[name]):  # the same dates without a clock, with a fraction, ...
        more = TimeForm("", (*formats, name), bracket=bracket)
        if shares[name] and not twin and _share(few, more) > _share(few, more._replace(formats=tuple(formats))):
            formats.append(name)
    form = TimeForm("", tuple(formats), zone, twin=twin, bracket=bracket)
    return form._replace(words=words_of(form)) if _share(texts, form) >= enough else None


def words_of(form: TimeForm) -> str:
    """A form of text in words: formats, zone, and whether day and month are ambiguous."""
    iso = all(name in (*_ISO, *_PLAIN) and name.startswith("%Y-%m-%d") for name in form.formats)
    days = all("%H" not in name and "%I" not in name for name in form.formats)
    name = "ISO text" if iso else f"text {' or '.join(form.formats)}"
    words = f"{name}, dates without a time of day" if days else _in_words(name, form.formats, form.zone)
    if form.twin:
        first = "day" if form.formats[0].startswith("%d") else "month"
        words += f"; day and month are ambiguous (no value is above 12), read with the {first} first"
    return words


def _in_words(name: str, formats: tuple[str, ...], zone: str) -> str:
    """A name of formats, and their zone."""
    offsets = [text_format for text_format in formats if "z" in text_format]
    named = [text_format for text_format in formats if text_format.endswith(("Z", "UTC"))]
    if len(named) == len(formats):
        return f"{name}, UTC"
    if len(offsets) + len(named) == len(formats):
        return f"{name}, offset in the text"
    return f"{name}, {zone or 'no zone: taken as UTC'}"


def settle(form: TimeForm, column: pl.Expr, frame: pl.LazyFrame) -> TimeForm:
    """An ambiguous form after a look at every value: the order of day and month that reads more of them."""
    if not form.twin:
        return form
    other = form._replace(formats=(form.twin,), twin="")
    ways = {"one": form, "other": other}
    counts = frame.select(**{name: way.read(column, pl.String).count() for name, way in ways.items()})
    one, two = counts.collect(engine="streaming").row(0)
    if one != two:
        form = form._replace(twin="") if one > two else other
    return form._replace(words=words_of(form))
