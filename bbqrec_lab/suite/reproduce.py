"""The full reproduction: the rows of the main table in a process pool, then the notebooks, then the tables."""

import re
import shutil
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from bbqrec_lab.datasets.sources import absolute_dataset
from bbqrec_lab.experiments.presets import PRESETS
from bbqrec_lab.experiments.runs import run_folder
from bbqrec_lab.object_store import open_store
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import write_atomic
from bbqrec_lab.suite import clusters, notebooks, process_pool, report
from bbqrec_lab.terminal import say
from bbqrec_lab.threads import use_one_thread

BUDGETS = {"smoke": "under 4 minutes", "quick": "under 15 minutes", "full": "hours; finished parts are kept"}
SHOWN_FILE = re.compile(r"figures/((?:[\w-]+/[\w-]+/)?[\w.-]+\.(?:png|svg|csv|md|tex))")


@dataclass(frozen=True)
class Request:
    """The options of `bbqrec reproduce`.

    Args: dataset: a registered name, or a path to a bundle. preset: `smoke`, `quick` or `full`.
        seeds: seeds of the main table; notebooks use the first one. only: notebook numbers such as `02`; () for all.
        jobs: parallel rows, then parallel notebooks, one thread each. out: folder of all output.
        overrides: settings of how the data are read, for every row and notebook. as_json: print the rows of the main
            table as JSON instead of the readable table. cluster: where rows and notebooks run, see `clusters`; empty
            for this machine.
    Raises: ValueError for an unknown preset or dataset, missing, repeated or negative seeds, jobs < 1, or a cluster
        that cannot be used.
    """

    dataset: str = "ml-100k"
    preset: str = "quick"
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    jobs: int = 1
    out: Path = Path("runs")
    overrides: dict[str, object] = field(default_factory=dict)
    as_json: bool = False
    cluster: str = ""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be distinct integers of at least 0, got {self.seeds}")
        if self.jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {self.jobs}")
        clusters.check(self.cluster)
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset))
        object.__setattr__(self, "out", Path(self.out).expanduser().resolve())


@lru_cache(maxsize=2)
def _load(dataset: str, options: DataConfig, encoded: bool) -> object:
    """Load the dataset, with encoded texts and pictures or without them, once per process."""
    from bbqrec_lab.datasets import sources

    return sources.load(dataset, options, encoded=encoded)


def run_row(dataset: str, preset: str, overrides: dict[str, object], store: Path, variant: str, seed: int) -> object:
    """Train and evaluate one row in a worker process with one thread; stored and committed results are reused."""
    from bbqrec_lab.experiments import presets, runs, variants

    settings = presets.make_config(preset, seed, overrides)
    data = _load(dataset, settings.data, variants.reads_features(variant, settings))
    return runs.find_row(data, variant, settings, open_store(store))


def notebook_plan(request: Request) -> dict[Path, dict[str, object]]:
    """Parameters per notebook, in order.

    Raises: ValueError for a missing notebook, or one that does not declare the parameters.
    """
    given: dict[str, object] = {
        "dataset": request.dataset,
        "preset": request.preset,
        "seed": request.seeds[0],
        "out_dir": str(request.out),
        "overrides": request.overrides,
    }
    seeds = ",".join(map(str, request.seeds))
    found = notebooks.of_a_run(notebooks.notebook_folder(), request.preset, request.only)
    return {path: notebooks.parameters_for(path, given, seeds) for path in found}


def write_results(results: list, folder: Path) -> tuple[object, str]:
    """Write main_results (.csv in long form; .md and .tex readable), intervals and cost.

    Args: results: from `runs.run_variant`, in table order.
    Returns: the readable table and its caption.
    """
    import polars as pl

    from bbqrec_lab.experiments import runs, tables

    rows = pl.concat([result.rows for result in results])
    first = rows.row(0, named=True)
    seeds = ", ".join(map(str, rows["seed"].unique().sort()))
    short = "" if first["preset"] == "full" else ", short training: a preview, not a benchmark"
    caption = (
        f"{first['dataset']} ({first['data_hash']}), preset {first['preset']}{short}. Test part, full catalogue, "
        f"{first['targets']} targets, split seed {first['split_seed']}, seeds {seeds}; "
        f"mean ± standard deviation over seeds{tables.told_of_empty_lists(rows)}."
    )
    readable = tables.summary(rows)
    tables.save_table(rows, "main_results", folder, caption, readable)
    costs = pl.concat(
        [result.cost for result in results], how="vertical_relaxed"
    )  # relaxed: popularity has a null score
    write_atomic(folder / "cost.csv", tables.csv(costs))
    write_atomic(folder / "intervals.csv", tables.csv(runs.intervals(results)))
    return readable, caption


