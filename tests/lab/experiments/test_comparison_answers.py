"""Answers of the notebooks on results: their words follow the numbers that they quote, of either sign and at zero."""

import numpy as np
import polars as pl
import pytest

from bbqrec_lab.experiments import answers, statistics


def compared(*lines: tuple) -> pl.DataFrame:
    """Comparisons with `bbqrec`: against, difference, low, high, p_holm."""
    schema = {"against": pl.String} | dict.fromkeys(["difference", "low", "high", "p_holm"], pl.Float64)
    return pl.DataFrame(lines, schema=schema, orient="row")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((0.1, -0.01, 0.2, 0.3), ["Not clear", "+0.100", "-0.010 to +0.200 contains zero", "p is 0.300, so chance"]),
        ((0.1, 0.01, 0.2, 0.07), ["Not clear", "+0.010 to +0.200 excludes zero"]),
        ((0.1, 0.01, 0.2, 0.01), ["Clear in favour of ours", "excludes zero"]),
        ((-0.1, -0.2, -0.01, 0.01), ["Clear in favour of theirs", "-0.200 to -0.010 excludes zero"]),
        ((0.0, 0.0, 0.0, 1.0), ["Not clear", "contains zero"]),
    ],
)
def test_an_interval_is_told_by_its_numbers(found: tuple, words: list[str]) -> None:
    said = answers.interval(*found)
    assert all(part in said for part in words), said


@pytest.mark.parametrize(
    ("means", "seeds", "words"),
    [
        ({"a": 0.3, "bbqrec": 0.2, "b": 0.1}, 3, "rank 2 of 3 with 0.2000, and a leads with 0.3000; its 3 seeds span"),
        ({"a": 0.1, "bbqrec": 0.2}, 3, "rank 1 of 2 with 0.2000; its 3 seeds span 0.0100, and the range of all"),
        ({"a": 0.20001, "bbqrec": 0.2}, 3, "rank 1 of 2 with 0.2000, together with a;"),
        ({"a": 0.3, "b": 0.3, "bbqrec": 0.2}, 1, "a and b lead with 0.3000; one seed does not show"),
        ({"bbqrec": 0.2}, 1, "rank 1 of 1"),
        ({"a": 0.0, "bbqrec": 0.0}, 3, "No variant finds a target"),
        ({"a": 0.1, "bbqrec": 0.0}, 3, "rank 2 of 2 with 0.0000"),
    ],
)
def test_the_standing_counts_ties_as_printed(means: dict, seeds: int, words: str) -> None:
    assert words in answers.standing(means, 0.01, seeds)


def test_shares_of_a_score_of_zero_are_not_given() -> None:
    means = {"bbqrec": 0.2, "a": 0.3, "b": 0.0}
    assert answers.relative(means, ("a", "b")) == "Of the NDCG@10 of bbqrec: a reaches 150%, b reaches 0%."
    assert "no share" in answers.relative(means | {"bbqrec": 0.0}, ("a",))


def test_clear_names_each_variant_once_and_quotes_the_intervals_of_the_open_ones() -> None:
    asked = compared(
        ("up", 0.5, 0.4, 0.6, 0.01),
        ("down", -0.5, -0.6, -0.4, 0.04),
        ("open up", 0.1, -0.02, 0.3, 0.05),
        ("open down", -0.1, -0.2, 0.01, 0.9),
        ("equal", 0.0, 0.0, 0.0, 1.0),
    )
    assert answers.verdicts(asked) == (["up"], ["down"], ["open up", "open down", "equal"])
    assert answers.clear(asked, 10) == (
        "bbqrec is clearly better than up and clearly worse than down; 3 of 5 are open (open up, open down and equal), "
        "with intervals from -0.2000 to +0.3000, which does not mean equal (p below 0.05 after Holm's correction for "
        "the 10 tests of this question)."
    )


