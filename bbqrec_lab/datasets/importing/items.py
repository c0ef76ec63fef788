"""The items of a bundle: one row each with title, text, picture and categories, from their own table or the events."""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from bbqrec_lab.datasets.importing.columns import ITEM_ROLES, guess, is_review, require
from bbqrec_lab.datasets.importing.events import EventPlan, Ids, id_column, refuse_many
from bbqrec_lab.datasets.importing.report import SHOWN, BadRow, ImportReport, Understood, refused
from bbqrec_lab.datasets.importing.tables import Part, Table
from bbqrec_lab.datasets.importing.text_files import FAULT

ROW = "__row"  # row of an item in its table, from 0; null for items that only the interactions have
_CONTENT = ("title", "text", "categories")
_NO_VALUE = ("", "null", "None", "NaN", "nan", "\\N", "(no genres listed)")
_SCRIPT = re.compile(r"getTime|var aPageStart")  # Amazon 2018 has code of the page as the title of some items
_PICTURE_KEYS = ("hi_res", "large", "thumb", "url", "path")


@dataclass(frozen=True)
class ItemPlan:
    """How the columns of a table become items. Args: columns: by role. split: mark between categories in text."""

    table: Table
    item: Ids
    columns: Mapping[str, str]
    split: str

    def scan(self) -> pl.LazyFrame:
        """Item ids and raw columns by role, with the row in the table."""
        frame = self.table.scan([self.item.column, *self.columns.values()]).with_row_index(ROW)
        good = pl.when(pl.col(FAULT).is_null()).then(self.item.read())
        return frame.select(ROW, FAULT, item_id=good, **{role: pl.col(name) for role, name in self.columns.items()})


def plan_items(table: Table, given: Mapping[str, str], scratch: Path) -> ItemPlan:
    """Decide by the first rows how a table of items is read.

    Raises: BundleError if the item id is not found, or a named column is not there.
    """
    found = guess(table, ITEM_ROLES, given)
    require(table, found, ("item",))
    columns = {role: found[role] for role in ITEM_ROLES[1:] if role in found}
    if any(part.literal for part in table.parts):
        table = table.mended(scratch, [found["item"], *columns.values()])
    return ItemPlan(table, id_column(table, found["item"]), columns, split_mark(table, columns))


def item_columns_of_events(
    table: Table, used: Sequence[str], given: Mapping[str, str], report: ImportReport
) -> dict[str, str]:
    """Columns of the interactions that describe items: named by the user, or equal in all rows of an item."""
    roles = [role for role in ITEM_ROLES[1:] if role in given or not is_review(table)]
    hidden = replace(
        table, parts=tuple(replace(part, probe=part.probe.drop(used, strict=False)) for part in table.parts)
    )
    found = {}
    for role, column in guess(hidden, roles, given).items() if table.parts[0].header else ():
        changing = table.probe.group_by(used[1]).agg(pl.len(), kinds=pl.col(column).drop_nulls().n_unique())
        share = (changing.filter(pl.col("len") > 1)["kinds"] > 1).mean()
        if role in given or not share or share < 0.1:
            found[role] = column
        else:
            report.passed_over.append((column, "differs between rows of one item, so it does not describe the item"))
    return found


def split_mark(table: Table, columns: Mapping[str, str]) -> str:
    """The mark between categories that are one text: that of the layout, or the first of several that occurs."""
    if "categories" not in columns:
        return ""
    column = columns["categories"]
    if column.endswith("_seq"):  # RecBole's lists of tokens
        return " "
    values = table.probe[column]
    if values.dtype != pl.String:
        return ""
    return next((mark for mark in "|>;," if values.str.contains(mark, literal=True).any()), "")