def _earlier_seconds(folder: Path) -> dict[tuple[str, int], float]:
    """Seconds per row from the cost table of an earlier run; empty if there is none."""
    import polars as pl

    if not (folder / "cost.csv").exists():
        return {}
    cost = pl.read_csv(folder / "cost.csv", glob=False)
    minutes = pl.sum_horizontal(pl.col("^.*minutes$").cast(pl.Float64, strict=False).fill_null(0))
    found = cost.select("variant", "seed", (60 * minutes).alias("seconds"))
    return {(variant, seed): seconds for variant, seed, seconds in found.iter_rows() if seconds > 0}


def _order(row: tuple[str, int]) -> tuple[bool, bool]:
    """Sort key that puts long rows first: with IDs, then without, then rows that only count."""
    from bbqrec_lab.experiments.variants import ONCE, VARIANTS

    return row[0] in ONCE, VARIANTS[row[0]].kind != "ids"


def reproduce(request: Request) -> int:
    """Run the requested rows and notebooks; finished ones are skipped.

    Returns: 0 if all rows and notebooks succeeded, 1 if some failed (one line each on standard error).
    Raises: ValueError for a wrong request, dataset or notebook, before any long work starts.
    """
    use_one_thread()
    import polars as pl

    from bbqrec_lab.experiments import estimates, presets, tables, variants

    notebooks.need_home()
    plan = notebook_plan(request)
    # Only notebooks with the parameter `seeds` show the main table; the others do not need its rows.
    rows_wanted = not request.only or any("seeds" in given for given in plan.values())
    rows = variants.plan(request.preset, request.seeds) if rows_wanted else []
    say(f"{request.dataset}, preset {request.preset}: {len(rows)} rows, {len(plan)} notebooks", end="")
    say(f" (on the default dataset with 2 CPU cores: {BUDGETS[request.preset]}); reading the data")
    if not request.only and request.preset != "smoke":
        say(f"notebooks {' and '.join(notebooks.APART)} take longer than all others: run them with --only")
    options = presets.make_config(request.preset, overrides=request.overrides).data
    data = _load(request.dataset, options, encoded=True)
    run = run_folder(request.out, request.dataset, request.preset, data, claim=True)
    estimates.tell_rows(
        data,
        rows,
        lambda seed: presets.make_config(request.preset, seed, request.overrides),
        open_store(request.out / "artefacts"),
        1 if request.cluster else request.jobs,
    )
    work = partial(run_row, request.dataset, request.preset, request.overrides, request.out / "artefacts")
    longest = sorted(rows, key=_order)  # long rows first
    outcomes = process_pool.run_all(
        work, longest, request.jobs, run / "logs", expected=_earlier_seconds(run / "tables"), cluster=request.cluster
    )
    results = [outcomes[row] for row in rows if not isinstance(outcomes[row], process_pool.Failure)]
    failures = {
        f"{row[0]} seed {row[1]}": out.cause for row, out in outcomes.items() if isinstance(out, process_pool.Failure)
    }
    shown = write_results(results, run / "tables") if results else None
    failures |= notebooks.run_notebooks(plan, run, data.content_hash, request.jobs, request.cluster)
    if shown and request.as_json:
        tables.show_json(pl.concat([result.rows for result in results]))
    elif shown:
        tables.show(*shown)
    for name, cause in failures.items():
        say(f"failed: {name}: {cause}")
    report.record(run, {(result.variant, result.seed): result.directory for result in results}, failures)
    say(f"all results are in {run}")
    say(f"the report of the run: {report.write(run)}")
    return 1 if failures else 0


def promote(out: str | Path = "runs", root: str | Path = ".") -> None:
    """Copy the files that the README and the notebooks show from the runs to `figures/`.

    `figures/NAME` comes from the default run, `figures/DATASET/PRESET/NAME` from that run.

    Raises: ValueError naming each file that no run has written and that is not in `figures/` either.
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
        elif not (
            (folder or base[:2] in notebooks.APART) and target.exists()
        ):  # other runs take hours: keep their files
            missing.append(name)
        say(f"figures/{name}: {'copied' if made else 'not found in any run'}")
    if missing:
        raise ValueError(
            f"shown but not found in any run: {', '.join(missing)}: run the job that writes them, or edit the page"
        )