def test_clear_can_be_told_of_one_row_of_none_open_and_of_no_row() -> None:
    one = answers.clear(compared(("up", 0.5, 0.4, 0.6, 0.01)), 2)
    assert "clearly better than up and clearly worse than none; no comparison is open" in one
    assert "1 of 1 is open (x)" in answers.clear(compared(("x", 0.5, -0.4, 0.6, 0.3)), 2)
    assert answers.clear(compared(), 0) == "There is nothing to compare with."


def test_holm_corrects_for_the_tests_of_the_question_only() -> None:
    lines = [("ndcg@10", "a", 0.02), ("recall@10", "a", 0.001), ("ndcg@10 by beam 5", "b", 0.03), ("ndcg@10", "c", 0.5)]
    frame = pl.DataFrame(lines, schema=["metric", "against", "p"], orient="row").with_columns(p_holm=pl.lit(9.0))
    found = statistics.family(frame, "ndcg@10")
    assert found["against"].to_list() == ["a", "b", "c"]
    assert found["p_holm"].to_list() == pytest.approx([0.06, 0.06, 0.5])
    assert statistics.family(frame, "ndcg@10", {"a", "c"})["p_holm"].to_list() == pytest.approx([0.04, 0.5])
    assert statistics.family(frame, "ndcg@10", {"z"}).is_empty()


def test_segments_are_told_by_sign_as_printed() -> None:
    ours = {"a": 0.3, "b": 0.1, "c": 0.20001, "only ours": 1.0, "unknown": np.nan}
    said = answers.who_gains(ours, {"a": 0.2, "b": 0.2, "c": 0.2, "unknown": 0.1}, "sasrec")
    assert said == (
        "bbqrec is above sasrec for a (+0.1000), below sasrec for b (-0.1000), equal to sasrec for c (+0.0000) (means "
        "over seeds; no test)."
    )
    assert "No segment" in answers.who_gains(ours, {}, "sasrec")


@pytest.mark.parametrize(
    ("mine", "gini", "words"),
    [
        (0.7, 0.5, ["more than popularity (50.0 %) and more evenly (0.600)", "more than random-ids"]),
        (0.3, 0.9, ["less than popularity (50.0 %) and less evenly (0.600)", "less than random-ids"]),
        (0.5001, 0.6001, ["as much as popularity (50.0 %) and as evenly (0.600)"]),
    ],
)
def test_coverage_is_told_by_sign(mine: float, gini: float, words: list[str]) -> None:
    others = {"popularity": [0.5], "random-ids": [0.5]}
    said = answers.coverage(others | {"bbqrec": [mine]}, {name: [0.6] for name in others} | {"bbqrec": [gini]})
    assert all(part in said for part in words), said


def test_coverage_within_the_span_of_seeds_is_about_equal() -> None:
    cover = {"bbqrec": [0.40, 0.44], "popularity": [0.30], "random-ids": [0.45]}
    said = answers.coverage(cover, {"bbqrec": [0.80, 0.80], "popularity": [0.90], "random-ids": [0.79]})
    assert "more than popularity (30.0 %) and more evenly (0.900)" in said
    assert "about as much as random-ids (45.0 %) and less evenly (0.790)" in said


def test_the_dearest_variant_is_named() -> None:
    assert "a row of bbqrec takes 2 minutes, and a takes the most, 3." in answers.cost(
        {"bbqrec": 2.0, "a": 3.0}, 4, 9.0
    )
    assert "a row of bbqrec takes 2 minutes, which is the most." in answers.cost({"bbqrec": 2.0, "a": 1.0}, 4, 9.0)


@pytest.mark.parametrize(
    ("means", "ceiling", "words"),
    [
        ({"bbqrec": 0.2, "popularity": 0.1}, 0.3, "bbqrec comes 50 % of the way from popularity to the oracle."),
        ({"bbqrec": 0.05, "popularity": 0.1}, 0.2, "bbqrec stays below popularity by 50 % of the way"),
        (
            {"bbqrec": 0.1, "popularity": 0.1, "a": 0.2},
            0.3,
            "comes 0 % of the way from popularity to the oracle; a comes",
        ),
        ({"bbqrec": 0.2, "popularity": 0.3}, 0.3, "There is no way to go"),
    ],
)
def test_the_way_to_the_ceiling_has_a_sign(means: dict, ceiling: float, words: str) -> None:
    assert words in answers.way_to_ceiling(means, ceiling)


