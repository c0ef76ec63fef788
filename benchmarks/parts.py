"""What each part of the method is worth on validation: rows of the tables, on one dataset, with paired intervals.

python -m benchmarks.parts DATASET [--rows a,b] [--seeds 0,1,2] [--preset quick] [--overrides K=V,..] [--out runs]

Rows are trained by `run_variant` into the store of `--out`, so a second call reads them. Only validation targets are
ranked here, seen items filtered; the store also holds test ranks, which this program does not open.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from bbqrec_core import Recommender, per_user, rank_users
from bbqrec_lab.cli import overrides
from bbqrec_lab.datasets import sources
from bbqrec_lab.experiments import runs, statistics
from bbqrec_lab.experiments.presets import make_config
from bbqrec_lab.experiments.variants import ONCE
from bbqrec_lab.store import Store, load_arrays, save_arrays

REFERENCE = "bbqrec"
ROWS = (
    *(REFERENCE, "sasrec-strong", "generation", "random-generation", "random-ids", "item-knn", "content-knn"),
    *("ease", "markov"),
    *("sasrec", "tiger", "no-score-reweighting", "no-reweighting", "no-seen-offset", "no-lag-bias", "no-id-signal"),
    *("no-club", "no-cross-modal", "no-sequence", "rq-kmeans", "single-modality"),
)


def validated(data: sources.NamedDataset, directory: Path) -> np.ndarray:
    """NDCG@10 of every user's validation target by a finished run, seen items filtered; kept beside the run."""
    path = directory / "validation.npz"
    if not path.exists():
        scorer = runs.load_scorer(directory)
        scores = scorer.ranking_scores if isinstance(scorer, Recommender) else scorer.scores
        with torch.inference_mode():
            asked = data.history("valid"), data.targets("valid"), np.arange(data.n_users)
            ranks = rank_users(scores, *asked, ("filtered",), 64)["filtered"]
        save_arrays(path, ndcg=per_user(ranks)["ndcg@10"])
    return load_arrays(path)["ndcg"]


def table(data: sources.NamedDataset, found: dict[str, dict[int, np.ndarray]], costs: dict[str, dict]) -> pl.DataFrame:
    """One line per row: means over users by their target, parameters, minutes, and REFERENCE minus the row."""
    groups, lines = statistics.segments(data, "valid"), []
    for name, seeds in found.items():
        ours, theirs = (np.stack(list(found[row].values())) for row in (REFERENCE, name))
        means = {group: float(theirs[:, inside].mean()) for group, inside in groups.items() if "histories" not in group}
        gaps, told = {}, ("all", "tail items", "cold items")
        for group in () if name == REFERENCE else [group for group in told if group in groups]:
            gap = statistics.paired_bootstrap(ours[:, groups[group]], theirs[:, groups[group]])
            gaps[f"{REFERENCE} minus it, {group}"] = f"{gap.difference:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        lines.append({"row": name, "seeds": len(seeds)} | means | gaps | costs[name])
    return pl.from_dicts(lines, infer_schema_length=None).sort("all", descending=True)


def main() -> None:
    """Train, rank and print the table after every row."""
    command = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__.splitlines()[0])
    command.add_argument("dataset", metavar="NAME|PATH")
    command.add_argument("--rows", default=",".join(ROWS))
    command.add_argument("--seeds", default="0")
    command.add_argument("--preset", default="quick")
    command.add_argument("--overrides", default={}, type=overrides)
    command.add_argument("--out", default=Path("runs"), type=Path)
    given = command.parse_args()
    made, costs, store = {}, {}, Store(given.out.resolve() / "artefacts")
    pl.Config.set_tbl_rows(-1).set_tbl_cols(-1).set_tbl_width_chars(200).set_tbl_hide_column_data_types(True)
    for name in given.rows.split(","):
        for seed in map(int, given.seeds.split(",")):
            if name in ONCE and made.get(name):
                continue
            config = make_config(given.preset, seed, given.overrides)
            data = sources.load(given.dataset, config.data)
            result = runs.run_variant(data, name, config, store)
            made.setdefault(name, {})[seed] = validated(data, result.directory)
            cost = json.loads((result.directory / "run.json").read_text())["cost"]
            costs[name] = {key: cost[key] for key in ("parameters", "training_minutes", "scoring_minutes")}
            print(table(data, made, costs), flush=True)


if __name__ == "__main__":
    main()
