"""`benchmarks.digits` tells whether two versions gave the same tables."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks.digits import compare

RANKS = {"variant": ["bbqrec", "bbqrec"], "value": ["0.10000000000000001", "0.2"]}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Tables of an older version, with its labels, and the same tables of a newer one."""
    labels = ({"history": ["kept", "masked"]}, {"seen_items": ["included", "filtered"]})
    for name, label in zip(("before", "after"), labels, strict=True):
        (tmp_path / name).mkdir()
        frame = pl.DataFrame(RANKS | label | {"config_hash": [name, name]})
        for table in ("main_results.csv", "intervals.csv"):
            frame.write_csv(tmp_path / name / table)
    return tmp_path / "before", tmp_path / "after"


def test_labels_of_older_tables_are_mapped_and_named(folders, capsys) -> None:
    assert compare(*folders)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert all("2 rows equal" in line and "history -> seen_items" in line for line in said)


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.10000000000000001", "0.1"), ("included", "filtered"), ("bbqrec", "sasrec"), ("variant", "row")],
)
def test_one_other_digit_or_label_is_a_difference(folders, capsys, old: str, new: str) -> None:
    path = folders[1] / "intervals.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    assert not compare(*folders)
    said = capsys.readouterr().out
    assert "main_results.csv: 2 rows equal" in said
    assert "intervals.csv: DIFFERENT" in said
    assert new in said


def test_rows_in_another_order_or_number_are_a_difference(folders, capsys) -> None:
    path = folders[1] / "main_results.csv"
    lines = path.read_text().splitlines(keepends=True)
    for changed in ([lines[0], *reversed(lines[1:])], [*lines, lines[-1]]):
        path.write_text("".join(changed))
        assert not compare(*folders)
        assert "order or number differs" in capsys.readouterr().out
