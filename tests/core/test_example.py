"""The example in the core's docstring runs as it is printed."""

import doctest

import bbqrec_core


def test_the_example_of_the_package_runs() -> None:
    found = doctest.testmod(bbqrec_core)
    assert found.attempted >= 10
    assert found.failed == 0


def test_public_names_are_those_of_the_method() -> None:
    assert {"fit_tokenizer", "fit_recommender", "SemanticIds", "Dataset"} <= set(dir(bbqrec_core))
