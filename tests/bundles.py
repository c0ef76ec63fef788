"""Small bundles on disk for tests of the bundle reader, and functions that damage them."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

EVENTS, ITEMS = "interactions.parquet", "items.parquet"
FEATURES = {"graph": np.arange(10, dtype=np.float32).reshape(5, 2)}  # row 0 is [0, 1]: present


def interactions() -> pl.DataFrame:
    """Three users, five items (item 14 has no event), sorted by user and time, without ties."""
    rows = [(1, 10, 5), (1, 11, 6), (1, 12, 7), (1, 13, 8)]
    rows += [(2, 12, 3), (2, 11, 4), (2, 10, 9), (3, 13, 1), (3, 10, 2), (3, 12, 3)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def items() -> pl.DataFrame:
    """Five items; the second has an image, the third has no title, the last has no categories."""
    return pl.DataFrame(
        {
            "item_id": [10, 11, 12, 13, 14],
            "title": ["ash", "beech", None, "durian", "elm"],
            "text": ["an ash", "a beech", "a cedar", "a durian", "an elm"],
            "image": [None, "images/11.png", None, None, None],
            "categories": [["tree"], ["tree"], ["tree", "wood"], ["fruit"], None],
        }
    )


def write(
    root: Path,
    events: pl.DataFrame | None = None,
    table: pl.DataFrame | None = None,
    features: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a bundle to folder `root`; missing arguments default to the example of this module."""
    (root / "features").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    Image.new("RGB", (4, 3), "green").save(root / "images/11.png")
    (interactions() if events is None else events).write_parquet(root / EVENTS)
    (items() if table is None else table).write_parquet(root / ITEMS)
    for name, array in (FEATURES if features is None else features).items():
        np.save(root / "features" / f"{name}.npy", array)
    return root


def table(file: str, rows: pl.DataFrame) -> Callable[[Path], None]:
    """Replace a table."""
    return lambda root: rows.write_parquet(root / file)


def columns(file: str, **values: object) -> Callable[[Path], None]:
    """Replace columns of a table, or add them."""
    return lambda root: pl.read_parquet(root / file).with_columns(**values).write_parquet(root / file)


def cell(file: str, column: str, row: int, value: object) -> Callable[[Path], None]:
    """Replace one cell of a table."""

    def apply(root: Path) -> None:
        cells = pl.read_parquet(root / file)[column].to_list()
        cells[row] = value
        columns(file, **{column: pl.Series(cells, strict=False)})(root)

    return apply


def append(*rows: tuple) -> Callable[[Path], None]:
    """Add interactions at the end."""

    def apply(root: Path) -> None:
        given = pl.read_parquet(root / EVENTS)
        pl.concat([given, pl.DataFrame(rows, schema=given.schema, orient="row")]).write_parquet(root / EVENTS)

    return apply


def array(values: object, name: str = "graph") -> Callable[[Path], None]:
    """Replace an array below features/, or add it."""
    return lambda root: np.save(root / f"features/{name}.npy", np.array(values))


def feature(row: int, column: int, value: float) -> Callable[[Path], None]:
    """Replace one number of the features."""
    values = FEATURES["graph"].astype(np.float64)
    values[row, column] = value
    return array(values)


def one_picture(root: Path) -> None:
    """All items have the same picture."""
    columns(ITEMS, image=pl.lit("images/11.png"))(root)


def other_file(root: Path) -> None:
    """A file in features/ that is no array of numpy."""
    (root / "features/text.pt").write_bytes(b"weights")


def picture(content: bytes) -> Callable[[Path], None]:
    """Replace the only image."""
    return lambda root: (root / "images/11.png").write_bytes(content)


def remove(file: str) -> Callable[[Path], None]:
    """Delete a file."""
    return lambda root: (root / file).unlink()


def cut(file: str, keep: int) -> Callable[[Path], None]:
    """Keep only the first bytes of a file."""
    return lambda root: (root / file).write_bytes((root / file).read_bytes()[:keep])


def scramble(file: str) -> Callable[[Path], None]:
    """Overwrite the first pages of a table, but not its footer."""

    def apply(root: Path) -> None:
        content = bytearray((root / file).read_bytes())
        content[4:150] = bytes(146)
        (root / file).write_bytes(content)

    return apply


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    """Apply several damages in order."""

    def apply(root: Path) -> None:
        for damage in damages:
            damage(root)

    return apply


def nothing(root: Path) -> None:
    """Leave the bundle as it is."""


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that declares side x side pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT"]
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
