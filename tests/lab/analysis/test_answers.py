"""Answers of the collision notebook: their words follow the numbers that they quote, of either sign and at zero."""

import numpy as np
import pytest

from bbqrec_lab.analysis import answers
from bbqrec_lab.analysis.neighbours import Purity
from bbqrec_lab.analysis.recovery import Stability


def curve(any_two: float, one_code: float, error: float = 0.01, pairs: int = 99) -> Purity:
    return Purity(np.array([any_two, one_code]), np.array([error, error]), np.array([pairs, pairs]))


def grouped(together: float, whole: float) -> Stability:
    return Stability(*(np.array(values) for values in ((0.0, 0.0), (together, whole), (0.1, 0.0))))


@pytest.mark.parametrize(
    ("before", "kept", "words"),
    [
        ({"a": 3.0, "b": 9.04}, {"a": 0.0, "b": 0.0}, ["from 3.0 % (a) to 9.0 % (b)", "an ID, leave none."]),
        (
            {"a": 3.0, "b": 9.0, "c": 3.01},
            {"a": 0.0, "b": 1.25, "c": 0.0},
            ["3.0 % (a and c)", "leave some for b (1.2 %)"],
        ),
        ({"a": 0.0, "b": 0.01}, {"a": 0.0, "b": 0.0}, ["all tokenizers have 0.0 % collisions", "leave none"]),
        ({"a": 5.0}, {"a": 5.0}, ["all tokenizers have 5.0 % collisions", "some for a (5 %)"]),
    ],
)
def test_repairs_name_the_ends_and_what_remains(before: dict, kept: dict, words: list[str]) -> None:
    said = answers.repairs(before, kept)
    assert all(part in said for part in words), said


@pytest.mark.parametrize(
    ("rate", "alike", "words"),
    [
        ((5.0, 1.0), (2.0, 1.0), ["no: random-ids collides least (1.0 %), but bbqrec has", "2.00", "mean nothing"]),
        ((1.0, 5.0), (2.0, 1.0), ["yes: bbqrec collides least (1.0 %) and has the most", "rank 2 of 2"]),
        ((1.0, 5.0), (-0.5, 1.0), ["no: bbqrec collides least", "but random-ids has the most"]),
        ((1.0, 5.0), (np.nan, np.nan), ["Not known: bbqrec collides least (1.0 %)"]),
        ((1.0, 5.0), (np.nan, 1.0), ["no:", "random-ids has the most shared users (1.00"]),
        ((0.0, 0.0), (1.0, 1.0), ["yes: bbqrec and random-ids collide least", "and have the most"]),
    ],
)
def test_a_low_rate_is_a_good_sign_only_if_one_tokenizer_has_both(rate: tuple, alike: tuple, words: list[str]) -> None:
    names = ("bbqrec", "random-ids")
    said = answers.low_rate(dict(zip(names, rate, strict=True)), dict(zip(names, alike, strict=True)))
    assert all(part in said for part in words), said


@pytest.mark.parametrize(
    ("signals", "events", "words"),
    [
        ([0.5, 0.5, 1, 1], [1, 3, 9, 9], ["fewer signals (50.0 % of all against 100.0 %)", "fewer training events"]),
        ([1, 1, 0.5, 0.5], [9, 9, 1, 3], ["more signals (100.0 %", "more training events (median 9 against 2)"]),
        ([1, 1, 1, 1], [0, 0, 0, 0], ["as many signals", "as many training events (median 0 against 0)"]),
    ],
)
def test_colliding_items_are_compared_with_the_others(signals: list, events: list, words: list[str]) -> None:
    said = answers.who_collides(np.array([1, 1, 0, 0], bool), np.array(signals), np.array(events))
    assert all(part in said for part in words), said


def test_a_catalogue_without_the_other_kind_of_item_says_so() -> None:
    some = np.ones(2)
    assert answers.who_collides(np.zeros(2, bool), some, some) == "No two items share an ID."
    assert answers.who_collides(np.ones(2, bool), some, some) == "Every item shares its ID with another one."


def test_a_difference_of_less_than_a_point_of_signals_is_none() -> None:
    said = answers.who_collides(np.array([1, 0], bool), np.array([0.945, 0.944]), np.ones(2))
    assert "about as many signals (94.5 % of all against 94.4 %)" in said


