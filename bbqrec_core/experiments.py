"""Rivals and ablations as plain data, and the one function that runs any of them and keeps the result."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse

from . import baselines, metrics
from .artifacts import Store, load_arrays, save_arrays, write_atomic
from .config import Config, EvaluationConfig, RecommenderConfig
from .data import Dataset, Sequences
from .metrics import Ranks
from .pool import forget_peak_memory, peak_memory
from .recommender import Recommender, beam_ranks, build_recommender, fit_recommender
from .semantic_ids import SemanticIds
from .tokenizer import Tokenized, fit_tokenizer, load_tokenized, resolve, save_tokenized
from .variants import ONCE, VARIANTS, Variant, plan, variant_config

__all__ = [
    "VARIANTS",
    "Result",
    "Variant",
    "intervals",
    "load_ranks",
    "load_scorer",
    "plan",
    "recommend",
    "run_tokenizer",
    "run_variant",
    "variant_config",
]

COMPARED = ("ndcg@10", "recall@10")
STAGES = {
    "tokenizer": (
        "data",
        "events",
        "encoders",
        "features",
        "batching",
        "quantizer",
        "blocks",
        "alignment",
        "semantic_ids",
        "training",
        "tokenizer",
    ),
    "run": ("similarity", "decoding", "recommender", "baselines", "metrics", "experiments"),
}


class Result(NamedTuple):
    """One finished row: long-form `rows` (columns of main_results.csv), `cost`, and the `directory` that holds it."""

    variant: str
    seed: int
    rows: pl.DataFrame
    cost: pl.DataFrame
    directory: Path


def code_hash(stage: str) -> str:
    """8 hex digits over the sources that a stage's results depend on, so that changed code never meets old results."""
    modules = STAGES["tokenizer"] + (STAGES["run"] if stage == "run" else ())
    sources = b"".join((Path(__file__).parent / f"{module}.py").read_bytes() for module in modules)
    return hashlib.sha256(sources).hexdigest()[:8]


def _data_key(data: Dataset, config: Config, stage: str) -> dict[str, object]:
    """What every result depends on beside its own configuration."""
    return {
        "data": data.data_hash,
        "split_seed": config.data.split_seed,
        "seed": config.seed,
        "code": code_hash(stage),
        "torch": torch.__version__,
    }


def run_tokenizer(data: Dataset, config: Config, store: Store) -> tuple[Tokenized, Path]:
    """The tokenizer of a configuration, trained if the store does not hold it, and its directory."""
    tokenizer = resolve(config.tokenizer, data)

    def make(directory: Path) -> None:
        start = time.monotonic()
        done = fit_tokenizer(data, tokenizer, config.seed, directory / "checkpoints")
        save_tokenized(done, tokenizer, directory)
        write_atomic(directory / "cost.json", json.dumps({"seconds": time.monotonic() - start}))
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    key = _data_key(data, config, "tokenizer") | {"tokenizer": asdict(tokenizer)}
    directory = store.get("tokenizer", key, make)
    return load_tokenized(directory), directory


def run_variant(data: Dataset, variant: str, config: Config, store: Store) -> Result:
    """Train and evaluate one variant, or find it in the store; test is scored once, after all training.

    Raises: ValueError for an unknown variant, FloatingPointError when a loss is not finite.
    """
    config = variant_config(variant, config)
    kind = VARIANTS[variant].kind
    key = _data_key(data, config, "run") | {"kind": kind, "evaluation": asdict(config.evaluation)}
    if kind in ("ids", "items"):
        key["recommender"] = asdict(config.recommender)
    if kind == "ids":
        key["tokenizer"] = asdict(resolve(config.tokenizer, data))
    directory = store.get("run", key, lambda path: _make_run(data, kind, config, store, path))
    notes = json.loads((directory / "run.json").read_text())
    labels = {"dataset": data.name, "data_hash": data.data_hash, "variant": variant, "seed": config.seed}
    labels |= {"preset": config.preset, "split_seed": config.data.split_seed}
    rows = pl.read_csv(directory / "rows.csv").with_columns(
        [pl.lit(value).alias(name) for name, value in labels.items()]
        + [pl.lit(directory.name[-12:]).alias("config_hash")]
    )
    order = [*labels, "history", "segment", "targets", "metric", "value", "config_hash"]
    return Result(variant, config.seed, rows.select(order), pl.DataFrame({**labels, **notes["cost"]}), directory)


