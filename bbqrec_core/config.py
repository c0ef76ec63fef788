"""The settings of both stages and of the evaluation as frozen dataclasses that check their values."""

import dataclasses
import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args, get_origin, get_type_hints


class Checked:
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


def at_least(default: object, low: float, below: float = math.inf) -> object:
    """A dataclass field whose values must be at least `low` and less than `below`."""
    return field(default=default, metadata={"low": low, "below": below})


@dataclass(frozen=True)
class TokenizerConfig(Checked):
    """Stage 1 (method.md): encoders, shared residual codebook, losses, uniqueness repair, training.

    Args: signals: modalities that enter; empty is all.
        id_signal: a learned vector for each item, one more signal. levels, codes, code_width: L, K, E.
        specific, specific_width: whether modalities keep a part that behaviour need not explain, and its width.
        gradient, codebook_update: estimator through the quantizer; how codebooks learn.
        w_*: loss weights, see method.md; `w_codes_only` weighs reconstruction from the codes alone.
        uniqueness: repair of colliding IDs: `none`, TIGER's `extra` code, or the `nearest` free last code.
        batch_items, batch_users, max_events: items for reconstruction, histories for the sequence term, their length.
        epoch_steps: the most steps an epoch may take, drawn anew each time; 0 takes all.
    """

    signals: tuple[str, ...] = ()
    id_signal: bool = True
    specific: bool = True
    specific_width: int = at_least(8, 1)
    normalise: bool = True
    levels: int = at_least(3, 1)
    codes: int = at_least(128, 2)
    code_width: int = at_least(64, 2)
    hidden: int = at_least(128, 1)
    gradient: Literal["straight-through", "rotation"] = "straight-through"
    codebook_update: Literal["ema", "gradient"] = "ema"
    ema_decay: float = at_least(0.95, 0.0, 1.0)
    revive_every: int = at_least(50, 0)
    commitment: float = at_least(0.25, 0.0)
    specific_dropout: float = at_least(0.5, 0.0)
    w_codes_only: float = at_least(1.0, 0.0)
    w_mi: float = at_least(0.05, 0.0)
    w_cross: float = at_least(0.02, 0.0)
    w_seq: float = at_least(1.0, 0.0)
    temperature: float = at_least(0.1, 1e-3)
    mi_steps: int = at_least(3, 1)
    uniqueness: Literal["none", "extra", "nearest"] = "nearest"
    lr: float = at_least(2e-3, 0.0)
    epochs: int = at_least(8, 1)
    batch_items: int = at_least(256, 2)
    batch_users: int = at_least(128, 1)
    epoch_steps: int = at_least(0, 0)
    max_events: int = at_least(20, 1)


@dataclass(frozen=True)
class RecommenderConfig(Checked):
    """Stage 2 (method.md): backbone, reweighting, output, training.

    Args: output: `codes` (depth head over semantic IDs), `items` (SASRec's softmax over the catalogue), or `both`:
            losses add up in training and log-probabilities in scoring, those of the codes times `w_codes`.
        width, layers, heads, depth_layers: D, transformer blocks, H, blocks of the depth head.
        dropout: share dropped from embeddings and from each branch of a block.
        reweight: add the discretized similarity bias. buckets: S per channel, quantile or uniform edges.
        channels: `all` adds cross-modal channels to those of equal signals.
        unseen: codes that no target of training had score as the head has them (`model`) or, below the deepest prefix
            that training saw, an even share (`backoff`, see `decoding.backed_off`).
        prefixes: a vector for every prefix of an ID from its second code on, going in and coming out (`CodeVectors`).
        init_from_codebook: start stage 2's code vectors from stage 1's codebook. max_events: T, events a model reads.
        lr, weight_decay: AdamW's, the rate at its peak. epochs: at most. batch_users: windows of histories a step.
        epoch_steps: as in `TokenizerConfig`. min_steps: on small data, more epochs until they have as many steps.
        evaluate_every: epochs between validations. patience: validations without a better one before training stops.
    Raises: ValueError for a width that heads do not divide.
    """

    output: Literal["codes", "items", "both"] = "codes"
    w_codes: float = at_least(0.3, 1e-3)
    width: int = at_least(64, 2)
    layers: int = at_least(2, 1)
    heads: int = at_least(2, 1)
    depth_layers: int = at_least(1, 1)
    dropout: float = at_least(0.1, 0.0, 1.0)
    reweight: bool = True
    buckets: int = at_least(16, 2)
    bucket_edges: Literal["quantile", "uniform"] = "quantile"
    channels: Literal["same", "all"] = "all"
    unseen: Literal["model", "backoff"] = "backoff"
    prefixes: bool = True
    init_from_codebook: bool = True
    max_events: int = at_least(50, 1)
    lr: float = at_least(2e-3, 0.0)
    weight_decay: float = at_least(0.01, 0.0)
    epochs: int = at_least(8, 1)
    min_steps: int = at_least(1200, 0)
    batch_users: int = at_least(16, 1)
    epoch_steps: int = at_least(0, 0)
    evaluate_every: int = at_least(2, 1)
    patience: int = at_least(4, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width={self.width}, heads={self.heads}")
        if self.buckets > 250:
            raise ValueError(f"buckets must be at most 250, so that a bucket fits a byte, got {self.buckets}")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How models are judged.

    Args: early_users: fixed sample for early stopping. beam: width of beam search. batch: users scored at a time.
        exact_items: the largest catalogue scored exactly; above it IDs are found by beam, and the rows say so.
    """

    early_users: int = at_least(2000, 1)
    beam: int = at_least(50, 1)
    exact_items: int = at_least(20000, 0)
    batch: int = at_least(64, 1)
