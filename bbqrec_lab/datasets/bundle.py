"""Read and check a bundle on disk; each error is one line with the fault and its remedy."""

import hashlib
import tokenize
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from bbqrec_lab.datasets.content import is_placeholder, shared_limit, texts_to_encode
from bbqrec_lab.datasets.interactions import filtered, late_rows, numbered, ranks_in, ranks_or_none
from bbqrec_lab.datasets.pictures import BOMB, UNREADABLE, TooLargeError, open_picture
from bbqrec_lab.datasets.pictures import MAX_BYTES as MAX_IMAGE_BYTES
from bbqrec_lab.datasets.pictures import MAX_PIXELS as MAX_IMAGE_PIXELS
from bbqrec_lab.escaping import one_line

SECONDS = 1e8  # Unix seconds since 1973 are above it, positions below
NAMED = 100  # broken pictures that one message names


class BundleError(ValueError):
    """A bundle that cannot be used: one line with file, row and column if known, cause and remedy."""


def fault(file: Path, what: str, remedy: str, row: int | None = None, column: object = None) -> BundleError:
    """The error `file: row R, column C: what; remedy`, on one line. Rows count from 0."""
    place = ", ".join(f"{key} {value}" for key, value in (("row", row), ("column", column)) if value is not None)
    return BundleError(one_line(f"{file}: {place + ': ' if place else ''}{what}; {remedy}"))


def damaged(file: Path, kind: str, error: BaseException) -> BundleError:
    """The error for a file that its reader cannot read, with the first line of the reader's message."""
    remedy = (
        "give the right to read it" if isinstance(error, PermissionError) else "write it again, it may be truncated"
    )
    return fault(file, f"cannot be read as {kind} ({_first_line(error)})", remedy)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def need_file(file: Path) -> None:
    """Check that a path can be read to an end, which a pipe, a device and a socket cannot.

    Raises: BundleError.
    """
    if file.exists() and not file.is_file():
        raise fault(file, "not a file", "give a file; a pipe or a folder cannot be read here")


def is_codes(file: Path) -> bool:
    """Whether an array file contains published codes of a modality instead of features."""
    return file.stem.endswith("_codes")


def array_files(root: Path) -> list[Path]:
    """The array files of a bundle, sorted by the name of the modality."""
    files = (file for file in (root / "features").glob("*.npy") if not file.name.startswith("."))
    return sorted(files, key=lambda file: file.stem)


def part_files(folder: Path) -> list[Path]:
    """The part files of a table that is a folder, by name, without empty ones, markers and checksums (Spark, Dask)."""
    inside = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    hidden = [path for path in inside if any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)]
    return sorted(path for path in inside if path not in hidden and path.suffix != ".crc")


def ignored_files(root: Path) -> dict[str, str]:
    """Files that look like features but are not read, with the reason and the remedy."""
    inside = root / "features"
    found = (
        {} if not inside.is_dir() else {path: "not a .npy file" for path in inside.iterdir() if path.suffix != ".npy"}
    )
    found |= {path: "not in the folder features" for path in root.glob("*.np[yz]")}
    remedy = "store one row per item in features/NAME.npy, or run bbqrec data import on this folder"
    return {path.relative_to(root).as_posix(): f"{why}: {remedy}" for path, why in sorted(found.items())}


def open_arrays(root: Path, modalities: tuple[str, ...], rows: int) -> dict[Path, np.ndarray]:
    """Arrays below features/, memory-mapped but not read, with checked shape and type."""
    arrays = {}
    for file in array_files(root):
        if modalities and not is_codes(file) and file.stem not in modalities:
            continue
        if file.stem in ("id", "id_codes"):
            raise fault(file, "id is the name of the signal of training events", "give the file another name")
        if not file.stem.isprintable():
            raise fault(file.parent, f"the file name {file.name!r} cannot be printed", "give the file another name")
        array = map_array(file)
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


def map_array(file: Path) -> np.ndarray:
    """The array of a file, memory-mapped, if the file has exactly the bytes that its header says.

    Raises: BundleError for anything else, also an archive of arrays with this ending.
    """
    need_file(file)
    try:
        with file.open("rb") as opened:
            start = opened.read(6)
            if start[:4] == b"PK\x03\x04":
                raise fault(file, "an archive of arrays (.npz)", "store one array with numpy.save")
            array = np.load(file, mmap_mode="r", allow_pickle=False)
    except BundleError:
        raise
    except (*UNREADABLE, tokenize.TokenError) as error:
        raise damaged(file, "a numpy array", error) from error
    if array.nbytes + array.offset != file.stat().st_size:
        what = f"{file.stat().st_size} bytes, but its header says {array.nbytes + array.offset}"
        raise fault(file, what, "write it again; a transfer as text changes line ends")
    return array


