"""Malformed bundles and pictures by number: every number gives the same damage on every machine."""

import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import bundles
import numpy as np
import polars as pl
from PIL import Image

from bbqrec_lab.datasets import pictures
from bbqrec_lab.datasets.bundle import BundleError
from bbqrec_lab.datasets.reading import read_bundle, statistics
from bbqrec_lab.settings import DataConfig

Damage = Callable[[Path, np.random.Generator], None]
FILES = ("interactions.parquet", "items.parquet", "features/graph.npy", "images/11.png")


class TooSlow(Exception):
    """Something hangs."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` if the block takes longer."""

    def late(signum: int, frame: object) -> None:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def scrambled(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with one kind of damage: turned bits, a cut, a hole, a doubled end, other line ends, foreign bytes."""
    way, found = int(rng.integers(8)), bytearray(content)
    size = max(len(found), 1)
    if way == 0:
        for at in rng.integers(0, size, int(rng.integers(1, 9))):
            found[at] ^= 1 << int(rng.integers(8))
    elif way == 1:
        del found[int(rng.integers(size)) :]
    elif way == 2:
        start = int(rng.integers(size))
        found[start : start + 16] = bytes(len(found[start : start + 16]))
    elif way == 3:
        found += found[-int(rng.integers(1, 64)) :]
    elif way == 4:
        return content.replace(b"\n", b"\r\n") + b"\r\n"
    elif way == 5:
        at = int(rng.integers(size))
        found[at:at] = rng.bytes(int(rng.integers(1, 32)))
    elif way == 6:
        start = int(rng.integers(min(size, 64)))
        found[start : start + 4] = struct.pack("<i", int(rng.choice([-1, 2**31 - 1, 0, 2**24])))
    else:
        found[: len(found) // 2] = rng.bytes(len(found) // 2)
    return bytes(found)


def damage_bytes(root: Path, rng: np.random.Generator) -> None:
    file = root / str(rng.choice(FILES))
    file.write_bytes(scrambled(file.read_bytes(), rng))


def replace_file(root: Path, rng: np.random.Generator) -> None:
    """Something else than a file, or a file of another kind, under the name of a file."""
    file = root / str(rng.choice(FILES))
    content = file.read_bytes()
    file.unlink()
    ways: list[Callable[[], object]] = [
        lambda: os.mkfifo(file),
        file.mkdir,
        lambda: file.symlink_to(file.name),
        lambda: file.symlink_to("/dev/zero"),
        lambda: file.symlink_to("/etc/hostname"),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        lambda: np.savez(file.open("wb"), a=np.ones((5, 2))),
        lambda: file.write_text('{"not": "this"}\n' * 50),
        lambda: (file.write_bytes(content), file.chmod(0)),
        lambda: (file.mkdir(), (file / "part-0.parquet").write_bytes(content[: len(content) // 2])),
    ]
    ways[int(rng.integers(len(ways)))]()


CELLS: tuple[object, ...] = (
    *(
        None,
        -1,
        0,
        2**62,
        -(2**62),
        float("nan"),
        float("inf"),
        -0.0,
        1e300,
        True,
        "",
        " ",
        "a\0b",
        "\x1b[2J",
        "\u202e",
    ),
    *("../x.png", "/etc/passwd", "a" * 5000, "images/11.png\0.jpg", "images/../../x.png", "C:\\x.png", "images", "."),
    *(
        [],
        [None],
        ["a", None],
        [["a"]],
        {"a": 1},
        b"bytes",
        "~~x~~",
        "=1+1",
        "<script>",
        "\ud83d".encode("utf-8", "replace"),
    ),
)


def damage_cell(root: Path, rng: np.random.Generator) -> None:
    """One value of a table, or a whole column, is something else."""
    name = str(rng.choice(FILES[:2]))
    table = pl.read_parquet(root / name)
    column = str(rng.choice(table.columns))
    values = table[column].to_list()
    value = CELLS[int(rng.integers(len(CELLS)))]
    rows = range(len(values)) if rng.random() < 0.3 else [int(rng.integers(len(values)))]
    for row in rows:
        values[row] = value
    try:
        changed = pl.Series(column, values, strict=False)
        table.with_columns(changed).write_parquet(root / name)
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError, pl.exceptions.PanicException):
        table.drop(column).write_parquet(root / name)


def damage_type(root: Path, rng: np.random.Generator) -> None:
    """A column has another type."""
    name = str(rng.choice(FILES[:2]))
    table = pl.read_parquet(root / name)
    column = str(rng.choice(table.columns))
    types = [
        pl.Float32,
        pl.UInt8,
        pl.Binary,
        pl.Boolean,
        pl.Null,
        pl.Date,
        pl.Datetime("ns"),
        pl.Duration,
        pl.Decimal(9, 2),
    ]
    types += [pl.Categorical, pl.List(pl.Int64), pl.Array(pl.String, 1), pl.Struct({"a": pl.Int64}), pl.Object, pl.Time]
    kind = types[int(rng.integers(len(types)))]
    try:
        table.with_columns(pl.col(column).cast(kind, strict=False)).write_parquet(root / name)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        table.select(pl.struct(pl.all()).alias(column)).write_parquet(root / name)


def damage_rows(root: Path, rng: np.random.Generator) -> None:
    """A table of no, few, doubled, shuffled or null rows."""
    name = str(rng.choice(FILES[:2]))
    table = pl.read_parquet(root / name)
    ways = [table.clear(), table[:1], pl.concat([table, table]), table.sample(fraction=1, shuffle=True, seed=1)]
    ways += [
        table.select(pl.lit(None).alias(column) for column in table.columns),
        table[::-1],
        table.drop(table.columns),
    ]
    ways += [table.rename({table.columns[0]: "\x1b]0;x\x07"}), table.select(pl.all().repeat_by(2))]
    ways[int(rng.integers(len(ways)))].write_parquet(root / name)


def damage_array(root: Path, rng: np.random.Generator) -> None:
    """Features of another type, shape, size or name."""
    arrays = [
        np.ones(5),
        np.ones((5, 0)),
        np.ones((0, 2)),
        np.ones((5, 2, 2)),
        np.ones((4, 2)),
        np.ones((5, 2), complex),
    ]
    arrays += [np.full((5, 2), np.nan), np.full((5, 2), 1e308), np.ones((5, 2), bool), np.zeros((5, 2)), np.array(1.0)]
    arrays += [
        np.array([["a", "b"]] * 5),
        np.ones((5, 2), [("a", "f4")]),
        np.ones((5, 2), "M8[s]"),
        np.ones((5, 2), "f2"),
    ]
    arrays += [
        np.ones((5, 2), ">f8"),
        np.asfortranarray(np.ones((5, 2))),
        np.ones((5, 2), np.uint64) * np.uint64(2**63),
    ]
    names = [
        "graph",
        "id",
        "id_codes",
        "graph_codes",
        "text",
        "a\nb",
        "\x1b[31m",
        " ",
        ".hidden",
        "x" * 200,
        "\udcff",
        "é",
        "a,b=c",
    ]
    name = names[int(rng.integers(len(names)))]
    np.save(root / "features" / f"{name}.npy", arrays[int(rng.integers(len(arrays)))])


DAMAGES: tuple[Damage, ...] = (damage_cell, damage_type, damage_rows, damage_array, damage_bytes, replace_file)
OPTIONS = (
    {},
    {},
    {"k_core": 2},
    {"cold_items": 0.99},
    {"cold_items": 0.6},
    {"modalities": ("graph",)},
    {"time_ties": "file"},
)


def malformed_bundle(root: Path, number: int) -> dict[str, object]:
    """Write the small bundle with one to three damages; returns options to read it with."""
    rng = np.random.default_rng([number, 17])
    bundles.write(root)
    for damage in sorted(
        rng.permutation(len(DAMAGES))[: int(rng.integers(1, 4))]
    ):  # a pipe comes last: it cannot be read
        try:
            DAMAGES[damage](root, rng)
        except (OSError, ValueError, TypeError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            continue  # the file was damaged before, so that it cannot be damaged in this way
    return OPTIONS[int(rng.integers(len(OPTIONS)))]


def mutated_picture(number: int) -> bytes:
    """A small picture of any format that is read, and of some that are not, with one damage or more."""
    rng = np.random.default_rng([number, 18])
    pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    forms = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "TGA", "EPS", "PDF")
    kind, file = forms[int(rng.integers(len(forms)))], BytesIO()
    modes = ("RGB", "L", "P", "1") if kind not in ("JPEG", "WEBP", "ICO", "TGA") else ("RGB", "L")
    picture = Image.fromarray(pixels).convert(modes[int(rng.integers(len(modes)))])
    try:
        picture.save(file, kind)
    except (OSError, ValueError, KeyError):
        Image.fromarray(pixels).save(file, "PNG")
    content = file.getvalue()
    for _ in range(int(rng.integers(1, 4))):
        content = scrambled(content, rng)
    return content


def read_or_refuse(root: Path, number: int) -> str:
    """The refusal of a malformed bundle, or an empty text if it can be read after all."""
    options = DataConfig(**malformed_bundle(root, number))
    with within(20):
        try:
            statistics(read_bundle(root, options))
        except BundleError as error:
            line = str(error)
            assert line.isprintable(), line
            assert line.startswith(str(root)), line
            assert "; " in line, f"no remedy: {line}"
            return line
    return ""


def decode_or_refuse(file: Path, number: int) -> bool:
    """Whether a mutated picture can be decoded."""
    file.write_bytes(mutated_picture(number))
    with within(20):
        try:
            assert pictures.read_picture(file).mode == "RGB"
        except pictures.UNREADABLE:
            return False
    return True
