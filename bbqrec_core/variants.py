"""Every row of the tables as plain data: rivals, controls and ablations, and which of them a preset needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .config import Config, with_overrides


@dataclass(frozen=True)
class Variant:
    """One row of the tables.

    Args: group: `main`, `rival`, `control` or `ablation`. note: one line. kind: what is trained: `ids` (tokenizer, then
        recommender), `items` (SASRec), `markov` or `popularity`. overrides: settings that make it what it is, by
        `stage.field`; they win over a user's.
    """

    group: Literal["main", "rival", "control", "ablation"]
    note: str
    kind: Literal["ids", "items", "markov", "popularity"] = "ids"
    overrides: dict[str, object] = field(default_factory=dict)


VARIANTS: dict[str, Variant] = {
    "bbqrec": Variant("main", "the method: behaviour-bound shared codebook, similarity reweighting"),
    "popularity": Variant("rival", "training events per item", "popularity"),
    "markov": Variant("rival", "three-step Markov chain, tuned on validation", "markov"),
    "sasrec": Variant(
        "rival", "SASRec with full cross-entropy, on the same blocks", "items", {"recommender.output": "items"}
    ),
    "tiger": Variant(
        "rival",
        "plain RQ-VAE on text alone (TIGER's tokenizer), same recommender without reweighting",
        overrides={
            "tokenizer.signals": ["text"],
            "tokenizer.id_signal": False,
            "tokenizer.specific": False,
            "tokenizer.normalise": False,
            "tokenizer.w_mi": 0.0,
            "tokenizer.w_cross": 0.0,
            "tokenizer.w_seq": 0.0,
            "tokenizer.uniqueness": "extra",
            "recommender.reweight": False,
            "recommender.init_from_codebook": False,
        },
    ),
    "random-ids": Variant(
        "control", "the same recommender on random IDs of the same shape", overrides={"tokenizer.source": "random"}
    ),
    "no-reweighting": Variant("ablation", "plain self-attention", overrides={"recommender.reweight": False}),
    "no-sequence": Variant("ablation", "without sequence-to-item contrast", overrides={"tokenizer.w_seq": 0.0}),
    "no-cross-modal": Variant("ablation", "without contrast across signals", overrides={"tokenizer.w_cross": 0.0}),
    "no-club": Variant("ablation", "without the CLUB penalty", overrides={"tokenizer.w_mi": 0.0}),
    "no-id-signal": Variant("ablation", "modalities alone", overrides={"tokenizer.id_signal": False}),
    "concat": Variant("ablation", "codes of all signals one after another", overrides={"tokenizer.combine": "concat"}),
}
ONCE = ("popularity", "markov")  # nothing in them depends on the seed
QUICK_ABLATIONS = ("no-reweighting", "no-sequence", "no-cross-modal", "no-club", "no-id-signal")


def plan(preset: str, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(variant, seed) of every row that a preset's tables need; ablations run once except in `full`."""
    ablations = [name for name, variant in VARIANTS.items() if variant.group == "ablation"]
    if preset != "full":
        ablations = list(QUICK_ABLATIONS)
    main = [name for name, variant in VARIANTS.items() if variant.group != "ablation"]
    rows = [(name, seed) for name in main for seed in (seeds[:1] if name in ONCE else seeds)]
    return rows + [(name, seed) for name in ablations for seed in (seeds if preset == "full" else seeds[:1])]


def variant_config(variant: str, config: Config) -> Config:
    """`config` as a named variant changes it.

    Raises: ValueError for an unknown name.
    """
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
    return with_overrides(config, VARIANTS[variant].overrides)
