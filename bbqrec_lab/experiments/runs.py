"""Train, evaluate and store one variant; load stored results; compare variants."""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from filelock import FileLock
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save
from tqdm import tqdm

from bbqrec_core import (
    EvaluationConfig,
    Ranks,
    Recommender,
    SemanticIds,
    Sequences,
    Tokenized,
    build_recommender,
    fit_recommender,
    metrics,
)
from bbqrec_core.recommender.fit import beam_ranks
from bbqrec_core.tokenizer.semantic_ids import group_sizes
from bbqrec_lab.baselines.counting import Ease, ItemKnn, Markov, Popularity
from bbqrec_lab.baselines.features_model import item_features
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.baselines.tokenizers import make_tokenized, resolve_signals, resolve_source
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets.bundle import need_file
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import committed_rows, statistics
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.run_labels import labels_of, record
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.experiments.variants import COUNTING, ONCE, UNIQUENESS, VARIANTS, variant_config
from bbqrec_lab.measure import device_name, forget_peak_memory, has_bf16, peak_memory
from bbqrec_lab.settings import VariantRecommenderConfig, VariantTokenizerConfig
from bbqrec_lab.store import (
    MANIFEST,
    SHOWN,
    UNREADABLE,
    Store,
    file_hash,
    load_arrays,
    save_arrays,
    verify,
    write_atomic,
)
from bbqrec_lab.terminal import say
from bbqrec_lab.threads import use_one_thread


def load_scorer(
    directory: Path,
) -> Recommender | Popularity | Markov | ItemKnn | Ease:
    """Load the scorer (recommender or counting baseline) from the directory of a finished run.

    Raises: DamagedError if a file is no longer as it was written.
    """
    verify(directory, but="ranks_*")
    notes = json.loads((directory / "run.json").read_text())
    if notes["kind"] in COUNTING:
        return COUNTING[notes["kind"]].load(directory)
    ids = SemanticIds.load(directory / "ids.npz") if notes["kind"] == "ids" else None
    state = load_file(directory / "model.safetensors")
    settings = VariantRecommenderConfig(**notes["config"]["recommender"])
    seen = np.append(False, pl.read_parquet(directory / "items.parquet", glob=False)["training_events"].to_numpy() > 0)
    make = partial(make_model, features=state.get("features"))
    recommender = build_recommender(notes["n_items"], ids, settings, 0, seen, make)
    recommender.model.load_state_dict(state)
    return recommender


def load_ranks(directory: Path, seen_items: str) -> Ranks:
    """Test ranks of all users of a finished run; `seen_items` is `included` or `filtered`."""
    verify(directory, only=f"ranks_{seen_items}.npz")
    return Ranks(**load_arrays(directory / f"ranks_{seen_items}.npz"))


def recommend(directory: Path, item_ids: Iterable[object], k: int = 10) -> pl.DataFrame:
    """The k best next items after a history, without the items of the history.

    Args: directory: of a finished run. item_ids: original ids, oldest first; a string of digits matches an integer id.
    Returns: columns rank, item_id, title, score (in nats if the model gives probabilities), code (the semantic ID).
    Raises: ValueError for an empty history, an unknown id, or k < 1.
    """
    verify(directory, but="ranks_*")
    known = (
        pl.read_parquet(directory / "items.parquet", columns=["item_id"], glob=False)["item_id"]
        .cast(pl.String)
        .to_list()
    )
    rows = {item: row for row, item in enumerate(known, start=1)}
    asked = list(map(str, item_ids))
    unknown = [item for item in asked if item not in rows]
    if unknown or not asked or k < 1:
        raise ValueError(f"need known item ids and k >= 1, got {k=}, unknown or no items: {unknown or 'none given'}")
    history = np.array([rows[item] for item in asked], dtype=np.int32)
    return _best_items(directory, Sequences(np.array([0, len(history)]), history), k).drop("user")


def unknown_users(directory: Path, user_ids: Iterable[object]) -> list[str]:
    """Those of the users that the data of a run did not have."""
    known = set(_users(directory)["user_id"].cast(pl.String))
    return [user for user in map(str, user_ids) if user not in known]


