"""A finished run as a user meets it: its scorer, its ranks, and what it recommends after a history."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file

from . import baselines, metrics
from .artifacts import load_arrays
from .config import RecommenderConfig
from .data import Sequences
from .metrics import Ranks
from .recommender import Recommender, build_recommender
from .semantic_ids import SemanticIds


def load_scorer(directory: Path) -> Recommender | baselines.Popularity | baselines.Markov | baselines.ItemKnn:
    """What scores histories, from a finished run's directory."""
    notes = json.loads((directory / "run.json").read_text())
    if notes["kind"] in baselines.COUNTING:
        return baselines.COUNTING[notes["kind"]].load(directory)
    ids = SemanticIds.load(directory / "ids.npz") if notes["kind"] == "ids" else None
    state = load_file(directory / "model.safetensors")
    settings = RecommenderConfig(**notes["config"]["recommender"])
    seen = np.append(False, pl.read_parquet(directory / "items.parquet")["training_events"].to_numpy() > 0)
    recommender = build_recommender(notes["n_items"], ids, settings, 0, state.get("features"), seen)
    recommender.model.load_state_dict(state)
    return recommender


def load_ranks(directory: Path, history: str) -> Ranks:
    """Test ranks of all users of a finished run; `history` is `kept` or `masked`."""
    return Ranks(**load_arrays(directory / f"ranks_{history}.npz"))


def recommend(directory: Path, item_ids: Sequence[str], k: int) -> pl.DataFrame:
    """The k best next items after a history, those in it left out.

    Args: directory: of a finished run. item_ids: original ids, oldest first.
    Returns: columns rank, item_id, title, score (nats where the model gives probabilities), code (the semantic ID).
    Raises: ValueError for an empty history, an unknown id, or k < 1.
    """
    items = pl.read_parquet(directory / "items.parquet")
    rows = {item: row for row, item in enumerate(items["item_id"].to_list(), start=1)}
    unknown = [item for item in item_ids if item not in rows]
    if unknown or not item_ids or k < 1:
        raise ValueError(f"want known item ids and k >= 1, got {k=}, unknown or no items: {unknown or 'none given'}")
    history = np.array([rows[item] for item in item_ids], dtype=np.int32)
    asked = Sequences(np.array([0, len(history)]), history)
    scores = metrics.mask_history(load_scorer(directory).scores(asked, np.array([0])), asked, np.array([0]))[0]
    best = scores.sort(descending=True, stable=True)  # equal scores by row, as in the ranking
    picked = best.indices[: min(k, int((scores > -torch.inf).sum()))].numpy()
    path = directory / "ids.npz"
    codes = SemanticIds.load(path).code_ids[picked] if path.exists() else None
    shown = ["-".join(map(str, code)) for code in codes] if codes is not None else [""] * len(picked)
    chosen = items[picked - 1]
    return pl.DataFrame(
        {"rank": np.arange(1, len(picked) + 1), "item_id": chosen["item_id"], "title": chosen["title"]}
        | {"score": best.values[: len(picked)].numpy(), "code": shown}
    )
