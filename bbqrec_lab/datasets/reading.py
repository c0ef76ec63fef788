"""From a bundle on disk to a dataset: filter, order and number the events, keep the names of users and items."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64, Shaped

from bbqrec_core import Dataset, Sequences
from bbqrec_core.dataset import MIN_EVENTS
from bbqrec_lab.datasets.bundle import SECONDS, Bundle, encodable, fault, read_checked, select
from bbqrec_lab.datasets.interactions import break_ties, clean, repeats, tied
from bbqrec_lab.settings import DataConfig

_PERMUTATION, _TIES, _COLD = 0, 1, 2  # separate random streams under one split_seed
TIED = "rows that share their timestamp with another row of the user"
REPEATED = "repeated (user, item) pairs"


@dataclass(frozen=True, eq=False, kw_only=True)
class NamedDataset(Dataset):
    """A dataset with the names of its users and items, its origin, and a report of how it was read.

    Item rows are a seeded permutation, so the number of an item carries no information.

    Args: those of `Dataset`, and
        name: of the folder or the registered dataset. content_hash: 40 hex digits over all content and the
            `DataConfig` fields that affect it, except `split_seed`; independent of the row order of the files.
        users: original ids, (U,). items: N table rows, frame row r - 1 is item row r; columns item_id, title, text,
            image (absolute path), categories (null if unknown), image_hash, and all other columns of the bundle.
        timestamps: time of each event in whole seconds (or the bundle's own unit).
        codes: modality -> (N+1, L), published discrete codes. report: what was dropped, kept and decided.
        path: the folder of the bundle; empty for data that come from none.
    """

    name: str
    content_hash: str
    users: Shaped[np.ndarray, "U"]
    items: pl.DataFrame
    timestamps: Int64[np.ndarray, "events"]
    codes: dict[str, Int32[np.ndarray, "rows _"]]
    report: dict[str, int | str]
    path: str = ""

    @property
    def data_hash(self) -> str:
        """The first 8 digits of `content_hash`, for tables and captions."""
        return self.content_hash[:8]

    def row_of(self, item_ids: Sequence | np.ndarray | pl.Series) -> Int32[np.ndarray, "ids"]:
        """Item rows of original ids; a string of digits matches an integer id.

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


def read_bundle(path: str | Path, options: DataConfig) -> NamedDataset:
    """Read, check, filter, order and number the bundle in folder `path`; features are not scaled.

    Args: path: folder of the bundle. options: modalities, k-core, order of time ties, split seed.
    Raises: BundleError, before any slow step, for each fault that docs/data.md lists as an error.
    Choice: events are put in canonical order (by original id) before any random draw, so files in another row order
        give an equal dataset. With `time_ties="file"`, the file order of tied rows counts.
    """
    root = Path(path).resolve()
    bundle = _keep_core(root, read_checked(root, options.modalities), options.k_core)
    by_file = options.time_ties == "file"
    draw = np.random.default_rng([options.split_seed, _TIES]).random(bundle.events.height)
    events = break_ties(bundle.events, key=bundle.events["row"].to_numpy() if by_file else draw)
    content_hash = _digest(options, bundle._replace(events=events) if by_file else bundle)
    report = {reason: count for reason, count in bundle.report.items() if count}
    report["time ties"] = "file order" if by_file else f"seeded shuffle, split_seed {options.split_seed}"
    report |= {TIED: int(tied(events).sum()), REPEATED: repeats(events)}
    if not bundle.features and not any(column.count() for column in encodable(bundle.items).values()):
        report["notice"] = "no modality in this bundle: the ID signal is the only signal"
    return _number(root, content_hash, bundle._replace(events=events, report=report), options)


def _keep_core(root: Path, bundle: Bundle, k: int) -> Bundle:
    """The bundle with clean, sorted events; only a k-core removes items from the catalogue."""
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
    """40 hex digits over the content in canonical order and the options that affect it.

    Choice: first the 8 digits by which tables name their data, made as ever, then 32 digits, which tell data apart.
    """
    brief = bundle.items.with_columns(pl.col("image_hash").str.head(16))
    return _hash(options, bundle._replace(items=brief), 4) + _hash(options, bundle, 16)


def _hash(options: DataConfig, bundle: Bundle, size: int) -> str:
    """A hash of `size` bytes, in hex."""
    digest = hashlib.blake2b(digest_size=size)
    digest.update(repr((options.time_ties, options.k_core, sorted(options.modalities), bundle.ticks)).encode())
    if options.cold_items:
        digest.update(repr(options.cold_items).encode())
    if options.text_encoder != "auto":
        digest.update(repr(options.text_encoder).encode())
    digest.update(pl.DataFrame({"user_id": bundle.users}).write_ndjson().encode())
    digest.update(bundle.items.select("item_id", "title", "text", "categories", "image_hash").write_ndjson().encode())
    columns = {name: bundle.events[name].to_numpy() for name in ("user", "item", "time")}
    codes = {f"{name}_codes": array for name, array in bundle.codes.items()}
    for name, array in (columns | bundle.features | codes).items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _number(root: Path, content_hash: str, bundle: Bundle, options: DataConfig) -> NamedDataset:
    """The dataset of a bundle with events in final order; items get their permuted rows."""
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
    seconds = np.floor_divide(bundle.events["time"].to_numpy(), bundle.ticks).astype(np.int64)
    rows = row_of_rank[bundle.events["item"].to_numpy()]
    return NamedDataset(
        n_items=len(order),
        name=root.name,
        path=str(root),
        content_hash=content_hash,
        users=bundle.users.to_numpy(),
        items=bundle.items[order],
        sequences=Sequences(np.append(0, np.cumsum(per_user)), rows, seconds),
        timestamps=seconds,
        features=padded[0],
        presence={key: array.any(axis=1) for key, array in padded[0].items()},
        codes=padded[1],
        report=report,
        cold=cold,
    )


def statistics(data: NamedDataset) -> pl.DataFrame:
    """Statistics of the data as a table of (what, value), both text, followed by the report of reading.

    The first rows equal the "Numbers" tables of published bundles, in words and digits.
    """
    items, lengths = data.items, np.diff(data.sequences.offsets)
    events = len(data.sequences.items)
    counts = np.bincount(data.sequences.items, minlength=data.n_items + 1)[1:]
    unit = "Unix seconds" if data.timestamps.max() >= SECONDS else "no unit, order alone"
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
        f"first / last timestamp ({unit})": f"{data.timestamps.min()} / {data.timestamps.max()}",
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
