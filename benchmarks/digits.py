"""Check that two versions of the code give the same tables, to the last digit.

    python -m benchmarks.digits run OUT               run all variants at `smoke` on `planted-smoke`, write to OUT
    python -m benchmarks.digits compare BEFORE AFTER  compare main_results.csv and intervals.csv of two folders

`compare` ignores `config_hash` (a hash of settings and code) and maps the labels of older tables. It prints what it
mapped and which rows differ, and exits with 1 if any row differs. It imports no package of the project.
"""

import argparse
import sys
from pathlib import Path

import polars as pl

TABLES = ("main_results.csv", "intervals.csv")
COLUMNS = {"history": "seen_items"}  # name in older tables -> current name
VALUES = {"kept": "included", "masked": "filtered"}  # of `seen_items`
IGNORED = "config_hash"
SHOWN = 20  # maximum number of differing rows to print


def run(out: Path) -> None:
    """Run each variant once, with one thread and seed 0, and write both tables."""
    import torch

    from bbqrec_lab.datasets import sources
    from bbqrec_lab.experiments import presets, runs, variants
    from bbqrec_lab.store import Store

    torch.set_num_threads(1)
    config = presets.make_config("smoke", 0)
    data = sources.load("planted-smoke", config.data)
    store, results = Store(out / "artefacts"), []
    for number, name in enumerate(variants.VARIANTS, start=1):
        results.append(runs.run_variant(data, name, config, store))
        print(f"row {number} of {len(variants.VARIANTS)}, {name}: done", flush=True)
    pl.concat([result.rows for result in results]).write_csv(out / TABLES[0])
    runs.intervals(results).write_csv(out / TABLES[1])


def read(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """A table as text (no digit is rounded) without `config_hash`, and the labels that were mapped."""
    table, mapped = pl.read_csv(path, infer_schema=False), []
    for old, new in COLUMNS.items():
        if old in table.columns:
            table = table.rename({old: new}).with_columns(pl.col(new).replace(VALUES))
            mapped.append(f"column {old} -> {new}, {', '.join(f'{a} -> {b}' for a, b in VALUES.items())}")
    return table.drop(IGNORED, strict=False), mapped


def compare(before: Path, after: Path) -> bool:
    """Print the differences between the tables of two folders; returns whether the tables are equal."""
    same = True
    for name in TABLES:
        (old, old_mapped), (new, new_mapped) = read(before / name), read(after / name)
        mapped = "; ".join(dict.fromkeys(old_mapped + new_mapped)) or "nothing"
        if old.columns == new.columns and old.equals(new):
            print(f"{name}: {old.height} rows equal to the last digit (mapped: {mapped}; {IGNORED} ignored)")
            continue
        same = False
        print(f"{name}: DIFFERENT (mapped: {mapped}), {old.height} rows before, {new.height} after")
        if set(old.columns) != set(new.columns):
            print(f"  columns before {old.columns}, after {new.columns}")
            continue
        gone, came = (one.join(other, on=old.columns, how="anti") for one, other in ((old, new), (new, old)))
        if gone.is_empty() and came.is_empty():
            print("  the rows are equal, but their order or number differs")
        with pl.Config(tbl_rows=SHOWN, tbl_cols=-1, fmt_str_lengths=40, tbl_width_chars=200):
            print(f"  only before:\n{gone.head(SHOWN)}\n  only after:\n{came.head(SHOWN)}")
    return same


def main() -> int:
    """Run the command line; returns 1 if tables differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run every variant").add_argument("out", type=Path)
    both = commands.add_parser("compare", help="compare the tables of two folders")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.command == "run":
        asked.out.mkdir(parents=True, exist_ok=True)
        run(asked.out)
        return 0
    missing = [str(folder / name) for folder in (asked.before, asked.after) for name in TABLES
               if not (folder / name).exists()]  # fmt: skip
    if missing:
        parser.error(f"{missing[0]} does not exist: give two folders that contain {' and '.join(TABLES)}")
    return 0 if compare(asked.before, asked.after) else 1


if __name__ == "__main__":
    sys.exit(main())
