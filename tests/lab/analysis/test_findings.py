"""Sentences about results never contradict the numbers in them, for numbers of both signs and none."""

import numpy as np
import polars as pl
import pytest

from bbqrec_lab.analysis import findings
from bbqrec_lab.analysis.neighbours import Against, Profile, Purity, Word


def purity(any_two: float, same: float, error: float = 0.01) -> Purity:
    return Purity(np.array([any_two, same, 0.9]), np.array([error] * 3), np.array([9, 9, 9]))


@pytest.mark.parametrize(
    ("likeness", "expected"),
    [
        (purity(0.1, 0.3), "share more users than any two items: 0.300 against 0.100"),
        (purity(0.3, 0.1), "share fewer users than any two items: 0.100 against 0.300"),
        (purity(0.226, 0.229), "share about as many users as any two items: 0.229 against 0.226"),
        (purity(0.1, 0.3, np.nan), "share about as many"),
        (purity(0.1, np.nan), "cannot be compared"),
    ],
)
def test_shared_users_say_more_only_beyond_the_error(likeness: Purity, expected: str) -> None:
    assert expected in findings.shared_users(likeness)


def test_facts_have_days_shares_and_separated_thousands() -> None:
    facts = {
        "interactions": "3743",
        "density": "0.155958",
        "sequence length mean / median": "1418.715 / 14",
        "first / last timestamp (Unix seconds)": "1600063492 / 1612450208",
        "rank correlation of item number and item popularity": "-0.81",
        "items with text": "3331 (89.0 %)",
        "time ties": "seeded shuffle, split_seed 12345",
    }
    shown = findings.facts_in_words(pl.DataFrame({"what": list(facts), "value": list(facts.values())}))
    assert shown.rows() == [
        ("interactions", "3,743"),
        ("pairs of a user and an item with an event", "at most 16 %"),
        ("sequence length mean / median", "1,418.7 / 14"),
        ("first / last day", "2020-09-14 / 2021-02-04"),
        ("rank correlation of item number and item popularity", "-0.81"),
        ("items with text", "3,331 (89.0 %)"),
        ("time ties", "seeded shuffle, split_seed 12345"),
    ]
    order = pl.DataFrame({"what": ["first / last timestamp (no unit, order alone)"], "value": ["0 / 5120"]})
    assert findings.facts_in_words(order)["value"].to_list() == ["0 / 5,120"]


def test_words_come_with_their_counts_or_say_that_there_are_none() -> None:
    assert findings.words([Word("space", 7, 3, 4.24)], 35) == "space (7 of 35 items, lift 4.2)"
    assert findings.words([], 35).startswith("no word is in 5 of its texts")


def group(events: float, years: float, found: list[Word] = ()) -> Profile:
    return Profile(10, list(found), Against(years, 1994.5, 1996), Against(events, 120, 27))


def test_what_items_have_in_common_begins_with_words_and_then_with_the_clearest_number() -> None:
    assert findings.in_common(group(0.97, 0.3, [Word("space", 7, 3, 4.24)])) == (
        "words: space (7 of 10 items, lift 4.2); more training events than another item in 97 % of pairs (median "
        "training events 120, of all items 27); earlier than another item in 70 % of pairs (median year 1994.5, of all "
        "items 1996)"
    )
    told = findings.in_common(group(0.4, 0.95))
    assert told.index("later than another item in 95 % of pairs") < told.index("fewer training events than another")
    assert "as often as not (median training events" in findings.in_common(group(0.502, 0.9))
    assert findings.in_common(group(np.nan, np.nan)).startswith("words: no word")
    assert "median" not in findings.in_common(group(np.nan, np.nan))


def test_agreement_is_called_by_its_side_of_chance() -> None:
    more, less, same = ("a", (0.3, 0.1)), ("b", (0.1, 0.3)), ("c", (0.2, 0.2))
    told = findings.agreement(dict([more, less, same]))
    assert told[0] == "a: the same code for 30.0 % of items, more often than by chance (10.0 %)."
    assert "less often than by chance (30.0 %)" in told[1]
    assert "as often as by chance (20.0 %)" in told[2]
    assert (
        "by chance in 1 of 3 comparisons, and do so for 10.0 to 30.0 % of the items: most items have differ" in told[3]
    )
    assert "in 1 of 1 comparisons, and do so for 30.0 % of" in findings.agreement(dict([more]))[-1]
    assert "no two signals choose the same code more often" in findings.agreement(dict([less, same]))[-1]
    assert findings.agreement({}) == ["No item has two signals here, so there is no agreement to measure."]


