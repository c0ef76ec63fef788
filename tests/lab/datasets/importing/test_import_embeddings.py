"""Embeddings of other formats are taken by item id or by row; what cannot be used is named with the reason."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from bbqrec_lab.datasets.importing import ImportReport, import_data

ITEMS = ("b", "a", "c")  # the order of the item table
VECTORS = np.array([[1, 2], [3, 4], [5, 6]], np.float32)  # of b, a, c
BACK = [2, 0, 1]  # another order


def shop(folder: Path, ids: tuple = ITEMS, with_items: bool = True) -> dict[str, Path]:
    """A log and an item table."""
    events = [(user, item, 1_600_000_000 + n) for user in "uv" for n, item in enumerate(sorted(ids))]
    pl.DataFrame(events, schema=["user", "item", "time"], orient="row").write_parquet(folder / "log.parquet")
    pl.DataFrame({"item": ids}).write_parquet(folder / "items.parquet")
    return {"source": folder / "log.parquet", **({"items": folder / "items.parquet"} if with_items else {})}


def features(folder: Path, report: ImportReport, name: str) -> np.ndarray:
    """A written feature array, in the order of ITEMS."""
    table = pl.read_parquet(report.folder / "items.parquet")
    order = [table["item_id"].to_list().index(item) for item in ITEMS]
    return np.load(report.folder / "features" / f"{name}.npy")[order]


def save_as(file: Path, array: np.ndarray) -> None:
    """Save an array under exactly this name."""
    with file.open("wb") as stream:
        np.save(stream, array)


WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.npy": lambda file: np.save(file, VECTORS),
    "rows.NPY": lambda file: save_as(file, VECTORS),
    "shop.emb-llama.npy": lambda file: np.save(file, VECTORS.astype(np.float64)),
    "rows.npz": lambda file: np.savez(file, VECTORS),
    "ids.npz": lambda file: np.savez(file, item_ids=np.array(ITEMS)[BACK], embeddings=VECTORS[BACK]),
    "each.npz": lambda file: np.savez(file, **{ITEMS[at]: VECTORS[at] for at in BACK}),
    "rows.pt": lambda file: torch.save(torch.from_numpy(VECTORS).bfloat16(), file),
    "each.pt": lambda file: torch.save({ITEMS[at]: torch.from_numpy(VECTORS[at]) for at in BACK}, file),
    "ids.pt": lambda file: torch.save(
        {"ids": [ITEMS[at] for at in BACK], "emb": torch.from_numpy(VECTORS[BACK])}, file
    ),
    "rows.safetensors": lambda file: save_file({"embeddings": VECTORS}, file),
    "ids.parquet": lambda file: pl.DataFrame(
        {"item_id": [ITEMS[at] for at in BACK], "vector": VECTORS[BACK].tolist()}
    ).write_parquet(file),
    "array.parquet": lambda file: pl.DataFrame(
        {
            "item_id": [ITEMS[at] for at in BACK],
            "vector": pl.Series(VECTORS[BACK].tolist(), dtype=pl.Array(pl.Float32, 2)),
        }
    ).write_parquet(file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_vectors_reach_their_items(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    report = import_data(**shop(tmp_path), to=tmp_path / "to", features=[tmp_path / name])
    (written,) = (tmp_path / "to" / "features").iterdir()
    assert "." not in written.stem
    np.testing.assert_array_equal(features(tmp_path, report, written.stem), VECTORS)
    assert ("by row of the item table" in str(report)) == (name.startswith("rows") or name.startswith("shop"))


def test_arrays_of_several_modalities_and_list_columns_of_the_item_table_are_taken(tmp_path: Path) -> None:
    given = shop(tmp_path)
    np.savez(tmp_path / "both.npz", text=VECTORS, image=2 * VECTORS)
    table = pl.read_parquet(given["items"]).with_columns(pl.Series("audio", (3 * VECTORS).tolist()))
    table.write_parquet(given["items"])
    report = import_data(**given, to=tmp_path / "to", features=[tmp_path / "both.npz"])
    for name, factor in (("text", 1), ("image", 2), ("audio", 3)):
        np.testing.assert_array_equal(features(tmp_path, report, name), factor * VECTORS)


@pytest.mark.parametrize(("first", "rows"), [(0, 3), (1, 3), (1, 4)])
def test_without_an_item_table_rows_are_the_numbers_of_the_items(tmp_path: Path, first: int, rows: int) -> None:
    ids = tuple(range(first, first + 3))
    np.save(tmp_path / "x.npy", np.arange(rows)[:, None] + 1.0)
    report = import_data(**shop(tmp_path, ids, False), to=tmp_path / "to", features=[tmp_path / "x.npy"])
    found = np.load(tmp_path / "to" / "features" / "x.npy")[:, 0].tolist()
    assert found == ([1, 2, 3] if rows == 3 else [2, 3, 4])
    assert "row = item id" in str(report)


def test_vectors_that_are_not_finite_count_as_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, np.nan], [3, 4], [np.inf, 0]]))
    report = import_data(**shop(tmp_path), to=tmp_path / "to", features=[tmp_path / "x.npy"])
    assert features(tmp_path, report, "x").tolist() == [[0, 0], [3, 4], [0, 0]]
    assert report.counts["vectors of x with NaN or infinity, counted as missing"] == 2


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("x.npy", lambda file: np.save(file, np.array([{"a": 1}], object)), "cannot be read"),
        ("x.npy", lambda file: np.save(file, np.zeros((7, 2))), "7 rows without ids, for the 3 rows of the item table"),
        ("x.npy", lambda file: np.save(file, np.zeros((3, 2))), "zero or absent"),
        ("x.npy", lambda file: np.save(file, np.array(["p", "q", "r"])), "store one row of numbers per item"),
        ("x.npz", lambda file: np.savez(file, ids=np.array(["x", "y"]), e=np.ones((2, 2))), "none of its ids"),
        ("x.pt", lambda file: torch.save(torch.nn.Linear(2, 2), file), "holds more than tensors"),
        ("x.pt", lambda file: file.write_bytes(pickle.dumps(print)), "holds more than tensors"),
        ("x.h5", lambda file: file.write_bytes(b"HDF"), "not one of .npy"),
        ("x.parquet", lambda file: pl.DataFrame({"item": ["a"]}).write_parquet(file), "without a column of lists"),
    ],
)
def test_a_file_that_is_passed_over_is_named_with_the_reason(
    tmp_path: Path, name: str, write: Callable[[Path], object], reason: str
) -> None:
    write(tmp_path / name)
    report = import_data(**shop(tmp_path), to=tmp_path / "to", features=[tmp_path / name])
    (why,) = [why for file, why in report.passed_over if file.endswith(name)]
    assert reason in why
    assert not list((tmp_path / "to").rglob("*.npy"))


def test_a_folder_with_features_is_imported_whole(tmp_path: Path) -> None:
    shop(tmp_path)
    (tmp_path / "log.parquet").rename(tmp_path / "interactions.parquet")
    (tmp_path / "features").mkdir()
    np.savez(tmp_path / "features" / "text.npz", VECTORS)
    torch.save(torch.from_numpy(VECTORS), tmp_path / "features" / "graph.pt")
    np.save(tmp_path / "audio.npy", VECTORS)
    np.save(tmp_path / "features" / "audio.npy", VECTORS)
    report = import_data(tmp_path, tmp_path / "out" / "to")
    assert {file.stem for file in (report.folder / "features").iterdir()} == {"text", "graph", "audio"}
    assert any("already taken" in why for _, why in report.passed_over)