def check_array(file: Path, array: np.ndarray) -> np.ndarray:
    """Features as finite float32 with at least one row that is not all zero, or codes as non-negative int32."""
    codes = is_codes(file)
    with np.errstate(over="ignore"):
        read = array.astype(np.int32 if codes else np.float32)
    bad = (array < 0) | (array != read) if codes else ~np.isfinite(read)
    if bad.any():
        row, column = np.unravel_index(np.argmax(bad), bad.shape)
        what = "not a 32-bit code of at least 0" if codes else "not a finite float32"
        remedy = "store codes from 0" if codes else "set the whole row to 0 if the modality is missing"
        raise fault(file, f"{what}: {array[row, column]!s}", remedy, int(row), int(column))
    if not codes and not read.any():
        raise fault(file, "every row is zero, so the modality is missing for all items", "remove the file")
    return read


def check_images(root: Path, items: pl.DataFrame, report: dict[str, int | str]) -> pl.DataFrame:
    """Absolute picture paths, null if the file does not exist, and the hash of each file's bytes as `image_hash`.

    A picture that many items share shows none of them: it counts as missing.
    """
    paths: list[str | None] = [None] * items.height
    hashes: list[str | None] = [None] * items.height
    absent, broken = 0, []
    named = items.select("row", "image").with_row_index("at").drop_nulls().sort("row")
    for at, row, image in named.iter_rows():
        if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
            remedy = "give the path inside the bundle, such as images/7.jpg"
            raise fault(root / "items.parquet", f"picture path leaves the bundle: {image!r}", remedy, row, "image")
        try:
            file = (root / image).resolve()
            if not file.is_relative_to(root.resolve()):
                raise fault(root / image, "a link leads out of the bundle", "copy the picture into it", row, "image")
            if not file.is_file():
                absent += 1
                continue
            content = file.read_bytes() if file.stat().st_size <= MAX_IMAGE_BYTES else b""
        except BundleError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # a path with NUL, too long, a loop of links, no rights
            what = f"{image!r} cannot be opened ({_first_line(error)})"
            remedy = "give the path of a file inside the bundle that can be read, or set image to null"
            raise fault(root / "items.parquet", what, remedy, row, "image") from error
        if what := _picture_fault(file, content):
            broken.append((file, row, what))
        paths[at], hashes[at] = str(file), _content_hash(content)
    if broken:
        raise _broken_pictures(root, broken)
    report["missing: picture files"] = absent
    return _without_shared(
        items.with_columns(pl.Series("image", paths, pl.String), pl.Series("image_hash", hashes, pl.String)), report
    )


def _content_hash(content: bytes) -> str:
    """48 hex digits of a picture: 16 as in the hashes that name data in tables, and 32 that tell pictures apart."""
    return "".join(hashlib.blake2b(content, digest_size=size).hexdigest() for size in (8, 16))


def _without_shared(items: pl.DataFrame, report: dict[str, int | str]) -> pl.DataFrame:
    """The items without the pictures that at least `shared_limit` items have."""
    has = pl.col("image_hash").is_not_null()
    limit = shared_limit(items["image_hash"].count())
    shared = items.select(has & (pl.len().over("image_hash") >= limit)).to_series()
    report[f"missing: pictures that {limit} or more items share, items"] = int(shared.sum())
    report["missing: such pictures"] = items.filter(shared)["image_hash"].n_unique()
    return items.with_columns(pl.when(~shared).then(pl.col("image", "image_hash")))


def _picture_fault(file: Path, content: bytes) -> str:
    """What is wrong with a picture file by its header and its size; empty if nothing is."""
    size = file.stat().st_size
    if size > MAX_IMAGE_BYTES:
        return f"{size} bytes, more than {MAX_IMAGE_BYTES}"
    try:
        with open_picture(BytesIO(content)):
            return ""
    except BOMB:
        return f"more than {MAX_IMAGE_PIXELS} pixels"
    except TooLargeError as error:
        return str(error)
    except UNREADABLE:
        return f"not a picture that can be read ({size} bytes)"


