"""The replay itself: one list before each event, then learning; results are stored by learner, policy and seed."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from bbqrec_core import Ranks, per_user
from bbqrec_core.metrics import concat_ranks, filter_seen, rank_scores
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.experiments.committed_rows import events_hash
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.variants import READS
from bbqrec_lab.replay.counting import GrowingKnn, SlidingPopularity
from bbqrec_lab.replay.learners import POLICIES, Learner, SequenceLearner, TokenLearner, asked_between, resolved
from bbqrec_lab.replay.stream import Stream
from bbqrec_lab.store import Store, load_arrays, save_arrays, write_atomic
from bbqrec_lab.threads import use_one_thread

BATCH = 256  # events that are ranked together
LISTED = 10  # items of a list that count as recommended
CODE = ("bbqrec_lab.replay.rounds",)


class Outcome(NamedTuple):
    """What one learner did under one policy, one row per list that was asked for, in the order of time.

    Args: learning, answering: seconds of each period, (P,). What is learned between two lists counts as learning.
    """

    learner: str
    policy: str
    seed: int
    places: Int64[np.ndarray, "Q"]  # of the events, in `Stream.order`
    ranks: Ranks
    learning: Float64[np.ndarray, "P"]
    answering: Float64[np.ndarray, "P"]

    def metric(self, name: str) -> Float64[np.ndarray, "Q"]:
        """One metric of every list, such as `ndcg@10`."""
        return per_user(self.ranks)[name]

    @property
    def rank(self) -> Float64[np.ndarray, "Q"]:
        """The mean rank of each target among items of equal score; infinite if it could not be recommended."""
        return np.where(self.ranks.ties > 0, self.ranks.greater + (self.ranks.ties + 1) / 2, np.inf)


def replay(
    stream: Stream, learner: Learner, batch: int = BATCH, say: Callable[[int], object] = lambda period: None
) -> tuple[Int64[np.ndarray, "Q"], Ranks, Float64[np.ndarray, "P"], Float64[np.ndarray, "P"]]:
    """Ask for a list before each event, in the order of time; `say` is told of each period.

    Seen items are filtered in the primary protocol of the data. A target outside the catalogue of the learner is not
    retrieved. Events of a batch give the same lists as one by one.
    """
    places, parts, costs = [], [], np.zeros((2, stream.periods))
    filtered = stream.source.seen_items == "filtered"
    for period in range(stream.periods):
        say(period)
        began = time.monotonic()
        learner.begin(stream, period)
        costs[0, period] = time.monotonic() - began
        began, spent = time.monotonic(), learner.spent
        first, end = map(int, stream.bounds[period : period + 2])
        for start in range(first, end, batch):
            stop = min(start + batch, end)
            asked, scores = asked_between(stream, start, stop), learner.scores(stream, start, stop)
            if len(asked):
                places.append(asked)
                parts.append(_rank(stream, learner, asked, scores, filtered))
        within = learner.spent - spent
        costs[:, period] += within, time.monotonic() - began - within
    return np.concatenate(places), concat_ranks(parts), *costs


def _rank(
    stream: Stream, learner: Learner, asked: Int[np.ndarray, "B"], scores: Float[Tensor, "B rows"], filtered: bool
) -> Ranks:
    """Ranks of the targets among the items that the learner knows."""
    targets = stream.items(asked)
    wide = max(int(targets.max()), learner.known)
    scores = torch.nn.functional.pad(scores, (0, wide + 1 - scores.shape[1]), value=-torch.inf)
    if filtered:
        history = stream.histories(asked, learner.known, learner.frozen)
        scores = filter_seen(scores, history, np.arange(len(asked)))
    return rank_scores(scores, targets)


@dataclass(frozen=True)
class Row:
    """One row of the plan: who learns, under which policy, with which seed."""

    learner: str
    policy: str
    seed: int


RIVALS = {"popularity": SlidingPopularity, "item-knn": GrowingKnn}
WITHOUT_CONTENT = ("nothing", "history", "updates", "retrained")  # policies of SASRec
WITHOUT_TRAINING = ("nothing", "history", "updates")  # policies of the rivals that count
TRAIN_AGAIN = ("retrained", "remade")
ONE_SEED = TRAIN_AGAIN  # of all seeds together they would take most of the time


def plan(seeds: Sequence[int], variant: str = "bbqrec") -> list[Row]:
    """All rows: the method under every policy, and its rivals under those that they can follow.

    Full retraining and counting have one seed, the others all.
    """
    found = []
    for learner, policies in ((variant, tuple(POLICIES)), ("sasrec", WITHOUT_CONTENT)):
        for policy in policies:
            found += [Row(learner, policy, seed) for seed in (seeds[:1] if policy in ONE_SEED else seeds)]
    return found + [Row(rival, policy, seeds[0]) for rival in RIVALS for policy in WITHOUT_TRAINING]


def run_row(stream: Stream, row: Row, config: Config, store: Store) -> Outcome:
    """Replay the stream for one row, or load the stored result.

    Args: config: of the preset; the seed is that of the row.
    Raises: ValueError for an unknown learner, or a policy that it cannot follow.
    """
    use_one_thread()
    if row.policy not in policies_of(row.learner):
        allowed = ", ".join(policies_of(row.learner))
        raise ValueError(f"{row.learner} cannot follow the policy {row.policy!r}: choose from {allowed}")
    settings = replace(config, seed=row.seed)
    if row.learner not in RIVALS:
        settings = resolved(settings, stream.known_before(0), row.learner)
    key = _key(stream, row, settings)

    def make(directory: Path) -> None:
        start = directory if row.learner in RIVALS else start_of(stream, row, settings, store)
        found = replay(stream, _learner(row, settings, start, directory / "checkpoints"))
        if row.learner not in RIVALS:
            found[2][0] = json.loads((start / "seconds.json").read_text())
        save_arrays(directory / "places.npz", places=found[0], learning=found[2], answering=found[3])
        save_arrays(directory / "ranks.npz", **found[1]._asdict())
        write_atomic(directory / "row.json", json.dumps(asdict(row)))
        shutil.rmtree(directory / "checkpoints", ignore_errors=True)

    return load_outcome(store.get("replay", key | {"policy": row.policy}, make))


def start_of(stream: Stream, row: Row, settings: Config, store: Store) -> Path:
    """The folder of the first training of a learner, which all of its policies share; trained once per store.

    Args: settings: those of the row, resolved.
    """

    def make(directory: Path) -> None:
        began = time.monotonic()
        _learner(row, settings, directory, directory).begin(stream, 0)
        write_atomic(directory / "seconds.json", json.dumps(time.monotonic() - began))

    return store.get("replay-start", _key(stream, row, settings), make)


def _key(stream: Stream, row: Row, settings: Config) -> dict[str, object]:
    """What a stored result depends on, but for its policy."""
    found = {"stream": stream_key(stream), "learner": row.learner, "seed": row.seed, "preset": settings.preset}
    found |= {"code": code_hash(*CODE), "torch": torch.__version__}
    if row.learner in RIVALS:
        return found
    parts = READS["ids" if _has_tokens(row.learner) else "items"]
    return found | {part: asdict(getattr(settings, part)) for part in parts if part != "data"}


def _learner(row: Row, settings: Config, start: Path, folder: Path) -> Learner:
    if row.learner in RIVALS:
        return RIVALS[row.learner](row.policy)
    kind = TokenLearner if _has_tokens(row.learner) else SequenceLearner
    return kind(row.policy, settings, start, folder)


def _has_tokens(learner: str) -> bool:
    return learner != "sasrec"


def policies_of(learner: str) -> tuple[str, ...]:
    """The policies that a learner can follow."""
    if learner in RIVALS:
        return WITHOUT_TRAINING
    return WITHOUT_CONTENT if learner == "sasrec" else tuple(POLICIES)


def load_outcome(directory: Path) -> Outcome:
    """Read a stored result."""
    row = json.loads((directory / "row.json").read_text(encoding="utf-8"))
    arrays, ranks = load_arrays(directory / "places.npz"), Ranks(**load_arrays(directory / "ranks.npz"))
    return Outcome(
        **row, places=arrays["places"], ranks=ranks, learning=arrays["learning"], answering=arrays["answering"]
    )


def stream_key(stream: Stream) -> dict[str, object]:
    """What a stored result depends on of a stream; its events also tell how the data number their items."""
    return {
        "data": stream.source.content_hash,
        "events": events_hash(stream.sequences),
        "moments": stream.moments.tolist(),
        "withheld": np.flatnonzero(stream.withheld[np.argsort(stream.rows)]).tolist(),
        "asked": int(stream.asked.sum()),
        "seed": stream.seed,
    }
