"""The dataset: who did what in which order, what is known of each item, and the leave-one-out split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int32, Int64, Shaped

from .bundle import Bundle, read_checked, select
from .bundle_checks import BundleError, fault
from .config import DataConfig
from .events import MIN_EVENTS, break_ties, clean, repeats, tied

__all__ = ["BundleError", "Dataset", "Sequences", "read_bundle", "statistics"]

_PERMUTATION, _TIES, _COLD = 0, 1, 2  # separate random streams under one split_seed
TIED = "rows that share their timestamp with another row of the user"
REPEATED = "repeated (user, item) pairs"


class Sequences(NamedTuple):
    """Histories end to end: user u's item rows are `items[offsets[u]:offsets[u + 1]]`, oldest first."""

    offsets: Int64[np.ndarray, "U+1"]
    items: Int32[np.ndarray, "events"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions, items and features under one numbering: item rows 1..N, row 0 for padding.

    Item rows are a seeded permutation, so that nothing can be read from an item's number. Per-item arrays have
    N + 1 rows, the first of them zero or False.

    Args:
        name: of the folder or the registered source. data_hash: 8 hex digits over all content and `DataConfig` fields
            that shape it, the same whatever the files' row order; `split_seed` is not in it.
        users: original ids, (U,). items: N table rows, frame row r - 1 is item row r; columns item_id, title, text,
            image (absolute path), categories (null where unknown), image_hash, and whatever else the bundle has.
        sequences: all events. timestamps: whole seconds (or the bundle's own unit) of each event.
        features: (N+1, d) by modality, raw until `features.scale`. presence: (N+1,), False where an item lacks it.
        codes: (N+1, L), published discrete codes by modality. report: what reading dropped, kept and decided.
        cold: items held out of training, (N+1,), which stay in the catalogue and in evaluation; None holds out none.
    Raises: ValueError if a user has fewer than three events.
    """

    name: str
    data_hash: str
    users: Shaped[np.ndarray, "U"]
    items: pl.DataFrame
    sequences: Sequences
    timestamps: Int64[np.ndarray, "events"]
    features: dict[str, Float32[np.ndarray, "rows _"]]
    presence: dict[str, Bool[np.ndarray, "rows"]]
    codes: dict[str, Int32[np.ndarray, "rows _"]]
    report: dict[str, int | str]
    cold: Bool[np.ndarray, "rows"] | None = None

    def __post_init__(self) -> None:
        lengths = np.diff(self.sequences.offsets)
        if lengths.min(initial=MIN_EVENTS) < MIN_EVENTS:
            short = int(np.argmax(lengths < MIN_EVENTS))
            raise ValueError(f"user row {short} has {lengths[short]} events, need {MIN_EVENTS}: drop shorter histories")

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """N, padding not counted."""
        return self.items.height

    def train(self) -> Sequences:
        """Each user's events but the last two, those on cold items left out: all that training may see."""
        offsets, items = self._without_last(2)
        if self.cold is None:
            return Sequences(offsets, items)
        seen = ~self.cold[items]
        return Sequences(np.append(0, np.cumsum(seen))[offsets], items[seen])

    def warm_rows(self) -> Int64[np.ndarray, "warm"]:
        """Rows of the items that training may look at."""
        return np.flatnonzero(np.arange(self.n_items + 1) > 0 if self.cold is None else ~self.cold)

    def history(self, part: str) -> Sequences:
        """What is known before the target of `part` (`valid` or `test`): the test history holds the validation item.

        Raises: ValueError for any other part.
        """
        return self._without_last(_back(part))

    def targets(self, part: str) -> Int32[np.ndarray, "U"]:
        """The item row to predict for each user: the last event (`test`) or the last but one (`valid`).

        Raises: ValueError for any other part.
        """
        return self.sequences.items[self.sequences.offsets[1:] - _back(part)]

    def train_counts(self) -> Int64[np.ndarray, "rows"]:
        """Training events of every item row, (N+1,)."""
        return np.bincount(self.train().items, minlength=self.n_items + 1)

    def row_of(self, item_ids: Sequence | np.ndarray | pl.Series) -> Int32[np.ndarray, "ids"]:
        """Item rows of original ids; digits in a string serve for an integer id.

        Raises: ValueError naming the ids that are not in the data.
        """
        known = self.items.select("item_id", row=pl.int_range(1, self.n_items + 1, dtype=pl.Int32))
        asked = pl.DataFrame({"item_id": pl.Series(list(item_ids), strict=False).cast(pl.String)})
        found = asked.join(known.cast({"item_id": pl.String}), on="item_id", how="left", maintain_order="left")
        missing = found.filter(pl.col("row").is_null())["item_id"].unique(maintain_order=True)
        if len(missing):
            some = ", ".join(map(repr, missing.head(5)))
            raise ValueError(f"{len(missing)} unknown item ids ({some}): use the item_id values of items.parquet")
        return found["row"].to_numpy()

    def _without_last(self, drop: int) -> Sequences:
        offsets, items = self.sequences
        keep = np.ones(len(items), bool)
        for back in range(1, drop + 1):
            keep[offsets[1:] - back] = False
        return Sequences(offsets - drop * np.arange(len(offsets)), items[keep])


def _back(part: str) -> int:
    """How far from the end the target of `part` stands."""
    if part not in ("valid", "test"):
        raise ValueError(f"part must be 'valid' or 'test', got {part!r}")
    return 2 if part == "valid" else 1


def read_bundle(path: str | Path, options: DataConfig) -> Dataset:
    """Read, check, filter, order and number the bundle in folder `path`. Features come as they are, not scaled.

    Args: path: folder of the bundle. options: which modalities, which k-core, how time ties are broken, split seed.
    Raises: BundleError, before anything slow, for each fault that docs/data.md lists as an error.
    Choice: canonical order (by original id) comes first and every draw second, so files in another row order give an
        equal dataset; with `time_ties="file"` the order of tied interaction rows counts, as asked for.
    """
    root = Path(path).resolve()
    bundle = _keep_core(root, read_checked(root, options.modalities), options.k_core)
    by_file = options.time_ties == "file"
    draw = np.random.default_rng([options.split_seed, _TIES]).random(bundle.events.height)
    events = break_ties(bundle.events, key=bundle.events["row"].to_numpy() if by_file else draw)
    data_hash = _digest(options, bundle._replace(events=events) if by_file else bundle)
    report = {reason: count for reason, count in bundle.report.items() if count}
    report["time ties"] = "file order" if by_file else f"seeded shuffle, split_seed {options.split_seed}"
    report |= {TIED: int(tied(events).sum()), REPEATED: repeats(events)}
    if not bundle.features and not any(bundle.items[name].count() for name in ("text", "image")):
        report["notice"] = "no modality in this bundle: the ID signal stands alone"
    return _number(root.name, data_hash, bundle._replace(events=events, report=report), options)


def _keep_core(root: Path, bundle: Bundle, k: int) -> Bundle:
    """The bundle with clean, sorted events; only a k-core takes items out of the catalogue."""
    events, report = clean(bundle.events, k)
    if events.is_empty():
        core = f" in the {k}-core" if k else ""
        remedy = "lower k_core" if k else "give longer histories"
        raise fault(root / "interactions.parquet", f"no user with {MIN_EVENTS} events is left{core}", remedy)
    n_items = bundle.items.height
    items = events["item"].unique().sort() if k else pl.int_range(n_items, dtype=pl.Int32, eager=True)
    if k:
        report[f"dropped: {k}-core, items"] = n_items - len(items)
    kept = bundle._replace(events=events, report=bundle.report | report)
    return select(kept, events["user"].unique().sort(), items)


def _digest(options: DataConfig, bundle: Bundle) -> str:
    """8 hex digits over the content in canonical order and the options that shape it."""
    digest = hashlib.blake2b(digest_size=4)
    digest.update(repr((options.time_ties, options.k_core, sorted(options.modalities), bundle.ticks)).encode())
    if options.cold_items:
        digest.update(repr(options.cold_items).encode())
    digest.update(pl.DataFrame({"user_id": bundle.users}).write_ndjson().encode())
    digest.update(bundle.items.select("item_id", "title", "text", "categories", "image_hash").write_ndjson().encode())
    columns = {name: bundle.events[name].to_numpy() for name in ("user", "item", "time")}
    codes = {f"{name}_codes": array for name, array in bundle.codes.items()}
    for name, array in (columns | bundle.features | codes).items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _number(name: str, data_hash: str, bundle: Bundle, options: DataConfig) -> Dataset:
    """The dataset of a bundle whose events are in final order: items get their permuted rows."""
    order = np.random.default_rng([options.split_seed, _PERMUTATION]).permutation(bundle.items.height)
    row_of_rank = np.empty(len(order), np.int32)
    row_of_rank[order] = np.arange(1, len(order) + 1)
    per_user = np.bincount(bundle.events["user"].to_numpy(), minlength=len(bundle.users))
    cold, report = None, dict(bundle.report)
    if options.cold_items:
        drawn = np.random.default_rng([options.split_seed, _COLD]).permutation(len(order)) + 1
        cold = np.isin(np.arange(len(order) + 1), drawn[: round(options.cold_items * len(order))])
        cold[0] = True
        report["cold items, held out of training"] = int(cold.sum()) - 1
    padded = [
        {key: np.concatenate([np.zeros_like(array[:1]), array[order]]) for key, array in arrays.items()}
        for arrays in (bundle.features, bundle.codes)
    ]
    return Dataset(
        name=name,
        data_hash=data_hash,
        users=bundle.users.to_numpy(),
        items=bundle.items[order],
        sequences=Sequences(np.append(0, np.cumsum(per_user)), row_of_rank[bundle.events["item"].to_numpy()]),
        timestamps=np.floor_divide(bundle.events["time"].to_numpy(), bundle.ticks).astype(np.int64),
        features=padded[0],
        presence={key: array.any(axis=1) for key, array in padded[0].items()},
        codes=padded[1],
        report=report,
        cold=cold,
    )


def statistics(data: Dataset) -> pl.DataFrame:
    """What is in the data, as a table of (what, value), both text, followed by the report of reading.

    The first rows are those of the "Numbers" tables that published bundles carry, in the same words and digits.
    """
    items, lengths = data.items, np.diff(data.sequences.offsets)
    events = len(data.sequences.items)
    counts = np.bincount(data.sequences.items, minlength=data.n_items + 1)[1:]
    facts = {
        "users": data.n_users,
        "items": data.n_items,
        "items with at least one interaction": int((counts > 0).sum()),
        "interactions": events,
        "density": f"{events / (data.n_users * data.n_items):.6f}",
        "sequence length mean / median": f"{lengths.mean():.3f} / {np.median(lengths):g}",
        "sequence length min / max": f"{lengths.min()} / {lengths.max()}",
        "item popularity median / max": f"{np.median(counts):g} / {counts.max()}",
        "items with fewer than 5 interactions": int((counts < 5).sum()),
        "items without a training event": int((data.train_counts()[1:] == 0).sum()),
        "first / last timestamp (Unix seconds)": f"{data.timestamps.min()} / {data.timestamps.max()}",
    }
    if items["item_id"].dtype.is_integer() and len(np.unique(counts)) > 1:
        both = pl.DataFrame({"number": items["item_id"], "count": counts})
        correlation = both.select(pl.corr("number", "count", method="spearman")).item()
        facts["rank correlation of item number and item popularity"] = f"{correlation:.2f}"
    for column in ("title", "text", "image", "categories"):
        facts[f"items with {column}"] = _share(items[column].count(), data.n_items)
    pictured = np.append(False, items["image"].is_not_null().to_numpy())[data.sequences.items]
    facts["interactions whose item has an image"] = _share(int(pictured.sum()), events)
    facts |= {
        f"items with {name} features": _share(int(has.sum()), data.n_items) for name, has in data.presence.items()
    }
    facts |= data.report
    if TIED in facts:
        facts[TIED] = _share(facts[TIED], events)
    return pl.DataFrame({"what": list(facts), "value": [str(value) for value in facts.values()]})


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f} %)"
