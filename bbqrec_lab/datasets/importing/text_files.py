"""Text files of any compression and encoding: samples, the line of a record, and UTF-8 copies that polars can scan."""

import ast
import codecs
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard

COMPRESSED = (".gz", ".zst")
FAULT = "__fault"  # column of a scan: what is wrong with a whole record; null if nothing is
_BLOCK = 2**22  # bytes per step of a copy
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
UNIT = "\x1f"  # ASCII's own mark between fields; stands for a separator of two characters


def plain_suffix(file: Path) -> str:
    """The ending of a file name in lower case, without that of its compression: `.csv` of `Orders.CSV.gz`."""
    name = file.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def open_bytes(file: Path) -> Any:  # a stream of bytes: beartype knows no common type of gzip and zstandard
    """The decompressed bytes of a file."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rb")
    if file.suffix.lower() == ".zst":
        return zstandard.open(file, "rb")
    return file.open("rb")


def sample(file: Path, size: int = 2**18) -> tuple[str, str]:
    """The whole lines among the first bytes of a file, and the encoding that was found: by its mark, or by trial."""
    with open_bytes(file) as stream:
        head = stream.read(size)
        cut = len(head) == size and bool(stream.read(1))
    encoding = next((name for mark, name in _BOMS.items() if head.startswith(mark)), "utf-8")
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # a character at the cut may be incomplete
    except UnicodeDecodeError:
        encoding, text = "latin-1", head.decode("latin-1")
    return text.rpartition("\n")[0] if cut and "\n" in text else text, encoding


def open_text(file: Path, encoding: str) -> io.TextIOWrapper:
    """The decompressed, decoded lines of a file; only a newline ends a line."""
    return io.TextIOWrapper(open_bytes(file), encoding, newline="\n")


def records(file: Path, encoding: str, quoted: bool, blank: bool) -> Iterator[tuple[int, str]]:
    """Each record with the number of its first line (from 1); quotes may contain line breaks.

    Args: blank: a blank line is a record too.
    """
    held, first = "", 0
    with open_text(file, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if not held and not blank and not line.strip():
                continue
            first = first if held else number
            held += line
            if not quoted or held.count('"') % 2 == 0:
                yield first, held.rstrip("\r\n")
                held = ""
    if held:
        yield first, held.rstrip("\r\n")


def utf8_copy(file: Path, to: Path, encoding: str, separator: str = "") -> str:
    """Copy a text file to UTF-8, block by block, with `separator` replaced by one control character.

    Returns: the encoding that was read: that given, or latin-1 if the content contradicts UTF-8.
    """
    try:
        with open_text(file, encoding) as source, to.open("w", encoding="utf-8", newline="") as target:
            rest = ""
            while block := source.read(_BLOCK):
                lines, newline, rest = (rest + block).rpartition("\n")  # a separator never spans two lines
                target.write((lines + newline).replace(separator, UNIT) if separator else lines + newline)
            target.write(rest.replace(separator, UNIT) if separator else rest)
    except UnicodeDecodeError:
        return utf8_copy(file, to, "latin-1", separator)
    return encoding


def json_copy(file: Path, to: Path, columns: Sequence[str]) -> None:
    """Copy JSON lines or Python-literal lines as JSON lines with only some columns, block by block.

    A line that is neither becomes {"__fault": reason}, so that row numbers stay those of the file.
    """
    with to.open("w", encoding="utf-8") as target, open_bytes(file) as lines:
        for line in lines:
            text = line.decode("utf-8", errors="replace").strip("\ufeff \t\r\n")
            if text:
                target.write(json.dumps(_chosen(text, columns)) + "\n")


def _chosen(text: str, columns: Sequence[str]) -> dict[str, object]:
    """Some entries of the object in a line."""
    try:
        found = as_object(text)
    except ValueError as error:
        return {FAULT: str(error)}
    return {name: found[name] for name in columns if name in found}


def as_object(text: str) -> dict[str, object]:
    """The JSON object or Python dict that a line holds.

    Raises: ValueError if it holds neither.
    """
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)  # literals only: nothing is executed
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise ValueError(f"neither JSON nor a Python literal: {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise ValueError(f"not an object with named values: {text[:80]!r}")
    return found
