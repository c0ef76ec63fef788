"""Find a training recipe for every learned row on one dataset: eight trials each, judged on validation.

python -m benchmarks.recipes DATASET [--rows a,b] [--seed 0] [--preset quick] [--out runs]

Every row gets the same trials (`GRID`). A trial's score is the NDCG@10 that early stopping sees: a fixed sample of
users, seen items filtered where the data repeat none. No trial reads a test target. Rows that train the same model on
other IDs (tiger, letter, mql4grec, controls) have the recipe of `generation` or `bbqrec`. Finished trials are kept in
`--out`, so a second call goes on where the first stopped. `presets.RECIPES` holds what came out.
"""

import argparse
import itertools
import json
import tempfile
from functools import partial
from pathlib import Path

import polars as pl

from bbqrec_core import fit_recommender
from bbqrec_lab.baselines.features_model import item_features
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.datasets import sources
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.experiments.variants import VARIANTS, variant_config
from bbqrec_lab.store import Store, key_hash, write_atomic

GRID = {"dropout": (0.2, 0.5), "lr": (0.002, 0.004), "weight_decay": (0.01, 0.3)}
ROWS = (
    *("sasrec", "sasrec-bce", "gsasrec", "esasrec", "bsarec", "hstu", "sasrec-features", "sasrec-strong"),
    *("generation", "bbqrec"),
)


def trial(data: sources.NamedDataset, row: str, settings: dict[str, float], given: argparse.Namespace) -> dict:
    """Train one row with some settings; its validation score and cost, read from `--out` if it was made before."""
    asked = {"dataset": data.content_hash, "row": row, "seed": given.seed, "preset": given.preset} | settings
    path = given.out / "recipes" / f"{key_hash(asked)}.json"
    if path.exists():
        return json.loads(path.read_text())
    named = {f"recommender.{name}": value for name, value in settings.items()}
    config, ids = variant_config(row, make_config(given.preset, given.seed, named)), None
    if VARIANTS[row].kind == "ids":
        ids = runs.run_tokenizer(data, config, Store(given.out.resolve() / "artefacts"))[0].ids
    make = partial(make_model, features=item_features(data) if config.recommender.features else None)
    with tempfile.TemporaryDirectory() as folder:
        stages = config.recommender, config.evaluation
        log = fit_recommender(data, ids, *stages, config.seed, Path(folder), make, TrainingBar())[1]
    best = log.epochs[log.best_epoch - 1]
    found = asked | {"dataset": data.name, "ndcg@10": best["score"], "best epoch": log.best_epoch}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(found))
    return found


def main() -> None:
    """Run the trials, and print all of them, best first, after every row."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.splitlines()[0])
    command.add_argument("dataset", metavar="NAME|PATH")
    command.add_argument("--rows", default=",".join(ROWS))
    command.add_argument("--seed", default=0, type=int)
    command.add_argument("--preset", default="quick")
    command.add_argument("--out", default=Path("runs"), type=Path)
    given = command.parse_args()
    data, found = sources.load(given.dataset, make_config(given.preset).data), []
    pl.Config.set_tbl_rows(-1).set_tbl_cols(-1).set_tbl_width_chars(200).set_tbl_hide_column_data_types(True)
    for row in given.rows.split(","):
        trials = itertools.product(*GRID.values())
        found += [trial(data, row, dict(zip(GRID, values, strict=True)), given) for values in trials]
        print(pl.from_dicts(found).filter(row=row).sort("ndcg@10", descending=True), flush=True)


if __name__ == "__main__":
    main()
