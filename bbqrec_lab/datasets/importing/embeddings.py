"""Embeddings of items from .npy, .npz, .pt, .safetensors and parquet lists, placed by item id or by row."""

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from bbqrec_lab.datasets.importing.columns import guess
from bbqrec_lab.datasets.importing.items import ROW
from bbqrec_lab.datasets.importing.report import ImportReport, Understood
from bbqrec_lab.datasets.importing.tables import open_table

ENDINGS = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".parquet")
_ID_NAMES = ("itemid", "itemids", "ids", "id", "keys", "names", "items", "asin")
_BLOCK = 2**14  # items per step


class Vectors(NamedTuple):
    """Vectors of one modality. Args: name: of the modality. array: (rows, d). ids: of the rows; None if by row."""

    name: str
    array: np.ndarray
    ids: list[str] | None


class UnusableFileError(ValueError):
    """A file without usable embeddings; the message is the reason."""


def place_features(
    files: list[Path], items: pl.DataFrame, source_rows: int, bundle: Path, report: ImportReport
) -> None:
    """Write features/MOD.npy for every usable array; a file that is passed over is named with the reason.

    Args: items: item_id and __row (row in the item table, null if none), in the order of items.parquet.
        source_rows: rows of the item table; 0 without one.
    """
    for file in files:
        try:
            for vectors in _read(file):
                place_vectors(vectors, file, items, source_rows, bundle, report)
        except UnusableFileError as error:
            report.passed_over.append((str(file), str(error)))


def _read(file: Path) -> Iterator[Vectors]:
    """The vectors of a file.

    Raises: UnusableFileError with the reason.
    """
    suffix, name = file.suffix.lower(), modality(file.stem)
    try:
        if suffix == ".npy":
            found: object = np.load(file, mmap_mode="r", allow_pickle=False)
        elif suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                found = {key: arrays[key] for key in arrays.files}
        elif suffix in (".pt", ".pth"):
            found = _weights(file)
        elif suffix == ".safetensors":
            from safetensors.numpy import load_file

            found = load_file(file)
        elif suffix == ".parquet":
            yield from _lists(file)
            return
        else:
            raise UnusableFileError(f"not one of {', '.join(ENDINGS)}")
    except (OSError, ValueError, EOFError, KeyError) as error:
        if isinstance(error, UnusableFileError):
            raise
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnusableFileError(f"cannot be read ({cause}): store a plain array of numbers") from error
    yield from _named(name, found) if isinstance(found, Mapping) else [Vectors(name, np.asanyarray(found), None)]


def _weights(file: Path) -> object:
    """Tensors as arrays from a file of torch; nothing in the file is executed."""
    import pickle

    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that it then refuses
            found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UnusableFileError("holds more than tensors: save the tensor alone (torch.save(tensor, FILE))") from error
    return _arrays(found)


def _arrays(found: object) -> object:
    """Tensors as arrays, also inside dicts; a dict of a dict of tensors is opened."""
    import torch

    if isinstance(found, torch.Tensor):
        return (found.float() if found.is_floating_point() else found).detach().numpy()
    if isinstance(found, Mapping):
        return {key: _arrays(value) for key, value in found.items()}
    return found if isinstance(found, list | tuple | int | str | float) else None


def _named(name: str, found: Mapping[object, object]) -> Iterator[Vectors]:
    """The vectors of a file with several arrays: ids beside vectors, one vector per id, or an array per modality."""
    arrays = {str(key): np.asarray(value) for key, value in found.items() if not isinstance(value, Mapping)}
    ids = [key for key, array in arrays.items() if _plain(key) in _ID_NAMES and array.ndim == 1]
    tables = {key: array for key, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "biuf"}
    if tables:
        keys = [str(value) for value in arrays[ids[0]].tolist()] if ids else None
        for key, array in tables.items():
            alone = len(tables) == 1 and (
                ids or _plain(key) in ("arr0", "embeddings", "embedding", "features", "weight")
            )
            yield Vectors(name if alone or key == "arr_0" else modality(key), array, keys)
        return
    rows = {key: array for key, array in arrays.items() if array.ndim == 1 and array.dtype.kind in "biuf"}
    if rows and len({len(array) for array in rows.values()}) == 1:
        yield Vectors(name, np.stack(list(rows.values())), list(rows))
        return
    raise UnusableFileError("no array (items, dimensions), and no dict of one vector per item id")


def _lists(file: Path) -> Iterator[Vectors]:
    """The list columns of a parquet table, by its column of item ids."""
    table = open_table([file], file, file.parent)
    lists = list_columns(table.probe)
    if not lists:
        raise UnusableFileError("a parquet table without a column of lists of numbers")
    column = guess(table, ("item",), {}).get("item")
    frame = pl.read_parquet(file, glob=False)
    ids = frame[column].cast(pl.String).to_list() if column else None
    for name in lists:
        yield Vectors(modality(name if len(lists) > 1 else file.stem), stacked(frame[name]), ids)


