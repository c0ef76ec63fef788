"""Pictures of items: found by name in a folder, opened once, and copied into the bundle."""

import os
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import polars as pl
from tqdm import tqdm

from bbqrec_lab.datasets.importing.report import ImportReport, Understood, refused
from bbqrec_lab.datasets.pictures import MAX_BYTES, UNREADABLE, TooLargeError, open_picture

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jfif")
_NAMED = 20  # broken pictures named in the report; the rest are counted


def place_pictures(items: pl.DataFrame, source: Path, named: str, bundle: Path, report: ImportReport) -> pl.Series:
    """Copy each item's picture into the bundle; returns its path there, null if the item has none.

    A picture belongs to an item if the column of pictures names its file, or if it is called ID.jpg (.png, ...).

    Args: items: item_id and image (raw text). source: folder of pictures. named: where the names come from, or empty.
    Raises: BundleError if the folder does not exist, or no picture belongs to an item.
    """
    if not source.is_dir():
        raise refused(source, "no such folder", "give the folder that holds the pictures with --images")
    files = {
        file.relative_to(source).as_posix(): file for file in sorted(source.rglob("*")) if _is_picture(file, source)
    }
    names, stems = _by(files, lambda path: path.name), _by(files, lambda path: path.stem)
    paths: list[str | None] = []
    used, broken = set(), {}
    for item, image in tqdm(items.select("item_id", "image").iter_rows(), "pictures", items.height, unit=" items"):
        found = _match(str(item), image, files, names, stems)
        if found and found not in used and found not in broken:
            fault = picture_fault(files[found])
            if fault:
                broken[found] = fault
            else:
                used.add(found)
                (bundle / "images" / found).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[found], bundle / "images" / found)
        paths.append(f"images/{found}" if found in used else None)
    if not used and not broken:
        some = ", ".join(list(files)[:3]) or "no pictures"
        some_ids = ", ".join(map(str, items["item_id"].head(3)))
        raise refused(source, f"no picture belongs to an item; files: {some}; ids: {some_ids}", "name the files ID.jpg")
    has = len(paths) - paths.count(None)
    report.understood.append(Understood("image", named or f"{source.name}/ID", f"{has} of {items.height} items"))
    report.passed_over += [(str(files[name]), fault) for name, fault in list(broken.items())[:_NAMED]]
    report.counts["broken pictures, counted as missing"] = len(broken)
    report.counts["pictures that belong to no item"] = len(files) - len(used) - len(broken)
    return pl.Series("image", paths, pl.String)


def _is_picture(file: Path, folder: Path) -> bool:
    """Whether a file looks like a picture and lies in the folder: a link may not lead out of it."""
    if file.suffix.lower() not in _ENDINGS or file.name.startswith("."):
        return False
    try:
        return file.is_file() and file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def _by(files: Iterable[str], key) -> dict[str, str]:
    """The first file of each name."""
    found: dict[str, str] = {}
    for name in files:
        found.setdefault(key(PurePosixPath(name)), name)
    return found


def _match(item: str, image: str | None, files: dict, names: dict, stems: dict) -> str | None:
    """The picture of an item: by the path, the file name or the stem that its column has, or by its id."""
    if image:
        path = PurePosixPath(image.replace(os.sep, "/").partition("?")[0])
        for found in (str(path) if str(path) in files else None, names.get(path.name), stems.get(path.name)):
            if found:
                return found
    return stems.get(item) or names.get(item)


def picture_fault(file: Path) -> str:
    """What is wrong with a picture file; empty if it can be read."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return f"{file.stat().st_size} bytes, more than {MAX_BYTES}"
        with warnings.catch_warnings(action="ignore"), open_picture(file) as picture:
            picture.draft("RGB", (64, 64))  # JPEG is then decoded at an eighth of its size, to its last byte
            picture.load()
    except TooLargeError as error:
        return str(error)
    except UNREADABLE as error:
        return f"a broken picture ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return ""
