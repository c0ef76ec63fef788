"""All settings of a run, the three presets, and checked overrides by field name."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_type_hints

from bbqrec_core import EvaluationConfig
from bbqrec_core.config import Checked
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig, VariantTokenizerConfig


@dataclass(frozen=True)
class Config(Checked):
    """Settings of one run: preset name, seed (of initialisation and batches only) and the five parts.

    Args: given: the settings, as `part.field`, that the user chose; a recipe does not change them.
    """

    preset: Literal["smoke", "quick", "full"]
    seed: int
    data: DataConfig
    ids: IdsConfig
    tokenizer: VariantTokenizerConfig
    recommender: VariantRecommenderConfig
    evaluation: EvaluationConfig
    given: tuple[str, ...] = field(default=(), compare=False)


FIELDS = "see bbqrec_core/config.py and bbqrec_lab/settings.py for all fields"
PARTS = ("data", "ids", "tokenizer", "recommender", "evaluation")
# Loss weights were chosen on validation. `quick`: on ml-100k, where a strong cross-modal loss costs accuracy. `smoke`:
# on planted data, where a strong cross-modal loss removes the noise from the behaviour part.
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
        "recommender.max_events": 20,
        "recommender.epochs": 6,
        "recommender.min_steps": 0,
        "recommender.patience": 2,
        "recommender.score_steps": 60,
        "recommender.epoch_steps": 100,
    },
    "quick": {  # a first look on large data too
        "tokenizer.epoch_steps": 100,
        "recommender.epoch_steps": 300,
        "recommender.lr": 0.004,
    },
    "full": {
        "tokenizer.levels": 4,
        "tokenizer.codes": 256,
        "tokenizer.epochs": 60,
        "recommender.width": 128,
        "recommender.max_events": 100,
        "recommender.epochs": 60,
        "recommender.evaluate_every": 3,
    },
}


LONG = 20  # training events per user, on average, from which histories are long
# Recipes of training by length of histories: what won most often in eight trials of each learned row on validation, on
# ml-100k for long and instruments for short ones (`benchmarks.recipes`; docs/results.md has the trials).
_PUBLISHED, _OURS = {"recommender.weight_decay": 0.3}, {"recommender.weight_decay": 0.01}
RECIPES: dict[str, dict[str, dict[str, object]]] = {
    family: {
        row: {"recommender.dropout": dropout} | decay
        for row, decay in (("", _PUBLISHED), ("sasrec-strong", _OURS), ("generation", _OURS), ("bbqrec", _OURS))
    }
    for family, dropout in (("long", 0.2), ("short", 0.5))
}


def _field_home(name: str) -> tuple[str, str]:
    """The part and field of an override's name; ValueError lists the choices if the name is unknown or ambiguous."""
    known = {(part, spec.name) for part in PARTS for spec in fields(get_type_hints(Config)[part])}
    part, dot, bare = name.partition(".")
    if dot:
        if (part, bare) in known:
            return part, bare
        raise ValueError(f"unknown setting {name!r}: parts are {', '.join(PARTS)}; {FIELDS}")
    homes = sorted(home for home in known if home[1] == name)
    if len(homes) == 1:
        return homes[0]
    if homes:
        raise ValueError(f"setting {name!r} is ambiguous: write {' or '.join('.'.join(home) for home in homes)}")
    raise ValueError(f"unknown setting {name!r}; {FIELDS}")


def with_overrides(config: Config, overrides: Mapping[str, object]) -> Config:
    """`config` with fields replaced by name (`codes`, or `tokenizer.lr` if two parts share the name).

    They do not count as `given`, so a recipe may still change them; overrides of `make_config` are safe from it.

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
    stages = VariantTokenizerConfig(), VariantRecommenderConfig()
    base = Config(preset, seed, DataConfig(), IdsConfig(), *stages, EvaluationConfig())
    config = with_overrides(with_overrides(base, PRESETS[preset]), overrides or {})
    return replace(config, given=tuple(sorted(".".join(_field_home(name)) for name in overrides or {})))


def with_recipe(config: Config, row: str, events: float) -> Config:
    """`config` with the recipe of a row for data with `events` training events per user; `smoke` has none.

    Settings that the user gave keep their values.
    """
    if config.preset == "smoke":
        return config
    recipes = RECIPES["long" if events >= LONG else "short"]
    chosen = recipes.get(row, recipes[""])
    return with_overrides(config, {name: value for name, value in chosen.items() if name not in config.given})