def recommend_users(directory: Path, user_ids: Iterable[object], k: int = 10) -> pl.DataFrame:
    """The k best next items of users of the data, after all their events and without the items of these.

    Args: directory: of a finished run. user_ids: original ids; a string of digits matches an integer id.
    Returns: column user_id, then those of `recommend`; users in the order given.
    Raises: ValueError for no user, an unknown user, or k < 1.
    """
    names = list(map(str, user_ids))
    if not names or k < 1:
        raise ValueError(f"need at least one user and k >= 1, got {len(names)} users and {k=}")
    if unknown := unknown_users(directory, names):
        some = ", ".join(map(repr, unknown[:5]))
        raise ValueError(f"{len(unknown)} of {len(names)} users are not in the data of this run ({some}): remove them")
    asked = pl.DataFrame({"name": names})
    stored = _users(directory).with_columns(name=pl.col("user_id").cast(pl.String))
    users = asked.join(stored, on="name", how="left", maintain_order="left")
    flat = users.select("rows", "times").explode("rows", "times")
    offsets = np.append(0, np.cumsum(users["rows"].list.len().to_numpy().astype(np.int64)))
    times = None if flat["times"].null_count() else flat["times"].to_numpy()
    found = _best_items(directory, Sequences(offsets, flat["rows"].to_numpy(), times), k)
    return found.select(users["user_id"][found["user"]].alias("user_id"), pl.exclude("user"))


def _users(directory: Path) -> pl.DataFrame:
    """The users of a run with their histories: columns user_id, rows (of items), times."""
    path = directory / "users.parquet"
    if not path.exists():
        raise ValueError(f"{directory} has no histories of users: make the run again, with bbqrec fit")
    verify(directory, but="ranks_*")
    return pl.read_parquet(path, glob=False)


def _best_items(directory: Path, history: Sequences, k: int) -> pl.DataFrame:
    """The k best items that a history does not have; `user` numbers the histories from 0."""
    scorer, users = load_scorer(directory), np.arange(len(history.offsets) - 1)
    parts = []
    with tqdm(total=len(users), desc="recommending", leave=False, mininterval=1.0, disable=None) as bar:
        for batch in np.split(users, users[USERS::USERS]):
            scores = metrics.filter_seen(scorer.scores(history, batch), history, batch)
            best = scores.sort(descending=True, stable=True)  # ties are broken by row, as in the ranking
            values, rows = best.values[:, :k].numpy(), best.indices[:, :k].numpy()
            place, column = np.nonzero(values > -np.inf)
            parts.append((batch[place], column + 1, rows[place, column], values[place, column]))
            bar.update(len(batch))
    user, rank, row, score = map(np.concatenate, zip(*parts, strict=True))
    items, path = pl.read_parquet(directory / "items.parquet", glob=False), directory / "ids.npz"
    used, where = np.unique(row, return_inverse=True)
    codes = SemanticIds.load(path).code_ids[used] if path.exists() else np.zeros((len(used), 0), int)
    shown = pl.Series("code", ["-".join(map(str, code)) for code in codes], pl.String)
    return pl.DataFrame(
        {"user": user, "rank": rank, "item_id": items["item_id"][row - 1], "title": items["title"][row - 1]}
        | {"score": score, "code": shown[where]}
    )


def id_report(directory: Path) -> dict[str, int]:
    """What became of the IDs of a run: items, items that share an ID, and IDs that the repair changed.

    Raises: ValueError if the run has no IDs.
    """
    path = directory / "ids.npz"
    if not path.exists():
        raise ValueError(f"no IDs at {directory}: give the folder of a variant with IDs")
    verify(directory, only="ids.npz")
    ids = SemanticIds.load(path)
    size, _ = group_sizes(ids.code_ids)
    raw = ids.raw_codes[1:]
    same_length = ids.code_ids.shape[1] == raw.shape[1]
    changed = (ids.code_ids[1:] != raw).any(1) if same_length else np.ones(len(raw), bool)  # an extra code changes all
    return {"items": len(raw), "sharing": int(size[size > 1].sum()), "changed": int(changed.sum())}


