"""What learns from the stream by training: `bbqrec` and SASRec, under the policies.

A learner is told of each period before its events (`begin`), and then gives scores for events in the order of time
(`scores`). What it may learn from is decided by its policy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import AdamW

from bbqrec_core import (
    Dataset,
    Recommender,
    SemanticIds,
    SequenceModel,
    Sequences,
    build_recommender,
    fit_recommender,
)
from bbqrec_core.dataset import gather_padded
from bbqrec_core.tokenizer.semantic_ids import build_tree
from bbqrec_core.training import Task, best_device, fit
from bbqrec_lab.baselines.features_model import item_features
from bbqrec_lab.baselines.sequence_models import make_model
from bbqrec_lab.baselines.tokenizers import repaired, resolve_signals
from bbqrec_lab.datasets.time_split import TimeSplit
from bbqrec_lab.experiments.checkpoints import settle
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.runs import with_compared
from bbqrec_lab.experiments.training_bar import TrainingBar
from bbqrec_lab.experiments.variants import VARIANTS, variant_config
from bbqrec_lab.replay.stream import Stream
from bbqrec_lab.replay.tokens import renamed, renamed_weights, renaming
from bbqrec_lab.serving.live_model import NewItem, extended, extended_ids
from bbqrec_lab.serving.new_items import FeatureEncoder, fit_stage_one, need_learned, one_row

POLICIES = {
    "nothing": "the history and the model of the start",
    "history": "the history grows, the model stays",
    "new items": "and new items enter the tree by their content",
    "updates": "and the model is trained on, with the latest events of the users who had some in the last period",
    "retrained": "and the model is trained again from the start, with the same tokens",
    "remade": "and with new tokens in the words of the old ones, from the weights of the period before",
}
UPDATE_STEPS = {"smoke": 20, "quick": 100, "full": 300}  # of the policy `updates`, in each period, by preset
UPDATE_RATE = 0.25  # of the learning rate of training


@runtime_checkable
class Learner(Protocol):
    """What `rounds.replay` asks. `known`: items that it can recommend, the first rows of the stream."""

    frozen: bool  # whether histories end where the replay starts
    known: int
    spent: float  # seconds that `scores` has learned so far

    def begin(self, stream: Stream, period: int) -> None: ...

    def scores(self, stream: Stream, start: int, stop: int) -> Float[Tensor, "B rows"]: ...


def popular_first(
    scores: Float[Tensor, "B rows"], history: Sequences, counts: Int[np.ndarray, "counted"]
) -> Float[Tensor, "B rows"]:
    """The scores; for a user without a history, the log of each item's share of all events, as for every model here.

    Choice: one event is added to each item, so the shares of a catalogue sum to 1, as probabilities of a model do.
    """
    empty = torch.from_numpy(np.diff(history.offsets) == 0)[:, None]
    popular = np.pad(counts, (0, scores.shape[1] - len(counts))) + 1.0
    popular = np.append(-np.inf, np.log(popular[1:] / popular[1:].sum()))
    return torch.where(empty, torch.from_numpy(popular).to(scores), scores)


@dataclass
class SequenceLearner:
    """SASRec without content: it knows the items that it was trained on.

    Args: policy: of `POLICIES`, without those about new items and tokens. config: settings of the run, whose recipe and
        variant are resolved. start: folder of the checkpoints of the first training, which all policies share: where
        it is finished, nothing is trained. directory: of the checkpoints of later periods.
    """

    policy: str
    config: Config
    start: Path
    directory: Path
    scorer: Recommender | None = None  # on the CPU; it trains on a GPU if there is one
    known: int = 0
    spent: float = 0.0
    counts: Int[np.ndarray, "rows"] = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def frozen(self) -> bool:
        """Whether histories end where the replay starts."""
        return self.policy == "nothing"

    @property
    def _learns(self) -> bool:
        return self.policy in ("updates", "retrained", "remade")

    def begin(self, stream: Stream, period: int) -> None:
        """Learn from what is before a period, as the policy allows."""
        if period and not self._learns:
            return
        split = stream.known_before(period)
        if period and self.policy == "updates":
            self._grow(split.n_items)
            train_on(self.scorer, split, stream, period, self.config, self._folder(period))
        else:
            self.scorer = self._fit(split, self._folder(period))
        self.known, self.counts = split.n_items, np.bincount(split.sequences.items, minlength=split.n_items + 1)

    def scores(self, stream: Stream, start: int, stop: int) -> Float[Tensor, "B rows"]:
        """Scores of the items before each event that a list is asked for, (B, known + 1)."""
        asked = asked_between(stream, start, stop)
        if not len(asked):
            return torch.zeros(0, self.known + 1)
        history = stream.histories(asked, self.known, self.frozen)
        found = self.scorer.scores(history, np.arange(len(history.offsets) - 1))
        return popular_first(found, history, self.counts)

    def _folder(self, period: int) -> Path:
        return self.directory / f"period-{period}" if period else self.start

    def _fit(self, split: TimeSplit, folder: Path) -> Recommender:
        settings, make = self.config.recommender, maker_of(split, self.config)
        asked = split, None, settings, self.config.evaluation, self.config.seed, folder
        settle(folder)
        return fit_recommender(*asked, make, TrainingBar())[0].to("cpu")

    @torch.no_grad()
    def _grow(self, n_items: int) -> None:
        """Rows for new items, which begin as the mean of all items."""
        old = self.scorer.model
        state, more = old.state_dict(), n_items - len(old.items.weight) + 1
        mean = state["items.weight"][1:].mean(0, keepdim=True)
        state["items.weight"] = torch.cat([state["items.weight"], mean.expand(more, -1)])
        make = partial(make_model, features=None)
        self.scorer = build_recommender(n_items, None, self.config.recommender, self.config.seed, None, make)
        self.scorer.model.load_state_dict(state)


@dataclass
class TokenLearner(SequenceLearner):
    """`bbqrec` or any other variant with learned IDs: new items get an ID by their content.

    Args: those of `SequenceLearner`; policy: any.
    """

    ids: SemanticIds | None = None  # of the catalogue of the last training
    encoder: FeatureEncoder | None = None
    seen: Bool[np.ndarray, "rows"] | None = None  # items that the model was trained on
    base: Recommender | None = None  # as trained, without the items that joined since
    added: list[NewItem] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)  # of stage 1

    def begin(self, stream: Stream, period: int) -> None:
        """Learn from what is before a period, then let the items of the period join, as the policy allows."""
        if not period or self._learns:
            self._train(stream, period)
        if period and self.policy not in ("nothing", "history"):
            self._join(stream, period)

    def _train(self, stream: Stream, period: int) -> None:
        split, folder = stream.known_before(period), self._folder(period)
        if not period:
            self.ids, self.weights = fit_tokens(split, self.config, folder / "tokens")
            self.encoder = self._encoder(split, self.weights, self.ids)
            self.base = self._fit_ids(split, folder, maker_of(split, self.config))
        elif self.policy == "retrained":
            self._take_in()
            self.base = self._fit_ids(split, folder, maker_of(split, self.config))
        elif self.policy == "updates":
            self._take_in()
            self.base = self.scorer
            train_on(self.base, split, stream, period, self.config, folder)
        else:
            self._remake(split, folder)
        self.known, self.counts = split.n_items, np.bincount(split.sequences.items, minlength=split.n_items + 1)
        self.seen = split.train_counts() > 0
        if period and self.policy == "updates":  # which holds no event back to choose a model
            self.seen = self.counts > 0
            if self.base.tree is not None and self.base.tree.unseen:
                self.base = replace(self.base, tree=build_tree(self.ids.code_ids, self.seen))
        self.scorer, self.added = self.base, []

    def _take_in(self) -> None:
        """The items that have joined belong to the catalogue from now on, with the IDs that they have."""
        self.ids = extended_ids(self.ids, self.added)

    def _remake(self, split: TimeSplit, folder: Path) -> None:
        """New tokens for all items, renamed to the old ones, and a model that starts from the weights it has."""
        old_ids, old = extended_ids(self.ids, self.added), self.scorer.model
        ids, weights = fit_tokens(split, self.config, folder / "tokens")
        names = renaming(old_ids.raw_codes[1:], ids.raw_codes[1:], ids.sizes[: ids.learned])
        self.ids, self.weights = renamed(ids, names), renamed_weights(weights, names)
        self.encoder = self._encoder(split, self.weights, self.ids)
        self.base = self._fit_ids(split, folder, warm(maker_of(split, self.config, old), old, old_ids))

    def _encoder(self, split: TimeSplit, weights: dict[str, Tensor], ids: SemanticIds) -> FeatureEncoder:
        config = self.config.tokenizer
        return FeatureEncoder(one_row(weights, split, config), config, ids, split, self.config.recommender.similarity)

    def _fit_ids(self, split: TimeSplit, folder: Path, make: Callable[..., SequenceModel]) -> Recommender:
        settings, evaluation = self.config.recommender, self.config.evaluation
        given = split, self.ids, settings, evaluation, self.config.seed, folder
        settle(folder)
        return fit_recommender(*given, make, TrainingBar())[0].to("cpu")

    def _join(self, stream: Stream, period: int) -> None:
        """Give IDs to the items that join, and let them into the tree; nothing is trained."""
        size = int(stream.sizes[period])
        codes, contents = extended_ids(self.ids, self.added).code_ids, self.contents(stream, self.known)
        for row in range(self.known + 1, size + 1):
            found = {name: array[row] for name, array in stream.features.items() if stream.presence[name][row]}
            item, content = self.encoder.encode_features(found, codes, contents)
            self.added.append(item)
            contents.append(content)
            codes = np.concatenate([codes, item.code[None]])
        self.scorer, self.known = extended(self.base, self.ids, self.seen, self.added), size

    def contents(self, stream: Stream, last: int) -> list[Float[np.ndarray, "d"]]:
        """Vectors of content of the items behind the catalogue of the encoder, up to row `last`."""
        first, found = len(self.encoder.catalogue), []
        for row in range(first, last + 1):
            here = {name: array[row] for name, array in stream.features.items() if stream.presence[name][row]}
            found.append(self.encoder.content(here))
        return found


def asked_between(stream: Stream, start: int, stop: int) -> Int[np.ndarray, "B"]:
    """The places from `start` to `stop` before which a list is asked for."""
    return start + np.flatnonzero(stream.asked[start:stop])


def maker_of(split: TimeSplit, config: Config, like: SequenceModel | None = None) -> Callable[..., SequenceModel]:
    """Builds the model of a variant, with the features of the items if it reads them.

    Args: like: take the features of this model, 0 for later items, so that its map of them still fits.
    """
    features = None
    if config.recommender.features:
        features = item_features(split) if like is None else like.features
        if features is not None:
            features = F.pad(features, (0, 0, 0, split.n_items + 1 - len(features)))
    return partial(make_model, features=features)


def fit_tokens(split: TimeSplit, config: Config, folder: Path) -> tuple[SemanticIds, dict[str, Tensor]]:
    """Train stage 1: the IDs of the catalogue as `runs` makes them, and the weights that encode later items.

    Args: config: resolved, see `resolved`.
    """
    done, weights = fit_stage_one(split, config.tokenizer, config.seed, folder)
    done = repaired(done, config.ids, config.tokenizer)
    features = {name: split.features[name] for name in config.tokenizer.signals}
    compared = with_compared(done.ids, config.recommender.similarity, done.behaviour, features, split.presence)
    return compared, weights


def train_on(scorer: Recommender, split: TimeSplit, stream: Stream, period: int, config: Config, folder: Path) -> None:
    """Train a model a little more, in place: on the last events of the users who had some in the period before.

    These may be older than the period. The pairs and the content of score reweighting are counted again; its curves and
    buckets stay.
    """
    settle(folder)
    model, settings = scorer.model, config.recommender
    if model.scoring is not None and settings.score_reweight:
        edges = model.scoring.edges.clone()
        parts = {"features": split.features, "presence": split.presence}
        model.scoring.observe(Everything(n_items=split.n_items, sequences=split.sequences, **parts))
        model.scoring.edges.copy_(edges)
    if model.reweighting is not None and model.reweighting.pairs is None:
        model.reweighting.pairs = model.reweighting.compare_all()
    offsets, rows = split.sequences.offsets, split.sequences.rows(model.timed)
    recent = np.add.reduceat(np.append(split.sequences.times >= stream.moments[period - 1], 0), offsets[:-1])
    users = np.flatnonzero((recent > 0) & (np.diff(offsets) > 1))
    sizes = np.minimum(np.diff(offsets)[users], settings.max_events + 1)
    batch = max(round(settings.batch_events / max(sizes.mean() - 1, 1)), 1) if len(users) else 1

    def batches(epoch: int) -> list[Tensor]:
        rng, found = np.random.default_rng((config.seed, period)), []
        while len(found) < UPDATE_STEPS[config.preset]:
            for some in np.array_split(rng.permutation(len(users)), -(-len(users) // batch)):
                found.append(gather_padded(rows, offsets[users[some] + 1] - sizes[some], sizes[some]))
        return found[: UPDATE_STEPS[config.preset]]

    if len(users):
        model.to(best_device())
        optimizer = AdamW(model.parameters(), lr=UPDATE_RATE * settings.lr, weight_decay=settings.weight_decay)
        fit(Task("updates", model, [optimizer], batches, model.loss), config.seed, 1, folder)
        model.to("cpu")


class Everything(Dataset):
    """A dataset of which nothing is held back, as score reweighting observes it when no model is chosen."""

    def __post_init__(self) -> None:
        """Users with few events are welcome."""

    def train(self) -> Sequences:
        """All events."""
        return self.sequences


def warm(make: Callable[..., SequenceModel], old: SequenceModel, old_ids: SemanticIds) -> Callable[..., SequenceModel]:
    """Builds a model that starts from the weights of another one, of the items, codes and prefixes that both have.

    Only what is learned is taken: buffers, such as the edges of buckets, belong to the vectors of the new model.
    """

    def build(n_items: int, ids: SemanticIds, config: object) -> SequenceModel:
        model = make(n_items, ids, config)
        state = model.state_dict()
        before = dict(old.named_parameters(remove_duplicate=False))  # a table with two owners has both names here too
        fitting = {k: v for k, v in before.items() if k in state and state[k].shape == v.shape}
        if old.items is not None:
            rows = min(len(state["items.weight"]), len(before["items.weight"]))
            fitting["items.weight"] = torch.cat([before["items.weight"][:rows], state["items.weight"][rows:]])
        if model.vectors is not None:
            fitting |= _common_prefixes(model, ids, old, old_ids)
        model.load_state_dict(state | fitting)
        return model

    return build


def _common_prefixes(
    model: SequenceModel, ids: SemanticIds, old: SequenceModel, old_ids: SemanticIds
) -> dict[str, Tensor]:
    """The tables of prefixes, with the vectors of those that the old tree has too, and 0 for others."""
    found, there = {}, model.state_dict()
    for depth, (table, before) in enumerate(zip(model.vectors.prefixes, old.vectors.prefixes, strict=True), start=2):
        place = {tuple(code): row for row, code in enumerate(old_ids.code_ids[:, :depth].tolist()) if row}
        moved = torch.zeros_like(table.weight)
        for row, code in enumerate(ids.code_ids[:, :depth].tolist()):
            if row and tuple(code) in place:
                node = old.vectors.node[place[tuple(code)], depth - 1]
                moved[model.vectors.node[row, depth - 1]] = before.weight[node].detach()
        names = (f"{owner}vectors.prefixes.{depth - 2}.weight" for owner in ("", "head."))
        found |= {name: moved for name in names if name in there}
    return found


def resolved(config: Config, split: TimeSplit, variant: str) -> Config:
    """The settings of a variant for a split, with its recipe and the signals that the data have.

    Raises: ValueError for IDs that no encoder can give to a new item.
    """
    active = (np.diff(split.train().offsets) > 0).sum()
    found = variant_config(variant, config, len(split.train().items) / max(active, 1))
    if VARIANTS[variant].kind == "ids":
        need_learned(found.ids, found.tokenizer, found.recommender)
    return replace(found, tokenizer=resolve_signals(found.tokenizer, split))