def _broken_pictures(root: Path, broken: list[tuple[Path, int, str]]) -> BundleError:
    """One error that names all broken pictures, with their rows."""
    if len(broken) == 1:
        file, row, what = broken[0]
        remedy = f"replace it, or set image to null in row {row} of items.parquet"
        return fault(file, what, remedy, column="image")
    named = ", ".join(f"{file.name} (row {row}: {what})" for file, row, what in broken[:NAMED])
    rest = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    what = f"{len(broken)} broken pictures: {named}{rest}"
    return fault(root / "items.parquet", what, "replace them, or set image to null in these rows", column="image")


_WANTED = {  # column: kind of values
    "interactions.parquet": {"user_id": "id", "item_id": "id", "timestamp": "time", "rating": "number"},
    "items.parquet": {"item_id": "id", "title": "text", "text": "text", "image": "text", "categories": "texts"},
}
_REQUIRED = ("user_id", "item_id", "timestamp")
_REMEDY = {
    "id": "store integers or strings",
    "time": "store integer or float seconds, or datetimes",
    "number": "store numbers, or leave the column out",
    "text": "store strings, or leave the column out",
    "texts": "store a list of strings per item, or leave the column out",
}
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


class Bundle(NamedTuple):
    """A checked bundle in canonical order: items and users sorted by original id, for any row order of the files.

    Args: events: columns user and item (ranks in `users` and `items`, from 0), time, row (in the file); in file order.
        users: original ids, sorted. items: the item table, N rows sorted by item_id, with image_hash next to image.
        features: raw float32 arrays (N, d). codes: published codes (N, L). ticks: units of `time` per second.
        report: what was dropped, kept or missing, by reason.
    """

    events: pl.DataFrame
    users: pl.Series
    items: pl.DataFrame
    features: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]
    ticks: int
    report: dict[str, int | str]


def read_checked(path: str | Path, modalities: tuple[str, ...] = ()) -> Bundle:
    """Read the bundle in folder `path`, keep the named modalities (empty: all), and reject invalid content.

    Cheap checks come first: folders, schemas and array headers of every file, then values, then pictures.

    Raises: BundleError for every fault that docs/data.md lists as an error.
    """
    root = Path(path)
    try:
        there = root.is_dir() and list(root.iterdir()) is not None
    except (OSError, ValueError) as error:
        raise damaged(root, "a folder", error) from error
    if not there:
        raise fault(root, "no such folder", "give the folder that holds interactions.parquet and items.parquet")
    scans = {name: _scan(root / name, wanted) for name, wanted in _WANTED.items()}
    items = _load(root / "items.parquet", scans["items.parquet"]).rechunk()
    arrays = open_arrays(root, modalities, rows=items.height)
    report: dict[str, int | str] = {f"ignored: {name}": why for name, why in ignored_files(root).items()}
    items = _check_items(root, items, report)
    events, users, ticks = _check_events(root, scans["interactions.parquet"].select(_REQUIRED), items, report)
    read = {file: check_array(file, array)[items["row"].to_numpy()] for file, array in arrays.items()}
    items = check_images(root, items, report)
    _check_names(root, modalities, items)
    codes = {file.stem.removesuffix("_codes"): read[file] for file in read if is_codes(file)}
    features = {file.stem: read[file] for file in read if not is_codes(file)}
    other = (file for file in (root / "features").glob("*") if file.suffix != ".npy")
    report |= {f"passed over: features/{file.name}": "not an .npy file" for file in sorted(other)}
    return Bundle(events, users, items.drop("row"), features, codes, ticks, report)


def select(bundle: Bundle, users: pl.Series, items: pl.Series) -> Bundle:
    """The bundle with only the users and items of the given sorted ranks, all numbered again."""
    events = bundle.events.with_columns(
        user=ranks_in(bundle.events["user"], users), item=ranks_in(bundle.events["item"], items)
    )
    rows = items.to_numpy()
    arrays = [{name: array[rows] for name, array in arrays.items()} for arrays in (bundle.features, bundle.codes)]
    return bundle._replace(
        events=events, users=bundle.users[users], items=bundle.items[rows], features=arrays[0], codes=arrays[1]
    )


