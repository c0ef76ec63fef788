"""Import interactions, items, pictures and embeddings of any layout into a bundle."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from bbqrec_lab.datasets.importing.columns import EVENT_ROLES, Columns, guess
from bbqrec_lab.datasets.importing.embeddings import (
    UnusableFileError,
    Vectors,
    list_columns,
    place_features,
    place_vectors,
    stacked,
)
from bbqrec_lab.datasets.importing.events import EventPlan, plan_events, write_events
from bbqrec_lab.datasets.importing.items import (
    ItemPlan,
    has_text_ids,
    item_columns_of_events,
    plan_items,
    split_mark,
    understood,
    write_items,
    write_items_of_events,
)
from bbqrec_lab.datasets.importing.pictures import place_pictures
from bbqrec_lab.datasets.importing.report import ImportReport, Understood, refused
from bbqrec_lab.datasets.importing.sources import Found, locate
from bbqrec_lab.datasets.importing.tables import Table, open_table


def import_data(
    source: str | Path,
    to: str | Path,
    items: str | Path | None = None,
    images: str | Path | None = None,
    features: Sequence[str | Path] = (),
    columns: Columns | None = None,
) -> ImportReport:
    """Write the bundle in folder `to` from tables of any layout that docs/data.md lists.

    Large tables are streamed: memory does not grow with the number of interactions, but with that of items.

    Args: source: table of interactions, folder of its part files, or folder with all files of a dataset. to: folder of
            the bundle; it must not exist, or be empty. items: table of items, or folder of its part files.
        images: folder of pictures. features: files of embeddings. columns: columns that are not to be guessed.
    Returns: what was understood, dropped and passed over.
    Raises: BundleError naming file, row, column and remedy; ValueError for an unknown time zone.
    """
    folder = Path(to).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise refused(folder, "exists already", "remove it, or give another folder with --to")
    found = locate(Path(source).expanduser(), Path(items).expanduser() if items else None)
    found.arrays = [*(Path(file).expanduser() for file in features), *found.arrays]
    found.images = Path(images).expanduser() if images else found.images
    for file in found.arrays:
        if not file.is_file():
            raise refused(file, "no such file", "give files of embeddings with --features")
    if found.images and not found.images.is_dir():
        raise refused(found.images, "no such folder", "give the folder of pictures with --images")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        scratch, bundle = Path(place) / "scratch", Path(place) / "bundle"
        scratch.mkdir()
        bundle.mkdir()
        report = ImportReport(folder, passed_over=found.passed_over)
        _import(found, bundle, scratch, columns or Columns(), report)
        if folder.exists():
            folder.rmdir()
        shutil.move(bundle, folder)
    return report


def _import(found: Found, bundle: Path, scratch: Path, columns: Columns, report: ImportReport) -> None:
    """Plan both tables by their first rows, so that most errors come before long work; then write."""
    given = columns.given()
    table = open_table(found.events, found.name, scratch)
    report.understood.append(Understood("interactions", found.name.name, table.layout))
    # with a table of items, the item column that the user named may have another name there
    roles = guess(table, EVENT_ROLES, {role: name for role, name in given.items() if role in EVENT_ROLES})
    plan = plan_events(table, roles, columns)
    item_plan, own = None, {}
    if found.items:
        item_table = open_table(found.items, found.items_name, scratch)
        item_plan = plan_items(item_table, _given_items(item_table, given), scratch)
        report.understood.append(Understood("items", found.items_name.name, item_table.layout))
        _pass_over(item_table, [item_plan.item.column, *item_plan.columns.values()], report)
        if item_plan.item.whole != plan.item.whole:
            plan, item_plan = _as_text(plan), _as_text(item_plan)
    else:
        own = item_columns_of_events(
            table, plan.columns, {r: n for r, n in given.items() if r not in EVENT_ROLES}, report
        )
    _pass_over(table, [*plan.columns, *own.values()], report)
    events = bundle / "interactions.parquet"
    plan = write_events(plan, events, scratch, report)
    _write_items(found, plan, item_plan, own, bundle, scratch, report)


def _given_items(table: Table, given: dict[str, str]) -> dict[str, str]:
    """The columns that the user named, for the table of items; its own item column counts if it has one."""
    there = {name.partition(":")[0] for name in table.probe.columns} | set(table.probe.columns)
    return {role: name for role, name in given.items() if role not in EVENT_ROLES or (role == "item" and name in there)}


def _as_text(plan: Any) -> Any:
    return replace(plan, item=replace(plan.item, whole=False))


def _pass_over(table: Table, used: Sequence[str], report: ImportReport) -> None:
    """Name the columns of a table that are not used."""
    explained = {name for name, _ in report.passed_over}
    rest = [name for name in table.probe.columns if name not in used and name not in explained]
    rest = [name for name in rest if name not in list_columns(table.probe)]
    if rest:
        report.passed_over.append((f"{table.name.name}: {', '.join(rest)}", "columns that the bundle has no use for"))


def _write_items(
    found: Found,
    plan: EventPlan,
    item_plan: ItemPlan | None,
    own: dict[str, str],
    bundle: Path,
    scratch: Path,
    report: ImportReport,
) -> None:
    """Write items.parquet, pictures and features."""
    events, text = bundle / "interactions.parquet", scratch / "items.parquet"
    if item_plan is not None and item_plan.item.whole != plan.item.whole:
        item_plan = _as_text(item_plan)
    if item_plan is not None and has_text_ids(item_plan):
        item_plan = _as_text(item_plan)
        _ids_as_text(events, scratch)
    ids = _event_items(events)
    if item_plan is None:
        items = write_items_of_events(plan, own, ids, text, report)
        used, split = own, split_mark(plan.table, own)
    else:
        item_plan, items = write_items(item_plan, ids, text, scratch, report)
        used, split = item_plan.columns, item_plan.split
    report.understood += understood(used, split, text)
    table = pl.scan_parquet(text, glob=False)
    paths = _pictures(found, items, used, bundle, report)
    if paths is not None:
        pairs = items.select("item_id", image=paths).lazy()
        table = table.join(pairs, on="item_id", how="left", maintain_order="left")
    table.sink_parquet(bundle / "items.parquet", compression="zstd")
    rows = 0
    if item_plan is not None:
        rows = item_plan.scan().select(pl.len()).collect(engine="streaming").item()
        _own_lists(item_plan, items, rows, bundle, report)
    place_features(found.arrays, items, rows, bundle, report)


def _ids_as_text(events: Path, scratch: Path) -> None:
    """Write item ids of the interactions as text, since those of the item table are."""
    copy = scratch / "text_ids.parquet"
    frame = pl.scan_parquet(events, glob=False).with_columns(pl.col("item_id").cast(pl.String))
    frame.sink_parquet(copy, compression="zstd", compression_level=1)
    copy.replace(events)


def _event_items(events: Path) -> pl.Series:
    """The distinct items of the interactions."""
    return pl.scan_parquet(events, glob=False).select("item_id").unique().collect(engine="streaming")["item_id"]


def _pictures(
    found: Found, items: pl.DataFrame, used: dict[str, str], bundle: Path, report: ImportReport
) -> pl.Series | None:
    """Paths of pictures in the bundle; None if there are none."""
    known = items["image"].drop_nulls()
    addresses = known.str.contains(r"^\w+://")
    if found.images is not None:
        return place_pictures(items, found.images, used.get("image", ""), bundle, report)
    if len(known):
        kind = "web addresses" if addresses.mean() > 0.5 else "names of files"
        report.passed_over.append(
            (used["image"], f"{len(known)} {kind}: give the folder of the pictures with --images")
        )
    return None


def _own_lists(plan: ItemPlan, items: pl.DataFrame, rows: int, bundle: Path, report: ImportReport) -> None:
    """Take the list columns of numbers of an item table as features."""
    for name in list_columns(plan.table.probe):
        if name in plan.columns.values():
            continue
        try:
            lists = plan.table.scan([name]).select(name).collect(engine="streaming")[name]
            place_vectors(Vectors(name, stacked(lists), None), Path(name), items, rows, bundle, report)
        except UnusableFileError as error:
            report.passed_over.append((name, str(error)))
