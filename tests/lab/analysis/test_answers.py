"""Answers of the collision notebook: their words follow the numbers that they quote, of either sign and at zero."""

import numpy as np
import pytest

from bbqrec_lab.analysis import answers
from bbqrec_lab.analysis.neighbours import Purity
from bbqrec_lab.analysis.recovery import Stability


def curve(any_two: float, one_code: float, error: float = 0.01, pairs: int = 99) -> Purity:
    return Purity(np.array([any_two, one_code]), np.array([error, error]), np.array([pairs, pairs]))


def grouped(together: float, by_chance: float) -> Stability:
    return Stability(*(np.array([value]) for value in (0.0, together, by_chance)))


@pytest.mark.parametrize(
    ("before", "kept", "words"),
    [
        ({"a": 3.0, "b": 9.04}, {"a": 0.0, "b": 0.0}, ["from 3.0 % (a) to 9.0 % (b)", "they leave none"]),
        ({"a": 3.0, "b": 9.0, "c": 3.01}, {"a": 0.0, "b": 1.25, "c": 0.0}, ["3.0 % (a and c)", "some for b (1.2 %)"]),
        ({"a": 0.0, "b": 0.01}, {"a": 0.0, "b": 0.0}, ["all tokenizers have 0.0 % collisions", "they leave none"]),
        ({"a": 5.0}, {"a": 5.0}, ["all tokenizers have 5.0 % collisions", "some for a (5 %)"]),
    ],
)
def test_repairs_name_the_ends_and_what_remains(before: dict, kept: dict, words: list[str]) -> None:
    said = answers.repairs(before, kept)
    assert all(part in said for part in words), said


@pytest.mark.parametrize(
    ("rate", "alike", "words"),
    [
        ((5.0, 1.0), (2.0, 1.0), ["no: random-ids collides least (1.0 %), but bbqrec has", "2.00", "rank 1 of 2"]),
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
        "cosine: more alike for up (0.100 to 0.300), less alike for down (0.300 to 0.100), no clear difference for "
        "flat (0.100 to 0.120) and equal (0.100 to 0.100), too few pairs for rare and lonely."
    )


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ({"bbqrec": 1.0, "a": 2.0, "b": 3.0}, "The claim holds here: bbqrec (1.0 %) collides less than all 2"),
        ({"bbqrec": 2.5, "a": 2.0, "b": 3.0}, "only in part here: bbqrec (2.5 %) collides less than 1 of the 2"),
        ({"bbqrec": 9.0, "a": 2.0, "b": 3.0}, "The claim fails here: bbqrec (9.0 %) collides less than none of the 2"),
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
        ((0.3, 0.2, 0.1), "In 3 of 3 pairs of tokenizers (more than half"),
        ((0.1, 0.2, 0.3), "In 0 of 3 pairs of tokenizers (less than half"),
        ((0.2, 0.2, np.nan), "not known"),
        ((0.2, np.nan, np.nan), "not known"),
        ((0.2, 0.1, 0.2), "In 1 of 2 pairs of tokenizers (half"),
    ],
)
def test_rate_and_quality_are_compared_by_pairs(ndcg: tuple, words: str) -> None:
    rate = dict(zip("abc", (1.0, 2.0, 3.0), strict=True))
    said = answers.rate_and_quality(rate, dict(zip("abc", ndcg, strict=True)))
    assert words in said
    if "not known" not in said:
        best = max(range(3), key=ndcg.__getitem__)
        assert f"{'abc'[best]} has the highest, {ndcg[best]:.4f}" in said


@pytest.mark.parametrize(
    ("ours", "random", "ndcg", "words"),
    [
        (0.3, 0.1, (0.13, 0.12), ("more alike for bbqrec (0.100 to 0.300), no clear", "0.1300, higher than that with")),
        (0.1, 0.1, (0.12, 0.13), ("no clear difference for bbqrec (0.100 to 0.100) and random-ids", "lower than that")),
        (
            0.05,
            0.1,
            (0.13, 0.13),
            ("less alike for bbqrec", "0.1300, equal to that with random IDs (0.1300, one seed)."),
        ),
        (0.2, 0.1, (0.13, np.nan), ("4.2 % of the items", "no clear difference for random-ids (0.100 to 0.100).")),
    ],
)
def test_meaning_and_accuracy_are_told_apart(ours: float, random: float, ndcg: tuple, words: tuple) -> None:
    both = ("bbqrec", "random-ids")
    alike = dict(zip(both, (curve(0.1, ours), curve(0.1, random)), strict=True))
    said = answers.shared_meaning({"bbqrec": 4.2}, alike, dict(zip(both, ndcg, strict=True)))
    assert all(word in said for word in words), said


def test_seeds_are_compared_with_chance_as_printed() -> None:
    found = {
        "a": grouped(0.5, 0.1),
        "b": grouped(0.104, 0.1),
        "c": grouped(0.05, 0.1),
        "d": grouped(1.0, 0.2),
        "e": grouped(np.nan, 0.0),
    }
    assert answers.seeds(found) == (
        "Pairs of items below one first code stay together under another seed always for d (100 %, chance 20 %), "
        "more often than chance for a (50 %, chance 10 %), no more often than chance for b (10 %, chance 10 %) "
        "and c (5 %, chance 10 %), not known for e, where no two items share a first code."
    )


def test_a_tree_is_found_only_beyond_random_ids() -> None:
    found = {"a": 1.0, "b": 0.4, "c": 0.06, "d": -0.2, "e": np.nan, "random-ids": 0.02}
    said = answers.true_tree({name: np.array([[value, np.nan]]) for name, value in found.items()})
    assert said == (
        "The true tree is found completely by a (1.00), in part by b (0.40), no better than random IDs by c (0.06) and "
        "d (-0.20); random-ids reach 0.02 and the tree itself would reach 1."
    )
    assert "by no tokenizer" in answers.true_tree({"random-ids": np.array([[0.02]])})