def _scan(file: Path, wanted: dict[str, str]) -> pl.LazyFrame:
    """A lazy table with all required columns and usable types."""
    files = part_files(file) if file.is_dir() else [file]
    if not file.exists():
        raise fault(file, "no such file", "a bundle needs it; see docs/data.md for its columns")
    if not files:
        raise fault(file, "a folder without part files", "write it again")
    need_file(files[0])
    if files[0].stat().st_size == 0:
        raise fault(file, "the file is empty (0 bytes)", "write it again")
    try:
        scans = [pl.scan_parquet(part, glob=False) for part in files]
        scan = scans[0] if len(scans) == 1 else pl.concat(scans, how="diagonal_relaxed")
        schema = scan.collect_schema()
    except _UNREADABLE as error:
        raise damaged(file, "a parquet table", error) from error
    for column, kind in wanted.items():
        if column in schema and not _fits(schema[column], kind):
            raise fault(file, f"wrong type {schema[column]}", _REMEDY[kind], column=column)
        if column in _REQUIRED and column not in schema:
            raise fault(file, "missing column", f"add it ({_REMEDY[kind]}); found {', '.join(schema)}", column=column)
    return scan


def _fits(dtype: Any, kind: str) -> bool:  # Any: beartype cannot check pl.DataType
    """Whether a column of type `dtype` can be used as `kind`; only optional columns may have the type Null."""
    text = dtype in (pl.String, pl.Categorical, pl.Enum)
    return {
        "id": dtype.is_integer() or text,
        "time": dtype.is_integer() or dtype.is_float() or dtype in (pl.Datetime, pl.Date),
        "number": dtype.is_numeric() or dtype == pl.Null,
        "text": text or dtype == pl.Null,
        "texts": dtype == pl.Null or (isinstance(dtype, pl.List | pl.Array) and _fits(dtype.inner, "text")),
    }[kind]