def _make_run(data: Dataset, kind: str, config: Config, store: Store, directory: Path) -> None:
    """Train, score validation and test, and write everything that `recommend` and the notebooks need."""
    forget_peak_memory()
    start, ids, tokenizing = time.monotonic(), None, 0.0
    if kind == "ids":
        tokenized, home = run_tokenizer(data, config, store)
        ids, tokenizing = tokenized.ids, json.loads((home / "cost.json").read_text())["seconds"]
        start = time.monotonic()
        ids.save(directory / "ids.npz")
    scorer, epochs = _fit(data, kind, ids, config, directory)
    training = time.monotonic() - start
    start = time.monotonic()
    exact = data.n_items <= config.evaluation.exact_items or getattr(scorer, "tree", None) is None
    ranks = _test_ranks(data, scorer, config.evaluation, exact)
    for mode, found in ranks.items():
        save_arrays(directory / f"ranks_{mode}.npz", **found._asdict())
    by = "" if exact else f" by beam {config.evaluation.beam}"
    _table(data, ranks, by).write_csv(directory / "rows.csv")
    cost = {
        "tokenizer_minutes": round(tokenizing / 60, 3),
        "training_minutes": round(training / 60, 3),
        "scoring_minutes": round((time.monotonic() - start) / 60, 3),
        "epochs": len(epochs),
        "valid_ndcg@10": max((row["score"] for row in epochs if "score" in row), default=None),
        "peak_memory_gb": peak_memory(),
        "device": "cpu",
        "python": sys.version.split()[0],
    }
    notes = {"kind": kind, "config": asdict(config), "n_items": data.n_items, "cost": cost, "history": epochs}
    write_atomic(directory / "run.json", json.dumps(notes, indent=1))
    data.items.select(pl.col("item_id").cast(pl.String), "title").write_parquet(directory / "items.parquet")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)


def _fit(
    data: Dataset, kind: str, ids: SemanticIds | None, config: Config, directory: Path
) -> tuple[object, list[dict]]:
    """Train what scores histories, save it in `directory`; the scorer and one dict an epoch (or trial)."""
    if kind == "popularity":
        found = baselines.Popularity.fit(data)
        save_arrays(directory / "popularity.npz", counts=found.counts)
        return found, []
    if kind == "markov":
        chain = baselines.Markov.fit(data)
        numbers = {"weights": np.array(chain.weights), "pseudo_count": np.array(chain.pseudo_count)}
        save_arrays(directory / "markov.npz", shares=chain.shares, **numbers)
        for lag, counts in enumerate(chain.counts):
            sparse.save_npz(directory / f"markov_{lag}.npz", counts)
        return chain, [{"trial": [*trial.weights, trial.pseudo_count], "score": trial.ndcg} for trial in chain.trials]
    recommender, history = fit_recommender(
        data, ids, config.recommender, config.evaluation, config.seed, directory / "checkpoints"
    )
    state = {name: value.contiguous().clone() for name, value in recommender.model.state_dict().items()}
    save_file(state, directory / "model.safetensors")
    return recommender, history.epochs


def load_scorer(directory: Path) -> Recommender | baselines.Popularity | baselines.Markov:
    """What scores histories, from a finished run's directory."""
    notes = json.loads((directory / "run.json").read_text())
    if notes["kind"] == "popularity":
        return baselines.Popularity(load_arrays(directory / "popularity.npz")["counts"])
    if notes["kind"] == "markov":
        saved = load_arrays(directory / "markov.npz")
        counts = tuple(sparse.load_npz(directory / f"markov_{lag}.npz") for lag in range(len(saved["weights"])))
        return baselines.Markov(tuple(saved["weights"]), float(saved["pseudo_count"]), saved["shares"], counts)
    ids = SemanticIds.load(directory / "ids.npz") if notes["kind"] == "ids" else None
    recommender = build_recommender(notes["n_items"], ids, RecommenderConfig(**notes["config"]["recommender"]), seed=0)
    recommender.model.load_state_dict(load_file(directory / "model.safetensors"))
    return recommender


def load_ranks(directory: Path, history: str) -> Ranks:
    """Test ranks of all users of a finished run; `history` is `kept` or `masked`."""
    return Ranks(**load_arrays(directory / f"ranks_{history}.npz"))


