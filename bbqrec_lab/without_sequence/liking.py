"""Will this user like this item? Every input of `code_tables` in the same small models, beside plain means."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int

from bbqrec_core import SemanticIds
from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import statistics
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.store import Store, load_arrays, save_arrays
from bbqrec_lab.without_sequence import code_tables, rating_models, ratings
from bbqrec_lab.without_sequence.ratings import TEST, TRAIN

RIVAL = "means"  # the logistic regression
BY_EVENTS = {"no events": (0, 0), "1 to 10": (1, 10), "11 to 100": (11, 100), "over 100": (101, 10**9)}
DAY = 86_400
BY_AGE = {"first week": (0, 7), "8 to 30 days": (7, 30), "later": (30, 10**9)}  # days since the item's first event


class Liking(NamedTuple):
    """Results of all models on the test events.

    Args: user, item, liked, segments: of the test events; segments divide them by the item's training events and age.
        chance: (model, input) -> (seeds, E_test) probabilities; the rival is (`means`, `means`) with one seed.
        memory: input -> (bytes of the learned table, bytes kept of all items).
    """

    user: Int[np.ndarray, "E"]
    item: Int[np.ndarray, "E"]
    liked: Bool[np.ndarray, "E"]
    segments: dict[str, Bool[np.ndarray, "E"]]
    chance: dict[tuple[str, str], Float[np.ndarray, "seeds E"]]
    memory: dict[str, tuple[int, int]]


def study(data: NamedDataset, truth: Mapping[str, np.ndarray], configs: Sequence[Config], store: Store) -> Liking:
    """Train all models for every seed of `configs`, or load their answers; the IDs are those of the first seed.

    Raises: UnanswerableError if the data cannot answer the question, see `ratings.read_rated`.
    """
    rated = ratings.read_rated(data, truth, configs[0].data.split_seed)
    known = ratings.known_before(rated)
    before = ratings.before_the_split(data, rated)
    test, chance, memory = rated.part == TEST, {}, {}
    chance[RIVAL, RIVAL] = rating_models.fit_means(rated, known)[None]
    ids = code_tables.make_ids(before, configs[0], store)
    found = [_one_seed(data, before, ids, rated, known, config, store) for config in configs]
    for name in found[0][0]:
        model, _, given = name.partition(" ")
        chance[model, given] = np.stack([chances[name] for chances, _ in found])
    memory = {name: tuple(map(int, sizes)) for name, sizes in found[0][1].items()}
    memory[RIVAL] = (8 * data.n_items, 0)  # liked events and events of each item
    return Liking(rated.user[test], rated.item[test], rated.liked[test], _segments(rated, known), chance, memory)


def _one_seed(
    data: NamedDataset,
    before: NamedDataset,
    ids: Mapping[str, SemanticIds],
    rated: ratings.Rated,
    known: ratings.Known,
    config: Config,
    store: Store,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """`MODEL INPUT` -> test probabilities, and input -> sizes, of one seed; kept in the store."""
    digest = hashlib.sha256(b"".join(table.code_ids.tobytes() for table in ids.values()))
    digest.update(rated.liked.tobytes() + rated.item.astype(np.int64).tobytes())
    key = {"data": before.content_hash, "seed": config.seed, "preset": config.preset, "ids": digest.hexdigest()}
    key |= {"code": code_hash(__name__), "torch": torch.__version__}

    def make(directory: Path) -> None:
        examples = rating_models.make_examples(rated, known)
        counts = np.bincount(rated.item[rated.part == TRAIN], minlength=data.n_items + 1)
        chances, sizes = {}, {}
        for name, given in code_tables.all_inputs(data, ids, counts, config.seed).items():
            for model in rating_models.MODELS:
                done = rating_models.fit_ranking(given, model, examples, rated.part, config.preset, config.seed)
                chances[f"{model} {name}"] = done.chance.astype(np.float32)
                sizes[name] = np.array([done.learned, given.stored * data.n_items])
        save_arrays(directory / "chances.npz", **chances)
        save_arrays(directory / "sizes.npz", **sizes)

    directory = store.get("liking", key, make)
    return load_arrays(directory / "chances.npz"), load_arrays(directory / "sizes.npz")


def _segments(rated: ratings.Rated, known: ratings.Known) -> dict[str, Bool[np.ndarray, "E"]]:
    """Which test events fall into each range of the item's training events and age; empty ranges are left out."""
    test = rated.part == TEST
    events, days = known.item_events[test], known.age[test] / DAY
    found = {name: (low <= events) & (events <= high) for name, (low, high) in BY_EVENTS.items()}
    found |= {name: (low <= days) & (days < high) for name, (low, high) in BY_AGE.items()}
    return {name: inside for name, inside in found.items() if inside.any()}