def test_a_prefix_has_a_meaning_only_beyond_its_interval() -> None:
    found = {
        "up": curve(0.1, 0.3),
        "down": curve(0.3, 0.1),
        "flat": curve(0.1, 0.12),
        "equal": curve(0.1, 0.1, 0.0),
        "rare": curve(0.1, 0.9, pairs=9),
        "lonely": Purity(np.full(2, np.nan), np.full(2, np.nan), np.zeros(2, int)),
    }
    assert answers.shared_users({"cosine": found}) == (
        "By cosine two items with one first code are more alike than any two items for up (0.100 to 0.300), less alike "
        "for down (0.300 to 0.100), not clearly different for flat (0.100 to 0.120) and equal (0.100 to 0.100), too "
        "few to compare for rare and lonely."
    )


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ({"bbqrec": 1.0, "a": 2.0, "b": 3.0}, "The claim holds here: bbqrec (1.0 %) collides less than all 2"),
        ({"bbqrec": 2.5, "a": 2.0, "b": 3.0}, "only in part here: bbqrec (2.5 %) collides less than 1 of the 2"),
        (
            {"bbqrec": 9.0, "a": 2.0, "b": 3.0},
            "The claim fails here: bbqrec (9.0 %) does not collide less than any of the 2",
        ),
        ({"bbqrec": 0.0, "a": 0.0, "b": 0.0}, "The claim fails here"),
        ({"bbqrec": 1.0}, "Not tested: no other tokenizer has IDs as long and at most the 64 vectors"),
        ({"bbqrec": 1.0, "large": 9.0}, "Not tested"),
        ({"bbqrec": 1.0, "a": 2.0, "short": 9.0}, "less than all 1 tokenizers"),
        ({"bbqrec": 1.0, "short": 9.0}, "Not compared, because of another length of IDs: short."),
    ],
)
def test_the_claim_is_tested_on_tokenizers_without_more_vectors(rate: dict, words: str) -> None:
    memory = {"bbqrec": 64, "a": 64, "b": 32, "large": 65, "short": 32, "random-ids": 0}
    said = answers.claim(rate | {"random-ids": 0.0}, memory, dict.fromkeys(memory, 3) | {"short": 2})
    assert words in said, said
    assert "random-ids" not in said
    assert ("another length" in said) == ("short" in rate)


def test_what_the_claim_fails_against_is_named_with_its_rate() -> None:
    three = ("bbqrec", "a", "b")
    said = answers.claim(
        dict(zip(three, (2.5, 2.0, 3.0), strict=True)), dict.fromkeys(three, 64), dict.fromkeys(three, 3)
    )
    assert said.endswith("but not less than a (2.0 %).")


@pytest.mark.parametrize(
    ("ndcg", "words"),
    [
        ((0.3, 0.2, 0.1, np.nan), "in 3 of 3 pairs, where chance is half; a has the highest, 0.3000"),
        ((0.1, 0.2, 0.3, np.nan), "in 0 of 3 pairs, where chance is half; c has the highest, 0.3000"),
        ((0.2, 0.2, np.nan, np.nan), "in no pair, because it is equal in one of the two, where"),
        ((0.2, 0.1, 0.2, np.nan), "in 1 of 2 pairs (1 more is equal in one of the two)"),
        (
            (0.1, 0.2, np.nan, 0.3),
            "in 0 of 1 pairs, with random-ids in 2 of 3 pairs, where chance is half; random-ids has",
        ),
        ((0.1, np.nan, np.nan, 0.3), "in 1 of 1 pairs, where chance is half; random-ids has"),
        ((0.2, np.nan, np.nan, np.nan), "not known"),
    ],
)
def test_rate_and_quality_are_compared_by_pairs_and_without_the_control_first(ndcg: tuple, words: str) -> None:
    names = ("a", "b", "c", "random-ids")
    rate = dict(zip(names, (1.0, 2.0, 3.0, 0.1), strict=True))
    said = answers.rate_and_quality(rate, dict(zip(names, ndcg, strict=True)), dict.fromkeys(names, ()))
    assert words in said, said
    assert "Left out" not in said


def test_a_run_with_another_recommender_is_no_evidence_about_its_ids() -> None:
    rate, ndcg = {"a": 1.0, "b": 2.0, "tiger": 0.5}, {"a": 0.3, "b": 0.2, "tiger": 0.9}
    said = answers.rate_and_quality(rate, ndcg, {"a": [], "b": [], "tiger": ["reweight", "features"]})
    assert "Of a and b, which have the same recommender, the one with fewer" in said
    assert "in 1 of 1 pairs" in said
    assert said.endswith("tiger (0.9000: its recommender differs in reweight and features).")
    alone = answers.rate_and_quality(rate, ndcg, {"a": [], "b": ["output"], "tiger": ["output"]})
    assert alone.startswith("Whether fewer collisions go with better lists is not known")