def write_items(
    plan: ItemPlan, event_items: pl.Series, to: Path, scratch: Path, report: ImportReport
) -> tuple[ItemPlan, pl.DataFrame]:
    """Write the items of a table, then those that only the interactions have; all columns but the picture.

    Returns: the plan, whose table may be a mended copy; item_id, __row and image (raw text) of every item, in order.
    Raises: BundleError if no item of the interactions is in the table.
    """
    plan, keys = _keys(plan, scratch)
    _show_faults(plan, keys, report)
    frame, absent = plan.scan(), keys["item_id"].null_count()
    kept = keys.filter(pl.col("item_id").is_not_null() & pl.col("item_id").is_first_distinct())
    report.counts["items dropped: no id, or a bad row"] = absent
    report.counts["items dropped: id seen before"] = keys.height - absent - kept.height
    more = pl.DataFrame({"item_id": event_items}).filter(~pl.col("item_id").is_in(kept["item_id"].implode()))
    if more.height == len(event_items):
        one, other = (", ".join(map(repr, ids.head(3))) for ids in (event_items, kept["item_id"]))
        what = f"none of its item ids ({other}) is in the interactions ({one})"
        raise refused(
            plan.table.name, what, "name the column of the same ids with --item, or give the table of these items"
        )
    report.counts["items of the interactions that are not in the item table, added without content"] = more.height
    report.counts["items without an interaction, kept: they can be recommended"] = (
        kept.height - len(event_items) + more.height
    )
    report.counts["items written"] = kept.height + more.height
    if kept.height < keys.height:
        frame = frame.join(kept.lazy().select(ROW), on=ROW, how="semi", maintain_order="left")
    written = pl.concat([frame.select("item_id", **contents(plan, report)), _without_content(more, plan)])
    written.sink_parquet(to, compression="zstd")
    rest = more.select(pl.lit(None, keys[ROW].dtype).alias(ROW), "item_id", image=pl.lit(None, pl.String))
    return plan, pl.concat([kept.drop(FAULT), rest])


def _keys(plan: ItemPlan, scratch: Path) -> tuple[ItemPlan, pl.DataFrame]:
    """Ids, raw pictures and faults of all rows; the plan reads a mended copy if polars cannot read the file."""
    raw = pl.col("image") if "image" in plan.columns else pl.lit(None, pl.String)
    chosen = [ROW, "item_id", _first_picture(raw).alias("image"), FAULT]
    try:
        return plan, plan.scan().select(chosen).collect(engine="streaming")
    except pl.exceptions.ComputeError:
        plan = replace(plan, table=plan.table.mended(scratch, [plan.item.column, *plan.columns.values()]))
        return plan, plan.scan().select(chosen).collect(engine="streaming")


def has_text_ids(plan: ItemPlan) -> bool:
    """Whether ids that were expected to be integers are text in a later row."""
    if not plan.item.whole or plan.item.dtype != pl.String:
        return False
    text = replace(plan.item, whole=False).read().is_not_null() & plan.item.read().is_null()
    frame = plan.table.scan([plan.item.column]).select((text & pl.col(FAULT).is_null()).any())
    try:
        return bool(frame.collect(engine="streaming").item())
    except pl.exceptions.ComputeError:  # a bad line: the copy that is made later is read with ids as text
        return True


def _show_faults(plan: ItemPlan, keys: pl.DataFrame, report: ImportReport) -> None:
    """Show the bad rows of a table of items.

    Raises: BundleError naming the first if there are too many.
    """
    faulty = keys.filter(pl.col(FAULT).is_not_null())[ROW].to_list()
    bad, start = [], 0
    for part in plan.table.parts if faulty else ():
        end = start + part.scan([]).select(pl.len()).collect(engine="streaming").item()
        rows = [row - start for row in faulty if start <= row < end][:SHOWN]
        bad += [BadRow(part.file, *place, part.what(False)) for place in _by_line(part, rows)]
        start = end
    refuse_many(plan.table.name, bad, len(faulty), keys.height)
    report.bad += bad[:SHOWN]


def _by_line(part: Part, rows: Sequence[int]) -> list[tuple[int, str, str]]:
    """Line, no column, and text of some rows."""
    return [(line, "", record) for line, record in part.places(rows).values()] if rows else []


