"""Laws of the settings: presets are complete, overrides are strict, wrong values are named before any work."""

import dataclasses
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import settings_laws as laws

from bbqrec_core import EvaluationConfig
from bbqrec_lab.experiments.presets import (
    LONG,
    PARTS,
    PRESETS,
    RECIPES,
    Config,
    make_config,
    with_overrides,
    with_recipe,
)
from bbqrec_lab.settings import DataConfig, IdsConfig, VariantRecommenderConfig, VariantTokenizerConfig

KINDS = dict(
    zip(PARTS, (DataConfig, IdsConfig, VariantTokenizerConfig, VariantRecommenderConfig, EvaluationConfig), strict=True)
)
EVERY = [(part, spec) for part, kind in KINDS.items() for spec in fields(kind)]
ids = {"ids": [f"{part}.{spec.name}" for part, spec in EVERY]}


def overriding(part):
    """make(**settings) -> the part of a configuration that has these overrides."""
    return lambda **settings: getattr(
        make_config(overrides={f"{part}.{name}": value for name, value in settings.items()}), part
    )


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
    laws.refuses_a_value_of_another_type(overriding(part), spec, laws.hint_of(KINDS[part], spec))


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_number_has_a_bound_that_is_enforced_and_allowed(part, spec):
    laws.has_a_bound_that_is_enforced_and_allowed(overriding(part), spec, laws.hint_of(KINDS[part], spec))


@pytest.mark.parametrize("name", ["recommender.dropout", "tokenizer.ema_decay"])
def test_shares_that_must_stay_below_one_are_refused_at_one(name):
    part, _, bare = name.partition(".")
    laws.stays_below_one(overriding(part), bare)


@pytest.mark.parametrize(("part", "spec"), EVERY, **ids)
def test_every_choice_names_what_is_allowed(part, spec):
    laws.names_what_is_allowed(overriding(part), spec, laws.hint_of(KINDS[part], spec))


def test_lists_become_tuples_and_whole_numbers_become_floats():
    laws.turns_lists_into_tuples_and_whole_numbers_into_floats(
        lambda **settings: make_config(overrides=settings).tokenizer
    )


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
    for part, kind in KINDS.items():
        assert type(getattr(config, part)) is kind
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(FrozenInstanceError):
            setattr(getattr(config, part), fields(kind)[-1].name, 3)
    assert [spec.name for spec in fields(Config)] == ["preset", "seed", *PARTS, "given"]


@pytest.mark.parametrize(("events", "family"), [(LONG, "long"), (LONG - 0.1, "short")])
def test_a_recipe_by_length_of_histories_changes_what_the_user_did_not_give(events, family):
    recipe = RECIPES[family]["bbqrec"]
    for preset in ("quick", "full"):
        found = with_recipe(make_config(preset), "bbqrec", events)
        assert found == with_overrides(make_config(preset), recipe)
        assert found != make_config(preset)
    name, other = list(recipe)[:2]
    given = make_config("quick", 0, {name.partition(".")[2]: recipe[name] / 2})
    assert given.given == (name,)
    assert with_recipe(given, "bbqrec", events) == with_overrides(given, {other: recipe[other]})
    assert with_recipe(make_config("smoke"), "bbqrec", events) == make_config("smoke")


def test_a_setting_given_both_bare_and_with_its_part_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer\.codes is given twice"):
        make_config(overrides={"codes": 8, "tokenizer.codes": 16})
