"""Every setting of a run as frozen dataclasses, the three presets, and strict overrides by field name."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints


class _Checked:
    """Refuse values of the wrong type, outside a Literal, or below the field's stated minimum."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for spec in fields(self):
            value = getattr(self, spec.name)
            object.__setattr__(self, spec.name, _checked(spec.name, value, hints[spec.name]))
            low, below = spec.metadata.get("low"), spec.metadata.get("below", math.inf)
            if low is not None and not low <= getattr(self, spec.name) < below:  # refuses NaN and infinity too
                top = f" and below {below:g}" if hints[spec.name] is float else ""
                raise ValueError(f"{spec.name} must be at least {low}{top}, got {value!r}")


def _checked(name: str, value: object, hint: object) -> object:
    """`value` as `hint` wants it (lists become tuples, ints floats), or a ValueError that says what is allowed."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(map(str, get_args(hint)))}, got {value!r}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{name} must be a list of names, got {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if dataclasses.is_dataclass(hint):
        return value
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, got {value!r}")
    return value


def _at_least(default: object, low: float, below: float = math.inf) -> object:
    return field(default=default, metadata={"low": low, "below": below})


@dataclass(frozen=True)
class DataConfig(_Checked):
    """What is read and how it is split.

    Args: split_seed: fixes time ties, item permutation and evaluation samples, the same for all models and seeds.
        time_ties: `shuffle` (seeded) or `file` order among events of one user at one time.
        k_core: drop users and items with fewer events until none is left; 0 keeps all.
        modalities: names to use; empty uses every one that the bundle has.
        cold_items: share of items, drawn by split_seed, that no training sees: new items, known by content alone.
        posters: for `ml-100k` and `ml-1m`: a folder of pictures, or `get`; empty leaves pictures out.
    """

    split_seed: int = _at_least(0, 0)
    time_ties: Literal["shuffle", "file"] = "shuffle"
    k_core: int = _at_least(0, 0)
    modalities: tuple[str, ...] = ()
    cold_items: float = _at_least(0.0, 0.0, 1.0)
    posters: str = ""


@dataclass(frozen=True)
class TokenizerConfig(_Checked):
    """Stage 1 (method.md): encoders, shared residual codebook, losses, uniqueness repair, training.

    Args: source: `learned` codes; or, as controls of the same shape, `random` ones, RQ-k-means of the joined features
            (`kmeans`: at unit length, on E leading axes) or of a SASRec's item embeddings (`sasrec`), the codes that a
            bundle has `published`, or IDs from a `file` (`ids_file`: parquet or index.json, see `exchange`).
        signals: modalities that enter; empty is all. A named one that the data lack is replaced by the first they have.
        joined: lay the features of all modalities side by side, as one signal. levels, codes, code_width: L, K, E.
        specific, specific_width: whether modalities keep a part that behaviour need not explain, and its width.
        shared_codebook: one codebook for all signals, or one for each.
        combine: how the signals become one ID: `fused` quantizes their gated mean, `concat` joins their codes, `chain`
            joins them too, each signal quantizing what the signals before it left over.
        gradient, codebook_update: estimator through the quantizer; how codebooks learn.
        w_*: loss weights, see method.md; `w_codes_only` weighs reconstruction from the codes alone.
        w_align: pull of the items' vectors towards a SASRec's item embeddings (LETTER's collaborative alignment).
        uniqueness: repair of colliding IDs: `none`, TIGER's `extra` code, `nearest` free last code, or `sinkhorn`.
        batch_items, batch_users, history: items for reconstruction, histories for the sequence term, their length.
        epoch_steps: the most steps an epoch may take, drawn anew each time; 0 takes all.
    """

    source: Literal["learned", "random", "kmeans", "sasrec", "published", "file"] = "learned"
    ids_file: str = ""
    signals: tuple[str, ...] = ()
    joined: bool = False
    id_signal: bool = True
    specific: bool = True
    specific_width: int = _at_least(8, 1)
    normalise: bool = True
    levels: int = _at_least(3, 1)
    codes: int = _at_least(128, 2)
    code_width: int = _at_least(64, 2)
    hidden: int = _at_least(128, 1)
    shared_codebook: bool = True
    combine: Literal["fused", "concat", "chain"] = "fused"
    gradient: Literal["straight-through", "rotation"] = "straight-through"
    codebook_update: Literal["ema", "gradient"] = "ema"
    ema_decay: float = _at_least(0.95, 0.0, 1.0)
    revive_every: int = _at_least(50, 0)
    commitment: float = _at_least(0.25, 0.0)
    specific_dropout: float = _at_least(0.5, 0.0)
    w_codes_only: float = _at_least(1.0, 0.0)
    w_mi: float = _at_least(0.05, 0.0)
    w_cross: float = _at_least(0.02, 0.0)
    w_seq: float = _at_least(1.0, 0.0)
    w_use: float = _at_least(0.0, 0.0)
    w_align: float = _at_least(0.0, 0.0)
    temperature: float = _at_least(0.1, 1e-3)
    mi_steps: int = _at_least(3, 1)
    uniqueness: Literal["none", "extra", "nearest", "sinkhorn"] = "nearest"
    lr: float = _at_least(2e-3, 0.0)
    epochs: int = _at_least(8, 1)
    batch_items: int = _at_least(256, 2)
    batch_users: int = _at_least(128, 1)
    epoch_steps: int = _at_least(0, 0)
    history: int = _at_least(20, 1)


@dataclass(frozen=True)
class RecommenderConfig(_Checked):
    """Stage 2 (method.md): backbone, reweighting, output, training.

    Args: output: `codes` (depth head over semantic IDs), `items` (SASRec's softmax over the catalogue), or `both`:
            losses add up in training and log-probabilities in scoring, those of the codes times `w_codes`.
        loss: of `items`: full cross-entropy (`ce`), SASRec's binary one with one negative (`bce`), or a softmax over
            the target and `negatives` uniform ones shared by a batch (`sampled`).
        granularity: of `codes`: one position an `item`, or one a `code`, the flattened sequence as in TIGER; other
            outputs have one an item. Rows of `code` are made by beam search.
        features: add a linear map of the scaled modality features to the item embeddings, in and out.
        block: of the backbone: `plain`, or `ligr` with gated branches and SwiGLU as in eSASRec.
        width, layers, heads, depth_layers: D, transformer blocks, H, blocks of the depth head.
        dropout: share dropped from embeddings and from each branch of a block.
        reweight: add the discretized similarity bias. buckets: S per channel, quantile or uniform edges.
        channels: `all` adds cross-modal channels to those of equal signals.
        similarity: what is compared: the `quantized` vectors, the behaviour `signals` before quantization, or the
            frozen `features`. similarity_form: an offset for each of its `buckets`, or one `linear` in the cosine.
        unseen: codes that no target of training had score as the head has them (`model`) or, below the deepest prefix
            that training saw, an even share (`backoff`, see `decoding.backed_off`).
        prefixes: a vector for every prefix of an ID from its second code on, going in and coming out (`CodeVectors`).
        init_from_codebook: start stage 2's code vectors from the codebook of stage 1. history: T, events a model sees.
        lr, weight_decay: AdamW's, the rate at its peak. epochs: at most. batch_users: windows of histories a step.
        epoch_steps: as in `TokenizerConfig`. min_steps: on small data, more epochs until they have as many steps.
        evaluate_every: epochs between validations. patience: validations without a better one before training stops.
    Raises: ValueError for a `loss` other than `ce` without `items` alone as output, and for `features` without items.
    """

    output: Literal["codes", "items", "both"] = "codes"
    w_codes: float = _at_least(0.3, 1e-3)
    loss: Literal["ce", "bce", "sampled"] = "ce"
    negatives: int = _at_least(256, 1)
    granularity: Literal["item", "code"] = "item"
    features: bool = False
    block: Literal["plain", "ligr"] = "plain"
    width: int = _at_least(64, 2)
    layers: int = _at_least(2, 1)
    heads: int = _at_least(2, 1)
    depth_layers: int = _at_least(1, 1)
    dropout: float = _at_least(0.1, 0.0, 1.0)
    reweight: bool = True
    buckets: int = _at_least(16, 2)
    bucket_edges: Literal["quantile", "uniform"] = "quantile"
    channels: Literal["same", "all"] = "all"
    similarity: Literal["quantized", "signals", "features"] = "quantized"
    similarity_form: Literal["buckets", "linear"] = "buckets"
    unseen: Literal["model", "backoff"] = "backoff"
    prefixes: bool = True
    init_from_codebook: bool = True
    history: int = _at_least(50, 1)
    lr: float = _at_least(2e-3, 0.0)
    weight_decay: float = _at_least(0.01, 0.0)
    epochs: int = _at_least(8, 1)
    min_steps: int = _at_least(1200, 0)
    batch_users: int = _at_least(16, 1)
    epoch_steps: int = _at_least(0, 0)
    evaluate_every: int = _at_least(2, 1)
    patience: int = _at_least(4, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width={self.width}, heads={self.heads}")
        if self.buckets > 250:
            raise ValueError(f"buckets must be at most 250, so that a bucket fits a byte, got {self.buckets}")
        if self.loss != "ce" and self.output != "items":
            raise ValueError(f"loss must be ce unless output is items, got loss={self.loss}, output={self.output}")
        if self.features and self.output == "codes":
            raise ValueError("features are added to item embeddings: set output to items or both, got output=codes")


@dataclass(frozen=True)
class EvaluationConfig(_Checked):
    """How models are judged.

    Args: early_users: fixed sample for early stopping. beam: width of beam search. batch: users scored at a time.
        exact_items: the largest catalogue scored exactly; above it IDs are found by beam, and the rows say so.
    """

    early_users: int = _at_least(2000, 1)
    beam: int = _at_least(50, 1)
    exact_items: int = _at_least(20000, 0)
    batch: int = _at_least(64, 1)


@dataclass(frozen=True)
class Config(_Checked):
    """One run: preset name, seed (initialisation and batches only) and the four parts."""

    preset: Literal["smoke", "quick", "full"]
    seed: int
    data: DataConfig
    tokenizer: TokenizerConfig
    recommender: RecommenderConfig
    evaluation: EvaluationConfig


PARTS = ("data", "tokenizer", "recommender", "evaluation")

# Weights were chosen on validation: `quick` on ml-100k, where a strong pull across modalities costs accuracy; `smoke`
# on planted data, where that pull is what takes the noise out of the behaviour part.
PRESETS: dict[str, dict[str, object]] = {
    "smoke": {
        "tokenizer.levels": 2,
        "tokenizer.codes": 16,
        "tokenizer.code_width": 16,
        "tokenizer.specific_width": 4,
        "tokenizer.specific_dropout": 0.3,
        "tokenizer.hidden": 32,
        "tokenizer.w_mi": 1.0,
        "tokenizer.w_cross": 1.0,
        "tokenizer.epochs": 15,
        "tokenizer.batch_users": 32,
        "tokenizer.epoch_steps": 50,
        "recommender.width": 32,
        "recommender.layers": 1,
        "recommender.history": 20,
        "recommender.epochs": 6,
        "recommender.min_steps": 0,
        "recommender.patience": 2,
        "recommender.epoch_steps": 100,
    },
    "quick": {"tokenizer.epoch_steps": 100, "recommender.epoch_steps": 300},  # a first look on large data too
    "full": {
        "tokenizer.levels": 4,
        "tokenizer.codes": 256,
        "tokenizer.epochs": 60,
        "recommender.width": 128,
        "recommender.history": 100,
        "recommender.epochs": 60,
        "recommender.evaluate_every": 3,
    },
}


def _field_home(name: str) -> tuple[str, str]:
    """The part and field that an override's name means; ValueError names the choices where it means none or several."""
    known = {(part, spec.name) for part in PARTS for spec in fields(get_type_hints(Config)[part])}
    part, dot, bare = name.partition(".")
    if dot:
        if (part, bare) in known:
            return part, bare
        raise ValueError(f"unknown setting {name!r}: parts are {', '.join(PARTS)}; see bbqrec_core/config.py")
    homes = sorted(home for home in known if home[1] == name)
    if len(homes) == 1:
        return homes[0]
    if homes:
        raise ValueError(f"setting {name!r} is ambiguous: write {' or '.join('.'.join(home) for home in homes)}")
    raise ValueError(f"unknown setting {name!r}; see bbqrec_core/config.py for all fields")


def with_overrides(config: Config, overrides: Mapping[str, object]) -> Config:
    """`config` with fields replaced by name (`codes`, or `tokenizer.lr` where two parts share the name).

    Raises: ValueError for an unknown, ambiguous or repeated name and for a value of the wrong type or range.
    """
    changes: dict[str, dict[str, object]] = {}
    for name, value in overrides.items():
        part, bare = _field_home(name)
        if bare in changes.setdefault(part, {}):
            raise ValueError(f"setting {part}.{bare} is given twice: keep one of {bare!r} and {part + '.' + bare!r}")
        changes[part][bare] = value
    return replace(config, **{part: replace(getattr(config, part), **change) for part, change in changes.items()})


def make_config(preset: str = "quick", seed: int = 0, overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration of a preset (`smoke`, `quick`, `full`) with overrides by field name.

    Raises: ValueError for an unknown preset, a negative seed, or a bad override.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    base = Config(preset, seed, DataConfig(), TokenizerConfig(), RecommenderConfig(), EvaluationConfig())
    return with_overrides(with_overrides(base, PRESETS[preset]), overrides or {})
