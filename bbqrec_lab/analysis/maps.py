"""Maps of vectors in the plane, by PCA or UMAP, and the words of their regions."""

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

from bbqrec_core import Tokenized
from bbqrec_lab.analysis.neighbours import mean_signals
from bbqrec_lab.store import Store, load_arrays, save_arrays


def project(
    vectors: Float[np.ndarray, "R d"], method: Literal["pca", "umap"], seed: int, store: Store
) -> Float[np.ndarray, "R 2"]:
    """Project vectors to the plane; the result is stored under a hash of the vectors.

    Args: method: `pca` (linear and fast) or `umap` (preserves neighbourhoods; distances have no meaning).
    Raises: ValueError for an unknown method, or fewer than three vectors.
    """
    if method not in ("pca", "umap"):
        raise ValueError(f"method must be pca or umap, got {method!r}")
    if len(vectors) < 3:
        raise ValueError(f"a map needs at least three vectors, got {len(vectors)}")
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    digest = hashlib.sha256(vectors).hexdigest()
    package = "umap-learn" if method == "umap" else "scikit-learn"
    key = {"vectors": digest, "shape": vectors.shape, "method": method, "seed": seed, "version": version(package)}

    def make(directory: Path) -> None:
        plane = _umap(vectors, seed) if method == "umap" else PCA(2, svd_solver="full").fit_transform(vectors)
        save_arrays(directory / "plane.npz", plane=plane.astype(np.float32))

    return load_arrays(store.get("projection", key, make) / "plane.npz")["plane"]


def map_codes(
    done: Tokenized, method: Literal["pca", "umap"], seed: int, store: Store
) -> tuple[Float[np.ndarray, "N 2"], list[Float[np.ndarray, "_ 2"]]]:
    """Items and codebook vectors on one map.

    Items are their mean behaviour signals. Codes are the used vectors of level 1 and, if there is a second level, its
    used vectors below the most frequent first code, each added to the vector of that code.

    Args: as in `project`.
    """
    raw, book = done.ids.raw_codes[1:, : len(done.ids.codebook)], done.ids.codebook
    largest = np.bincount(raw[:, 0]).argmax()
    groups = [mean_signals(done.behaviour, done.ids.present)[1:], book[0][np.unique(raw[:, 0])]]
    if len(book) > 1:
        groups.append(book[0][largest] + book[1][np.unique(raw[raw[:, 0] == largest, 1])])
    plane = project(np.concatenate(groups), method, seed, store)
    items, *codes = np.split(plane, np.cumsum([len(group) for group in groups])[:-1])
    return items, codes


FIRST, EACH, LEVELS = 12, 4, 4  # parts of the whole map, parts of a region, and levels of detail
SMALLEST = 24  # a region with fewer items is not divided
TOLD = 2  # words of a region, at most


class Region(NamedTuple):
    """A part of the map and what its items have in common.

    Args: x, y: position of the item nearest to its mean. words: its most typical terms, or empty. items: their number.
        first, last: the levels of detail that show it: 0 is the whole map, and each further level is twice as large.
            A region that is not divided has no last level: it is infinite.
    """

    x: float
    y: float
    words: tuple[str, ...]
    items: int
    first: int
    last: float


def regions(plane: Float[np.ndarray, "N 2"], terms: Sequence[Collection[str]], seed: int = 0) -> list[Region]:
    """Divide a map into regions, each region into smaller ones, and find the words of each.

    Choice: regions are clusters of the positions (k-means, in the plane), not of the IDs: the items of a prefix can lie
    in several places, where a label at their mean would name other items. So the words say what is at a place, and the
    colours say which codes are there; whether the two fit is for the reader to see.

    Args: terms: per item, its words and categories.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    common, found = Counter(term for own in terms for term in set(own)), []

    def divide(members: Int[np.ndarray, "members"], level: int) -> None:
        parts = min(EACH if level else FIRST, len(np.unique(plane[members], axis=0)), len(members) * 2 // SMALLEST)
        if parts < 2:
            labels = np.zeros(len(members), dtype=int)
        else:
            labels = KMeans(parts, n_init=1, max_iter=20, random_state=seed).fit_predict(plane[members])
        for part in range(max(parts, 1)):
            inside = members[labels == part]
            whole = level + 1 == LEVELS or len(inside) < SMALLEST or parts < 2
            middle = plane[inside][np.linalg.norm(plane[inside] - plane[inside].mean(0), axis=1).argmin()]
            words = typical([terms[row] for row in inside], common, len(terms))
            found.append(Region(*middle.tolist(), words, len(inside), level, math.inf if whole else level))
            if not whole:
                divide(inside, level + 1)

    with threadpool_limits(1):  # threads cost more than they save on so few points
        divide(np.arange(len(plane)), 0)
    return found


def typical(inside: Sequence[Collection[str]], common: Counter, items: int, most: int = TOLD) -> tuple[str, ...]:
    """The most typical terms of some items among all.

        lift = share of these items with the term / share of all items with it

    A term is typical if its lift is at least 1.5, a fifth of these items has it, at least four, and chance does not
    explain it (three standard errors). The highest lift comes first.

    Args: inside: terms of each of these items. common: number of all items with each term. items: number of all items.
    """
    n, scored = len(inside), []
    for term, count in Counter(term for own in inside for term in set(own)).items():
        share = common[term] / items
        lift = count / n / share
        by_chance = n * share + 3 * math.sqrt(n * share * (1 - share))
        if lift >= 1.5 and count >= max(4, n / 5, by_chance):
            scored.append((-lift, term))
    return tuple(term for _, term in sorted(scored)[:most])


def _umap(vectors: Float[np.ndarray, "R d"], seed: int) -> Float[np.ndarray, "R 2"]:
    """UMAP with a seeded layout; imported here because the import takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap warns that a seed forces one thread, and its imports warn too
        from umap import UMAP

        return UMAP(n_neighbors=min(15, len(vectors) - 1), min_dist=0.1, random_state=seed, n_jobs=1).fit_transform(
            vectors
        )
