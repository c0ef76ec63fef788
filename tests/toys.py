"""Small hand-written datasets, for tests of models that learn from sequences only."""

import numpy as np
import polars as pl

from bbqrec_core import Sequences
from bbqrec_lab.datasets.reading import NamedDataset


def toy_data(sequences: list[list[int]], n_items: int) -> NamedDataset:
    """A NamedDataset with these item rows per user, oldest first, without modalities."""
    sizes = [len(sequence) for sequence in sequences]
    return NamedDataset(
        n_items=n_items,
        name="toy",
        content_hash="00000000",
        users=np.arange(len(sequences)),
        items=pl.DataFrame({"item_id": list(range(1, n_items + 1))}),
        sequences=Sequences(
            np.cumsum([0, *sizes], dtype=np.int64), np.array([i for s in sequences for i in s], dtype=np.int32)
        ),
        timestamps=np.concatenate([np.arange(size, dtype=np.int64) for size in sizes]),
        features={},
        presence={},
        codes={},
        report={},
    )
