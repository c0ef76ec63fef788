"""Small models and data for tests. All settings are explicit, so that tuned defaults change no test."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from bbqrec_core import EvaluationConfig, RecommenderConfig, SemanticIds, TokenizerConfig
from bbqrec_lab.datasets.features import scale
from bbqrec_lab.datasets.planted import PlantedConfig, write_planted
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig, VariantTokenizerConfig

PLANTED = PlantedConfig(users=23, items=24, branching=(3, 2), moods=2, length=8, features="direct", missing=0.2)
TOKENIZER = {  # all settings of stage 1; it trains within 0.1 s and has all terms switched on
    "signals": (),
    "id_signal": True,
    "specific": True,
    "specific_width": 3,
    "normalise": True,
    "levels": 2,
    "codes": 5,
    "code_width": 6,
    "hidden": 7,
    "ema_decay": 0.9,
    "revive_every": 2,
    "commitment": 0.25,
    "specific_dropout": 0.5,
    "w_codes_only": 1.0,
    "w_mi": 0.1,
    "w_cross": 0.2,
    "w_seq": 0.7,
    "temperature": 0.2,
    "mi_steps": 2,
    "uniqueness": "nearest",
    "lr": 0.01,
    "epochs": 2,
    "batch_items": 16,
    "batch_users": 12,
    "max_events": 5,
}
RECOMMENDER = {  # all settings of stage 2; it trains within 0.1 s
    "output": "codes",
    "width": 6,
    "layers": 2,
    "heads": 3,
    "depth_layers": 1,
    "dropout": 0.1,
    "reweight": True,
    "buckets": 4,
    "lag_bias": True,
    "seen_offset": True,
    "score_reweight": False,
    "score_buckets": 6,
    "score_steps": 20,
    "partners": 5,
    "prefixes": True,
    "init_from_codebook": True,
    "max_events": 5,
    "lr": 0.01,
    "weight_decay": 0.1,
    "epochs": 3,
    "min_steps": 0,
    "batch_events": 60,
    "evaluate_every": 1,
    "patience": 3,
}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Standard normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def planted_data(folder: Path, config: PlantedConfig = PLANTED) -> NamedDataset:
    """A planted dataset with text and image features, ready for training."""
    data = read_bundle(write_planted(folder / "planted-tiny", config), DataConfig())
    return replace(data, features={name: scale(x, data.presence[name]) for name, x in data.features.items()})


def tokenizer_config(**changes: object) -> TokenizerConfig:
    """Stage 1 of the core."""
    return TokenizerConfig(**(TOKENIZER | changes))


def lab_tokenizer_config(**changes: object) -> VariantTokenizerConfig:
    """Stage 1 of the laboratory: that of the core plus the loss term for even use of the codes."""
    own = {"combine": "fused", "gradient": "straight-through", "codebook_update": "ema", "w_use": 0.1}
    return VariantTokenizerConfig(**(TOKENIZER | own | changes))


def recommender_config(**changes: object) -> RecommenderConfig:
    """Stage 2 of the core."""
    return RecommenderConfig(**(RECOMMENDER | changes))


def lab_recommender_config(**changes: object) -> VariantRecommenderConfig:
    """Stage 2 of the laboratory; its additional switches have the values that correspond to the core."""
    own = {"loss": "ce", "negatives": 7, "granularity": "item", "features": False, "block": "plain"}
    own |= {"similarity": "quantized", "similarity_form": "buckets", "bucket_edges": "quantile", "channels": "all"}
    own |= {"seen_offset": changes.get("loss", "ce") == "ce"}  # other losses have no such offset
    return VariantRecommenderConfig(**(RECOMMENDER | own | changes))


def ids_config(**changes: object) -> IdsConfig:
    """The source of IDs; by default they are learned."""
    return IdsConfig(**({"source": "learned"} | changes))


def run_config(seed: int, evaluation: EvaluationConfig, **changes: object) -> Config:
    """A run of one epoch per stage. Names with prefix `r_` change stage 2, other names the ID source or stage 1."""
    where = {spec.name for spec in fields(IdsConfig)}
    recommender = {name.removeprefix("r_"): value for name, value in changes.items() if name.startswith("r_")}
    tokenizer = {name: changes[name] for name in changes if not name.startswith("r_") and name not in where}
    return Config(
        "smoke",
        seed,
        DataConfig(),
        ids_config(**{name: value for name, value in changes.items() if name in where}),
        lab_tokenizer_config(**({"epochs": 1} | tokenizer)),
        lab_recommender_config(**({"epochs": 1} | recommender)),
        evaluation,
    )


def semantic_ids(n_items: int, sizes: tuple[int, ...], *, width: int = 5, seed: int = 0) -> SemanticIds:
    """Random IDs of N items with three signals (text, image, id), about a fifth of them missing.

    Positions with the size of the first one count as learned, the others as added by a repair.
    """
    rng = np.random.default_rng(seed)
    rows, signals, codes = n_items + 1, ("text", "image", "id"), sizes[0]
    levels = sum(size == codes for size in sizes)
    table = np.stack([rng.integers(0, size, rows) for size in sizes], axis=1)
    present = rng.random((rows, len(signals))) < 0.8
    present[0] = False
    signal_codes = rng.integers(0, codes, (rows, len(signals), levels))
    codebook = rng.normal(size=(levels, codes, width)).astype(np.float32)
    vectors = codebook[np.arange(levels), signal_codes].sum(-2)
    return SemanticIds(table, sizes, levels, signals, signal_codes, vectors, present, codebook, table[:, :levels])


def same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts have the same names and bitwise equal values."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
