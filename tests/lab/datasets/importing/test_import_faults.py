"""Bad rows are counted and shown with file, line and value; too many stop the import; wrong requests are refused."""

import json
from pathlib import Path

import polars as pl
import pytest

from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.importing import Columns, import_data

ROWS = 2_000


def rows(n: int = ROWS) -> list[str]:
    """Lines of a table of interactions, without its header."""
    return [f"u{k % 40},i{k % 7},{1_600_000_000 + k}" for k in range(n)]


def table(folder: Path, lines: list[str], name: str = "a.csv", header: str = "user,item,time") -> Path:
    """Write lines as a text file with a header."""
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder / name


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("u1,i1,yesterday", "column time: not a time of this form: 'yesterday'"),
        ("u1,i1,-5", "column time: not a time of this form: '-5'"),
        ("u1,i1,1600000000000", "column time: not a time of this form: '1600000000000'"),
        ("u1,i1,1600000000,more", "more fields than columns: 'u1,i1,1600000000,more'"),
        ("u1,i1", "fewer fields than columns: 'u1,i1'"),
    ],
)
def test_one_bad_row_in_a_thousand_is_counted_and_shown_and_more_stop_the_import(
    tmp_path: Path, bad: str, what: str
) -> None:
    lines = rows()
    lines[700] = bad
    lines.insert(10, "")  # a blank line is no row, but it counts as a line
    file = table(tmp_path, lines)
    report = import_data(file, tmp_path / "good")
    place = f"{file}: line 703{', ' if what.startswith('column') else ': '}{what}"
    assert [str(row) for row in report.bad] == [place]
    assert report.counts["dropped: bad rows"] == 1
    assert pl.read_parquet(tmp_path / "good" / "interactions.parquet").height == ROWS - 1
    assert f"bad row a.csv, line 703, {what}" in str(report)
    assert report.counts["rows read"] == ROWS
    for at in (800, 900):
        lines[at] = bad
    with pytest.raises(
        BundleError, match=r"3 of 2000 rows are bad, more than one in 1000; the first: .*a\.csv: line 703"
    ):
        import_data(table(tmp_path, lines), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "good"]


def test_missing_values_are_dropped_and_counted_by_column(tmp_path: Path) -> None:
    lines = rows()
    lines[3::10] = [",i1,1600000000"] * 200
    lines[4::100] = ["u1,\\N,1600000000"] * 20
    lines[5::500] = ["u1,i1,NULL"] * 4
    report = import_data(table(tmp_path, lines), tmp_path / "to")
    found = {key: count for key, count in report.counts.items() if key.startswith("dropped")}
    assert found == {"dropped: null user_id": 200, "dropped: null item_id": 20, "dropped: null timestamp": 4}
    assert report.counts["rows kept"] == ROWS - 224
    assert report.bad == []