def table(found: Liking) -> pl.DataFrame:
    """AUC and log-loss of every model, input and segment: means over seeds and standard deviations, with sizes."""
    lines, parts = [], {"all": np.ones(len(found.liked), bool)} | found.segments
    for (model, given), chances in found.chance.items():
        for segment, inside in parts.items():
            areas = [rating_models.area(chance[inside], found.liked[inside]) for chance in chances]
            losses = [float(rating_models.log_losses(chance[inside], found.liked[inside]).mean()) for chance in chances]
            numbers = (float(np.mean(areas)), float(np.std(areas)), float(np.mean(losses)), float(np.std(losses)))
            lines.append((model, given, segment, int(inside.sum()), len(chances), *numbers, *found.memory[given]))
    schema = ["model", "input", "segment", "events", "seeds", "auc", "auc_std", "log_loss", "log_loss_std"]
    return pl.DataFrame(lines, schema=[*schema, "table_bytes", "item_bytes"], orient="row")


def seeds_of(found: Liking, model: str, inside: Bool[np.ndarray, "E"] | None = None) -> dict[str, np.ndarray]:
    """AUC of each seed by input, for one model and the rival, among all test events or those `inside`."""
    chosen = np.ones(len(found.liked), bool) if inside is None else inside
    return {
        given: np.array([rating_models.area(chance[chosen], found.liked[chosen]) for chance in chances])
        for (kind, given), chances in found.chance.items()
        if kind in (model, RIVAL)
    }


def groups(names: Iterable[str]) -> dict[str, str]:
    """The group of each input, for figures: a kind of ID, `rival`, or `no ID`."""
    kinds = {name: name.rpartition(" ")[0] for name in names}
    return {
        name: kind if kind in code_tables.KINDS else "rival" if name == RIVAL else "no ID"
        for name, kind in kinds.items()
    }


def by_segment(found: Liking, model: str, names: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Division -> segment -> input -> AUC, mean over seeds; the divisions are by events and by age of the item."""
    divided = {"training events of the item": BY_EVENTS, "age of the item": BY_AGE}
    result: dict[str, dict[str, dict[str, float]]] = {}
    for title, ranges in divided.items():
        result[title] = {}
        for segment in (name for name in ranges if name in found.segments):
            areas = seeds_of(found, model, found.segments[segment])
            result[title][segment] = {name: float(areas[name].mean()) for name in names}
    return {title: segments for title, segments in result.items() if segments}


def compare(found: Liking, model: str, ours: str, others: Sequence[str]) -> pl.DataFrame:
    """Log-loss of each other input minus that of `ours`, so that above zero `ours` is better.

    Differences are paired. Over all events a user counts once, by the mean over test events. Among the items without
    training events an item does: all its events share what its ID gets wrong, and there are few such items.

    Returns: columns segment, against, over (`users` or `items`), units (how many), difference, low, high, p and p_holm,
        corrected for the lines of the table; segments are all events, and those of items without training events.
    """
    lines = []
    parts = {"all": (np.ones(len(found.liked), bool), "users", found.user)}
    if (new := found.segments.get("no events")) is not None:
        parts["no events"] = new, "items", found.item
    for segment, (inside, over, unit) in parts.items():
        mine = _by_unit(found, (model, ours), inside, unit)
        for other in others:
            theirs = _by_unit(found, (RIVAL, RIVAL) if other == RIVAL else (model, other), inside, unit)
            lines.append((segment, other, over, mine.shape[1], *statistics.paired_bootstrap(theirs, mine)))
    schema = ["segment", "against", "over", "units", "difference", "low", "high", "p"]
    frame = pl.DataFrame(lines, orient="row", schema=schema)
    return statistics.with_holm(frame)


def _by_unit(
    found: Liking, name: tuple[str, str], inside: Bool[np.ndarray, "E"], unit: Int[np.ndarray, "E"]
) -> Float[np.ndarray, "seeds units"]:
    """Mean log-loss of every user, or of every item, with an event inside."""
    _, own = np.unique(unit[inside], return_inverse=True)
    size = np.bincount(own)
    losses = [rating_models.log_losses(chance[inside], found.liked[inside]) for chance in found.chance[name]]
    return np.stack([np.bincount(own, loss) / size for loss in losses])