def with_compared(
    ids: SemanticIds,
    what: str,
    behaviour: Float[np.ndarray, "N S E"],
    features: Mapping[str, Float[np.ndarray, "N _"]],
    presence: Mapping[str, Bool[np.ndarray, "N"]],
) -> SemanticIds:
    """IDs with the `signal_vectors` that the similarity compares; the codes and the codebook do not change.

    Args: what: `VariantRecommenderConfig.similarity`. behaviour: the signals before quantization. features, presence:
        of the modalities used; narrower features are padded with zeros, which changes no cosine within a modality.
    Choice: IDs without signals, and data without features, keep their quantized vectors, so every variant can run.
    """
    if what == "quantized" or not ids.signals or (what == "features" and not features):
        return ids
    if what == "signals":
        return replace(ids, signal_vectors=behaviour)
    width = max(array.shape[1] for array in features.values())
    padded = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in features.values()]
    return replace(
        ids,
        signals=tuple(features),
        signal_codes=np.zeros((len(ids.code_ids), len(features), 0), dtype=ids.signal_codes.dtype),
        signal_vectors=np.stack(padded, 1),
        present=np.stack([presence[name] for name in features], 1),
    )


def save_tokenized(done: Tokenized, config: VariantTokenizerConfig, directory: Path) -> None:
    """Write IDs, signals, training log and health figures into `directory`."""
    done.ids.save(directory / "ids.npz")
    save_arrays(directory / "signals.npz", behaviour=done.behaviour, specific=done.specific, residual=done.residual)
    notes = {"config": asdict(config), "log": done.log, "health": done.health}
    write_atomic(directory / "tokenizer.json", json.dumps(notes, indent=1))


def load_tokenized(directory: Path) -> Tokenized:
    """Read what `save_tokenized` wrote."""
    notes = json.loads((directory / "tokenizer.json").read_text())
    arrays = load_arrays(directory / "signals.npz")
    ids = SemanticIds.load(directory / "ids.npz")
    return Tokenized(ids, notes["log"], notes["health"], arrays["behaviour"], arrays["specific"], arrays["residual"])


COMPARED = ("ndcg@10", "recall@10")
OWNER = "dataset.json"  # in a folder of results: the bundle that they belong to
IMPORTED = ("published", "file")  # sources of IDs that were made elsewhere
MODES = {"included": False, "filtered": True}  # whether the seen items of a user leave the ranking
USERS = 64  # users that are scored together for `recommend_users`
SLICE = 2048  # users that are ranked between two saves
# The modules that a stage runs. `run_code` adds this module without its imports: most belong to other stages.
TOKENIZER_CODE = ("bbqrec_lab.baselines.tokenizers", "bbqrec_lab.datasets.features")
RUN_CODE = ("bbqrec_core.metrics", "bbqrec_lab.experiments.statistics")
MODEL_CODE = ("bbqrec_lab.baselines.sequence_models", "bbqrec_core.recommender.fit", "bbqrec_lab.datasets.features")


class Result(NamedTuple):
    """Result of one variant: long-form `rows` (columns of main_results.csv), `cost`, and the `directory` of the run."""

    variant: str
    seed: int
    rows: pl.DataFrame
    cost: pl.DataFrame
    directory: Path


def run_code(kind: str) -> str:
    """Hash of the code that computes a variant of this kind."""
    modules = (COUNTING[kind].__module__,) if kind in COUNTING else MODEL_CODE
    modules += ("bbqrec_lab.datasets.features",) if kind == "content" else ()
    return code_hash(*RUN_CODE, *modules, *(TOKENIZER_CODE if kind == "ids" else ()), alone=(__name__,))


def _data_key(data: NamedDataset, config: Config, code: str) -> dict[str, object]:
    """The part of a result's key that does not come from the settings of its stages."""
    imported = {}
    if config.ids.source == "file":
        need_file(Path(config.ids.ids_file))
        imported = {"ids_file": file_hash(Path(config.ids.ids_file))}
    return imported | {
        "data": data.content_hash,
        "split_seed": config.data.split_seed,
        "seed": config.seed,
        "code": code,
        "torch": torch.__version__,
    }


def _sasrec_embeddings(data: NamedDataset, config: Config, store: Store) -> tuple[np.ndarray, str]:
    """Item embeddings (N+1, D) of SASRec with the same configuration and seed, and the name of its run."""
    directory = run_variant(data, "sasrec", config, store).directory
    return load_scorer(directory).model.items.weight.detach().numpy(), directory.name


