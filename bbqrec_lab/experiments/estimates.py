"""How long rows will take, roughly, told before work of more than ten minutes.

The rates were measured on one core of a server CPU, on data of 200 to 200,000 users and 120 to 300,000 items. Another
processor or a GPU has other rates, a busy machine needs longer, and training may stop before its last epoch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bbqrec_core import RecommenderConfig, TokenizerConfig
from bbqrec_core.training import epochs_for
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.durations import duration
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.experiments.variants import VARIANTS, variant_config
from bbqrec_lab.object_store import SharedStore
from bbqrec_lab.store import Store, key_hash
from bbqrec_lab.terminal import say

LONG = 600.0  # seconds; no estimate is told below
# Seconds of a training step of 640 targets at the default width, with its share of the validations, and more per item
# of a softmax over them.
STEP = {"items": 0.015, "codes": 0.075, "both": 0.045}
STEP_PER_ITEM = 4.4e-6
FIXED = 0.2  # share of a step that a smaller model does not save
BY_CODE = 4.0  # a history that is read code by code is as many times as long
TOKENIZER_STEP = 0.12
# Seconds of the ranks of one user in both modes: per item of the catalogue, or by beam search.
SCORES = {"items": 1e-7, "codes": 1.5e-6, "both": 1.5e-6}
BEAM = 0.02


class Sizes(NamedTuple):
    """Sizes of a dataset: items of the catalogue, and training events of each user."""

    items: int
    events: Int[np.ndarray, "U"]

    def windows(self, length: int) -> float:
        """Training windows of at most `length` targets, on average: the first one of a user is cut at random."""
        targets = np.maximum(self.events - 1, 0)
        return float(np.maximum(1, (targets + (length - 1) / 2) / length)[targets > 0].sum())


# Seconds of rows that only count, tuning included.
COUNTS: dict[str, Callable[[Sizes], float]] = {
    "popularity": lambda sizes: 1e-4 * len(sizes.events),
    "markov": lambda sizes: 2e-5 * sizes.events.sum(),
    "knn": lambda sizes: 5e-7 * (sizes.events.astype(float) ** 2).sum() + 8e-4 * len(sizes.events),
    "content": lambda sizes: 2.5e-7 * len(sizes.events) * sizes.items + 5e-5 * sizes.events.sum(),
    "ease": lambda sizes: 4e-10 * float(sizes.items) ** 3 + 1e-4 * sizes.events.sum(),
}


def sizes_of(data: NamedDataset) -> Sizes:
    """The sizes of a dataset."""
    return Sizes(data.n_items, np.diff(data.train().offsets))


def tokenizer_seconds(config: Config, sizes: Sizes) -> float:
    """Stage 1 of a row with IDs; controls train no tokenizer."""
    settings, full = config.tokenizer, TokenizerConfig()
    steps = _steps(sizes.windows(settings.max_events) / settings.batch_users, settings.epoch_steps)
    size = settings.batch_users / full.batch_users * settings.hidden / full.hidden
    step = TOKENIZER_STEP * (FIXED + (1 - FIXED) * size)
    return step * steps * settings.epochs if config.ids.source == "learned" else 0.0


def model_seconds(kind: str, config: Config, sizes: Sizes) -> float:
    """Training, or counting, and evaluation of a row, without stage 1."""
    users = len(sizes.events)
    if kind not in ("ids", "items"):
        return float(COUNTS[kind](sizes))
    settings = config.recommender
    scoring = users * sizes.items * SCORES[settings.output]
    if settings.by_code or (kind == "ids" and sizes.items > config.evaluation.exact_items):
        scoring = users * BEAM
    return _step_seconds(settings, sizes.items) * _recommender_steps(settings, sizes) + scoring


def _step_seconds(settings: RecommenderConfig, items: int) -> float:
    """A training step of stage 2."""
    full = RecommenderConfig()
    size = (settings.width / full.width) ** 2 * settings.layers / full.layers
    step = STEP[settings.output] * (FIXED + (1 - FIXED) * size)
    step += STEP_PER_ITEM * items * settings.width / full.width if settings.output != "codes" else 0.0
    return step * (BY_CODE if settings.by_code else 1.0) * settings.batch_events / full.batch_events


def _recommender_steps(settings: RecommenderConfig, sizes: Sizes) -> int:
    """Training steps of stage 2, at most."""
    targets = float(np.maximum(sizes.events - 1, 0).sum())
    steps = _steps(targets / settings.batch_events, settings.epoch_steps)
    return steps * epochs_for(settings.min_steps, steps, settings.epochs)


def _steps(all_of_them: float, limit: int) -> int:
    """Steps of an epoch."""
    steps = max(1, round(all_of_them))
    return min(steps, limit) if limit else steps


def rows_seconds(rows: Iterable[tuple[str, Config]], sizes: Sizes) -> list[float]:
    """Seconds of each row (kind of model, full settings); a tokenizer counts for the first row that has it."""
    found, tokenizers = [], set()
    for kind, config in rows:
        seconds = model_seconds(kind, config, sizes)
        if kind == "ids":
            name = key_hash({"seed": config.seed, "ids": asdict(config.ids), "tokenizer": asdict(config.tokenizer)})
            seconds += 0.0 if name in tokenizers else tokenizer_seconds(config, sizes)
            tokenizers.add(name)
        found.append(seconds)
    return found


def tell(what: str, seconds: Sequence[float], jobs: int = 1) -> None:
    """Say on standard error how long pieces of work will take, `jobs` at a time, if that is more than ten minutes."""
    whole = max([sum(seconds) / jobs, *seconds])
    if whole > LONG:
        doubt = "from rates of a CPU core without other work, a busy one can need several times as long"
        say(f"rough estimate for {what}: {duration(whole)} ({doubt}); finished parts are kept")


class _Asked(Exception):
    """Whether the result exists."""


class _Peek(Store):
    """A store that makes nothing: it answers whether another one would have to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self.store = store

    def get(self, kind: str, key: dict[str, object], make: Callable[[Path], None]) -> Path:
        """Raises: _Asked; rows that are committed with the code exist."""
        path = self.path(kind, key)
        here = kind == "committed" or path.exists()
        raise _Asked(here or (isinstance(self.store, SharedStore) and self.store.has(path.name)))


def is_made(find: Callable[..., object], data: NamedDataset, variant: str, config: Config, store: Store) -> bool:
    """Whether `find` (`runs.run_variant` or `runs.find_row`) finds a row without making it."""
    try:
        find(data, variant, config, _Peek(store))
    except _Asked as answer:
        return answer.args[0]
    except ValueError:  # it will be refused, without any work, or the object store does not answer
        return True
    raise AssertionError("every row is asked of the store")


def tell_rows(
    data: NamedDataset,
    rows: Sequence[tuple[str, int]],
    configure: Callable[[int], Config],
    store: Store,
    jobs: int = 1,
    find: Callable[..., object] = runs.find_row,
) -> None:
    """Say how long the rows (variant, seed) that are not made yet will take, if that is more than ten minutes.

    Args: configure: settings for a seed, as given to `find`.
    """
    sizes = sizes_of(data)
    left = [row for row in rows if not is_made(find, data, row[0], configure(row[1]), store)]
    complete = partial(variant_config, events=float(sizes.events.mean()))
    asked = [(VARIANTS[name].kind, complete(name, configure(seed))) for name, seed in left]
    together = min(jobs, max(len(left), 1))
    what = "the row" if len(left) == 1 else f"{len(left)} rows, {together} at a time"
    tell(what, rows_seconds(asked, sizes), together)