def _without_content(items: pl.DataFrame, plan: ItemPlan) -> pl.LazyFrame:
    """Items with null in every column of content."""
    types = {"title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
    return items.lazy().select(
        "item_id", **{role: pl.lit(None, types[role]) for role in _CONTENT if role in plan.columns}
    )


def write_items_of_events(
    plan: EventPlan, columns: Mapping[str, str], event_items: pl.Series, to: Path, report: ImportReport
) -> pl.DataFrame:
    """Write the items of the interactions, with the content that their own columns have, sorted by id.

    Returns: item_id, __row (null) and image (raw text) of every item, in order.
    """
    items = pl.DataFrame({"item_id": event_items.sort()})
    image = pl.lit(None, pl.String)
    if columns:
        own = ItemPlan(plan.table, plan.item, columns, split_mark(plan.table, columns))
        firsts = own.scan().group_by("item_id").agg(pl.col(*columns).drop_nulls().first())
        found = items.join(firsts.collect(engine="streaming"), on="item_id", how="left", maintain_order="left")
        image = _first_picture(pl.col("image")) if "image" in columns else image
        written = found.select("item_id", **contents(own, report))
        items = found.select("item_id", image=image)
    else:
        written, items = items, items.with_columns(image=image)
    written.write_parquet(to)
    report.counts["items written"] = items.height
    return items.select(pl.lit(None, pl.UInt32).alias(ROW), "item_id", "image")


def contents(plan: ItemPlan, report: ImportReport) -> dict[str, pl.Expr]:
    """The expressions of title, text and categories, of the columns that there are."""
    ways: dict[str, tuple[Callable[[object], object], object]] = {
        "title": (lambda value: _sentence(value, report), pl.String),
        "text": (lambda value: _sentence(value, report), pl.String),
        "categories": (lambda value: _labels(value, plan.split), pl.List(pl.String)),
    }
    return {
        role: pl.col(role).map_batches(_each(way, dtype), return_dtype=dtype, is_elementwise=True)
        for role, (way, dtype) in ways.items()
        if role in plan.columns
    }


def _each(way: Callable[[object], object], dtype: object) -> Callable[[pl.Series], pl.Series]:
    return lambda values: pl.Series(values.name, [way(value) for value in values.to_list()], dtype)


def leaves(value: object) -> list[str]:
    """All texts in a value: a text, a list of them, lists in lists, or such a list written as text."""
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
            try:
                return leaves(json.loads(text))
            except ValueError:
                try:
                    return leaves(ast.literal_eval(text))  # a Python list, as pandas writes it to CSV
                except (ValueError, SyntaxError, MemoryError, RecursionError):
                    return [text]
        return [] if text in _NO_VALUE else [text]
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in leaves(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in leaves(part)]
    return [str(value)]


def _sentence(value: object, report: ImportReport) -> str | None:
    """One text from a value; code of a page in place of a title is counted and left out."""
    text = " ".join(leaves(value))
    if _SCRIPT.search(text):
        key = "titles or texts that are code of a page, left out"
        report.counts[key] = report.counts.get(key, 0) + 1
        return None
    return text or None


def _labels(value: object, mark: str) -> list[str] | None:
    """The categories in a value, each once, in order."""
    found = leaves(value)
    if isinstance(value, str) and mark and found == [value.strip()]:
        found = [label.strip() for label in value.split(mark)]
    return list(dict.fromkeys(label for label in found if label not in _NO_VALUE)) or None


def _first_picture(column: pl.Expr) -> pl.Expr:
    """The first path or address of a picture in a column."""
    return column.map_batches(_each(_picture, pl.String), return_dtype=pl.String, is_elementwise=True)


def _picture(value: object) -> str | None:
    """The first path or address in a value; of the sizes that Amazon lists, the largest."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = value[0]
    if isinstance(value, dict):
        found = [text for key in _PICTURE_KEYS if key in value for text in leaves(value[key])]
        return found[0] if found else None
    return next(iter(leaves(value)), None)


def understood(plan_columns: Mapping[str, str], split: str, written: Path) -> list[Understood]:
    """The lines of the report for the content of items, with the number of items that have it."""
    table = pl.scan_parquet(written, glob=False)
    rows = table.select(pl.len()).collect().item()
    lines = []
    for role in _CONTENT:
        if role in plan_columns:
            has = rows - table.select(pl.col(role).null_count()).collect().item()
            parts = f", split at {split!r}" if role == "categories" and split else ""
            lines.append(Understood(role, plan_columns[role], f"{has} of {rows} items{parts}"))
    return lines