@pytest.mark.parametrize(
    ("behaviour", "nuisance", "words"),
    [
        ([0.2, 0.4], [-0.3, -0.5], "leave less nuisance without less behaviour at ratio 0.1 (+0.20 and -0.30) and 1 ("),
        ([0.2, 0.0], [-0.3, 0.0], "at ratio 0.1 (+0.20 and -0.30), but not at 1 (+0.00 and +0.00)"),
        (
            [-0.2, 0.1],
            [-0.3, 0.2],
            "at no ratio less nuisance without less behaviour: 0.1 (-0.20 and -0.30) and 1 (+0.10",
        ),
    ],
)
def test_separation_needs_less_nuisance_and_no_less_behaviour(behaviour: list, nuisance: list, words: str) -> None:
    said = answers.separation([0.1, 1.0], behaviour, nuisance)
    assert words in said, said
    assert ("but not" in said) == (behaviour[1] == 0.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            (0.5, 0.1, 0.2),
            ["g finds 0.50 of 9 new targets, more than without backing off (0.10) and more than with random"],
        ),
        (
            (0.1, 0.2, 0.1),
            ["fewer than without backing off (0.20) and as many as with random IDs (0.10); r finds the most"],
        ),
        ((0.001, 0.0, 0.0), ["No model finds any of the 9 new targets"]),
        (
            (0.0, 0.0, 0.1),
            ["g finds 0.00", "as many as without", "fewer than with random IDs", "c finds the most (0.10)"],
        ),
    ],
)
def test_new_items_are_told_by_sign_and_not_at_all_if_none_is_found(values: tuple, words: list[str]) -> None:
    said = answers.new_items({name: [value] for name, value in zip("grc", values, strict=True)}, 9, "r", "c", "g")
    assert all(part in said for part in words), said


def test_new_items_say_when_seeds_do_not_agree() -> None:
    said = answers.new_items({"g": [0.1, 0.3], "r": [0.0, 0.0], "c": [0.2, 0.1]}, 9, "r", "c", "g")
    assert "more than without backing off (0.00) and more than with random IDs (0.15; so in 1 of 2 seeds only)" in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            ("random-ids", 0.02, 0.01, 0.03, 0.01),
            "worth something here: bbqrec minus random-ids is +0.0200 (+0.0100 to",
        ),
        (("random-ids", -0.02, -0.03, -0.01, 0.01), "in the way here: bbqrec minus random-ids is -0.0200"),
        (("random-ids", 0.02, -0.01, 0.03, 0.2), "not clearly worth anything here"),
        (("other", 0.02, 0.01, 0.03, 0.01), "not known"),
    ],
)
def test_the_meaning_of_ids_is_told_by_its_comparison(line: tuple, words: str) -> None:
    assert words in answers.meaning(compared(line))


@pytest.mark.parametrize(
    ("p", "difference", "kind"), [(0.01, 0.02, "clearly better"), (0.01, -0.02, "clearly worse"), (0.2, 0.02, "open")]
)
def test_the_victory_is_over_the_best_baseline_that_was_compared(p: float, difference: float, kind: str) -> None:
    asked = compared(("weak", 0.1, 0.1, 0.1, 0.01), ("strong", difference, -0.03, 0.03, p), ("random-ids", 0, 0, 0, 1))
    means = {"bbqrec": 0.12, "weak": 0.02, "strong": 0.1, "random-ids": 0.3, "apart": 0.5}
    said = answers.victory(asked, means, ["weak", "strong", "apart"])
    assert said.startswith("The best baseline is strong (0.1000); bbqrec (0.1200) minus strong is ")
    assert said.endswith(f"{difference / 0.1:+.0%}): {kind}.")
    assert "no baseline" in answers.victory(asked, means, ["apart"])


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (0.05, "changing the width (+0.050), more than two seeds"),
        (0.01, "changing the width (+0.010), not more than two seeds"),
        (0.0, "No size that was tried is better"),
        (-0.01, "No size that was tried is better"),
    ],
)
def test_a_size_is_compared_with_the_seeds(gain: float, words: str) -> None:
    assert words in answers.sizes({"levels": -0.02, "width": gain}, 0.02, ())


