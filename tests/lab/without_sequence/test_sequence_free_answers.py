"""Sentences of notebook 10: their words follow the numbers that they quote, of either sign and at zero; its figures."""

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bbqrec_lab import plots
from bbqrec_lab.without_sequence import answers, figures


def compared(*lines: tuple) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=["against", "difference", "low", "high", "p_holm"], orient="row")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("a", 0.02, 0.01, 0.03, 0.001)], "ours: clearly better than a (+0.020 [+0.010, +0.030]) (clear"),
        ([("a", -0.02, -0.03, -0.01, 0.001)], "ours: clearly worse than a (-0.020 [-0.030, -0.010]) (clear"),
        ([("a", 0.02, -0.01, 0.03, 0.2)], "ours: open against a (+0.020 [-0.010, +0.030]) (clear"),
        ([("a", 0.0, 0.0, 0.0, 0.001)], "ours: open against a (+0.000"),
        (
            [("a", 0.02, 0.01, 0.03, 0.001), ("b", -0.02, -0.03, -0.01, 0.001), ("c", 0.02, 0.0, 0.03, 0.05)],
            "better than a (+0.020 [+0.010, +0.030]); clearly worse than b (-0.020 [-0.030, -0.010]); open against c (",
        ),
    ],
)
def test_verdicts_group_the_rivals_by_outcome(lines: list, said: str) -> None:
    assert said in answers.verdicts("ours", compared(*lines))


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (0.7, ["codes has the highest AUC (0.700), above the plain means (0.600)", "1 of 2 are above"]),
        (0.5, ["codes has the highest AUC (0.500), below the plain means (0.600)", "0 of 2 are above"]),
        (0.6004, ["(0.600), equal to the plain means", "0 of 2 are above"]),
        (0.3, ["content has the highest AUC (0.400)"]),
        (0.4, ["codes and content have the highest AUC"]),
    ],
)
def test_liking_names_the_best_input_beside_the_rival(best: float, words: list[str]) -> None:
    said = answers.liking({"codes": best, "content": 0.4, "means": 0.6}, "means")
    assert all(part in said for part in words), said


def test_the_form_is_chosen_among_random_ids_alone() -> None:
    means = {"random codes": 0.5, "random pieces": 0.6, "behaviour-bound codes": 0.9, "content": 0.95}
    assert answers.best_form(means, "random") == "random pieces"
    assert answers.kinds_of_ids(means, ["random"]) == (
        f"The best input by each kind of ID: random pieces {means['random pieces']:.3f}."
    )


def test_new_items_quote_the_ends_of_the_changes() -> None:
    everywhere = {"codes": 0.7, "content": 0.7, "means": 0.7}
    said = answers.new_items(everywhere, {"codes": 0.6, "content": 0.75, "means": 0.65}, "means")
    assert "content ranks best (AUC 0.750), and means reach 0.650" in said
    assert "from -0.100 (codes) to +0.050 (content)" in said
    assert "No test event" in answers.new_items(everywhere, {}, "means")
    assert "No test event" in answers.new_items(everywhere, {"codes": float("nan")}, "means")
    assert "codes and means rank best" in answers.new_items(everywhere, {"codes": 0.6, "means": 0.6}, "means")


@pytest.mark.parametrize(
    ("size", "area", "words"),
    [
        (500, 0.8, "codes is smallest, with 0.5 kB (less)"),
        (5000, 0.8, "codes is smallest, with 5.0 kB (more)"),
        (1000, 0.75, "codes is smallest, with 1.0 kB (as much)"),
        (500, 0.6, "No other input reaches content"),
    ],
)
def test_memory_names_the_smallest_input_that_ranks_as_well(size: int, area: float, words: str) -> None:
    said = answers.memory({"content": 1000, "codes": size}, {"content": 0.75, "codes": area}, "content")
    assert words in said


def test_baskets_compare_the_best_of_both_sides() -> None:
    means = {"ease": 0.2, "als": 0.1, "set-items": 0.15}
    assert "set-items with an NDCG@10 of 0.1500, below ease (0.2000)" in answers.baskets(means, ["set-items"])
    means["set-items"] = 0.25
    assert "0.2500, above ease (0.2000)" in answers.baskets(means, ["set-items"])
    means["set-items"] = 0.20001
    assert "0.2000, equal to ease (0.2000)" in answers.baskets(means, ["set-items"])
    means["set-codes"] = 0.20001
    both = answers.baskets(means, ["set-items", "set-codes"])
    assert "best set encoders are set-items and set-codes with" in both
    assert "No model finds" in answers.baskets({"ease": 0.0, "set-items": 0.0}, ["set-items"])


