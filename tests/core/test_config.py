"""Laws of the core's settings: each checks its own values, and what is wrong is named before any work."""

import dataclasses
import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from bbqrec_core import EvaluationConfig, RecommenderConfig, TokenizerConfig

STAGES = (TokenizerConfig, RecommenderConfig, EvaluationConfig)
EVERY = [(stage, spec) for stage in STAGES for spec in fields(stage)]
every_field = pytest.mark.parametrize(
    ("stage", "spec"), EVERY, ids=[f"{stage.__name__}.{spec.name}" for stage, spec in EVERY]
)


def hint_of(stage, spec):
    return get_type_hints(stage)[spec.name]


@every_field
def test_every_field_refuses_a_value_of_another_type(stage, spec):
    hint = hint_of(stage, spec)
    wrong = {bool: 1, int: 1.5, float: "0.1", str: 3}.get(hint, 7)
    for value in (wrong, None, [1, 2]):
        with pytest.raises(ValueError, match=spec.name):
            stage(**{spec.name: value})
    if hint in (int, float):
        with pytest.raises(ValueError, match=spec.name):
            stage(**{spec.name: True})


@every_field
def test_every_number_has_a_bound_that_is_enforced_and_allowed(stage, spec):
    hint = hint_of(stage, spec)
    if hint not in (int, float):
        return
    low = spec.metadata["low"]
    made = stage(**{spec.name: hint(low)} | ({"heads": 1} if spec.name == "width" else {}))
    assert getattr(made, spec.name) == low
    with pytest.raises(ValueError, match=f"{spec.name} must be at least {low}.*, got {low - 1}"):
        stage(**{spec.name: hint(low - 1)})
    if hint is float:
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{spec.name}.*{value}"):
                stage(**{spec.name: value})


@pytest.mark.parametrize(("stage", "name"), [(RecommenderConfig, "dropout"), (TokenizerConfig, "ema_decay")])
def test_shares_that_must_stay_below_one_are_refused_at_one(stage, name):
    stage(**{name: 0.99})
    with pytest.raises(ValueError, match=r"must be at least 0.0 and below 1, got 1.0"):
        stage(**{name: 1.0})


@every_field
def test_every_choice_names_what_is_allowed(stage, spec):
    hint = hint_of(stage, spec)
    if get_origin(hint) is not Literal:
        return
    for choice in get_args(hint):
        assert getattr(stage(**{spec.name: choice}), spec.name) == choice
    with pytest.raises(ValueError, match=f"{spec.name} must be one of {', '.join(get_args(hint))}, got 'nosuch'"):
        stage(**{spec.name: "nosuch"})


def test_lists_become_tuples_and_whole_numbers_become_floats():
    config = TokenizerConfig(signals=["text", "image"], w_mi=1)
    assert config.signals == ("text", "image")
    assert isinstance(config.w_mi, float)
    hash(config)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (TokenizerConfig, {"signals": "text"}, "signals must be a list of names, got 'text'"),
        (TokenizerConfig, {"signals": ["text", 1]}, "signals must be a list of names"),
        (RecommenderConfig, {"width": 7, "heads": 2}, "width must be a multiple of heads, got width=7, heads=2"),
        (RecommenderConfig, {"buckets": 251}, "buckets must be at most 250, so that a bucket fits a byte, got 251"),
        (RecommenderConfig, {"features": True}, "set output to items or both, got output=codes"),
    ],
)
def test_what_is_wrong_is_named(stage, changes, message):
    with pytest.raises(ValueError, match=message):
        stage(**changes)
    with pytest.raises(ValueError, match=message):
        replace(stage(), **changes)


@pytest.mark.parametrize("stage", STAGES)
def test_settings_cannot_be_changed_in_place(stage):
    config = stage()
    assert dataclasses.is_dataclass(config)
    with pytest.raises(FrozenInstanceError):
        setattr(config, fields(stage)[0].name, 3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_name_that_is_no_setting_is_refused(stage):
    with pytest.raises(TypeError, match="nosuch"):
        stage(nosuch=1)