def test_a_best_size_at_the_end_of_those_tried_is_said() -> None:
    assert answers.sizes({"width": 0.05}, 0.02, {"width"}).endswith("so one beyond it may be better.")
    assert "beyond" not in answers.sizes({"width": 0.05}, 0.02, {"levels"})


@pytest.mark.parametrize(
    ("short", "long", "words"),
    [
        (
            (0.3, 0.2, 0.1),
            (0.5, 0.6, 0.2),
            "Yes: 1 of 3 pairs of these models change their order between 1 and 20 items; "
            "a leads at 1 (30.0 % of the targets), b at 20 (60.0 %).",
        ),
        (
            (0.3, 0.2, 0.1),
            (0.6, 0.2, 0.3),
            "In part: 1 of 3 pairs of these models change their order between 1 and 20 items; "
            "a leads at both lengths (30.0 % and 60.0 % of the targets).",
        ),
        ((0.3, 0.2, 0.1), (0.6, 0.5, 0.4), "No: 0 of 3 pairs"),
        (
            (0.30001, 0.3, 0.1),
            (0.4, 0.5, 0.2),
            "No: 0 of 3 pairs of these models change their order between 1 and 20 "
            "items; a and b lead at 1 (30.0 % of the targets), b at 20 (50.0 %).",
        ),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "Not known: no model finds a target."),
    ],
)
def test_an_order_changes_with_the_length_only_as_printed(short: tuple, long: tuple, words: str) -> None:
    found = (dict(zip("abc", values, strict=True)) for values in (short, long))
    assert words in answers.list_length(*found)


def hits(both: float, ours: float, theirs: float) -> dict[str, float]:
    """Shares of users as `statistics.shared_hits` gives them."""
    return {"both": both, "only bbqrec": ours, "only the baseline": theirs, "neither": 1 - both - ours - theirs}


@pytest.mark.parametrize(
    ("shared", "words"),
    [
        (
            {"a": hits(0.1, 0.2, 0.1), "b": hits(0.3, 0.0, 0.02)},
            "Only in part: bbqrec also finds 50 % (a) to 94 % (b) of "
            "the targets that each finds; a adds the most, the targets of 10.0 % of users.",
        ),
        (
            {"a": hits(0.1, 0.2, 0.1), "none": hits(0.0, 0.3, 0.0)},
            "Only in part: bbqrec also finds 50 % of the targets of a;",
        ),
        (
            {"a": hits(0.3, 0.1, 0.0)},
            "Yes: bbqrec also finds 100 % of the targets of a; no other model finds a target that bbqrec misses.",
        ),
        ({"a": hits(0.0, 0.2, 0.1)}, "No: bbqrec also finds 0 % of the targets of a; a adds the most"),
        ({"a": hits(0.0, 0.2, 0.0)}, "Not known: none of the other models finds a target."),
    ],
)
def test_common_targets_are_told_from_none_to_all(shared: dict, words: str) -> None:
    assert words in answers.same_targets(shared)


@pytest.mark.parametrize(
    ("minutes", "quality", "words"),
    [
        (
            (2, 1, 3),
            (0.2, 0.3, 0.1),
            "bbqrec takes 2 minutes and reaches 0.2000; 1 cheaper variant is at least as good (a: 1 minutes, 0.3000).",
        ),
        (
            (2, 1, 0.5),
            (0.2, 0.2, 0.4),
            "2 cheaper variants are at least as good, the best of them b (0.5 minutes, 0.4000).",
        ),
        ((2, 1, 3), (0.2, 0.1, 0.3), "reaches 0.2000; no cheaper variant is as good, and b leads with 0.3000."),
        ((2, 1, 3), (0.2, 0.1, 0.1), "reaches 0.2000, which no other variant exceeds."),
        ((2, 1, 3), (0.2, 0.1, 0.2), "reaches 0.2000; no cheaper variant is as good."),
        ((2, 1, 3), (0.0, 0.0, 0.0), "No variant finds a target"),
    ],
)
def test_the_price_is_compared_with_cheaper_variants(minutes: tuple, quality: tuple, words: str) -> None:
    names = ("bbqrec", "a", "b")
    assert words in answers.price(*(dict(zip(names, values, strict=True)) for values in (minutes, quality)))


