"""Which stored run is of which dataset, variant, preset and seed: labels beside the runs, their list, a search."""

import json
from datetime import datetime
from pathlib import Path

import polars as pl
from filelock import FileLock

from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.datasets.sources import REGISTRY
from bbqrec_lab.experiments.presets import Config, setting_value
from bbqrec_lab.experiments.variants import READS, VARIANTS
from bbqrec_lab.store import write_atomic
from bbqrec_lab.terminal import say

STORE = "artefacts"  # the folder of trained results below an out folder
METRIC = "ndcg@10"
SCHEMA = {
    "dataset": pl.String,
    "variant": pl.String,
    "seed": pl.Int64,
    "preset": pl.String,
    "overrides": pl.String,
    "date": pl.String,
    METRIC: pl.Float64,
    f"{METRIC} filtered": pl.Float64,
    "folder": pl.String,
    "bundle": pl.String,
    "data_hash": pl.String,
}
LABELS = {name: kind for name, kind in SCHEMA.items() if name not in (METRIC, f"{METRIC} filtered", "folder")}


def labels_of(data: NamedDataset, variant: str, config: Config) -> dict[str, object]:
    """The labels of a row; `overrides` has the settings that the user gave, `bundle` is the folder of the data."""
    read = READS[VARIANTS[variant].kind]
    forced = VARIANTS[variant].overrides
    given = {
        name: setting_value(config, name)
        for name in config.given
        if name.partition(".")[0] in read and name not in forced
    }
    return {
        "dataset": data.name,
        "bundle": data.path,
        "data_hash": data.data_hash,
        "variant": variant,
        "seed": config.seed,
        "preset": config.preset,
        "overrides": json.dumps(given) if given else "",
    }


def record(directory: Path, labels: dict[str, object]) -> None:
    """Add the labels of a row to those of its run, unless they are there; rows with equal settings share a run."""
    if any(labels.items() <= entry.items() for entry in read_labels(directory)):
        return
    try:
        with FileLock(f"{directory}.lock"):
            entry = labels | {"date": datetime.now().astimezone().isoformat(timespec="seconds")}
            write_atomic(_file(directory), json.dumps([*read_labels(directory), entry], indent=1))
    except OSError:  # a folder that is only read: the row can be used, its name is not in the list
        return


def list_runs(out: str | Path = "runs") -> pl.DataFrame:
    """The finished runs below an out folder, newest last.

    Returns: columns dataset, variant, seed, preset, overrides (of the user, as JSON), date (ISO 8601), ndcg@10 over all
        test users with seen items included, the same with seen items filtered, folder (for `recommend`), bundle (folder
        of the data), data_hash. A run that several rows share has a line for each.
    Raises: ValueError if the folder does not exist.
    """
    out = Path(out).expanduser()
    if not out.is_dir():
        raise ValueError(f"no folder {out}: give --out the folder of bbqrec fit or bbqrec reproduce")
    finished = [path for path in sorted((out / STORE).glob("run-*")) if (path / "rows.csv").exists()]
    finished = [path for path in finished if not path.name.endswith(".partial")]
    scores = {path: _scores(path) for path in finished}
    lines = [
        entry | known | {"folder": str(path)} for path, known in scores.items() if known for entry in read_labels(path)
    ]
    return pl.DataFrame(lines, schema=SCHEMA).sort("date", maintain_order=True)


def count_unlabelled(out: str | Path = "runs") -> int:
    """How many folders of runs `list_runs` leaves out: unfinished ones, and finished ones without labels."""
    folders = [path for path in (Path(out).expanduser() / STORE).glob("run-*") if path.is_dir()]
    return sum(path.name.endswith(".partial") or not _read(_file(path)) for path in folders)


def find_run(
    out: str | Path = "runs",
    dataset: str | Path = "ml-100k",
    variant: str = "bbqrec",
    preset: str | None = None,
    seed: int | None = None,
) -> Path:
    """The folder of the newest finished run of a dataset and a variant.

    Args: dataset: a registered name, the folder of a bundle, or its name. preset, seed: None takes any. Runs with
        overrides, and those of preset `smoke`, are taken only if there is no other.
    Raises: ValueError if there is none, or if datasets in different folders have the name.
    """
    runs = list_runs(out)
    wanted = [pl.col("variant") == variant, _of_dataset(str(dataset))]
    wanted += [pl.col(name) == value for name, value in (("preset", preset), ("seed", seed)) if value is not None]
    found = runs.filter(*wanted)
    if found.is_empty():
        extra = "".join(
            f" --{name} {value}" for name, value in (("preset", preset), ("seed", seed)) if value is not None
        )
        there = ", ".join(runs.select(pl.format("{} {}", "dataset", "variant")).to_series().unique().sort())
        asked = f"bbqrec fit --dataset {dataset} --variant {variant}{extra} --out {out}"
        raise ValueError(f"no such run in {out} (there: {there or 'none'}): run {asked}")
    if found["bundle"].n_unique() > 1:
        folders = ", ".join(found["bundle"].unique().sort())
        raise ValueError(f"several datasets are called {dataset}: give the folder of one of them: {folders}")
    return Path(found.sort(pl.col("overrides") == "", pl.col("preset") != "smoke", "date")["folder"][-1])


def _of_dataset(dataset: str) -> pl.Expr:
    """Runs of a dataset: of this folder if it is one, else of this name."""
    folder = Path(dataset).expanduser()
    if dataset not in REGISTRY and folder.is_dir():
        return pl.col("bundle") == str(folder.resolve())
    return pl.col("dataset") == dataset


def _file(directory: Path) -> Path:
    """The labels of a run, next to its folder, whose files never change."""
    return directory.with_name(f"{directory.name}.labels.json")


def read_labels(directory: Path) -> list[dict[str, object]]:
    """The labels of the rows that share a run, oldest first; of a damaged file none, and a line on standard error."""
    found = _read(_file(directory))
    if found is None:
        told = "is damaged and passed over: the run stays, and bbqrec fit with its settings labels it again"
        say(f"{_file(directory)} {told}")
    return found or []


def _read(file: Path) -> list[dict[str, object]] | None:
    """The entries of a file of labels; none if there is no file, None if it is damaged."""
    if not file.exists():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        sound = isinstance(found, list) and all({"dataset", "variant"} <= entry.keys() for entry in found)
        pl.DataFrame(found, schema=LABELS, strict=True)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError):
        return None
    return found if sound else None


def _scores(directory: Path) -> dict[str, float | None]:
    """The metric of a run in both modes; the name of a metric by beam search ends in the beam.

    Empty, and a line on standard error, if the file of its results is damaged.
    """
    try:
        rows = pl.read_csv(directory / "rows.csv", glob=False).filter(
            pl.col("segment") == "all", pl.col("metric").str.starts_with(METRIC)
        )
        by_mode = dict(rows.select("seen_items", pl.col("value").cast(pl.Float64)).iter_rows())
    except (OSError, pl.exceptions.PolarsError):
        say(f"{directory / 'rows.csv'} is damaged and passed over: bbqrec fit with its settings makes the run again")
        return {}
    return {METRIC: by_mode.get("included"), f"{METRIC} filtered": by_mode.get("filtered")}
