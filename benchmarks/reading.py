"""Reading and checking a large bundle, ours against the same checks in pandas: seconds and peak memory."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from bbqrec_lab.measure import Plan

from . import apart
from .harness import Row, cost_row, make_row

COLUMNS = 3 * 8  # bytes per row of interactions: two ids and a time of 64 bits each


def write_bundle(folder: Path, rows: int) -> None:
    """Write a bundle with many events sorted by time, except a few late rows and a few null users; ids far from 0."""
    import polars as pl

    rng = np.random.default_rng(0)
    users, items = max(rows // 40, 3), max(rows // 100, 3)
    user = rng.integers(0, users, rows) * 7 + 1_000
    item = (rng.random(rows) ** 2 * items).astype(np.int64) * 3 + 500
    time = np.sort(rng.integers(1_000_000_000, 1_700_000_000, rows))
    time[:: max(rows // 1000, 2)] -= 200_000_000  # older than the rows before them
    table = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time})
    table = table.with_columns(user_id=pl.when(pl.int_range(rows) % 9_973 == 7).then(None).otherwise(pl.col("user_id")))
    table.write_parquet(folder / "interactions.parquet")
    names = np.arange(items)
    catalogue = pl.DataFrame({"item_id": rng.permutation(names) * 3 + 500})
    catalogue.with_columns(title="item " + pl.col("item_id").cast(pl.String)).write_parquet(folder / "items.parquet")


def by_ours(folder: Path) -> object:
    """Read and check by `bundle.read_checked`."""
    from bbqrec_lab.datasets.bundle import read_checked

    return read_checked(folder)


class PandasTables(NamedTuple):
    """The tables that pandas reads, with counts of dropped rows per column and of late rows."""

    events: object
    users: object
    items: object
    dropped: dict[str, int]
    late: int


def by_pandas(folder: Path) -> PandasTables:
    """Run the same checks in pandas: ids, nulls, unknown items, times, rows out of order; ids become ranks."""
    import pandas as pd

    items = pd.read_parquet(folder / "items.parquet")
    if items["item_id"].isna().any() or items["item_id"].duplicated().any():
        raise ValueError("null or repeated item id")
    items["title"] = items["title"].where(items["title"].str.strip() != "")
    items = items.sort_values("item_id", ignore_index=True)
    events = pd.read_parquet(folder / "interactions.parquet", columns=["user_id", "item_id", "timestamp"])
    if (events["timestamp"] < 0).any():
        raise ValueError("negative time")
    present = events["item_id"].dropna()
    if not present.isin(items["item_id"]).all():
        raise ValueError("item is not in items.parquet")
    dropped = {}
    for name in ("user_id", "item_id", "timestamp"):
        before = len(events)
        events = events[events[name].notna()]
        dropped[name] = before - len(events)
    user, users = pd.factorize(events["user_id"].astype("int64"), sort=True)
    item = pd.Index(items["item_id"]).get_indexer(events["item_id"].astype("int64"))
    found = pd.DataFrame({"user": user, "item": item, "time": events["timestamp"], "row": events.index})
    late = int((found.groupby("user")["time"].diff() < 0).sum())
    return PandasTables(found, users, items, dropped, late)


READERS = {"ours": by_ours, "pandas": by_pandas}
LIBRARIES = {"ours": "bbqrec_lab.datasets.bundle", "pandas": "pandas, pyarrow.parquet"}


def same_tables(folder: Path) -> str:
    """Compare the tables that both sides read."""
    ours, (found, users, items, dropped, late) = by_ours(folder), by_pandas(folder)
    pairs = [(ours.events[name].to_numpy(), found[name].to_numpy()) for name in ("user", "item", "time", "row")]
    pairs += [(ours.users.to_numpy(), np.asarray(users)), (ours.items["item_id"].to_numpy(), items["item_id"])]
    report = {f"dropped: null {name}": count for name, count in dropped.items()}
    report["rows out of order in time, now sorted"] = late
    other = {name: (ours.report[name], count) for name, count in report.items() if ours.report[name] != count}
    if other or not all(np.array_equal(one, two) for one, two in pairs):
        raise ArithmeticError(f"the two sides read different tables; differing counts: {other}")
    return f"equal events, users, items and counts ({len(found):,} rows kept, {late} late)"


def bundle(plan: Plan) -> list[Row]:
    """Read a bundle of twenty million rows, both sides in turn."""
    rows = plan.size(20_000_000, 20_000)
    with TemporaryDirectory() as place:
        folder, small = Path(place), Path(place) / "small"
        small.mkdir()
        write_bundle(small, min(rows, 200_000))
        checked = same_tables(small)
        write_bundle(folder, rows)
        (ours, our_peak), (theirs, their_peak) = apart.take_turns(plan, "reading", folder, READERS)
    work, peer = f"reading and checking {rows:,} rows", "the same checks in pandas"
    return [
        make_row(work, peer, "rows/s", rows / ours, rows / theirs, theirs / ours, ">= 5", checked),
        cost_row(f"{work}: peak memory", "the columns read", "MB", our_peak / 1e6, _columns(rows), "<= 2", ""),
        cost_row(f"{work}: peak memory of pandas", "the columns read", "MB", their_peak / 1e6, _columns(rows), "", ""),
    ]


def _columns(rows: int) -> np.ndarray:
    """Size of the columns that are read, in megabytes."""
    return np.array(rows * COLUMNS / 1e6)


if __name__ == "__main__":
    apart.main(READERS, LIBRARIES)
