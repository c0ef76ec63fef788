"""Faults in one line, and the checks of a bundle's arrays and pictures."""

import hashlib
import warnings
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl
from PIL import Image

MAX_IMAGE_BYTES = 50 * 2**20  # a poster of 224 pixels has 12 kB; beyond this a file is no thumbnail but a mistake
MAX_IMAGE_PIXELS = 50_000_000  # decoded at three bytes a pixel: 150 MB, and below the size at which Pillow warns


class BundleError(ValueError):
    """A bundle that cannot be used: one line with the file, the row and column if any, the cause and the remedy."""


def fault(file: Path, what: str, remedy: str, row: int | None = None, column: object = None) -> BundleError:
    """The one line of a problem: `file: row R, column C: what; remedy`. Rows count from 0."""
    place = ", ".join(f"{key} {value}" for key, value in (("row", row), ("column", column)) if value is not None)
    return BundleError(" ".join(f"{file}: {place + ': ' if place else ''}{what}; {remedy}".split()))


def damaged(file: Path, kind: str, error: BaseException) -> BundleError:
    """The one line for a file that its reader gave up on, with the first line of the reader's own words."""
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return fault(file, f"cannot be read as {kind} ({cause})", "write it again, it may be truncated")


def is_codes(file: Path) -> bool:
    """Whether an array file holds published codes of a modality and not features."""
    return file.stem.endswith("_codes")


def array_files(root: Path) -> list[Path]:
    """The array files of a bundle, by name of the modality."""
    return sorted((root / "features").glob("*.npy"), key=lambda file: file.stem)


def open_arrays(root: Path, modalities: tuple[str, ...], rows: int) -> dict[Path, np.ndarray]:
    """Arrays below features/, mapped and not read, after a look at their shape and type."""
    arrays = {}
    for file in array_files(root):
        if modalities and not is_codes(file) and file.stem not in modalities:
            continue
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise damaged(file, "a numpy array", error) from error
        kinds, words = ("iu", "integers") if is_codes(file) else ("biuf", "numbers")
        if array.dtype.kind not in kinds:
            raise fault(file, f"wrong type {array.dtype}", f"store {words}")
        if array.ndim != 2 or array.shape[1] == 0:
            raise fault(file, f"shape {array.shape} is not (items, dimensions)", "store one row per item")
        if len(array) != rows:
            remedy = "store one row per item, in the order of items.parquet"
            raise fault(file, f"{len(array)} rows for the {rows} items of items.parquet", remedy)
        arrays[file] = array
    return arrays


def check_array(file: Path, array: np.ndarray) -> np.ndarray:
    """Features as finite float32 with at least one row that is not all zero, or codes as non-negative int32."""
    codes = is_codes(file)
    with np.errstate(over="ignore"):
        read = array.astype(np.int32 if codes else np.float32)
    bad = (array < 0) | (array != read) if codes else ~np.isfinite(read)
    if bad.any():
        row, column = np.unravel_index(np.argmax(bad), bad.shape)
        what = "not a code from 0 upwards" if codes else "not a finite float32"
        remedy = "store codes from 0" if codes else "make the whole row 0 where the modality is missing"
        raise fault(file, f"{what}: {array[row, column]!s}", remedy, int(row), int(column))
    if not codes and not read.any():
        raise fault(file, "every row is zero, so the modality is missing for all items", "remove the file")
    return read


def check_images(root: Path, items: pl.DataFrame, report: dict[str, int | str]) -> pl.DataFrame:
    """Absolute picture paths, null where the file is not there, and the hash of each file's bytes as `image_hash`."""
    paths: list[str | None] = [None] * items.height
    hashes: list[str | None] = [None] * items.height
    absent = 0
    named = items.select("row", "image").with_row_index("at").drop_nulls().sort("row")
    for at, row, image in named.iter_rows():
        if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
            remedy = "give the path inside the bundle, such as images/7.jpg"
            raise fault(root / "items.parquet", f"picture path leaves the bundle: {image!r}", remedy, row, "image")
        file = (root / image).resolve()
        if file.is_file():
            paths[at], hashes[at] = str(file), _check_image(file, row)
        else:
            absent += 1
    report["missing: picture files"] = absent
    return items.with_columns(pl.Series("image", paths, pl.String), pl.Series("image_hash", hashes, pl.String))


def _check_image(file: Path, row: int) -> str:
    """Hash of a picture file, once its header has been read and its size is one that can be decoded."""
    remedy = f"replace it, or set image to null in row {row} of items.parquet"
    size = file.stat().st_size
    if size > MAX_IMAGE_BYTES:
        raise fault(file, f"{size} bytes, more than {MAX_IMAGE_BYTES}", remedy, column="image")
    content = file.read_bytes()
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            width, height = Image.open(BytesIO(content)).size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise fault(file, f"{error}, more than {MAX_IMAGE_PIXELS} pixels", remedy, column="image") from error
    except (OSError, ValueError) as error:
        raise fault(file, f"not a picture that can be read ({size} bytes)", remedy, column="image") from error
    if width * height > MAX_IMAGE_PIXELS:
        raise fault(file, f"{width} x {height}, more than {MAX_IMAGE_PIXELS} pixels", remedy, column="image")
    return hashlib.blake2b(content, digest_size=8).hexdigest()
