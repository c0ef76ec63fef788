"""Every row of the tables as plain data: rivals, controls and ablations, and which of them a preset needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bbqrec_lab.experiments.presets import Config, with_overrides


@dataclass(frozen=True)
class Variant:
    """One row of the tables.

    Args: group: `main`, `rival`, `control` or `ablation`. note: one line. kind: what is trained: `ids` (tokenizer, then
        recommender), `items` (SASRec), `markov`, `knn` or `popularity`. overrides: settings that make it what it is, by
        `stage.field`; they win over a user's.
    """

    group: Literal["main", "rival", "control", "ablation"]
    note: str
    kind: Literal["ids", "items", "markov", "knn", "popularity"] = "ids"
    overrides: dict[str, object] = field(default_factory=dict)


PLAIN_RQVAE: dict[str, object] = {  # one signal, reconstruction and commitment alone, TIGER's repair, plain attention
    "tokenizer.id_signal": False,
    "tokenizer.specific": False,
    "tokenizer.normalise": False,
    "tokenizer.w_mi": 0.0,
    "tokenizer.w_cross": 0.0,
    "tokenizer.w_seq": 0.0,
    "tokenizer.uniqueness": "extra",
    "recommender.reweight": False,
    "recommender.init_from_codebook": False,
}
VARIANTS: dict[str, Variant] = {
    "bbqrec": Variant("main", "the method: behaviour-bound shared codebook, similarity reweighting"),
    "popularity": Variant("rival", "training events per item", "popularity"),
    "item-knn": Variant("rival", "item-item cosine, late events counting more, tuned on validation", "knn"),
    "markov": Variant("rival", "three-step Markov chain, tuned on validation", "markov"),
    "sasrec": Variant(
        "rival", "SASRec with full cross-entropy, on the same blocks", "items", {"recommender.output": "items"}
    ),
    "sasrec-bce": Variant(
        "rival",
        "SASRec as published, one negative a target (the weak classic)",
        "items",
        {"recommender.output": "items", "recommender.loss": "bce"},
    ),
    "sasrec-features": Variant(
        "rival",
        "SASRec with modality features added to its items",
        "items",
        {"recommender.output": "items", "recommender.features": True},
    ),
    "esasrec": Variant(
        "rival",
        "eSASRec: sampled softmax and LiGR blocks",
        "items",
        {"recommender.output": "items", "recommender.loss": "sampled", "recommender.block": "ligr"},
    ),
    "sasrec-codes": Variant(
        "ablation",
        "SASRec's softmax over items instead of generation; items keep codes and reweighting",
        overrides={"recommender.output": "items"},
    ),
    "hybrid": Variant(
        "rival",
        "generated IDs scored once more by the dense item softmax",
        overrides={"recommender.output": "both"},
    ),
    "tiger": Variant(
        "rival",
        "plain RQ-VAE on text alone (TIGER's tokenizer), same recommender without reweighting",
        overrides=PLAIN_RQVAE | {"tokenizer.signals": ["text"]},
    ),
    "tiger-joined": Variant(
        "rival",
        "TIGER's tokenizer on the features of all modalities side by side",
        overrides=PLAIN_RQVAE | {"tokenizer.joined": True},
    ),
    "mql4grec": Variant(
        "rival",
        "a codebook for each modality, codes joined (MQL4GRec's idea), one code a signal",
        overrides=PLAIN_RQVAE
        | {"tokenizer.shared_codebook": False, "tokenizer.combine": "concat", "tokenizer.levels": 1},
    ),
    "letter": Variant(
        "rival",
        "RQ-VAE pulled towards SASRec's item embeddings, codes used evenly (after LETTER)",
        overrides=PLAIN_RQVAE | {"tokenizer.joined": True, "tokenizer.w_align": 1.0, "tokenizer.w_use": 0.1},
    ),
    "random-ids": Variant(
        "control", "the same recommender on random IDs of the same shape", overrides={"ids.source": "random"}
    ),
    "rq-kmeans": Variant(
        "control", "residual k-means of the joined features, nothing learned", overrides={"ids.source": "kmeans"}
    ),
    "rq-sasrec": Variant("control", "residual k-means of SASRec's item embeddings", overrides={"ids.source": "sasrec"}),
    "published-codes": Variant(
        "control",
        "codes that came with the bundle (rq-kmeans where none did)",
        overrides={"ids.source": "published"},
    ),
    "no-reweighting": Variant("ablation", "plain self-attention", overrides={"recommender.reweight": False}),
    "similarity-signals": Variant(
        "ablation",
        "similarity of the behaviour signals before quantization",
        overrides={"recommender.similarity": "signals"},
    ),
    "similarity-features": Variant(
        "ablation", "similarity of the frozen features", overrides={"recommender.similarity": "features"}
    ),
    "similarity-linear": Variant(
        "ablation", "offsets linear in the similarity", overrides={"recommender.similarity_form": "linear"}
    ),
    "uniform-buckets": Variant("ablation", "buckets of equal width", overrides={"recommender.bucket_edges": "uniform"}),
    "same-channels": Variant(
        "ablation", "signals compared with their own kind alone", overrides={"recommender.channels": "same"}
    ),
    "no-backoff": Variant(
        "ablation",
        "items that training never saw score as the head has them",
        overrides={"recommender.unseen": "model"},
    ),
    "no-prefixes": Variant(
        "ablation", "codes have one vector each, whatever stands before them", overrides={"recommender.prefixes": False}
    ),
    "tables-from-scratch": Variant(
        "ablation", "code vectors of stage 2 start at random", overrides={"recommender.init_from_codebook": False}
    ),
    "no-sequence": Variant("ablation", "without sequence-to-item contrast", overrides={"tokenizer.w_seq": 0.0}),
    "no-cross-modal": Variant("ablation", "without contrast across signals", overrides={"tokenizer.w_cross": 0.0}),
    "no-club": Variant("ablation", "without the CLUB penalty", overrides={"tokenizer.w_mi": 0.0}),
    "no-id-signal": Variant("ablation", "modalities alone", overrides={"tokenizer.id_signal": False}),
    "no-codes-only": Variant(
        "ablation", "no reconstruction from the codes alone", overrides={"tokenizer.w_codes_only": 0.0}
    ),
    "single-modality": Variant(
        "ablation",
        "text and the ID signal alone",
        overrides={"tokenizer.signals": ["text"]},
    ),
    "own-codebooks": Variant(
        "ablation", "a codebook for each signal instead of one", overrides={"tokenizer.shared_codebook": False}
    ),
    "concat": Variant(
        "ablation",
        "codes of the signals one after another, one each",
        overrides={"tokenizer.combine": "concat", "tokenizer.levels": 1},
    ),
    "chain": Variant(
        "ablation",
        "each signal codes what those before left over, one code each",
        overrides={"tokenizer.combine": "chain", "tokenizer.levels": 1},
    ),
    "rotation": Variant(
        "ablation", "rotation trick instead of straight-through", overrides={"tokenizer.gradient": "rotation"}
    ),
    "gradient-codebook": Variant(
        "ablation",
        "codebook by gradient, not by moving averages",
        overrides={"tokenizer.codebook_update": "gradient"},
    ),
    "usage-balance": Variant("ablation", "codes pulled to even use", overrides={"tokenizer.w_use": 0.1}),
    "extra-code": Variant(
        "ablation", "TIGER's extra code parts colliding items", overrides={"tokenizer.uniqueness": "extra"}
    ),
    "sinkhorn": Variant(
        "ablation", "transport parts colliding items", overrides={"tokenizer.uniqueness": "none", "ids.transport": True}
    ),
    "no-repair": Variant("ablation", "colliding items stay together", overrides={"tokenizer.uniqueness": "none"}),
    "code-granularity": Variant(
        "ablation", "a position for each code (as TIGER), ranked by beam", overrides={"recommender.granularity": "code"}
    ),
}
ONCE = ("popularity", "item-knn", "markov")  # nothing in them depends on the seed
QUICK = (
    *("bbqrec", "popularity", "item-knn", "markov", "sasrec", "sasrec-codes", "tiger", "random-ids"),
    *("no-reweighting", "no-sequence", "no-cross-modal", "no-club", "no-id-signal"),
)


def plan(preset: str, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(variant, seed) of every row of a preset's tables: all in `full`, else `QUICK`, ablations with one seed."""
    names = [name for name in VARIANTS if preset == "full" or name in QUICK]
    single = [name for name in names if name in ONCE or (preset != "full" and VARIANTS[name].group == "ablation")]
    return [(name, seed) for name in names for seed in (seeds[:1] if name in single else seeds)]


def variant_config(variant: str, config: Config) -> Config:
    """`config` as a named variant changes it.

    Raises: ValueError for an unknown name.
    """
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: there are {', '.join(VARIANTS)}")
    return with_overrides(config, VARIANTS[variant].overrides)
