"""Laws of single settings, whether they are given to a dataclass of the core or as overrides of a run's configuration.

Each takes `make(**settings)`, which gives the dataclass that holds them, and one of its fields.
"""

import math
from collections.abc import Callable
from dataclasses import Field
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from bbqrec_core.config import Checked

NEEDS = {
    "width": {"heads": 1},
    "loss": {"output": "items", "seen_offset": False, "score_reweight": False},
}  # what makes every value of a setting possible


def hint_of(stage: type[Checked], spec: Field) -> object:
    """The type of a field."""
    return get_type_hints(stage)[spec.name]


def refuses_a_value_of_another_type(make: Callable[..., Checked], spec: Field, hint: object) -> None:
    """The error names the setting."""
    wrong = {bool: 1, int: 1.5, float: "0.1", str: 3}.get(hint, 7)
    for value in (wrong, None, [1, 2]):
        with pytest.raises(ValueError, match=spec.name):
            make(**{spec.name: value})
    if hint in (int, float):
        with pytest.raises(ValueError, match=spec.name):
            make(**{spec.name: True})


def has_a_bound_that_is_enforced_and_allowed(make: Callable[..., Checked], spec: Field, hint: object) -> None:
    """Holds for every field that is a number; others have no bound."""
    if hint not in (int, float):
        return
    low = spec.metadata["low"]
    assert getattr(make(**{spec.name: hint(low)}, **NEEDS.get(spec.name, {})), spec.name) == low
    with pytest.raises(ValueError, match=f"{spec.name} must be at least {low}.*, got {low - 1}"):
        make(**{spec.name: hint(low - 1)})
    if hint is float:
        for value in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{spec.name}.*{value}"):
                make(**{spec.name: value})


def stays_below_one(make: Callable[..., Checked], name: str) -> None:
    """Holds for a share: one is refused."""
    make(**{name: 0.99})
    with pytest.raises(ValueError, match=r"must be at least 0.0 and below 1, got 1.0"):
        make(**{name: 1.0})


def names_what_is_allowed(make: Callable[..., Checked], spec: Field, hint: object) -> None:
    """Holds for every field that is a choice: each value can be chosen, another one is refused."""
    if get_origin(hint) is not Literal:
        return
    for choice in get_args(hint):
        assert getattr(make(**{spec.name: choice}, **NEEDS.get(spec.name, {})), spec.name) == choice
    with pytest.raises(ValueError, match=f"{spec.name} must be one of {', '.join(get_args(hint))}, got 'nosuch'"):
        make(**{spec.name: "nosuch"})


def turns_lists_into_tuples_and_whole_numbers_into_floats(make: Callable[..., Checked]) -> None:
    """`make` gives settings of stage 1."""
    config = make(signals=["text", "image"], w_mi=1)
    assert config.signals == ("text", "image")
    assert isinstance(config.w_mi, float)
    hash(config)