def test_new_items_of_baskets_name_the_finders() -> None:
    assert answers.new_in_baskets({"ease": 0.0}, 0) == "No hidden item is new."
    assert answers.new_in_baskets({"ease": 0.0}, 7) == "No model finds any of the 7 new items."
    said = answers.new_in_baskets({"ease": 0.0, "set-codes": 0.25, "content-knn": 0.2}, 8)
    assert said == "Of the 8 new items set-codes finds most (Recall@20 0.250); 1 of 3 models find none."
    rare = answers.new_in_baskets({"ease": 0.0, "set-codes": 1 / 3000}, 3000)
    assert rare == "Of the 3,000 new items set-codes finds most (Recall@20 below 0.001); 1 of 2 models find none."


def test_models_without_a_result_are_named_with_the_reason() -> None:
    assert answers.left_out({}) == ""
    said = answers.left_out({"ease": "too many items", "content-knn": "no features"})
    assert said == "ease is left out: too many items; content-knn is left out: no features."


def test_without_the_preferred_rival_the_best_one_is_drawn() -> None:
    assert answers.strongest({"ease": 0.1, "als": 0.2}, "ease") == "ease"
    assert answers.strongest({"item-knn": 0.1, "als": 0.2}, "ease") == "als"


def test_sharing_names_every_input() -> None:
    said = answers.sharing(1682, {"hashed numbers": 1200, "codes": 0})
    assert said == "Of 1,682 items, so many have the tokens of another one: 1,200 for hashed numbers and 0 for codes."


def test_what_text_only_ids_are_made_of_is_said_if_it_is_not_text() -> None:
    assert answers.text_only(["text"]) == ""
    assert answers.text_only(["image"]) == (
        "These data have no text features: the IDs called text-only come from image."
    )
    assert "come from training events" in answers.text_only([])


def test_text_features_that_know_the_queries_are_named() -> None:
    assert answers.queries_seen(False) == ""
    assert "have seen the words of the queries too" in answers.queries_seen(True)


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (-0.05, 0.01, "the binding to behaviour costs search quality (-0.050"),
        (0.05, 0.01, "costs no search quality, it adds some (+0.050"),
        (-0.05, 0.3, "is open (-0.050"),
        (0.0001, 0.01, "is open (+0.000"),
    ],
)
def test_finding_says_what_the_binding_costs(difference: float, p: float, words: str) -> None:
    cost = {"difference": difference, "low": difference - 0.01, "high": difference + 0.01, "p_holm": p}
    said = answers.finding({"BM25": 0.3, "dense": 0.2}, cost)
    assert "BM25 finds most (NDCG@10 0.300)" in said
    assert words in said


def test_the_whole_answer_has_every_question() -> None:
    assert answers.whole({"A?": "yes.", "B?": "Not known: no texts"}) == "A? yes. B? Not known: no texts."


def inside(fig: Figure) -> bool:
    """Whether the legend and the labels of the lines lie within a figure."""
    FigureCanvasAgg(fig).draw()
    shown = [text for legend in fig.legends for text in legend.get_texts()]
    shown += [text for ax in fig.axes for text in (ax.xaxis.label, ax.title, *ax.get_yticklabels())]
    found = [text.get_window_extent() for text in shown if text.get_text()]
    return all(b.x0 > -2 and b.x1 < fig.bbox.x1 + 2 and b.y0 > -2 and b.y1 < fig.bbox.y1 + 2 for b in found)


def test_figures_draw_every_input_within_their_frame() -> None:
    plots.use_house_style()
    names = ["means", "content", *(f"{kind} pieces" for kind in ("random", "text-only", "behaviour-bound"))]
    groups = dict(zip(names, ["rival", "no ID", "random", "text-only", "behaviour-bound"], strict=True))
    values = {name: np.array([0.5, 0.6]) for name in names}
    sizes = {name: 10**place for place, name in enumerate(names, start=3)}
    assert inside(figures.by_size(sizes, values, groups, "AUC"))
    segment = {name: 0.5 for name in names}
    panels = {"events": {"no events": segment, "over 100": segment}, "age": {"first week": segment | {"means": np.nan}}}
    assert inside(figures.by_segment(panels, {"no events": 1200, "over 100": 9, "first week": 3}, "AUC"))
    parts = {"set-items": compared(("a", 0.1, 0.0, 0.2, 0.01)), "set-codes": compared(("a", 0.1, 0.0, 0.2, 0.5))}
    assert inside(figures.compared(parts, "difference"))
