"""Random ID tables with collisions, and their prefix tree by dictionary."""

import numpy as np
from hypothesis import strategies as st

SIZES = (5, 3, 2)


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """ID tables of 1 to 17 items, with collisions, any padding row in front."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items, length = draw(st.integers(1, 17)), draw(st.integers(1, 3))
    return np.stack([rng.integers(0, size, items + 1) for size in SIZES[:length]], axis=1)


def trie_of(table: np.ndarray) -> tuple[dict, dict]:
    """Prefix -> sorted next codes, and whole ID -> item rows, by dictionary."""
    children, leaves = {}, {}
    for row, codes in enumerate(table[1:].tolist(), start=1):
        for depth, code in enumerate(codes):
            children.setdefault(tuple(codes[:depth]), set()).add(code)
        leaves.setdefault(tuple(codes), []).append(row)
    return {prefix: sorted(codes) for prefix, codes in children.items()}, leaves
