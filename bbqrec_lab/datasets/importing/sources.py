"""Find the tables and arrays in what a user gives: one file, part files of one table, or the folder of a dataset."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bbqrec_lab.datasets.bundle import need_file
from bbqrec_lab.datasets.importing.embeddings import ENDINGS as ARRAYS
from bbqrec_lab.datasets.importing.report import refused
from bbqrec_lab.datasets.importing.tables import ENDINGS
from bbqrec_lab.datasets.importing.text_files import plain_suffix

_PART = re.compile(r"^(part[-_.]?\d|\d+[._-]|data[-_]?\d|train-\d+-of-)", re.IGNORECASE)
_EVENTS = re.compile(
    r"^(interactions?|events?|ratings?|orders?|transactions?|purchases?|sales|clicks?|views?|logs?|u\.data)\b"
    r"|reviews?\b|reviews?_|\.inter$",
    re.IGNORECASE,
)
_ITEMS = re.compile(
    r"^(items?|movies?|films?|products?|articles?|books?|catalogu?e?|goods|business(es)?)\b|^meta|business\b|\.item$",
    re.IGNORECASE,
)


@dataclass
class Found:
    """What lies in a source. Args: events, items: files of the tables; items may be empty. arrays: files of features.
    images: folder of pictures, if the source has one. passed_over: other files, with the reason.
    """

    name: Path
    events: list[Path]
    items: list[Path] = field(default_factory=list)
    items_name: Path | None = None
    arrays: list[Path] = field(default_factory=list)
    images: Path | None = None
    passed_over: list[tuple[str, str]] = field(default_factory=list)


def locate(source: Path, items: Path | None) -> Found:
    """The files of a source.

    Args: items: file or folder of the item table, if the user gave one.
    Raises: BundleError if a path does not exist, or if a folder has no table or several that could be the interactions.
    """
    if not source.exists():
        raise refused(
            source, "no such file or folder", "give the table of the interactions, or the folder that holds it"
        )
    for path in (source, items):
        if path is not None and path.exists() and not path.is_dir():
            need_file(path)
    found = _folder(source, items is None) if source.is_dir() else Found(source, [source])
    if items is not None:
        if not items.exists():
            raise refused(items, "no such file or folder", "give the table of the items with --items")
        found.items, found.items_name = _parts(items) if items.is_dir() else [items], items
    return found


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder, sorted by name, without markers of Spark (_SUCCESS), checksums and hidden files."""
    real = (path for path in folder.iterdir() if path.is_file() or path.is_dir())  # reading a pipe would never end
    return sorted(path for path in real if not path.name.startswith((".", "_")) and path.suffix != ".crc")


def _parts(folder: Path) -> list[Path]:
    """The files of one table below a folder, by name, without empty ones.

    Raises: BundleError if there is none, or if their endings differ.
    """
    files, below = [], [folder]
    for place in below:
        for path in _visible(place):
            if path.is_dir():
                below.append(path)
            elif path.stat().st_size and plain_suffix(path) in (*ENDINGS, ""):
                files.append(path)
    kinds = sorted({plain_suffix(path) for path in files})
    if not files:
        raise refused(folder, "no part file of a table", f"give files ending in {', '.join(ENDINGS)}")
    if len(kinds) > 1:
        raise refused(folder, f"files of several kinds ({', '.join(kinds)})", "give one of them")
    return sorted(files)


def _is_table(path: Path) -> bool:
    """Whether an entry is a table: a file with the ending of one, or a folder of part files."""
    if path.is_dir():
        return any(_PART.match(file.name) or plain_suffix(path) in ENDINGS for file in _visible(path))
    return plain_suffix(path) in ENDINGS and path.stat().st_size > 0


def _folder(source: Path, wants_items: bool) -> Found:
    """The tables, arrays and pictures of a folder."""
    entries = _visible(source)
    if plain_suffix(source) in ENDINGS or any(_PART.match(path.name) or "=" in path.name for path in entries):
        return Found(source, _parts(source))
    tables = [path for path in entries if _is_table(path)]
    items = [path for path in tables if _ITEMS.search(path.name)]
    events = [path for path in tables if _EVENTS.search(path.name) and path not in items]
    if not events and len(tables) == 1:
        events, items = tables, []
    if len(events) != 1:
        return _same_kind(source, tables, events)
    chosen = items if len(items) == 1 else []
    found = Found(events[0], _files(events[0]))
    if chosen and wants_items:
        found.items, found.items_name = _files(chosen[0]), chosen[0]
    for path in tables:
        if path not in (*events, *chosen):
            found.passed_over.append((str(path), "neither the interactions nor the items, by its name"))
    found.arrays = [path for path in entries if path.suffix.lower() in ARRAYS[:-1]]
    for folder in (path for path in entries if path.is_dir() and path.name.lower() == "features"):
        found.arrays += _visible(folder)
    images = source / "images"
    found.images = images if images.is_dir() else None
    return found


def _files(path: Path) -> list[Path]:
    return _parts(path) if path.is_dir() else [path]


def _same_kind(source: Path, tables: Sequence[Path], events: Sequence[Path]) -> Found:
    """A folder of several files of one kind as one table.

    Raises: BundleError if the files cannot be one table.
    """
    if not tables:
        raise refused(source, "no table in this folder", f"give a file ending in {', '.join(ENDINGS)}")
    same = {plain_suffix(path) for path in tables}
    if len(same) == 1 and not any(path.is_dir() for path in tables) and len(events) in (0, len(tables)):
        return Found(source, list(tables))
    names = ", ".join(path.name for path in (events or tables))
    raise refused(source, f"several tables could be the interactions ({names})", "give one as SOURCE, and --items FILE")