def list_columns(probe: pl.DataFrame) -> list[str]:
    """Columns of lists of numbers."""
    return [
        name
        for name, dtype in probe.schema.items()
        if isinstance(dtype, pl.List | pl.Array) and dtype.inner is not None and dtype.inner.is_numeric()
    ]


def stacked(lists: pl.Series) -> np.ndarray:
    """Lists of one length as an array (rows, d); null becomes zeros.

    Raises: UnusableFileError if their lengths differ.
    """
    lists = lists.arr.to_list() if isinstance(lists.dtype, pl.Array) else lists
    widths = lists.drop_nulls().list.len().unique()
    if len(widths) != 1:
        raise UnusableFileError(f"column {lists.name}: lists of {len(widths)} different lengths")
    out = np.zeros((len(lists), widths[0]), np.float32)
    known = lists.is_not_null().to_numpy()
    out[known] = lists.drop_nulls().explode().fill_null(float("nan")).to_numpy().reshape(-1, widths[0])
    return out


def modality(name: str) -> str:
    """A file stem as the name of a modality: letters, digits, _ and - remain."""
    return re.sub(r"[^\w-]+", "_", name).strip("_") or "features"


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def place_vectors(
    vectors: Vectors, file: Path, items: pl.DataFrame, source_rows: int, bundle: Path, report: ImportReport
) -> None:
    """Write the vectors of one modality in the order of the items.

    Raises: UnusableFileError with the reason.
    """
    array = vectors.array[:, None] if vectors.array.ndim == 1 else vectors.array
    codes = vectors.name.endswith("_codes")
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in ("iu" if codes else "biuf"):
        kinds = "integers" if codes else "numbers"
        raise UnusableFileError(f"shape {vectors.array.shape}, type {array.dtype}: store one row of {kinds} per item")
    target = bundle / "features" / f"{vectors.name}.npy"
    if target.exists():
        raise UnusableFileError(f"the modality {vectors.name} is already taken from another file: rename one of them")
    rows, way = _rows(vectors, len(array), items, source_rows)
    target.parent.mkdir(exist_ok=True)
    dtype = array.dtype if codes else np.float32
    out = np.lib.format.open_memmap(target, "w+", dtype, (items.height, array.shape[1]))
    filled = wild = 0
    for start in range(0, items.height, _BLOCK):
        at = rows[start : start + _BLOCK]
        block = np.where(at[:, None] >= 0, array[np.maximum(at, 0)], 0).astype(dtype)
        bad = ~np.isfinite(block).all(axis=1)
        block[bad] = 0
        wild += int(bad.sum())
        filled += int(block.any(axis=1).sum())
        out[start : start + _BLOCK] = block
    out.flush()
    del out
    if not filled and not codes:
        target.unlink()
        raise UnusableFileError(f"all vectors of the {items.height} items are zero or absent")
    if wild:
        report.counts[f"vectors of {vectors.name} with NaN or infinity, counted as missing"] = wild
    how = f"{filled} of {items.height} items, {array.shape[1]} numbers each, {way}"
    report.understood.append(Understood(f"features/{vectors.name}", file.name, how))


def _rows(vectors: Vectors, rows: int, items: pl.DataFrame, source_rows: int) -> tuple[np.ndarray, str]:
    """The row of every item in the array, -1 if it has none, and how it was found.

    Raises: UnusableFileError if neither ids nor the number of rows connect the array with the items.
    """
    if vectors.ids is not None:
        if len(vectors.ids) != rows:
            raise UnusableFileError(f"{len(vectors.ids)} ids for {rows} rows: store one id per row")
        known = pl.DataFrame({"id": vectors.ids, "at": np.arange(rows)}).unique("id", keep="first", maintain_order=True)
        found = items.select(id=pl.col("item_id").cast(pl.String)).join(
            known, on="id", how="left", maintain_order="left"
        )
        if found["at"].null_count() == items.height:
            some = ", ".join(map(repr, vectors.ids[:3]))
            raise UnusableFileError(f"none of its ids ({some}) is an item")
        return found["at"].fill_null(-1).to_numpy(), "by item id"
    if source_rows and rows == source_rows:
        return items[ROW].cast(pl.Int64).fill_null(-1).to_numpy(), "by row of the item table"
    ids = items["item_id"]
    if ids.dtype.is_integer() and not source_rows:
        low, high = int(ids.min()), int(ids.max())
        if low >= 0 and rows == high + 1:
            return ids.cast(pl.Int64).to_numpy(), f"row = item id ({rows} rows, ids {low} to {high})"
        if low >= 1 and rows == high:
            return ids.cast(pl.Int64).to_numpy() - 1, f"row = item id - 1 ({rows} rows, ids {low} to {high})"
    wanted = f"the {source_rows} rows of the item table" if source_rows else f"{items.height} items and no item table"
    raise UnusableFileError(f"{rows} rows without ids, for {wanted}: store ids with the vectors, or one row per item")
