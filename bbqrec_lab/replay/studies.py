"""The studies of the notebook on time: which data and how much of them, variants under both splits, and the replays."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bbqrec_core import Ranks, fit_recommender, per_user, rank_users
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import planted
from bbqrec_lab.datasets.download import build_folder
from bbqrec_lab.datasets.features import scale
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.datasets.time_split import TimeSplit, need_global_time, split_by_time
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.committed_rows import events_hash
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.statistics import cluster_means
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.experiments.variants import COUNTING, VARIANTS
from bbqrec_lab.replay import curves, rounds
from bbqrec_lab.replay.counting import DENSE_ITEMS
from bbqrec_lab.replay.learners import TokenLearner, fit_tokens, maker_of, resolved
from bbqrec_lab.replay.stream import DAY, Stream, make_stream
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import Store, load_arrays, save_arrays

COMPARED = ("popularity", "item-knn", "markov", "sasrec", "bbqrec")  # under both splits
FEWEST = 1000  # events of data that are replayed
SPLITS = ("leave-one-out", "one moment for all")
CODE = ("bbqrec_lab.replay.learners", "bbqrec_lab.baselines.counting", "bbqrec_core.metrics")  # and this module


class Scale(NamedTuple):
    """How much a preset replays: periods, lists in each of them (0: all), seeds, and whether models train again."""

    periods: int
    asked: int
    seeds: int
    retraining: bool


SCALES = {
    "smoke": Scale(3, 80, 1, True),
    "quick": Scale(4, 250, 1, False),
    "full": Scale(8, 0, 3, True),
}
DRIFT = {  # the planted world that changes, by preset
    "smoke": planted.PlantedConfig(users=200, items=120, branching=(4, 3), features="direct", drift=0.9),
    "quick": planted.PlantedConfig(users=600, items=300, branching=(4, 3, 2), features="direct", drift=0.9),
}
DRIFT["full"] = replace(DRIFT["quick"], users=2000)


def drift_data(preset: str, store: Store) -> NamedDataset:
    """Planted data whose world changes in the middle of the replay; made once per store."""
    config = DRIFT[preset]
    key = {"config": asdict(config), "code": code_hash("bbqrec_lab.datasets.planted")}

    def make(directory: Path) -> None:
        build_folder(directory / "planted-drift", lambda path: planted.write_planted(path, config))

    folder = store.get("drift", key, make)
    data = read_bundle(folder / "planted-drift", DataConfig())
    return replace(data, features={name: scale(x, data.presence[name]) for name, x in data.features.items()})


def drift_day(stream: Stream, preset: str) -> float:
    """When the drift happens, in days since the start of the replay."""
    return (DRIFT[preset].moment - int(stream.moments[0])) / DAY


def data_of_time(
    data: NamedDataset, preset: str, store: Store, truth: Collection[str] = ()
) -> tuple[NamedDataset, str]:
    """The data to replay, and why they are not those given: empty if they are.

    Args: truth: the planted factors of the data, from `planted.load_truth`; empty if they are not planted.
    """
    if truth and "fate" not in truth:  # planted data with a drift have the fate of each item
        why = (
            "planted users are there for a few days only, so planted data with a drift, whose users stay, are replayed"
        )
        return drift_data(preset, store), why
    try:
        need_global_time(data)
        if len(data.timestamps) < FEWEST:
            raise ValueError(
                f"{data.name} has {len(data.timestamps)} events, fewer than the {FEWEST} that a replay needs"
            )
        split_by_time(data)
        stream_of(data, preset).known_before(0)
    except ValueError as error:
        return drift_data(preset, store), f"{error} (planted data with a drift are replayed instead)"
    return data, ""


def stream_of(data: NamedDataset, preset: str) -> Stream:
    """The stream of a preset: the last fifth of the events, a tenth of the items held back until period 1."""
    size = SCALES[preset]
    return make_stream(data, size.periods, most_asked=size.asked)


def replay_all(
    stream: Stream,
    config: Config,
    store: Store,
    retraining: bool,
    learners: Sequence[str] = ("bbqrec", "sasrec", *rounds.RIVALS),
) -> list[rounds.Outcome]:
    """All rows of a preset, without those that train again unless asked for, and without learners `left_out`."""
    size = SCALES[config.preset]
    rows = rounds.plan(range(config.seed, config.seed + size.seeds))
    again, known = retraining or size.retraining, set(learners) - set(left_out(stream))
    rows = [row for row in rows if row.learner in known and (again or row.policy not in rounds.TRAIN_AGAIN)]
    return [rounds.run_row(stream, row, config, store) for row in rows]


def left_out(stream: Stream) -> dict[str, str]:
    """Learners that cannot replay a stream, with a sentence that says why."""
    if stream.n_items <= DENSE_ITEMS:
        return {}
    many = f"{stream.n_items:,} items would be too large (at most {DENSE_ITEMS:,})"
    return {"item-knn": f"item-knn is left out of the replay: its table of all pairs of {many}."}


def new_item_controls(stream: Stream, config: Config, store: Store) -> dict[str, rounds.Outcome]:
    """As `curves.controls`, from the first training of `bbqrec`, which the replay has stored."""
    settings = resolved(config, stream.known_before(0), "bbqrec")
    start = rounds.start_of(stream, rounds.Row("bbqrec", "history", config.seed), settings, store)
    return curves.controls(stream, TokenLearner("history", settings, start, start))


class Compared(NamedTuple):
    """Variants under both splits.

    Args: means: split -> variant -> NDCG@10. bounds: variant -> (value, low, high) under each of `SPLITS`. ahead: pairs
        (better, worse) by the split by time, whose interval of the difference lies above 0, each pair by itself.
    """

    means: dict[str, dict[str, float]]
    bounds: dict[str, list[tuple[float, float, float]]]
    ahead: list[tuple[str, str]]


def compare_splits(data: NamedDataset, config: Config, store: Store) -> Compared:
    """NDCG@10 of `COMPARED` on leave-one-out and on the split by time, primary protocol, with bounds over users.

    Raises: ValueError, before any training, for settings that `resolved` refuses.
    """
    split, values = split_by_time(data), {}
    for variant in COMPARED:
        resolved(config, split, variant)
    owners = {SPLITS[0]: np.arange(data.n_users), SPLITS[1]: split.owners("test")}
    for variant in COMPARED:
        home = runs.run_variant(data, variant, config, store).directory
        found = runs.load_ranks(home, data.seen_items), ranks_by_time(data, split, variant, config, store)
        values[variant] = dict(zip(SPLITS, (per_user(ranks)["ndcg@10"] for ranks in found), strict=True))
    bounds = {
        name: [cluster_means(v[split_name], owners[split_name]) for split_name in SPLITS] for name, v in values.items()
    }
    means = {name: {variant: float(v[name].mean()) for variant, v in values.items()} for name in SPLITS}
    late = {name: v[SPLITS[1]] for name, v in values.items()}
    pairs = [(a, b) for a in late for b in late if late[a].mean() > late[b].mean()]
    ahead = [(a, b) for a, b in pairs if cluster_means(late[a] - late[b], owners[SPLITS[1]])[1] > 0]
    return Compared(means, bounds, ahead)


def ranks_by_time(data: NamedDataset, split: TimeSplit, variant: str, config: Config, store: Store) -> Ranks:
    """Test ranks of a variant that was trained before one moment for all, primary protocol; trained once per store."""
    kind, settings = VARIANTS[variant].kind, resolved(config, split, variant)
    asked = split.history("test"), split.targets("test"), np.arange(len(split.targets("test")))
    key = {"data": data.content_hash, "events": events_hash(split.sequences), "variant": variant}
    key |= {"moments": [split.valid_from, split.test_from], "seed": config.seed}
    key |= {"code": code_hash(*CODE, alone=(__name__,)), "torch": torch.__version__}
    key |= {part: asdict(getattr(settings, part)) for part in ("ids", "tokenizer", "recommender", "evaluation")}

    def make(directory: Path) -> None:
        if kind in COUNTING:
            ranks = COUNTING[kind].fit(split).ranks(*asked)
        else:
            ids = fit_tokens(split, settings, directory / "tokens")[0] if kind == "ids" else None
            trained = split, ids, settings.recommender, settings.evaluation, config.seed, directory / "model"
            settle(directory / "model")
            scorer, _ = fit_recommender(*trained, maker_of(split, settings), TrainingBar())
            ranks = rank_users(scorer.ranking_scores, *asked, batch=settings.evaluation.batch)
        save_arrays(directory / "ranks.npz", **ranks[split.seen_items]._asdict())
        for folder in ("tokens", "model"):
            shutil.rmtree(directory / folder, ignore_errors=True)

    return Ranks(**load_arrays(store.get("by-time", key, make) / "ranks.npz"))