@pytest.mark.parametrize(
    ("ours", "random", "ndcg", "words"),
    [
        (0.3, 0.1, (0.13, 0.12), ("items for bbqrec (0.100 to 0.300), not clearly", "0.1300, higher than that with")),
        (0.1, 0.1, (0.12, 0.13), ("not clearly different for bbqrec (0.100 to 0.100) and random", "lower than that")),
        (
            0.05,
            0.1,
            (0.13, 0.13),
            ("less alike for bbqrec", "0.1300, equal to that with random IDs (0.1300, one seed)."),
        ),
        (0.2, 0.1, (0.13, np.nan), ("9 of 60 items", "not clearly different for random-ids (0.100 to 0.100).")),
    ],
)
def test_meaning_and_accuracy_are_told_apart(ours: float, random: float, ndcg: tuple, words: tuple) -> None:
    both = ("bbqrec", "random-ids")
    alike = dict(zip(both, (curve(0.1, ours), curve(0.1, random)), strict=True))
    said = answers.shared_meaning((9, 60, 4.2), "They are rare.", alike, dict(zip(both, ndcg, strict=True)))
    assert all(word in said for word in words), said


def test_items_that_share_an_id_are_not_confused_with_the_collision_rate() -> None:
    alike = {"bbqrec": curve(0.1, 0.3)}
    said = answers.shared_meaning((91, 1682, 2.9), "They are rare.", alike, {})
    assert "91 of 1,682 items of bbqrec share their ID with another item (5.4 %; the collision rate is 2.9 %)." in said
    assert "They are rare." in said
    assert "They are rare." not in answers.shared_meaning((0, 1682, 0.0), "They are rare.", alike, {})


def test_seeds_are_compared_with_the_range_of_chance() -> None:
    found = {
        "a": grouped(0.5, 0.06),
        "b": grouped(0.104, 0.87),
        "c": grouped(0.05, np.nan),
        "d": grouped(1.0, 1.0),
        "e": grouped(np.nan, np.nan),
    }
    assert answers.seeds(found, dict.fromkeys(found, (0.09, 0.11))) == (
        "Pairs of items below one first code stay together under another seed always for d (100.0 %, by chance 9.0 to "
        "11.0 %), more often than by chance for a (50.0 %, by chance 9.0 to 11.0 %), no more often than by chance for "
        "b (10.4 %, by chance 9.0 to 11.0 %), less often than by chance for c (5.0 %, by chance 9.0 to 11.0 %), not "
        "known for e, where no two items share a first code. Pairs that share a whole ID do so under another seed too: "
        "a 6 %, b 87 %, c has none, d 100 % and e has none."
    )


def test_a_tree_is_told_level_by_level_and_only_beyond_random_ids() -> None:
    found = {
        "bbqrec": [[0.36, 0.47], [0.1, 0.18]],
        "tiger": [[0.24, 0.2], [0.1, 0.28]],
        "poor": [[0.02, 0.0], [0.0, -0.1]],
        "random-ids": [[-0.001, 0.0], [0.0, 0.02]],
    }
    said = answers.true_tree({name: np.array(values) for name, values in found.items()})
    one, two, best = said.split("; ")[0], said.split("; ")[1].split(". ")[0], said.split("The highest")[1]
    poor = "poor {:.2f}, no better than random IDs"
    assert one == f"1 code against level 1 of the tree: bbqrec 0.36, tiger 0.24, {poor.format(0.02)}, random-ids 0.00"
    assert two == f"2 codes against level 2 of the tree: tiger 0.28, bbqrec 0.18, {poor.format(-0.1)}, random-ids 0.02"
    assert "bbqrec 0.47, tiger 0.28" in best
    assert "not defined" in answers.true_tree({"a": np.array([[np.nan]]), "random-ids": np.array([[np.nan]])})


@pytest.mark.parametrize(
    ("ablations", "words"),
    [
        ({"no-club": 2.2, "own": 2.31, "no-sequence": 1.6}, "Of 3 tokenizers that are bbqrec (2.20) with one part"),
        (
            {"no-club": 2.204, "own": 2.31, "low": 1.6},
            "no-club (2.20) and own (2.31) have at least as many, so those parts add none",
        ),
        ({"low": 1.6}, "none has as many shared users"),
        ({}, "mean nothing."),
    ],
)
def test_parts_that_do_not_add_shared_users_are_named(ablations: dict, words: str) -> None:
    alike = {"bbqrec": 2.2, "random-ids": 1.0} | ablations
    said = answers.low_rate(dict.fromkeys(alike, 1.0), alike, list(ablations))
    assert words in said, said
    assert ("one part removed" in said) == bool(ablations)
