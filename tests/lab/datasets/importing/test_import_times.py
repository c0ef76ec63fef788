"""Every usual way to write a time is recognised, named, and read as that moment."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from bbqrec_lab.datasets.importing.times import recognise, settle

MOMENT = datetime(2021, 3, 14, 5, 6, 7)
SECONDS = int(MOMENT.replace(tzinfo=UTC).timestamp())


def read(values: pl.Series, zone: str = "") -> tuple[list, str]:
    """Times of a column and how they were understood."""
    form = recognise(values, zone)
    assert form is not None
    return pl.select(form.read(pl.lit(values), values.dtype)).to_series().to_list(), form.words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2021-03-14T05:06:07", "ISO text, no zone: taken as UTC"),
        ("2021-03-14 05:06:07", "ISO text, no zone: taken as UTC"),
        ("2021-03-14 05:06:07.000000", "ISO text, no zone: taken as UTC"),
        ("2021-03-14T05:06:07Z", "ISO text, UTC"),
        ("2021-03-14T05:06:07.000Z", "ISO text, UTC"),
        ("2021-03-14 05:06:07 UTC", "ISO text, UTC"),
        ("2021-03-14T07:06:07+02:00", "ISO text, offset in the text"),
        ("2021-03-14T07:06:07+0200", "ISO text, offset in the text"),
        ("2021-03-14T06:06:07+01:00[Europe/Berlin]", "ISO text, offset in the text"),
        ("14.03.2021 05:06:07", "text %d.%m.%Y %H:%M:%S, no zone: taken as UTC"),
        ("03/14/2021 05:06:07 AM", "text %m/%d/%Y %I:%M:%S %p, no zone: taken as UTC"),
        ("14/3/2021 5:06:07", "text %d/%m/%Y %H:%M:%S, no zone: taken as UTC"),
        ("Mar 14, 2021 05:06:07", "text %b %d, %Y %H:%M:%S, no zone: taken as UTC"),
        ("Sun Mar 14 05:06:07 +0000 2021", "text %a %b %d %H:%M:%S %z %Y, offset in the text"),
        ("20210314050607", "digits %Y%m%d%H%M%S, no zone: taken as UTC"),
    ],
)
def test_texts_are_the_moment_that_they_name(text: str, words: str) -> None:
    assert read(pl.Series([text, None, text])) == ([MOMENT, None, MOMENT], words)


@pytest.mark.parametrize("text", ["2021-03-14", "14.03.2021", "03/14/2021", "03 14, 2021", "Mar 14, 2021", "20210314"])
def test_dates_are_midnight(text: str) -> None:
    times, words = read(pl.Series([text]))
    assert times == [datetime(2021, 3, 14)]
    assert "date" in words or "%Y%m%d" in words


@pytest.mark.parametrize(
    ("factor", "words"), [(1, "seconds"), (10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
@pytest.mark.parametrize("kind", [pl.Int64, pl.String])
def test_numbers_have_the_unit_of_their_size(factor: int, words: str, kind: type[pl.DataType]) -> None:
    times, found = read(pl.Series([SECONDS * factor]).cast(kind))
    assert found == words
    assert times == [SECONDS if factor == 1 else MOMENT]


@pytest.mark.parametrize("kind", [pl.Float64, pl.String])
def test_seconds_with_a_fraction_keep_it(kind: type[pl.DataType]) -> None:
    times, words = read(pl.Series([SECONDS + 0.25]).cast(kind))
    assert times == [MOMENT.replace(microsecond=250_000)]
    assert words == "seconds, with a fraction"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.0, 0.5, 1.0], "numbers between 0 and 1, order alone"),
        (["0.0", "0.5", "1.0"], "numbers between 0 and 1, order alone"),
        ([0, 7, 12], "numbers, order alone"),
        ([1.5, 44_000.25, 3.0], "numbers, order alone"),
    ],
)
def test_other_numbers_count_by_their_order_alone(values: list, words: str) -> None:
    assert read(pl.Series(values)) == ([float(value) for value in values], words)


def test_types_of_parquet_are_taken_as_they_are() -> None:
    berlin = pl.Series([MOMENT]).dt.replace_time_zone("Europe/Berlin").cast(pl.Datetime("ms", "Europe/Berlin"))
    assert read(berlin) == ([MOMENT.replace(hour=4)], "datetimes (ms), Europe/Berlin")
    assert read(pl.Series([date(2021, 3, 14)])) == ([date(2021, 3, 14)], "dates")


def test_a_named_zone_moves_texts_without_an_offset_only() -> None:
    assert read(pl.Series(["2021-07-14 07:06:07"]), "Europe/Berlin") == (
        [datetime(2021, 7, 14, 5, 6, 7)], "ISO text, Europe/Berlin"
    )  # fmt: skip
    assert read(pl.Series(["2021-07-14 07:06:07Z"]), "Europe/Berlin")[0] == [datetime(2021, 7, 14, 7, 6, 7)]


def test_day_and_month_are_ambiguous_until_a_value_decides() -> None:
    early = pl.Series("t", ["04.03.2021 10:00", "05.03.2021 11:30"])
    form = recognise(early)
    assert "day and month are ambiguous" in form.words
    assert "day first" in form.words
    american = pl.DataFrame({"t": [*early, "03.25.2021 11:00"]}).lazy()
    settled = settle(form, pl.col("t"), american)
    assert "ambiguous" not in settled.words
    assert american.select(settled.read(pl.col("t"), pl.String)).collect()["t"].to_list()[0] == datetime(2021, 4, 3, 10)
    assert "ambiguous" in settle(form, pl.col("t"), pl.DataFrame({"t": early}).lazy()).words
    assert "month first" in recognise(pl.Series(["04/03/2021"])).words


def test_texts_with_and_without_a_time_of_day_are_both_read() -> None:
    times, _ = read(pl.Series(["2021-03-14", "2021-03-14 05:06:07", "2021-03-14T05:06:07.5"]))
    assert times == [datetime(2021, 3, 14), MOMENT, MOMENT.replace(microsecond=500_000)]


@pytest.mark.parametrize("values", [["red", "blue"], ["A1", "B2"], [True, False], [None, None]])
def test_other_values_are_no_times(values: list) -> None:
    assert recognise(pl.Series(values)) is None
