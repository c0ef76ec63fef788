"""Tables: means over seeds by hand, and files that hold what the frame holds."""

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from bbqrec_lab.experiments import tables


def _rows() -> pl.DataFrame:
    lines = [
        ("b", 0, "included", "all", "ndcg@10", 0.1),
        ("b", 1, "included", "all", "ndcg@10", 0.3),
        ("b", 0, "included", "tail items", "ndcg@10", 0.9),
        ("b", 0, "included", "all", "coverage@10", 0.9),
        ("a", 0, "filtered", "all", "ndcg@10", 0.25),
        ("a", 0, "filtered", "all", "recall@5", 0.5),
    ]
    return pl.DataFrame(lines, schema=["variant", "seed", "seen_items", "segment", "metric", "value"], orient="row")


def test_summary_is_mean_and_deviation_over_seeds_in_the_order_of_the_rows() -> None:
    assert tables.summary(_rows()).rows(named=True) == [
        {"variant": "b", "seen_items": "included", "seeds": "2", "recall@5": "", "ndcg@10": "0.2000 ± 0.1414"},
        {"variant": "a", "seen_items": "filtered", "seeds": "1", "recall@5": "0.5000", "ndcg@10": "0.2500"},
    ]


def test_a_row_that_beam_search_ranked_says_so_behind_its_name() -> None:
    found = _rows().filter(variant="a").with_columns(pl.col("metric") + " by beam 50")
    assert tables.summary(pl.concat([_rows(), found])).rows(named=True)[2] == {
        "variant": "a (by beam 50)",
        "seen_items": "filtered",
        "seeds": "1",
        "recall@5": "0.5000",
        "ndcg@10": "0.2500",
    }


def test_summary_of_an_unknown_segment_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'head': there are .*'tail items'"):
        tables.summary(_rows(), "head")


def test_saved_table_reads_back_and_the_pages_hold_every_cell(tmp_path: Path) -> None:
    frame = pl.DataFrame({"name_1": ["a|b", "50 %"], "value": [1 / 3, None]})
    tables.save_table(frame, "t", tmp_path, "Two rows & a caption")
    assert pl.read_csv(tmp_path / "t.csv").equals(frame)
    page = (tmp_path / "t.md").read_text()
    assert "| a\\|b | 0.3333 |" in page
    assert page.startswith("Two rows &amp; a caption\n\n| name 1 | value |\n| --- | --: |\n")
    paper = (tmp_path / "t.tex").read_text()
    assert "50 \\% &  \\\\" in paper
    assert "\\caption{Two rows \\& a caption}" in paper
    assert "name 1 & value" in paper


def test_piped_table_keeps_long_cells_whole(capsys: pytest.CaptureFixture) -> None:
    tables.show(pl.DataFrame({"what": ["x" * 100], "why": ["[bold]not markup"]}), "caption")
    printed = capsys.readouterr().out
    assert "x" * 100 in printed
    assert "[bold]not markup" in printed


TITLE = "<img src=x onerror=alert(1)> <b>Tea</b> & *x* `y` _z_ [a](b) $5 ~\n| {new} x^2 \\ end"


def test_a_title_in_a_page_is_shown_letter_by_letter_on_one_line() -> None:
    line = tables.markdown(pl.DataFrame({"<i>item</i>": [TITLE]}), "after <b>this</b>").splitlines()
    assert len(line) == 5
    assert "<" not in "".join(line)
    shown = "&lt;img src=x onerror=alert(1)&gt; &lt;b&gt;Tea&lt;/b&gt; &amp; \\*x\\* \\`y\\` \\_z\\_ "
    shown += "\\[a\\](b) \\$5 \\~ \\| "
    assert line[4] == f"| {shown}{{new}} x^2 \\\\ end |"


def test_a_title_in_a_paper_compiles() -> None:
    paper = tables.latex(pl.DataFrame({"item": ["{new} x^2 ~ y\nz"]}), "c")
    assert "\\{new\\} x\\textasciicircum{}2 \\textasciitilde{} y z \\\\" in paper


def test_lists_that_are_all_empty_are_told_in_words() -> None:
    assert tables.told_of_empty_lists(_rows()) == ""
    none = pl.DataFrame([("b", 0, "filtered", "all", "coverage@10", 0.0)], schema=_rows().schema, orient="row")
    assert "Seen items filtered: every user has had every item" in tables.told_of_empty_lists(none)
    assert "included" not in tables.told_of_empty_lists(pl.concat([_rows(), none]))


def test_a_printed_table_has_words_for_heads_thousands_and_dates_as_dates(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "seen_items": ["included", "filtered"],
            "items": [12_345, None],
            "year": [1995, 2024],
            "when": [datetime(1998, 3, 1), datetime(1998, 3, 2, 7, 5)],
            "p_holm": [0.00012, 0.49951],
            "events": [1234.56, 2.0],
            "rate (%)": [27.5, 0.0],
            "ndcg": [float("nan"), None],
        }
    )
    lines = tables.markdown(frame, "c").splitlines()[2:]
    assert lines[0] == "| seen items | items | year | when | p after Holm | events | rate (%) | NDCG@10 |"
    assert lines[2] == "| included | 12,345 | 1995 | 1998-03-01 | &lt; 0.001 | 1,234.6 | 27.5 | n/a |"
    assert lines[3] == "| filtered |  | 2024 | 1998-03-02 07:05 | 0.500 | 2.0 | 0.0 |  |"
    tables.save_table(frame, "t", tmp_path, "c")
    assert (tmp_path / "t.csv").read_text().startswith("seen_items,items,year,when,p_holm,events,rate (%),ndcg\n")
    assert "12345" in (tmp_path / "t.csv").read_text()
    assert "included & 12,345 & 1995 & 1998-03-01" in (tmp_path / "t.tex").read_text()


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [tables.listed(list(some)) for some in ("", "a", "ab", "abc")] == ["none", "a", "a and b", "a, b and c"]


def test_no_digit_of_a_column_is_zero_in_all_its_rows() -> None:
    frame = pl.DataFrame(
        {"epochs": [6.0, 31.0], "shares": [1.0, 0.97], "ndcg": [0.12345, 1.0], "all": [1.0, 1.0], "none": [None, None]},
        schema_overrides={"none": pl.Float64},
    )
    assert tables.markdown(frame, "c").splitlines()[-2:] == [
        "| 6 | 1.00 | 0.1235 | 1 |  |",
        "| 31 | 0.97 | 1.0000 | 1 |  |",
    ]


def test_epochs_of_counting_baselines_are_settings_that_were_tried() -> None:
    cost = pl.DataFrame({"variant": ["a", "b"], "epochs": [30, 25], "parameters": [9, 0]})
    assert tables.effort(cost).rows() == [("a", 30, None, 9), ("b", None, 25, 0)]
    assert tables.effort(cost).columns == ["variant", "epochs", "settings_tried", "parameters"]
