"""Rated events: who liked what and when, split at one moment for all users, with what was known before each event."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from bbqrec_core import Sequences
from bbqrec_core.dataset import MIN_EVENTS, gather_padded
from bbqrec_lab.datasets.bundle import SECONDS, part_files, recognise_unit
from bbqrec_lab.datasets.derived import derived, drawn_items
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.without_sequence.asking import UnanswerableError

LIKED = 4.0  # stars from which an item counts as liked
TRAIN, VALID, TEST = 0, 1, 2
MOMENTS = (0.8, 0.9)  # shares of all events before validation and before test
WITHHELD = 0.1  # share of items without events before the first moment: few items are new by themselves
HISTORY = 20  # liked and disliked items that are read of each user
PRIOR = 5.0  # events added to those of a user or an item, of the mean rate
PARTIAL = "ratings_partial.parquet"  # row i belongs to row i of interactions.parquet
TASTE, QUALITY = 2.0, 0.7  # logits: standard deviations of the planted tastes and qualities
_WITHHELD, _TASTE = 11, 12  # random streams under one split seed


class Rated(NamedTuple):
    """Rated events of all users together, oldest first; E events.

    Args: user: rows of `NamedDataset.users`. item: item rows. time: seconds. liked: 4 stars or more. part: `TRAIN`,
        `VALID` or `TEST`. withheld: (N+1,), items whose events before the first moment were left out.
    """

    user: Int[np.ndarray, "E"]
    item: Int[np.ndarray, "E"]
    time: Int[np.ndarray, "E"]
    liked: Bool[np.ndarray, "E"]
    part: Int[np.ndarray, "E"]
    withheld: Bool[np.ndarray, "rows"]


class Known(NamedTuple):
    """What was known before each event: only events of an earlier time count, so a page of ratings tells nothing.

    Args: liked, disliked: the last items of the user with and without 4 stars, 0 pads. user_rate, item_rate: logits of
        the smoothed share of liked events. user_events, item_events: their number. For items, validation and test count
        the training events alone, as a trained model does. age: seconds since the item's first rated event of any part,
        so that an item that is new to the models can be old; no model reads it, it only divides the test events.
    """

    liked: Int[np.ndarray, "E H"]
    disliked: Int[np.ndarray, "E H"]
    user_rate: Float[np.ndarray, "E"]
    user_events: Int[np.ndarray, "E"]
    item_rate: Float[np.ndarray, "E"]
    item_events: Int[np.ndarray, "E"]
    age: Int[np.ndarray, "E"]


def read_rated(data: NamedDataset, truth: Mapping[str, np.ndarray], split_seed: int) -> Rated:
    """The rated events of a dataset, split by time; planted data get planted ratings.

    Args: truth: of `Workspace.truth`, empty if nothing is planted. split_seed: of the withheld items.
    Raises: UnanswerableError if there are no ratings, no times, or a part without events or with one answer.
    """
    if data.timestamps.max() < SECONDS:
        raise UnanswerableError(
            f"the times of {data.name} are only positions, so no moment divides the events of all users"
        )
    table = _planted(data, truth, split_seed) if truth else _stored(data)
    if table.is_empty():
        raise UnanswerableError(f"no rated event of {data.name} belongs to a user and an item of the data")
    table = table.sort("time", "user", "item")
    user, item, time = (table[name].to_numpy() for name in ("user", "item", "time"))
    liked = table["liked"].to_numpy()
    moments = np.quantile(time, MOMENTS)
    part = np.searchsorted(moments, time, side="left")  # equal times stay together
    withheld = drawn_items(data.n_items, WITHHELD, (split_seed, _WITHHELD))
    keep = (part != TRAIN) | ~withheld[item]
    rated = Rated(user[keep], item[keep], time[keep], liked[keep], part[keep], withheld)
    for number, name in enumerate(("training", "validation", "test")):
        answers = rated.liked[rated.part == number]
        if not len(answers):
            raise UnanswerableError(f"the {name} part of {data.name} has no rated event")
        if not answers.any() or answers.all():
            raise UnanswerableError(f"all events of the {name} part of {data.name} have one answer")
    return rated


def _planted(data: NamedDataset, truth: Mapping[str, np.ndarray], seed: int) -> pl.DataFrame:
    """Planted answers: a user likes some branches of the tree, and a leaf is good or bad for all; nuisance is ignored.

    P(liked) = sigmoid(TASTE taste[user, branch] + QUALITY quality[leaf])
    """
    rng = np.random.default_rng([seed, _TASTE])
    branch, leaf = truth["level_1"], truth["leaf"]
    taste, quality = rng.normal(size=(data.n_users, branch.max() + 1)), rng.normal(size=leaf.max() + 1)
    user, item = np.repeat(np.arange(data.n_users), np.diff(data.sequences.offsets)), data.sequences.items
    logit = TASTE * taste[user, branch[item]] + QUALITY * quality[leaf[item]]
    liked = rng.random(len(item)) < 1 / (1 + np.exp(-logit))
    return pl.DataFrame({"user": user, "item": item.astype(np.int64), "time": data.timestamps, "liked": liked})


def _stored(data: NamedDataset) -> pl.DataFrame:
    """The rated events of a bundle by row of user and item, read by the rules of `datasets.reading`.

    The unit of the times is recognised by their size, and equal rows (user, item, time) are one event. A rating that is
    null or not finite says nothing.
    """
    root = Path(data.path)
    table = _read(root / "interactions.parquet")
    partial = "rating" not in table.columns and (root / PARTIAL).exists()
    if partial:
        table = table.with_columns(_partial_ratings(data, root / PARTIAL, table.height))
    if "rating" in table.columns:
        rating = pl.col("rating").cast(pl.Float64)
        table = table.with_columns(rating=pl.when(rating.is_finite()).then(rating))
    if partial:  # what is missing need not be missing at random, so only users with a rating of each event count
        table = table.filter(pl.col("rating").is_not_null().all().over("user_id"))
    if "rating" not in table.columns or not table["rating"].count():
        raise UnanswerableError(f"{data.name} has no ratings, so nobody knows which items were liked")
    users = pl.DataFrame({"user_id": data.users, "user": np.arange(data.n_users)}).cast({"user_id": pl.String})
    items = data.items.select(pl.col("item_id").cast(pl.String), item=pl.int_range(1, data.n_items + 1))
    table = table.with_columns(time=_seconds(table["timestamp"])).cast({"user_id": pl.String, "item_id": pl.String})
    event = ["user_id", "item_id", "timestamp"]
    table = table.drop_nulls([*event, "rating"]).unique(event, keep="first", maintain_order=True)
    found = table.join(users, on="user_id").join(items, on="item_id")
    return found.select("user", "item", "time", liked=pl.col("rating") >= LIKED)


def _partial_ratings(data: NamedDataset, file: Path, rows: int) -> pl.Series:
    """The ratings of a file of their own, row by row.

    Raises: UnanswerableError for a file without the column, or with another number of rows.
    """
    found = _read(file)
    if "rating" not in found.columns or found.height != rows:
        wanted = f"a column rating with one row for each of the {rows} of interactions.parquet"
        raise UnanswerableError(f"{file.name} of {data.name} must have {wanted}")
    return found["rating"]


def _seconds(times: pl.Series) -> pl.Series:
    """Times of any type as whole seconds."""
    if times.dtype.is_temporal():
        return times.dt.epoch("s")
    numbers = times.cast(pl.Float64 if times.dtype.is_float() else pl.Int64)
    numbers, ticks, _ = recognise_unit(numbers, 1)
    return (numbers // ticks).cast(pl.Int64)


def _read(file: Path) -> pl.DataFrame:
    """A table in one file or in the part files of a folder."""
    files = part_files(file) if file.is_dir() else [file]
    return pl.concat([pl.read_parquet(part, glob=False) for part in files], how="diagonal_relaxed")


def known_before(rated: Rated) -> Known:
    """What was known before each event; equal times of one user know nothing of each other."""
    order = np.lexsort((rated.time, rated.user))
    back = np.argsort(order)
    user, time, item, liked = (field[order] for field in (rated.user, rated.time, rated.item, rated.liked))
    start, seen = _starts(user), _starts(user, time)
    bags, counts = [], []
    for chosen in (liked, ~liked):
        before = np.append(0, np.cumsum(chosen))
        sizes = np.minimum(before[seen] - before[start], HISTORY)
        rows = np.append(item[chosen], 0)  # not empty, if nothing was liked
        bags.append(gather_padded(rows, before[seen] - sizes, sizes).numpy()[back])
        counts.append((before[seen] - before[start])[back])
    mean = rated.liked[rated.part == TRAIN].mean()
    item_liked, item_events, first = _of_items(rated)
    return Known(
        *bags,
        _logit(counts[0], counts[0] + counts[1], mean),
        counts[0] + counts[1],
        _logit(item_liked, item_events, mean),
        item_events,
        np.maximum(rated.time - first[rated.item], 0),
    )


def _of_items(rated: Rated) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Liked training events and training events of each event's item before it, and the first time of every item row.

    Validation and test come after all of training, so they have all training events before them.
    """
    order = np.lexsort((rated.time, rated.item))
    back, train = np.argsort(order), rated.part == TRAIN
    item, time = rated.item[order], rated.time[order]
    start, seen = _starts(item), _starts(item, time)
    found = []
    for chosen in (train & rated.liked, train):
        before = np.append(0, np.cumsum(chosen[order]))
        found.append((before[seen] - before[start])[back])
    first = np.full(len(rated.withheld), np.iinfo(np.int64).max)
    np.minimum.at(first, rated.item, rated.time)
    return found[0], found[1], first


