"""Synthetic catalogues and histories for timing: realistic sizes and shapes, but no structure to learn."""

import numpy as np

from bbqrec_core import SemanticIds, Sequences

SIGNALS = ("text", "image", "id")


def histories(users: int, items: int, mean: int, longest: int, seed: int = 0) -> Sequences:
    """Events of users: geometric lengths with about `mean` events, clipped to 5..`longest`; items by a power law."""
    rng = np.random.default_rng(seed)
    sizes = np.clip(rng.geometric(1 / max(mean - 4, 1), users) + 4, 5, longest)
    offsets = np.append(0, np.cumsum(sizes))
    weight = 1 / np.arange(1, items + 1) ** 0.8
    drawn = rng.choice(items, offsets[-1], p=weight / weight.sum()) + 1
    return Sequences(offsets.astype(np.int64), drawn.astype(np.int32))


def random_ids(
    items: int, levels: int, codes: int, width: int = 64, seed: int = 0, signals: tuple[str, ...] = SIGNALS
) -> SemanticIds:
    """Distinct random IDs with signals; an item lacks each signal with probability 0.1."""
    rng = np.random.default_rng(seed)
    number = distinct(rng, items, min(codes**levels, 2**63 - 1))  # limited to the range of 64-bit integers
    table = np.zeros((items + 1, levels), np.int64)
    for level in range(levels):
        table[1:, level] = number // codes**level % codes
    present = rng.random((items + 1, len(signals))) < 0.9
    present[0] = False
    signal_codes = rng.integers(0, codes, (items + 1, len(signals), levels))
    codebook = rng.standard_normal((levels, codes, width)).astype(np.float32)
    vectors = sum(codebook[level][signal_codes[..., level]] for level in range(levels))
    return SemanticIds(table, (codes,) * levels, levels, signals, signal_codes, vectors, present, codebook, table)


def distinct(rng: np.random.Generator, count: int, below: int) -> np.ndarray:
    """`count` distinct integers of at least 0 and less than `below`, in random order."""
    found = np.unique(rng.integers(0, below, count + count // 8 + 64))
    while len(found) < count:
        found = np.union1d(found, rng.integers(0, below, count))
    return rng.permutation(found)[:count]
