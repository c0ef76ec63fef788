"""Maps of vectors in the plane, by PCA or UMAP."""

import hashlib
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
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
    digest = hashlib.sha256(vectors).hexdigest()[:16]
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


def _umap(vectors: Float[np.ndarray, "R d"], seed: int) -> Float[np.ndarray, "R 2"]:
    """UMAP with a seeded layout; imported here because the import takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap warns that a seed forces one thread, and its imports warn too
        from umap import UMAP

        return UMAP(n_neighbors=min(15, len(vectors) - 1), min_dist=0.1, random_state=seed, n_jobs=1).fit_transform(
            vectors
        )