def _resolved(data: NamedDataset, config: Config) -> Config:
    """`config` with the signals and the source of IDs that the data allow.

    Choice: IDs that were made elsewhere stay as they are, unless the user or the variant asks for a repair.
    """
    tokenizer = resolve_signals(config.tokenizer, data)
    ids = resolve_source(config.ids, tokenizer, data)
    if ids.source in IMPORTED and UNIQUENESS not in config.given:
        tokenizer = replace(tokenizer, uniqueness="none")
    return replace(config, tokenizer=tokenizer, ids=ids)


def run_tokenizer(data: NamedDataset, config: Config, store: Store) -> tuple[Tokenized, Path]:
    """The tokenizer of a configuration and its directory; trained if the store does not have it."""
    use_one_thread()
    config, embeddings = _resolved(data, config), None
    tokenizer, ids = config.tokenizer, config.ids
    key = _data_key(data, config, code_hash(*TOKENIZER_CODE)) | {"tokenizer": asdict(tokenizer), "ids": asdict(ids)}
    if ids.source == "sasrec" or tokenizer.w_align:
        embeddings, key["embeddings"] = _sasrec_embeddings(data, config, store)

    def make(directory: Path) -> None:
        start = time.monotonic()
        settle(directory / "checkpoints")
        done = make_tokenized(data, ids, tokenizer, config.seed, directory / "checkpoints", embeddings, TrainingBar())
        save_tokenized(done, tokenizer, directory)
        write_atomic(directory / "cost.json", json.dumps({"seconds": time.monotonic() - start}))
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    directory = store.get("tokenizer", key, make)
    return load_tokenized(directory), directory


def run_variant(data: NamedDataset, variant: str, config: Config, store: Store) -> Result:
    """Train and evaluate one variant, or load it from the store; the test part is scored once, after training.

    Raises: ValueError for an unknown variant, FloatingPointError if a loss is not finite.
    """
    use_one_thread()
    config, kind, key = _identity(data, variant, config)
    directory = store.get("run", key, lambda path: _make_run(data, kind, config, store, path))
    record(directory, labels_of(data, variant, config))
    return _result(data.name, variant, config, directory)


def find_row(data: NamedDataset, variant: str, config: Config, store: Store) -> Result:
    """As `run_variant`, but a row that is committed with the code is not trained; its directory has no model.

    Raises: as `run_variant`; ValueError for a committed row that cannot be read.
    """
    asked, _, key = _identity(data, variant, config)
    path = committed_rows.row_file(data.name, config.preset, variant, config.seed)
    made = None if store.path("run", key).exists() else committed_rows.find(path, key, data, asked.data)
    if made is None:
        return run_variant(data, variant, config, store)
    directory = store.get("committed", made, partial(committed_rows.unpack, path))
    return _result(data.name, variant, asked, directory)


def commit_row(data: NamedDataset, variant: str, config: Config, store: Store, folder: Path) -> Path:
    """Train and evaluate one variant, and write it as a committed row below `folder`; returns the archive."""
    asked, _, key = _identity(data, variant, config)
    path = committed_rows.row_file(data.name, config.preset, variant, config.seed, folder)
    committed_rows.write(path, run_variant(data, variant, config, store).directory, key, data, asked.data)
    return path


def _identity(data: NamedDataset, variant: str, config: Config) -> tuple[Config, str, dict[str, object]]:
    """The full configuration of a row, its kind, and the key of its run."""
    config = _resolved(data, variant_config(variant, config, len(data.train().items) / data.n_users))
    kind = VARIANTS[variant].kind
    if kind in ("ids", "items"):
        need_pairs(data)
    key = _data_key(data, config, run_code(kind)) | {"kind": kind, "evaluation": asdict(config.evaluation)}
    if kind in ("ids", "items"):
        key["recommender"] = asdict(config.recommender)
    if kind == "ids":
        key |= {"tokenizer": asdict(config.tokenizer), "ids": asdict(config.ids)}
    return config, kind, key


