"""Laws of the settings: presets are complete, overrides are strict, wrong values are named before any work."""

import dataclasses
import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from bbqrec_core import EvaluationConfig, TokenizerConfig
from bbqrec_lab.experiments.presets import PARTS, PRESETS, Config, make_config, with_overrides
from bbqrec_lab.settings import DataConfig, IdsConfig, RowConfig

KINDS = dict(zip(PARTS, (DataConfig, IdsConfig, TokenizerConfig, RowConfig, EvaluationConfig), strict=True))
EVERY = [(part, spec) for part, kind in KINDS.items() for spec in fields(kind)]
ids = {"ids": [f"{part}.{spec.name}" for part, spec in EVERY]}


def hint_of(part, spec):
    return get_type_hints(KINDS[part])[spec.name]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_overrides_on_the_defaults(preset):
    config = make_config(preset, seed=3)
    assert (config.preset, config.seed) == (preset, 3)
    for part in PARTS:
        plain = KINDS[part]()
        for spec in fields(plain):
            wanted = PRESETS[preset].get(f"{part}.{spec.name}", getattr(plain, spec.name))
            assert getattr(getattr(config, part), spec.name) == wanted
    assert make_config(preset, seed=3) == config


def test_presets_differ():
    assert len({make_config(preset) for preset in PRESETS}) == len(PRESETS) == 3


def test_an_override_needs_its_stage_only_where_two_stages_share_the_name():
    config = make_config("quick", 0, {"codes": 7, "tokenizer.lr": 0.5, "recommender.lr": 0.25, "split_seed": 5})
    assert (config.tokenizer.codes, config.tokenizer.lr, config.recommender.lr) == (7, 0.5, 0.25)
    assert config.data.split_seed == 5
    assert with_overrides(config, {"codes": 8}) == replace(config, tokenizer=replace(config.tokenizer, codes=8))


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_field_can_be_reached_by_name(part, spec):
    alone = sum(other.name == spec.name for _, other in EVERY) == 1
    default = getattr(getattr(make_config(), part), spec.name)
    assert make_config(overrides={f"{part}.{spec.name}": default}) == make_config()
    if alone:
        assert make_config(overrides={spec.name: default}) == make_config()
    else:
        with pytest.raises(ValueError, match=rf"{spec.name}' is ambiguous: write .*{part}\.{spec.name}"):
            make_config(overrides={spec.name: default})


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_field_refuses_a_value_of_another_type(part, spec):
    hint = hint_of(part, spec)
    wrong = {bool: 1, int: 1.5, float: "0.1", str: 3}.get(hint, 7)
    for value in (wrong, None, [1, 2]):
        with pytest.raises(ValueError, match=spec.name):
            make_config(overrides={f"{part}.{spec.name}": value})
    if hint in (int, float):
        with pytest.raises(ValueError, match=spec.name):
            make_config(overrides={f"{part}.{spec.name}": True})


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_number_has_a_bound_that_is_enforced_and_allowed(part, spec):
    hint = hint_of(part, spec)
    if hint not in (int, float):
        return
    low = spec.metadata["low"]
    made = make_config(overrides={f"{part}.{spec.name}": hint(low)} | ({"heads": 1} if spec.name == "width" else {}))
    assert getattr(getattr(made, part), spec.name) == low
    with pytest.raises(ValueError, match=f"{spec.name} must be at least {low}.*, got {low - 1}"):
        make_config(overrides={f"{part}.{spec.name}": hint(low - 1)})
    if hint is float:
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{spec.name}.*{value}"):
                make_config(overrides={f"{part}.{spec.name}": value})


@pytest.mark.parametrize("name", ["recommender.dropout", "tokenizer.ema_decay"])
def test_shares_that_must_stay_below_one_are_refused_at_one(name):
    make_config(overrides={name: 0.99})
    with pytest.raises(ValueError, match=r"must be at least 0.0 and below 1, got 1.0"):
        make_config(overrides={name: 1.0})


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_choice_names_what_is_allowed(part, spec):
    hint = hint_of(part, spec)
    if get_origin(hint) is not Literal:
        return
    for choice in get_args(hint):
        asked = {f"{part}.{spec.name}": choice} | ({"output": "items"} if spec.name == "loss" else {})
        assert getattr(getattr(make_config(overrides=asked), part), spec.name) == choice
    with pytest.raises(ValueError, match=f"{spec.name} must be one of {', '.join(get_args(hint))}, got 'nosuch'"):
        make_config(overrides={f"{part}.{spec.name}": "nosuch"})


def test_lists_become_tuples_and_whole_numbers_become_floats():
    config = make_config(overrides={"signals": ["text", "image"], "w_mi": 1})
    assert config.tokenizer.signals == ("text", "image")
    assert isinstance(config.tokenizer.w_mi, float)
    hash(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fast",), "preset must be one of smoke, quick, full, got 'fast'"),
        (("quick", -1), "seed must be an integer of at least 0, got -1"),
        (("quick", 1.0), "seed must be an integer of at least 0, got 1.0"),
        (("quick", True), "seed must be .*, got True"),
        (("quick", 0, {"nosuch": 1}), "unknown setting 'nosuch'"),
        (
            ("quick", 0, {"tokenizer.width": 1}),
            "unknown setting 'tokenizer.width': parts are data, ids, tokenizer, recommender",
        ),
        (("quick", 0, {"seed": 1}), "unknown setting 'seed'"),
        (("quick", 0, {"width": 7, "heads": 2}), "width must be a multiple of heads, got width=7, heads=2"),
        (("quick", 0, {"signals": "text"}), "signals must be a list of names, got 'text'"),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_config(*arguments)


def test_settings_cannot_be_changed_in_place():
    config = make_config()
    with pytest.raises(FrozenInstanceError):
        config.tokenizer.codes = 3
    assert all(dataclasses.is_dataclass(getattr(config, part)) for part in PARTS)
    assert [spec.name for spec in fields(Config)] == ["preset", "seed", *PARTS]


def test_a_setting_given_both_bare_and_with_its_part_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer\.codes is given twice"):
        make_config(overrides={"codes": 8, "tokenizer.codes": 16})