def _test_ranks(data: Dataset, scorer: object, evaluation: EvaluationConfig, exact: bool) -> dict[str, Ranks]:
    """Test ranks of all users, with the history kept and masked, by exact scores or by beam."""
    everyone = np.arange(data.n_users)
    if not exact:
        modes = {"kept": False, "masked": True}
        return {name: beam_ranks(scorer, data, "test", everyone, evaluation, masked) for name, masked in modes.items()}
    history, targets = data.history("test"), data.targets("test")
    return metrics.rank_users(scorer.scores, history, targets, everyone, batch=evaluation.batch)


def _table(data: Dataset, ranks: dict[str, Ranks], by: str) -> pl.DataFrame:
    """Long form: history, segment, targets, metric (its name ends in `by`), value; list metrics over all users."""
    groups, counts = metrics.segments(data, "test"), data.train_counts()
    rows = []
    for mode, found in ranks.items():
        values = {name + by: value for name, value in metrics.per_user(found).items()}
        for segment, inside in groups.items():
            if inside.any():
                rows += [
                    (mode, segment, int(inside.sum()), name, float(v[inside].mean())) for name, v in values.items()
                ]
        lists = metrics.list_metrics(found.top, counts)
        rows += [(mode, "all", len(found.ties), name + by, value) for name, value in lists.items()]
    return pl.DataFrame(rows, schema=["history", "segment", "targets", "metric", "value"], orient="row")


def intervals(results: Sequence[Result], against: str = "bbqrec") -> pl.DataFrame:
    """`against` minus every other variant: mean difference, 95 % bounds, p, and p after Holm over the whole table.

    Seeds that both have are averaged per user, then users are resampled in pairs; a variant that does not depend on the
    seed is compared with the average over all seeds.
    """
    runs: dict[str, dict[int, Path]] = {}
    for result in results:
        runs.setdefault(result.variant, {})[result.seed] = result.directory
    table = []
    for mode in ("kept", "masked"):
        values = {
            name: {seed: metrics.per_user(load_ranks(path, mode)) for seed, path in seeds.items()}
            for name, seeds in runs.items()
        }
        for name in runs:
            if name == against or against not in runs:
                continue
            common = sorted(runs[against]) if name in ONCE else sorted(set(runs[against]) & set(runs[name]))
            for metric in COMPARED if common else ():
                ours = np.stack([values[against][seed][metric] for seed in common])
                theirs = np.stack(
                    [values[name][seed][metric] for seed in sorted(runs[name]) if name in ONCE or seed in common]
                )
                found = metrics.paired_bootstrap(ours, theirs)
                table.append((mode, metric, against, name, len(common), *found))
    schema = ["history", "metric", "variant", "against", "seeds", "difference", "low", "high", "p"]
    frame = pl.DataFrame(table, schema=schema, orient="row")
    return frame.with_columns(
        pl.Series("p_holm", metrics.holm(frame["p"].to_numpy()) if len(frame) else [], pl.Float64)
    )


def recommend(directory: Path, item_ids: Sequence[str], k: int) -> pl.DataFrame:
    """The k best next items after a history, those in it left out.

    Args: directory: of a finished run. item_ids: original ids, oldest first.
    Returns: columns rank, item_id, title, score (nats where the model gives probabilities), code (the semantic ID).
    Raises: ValueError for an empty history, an unknown id, or k < 1.
    """
    items = pl.read_parquet(directory / "items.parquet")
    rows = {item: row for row, item in enumerate(items["item_id"].to_list(), start=1)}
    unknown = [item for item in item_ids if item not in rows]
    if unknown or not item_ids or k < 1:
        raise ValueError(f"want known item ids and k >= 1, got {k=}, unknown or no items: {unknown or 'none given'}")
    history = np.array([rows[item] for item in item_ids], dtype=np.int32)
    asked = Sequences(np.array([0, len(history)]), history)
    scores = metrics.mask_history(load_scorer(directory).scores(asked, np.array([0])), asked, np.array([0]))[0]
    best = scores.sort(descending=True, stable=True)  # equal scores by row, as in the ranking
    picked = best.indices[: min(k, int((scores > -torch.inf).sum()))].numpy()
    path = directory / "ids.npz"
    codes = SemanticIds.load(path).code_ids[picked] if path.exists() else None
    shown = ["-".join(map(str, code)) for code in codes] if codes is not None else [""] * len(picked)
    chosen = items[picked - 1]
    return pl.DataFrame(
        {"rank": np.arange(1, len(picked) + 1), "item_id": chosen["item_id"], "title": chosen["title"]}
        | {"score": best.values[: len(picked)].numpy(), "code": shown}
    )