def _result(dataset: str, variant: str, config: Config, directory: Path) -> Result:
    """The result in the directory of a finished run; equal settings share a run, so it does not hold the labels."""
    notes = json.loads((directory / "run.json").read_text())
    key = json.loads((directory / MANIFEST).read_text())["key"]
    labels = {"dataset": dataset, "data_hash": key["data"][:SHOWN], "variant": variant, "seed": config.seed}
    labels |= {"preset": config.preset, "split_seed": config.data.split_seed}
    hashed = {"config_hash": directory.name.rpartition("-")[2][:SHOWN]}
    rows = pl.read_csv(directory / "rows.csv", glob=False).with_columns(
        pl.lit(value).alias(name) for name, value in (labels | hashed).items()
    )
    order = [*labels, "seen_items", "segment", "targets", "metric", "value", *hashed]
    cost = pl.DataFrame({**labels, **notes["cost"], **hashed})
    return Result(variant, config.seed, rows.select(order), cost, directory)


def need_pairs(data: NamedDataset) -> None:
    """Check that there is something to learn: two training events in a row of one user.

    Raises: ValueError.
    """
    if (np.diff(data.train().offsets) > 1).any():
        return
    remedy = "lower cold_items" if data.cold is not None and data.cold[1:].any() else "give longer histories"
    raise ValueError(f"{data.name}: no user has two training events, from which a sequence model learns: {remedy}")


def _make_run(data: NamedDataset, kind: str, config: Config, store: Store, directory: Path) -> None:
    """Train, score validation and test, and write all files that `recommend` and the notebooks need."""
    if config.recommender.precision == "bf16" and not has_bf16():
        raise ValueError("precision=bf16: this machine has no products of bfloat16 (AMX, or a GPU): set precision=fp32")
    forget_peak_memory()
    start, ids, tokenizing = time.monotonic(), None, 0.0
    if kind == "ids":
        tokenized, home = run_tokenizer(data, config, store)
        tokenizing, start = json.loads((home / "cost.json").read_text())["seconds"], time.monotonic()
        features = {name: data.features[name] for name in config.tokenizer.signals}
        what = config.recommender.similarity
        ids = with_compared(tokenized.ids, what, tokenized.behaviour, features, data.presence)
        ids.save(directory / "ids.npz")
    scorer, epochs = _fit(data, kind, ids, config, directory)
    training = time.monotonic() - start
    start = time.monotonic()
    few = data.n_items <= config.evaluation.exact_items and not config.recommender.by_code
    exact = few or getattr(scorer, "tree", None) is None
    ranks = _test_ranks(data, scorer, config.evaluation, exact, directory / "checkpoints")
    for mode, found in ranks.items():
        save_arrays(directory / f"ranks_{mode}.npz", **found._asdict())
    by = "" if exact else f" by beam {config.evaluation.beam}"
    _table(data, ranks, by).write_csv(directory / "rows.csv")
    cost = {
        "tokenizer_minutes": round(tokenizing / 60, 3),
        "training_minutes": round(training / 60, 3),
        "scoring_minutes": round((time.monotonic() - start) / 60, 3),
        "epochs": len(epochs),
        "parameters": sum(value.numel() for value in scorer.model.parameters()) if hasattr(scorer, "model") else 0,
        "valid_ndcg@10": _final_score(epochs),
        "peak_memory_gb": peak_memory(),
        "device": device_name(getattr(scorer, "device", torch.device("cpu"))),
        "precision": config.recommender.precision,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
    notes = {"kind": kind, "config": asdict(config), "n_items": data.n_items, "cost": cost, "log": epochs}
    write_atomic(directory / "run.json", json.dumps(notes, indent=1))
    counts = pl.Series("training_events", data.train_counts()[1:])
    data.items.select("item_id", "title").with_columns(counts).write_parquet(directory / "items.parquet")
    _save_users(data, directory / "users.parquet")
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)


def _save_users(data: NamedDataset, path: Path) -> None:
    """Write the histories of all users: columns user_id, rows (of items, oldest first), times (null if unknown)."""
    offsets, items, times = data.sequences
    events = pl.DataFrame({"rows": items}).with_columns(times=pl.lit(None, pl.Int64) if times is None else times)
    user = pl.Series("user", np.repeat(np.arange(data.n_users), np.diff(offsets)))
    lists = events.with_columns(user).group_by("user", maintain_order=True).agg("rows", "times")
    lists.select(pl.Series("user_id", data.users), "rows", "times").write_parquet(path)


