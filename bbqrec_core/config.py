"""Settings of both stages and of the evaluation: frozen dataclasses that check their values."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args, get_origin, get_type_hints


class Checked:
    """Reject values of the wrong type, outside a Literal, or outside the range of `at_least`."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for spec in fields(self):
            value = _checked(spec.name, getattr(self, spec.name), hints[spec.name])
            object.__setattr__(self, spec.name, value)
            low, below = spec.metadata.get("low"), spec.metadata.get("below", math.inf)
            if low is not None and not low <= value < below:  # rejects NaN and infinity too
                top = f" and below {below:g}" if hints[spec.name] is float else ""
                raise ValueError(f"{spec.name} must be at least {low}{top}, got {value!r}")


def _checked(name: str, value: object, hint: object) -> object:
    """Return `value` in the type of `hint` (lists become tuples, ints become floats); ValueError if it does not fit."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(map(str, get_args(hint)))}, got {value!r}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{name} must be a list of names, got {value!r}")
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, got {value!r}")
    return value


def at_least(default: object, low: float, below: float = math.inf) -> object:
    """A dataclass field with values of at least `low` and less than `below`."""
    return field(default=default, metadata={"low": low, "below": below})


@dataclass(frozen=True)
class TokenizerConfig(Checked):
    """Stage 1: encoders, shared residual codebook, losses, uniqueness repair, training."""

    signals: tuple[str, ...] = ()  # names of the modalities to use; empty uses all
    id_signal: bool = True  # add a learned vector per item as one more signal
    specific: bool = True  # keep a modality-specific part next to the behaviour part
    specific_width: int = at_least(8, 1)
    normalise: bool = True
    levels: int = at_least(3, 1)  # L
    codes: int = at_least(128, 2)  # K
    code_width: int = at_least(64, 2)  # E
    hidden: int = at_least(128, 1)
    ema_decay: float = at_least(0.95, 0.0, 1.0)
    revive_every: int = at_least(50, 0)
    commitment: float = at_least(0.25, 0.0)
    specific_dropout: float = at_least(0.5, 0.0)
    w_codes_only: float = at_least(1.0, 0.0)  # of reconstruction from the codes alone; w_*: see `Tokenizer.losses`
    w_mi: float = at_least(0.05, 0.0)
    w_cross: float = at_least(0.02, 0.0)
    w_seq: float = at_least(1.0, 0.0)
    temperature: float = at_least(0.1, 1e-3)
    mi_steps: int = at_least(3, 1)
    uniqueness: Literal["none", "nearest"] = "nearest"  # repair of colliding IDs: none, or the nearest free last code
    lr: float = at_least(2e-3, 0.0)
    epochs: int = at_least(8, 1)
    batch_items: int = at_least(256, 2)  # items per step for the terms on single items
    batch_users: int = at_least(128, 1)  # histories per step for the sequence term
    epoch_steps: int = at_least(0, 0)  # limit of steps per epoch, drawn at random; 0 is no limit
    max_events: int = at_least(20, 1)  # length of these histories


@dataclass(frozen=True)
class RecommenderConfig(Checked):
    """Stage 2: backbone, reweighting, output, training.

    Args: output: `codes` (depth head over semantic IDs), `items` (SASRec's softmax over all items), or `both`, which
            adds the losses in training and the log-probabilities in scoring.
        unseen: score of items that training did not see: from the head (`model`), or an even share below the deepest
            prefix that training saw (`backoff`, see `decoding.backed_off`).
    Raises: ValueError for a width that heads do not divide, and for `score_reweight` without `seen_offset`.
    """

    output: Literal["codes", "items", "both"] = "codes"
    w_codes: float = at_least(0.01, 1e-3)  # weight of the codes in `both`
    width: int = at_least(64, 2)  # D
    layers: int = at_least(2, 1)
    heads: int = at_least(2, 1)  # H
    depth_layers: int = at_least(1, 1)  # blocks of the depth head
    dropout: float = at_least(0.1, 0.0, 1.0)  # of the embeddings and of each branch of a block
    reweight: bool = True  # add the discretized similarity bias
    buckets: int = at_least(16, 2)  # S per channel
    lag_bias: bool = True  # add an attention offset per layer, head and number of events between two positions
    seen_offset: bool = True  # add a learned offset to the scores of items of the history
    score_reweight: bool = True  # add offsets by co-occurrence and content (`ScoreBias`); needs `seen_offset`
    score_buckets: int = at_least(24, 2)
    score_steps: int = at_least(300, 1)  # of training the offsets of buckets
    partners: int = at_least(128, 1)  # kept of each item: those that came with it most
    unseen: Literal["model", "backoff"] = "backoff"
    prefixes: bool = True  # add a vector per prefix of two codes or more, see `CodeVectors`
    init_from_codebook: bool = True  # start the code vectors from the codebook of stage 1
    max_events: int = at_least(50, 1)  # T, events that are read
    lr: float = at_least(2e-3, 0.0)  # the peak
    weight_decay: float = at_least(0.01, 0.0)
    epochs: int = at_least(8, 1)  # at most
    min_steps: int = at_least(1200, 0)  # small datasets train more epochs until they reach it
    precision: Literal["fp32", "bf16"] = "fp32"  # of matrix products in training, see `training_precision`
    batch_events: int = at_least(640, 1)  # targets per step, on average: many short windows of histories, or few long
    epoch_steps: int = at_least(0, 0)  # as in `TokenizerConfig`
    evaluate_every: int = at_least(2, 1)  # epochs between validations
    patience: int = at_least(4, 1)  # validations without improvement before training stops

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got width={self.width}, heads={self.heads}")
        if self.score_reweight and not self.seen_offset:
            raise ValueError("score_reweight needs seen_offset: set seen_offset=True, or score_reweight=False")
        if self.buckets > 250:
            raise ValueError(f"buckets must be at most 250, so that a bucket fits a byte, got {self.buckets}")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """How models are evaluated."""

    early_users: int = at_least(2000, 1)  # size of the user sample for early stopping
    beam: int = at_least(50, 1)  # width of beam search
    exact_items: int = at_least(20000, 0)  # largest catalogue scored exactly; larger ones use beam search, as rows say
    batch: int = at_least(64, 1)
