"""Sizes are curves, not switches: one size of the method varied at a time, everything else left alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from .artifacts import Store
from .config import Config, with_overrides
from .data import Dataset
from .experiments import run_variant

SIZES = {  # symbol of method.md -> (setting, what it is)
    "S": ("recommender.buckets", "similarity buckets S"),
    "L": ("tokenizer.levels", "levels L"),
    "K": ("tokenizer.codes", "codes a level K"),
    "E": ("tokenizer.code_width", "code width E"),
    "D": ("recommender.width", "model width D"),
    "T": ("recommender.history", "history T"),
}


def size_values(config: Config, factors: Sequence[float] = (0.5, 2.0)) -> dict[str, list[int]]:
    """Values of each size around those of `config`: times each factor (L: one less and one more), itself among them.

    Choice: an ID has few levels, and twice as many are another kind of ID.
    """
    found = {}
    for symbol, (setting, _) in SIZES.items():
        part, name = setting.split(".")
        own = getattr(getattr(config, part), name)
        around = (own - 1, own + 1) if symbol == "L" else (round(own * factor) for factor in factors)
        found[symbol] = sorted({own, *(value for value in around if value >= 1)})
    return found


def size_curves(
    data: Dataset, config: Config, values: Mapping[str, Sequence[int]], seeds: Sequence[int], store: Store
) -> pl.DataFrame:
    """NDCG@10 of `bbqrec` on validation and test as one size varies at a time; rows are kept in the store.

    Args: values: by symbol of `SIZES`, those to try; the value that `config` has is one row for all curves.
    Returns: columns size, value, own (whether `config` has it), seed, valid (history kept), kept, masked (test).
    """
    rows = []
    for symbol, tried in values.items():
        part, name = SIZES[symbol][0].split(".")
        own = getattr(getattr(config, part), name)
        for value in tried:
            for seed in seeds:
                chosen = with_overrides(replace(config, seed=seed), {SIZES[symbol][0]: value})
                result = run_variant(data, "bbqrec", chosen, store)
                test = result.rows.filter(
                    (pl.col("segment") == "all") & pl.col("metric").str.starts_with("ndcg@10")
                ).select("history", "value")
                rows.append(
                    {"size": symbol, "value": value, "own": value == own, "seed": seed}
                    | {"valid": result.cost["valid_ndcg@10"].item()}
                    | dict(test.iter_rows())
                )
    return pl.DataFrame(rows)