def _fit(
    data: NamedDataset, kind: str, ids: SemanticIds | None, config: Config, directory: Path
) -> tuple[object, list[dict]]:
    """Train the scorer and save it in `directory`; returns the scorer and one dict per epoch (or trial)."""
    if kind in COUNTING:
        found = COUNTING[kind].fit(data)
        found.save(directory)
        return found, [{"trial": trial.settings, "score": trial.ndcg} for trial in found.trials]
    where, bar = directory / "checkpoints", TrainingBar()
    settle(where)
    make = partial(make_model, features=item_features(data) if config.recommender.features else None)
    recommender, log = fit_recommender(data, ids, config.recommender, config.evaluation, config.seed, where, make, bar)
    state = {name: value.contiguous().to("cpu", copy=True) for name, value in recommender.model.state_dict().items()}
    write_atomic(directory / "model.safetensors", save(state))  # `save_file` has errors of its own for a full disk
    return recommender, log.epochs


def _test_ranks(
    data: NamedDataset, scorer: object, evaluation: EvaluationConfig, exact: bool, directory: Path
) -> dict[str, Ranks]:
    """Test ranks of all users, with seen items included and filtered, by exact scores or by beam search.

    Each slice of users is kept in `directory`, so an interrupted ranking continues with the next one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    everyone, slices = np.arange(data.n_users), []
    with tqdm(total=data.n_users, desc="ranking users", leave=False, mininterval=1.0, disable=None) as bar:
        for users in np.split(everyone, everyone[SLICE::SLICE]):
            path = directory / f"ranks-{users[0]}.npz"
            kept = _kept_ranks(path)
            if kept is None:
                kept = _ranks_of(data, scorer, evaluation, exact, users)
                parts = {f"{mode} {name}": field for mode, r in kept.items() for name, field in r._asdict().items()}
                save_arrays(path, **parts)
            slices.append(kept)
            bar.update(len(users))
    return {mode: metrics.concat_ranks([part[mode] for part in slices]) for mode in MODES}


def _kept_ranks(path: Path) -> dict[str, Ranks] | None:
    """The ranks of a slice that were saved before an interruption; None without them, or if the file is damaged."""
    try:
        kept = load_arrays(path)
        return {mode: Ranks(*(kept[f"{mode} {name}"] for name in Ranks._fields)) for mode in MODES}
    except FileNotFoundError:
        return None
    except UNREADABLE:
        say(f"{path} is damaged: these users are ranked again")
        return None


def _ranks_of(
    data: NamedDataset, scorer: object, evaluation: EvaluationConfig, exact: bool, users: np.ndarray
) -> dict[str, Ranks]:
    """Test ranks of some users, by `MODES`."""
    if not exact:
        return {mode: beam_ranks(scorer, data, "test", users, evaluation, masked) for mode, masked in MODES.items()}
    asked = data.history("test"), data.targets("test"), users
    if not isinstance(scorer, Recommender):
        return scorer.ranks(*asked)
    return metrics.rank_users(scorer.ranking_scores, *asked, batch=evaluation.batch)


def _final_score(epochs: list[dict]) -> float | None:
    """Validation NDCG@10 of what is kept: by the users who chose the trust, else of the best epoch."""
    final = [row["score"] for row in epochs if "trust" in row]
    return max(final or [row["score"] for row in epochs if "score" in row], default=None)


def _table(data: NamedDataset, ranks: dict[str, Ranks], by: str) -> pl.DataFrame:
    """Long form: seen_items, segment, targets, metric (its name ends in `by`), value; list metrics over all users."""
    groups, counts = statistics.segments(data, "test"), data.train_counts()
    rows = []
    for mode, found in ranks.items():
        values = {name + by: value for name, value in metrics.per_user(found).items()}
        for segment, inside in groups.items():
            if inside.any():
                rows += [
                    (mode, segment, int(inside.sum()), name, float(v[inside].mean())) for name, v in values.items()
                ]
        lists = statistics.list_metrics(found.top, counts)
        rows += [(mode, "all", len(found.ties), name + by, value) for name, value in lists.items()]
    return pl.DataFrame(rows, schema=["seen_items", "segment", "targets", "metric", "value"], orient="row")


def intervals(results: Sequence[Result], reference: str = "bbqrec") -> pl.DataFrame:
    """`reference` (column `variant`) minus each other variant (column `against`): means, bounds and p-values.

    A difference has 95 % bounds, a p-value, and a p-value after Holm over the whole table. Seeds that both variants
    have are averaged per user, then users are resampled in pairs. A variant that does not depend on the seed is
    compared with the average over all seeds.
    """
    table = []
    for mode in ("included", "filtered"):
        values = _per_user(results, mode)
        for name, metric in product(values, COMPARED):
            if pair := _pair(values, reference, name, metric):
                seeds, ours, theirs = pair
                found = statistics.paired_bootstrap(ours, theirs)
                table.append((mode, metric, reference, name, seeds, *found))
    schema = ["seen_items", "metric", "variant", "against", "seeds", "difference", "low", "high", "p"]
    return statistics.with_holm(pl.DataFrame(table, schema=schema, orient="row"))


def slices(results: Sequence[Result], data: NamedDataset, reference: str = "bbqrec") -> pl.DataFrame:
    """As `intervals`, for the users of each of `statistics.slices`: NDCG@10, seen items filtered, with both means.

    The p-values after Holm are over this whole table. Slices of fewer than two users are left out.
    """
    table, values = [], _per_user(results, "filtered")
    for (group, users), name in product(statistics.slices(data, "test").items(), values):
        pair = _pair(values, reference, name, COMPARED[0])
        if pair and users.sum() > 1:
            seeds, ours, theirs = pair[0], pair[1][:, users], pair[2][:, users]
            found = statistics.paired_bootstrap(ours, theirs)
            table.append((group, int(users.sum()), reference, name, seeds, ours.mean(), theirs.mean(), *found))
    schema = ["slice", "targets", "variant", "against", "seeds", "ours", "theirs", "difference", "low", "high", "p"]
    return statistics.with_holm(pl.DataFrame(table, schema=schema, orient="row"))


def _per_user(results: Sequence[Result], mode: str) -> dict[str, dict[int, dict[str, np.ndarray]]]:
    """The metrics of every user by variant and seed."""
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for result in results:
        ranks = load_ranks(result.directory, mode)
        found.setdefault(result.variant, {})[result.seed] = metrics.per_user(ranks)
    return found


def _pair(
    values: Mapping[str, Mapping[int, Mapping[str, np.ndarray]]], reference: str, name: str, metric: str
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """The number of common seeds, and the values of two variants, each (seeds, users); None if they have no pair."""
    if name == reference or reference not in values:
        return None
    ours, theirs = values[reference], values[name]
    common = sorted(ours) if name in ONCE else sorted(set(ours) & set(theirs))
    if not common:
        return None
    others = sorted(theirs) if name in ONCE else common
    return len(common), np.stack([ours[s][metric] for s in common]), np.stack([theirs[s][metric] for s in others])


def run_folder(out: str | Path, dataset: str, preset: str, data: object, claim: bool = False) -> Path:
    """`OUT/DATASET/PRESET`; DATASET is the data's name, plus its hash if the name belongs to other data.

    A name belongs to the registered dataset that has it, else to the bundle that claimed it first below `out`.

    Args: data: a `NamedDataset`. claim: write down that the name belongs to these data, if it is free.
    """
    from bbqrec_lab.datasets import sources

    if dataset in sources.REGISTRY:
        return Path(out) / data.name / preset
    taken = data.name in sources.REGISTRY or not _owns(Path(out) / data.name, data, claim)
    return Path(out) / (f"{data.name}-{data.content_hash}" if taken else data.name) / preset


def _owns(folder: Path, data: object, claim: bool) -> bool:
    """Whether a folder of results is that of these data, which may have moved or changed, or is free."""
    owner = folder / OWNER
    if not owner.exists():
        if not claim:
            return True
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not owner.exists():
                write_atomic(owner, json.dumps({"bundle": data.path, "content_hash": data.content_hash}, indent=1))
    found = json.loads(owner.read_text(encoding="utf-8"))
    return found["bundle"] == data.path or found.get("content_hash") == data.content_hash
