"""The committed tables of a long preset: train rows one after another, and keep each in figures/ as soon as it is done.

python -m benchmarks.tables NAME|PATH.. [--rows a,b] [--seeds 0,1,2] [--preset full] [--overrides time_ties=file]
    [--minutes 0] [--out runs]

Every finished row becomes `figures/DATASET/PRESET/rows/VARIANT-SEED.zip`, and the tables beside it are written again
from all rows that are there: main_results, intervals, slices of users, cost, and the short tables of docs/results.md. A
second call goes on where the first stopped. `--minutes` starts no row after that time. `--overrides` changes how the
data are read, for a table of its own: the dataset is then named as in `ml-1m-time_ties-file`.
"""

import argparse
import math
import re
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import polars as pl
from tqdm import tqdm

from bbqrec_lab.code_keys import ROOT
from bbqrec_lab.datasets import sources
from bbqrec_lab.escaping import one_line
from bbqrec_lab.experiments import committed_rows, estimates, runs, statistics, variants
from bbqrec_lab.experiments.presets import PRESETS, make_config, parse_overrides, parse_seeds
from bbqrec_lab.experiments.tables import summary
from bbqrec_lab.object_store import open_store
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import Store, write_atomic
from bbqrec_lab.suite.reproduce import write_results
from bbqrec_lab.threads import use_one_thread

PAGE = ROOT / "docs" / "results.md"


def rows_there(dataset: str, preset: str, folder: Path) -> list[tuple[str, int]]:
    """(variant, seed) of each committed row, in the order of `variants.VARIANTS`."""
    found = (path.stem.rpartition("-") for path in (folder / dataset / preset / "rows").glob("*.zip"))
    order = list(variants.VARIANTS)
    return sorted(((name, int(seed)) for name, _, seed in found), key=lambda row: (order.index(row[0]), row[1]))


def write_tables(
    data: sources.NamedDataset, preset: str, overrides: dict[str, object], store: Store, folder: Path
) -> None:
    """Write main_results, intervals, slices and cost from all committed rows of a dataset."""
    there = rows_there(data.name, preset, folder)
    results = [runs.find_row(data, name, make_config(preset, seed, overrides), store) for name, seed in there]
    write_results(results, folder / data.name / preset)
    write_atomic(folder / data.name / preset / "slices.csv", runs.slices(results, data).write_csv())
    if folder == committed_rows.FOLDER:
        write_page(PAGE, folder)


def short_table(folder: Path) -> list[str]:
    """The lines of the table of docs/results.md: seen items filtered, and bbqrec minus each row in NDCG@10."""
    shown = summary(pl.read_csv(folder / "main_results.csv")).filter(pl.col("seen_items") == "filtered")
    compared = pl.read_csv(folder / "intervals.csv").filter(pl.col("seen_items") == "filtered")
    of = {line["against"]: line for line in statistics.family(compared, "ndcg@10").iter_rows(named=True)}
    minus = "{difference:+.4f} [{low:+.4f}, {high:+.4f}] | {p_holm:.3f}"
    lines = ["| variant | seeds | Recall@10 | NDCG@10 | BBQRec minus it | p after Holm |", "|---|---|---|---|---|---|"]
    for line in shown.iter_rows(named=True):
        told = minus.format(**of[line["variant"]]) if line["variant"] in of else " | "
        lines.append("| {variant} | {seeds} | {recall@10} | {ndcg@10} | ".format(**line) + f"{told} |")
    return lines


def write_page(page: Path, folder: Path) -> None:
    """Write the short table of every dataset that the page has a place for, between its two marks."""
    text = page.read_text(encoding="utf-8")
    for name, preset in re.findall(r"<!-- rows (\S+) (\S+) -->", text):
        if (folder / name / preset / "main_results.csv").exists():
            mark, end = f"<!-- rows {name} {preset} -->\n", "<!-- rows end -->"
            before, _, rest = text.partition(mark)
            lines = "\n".join(short_table(folder / name / preset))
            text = f"{before}{mark}{lines}\n{end}{rest.partition(end)[2]}"
    write_atomic(page, text)


def make_tables(given: argparse.Namespace, folder: Path = committed_rows.FOLDER) -> None:
    """Train the asked rows of each dataset that are not committed yet, and write the tables after each of them."""
    store, end = open_store(given.out.resolve() / "artefacts"), time.monotonic() + (60 * given.minutes or math.inf)
    words = "".join(f"-{name}-{value}" for name, value in given.overrides.items())
    for dataset in given.datasets:
        data = sources.load(dataset, make_config(given.preset, overrides=given.overrides).data)
        data = replace(data, name=data.name + words)
        plan = variants.plan(given.preset, given.seeds)
        there = rows_there(data.name, given.preset, folder)
        asked = [row for row in plan if row not in there and row[0] in (given.rows or variants.VARIANTS)]
        if there and not asked:
            write_tables(data, given.preset, given.overrides, store, folder)  # also when code of the tables has changed
        configure = partial(make_config, given.preset, overrides=given.overrides)
        estimates.tell_rows(data, asked, configure, store, find=runs.run_variant)
        for name, seed in tqdm(asked, desc=one_line(f"{data.name}, rows"), disable=None):
            if time.monotonic() > end:
                break
            runs.commit_row(data, name, configure(seed), store, folder)
            write_tables(data, given.preset, given.overrides, store, folder)


def reading(text: str) -> dict[str, object]:
    """Overrides of how the data are read. Raises: ArgumentTypeError for any other setting."""
    found = parse_overrides(text)
    if other := sorted(set(found) - {field.name for field in fields(DataConfig)}):
        raise argparse.ArgumentTypeError(f"{', '.join(other)}: only settings of how the data are read")
    return found


def main() -> None:
    """Read the options and make the tables."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    command.add_argument("datasets", metavar="NAME|PATH", nargs="+")
    command.add_argument(
        "--rows", default=(), type=lambda text: [variants.find_variant(n) and n for n in text.split(",")]
    )
    command.add_argument("--seeds", default=(0, 1, 2), type=parse_seeds)
    command.add_argument("--preset", default="full", choices=PRESETS)
    command.add_argument("--overrides", default={}, type=reading)
    command.add_argument("--minutes", default=0.0, type=float)
    command.add_argument("--out", default=Path("runs"), type=Path)
    use_one_thread()
    make_tables(command.parse_args())


if __name__ == "__main__":
    main()