def _load(file: Path, frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows of a scanned table, in the chunks of the file."""
    try:
        read = frame.collect()
    except _UNREADABLE as error:
        raise damaged(file, "a parquet table", error) from error
    if read.is_empty():
        raise fault(file, "the table has no rows", "write it again")
    return read


def _refuse(file: Path, column: pl.Series, bad: pl.Series, what: str, remedy: str) -> None:
    """Raise an error for the first row where `bad` is true; the message names the value."""
    row = bad.fill_null(False).arg_max()
    if row is not None and bad[row]:
        raise fault(file, f"{what}: {column[row]!r}", remedy, row, column.name)


def _plain_ids(file: Path, ids: pl.Series) -> pl.Series:
    """Ids as 64-bit integers or strings, so integers of different widths can be compared."""
    plain = ids.cast(pl.Int64, strict=False) if ids.dtype.is_integer() else ids.cast(pl.String)
    _refuse(file, ids, plain.is_null() & ids.is_not_null(), "id beyond 64 bits", "store it as a string")
    return plain


def _check_items(root: Path, items: pl.DataFrame, report: dict[str, int | str]) -> pl.DataFrame:
    """The item table sorted by id, with all optional columns; blank values and texts that say nothing are null."""
    file = root / "items.parquet"
    ids = _plain_ids(file, items["item_id"])
    _refuse(file, ids, ids.is_null(), "null item id", "give every item an id (features use this table's row order)")
    twice = ~ids.is_first_distinct()
    _refuse(file, ids, twice, "duplicate item id", "keep one row per item, here and in features/*.npy")
    optional = {name: kind for name, kind in _WANTED[file.name].items() if kind != "id"}
    items = items.drop("row", "image_hash", strict=False).with_row_index("row").with_columns(ids)
    items = items.with_columns(pl.lit(None).alias(name) for name in optional if name not in items.columns)
    types = {name: pl.String if kind == "text" else pl.List(pl.String) for name, kind in optional.items()}
    texts = pl.col("title", "text", "image")
    items = items.cast(types).with_columns(
        pl.when(texts.str.strip_chars() != "").then(texts),
        pl.when(pl.col("categories").list.len() > 0).then(pl.col("categories")),
    )
    said = is_placeholder(items["text"])
    report["missing: texts that are placeholders (such as no description)"] = int(said.sum())
    items = items.with_columns(text=items["text"].set(said, None))
    return items.select("item_id", *optional, pl.exclude("item_id", *optional)).sort("item_id")


def _check_events(
    root: Path, scan: pl.LazyFrame, items: pl.DataFrame, report: dict[str, int | str]
) -> tuple[pl.DataFrame, pl.Series, int]:
    """The interactions as ranks (user, item, time, row), the sorted user ids, and the ticks per second."""
    file = root / "interactions.parquet"
    user_id = _plain_ids(file, _load(file, scan.select("user_id")).to_series())  # one column in memory at a time
    report["rows read"] = len(user_id)
    users, user = numbered(user_id)
    there = {"user_id": user_id.is_not_null()}
    del user_id
    item_id = _plain_ids(file, _load(file, scan.select("item_id")).to_series())
    if item_id.dtype != items["item_id"].dtype:
        types = f"item ids are {item_id.dtype} here and {items['item_id'].dtype} in items.parquet"
        raise fault(file, types, "use one type in both", column="item_id")
    item = ranks_or_none(item_id, items["item_id"])
    there["item_id"] = item_id.is_not_null()
    unknown = pl.Series(item < 0) & there["item_id"]
    _refuse(file, item_id, unknown, "item is not in items.parquet", "add it there, or remove its rows here")
    del item_id, unknown
    time, ticks = _check_times(file, _load(file, scan.select("timestamp")).to_series())
    time, ticks, unit = recognise_unit(time, ticks)
    if unit:
        report["timestamps are not seconds"] = unit
    there["timestamp"] = time.is_not_null()
    kept = pl.repeat(True, len(time), eager=True)
    for name in _REQUIRED:
        before, kept = kept, kept & there[name]
        report[f"dropped: null {name}"] = int(before.sum()) - int(kept.sum())
    columns = {"row": kept.arg_true().cast(pl.UInt32)}
    if not kept.all():
        user, item = (filtered(pl.Series(ranks), kept, into=ranks) for ranks in (user, item))
    columns |= {"user": user, "item": item}
    columns["time"] = filtered(time, kept, into=np.empty(int(kept.sum()), time.head(0).to_numpy().dtype))
    events = pl.DataFrame(columns)
    report["rows out of order in time, now sorted"] = late_rows(events)
    return events, users, ticks


def _check_times(file: Path, given: pl.Series) -> tuple[pl.Series, int]:
    """Times as numbers that keep the order at full resolution, and the number of their units per second."""
    time, ticks = given, 1
    if given.dtype == pl.Date:
        time = given.cast(pl.Int64) * 86_400
    elif isinstance(given.dtype, pl.Datetime):
        time, ticks = given.to_physical(), {"ms": 10**3, "us": 10**6, "ns": 10**9}[given.dtype.time_unit]
    if time.dtype.is_float():
        time = time.cast(pl.Float64)
        wild = ~time.is_finite() | (time.abs() > 2.0**62)
        _refuse(file, given, wild, "not a time", "store finite seconds, or null if unknown")
    else:
        time = time.cast(pl.Int64, strict=False)
        _refuse(file, given, time.is_null() & given.is_not_null(), "time beyond 64 bits", "store seconds")
    _refuse(file, given, time < 0, "negative time", "store seconds since 1970, or positions from 0")
    return time, ticks


def encodable(items: pl.DataFrame) -> dict[str, pl.Series]:
    """What an encoder reads of each item, by modality: its text (or title) and the hash of its picture, or null."""
    return {"text": texts_to_encode(items), "image": items["image_hash"]}


def recognise_unit(time: pl.Series, ticks: int) -> tuple[pl.Series, int, str]:
    """Times with the ticks per second of their size: Unix seconds have at most 11 digits.

    Times scaled to 0..1 have no unit: they become their rank, so that gaps and ties are judged at full resolution.

    Returns: times, ticks, and what was recognised (empty for seconds, positions and datetimes).
    """
    highest = time.max()
    if ticks != 1 or highest is None:
        return time, ticks, ""
    if highest <= 1 and time.dtype.is_float() and (time != time.floor()).any():
        ranks = time.rank("dense").cast(pl.Int64) - 1
        return ranks, 1, "scaled to 0..1: their order alone counts"
    if highest < SECONDS * 1000:
        return time, 1, ""
    middle = time.median()  # not the highest, which a single slip may have made
    for name, unit in (("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)):
        if SECONDS * unit <= middle < SECONDS * unit * 1000:
            return time, unit, f"{name}, by their size"
    return time, 1, ""


def _check_names(root: Path, modalities: tuple[str, ...], items: pl.DataFrame) -> None:
    """Check that every requested modality exists: precomputed, or as texts or pictures to encode."""
    there = {name for name, column in encodable(items).items() if column.count()}
    there |= {file.stem for file in array_files(root) if not is_codes(file)}
    unknown = [name for name in modalities if name not in there]
    if unknown:
        raise fault(root, f"no modality {unknown[0]!r}", f"choose from {', '.join(sorted(there)) or 'none'}")