def test_a_bad_row_of_a_part_file_names_this_file(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(3):
        lines = rows()
        if part == 1:
            lines[5] = '"u\n1",i1,noon'
        table(folder, lines, f"part-0000{part}.csv")
    report = import_data(folder, tmp_path / "to")
    assert [(row.file.name, row.line, row.value) for row in report.bad] == [("part-00001.csv", 7, "noon")]


def test_broken_lines_of_json_are_counted_and_shown(tmp_path: Path) -> None:
    lines = [json.dumps({"user": f"u{k % 40}", "item": f"i{k % 7}", "time": 1_600_000_000 + k}) for k in range(ROWS)]
    lines[1000] = lines[1000][:-9]
    lines[1500] = "[1, 2]"
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    report = import_data(tmp_path / "a.jsonl", tmp_path / "to")
    assert [row.line for row in report.bad] == [1001, 1501]
    assert report.counts["rows kept"] == ROWS - 2


def test_text_that_stops_being_utf8_far_below_is_read_as_latin_1(tmp_path: Path) -> None:
    content = "\n".join(["user,item,time", *rows(30_000)]).encode() + "\nzoë,café,1700000000\n".encode("latin-1")
    (tmp_path / "a.csv").write_bytes(content)
    import_data(tmp_path / "a.csv", tmp_path / "to")
    assert pl.read_parquet(tmp_path / "to" / "interactions.parquet").row(-1)[:2] == ("zoë", "café")


def test_bad_lines_of_an_item_table_are_shown_too(tmp_path: Path) -> None:
    items = [json.dumps({"item": f"i{k}", "title": f"Title {k}"}) for k in range(7)]
    items[3] = "{'item': 'i3', 'title': "
    (tmp_path / "items.json").write_text("\n".join(items))
    report = import_data(table(tmp_path, rows()), tmp_path / "to", items=tmp_path / "items.json")
    assert [(row.file.name, row.line) for row in report.bad] == [("items.json", 4)]
    assert pl.read_parquet(tmp_path / "to" / "items.parquet")["title"].null_count() == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": Columns(user="nobody")}, r"a\.csv: no column 'nobody' for --user; choose from user, item, time"),
        (
            {"columns": Columns(time="item", item="time")},
            r"no times recognised in column item \('i0', 'i1', 'i2'\); store ISO text",
        ),
        ({"columns": Columns(zone="Mars/North")}, "no time zone 'Mars/North'"),
        ({"items": "nowhere.csv"}, r"nowhere\.csv: no such file or folder; give the table of the items"),
        ({"images": "nowhere"}, r"nowhere: no such folder; give the folder of pictures"),
        ({"features": ["x.npy"]}, r"x\.npy: no such file"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(tmp_path: Path, given: dict, message: str) -> None:
    file = table(tmp_path, rows(50))
    with pytest.raises(ValueError, match=message):
        import_data(file, tmp_path / "to", **given)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'[{"user": 1}]', "one JSON array; store one object per line"),
        ("a.xlsx", b"PK\x03\x04 rest", "an archive or a workbook, not a table; unpack it, or export the sheet as CSV"),
        ("a.parquet", b"PAR1 cut", "cannot be read as parquet"),
        ("a.csv", b"", "the file is empty"),
        ("a.txt", b"one\ntwo\n", "no separator found"),
        (
            "a.csv",
            b"x,y,z\na,b,c\nd,e,f\n",
            "no column found for the user; columns: x, y, z; name it with --user COLUMN",
        ),
        ("a.csv", b"user,item,user\na,b,c\n", "names a column twice"),
        ("a.csv.gz", b"no gzip at all", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_remedy(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        import_data(tmp_path / name, tmp_path / "to")


def test_items_of_another_shop_are_refused_and_few_unknown_ones_are_added(tmp_path: Path) -> None:
    file = table(tmp_path, rows())
    other = table(tmp_path, [f"x{k},T{k}" for k in range(7)], "items.csv", "item,title")
    with pytest.raises(BundleError, match=r"none of its item ids \('x0', 'x1', 'x2'\) is in the interactions"):
        import_data(file, tmp_path / "to", items=other)
    some = table(tmp_path, [f"i{k},T{k}" for k in range(1, 9)], "items.csv", "item,title")
    report = import_data(file, tmp_path / "to", items=some)
    items = pl.read_parquet(tmp_path / "to" / "items.parquet")
    assert items.filter(pl.col("title").is_null())["item_id"].to_list() == ["i0"]
    assert report.counts["items of the interactions that are not in the item table, added without content"] == 1
    assert report.counts["items without an interaction, kept: they can be recommended"] == 2


def test_whole_numbers_meet_text_if_one_side_has_leading_zeros(tmp_path: Path) -> None:
    file = table(tmp_path, [f"1,{k % 3 + 10},{1_600_000_000 + k}" for k in range(9)])
    items = table(tmp_path, ["10,A", "11,B", "0012,C"], "items.csv", "item,title")
    import_data(file, tmp_path / "to", items=items)
    assert pl.read_parquet(tmp_path / "to" / "items.parquet")["item_id"].to_list() == ["10", "11", "0012", "12"]


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    file = table(tmp_path, rows(50))
    (tmp_path / "to").mkdir()
    import_data(file, tmp_path / "to")
    with pytest.raises(BundleError, match="to: exists already; remove it, or give another folder with --to"):
        import_data(file, tmp_path / "to")


def test_a_folder_of_several_logs_asks_which_one(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("clicks.csv", "orders.tsv"):
        table(folder, rows(50), name)
    with pytest.raises(BundleError, match=r"several tables could be the interactions \(clicks\.csv, orders\.tsv\)"):
        import_data(folder, tmp_path / "to")


def test_text_ids_far_below_in_an_item_table_make_the_ids_of_both_tables_text(tmp_path: Path) -> None:
    file = table(tmp_path, [f"u,{k % 3 + 10},{1_600_000_000 + k}" for k in range(9)])
    names = [f"{k},{'x' * 200}" for k in range(10, 3_000)]
    items = table(tmp_path, [*names, "sku-1,Late"], "items.csv", "item,title")
    import_data(file, tmp_path / "to", items=items)
    for name in ("items", "interactions"):
        assert pl.read_parquet(tmp_path / "to" / f"{name}.parquet").schema["item_id"] == pl.String


@pytest.mark.parametrize("column", ["time", "gekauft am"])
def test_too_many_bad_times_are_told_by_the_bad_ones(tmp_path: Path, column: str) -> None:
    lines = [f"u{k % 9},i{k % 7},{1 + k % 28:02d}.01.2024 10:{k % 60:02d}" for k in range(200)]
    lines[12::6] = [f"{line.rpartition(',')[0]},soon" for line in lines[12::6]]
    (tmp_path / "a.csv").write_text("\n".join([f"user,item,{column}", *lines]))
    wanted = (
        rf"a\.csv: column {column}: 32 of the first 200 values are not times of the form text %d\.%m\.%Y %H:%M.*; "
        r"the first is 'soon' in line 14; mend them, or name another column with --time"
    )
    for columns in (Columns(), Columns(time=column)):
        with pytest.raises(ValueError, match=wanted):
            import_data(tmp_path / "a.csv", tmp_path / "to", columns=columns)