def test_agreeing_signals_are_called_alike_only_where_most_items_are() -> None:
    assert findings.agreeing({"a": (0.9, 0.1), "b": (0.6, 0.1)}).endswith(
        "most items have the same code in both signals"
    )
    assert "only some of the pairs" in findings.agreeing({"a": (0.9, 0.1), "b": (0.2, 0.1)})
    assert "most items have different codes" in findings.agreeing({"a": (0.005, 0.0), "b": (0.111, 0.006)})
    assert findings.agreeing({}) == "no item has two signals that could agree"


def test_each_term_is_credited_only_with_what_it_changes() -> None:
    told = findings.less_nuisance({"both terms": (0.91, 0.22), "no pull": (0.34, 0.6), "no CLUB": (0.95, 0.22)})
    assert told[0].startswith("both terms against no pull: less nuisance in the quantized parts (0.22 against 0.60)")
    assert "and more behaviour (0.91 against 0.34)" in told[0]
    assert "equally much nuisance in the quantized parts (0.22 against 0.22) and less behaviour" in told[1]
    assert "more nuisance" in findings.less_nuisance({"both terms": (0.5, 0.4), "no CLUB": (0.5, 0.1)})[0]


@pytest.mark.parametrize(
    ("behaviour", "nuisance", "words"),
    [
        ((0.9, 0.2), (0.2, 0.8), "are separated: behaviour factor: 0.90 in behaviour, 0.20 in specific parts"),
        ((0.9, 0.2), (0.8, 0.2), "are separated only in part"),
        ((0.2, 0.9), (0.8, 0.2), "are not separated"),
        ((0.5, 0.5), (0.5, 0.5), "are separated only in part"),
    ],
)
def test_planted_factors_are_separated_only_if_each_is_in_its_part(
    behaviour: tuple, nuisance: tuple, words: str
) -> None:
    both = zip(("behaviour factor", "own nuisance"), (behaviour, nuisance), strict=True)
    gains = {name: dict(zip(("behaviour", "specific"), values, strict=True)) for name, values in both}
    assert words in findings.separated(gains, planted=True)


def test_on_real_data_no_factor_is_called_behaviour_or_nuisance() -> None:
    gains = {"Drama": {"behaviour": 0.6, "specific": 0.2}, "popular half": {"behaviour": 0.1, "specific": 0.2}}
    told = findings.separated(gains | {"whole": {"codes": 0.5}}, planted=False)
    assert "know more than the specific parts about 1 of 2 factors" in told
    assert "not known on real data" in told
    assert "cannot be seen" in findings.separated({"whole": {"codes": 0.5}}, planted=False)


def test_dependence_is_seen_only_above_chance() -> None:
    told = findings.dependence({"a": (0.5, 0.1), "b": (0.05, 0.1)})
    assert told == [
        "a: 0.50, by chance up to 0.10: they depend on each other.",
        "b: 0.05, by chance up to 0.10: no dependence is visible.",
    ]


@pytest.mark.parametrize(
    ("recommended", "drawn", "expected"),
    [
        ([0.2, 0.8], [0.5, 0.5], "That is more than random (80% of recommended and 50% of random items"),
        ([0.5, 0.5], [0.2, 0.8], "That is fewer than random (50% of recommended and 80% of random items"),
        ([0.4, 0.6], [0.39, 0.61], "That is about as many as random"),
        ([0.4, 0.1, 0.5], [0.4, 0.5, 0.1], "That is more than random (60% of recommended and 60%"),  # longer ones count
    ],
)
def test_shared_prefixes_are_compared_with_random_items(recommended: list, drawn: list, expected: str) -> None:
    told = findings.shared_prefixes(np.array(recommended), np.array(drawn), np.array(drawn))
    assert expected in told[1]
    assert ("go together" in told[1]) == ("more than" in expected)


@pytest.mark.parametrize(
    ("without", "side", "evidence"),
    [([0.2, 0.8], "about as many as", False), ([0.1, 0.9], "fewer than", False), ([0.6, 0.4], "more than", True)],
)
def test_shared_prefixes_are_evidence_only_beyond_a_model_without_codes(
    without: list, side: str, evidence: bool
) -> None:
    told = findings.shared_prefixes(np.array([0.2, 0.8]), np.array([0.5, 0.5]), np.array(without))
    assert f"It is {side} with item-knn ({1 - without[0]:.0%} share a first code)" in told[2]
    assert ("no evidence" in told[2]) != evidence
    assert not any("reason for" in one and "no evidence" not in one for one in told), "two bars never give a reason"