def _starts(*keys: Int[np.ndarray, "E"]) -> Int[np.ndarray, "E"]:
    """The first position of each row's run of equal keys; the rows are sorted by them."""
    new = np.zeros(len(keys[0]), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))


def _logit(liked: Int[np.ndarray, "E"], events: Int[np.ndarray, "E"], mean: float) -> Float[np.ndarray, "E"]:
    """The logit of the share of liked events, smoothed by `PRIOR` events of the mean."""
    rate = (liked + PRIOR * mean) / (events + PRIOR)
    return np.log(rate / (1 - rate))


def before_the_split(data: NamedDataset, rated: Rated) -> NamedDataset:
    """The dataset from which a tokenizer may learn: events before the first moment, withheld items held out.

    Choice: every user keeps the last two of these events out of training, as in every dataset here. Users with fewer
        than three events are left out.
    Raises: UnanswerableError if nothing is left to learn from.
    """
    chosen = rated.part == TRAIN
    user, item, time = (field[chosen] for field in (rated.user, rated.item, rated.time))
    order = np.lexsort((time, user))
    user, item, time = user[order], item[order], time[order]
    sizes = np.bincount(user, minlength=data.n_users)
    enough = sizes >= MIN_EVENTS
    if not enough.any():
        raise UnanswerableError(
            f"no user of {data.name} has {MIN_EVENTS} events before the split, so no ID can be learned"
        )
    keep = enough[user]
    item, time = item[keep].astype(np.int32), time[keep].astype(np.int64)
    offsets = np.append(0, np.cumsum(sizes[enough]))
    before = derived(
        data,
        f"before {rated.time[~chosen].min()}, withheld {np.flatnonzero(rated.withheld).tolist()}",
        sequences=Sequences(offsets, item, time),
        timestamps=time,
        users=data.users[enough],
        cold=rated.withheld | (np.arange(data.n_items + 1) == 0),
    )
    if not (np.diff(before.train().offsets) > 1).any():
        raise UnanswerableError(f"no user of {data.name} has two events from which an ID can be learned")
    return before
