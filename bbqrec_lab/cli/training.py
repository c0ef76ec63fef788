"""Commands that train, and what they can train: `reproduce`, `fit`, `variants`, `config`, `runs`."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bbqrec_lab.cli.app import app
from bbqrec_lab.cli.data import read
from bbqrec_lab.cli.options import (
    TRAIN_OPTIONS,
    Json,
    Out,
    Overrides,
    Preset,
    TrainOptions,
    Variant,
    examples,
    names,
)
from bbqrec_lab.cli.output import print_json, print_rows
from bbqrec_lab.terminal import say, tell


@app.command(
    help_epilogue=examples("bbqrec reproduce", "bbqrec reproduce --dataset planted --preset smoke --only 02,05")
)
def reproduce(
    *,
    options: TrainOptions = TRAIN_OPTIONS,
    seeds: Annotated[str, Parameter(help="Seeds of the trained rows.")] = "0,1,2",
    only: Annotated[str, Parameter(help="Only these notebooks, such as 02,05.", show_default=False)] = "",
    jobs: Annotated[int | None, Parameter(help="Parallel rows or notebooks; default: one per core, at most 8.")] = None,
    cluster: Annotated[str, Parameter(help="dask://HOST:PORT or slurm instead of this machine.")] = "",
    json: Json = False,
) -> int:
    """Run all variants and notebooks; writes tables and figures."""
    from bbqrec_lab.experiments.presets import parse_seeds
    from bbqrec_lab.suite import reproduce as suite

    options.open_store()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    jobs = min(8, cores) if jobs is None else jobs
    seed_list, numbers = parse_seeds(seeds), names(only)
    asked = options.dataset, options.preset, seed_list, numbers, jobs, options.out
    return suite.reproduce(suite.Request(*asked, overrides=options.overrides, as_json=json, cluster=cluster))


@app.command(
    help_epilogue=examples(
        "bbqrec fit --variant sasrec --dataset planted-smoke --preset smoke",
        "bbqrec fit --variant bbqrec --dataset my-shop --overrides levels=4,tokenizer.lr=1e-3",
        "bbqrec fit --variant bbqrec --overrides source=file,ids_file=index.json",
    )
)
def fit(
    *,
    variant: Variant,
    options: TrainOptions = TRAIN_OPTIONS,
    seed: Annotated[int, Parameter(help="Seed of initialisation and batches.")] = 0,
    overrides: Overrides = "",
    json: Json = False,
) -> int:
    """Train and evaluate one variant; prints its results."""
    import polars as pl

    from bbqrec_lab.experiments import fitting, runs, tables
    from bbqrec_lab.experiments.presets import parse_overrides

    options.open_store()
    given = options.overrides | parse_overrides(overrides)
    result = fitting.fit(options.dataset, variant, options.preset, seed, given, options.out)
    name, data_hash = result.rows.select("dataset", "data_hash").row(0)
    caption = f"{name} ({data_hash}), preset {options.preset}, seed {seed}, test part, full catalogue"
    caption += tables.told_of_empty_lists(result.rows)
    rows = result.rows.with_columns(folder=pl.lit(str(result.directory)))
    print_rows(rows, caption, json, tables.summary(result.rows))
    if (result.directory / "ids.npz").exists():
        report = runs.id_report(result.directory)
        say("semantic IDs: {items} items, {sharing} share an ID, the repair changed {changed}".format(**report))
    if not json:
        tell(f"for bbqrec recommend: --run {result.directory}")
    return 0


@app.command(help_epilogue=examples("bbqrec variants", "bbqrec variants --json"))
def variants(*, json: Json = False) -> int:
    """List the variants that fit can train."""
    import polars as pl

    from bbqrec_lab.experiments.variants import VARIANTS, holds, recipe_source

    lines = [
        (name, variant.group, variant.note, ", ".join(holds(name)), recipe_source(name))
        for name, variant in VARIANTS.items()
    ]
    frame = pl.DataFrame(lines, schema=["variant", "group", "note", "holds", "recipe"], orient="row")
    print_rows(frame, "variants for bbqrec fit: what each model holds of the items, and whose recipe it has", json)
    return 0


@app.command(
    help_epilogue=examples("bbqrec config", "bbqrec config --preset smoke --variant tiger --overrides levels=2 --json")
)
def config(
    *,
    preset: Annotated[Preset, Parameter(help="Amount of training.")] = "quick",
    variant: Variant = "bbqrec",
    overrides: Overrides = "",
    dataset: Annotated[
        str | None, Parameter(help="Dataset that chooses the recipe; default: both values are shown.")
    ] = None,
    json: Json = False,
) -> int:
    """Print every setting of a row: value, default, meaning, and where the value comes from."""
    from bbqrec_lab.experiments import setting_list
    from bbqrec_lab.experiments.presets import parse_overrides

    given = parse_overrides(overrides)
    events = None
    if dataset is not None:
        data = read(dataset)
        events = len(data.train().items) / data.n_users
    lines = setting_list.setting_list(preset, variant, given, events)
    if json:
        print_json(lines)
        return 0
    caption = f"settings of {variant}, preset {preset}; source: default, preset, recipe, variant or given"
    print_rows(setting_list.as_table(lines), caption, as_json=False)
    return 0


@app.command(name="runs", help_epilogue=examples("bbqrec runs", "bbqrec runs --out runs --json"))
def runs_of(*, out: Out = Path("runs"), json: Json = False) -> int:
    """List the finished runs in a folder of results."""
    from bbqrec_lab.experiments import run_labels

    found = run_labels.list_runs(out)
    hidden = ["bundle", "data_hash"] + ([] if (found["overrides"] != "").any() else ["overrides"])
    print_rows(found, f"runs in {out}; ndcg@10 over all test users", json, found.drop(hidden))
    if unknown := run_labels.count_unlabelled(out):
        say(f"{unknown} more runs without labels, or unfinished")
    return 0
