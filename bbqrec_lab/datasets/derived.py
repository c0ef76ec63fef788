"""Datasets made from others: a hash of their own, and shares of the items that are drawn with a seed."""

import hashlib
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from bbqrec_lab.datasets.reading import NamedDataset


def derived(data: NamedDataset, label: str, **changes: object) -> NamedDataset:
    """A changed dataset under a hash of its own, so that no stored result of the original is found for it."""
    text = f"{data.content_hash} {label}"
    hashed = hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
    return replace(data, **{"content_hash": hashed, **changes})


def drawn_items(n_items: int, share: float, stream: tuple[int, int]) -> Bool[np.ndarray, "rows"]:
    """A random share of the items, (N+1,); never the padding. `stream`: split seed and number of the random stream."""
    drawn = np.random.default_rng(stream).permutation(n_items) + 1
    return np.isin(np.arange(n_items + 1), drawn[: round(share * n_items)])