def test_a_beam_lost_only_what_exact_scoring_has_more() -> None:
    assert "have 28.4%: this beam lost some" in findings.beam_loss(0.278, 0.284, 8)
    assert "have 28.4% too: this beam lost nothing" in findings.beam_loss(0.28399, 0.284, 8)


def test_recall_says_who_is_ahead() -> None:
    assert "is 0.200, ahead of popularity with 0.100" in findings.recall_against(0.2, 0.1, 1000)
    assert "is 0.100, behind popularity with 0.200" in findings.recall_against(0.1, 0.2, 1000)
    assert "equal to popularity" in findings.recall_against(0.1, 0.1, 1000)
    assert findings.recall_against(0.1, 0.1, 1000).endswith("about 0.010.")
    assert findings.recall_against(0.1, 0.1, 5).endswith("about 1.000.")


def test_facts_about_the_data_are_said_only_where_they_hold() -> None:
    assert "the whole order" in findings.ties(0, 0)[0]
    assert findings.ties(0.5, 0)[1].startswith("No user's last two events")
    assert findings.ties(0.5, 0.25)[1].startswith("For 25.0 % of users")
    assert "can only help" in findings.repeats(0)
    assert findings.repeats(1200).startswith("1,200 events repeat")
    assert findings.cold(0, 0)[0].startswith("Every item has a training event")
    assert findings.cold(0.1, 0)[1] == "No test target is such an item."
    assert findings.cold(0.1, 0.02)[1].startswith("2.0 % of test targets")