@pytest.mark.parametrize(
    ("p", "mean", "words"),
    [
        (0.01, 0.3, "bbqrec wins: it has the highest score (0.3000) and is clearly ahead of all 1 others."),
        (0.2, 0.3, "bbqrec has the highest score (0.3000), but is not clearly ahead of a: no method wins."),
        (0.01, 0.1, "a (0.2000) is ahead of bbqrec (0.1000), clearly."),
        (0.2, 0.1, "a (0.2000) is ahead of bbqrec (0.1000), but not clearly: no method wins."),
        (0.2, 0.0, "No method finds a target."),
    ],
)
def test_the_winner_is_told_with_whether_it_is_clear(p: float, mean: float, words: str) -> None:
    other = 0.2 if mean else 0.0
    asked = pl.DataFrame({"against": ["a"], "difference": [mean - other], "p_holm": [p]})
    assert answers.winner(asked, {"bbqrec": mean, "a": other}) == words


def test_other_tables_are_told_by_rank() -> None:
    ahead, behind = {"bbqrec": 0.2, "a": 0.1}, {"bbqrec": 0.2, "a": 0.3, "b": 0.30001}
    assert answers.elsewhere({"one": ahead, "two": behind, "without": {"a": 0.3}, "nothing": {"bbqrec": 0.0}}) == (
        "bbqrec leads in 1 of 2 result tables, on one (no row of b); it has rank 3 of 3 on two (a and b lead)."
    )
    assert answers.elsewhere({"one": ahead, "two": ahead}) == "bbqrec leads in 2 of 2 result tables, on one and two."
    assert answers.elsewhere({"one": behind, "two": behind}) == (
        "bbqrec leads in none of 2 result tables: it has rank 3 of 3 on one (a and b lead) and rank 3 of 3 on two "
        "(a and b lead)."
    )
    assert answers.elsewhere({"one": behind}).endswith("this run: bbqrec has rank 3 of 3 on one (a and b lead).")
    assert answers.elsewhere({"one": ahead}).endswith("this run: bbqrec leads on one.")
    partly = answers.elsewhere({"one": {"bbqrec": 0.2, "b": 0.1}, "two": behind})
    assert partly.startswith("bbqrec leads in 1 of 2 result tables, on one (no row of a); it has rank 3")
    assert answers.elsewhere({"one": {"a": 0.1}}) == "No table has a result of bbqrec."
    assert answers.elsewhere({"one": behind, "few": {"bbqrec": 0.1}}).startswith("The only result table")


def test_expectations_are_counted_by_outcome() -> None:
    held, other, unsure = statistics.OUTCOMES
    assert answers.expectations([held, unsure, unsure]) == (
        "Of 3 expectations 1 holds, 0 are the other way round and 2 are open."
    )
    assert answers.expectations([other]) == "Of 1 expectations 0 hold, 1 is the other way round and 0 are open."


def test_the_worth_of_parts_is_told_by_verdict() -> None:
    found = answers.Verdicts(["tiger", "no-a"], ["no-b", "markov"], ["no-c", "no-d"])
    assert answers.parts(found, ["no-a", "no-b", "no-c", "no-d"]) == (
        "Of the 4 parts, 1 is worth something, because bbqrec is clearly better than no-a; 1 is clearly in the way, "
        "because bbqrec is worse than no-b; 2 are not clearly worth anything here, because the comparison is open with "
        "no-c and no-d."
    )
    assert "in the way" not in answers.parts(answers.Verdicts(["no-a"], ["tiger"], []), ["no-a"])
    assert answers.parts(found, []) == "No row of this preset removes a part of the method."
