"""Laws of the core's settings: each checks its own values, and what is wrong is named before any work."""

import dataclasses
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import settings_laws as laws

from bbqrec_core import EvaluationConfig, RecommenderConfig, TokenizerConfig

STAGES = (TokenizerConfig, RecommenderConfig, EvaluationConfig)
EVERY = [(stage, spec) for stage in STAGES for spec in fields(stage)]
every_field = pytest.mark.parametrize(
    ("stage", "spec"), EVERY, ids=[f"{stage.__name__}.{spec.name}" for stage, spec in EVERY]
)


@every_field
def test_every_field_refuses_a_value_of_another_type(stage, spec):
    laws.refuses_a_value_of_another_type(stage, spec, laws.hint_of(stage, spec))


@every_field
def test_every_number_has_a_bound_that_is_enforced_and_allowed(stage, spec):
    laws.has_a_bound_that_is_enforced_and_allowed(stage, spec, laws.hint_of(stage, spec))


@pytest.mark.parametrize(("stage", "name"), [(RecommenderConfig, "dropout"), (TokenizerConfig, "ema_decay")])
def test_shares_that_must_stay_below_one_are_refused_at_one(stage, name):
    laws.stays_below_one(stage, name)


@every_field
def test_every_choice_names_what_is_allowed(stage, spec):
    laws.names_what_is_allowed(stage, spec, laws.hint_of(stage, spec))


def test_lists_become_tuples_and_whole_numbers_become_floats():
    laws.turns_lists_into_tuples_and_whole_numbers_into_floats(TokenizerConfig)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (TokenizerConfig, {"signals": "text"}, "signals must be a list of names, got 'text'"),
        (TokenizerConfig, {"signals": ["text", 1]}, "signals must be a list of names"),
        (RecommenderConfig, {"width": 7, "heads": 2}, "width must be a multiple of heads, got width=7, heads=2"),
        (RecommenderConfig, {"buckets": 251}, "buckets must be at most 250, so that a bucket fits a byte, got 251"),
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
