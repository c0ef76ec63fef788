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
from safetensors.torch import save_file

from . import baselines, metrics
from .artifacts import Store, file_hash, save_arrays, write_atomic
from .config import Config, EvaluationConfig
from .data import Dataset, Sequences
from .devices import device_name
from .metrics import Ranks
from .pool import forget_peak_memory, peak_memory
from .recommender import Recommender, beam_ranks, fit_recommender
from .scorers import load_ranks, load_scorer
from .semantic_ids import SemanticIds
from .similarity import with_compared
from .tokenizer import Tokenized, fit_tokenizer, load_tokenized, resolve, save_tokenized
from .variants import ONCE, VARIANTS, Variant, plan, variant_config

__all__ = [
    "VARIANTS",
    "Result",
    "Variant",
    "intervals",
    "plan",
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
        "alignment_parts",
        "alignment",
        "ordering",
        "semantic_ids",
        "drafts",
        "devices",
        "training",
        "tokenizer",
    ),
    "run": (
        "similarity",
        "code_vectors",
        "decoding",
        "sequence_model",
        "token_model",
        "recommender",
        "baselines",
        "metrics",
        "scorers",
        "experiments",
    ),
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
    path = config.tokenizer.ids_file
    return ({"ids_file": file_hash(Path(path))} if config.tokenizer.source == "file" else {}) | {
        "data": data.data_hash,
        "split_seed": config.data.split_seed,
        "seed": config.seed,
        "code": code_hash(stage),
        "torch": torch.__version__,
    }


def _sasrec_embeddings(data: Dataset, config: Config, store: Store) -> tuple[np.ndarray, str]:
    """Item embeddings (N+1, D) of the SASRec of the same configuration and seed, and the name of its run."""
    directory = run_variant(data, "sasrec", config, store).directory
    return load_scorer(directory).model.items.weight.detach().numpy(), directory.name


def run_tokenizer(data: Dataset, config: Config, store: Store) -> tuple[Tokenized, Path]:
    """The tokenizer of a configuration, trained if the store does not hold it, and its directory."""
    tokenizer, embeddings = resolve(config.tokenizer, data), None
    key = _data_key(data, config, "tokenizer") | {"tokenizer": asdict(tokenizer)}
    if tokenizer.source == "sasrec" or tokenizer.w_align:
        embeddings, key["embeddings"] = _sasrec_embeddings(data, config, store)

    def make(directory: Path) -> None:
        start = time.monotonic()
        done = fit_tokenizer(data, tokenizer, config.seed, directory / "checkpoints", embeddings)
        save_tokenized(done, tokenizer, directory)
        write_atomic(directory / "cost.json", json.dumps({"seconds": time.monotonic() - start}))
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

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
        tokenizing, start = json.loads((home / "cost.json").read_text())["seconds"], time.monotonic()
        features = {name: data.features[name] for name in resolve(config.tokenizer, data).signals}
        what = config.recommender.similarity
        ids = with_compared(tokenized.ids, what, tokenized.behaviour, features, data.presence)
        ids.save(directory / "ids.npz")
    scorer, epochs = _fit(data, kind, ids, config, directory)
    training = time.monotonic() - start
    start = time.monotonic()
    few = data.n_items <= config.evaluation.exact_items and not getattr(scorer, "by_beam", False)
    exact = few or getattr(scorer, "tree", None) is None
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
        "device": device_name(getattr(scorer, "device", torch.device("cpu"))),
        "python": sys.version.split()[0],
    }
    notes = {"kind": kind, "config": asdict(config), "n_items": data.n_items, "cost": cost, "history": epochs}
    write_atomic(directory / "run.json", json.dumps(notes, indent=1))
    counts = pl.Series("training_events", data.train_counts()[1:])
    items = data.items.select(pl.col("item_id").cast(pl.String), "title").with_columns(counts)
    items.write_parquet(directory / "items.parquet")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)


def _fit(
    data: Dataset, kind: str, ids: SemanticIds | None, config: Config, directory: Path
) -> tuple[object, list[dict]]:
    """Train what scores histories, save it in `directory`; the scorer and one dict an epoch (or trial)."""
    if kind in baselines.COUNTING:
        found = baselines.COUNTING[kind].fit(data)
        found.save(directory)
        return found, [{"trial": trial.settings, "score": trial.ndcg} for trial in found.trials]
    recommender, history = fit_recommender(
        data, ids, config.recommender, config.evaluation, config.seed, directory / "checkpoints"
    )
    state = {name: value.contiguous().to("cpu", copy=True) for name, value in recommender.model.state_dict().items()}
    save_file(state, directory / "model.safetensors")
    return recommender, history.epochs


def _test_ranks(data: Dataset, scorer: object, evaluation: EvaluationConfig, exact: bool) -> dict[str, Ranks]:
    """Test ranks of all users, with the history kept and masked, by exact scores or by beam."""
    everyone = np.arange(data.n_users)
    if not exact:
        modes = {"kept": False, "masked": True}
        return {name: beam_ranks(scorer, data, "test", everyone, evaluation, masked) for name, masked in modes.items()}
    history, targets = data.history("test"), data.targets("test")

    def score(history: Sequences, users: np.ndarray) -> torch.Tensor:
        return scorer.ranking_scores(history, users, targets[users])

    scores = score if isinstance(scorer, Recommender) else scorer.scores
    return metrics.rank_users(scores, history, targets, everyone, batch=evaluation.batch)


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
