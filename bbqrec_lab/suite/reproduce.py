"""The whole job: rows of the main table in a process pool, then the notebooks in it, then the tables."""

import re
import shutil
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from bbqrec_lab.datasets.sources import absolute_dataset
from bbqrec_lab.experiments.presets import PRESETS
from bbqrec_lab.experiments.runs import run_folder
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import write_atomic
from bbqrec_lab.suite import notebooks, process_pool

BUDGETS = {"smoke": "under 4 minutes", "quick": "under 15 minutes", "full": "hours, in parts that are kept"}
LONGEST = ("ids", "items", "knn", "markov", "popularity")  # kinds of rows, by how long they take
SHOWN_FILE = re.compile(r"figures/((?:[\w-]+/[\w-]+/)?[\w.-]+\.(?:png|svg|csv|md|tex))")


@dataclass(frozen=True)
class Request:
    """What `bbqrec reproduce` is asked for.

    Args: dataset: a registered name, or a path to a bundle. preset: `smoke`, `quick` or `full`.
        seeds: of the main table's rows; the first is the notebooks' own. only: notebook numbers like `02`; () is all.
        jobs: rows, then notebooks, at a time, one thread each. out: everything is written below it.
    Raises: ValueError for an unknown preset, a dataset that is neither, no or repeated seeds, or jobs < 1.
    """

    dataset: str = "ml-100k"
    preset: str = "quick"
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    jobs: int = 1
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different integers of at least 0, got {self.seeds}")
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset))
        object.__setattr__(self, "out", Path(self.out).expanduser().resolve())


@lru_cache(maxsize=1)
def _load(dataset: str, options: DataConfig) -> object:
    """The data, read once per process."""
    from bbqrec_lab.datasets import sources

    return sources.load(dataset, options)


def run_row(dataset: str, preset: str, store: Path, variant: str, seed: int) -> object:
    """Train and evaluate one row, in a worker process with one thread; the store keeps what was done before."""
    import torch

    from bbqrec_lab.experiments import presets, runs
    from bbqrec_lab.store import Store

    torch.set_num_threads(1)
    settings = presets.make_config(preset, seed)
    return runs.run_variant(_load(dataset, settings.data), variant, settings, Store(store))


def notebook_plan(request: Request) -> dict[Path, dict[str, object]]:
    """Parameters by notebook, in order.

    Raises: ValueError for a notebook that is not there or declares other names.
    """
    given: dict[str, object] = {
        "dataset": request.dataset,
        "preset": request.preset,
        "seed": request.seeds[0],
        "out_dir": str(request.out),
        "overrides": {},
    }
    seeds = ",".join(map(str, request.seeds))
    found = notebooks.discover(notebooks.notebook_folder(), request.only)
    return {path: notebooks.parameters_for(path, given, seeds) for path in found}


def write_results(results: list, folder: Path) -> tuple[object, str]:
    """Write main_results (.csv in long form; .md and .tex readable), intervals and cost.

    Args: results: of `runs.run_variant`, in the order of the table.
    Returns: the readable frame and its caption.
    """
    import polars as pl

    from bbqrec_lab.experiments import runs, tables

    rows = pl.concat([result.rows for result in results])
    first = rows.row(0, named=True)
    seeds = ", ".join(map(str, rows["seed"].unique().sort()))
    short = "" if first["preset"] == "full" else ", short training: a first look, not a benchmark"
    caption = (
        f"{first['dataset']} ({first['data_hash']}), preset {first['preset']}{short}. Test part, full catalogue, "
        f"{first['targets']} targets, split seed {first['split_seed']}, seeds {seeds}; mean ± deviation over seeds."
    )
    readable = tables.summary(rows)
    tables.save_table(rows, "main_results", folder, caption, readable)
    costs = pl.concat([result.cost for result in results], how="vertical_relaxed")  # popularity has no score: a null
    write_atomic(folder / "cost.csv", costs.write_csv())
    write_atomic(folder / "intervals.csv", runs.intervals(results).write_csv())
    return readable, caption


def _earlier_seconds(folder: Path) -> dict[tuple[str, int], float]:
    """Seconds that rows took when they were made, from the cost table of an earlier run; empty without one."""
    import polars as pl

    if not (folder / "cost.csv").exists():
        return {}
    cost = pl.read_csv(folder / "cost.csv")
    minutes = pl.sum_horizontal(pl.col("^.*minutes$").cast(pl.Float64, strict=False).fill_null(0))
    found = cost.select("variant", "seed", (60 * minutes).alias("seconds"))
    return {(variant, seed): seconds for variant, seed, seconds in found.iter_rows() if seconds > 0}


def reproduce(request: Request) -> int:
    """Run everything asked for; what is done is not done again.

    Returns: 0 when all rows and notebooks are there, 1 when some failed (each with one line on standard error).
    Raises: ValueError before anything long starts, for a wrong request, dataset or notebook.
    """
    process_pool.use_one_thread()
    from bbqrec_lab.experiments import presets, tables, variants

    plan = notebook_plan(request)
    # A notebook that takes `seeds` shows the main table; for the others alone its rows need not be made.
    rows_wanted = not request.only or any("seeds" in given for given in plan.values())
    rows = variants.plan(request.preset, request.seeds) if rows_wanted else []
    notebooks.say(f"{request.dataset}, preset {request.preset}: {len(rows)} rows, {len(plan)} notebooks", end="")
    notebooks.say(f" (on the default data and 2 CPU cores {BUDGETS[request.preset]}); reading the data")
    data = _load(request.dataset, presets.make_config(request.preset).data)
    run = run_folder(request.out, request.dataset, request.preset, data)
    work = partial(run_row, request.dataset, request.preset, request.out / "artefacts")
    longest = sorted(rows, key=lambda row: LONGEST.index(variants.VARIANTS[row[0]].kind))  # short ones fill the end
    outcomes = process_pool.run_all(
        work, longest, request.jobs, run / "logs", expected=_earlier_seconds(run / "tables")
    )
    results = [outcomes[row] for row in rows if not isinstance(outcomes[row], process_pool.Failure)]
    failures = {
        f"{row[0]} seed {row[1]}": out.cause for row, out in outcomes.items() if isinstance(out, process_pool.Failure)
    }
    shown = write_results(results, run / "tables") if results else None
    failures |= notebooks.run_notebooks(plan, run, data.data_hash, request.jobs)
    if shown:
        tables.show(*shown)
    notebooks.say(f"everything is below {run}")
    for name, cause in failures.items():
        notebooks.say(f"failed: {name}: {cause}")
    return 1 if failures else 0


def promote(out: str | Path = "runs", root: str | Path = ".") -> None:
    """Copy the files that the README and the notebooks show from `figures/` out of the runs that made them.

    `figures/NAME` comes from the default run, `figures/DATASET/PRESET/NAME` from that run.

    Raises: ValueError naming each file that no run has made and `figures/` does not hold already.
    """
    root, default = Path(root), Request.dataset + "/" + Request.preset
    pages = [root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))]
    names = sorted({name for page in pages for name in SHOWN_FILE.findall(page.read_text())})
    missing = []
    for name in names:
        folder, _, base = name.rpartition("/")
        made = [
            path for kind in ("figures", "tables") if (path := Path(out) / (folder or default) / kind / base).exists()
        ]
        target = root / "figures" / name
        if made:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made[0], target)
        elif not (folder and target.exists()):  # other runs take hours: their committed files stay
            missing.append(name)
        notebooks.say(f"figures/{name}: {'copied' if made else 'no run has made it'}")
    if missing:
        raise ValueError(f"shown but never made: {', '.join(missing)}: run the job that makes them, or mend the page")
