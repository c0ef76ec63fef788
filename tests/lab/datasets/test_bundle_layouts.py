"""Bundles as cluster tools and other code leave them: part files, features in other formats, times of another unit."""

import shutil
from pathlib import Path

import bundles
import numpy as np
import polars as pl
import pytest

from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.reading import TIED, NamedDataset, read_bundle, statistics
from bbqrec_lab.settings import DataConfig


def read(root: Path) -> NamedDataset:
    return read_bundle(root, DataConfig())


def facts(data: NamedDataset) -> dict[str, str]:
    return dict(statistics(data).iter_rows())


def as_parts(file: Path, parts: int) -> None:
    """Replace a parquet file by a folder of part files, as Spark writes it."""
    table = pl.read_parquet(file)
    file.unlink()
    file.mkdir()
    step = -(-table.height // parts)
    for part in range(parts):
        table.slice(part * step, step).write_parquet(file / f"part-{part:05d}-c000.snappy.parquet")
        (file / f".part-{part:05d}.crc").write_bytes(b"crc")
    (file / "_SUCCESS").touch()


def test_tables_may_be_folders_of_part_files(tmp_path: Path) -> None:
    whole = read(bundles.write(tmp_path))
    as_parts(tmp_path / bundles.EVENTS, 3)
    as_parts(tmp_path / bundles.ITEMS, 2)
    assert read(tmp_path).content_hash == whole.content_hash
    for part in (tmp_path / bundles.EVENTS).glob("part-*"):
        part.unlink()
    with pytest.raises(BundleError, match="a folder without part files"):
        read(tmp_path)


def test_features_that_are_not_read_are_reported_with_the_remedy(tmp_path: Path) -> None:
    root = bundles.write(tmp_path)
    np.savez(root / "features" / "text.npz", np.ones((5, 2)))
    np.save(root / "audio.npy", np.ones((5, 2)))
    shutil.copyfile(root / "audio.npy", root / "features" / "image.NPY")
    (root / "features" / "graph.pt").write_bytes(b"x")
    report = read(root).report
    ignored = {key: value for key, value in report.items() if key.startswith("ignored: ")}
    assert set(ignored) == {
        "ignored: audio.npy", "ignored: features/text.npz", "ignored: features/image.NPY", "ignored: features/graph.pt"
    }  # fmt: skip
    assert all("features/NAME.npy" in value for value in ignored.values())


@pytest.mark.parametrize("unit", [10**3, 10**6, 10**9])
def test_times_of_another_unit_are_recognised_by_their_size(tmp_path: Path, unit: int) -> None:
    seconds = bundles.interactions().with_columns(pl.col("timestamp") + 1_600_000_000)
    one = read(bundles.write(tmp_path / "s", seconds))
    other = read(bundles.write(tmp_path / "x", seconds.with_columns(pl.col("timestamp") * unit)))
    np.testing.assert_array_equal(one.timestamps, other.timestamps)
    assert facts(other)["first / last timestamp (Unix seconds)"] == "1600000001 / 1600000009"
    assert "by their size" in other.report["timestamps are not seconds"]
    assert "timestamps are not seconds" not in one.report


def test_times_scaled_to_one_keep_gaps_and_ties(tmp_path: Path) -> None:
    given = bundles.interactions().with_columns(timestamp=(pl.col("timestamp") - 1) / 8)
    data = read(bundles.write(tmp_path, given))
    assert data.report[TIED] == 0
    within = np.diff(data.timestamps)[data.sequences.offsets[1] :]
    assert (np.diff(data.timestamps[: data.sequences.offsets[1]]) > 0).all()
    assert len(within) > 0
    assert "their order alone counts" in data.report["timestamps are not seconds"]
    assert "first / last timestamp (no unit, order alone)" in facts(data)
