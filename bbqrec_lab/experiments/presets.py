"""All settings of a run, the three presets, and checked overrides by field name."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Literal, get_origin, get_type_hints

from bbqrec_core import EvaluationConfig
from bbqrec_core.config import Checked
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig, VariantTokenizerConfig
from bbqrec_lab.suggestions import did_you_mean


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


FIELDS = "bbqrec config lists all settings"
PARTS = ("data", "ids", "tokenizer", "recommender", "evaluation")
WORDS = {"True": True, "False": False, "None": None}
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
    "full": {  # whole passes over the data, until validation stops them
        "tokenizer.epochs": 16,
        "tokenizer.epoch_steps": 200,
        "recommender.max_events": 100,
        "recommender.epochs": 16,
        "recommender.min_steps": 2400,
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


@cache
def setting_types() -> dict[str, object]:
    """The type of every setting by `part.field`, in the order of the parts."""
    parts = get_type_hints(Config)
    hints = {part: get_type_hints(parts[part]) for part in PARTS}
    return {f"{part}.{spec.name}": hints[part][spec.name] for part in PARTS for spec in fields(parts[part])}


def parse_overrides(given: str | Mapping[str, object]) -> dict[str, object]:
    """Settings by name from `k=v,k=v`, from a JSON object as text, or from a mapping, as people and YAML write them.

    A value has the type of its setting: `"1e-3"` becomes a number, 2024 a text if the setting is one, `"text,image"` a
    list of names if the setting is one.

    Raises: ValueError naming the part that is neither.
    """
    pairs = _pairs(given) if isinstance(given, str) else given
    types = setting_types()
    known = {name: [home for home in types if name in (home, home.partition(".")[2])] for name in pairs}
    return {name: _typed(value, types[known[name][0]]) if known[name] else value for name, value in pairs.items()}


def _pairs(text: str) -> dict[str, object]:
    """Names and values of `k=v,k=v` or of a JSON object."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"overrides are not JSON: {error}: write k=v,k=v or a JSON object") from None
    pairs: dict[str, object] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"expected name=value, got {part!r}: write k=v,k=v or a JSON object")
        pairs[name.strip()] = _literal(value.strip())
    return pairs


def parse_seeds(given: str | int | Iterable[int]) -> tuple[int, ...]:
    """Seeds from `0,1,2`, `[0, 1, 2]`, one number, or a list.

    Raises: ValueError for anything else.
    """
    parts = given.strip().strip("[]()").split(",") if isinstance(given, str) else given
    try:
        return tuple(int(part) for part in ([parts] if isinstance(parts, int) else parts))
    except (TypeError, ValueError):
        raise ValueError(f"seeds must be integers such as 0,1,2, got {given!r}") from None


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return WORDS.get(text, text)


def _typed(value: object, hint: object) -> object:
    """`value` as the type of a setting wants it, if it came as text of a number, as a number for a text, or alone."""
    if hint is str and type(value) in (int, float):
        return str(value)
    if isinstance(value, str):
        if get_origin(hint) is tuple:
            return tuple(filter(None, map(str.strip, value.split(","))))
        return _literal(value) if hint in (int, float, bool) else value
    return int(value) if hint is int and isinstance(value, float) and value.is_integer() else value


def full_name(name: str) -> str:
    """The `part.field` of a setting's name. ValueError lists the choices if it is unknown or ambiguous."""
    known = list(setting_types())
    if name in known:
        return name
    homes = sorted(home for home in known if home.partition(".")[2] == name)
    if len(homes) == 1:
        return homes[0]
    if homes:
        raise ValueError(f"setting {name!r} is ambiguous: write {' or '.join(homes)}")
    close = did_you_mean(name, known if "." in name else [home.partition(".")[2] for home in known])
    raise ValueError(f"unknown setting {name!r}: parts are {', '.join(PARTS)}; {close}{FIELDS}")


def by_full_name(overrides: Mapping[str, object]) -> dict[str, object]:
    """Overrides by `part.field`; ValueError for an unknown, ambiguous or repeated name."""
    found: dict[str, object] = {}
    for name, value in overrides.items():
        full = full_name(name)
        if full in found:
            raise ValueError(f"setting {full} is given twice: keep one of {full.partition('.')[2]!r} and {full!r}")
        found[full] = value
    return found


def with_overrides(config: Config, overrides: Mapping[str, object]) -> Config:
    """`config` with fields replaced by name (`codes`, or `tokenizer.lr` if two parts share the name).

    They do not count as `given`, so a recipe may still change them; overrides of `make_config` are safe from it.

    Raises: ValueError for an unknown, ambiguous or repeated name and for a value of the wrong type or range.
    """
    changes: dict[str, dict[str, object]] = {}
    for name, value in by_full_name(overrides).items():
        part, _, bare = name.partition(".")
        changes.setdefault(part, {})[bare] = value
    return replace(config, **{part: replace(getattr(config, part), **change) for part, change in changes.items()})


def setting_value(config: Config, name: str) -> object:
    """The value of a setting by `part.field`."""
    part, _, bare = name.partition(".")
    return getattr(getattr(config, part), bare)


def make_config(
    preset: str = "quick",
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    fixed: Mapping[str, object] | None = None,
) -> Config:
    """The configuration of a preset (`smoke`, `quick`, `full`) with overrides by field name.

    Args: fixed: the settings of a variant by `part.field`; they are checked together with the overrides, and win.
    Raises: ValueError for an unknown preset, a negative seed, or a bad override.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    base = replace(default_config(), preset=preset, seed=seed)
    given = by_full_name(overrides or {})
    config = with_overrides(with_overrides(base, PRESETS[preset]), given | dict(fixed or {}))
    return replace(config, given=tuple(sorted(given)))


def recipe_of(preset: str, row: str, family: str) -> dict[str, object]:
    """The settings that a recipe has for a row, by length of histories (`long` or `short`); `smoke` has none."""
    recipes = RECIPES[family]
    return {} if preset == "smoke" else recipes.get(row, recipes[""])


def with_recipe(config: Config, row: str, events: float) -> Config:
    """`config` with the recipe of a row for data with `events` training events per user; `smoke` has none.

    Settings that the user gave keep their values.
    """
    chosen = recipe_of(config.preset, row, "long" if events >= LONG else "short")
    return with_overrides(config, {name: value for name, value in chosen.items() if name not in config.given})


def default_config() -> Config:
    """The defaults of all settings, without a preset."""
    stages = VariantTokenizerConfig(), VariantRecommenderConfig()
    return Config("quick", 0, DataConfig(), IdsConfig(), *stages, EvaluationConfig())
