"""Importing a large table of interactions, ours against the same cleaning in pandas: seconds and peak memory.

The cleaning: ids keep leading zeros (integers only if every id reads back unchanged), times become UTC moments, ratings
float32, rows without user, item or time go, and the bundle's two tables are written.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bbqrec_lab.measure import Plan

from . import apart
from .harness import Row, cost_row, gain_row

AIMS = {"csv": ">= 4", "parquet": ">= 3"}
MOST_MEGABYTES = 2000
_BLOCK = 1_000_000  # rows per step when a file is written
_TABLES = ("interactions.parquet", "items.parquet")


def write_table(file: Path, rows: int) -> None:
    """Write interactions as a shop exports them, sorted by time: ids far from 0, ISO text, a few missing customers."""
    import polars as pl

    rng = np.random.default_rng(0)
    users, items = max(rows // 40, 3), max(rows // 100, 3)
    parts = []
    for start in range(0, rows, _BLOCK):
        n = min(_BLOCK, rows - start)
        seconds = 1_000_000_000 + 30 * np.arange(start, start + n)
        table = pl.DataFrame(
            {
                "customer": rng.integers(0, users, n) * 7 + 1_000,
                "product": (rng.random(n) ** 2 * items).astype(np.int64) * 3 + 500,
                "stars": rng.integers(1, 6, n),
                "bought_at": pl.Series(seconds).cast(pl.Int64) * 1000,
            }
        ).with_columns(pl.col("bought_at").cast(pl.Datetime("ms")))
        missing = pl.Series(np.arange(n) % 9_973 == 7)
        parts.append(table.with_columns(customer=pl.when(missing).then(None).otherwise(pl.col("customer"))).lazy())
    whole = pl.concat(parts)
    if file.suffix == ".csv":
        whole.sink_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S")
    else:
        whole.sink_parquet(file)


def by_ours(file: Path, to: Path) -> None:
    """Import by `import_data`."""
    from bbqrec_lab.datasets.importing import import_data

    import_data(file, to)


def by_pandas(file: Path, to: Path) -> None:
    """Import by pandas."""
    import pandas as pd

    ids = ["customer", "product"]
    if file.suffix == ".csv":
        table = pd.read_csv(file, dtype=dict.fromkeys(ids, str))
        for name in ids:
            known = table[name].dropna()
            if known.str.fullmatch(r"0|-?[1-9]\d*").all():
                table[name] = table[name].astype("Int64")
        table["bought_at"] = pd.to_datetime(table["bought_at"], errors="coerce")
    else:
        table = pd.read_parquet(file)
    names = {"customer": "user_id", "product": "item_id", "bought_at": "timestamp", "stars": "rating"}
    table = table.rename(columns=names)[["user_id", "item_id", "timestamp", "rating"]]
    table = table.dropna(subset=["user_id", "item_id", "timestamp"])
    kept = table[table["timestamp"] >= "1970-01-01"]
    kept = kept.astype({"user_id": "int64", "item_id": "int64", "rating": "float32"})
    to.mkdir()
    kept.to_parquet(to / _TABLES[0], index=False)
    kept[["item_id"]].drop_duplicates().sort_values("item_id").to_parquet(to / _TABLES[1], index=False)


WAYS = {"ours": by_ours, "pandas": by_pandas}
LIBRARIES = {"ours": "bbqrec_lab.datasets.importing", "pandas": "pandas, pyarrow.parquet"}


def same_bundles(file: Path, place: Path) -> str:
    """Compare the two bundles of one file."""
    import polars as pl

    for name, way in WAYS.items():
        way(file, place / name)
    for table in _TABLES:
        one, other = (pl.read_parquet(place / name / table) for name in WAYS)
        if "timestamp" in one.columns:
            one, other = (frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us"))) for frame in (one, other))
        if not one.equals(other):
            raise ArithmeticError(f"the two sides write different {table}: {one.head(3)} and {other.head(3)}")
    return f"equal tables of {one.height:,} items and their interactions"


def own_data(plan: Plan) -> list[Row]:
    """Import twenty million rows from CSV and from parquet, both sides in turn."""
    return [row for ending in AIMS for row in _format(plan, ending)]


def _format(plan: Plan, ending: str) -> list[Row]:
    """The rows of one format."""
    rows = plan.size(20_000_000, 20_000)
    with TemporaryDirectory() as place:
        file, small = Path(place) / f"orders.{ending}", Path(place) / f"small.{ending}"
        write_table(small, min(rows, 200_000))
        checked = same_bundles(small, Path(place))
        write_table(file, rows)
        (ours, our_peak), (theirs, their_peak) = apart.take_turns(plan, "own_data", file, WAYS)
    work, peer = f"importing {rows:,} rows of {ending}", "pandas with the same cleaning"
    memory = f"ours <= {MOST_MEGABYTES}"
    return [
        gain_row(work, peer, "s", ours, theirs, AIMS[ending], checked),
        cost_row(f"{work}: peak memory", peer, "MB", our_peak / 1e6, their_peak / 1e6, memory, ""),
    ]


def _once(way: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    """An import into a folder that is removed again."""

    def run(file: Path) -> None:
        with TemporaryDirectory() as place:
            way(file, Path(place) / "bundle")

    return run


if __name__ == "__main__":
    apart.main({name: _once(way) for name, way in WAYS.items()}, LIBRARIES)
