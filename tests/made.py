"""A synthetic atlas of any size, for tests of the inspector with tens of thousands of items."""

import numpy as np
from tiny import semantic_ids

from bbqrec_lab.analysis.recovery import seed_stability
from bbqrec_lab.widgets.html_cards import Catalogue
from bbqrec_lab.widgets.inspector.atlas import Atlas, Space

SIZES, WIDTH = (64, 64, 64), 32
CORNERS = (
    (-1.0, -1.0),
    (1.0, -1.0),
    (1.0, 1.0),
    (-1.0, 1.0),
)  # positions of the first four items, apart from all others


def made_atlas(items: int, seed: int = 0) -> Atlas:
    """Two tokenizers with random IDs; on the map, each first code is a cluster; the first four items are corners."""
    rng = np.random.default_rng(seed)
    tokens = {name: semantic_ids(items, SIZES, seed=seed + at) for at, name in enumerate(("made", "other"))}
    codes = tokens["made"].code_ids
    middles = 0.75 * rng.uniform(-1, 1, (SIZES[0], 2))
    plane = np.clip(middles[codes[1:, 0]] + 0.05 * rng.normal(size=(items, 2)), -0.85, 0.85)
    plane[: len(CORNERS)] = CORNERS
    spaces = {}
    for name in ("behaviour", "text", "image"):
        vectors = rng.normal(size=(items + 1, WIDTH)).astype(np.float32)
        spaces[name] = Space(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(items + 1) > 0)
    names = tuple(f"{word} {row}" for row, word in enumerate(rng.choice(["harbour", "violin", "comet"], items + 1)))
    catalogue = Catalogue(
        titles=names,
        source_ids=tuple(map(str, range(items + 1))),
        code_ids=codes,
        sizes=SIZES,
        learned=len(SIZES),
        images=(None,) * (items + 1),
        categories=((),) * (items + 1),
        counts=(1000 / np.arange(1, items + 2)).astype(np.int64),
    )
    agreement = {"other": seed_stability([ids.raw_codes for ids in tokens.values()])}
    return Atlas("made", catalogue, tokens, plane.astype(np.float32), "PCA", spaces, agreement, names)