@pytest.mark.parametrize(
    ("weight", "epoch", "expected"),
    [
        (
            (0.9, 0.5),
            (3, 9),
            ("more with it", "in epoch 3 with the table and in epoch 9 without: here the table saves"),
        ),
        ((0.5, 0.9), (9, 3), ("less with it", "does not make learning faster")),
        ((0.9, 0.9), (4, 4), ("about the same with it", "learn equally fast")),
        ((0.9, 0.9), (31, 31), ("about the same", "not within 30 epochs without: here neither learns")),
        ((0.9, 0.9), (8, 31), ("about the same", "in epoch 8 with the table and not within 30 epochs without")),
    ],
)
def test_a_table_helps_only_where_the_numbers_say_so(weight: tuple, epoch: tuple, expected: tuple) -> None:
    by_name = ({"learned table": one, "no table": other} for one, other in (weight, epoch))
    told = findings.learned_map(*by_name, 30)
    assert [part in sentence for part, sentence in zip(expected, told, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("recall", "words"),
    [
        ((0.31, 0.255), "31.0 % of users find their hidden item, more than with popularity (25.5 %)."),
        ((0.2, 0.255), "20.0 % of users find their hidden item, less than with popularity (25.5 %)."),
        ((0.2550001, 0.255), "25.5 % of users find their hidden item, as much as with popularity (25.5 %)."),
    ],
)
def test_the_first_look_compares_as_printed_and_names_only_outputs_that_exist(recall: tuple, words: str) -> None:
    found = dict(zip(("bbqrec", "popularity"), recall, strict=True))
    both = findings.first_look(1200, 3, 16, ("by its ID", "direct"), 0.01, found)
    assert words in both
    assert "a name of 3 codes" in both
    assert "1,200 items with 16 different first codes" in both
    assert "code by code and scores each item directly (in the score the ID has weight 0.01, the item 1);" in both
    assert "The model scores each item directly;" in findings.first_look(9, 3, 2, ("direct",), 0.01, found)


def test_traps_are_told_for_data_with_and_without_them() -> None:
    assert findings.traps(0.25, 0.44, 0.52, 0.18, 0.167, 0.01) == (
        "In these data the order of 25.0 % of steps is not known, among them the last step of 44.0 % of users; item "
        "numbers by first appearance would reveal popularity (rank correlation +0.52: popular items have large "
        "numbers), so rows are permuted; 16.7 % of items lack a signal, and 1.0 % have no training event."
    )
    assert "-0.52: popular items have small numbers" in findings.traps(0.25, 0.0, -0.52, 0.18, 0.167, 0.01)
    assert "not known, but that of every last step is;" in findings.traps(0.25, 0.0, -0.52, 0.18, 0.167, 0.01)
    none = findings.traps(0.0, 0.0, -0.1, 0.18, 0.0, 0.0)
    for words in ("give the whole order", "hardly reveal popularity", "every item has every signal", "none is without"):
        assert words in none
    assert "no numbering can reveal" in findings.traps(0.0, 0.0, np.nan, 0.18, 0.0, 0.0)


def test_the_content_of_a_dataset_is_told_with_its_split() -> None:
    told = findings.content(943, 1682, ["graph", "text"], (98114, 943, 943))
    assert told.startswith(
        "943 users and 1,682 items with graph and text as modalities; 98,114 events are for training"
    )
    assert "without a modality" in findings.content(3, 4, [], (4, 3, 3))


def test_what_codes_know_is_told_by_factor_and_also_without_any() -> None:
    gains = {"behaviour": {"raw": 0.98, "quantized": 0.6, "codes": 0.5}, "popular half": {"codes": -0.02}}
    agree = {"a": (0.1, 0.0), "b": (0.005, 0.005)}
    told = findings.what_codes_know((2, 16), gains, agree)
    assert "2 levels of 16 codes" in told
    assert "(in brackets: in the raw features, mean over modalities) behaviour 0.50 (0.98), popular half -0.02," in told
    assert "raw" not in findings.what_codes_know((2, 16), {"popular half": {"codes": 0.1}}, agree)
    assert "in 1 of 2 comparisons, and do so for 0.5 to 10.0 % of the items" in told
    none = findings.what_codes_know((2, 16), {}, {})
    assert "cannot be probed" in none
    assert "no item has two signals" in none


def test_what_is_above_chance_is_so_in_every_sentence() -> None:
    pairs = {"a": (0.11, 0.1), "b": (0.104, 0.1), "c": (0.1, 0.2)}
    told = findings.agreement(pairs)
    assert sum(findings.above_chance(*pair) for pair in pairs.values()) == 1
    assert "in 1 of 3 comparisons" in told[-1]
    assert [one.split("items, ")[1].split(" by chance")[0] for one in told[:3]] == [
        *("more often than", "as often as", "less often than")
    ]


def test_a_code_means_its_words_and_what_others_keep() -> None:
    chance = (0.012, 0.018)
    kept = {"up": (0.118, chance), "same": (0.0152, chance), "down": (0.01, chance), "none": (np.nan, chance)}
    told = findings.code_meaning(25, group(0.97, 0.7, [Word("space", 7, 3, 4.24)]), kept)
    assert "First code 25 has 10 items; typical are words: space (7 of 10 items, lift 4.2); more training" in told
    assert "up 11.8 %, more than by chance (1.2 to 1.8 %); same 1.5 %, no more than by chance (1.2 to 1.8 %)" in told
    assert "down 1.0 %, less than by chance" in told
    assert "none: not known, because no two items share a first code" in told
    assert "Of the pairs" not in findings.code_meaning(1, group(0.5, 0.5), {})


def test_attention_to_alike_items_is_summed_over_channels_and_counted_by_head() -> None:
    rise = np.array([[[0.5, -0.5, 0.004], [0.1, 0.2, 0.0]]])  # one layer, two channels, three heads
    told = findings.attention_to_alike(rise)
    assert "more attention in 1 and less in 1 of 3 heads (+0.60, -0.30, +0.00 logits" in told


def test_reweighting_is_told_by_the_side_of_its_interval() -> None:
    effects = {"up": (0.02, 0.01, 0.03), "down": (-0.02, -0.03, -0.01), "open": (0.01, -0.01, 0.03)}
    told = findings.reweighting(np.array([[[0.1, -0.2]], [[0.3, -0.4]]]), 0.015, 0.03, effects)
    assert told.startswith("A pair that is most alike in every channel")
    assert "move 1.5 % of the weight" in told
    assert "is +0.03 logits, a factor of 1.03" in told
    assert "up changes it by +0.0200 (+0.0100 to +0.0300): better with it; down changes" in told
    assert "down changes it by -0.0200 (-0.0300 to -0.0100): worse with it;" in told
    assert "open changes it by +0.0100 (-0.0100 to +0.0300): open, because the interval contains zero." in told
