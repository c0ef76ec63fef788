"""All table rows as plain data: baselines, controls and ablations, and which of them each preset runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bbqrec_lab.baselines.content_knn import ContentKnn
from bbqrec_lab.baselines.counting import Ease, ItemKnn, Markov, Popularity
from bbqrec_lab.experiments.presets import (
    PARTS,
    Config,
    by_full_name,
    make_config,
    setting_value,
    with_overrides,
    with_recipe,
)
from bbqrec_lab.suggestions import did_you_mean

COUNTING = {"popularity": Popularity, "markov": Markov, "knn": ItemKnn, "content": ContentKnn, "ease": Ease}  # by kind

COUNTED = {"popularity": "counts of events", "content": "features"}  # by kind; the others count pairs


@dataclass(frozen=True)
class Variant:
    """One row of the tables.

    Args: group: `main`, `baseline`, `control` or `ablation`. note: one line. kind: what is trained: `ids` (tokenizer,
        then recommender), `items` (a sequence model without IDs), or the key of a class in `COUNTING`. overrides: the
        settings that define the variant, by `stage.field`; they take precedence over the user's overrides.
    """

    group: Literal["main", "baseline", "control", "ablation"]
    note: str
    kind: str = "ids"
    overrides: dict[str, object] = field(default_factory=dict)


METHOD: dict[str, object] = {  # generated IDs and item vectors with features, whose scores are added
    "recommender.output": "both",
    "recommender.features": True,
}
PLAIN_RQVAE: dict[
    str, object
] = {  # no ID signal; only reconstruction and commitment; TIGER's repair; neither reweighting
    "tokenizer.id_signal": False,
    "tokenizer.specific": False,
    "tokenizer.normalise": False,
    "tokenizer.w_mi": 0.0,
    "tokenizer.w_cross": 0.0,
    "tokenizer.w_seq": 0.0,
    "tokenizer.uniqueness": "extra",
    "recommender.reweight": False,
    "recommender.score_reweight": False,
    "recommender.init_from_codebook": False,
}
PUBLISHED: dict[str, object] = {  # a sequence model without IDs in its published form
    "recommender.output": "items",
    "recommender.lag_bias": False,
    "recommender.seen_offset": False,
    "recommender.score_reweight": False,
}
VARIANTS: dict[str, Variant] = {
    "bbqrec": Variant(
        "main",
        "the method: behaviour-bound IDs and item vectors, attention and score reweighting",
        overrides=METHOD,
    ),
    "generation": Variant("ablation", "without item vectors: the IDs alone are read and generated"),
    "popularity": Variant("baseline", "training events per item", "popularity"),
    "item-knn": Variant("baseline", "item-item cosine, recent events weigh more, tuned on validation", "knn"),
    "content-knn": Variant(
        "baseline",
        "item-item cosine of the frozen features, needs no events of an item, tuned on validation",
        "content",
    ),
    "ease": Variant(
        "baseline", "EASE, closed-form linear model, recent events weigh more, tuned on validation", "ease"
    ),
    "markov": Variant("baseline", "three-step Markov chain, tuned on validation", "markov"),
    "sasrec": Variant(
        "baseline",
        "SASRec with full cross-entropy and the same blocks",
        "items",
        PUBLISHED  # without IDs these two have no effect: rows that need SASRec's embeddings find the same stored run
        | {"recommender.reweight": False, "recommender.init_from_codebook": False},
    ),
    "sasrec-bce": Variant(
        "baseline",
        "SASRec as published, one negative per target",
        "items",
        PUBLISHED | {"recommender.loss": "bce"},
    ),
    "gsasrec": Variant(
        "baseline",
        "gSASRec: many negatives per target and a calibrated binary cross-entropy",
        "items",
        PUBLISHED | {"recommender.loss": "gbce"},
    ),
    "sasrec-features": Variant(
        "baseline",
        "SASRec with modality features added to the item embeddings",
        "items",
        PUBLISHED | {"recommender.features": True},
    ),
    "sasrec-strong": Variant(
        "baseline",
        "SASRec with all that needs no ID: features, lag bias, offset of seen items, score reweighting",
        "items",
        {"recommender.output": "items", "recommender.features": True},
    ),
    "esasrec": Variant(
        "baseline",
        "eSASRec: sampled softmax and LiGR blocks",
        "items",
        PUBLISHED | {"recommender.loss": "sampled", "recommender.block": "ligr"},
    ),
    "bsarec": Variant(
        "baseline",
        "BSARec: a frequency filter beside the attention, full cross-entropy",
        "items",
        PUBLISHED | {"recommender.block": "bsarec"},
    ),
    "hstu": Variant(
        "baseline",
        "HSTU: pointwise attention with gates, reads the times of events, full cross-entropy",
        "items",
        PUBLISHED | {"recommender.block": "hstu"},
    ),
    "sasrec-codes": Variant(
        "ablation",
        "softmax over items (as SASRec) instead of generation; reweighting by codes stays",
        overrides=METHOD | {"recommender.output": "items"},
    ),
    "tiger": Variant(
        "baseline",
        "plain RQ-VAE on text only (TIGER's tokenizer); IDs alone are read and generated, no reweighting",
        overrides=PLAIN_RQVAE | {"tokenizer.signals": ["text"]},
    ),
    "tiger-joined": Variant(
        "baseline",
        "TIGER's tokenizer on the concatenated features of all modalities",
        overrides=PLAIN_RQVAE | {"tokenizer.joined": True},
    ),
    "mql4grec": Variant(
        "baseline",
        "one codebook per modality, codes concatenated (as MQL4GRec), one code per signal",
        overrides=PLAIN_RQVAE
        | {"tokenizer.shared_codebook": False, "tokenizer.combine": "concat", "tokenizer.levels": 1},
    ),
    "letter": Variant(
        "baseline",
        "RQ-VAE aligned with SASRec's item embeddings, balanced use of codes (as LETTER)",
        overrides=PLAIN_RQVAE | {"tokenizer.joined": True, "tokenizer.w_align": 1.0, "tokenizer.w_use": 0.1},
    ),
    "random-ids": Variant(
        "control", "the same recommender on random IDs of the same shape", overrides=METHOD | {"ids.source": "random"}
    ),
    "random-generation": Variant(
        "control", "random IDs without item vectors, the null test of `generation`", overrides={"ids.source": "random"}
    ),
    "rq-kmeans": Variant(
        "control", "residual k-means of the joined features, no training", overrides=METHOD | {"ids.source": "kmeans"}
    ),
    "rq-sasrec": Variant(
        "control", "residual k-means of SASRec's item embeddings", overrides=METHOD | {"ids.source": "sasrec"}
    ),
    "published-codes": Variant(
        "control",
        "codes supplied with the bundle (rq-kmeans if there are none)",
        overrides=METHOD | {"ids.source": "published"},
    ),
    "no-reweighting": Variant("ablation", "plain self-attention", overrides=METHOD | {"recommender.reweight": False}),
    "no-score-reweighting": Variant(
        "ablation", "scores without offsets by co-occurrence", overrides=METHOD | {"recommender.score_reweight": False}
    ),
    "no-seen-offset": Variant(
        "ablation",
        "no offset of seen items, and so no score reweighting",
        overrides=METHOD | {"recommender.seen_offset": False, "recommender.score_reweight": False},
    ),
    "no-lag-bias": Variant(
        "ablation", "attention without lag bias", overrides=METHOD | {"recommender.lag_bias": False}
    ),
    "similarity-signals": Variant(
        "ablation",
        "similarity from the behaviour signals before quantization",
        overrides=METHOD | {"recommender.similarity": "signals"},
    ),
    "similarity-features": Variant(
        "ablation", "similarity from the frozen features", overrides=METHOD | {"recommender.similarity": "features"}
    ),
    "similarity-linear": Variant(
        "ablation", "offsets linear in the similarity", overrides=METHOD | {"recommender.similarity_form": "linear"}
    ),
    "uniform-buckets": Variant(
        "ablation", "buckets of equal width", overrides=METHOD | {"recommender.bucket_edges": "uniform"}
    ),
    "same-channels": Variant(
        "ablation", "only signals of the same kind are compared", overrides=METHOD | {"recommender.channels": "same"}
    ),
    "no-backoff": Variant(
        "ablation",
        "items unseen in training keep the scores of the code head",
        overrides=METHOD | {"recommender.unseen": "model"},
    ),
    "no-prefixes": Variant(
        "ablation", "one vector per code, independent of its prefix", overrides=METHOD | {"recommender.prefixes": False}
    ),
    "tables-from-scratch": Variant(
        "ablation",
        "random initial code vectors in stage 2",
        overrides=METHOD | {"recommender.init_from_codebook": False},
    ),
    "no-sequence": Variant(
        "ablation", "without the sequence-to-item contrastive loss", overrides=METHOD | {"tokenizer.w_seq": 0.0}
    ),
    "no-cross-modal": Variant(
        "ablation", "without the contrastive loss across signals", overrides=METHOD | {"tokenizer.w_cross": 0.0}
    ),
    "no-club": Variant("ablation", "without the CLUB penalty", overrides=METHOD | {"tokenizer.w_mi": 0.0}),
    "no-id-signal": Variant(
        "ablation", "only the modalities, no ID signal", overrides=METHOD | {"tokenizer.id_signal": False}
    ),
    "no-codes-only": Variant(
        "ablation", "without reconstruction from the codes only", overrides=METHOD | {"tokenizer.w_codes_only": 0.0}
    ),
    "single-modality": Variant(
        "ablation",
        "only text and the ID signal",
        overrides=METHOD | {"tokenizer.signals": ["text"]},
    ),
    "own-codebooks": Variant(
        "ablation",
        "one codebook per signal instead of a shared one",
        overrides=METHOD | {"tokenizer.shared_codebook": False},
    ),
    "concat": Variant(
        "ablation",
        "codes of the signals concatenated, one code per signal",
        overrides=METHOD | {"tokenizer.combine": "concat", "tokenizer.levels": 1},
    ),
    "chain": Variant(
        "ablation",
        "each signal quantizes the residual of the signals before it, one code per signal",
        overrides=METHOD | {"tokenizer.combine": "chain", "tokenizer.levels": 1},
    ),
    "rotation": Variant(
        "ablation", "rotation trick instead of straight-through", overrides=METHOD | {"tokenizer.gradient": "rotation"}
    ),
    "gradient-codebook": Variant(
        "ablation",
        "codebook trained by gradient instead of moving averages",
        overrides=METHOD | {"tokenizer.codebook_update": "gradient"},
    ),
    "usage-balance": Variant(
        "ablation", "a loss that balances the use of codes", overrides=METHOD | {"tokenizer.w_use": 0.1}
    ),
    "extra-code": Variant(
        "ablation", "collisions resolved by TIGER's extra code", overrides=METHOD | {"tokenizer.uniqueness": "extra"}
    ),
    "sinkhorn": Variant(
        "ablation",
        "collisions resolved by optimal transport",
        overrides=METHOD | {"tokenizer.uniqueness": "none", "ids.transport": True},
    ),
    "no-repair": Variant(
        "ablation", "collisions are not resolved", overrides=METHOD | {"tokenizer.uniqueness": "none"}
    ),
    "code-granularity": Variant(
        "ablation",
        "one position per code (as TIGER), ranked by beam search",
        overrides={"recommender.granularity": "code"},
    ),
}
ONCE = tuple(name for name, variant in VARIANTS.items() if variant.kind in COUNTING)  # they do not depend on the seed
QUICK = (
    *("bbqrec", "generation", "popularity", "item-knn", "markov", "sasrec", "tiger", "random-ids"),
    *("no-reweighting", "no-score-reweighting", "no-sequence", "no-cross-modal", "no-club", "no-id-signal"),
)
FIRST = (  # the rows of `full` that every question of the tables needs; the others run with one seed
    *("bbqrec", "generation", "popularity", "item-knn", "content-knn", "ease", "markov", "sasrec", "sasrec-strong"),
    *("hstu", "tiger", "letter", "random-ids", "no-reweighting", "no-score-reweighting"),
)


READS = {"ids": PARTS, "items": ("data", "recommender", "evaluation")} | dict.fromkeys(COUNTING, ("data", "evaluation"))
UNIQUENESS = "tokenizer.uniqueness"  # where a variant sets it, it is asked for, as if the user had given it
NEEDS: dict[str, tuple[str, tuple]] = {  # setting: the setting that switches it on, and with which values
    "ids.ids_file": ("ids.source", ("file",)),
    "tokenizer.specific_width": ("tokenizer.specific", (True,)),
    "tokenizer.specific_dropout": ("tokenizer.specific", (True,)),
    "recommender.w_codes": ("recommender.output", ("both",)),
    "recommender.negatives": ("recommender.loss", ("gbce", "sampled")),
    "recommender.buckets": ("recommender.reweight", (True,)),
    "recommender.score_buckets": ("recommender.score_reweight", (True,)),
    "recommender.score_steps": ("recommender.score_reweight", (True,)),
}
LEAVE_OUT = "leave it out, or choose another variant"


def reads_features(variant: str, config: Config) -> bool:
    """Whether a row reads the features of items; the others need no encoder.

    Raises: ValueError for an unknown name.
    """
    settings, kind = variant_config(variant, config).recommender, VARIANTS[variant].kind
    return kind in ("ids", "content") or (kind == "items" and (settings.features or settings.score_reweight))


def plan(preset: str, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """(variant, seed) of each row of a preset's tables, `QUICK` or, for `full`, all with those of `FIRST` first.

    Rows have all seeds in `QUICK`, except ablations, and in `FIRST`; the other rows, and those that count, have one.
    """
    if preset == "full":
        names, several = list(dict.fromkeys((*FIRST, *VARIANTS))), FIRST
    else:
        names = [name for name in VARIANTS if name in QUICK]
        several = [name for name in names if VARIANTS[name].group != "ablation"]
    return [(name, s) for name in names for s in (seeds if name in several and name not in ONCE else seeds[:1])]


def trained_as(variant: str) -> str:
    """The row whose recipe a row has: `bbqrec` or `generation` if it trains the model of one of them, else itself."""
    found = VARIANTS[variant]
    if found.kind != "ids":
        return variant
    return "bbqrec" if found.overrides.keys() >= METHOD.keys() else "generation"


def holds(variant: str) -> list[str]:
    """What the model of a row knows of items, beside its own weights: for the list of rows."""
    found, settings = VARIANTS[variant], variant_config(variant, make_config()).recommender
    if found.kind in COUNTING:
        return [COUNTED.get(found.kind, "counts of pairs")]
    parts = {
        "semantic IDs": found.kind == "ids",
        "item vectors": settings.output != "codes",
        "features": settings.features,
        "counts of pairs": settings.score_reweight,
        "times of events": settings.block == "hstu",
    }
    return [name for name, there in parts.items() if there]


def recipe_source(variant: str) -> str:
    """Where the settings of training of a row come from (docs/results.md has the trials)."""
    kind, row = VARIANTS[variant].kind, trained_as(variant)
    if kind in COUNTING:
        return "" if kind == "popularity" else "tuned on validation, in each run"
    return "trials of this row" if row == variant else f"trials of {row}"


def find_variant(name: str) -> Variant:
    """The variant of a name. Raises: ValueError that names the most similar one, and all."""
    if name not in VARIANTS:
        raise ValueError(f"no variant {name!r}: {did_you_mean(name, VARIANTS)}choose one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def variant_config(variant: str, config: Config, events: float | None = None) -> Config:
    """`config` with the overrides of a named variant, and with its recipe for data of `events` per user, if given.

    Raises: ValueError for an unknown name.
    """
    found = find_variant(variant)
    trained = config if events is None else with_recipe(config, trained_as(variant), events)
    chosen = with_overrides(trained, found.overrides)
    return replace(chosen, given=(*config.given, UNIQUENESS)) if UNIQUENESS in found.overrides else chosen


def fit_config(
    variant: str, preset: str = "quick", seed: int = 0, overrides: Mapping[str, object] | None = None
) -> Config:
    """The configuration of one row, where every override has an effect.

    Raises: ValueError as `make_config`, for an unknown variant, and for an override that the variant sets to another
        value, that its kind of model does not read, or that another setting switches off.
    """
    found, given = find_variant(variant), by_full_name(overrides or {})
    for name, value in given.items():
        part, fixed = name.partition(".")[0], found.overrides.get(name, value)
        if value != (tuple(fixed) if isinstance(fixed, list) else fixed):
            raise ValueError(f"variant {variant!r} sets {name}={fixed}, so it cannot be {value}: {LEAVE_OUT}")
        if part not in READS[found.kind]:
            raise ValueError(f"variant {variant!r} does not read {name}: {LEAVE_OUT}")
    config = make_config(preset, seed, given, found.overrides)
    for name in given:
        switch, on = NEEDS.get(name, (name, ()))
        state = setting_value(config, switch)
        if on and state not in on:
            wanted = " or ".join(map(str, on))
            raise ValueError(f"{name} has no effect with {switch}={state}: leave it out, or set {switch}={wanted}")
    return config
