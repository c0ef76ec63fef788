"""The report of a run: what the page shows, that its links lead somewhere, and that no name becomes markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from bbqrec_lab.plots.style import save_figure
from bbqrec_lab.suite import report

EVIL = '<script>alert(1)</script> & "Tom\'s"'


class Page(HTMLParser):
    """The links, sources and elements of a page, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.sources, self.elements, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [value for name, value in attrs if name == "href"]
        self.sources += [value for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of two rows and one notebook, whose dataset has a name with markup."""
    run = tmp_path / "runs" / "a&b <i>" / "smoke"
    for folder in ("tables", "logs", "notebooks"):
        (run / folder).mkdir(parents=True)
    line = "toy,00aa11bb,{},{},smoke,0,filtered,all,7,ndcg@10,{},c\n"
    head = "dataset,data_hash,variant,seed,preset,split_seed,seen_items,segment,targets,metric,value,config_hash\n"
    rows = line.format("bbqrec", 0, 0.25) + line.format("bbqrec", 1, 0.35) + line.format("markov", 0, 0.125)
    (run / "tables" / "main_results.csv").write_text(head + rows)
    (run / "tables" / "main_results.md").write_text("toy, 7 targets\n\n| variant |\n")
    cost = "variant,seed,valid_ndcg@10,training_minutes,parameters,epochs\n"
    cost += "bbqrec,0,0.5,1.25,1234567,31\nmarkov,0,,0.0,0,25\n"
    (run / "tables" / "cost.csv").write_text(cost)
    pair = "seen_items,metric,variant,against,seeds,difference,low,high,p,p_holm\n"
    pair += "filtered,ndcg@10,bbqrec,markov,2,0.175,-0.01,0.3,0.01,0.02\nfiltered,recall@10,bbqrec,markov,2,9,9,9,9,9\n"
    (run / "tables" / "intervals.csv").write_text(pair)
    (run / "logs" / "bbqrec-0.log").write_text("a warning\n")
    (run / "logs" / "markov-0.log").write_text("\n")
    stored = tmp_path / "runs" / "artefacts" / "run-abc"
    stored.mkdir(parents=True)
    (stored / "run.json").write_text("{}")
    report.record(run, {("bbqrec", 0): stored}, {})
    cells = [{"cell_type": "markdown", "source": [f"# 06 · {EVIL}\n", "more"]}]
    (run / "notebooks" / "06_main_results.ipynb").write_text(json.dumps({"cells": cells}))
    (run / "notebooks" / "06_main_results.done.json").write_text('{"seconds": 75.0}')
    (run / "notebooks" / "07_other.unfinished.ipynb").write_text("cut o")
    figure = plt.figure(figsize=(1, 1))
    save_figure(figure, "06_main", run / "figures", f"What {EVIL} sells.")
    plt.close(figure)
    return run


def test_the_page_shows_tables_figures_cost_and_notebooks(run: Path) -> None:
    page = Page(report.write(run))
    for told in (
        "toy, 7 targets",
        "0.3000 ± 0.0707",
        "+0.1750",
        "-0.0100 to +0.3000",
        "1 min 15 s",
        "< 1 s",
        "executed in 1 min 15 s",
    ):
        assert told in page.text
    assert "1,234,567" in page.text
    assert "NDCG@10" in page.text
    assert "9.0000" not in page.text, "only one metric is compared"
    assert "unfinished" not in page.text
    assert "Failed" not in page.text


def test_epochs_of_training_and_settings_that_were_tried_are_two_columns(run: Path) -> None:
    shown = report._rows(run)
    epochs, tried = (shown.heads.index(name) for name in ("epochs", "settings tried"))
    assert [(line[epochs], line[tried]) for line, _ in shown.lines] == [("31", ""), ("", "25")]


def test_names_and_captions_are_text_and_never_markup(run: Path) -> None:
    page = Page(report.write(run))
    assert "script" not in page.elements
    assert "i" not in page.elements
    assert "bbqrec on a&b <i>, preset smoke" in page.text
    assert f"06 · {EVIL}" in page.text
    assert f"What {EVIL} sells." in page.text


def test_the_page_needs_nothing_from_elsewhere_and_its_links_lead_to_files_with_content(run: Path) -> None:
    path = report.write(run)
    page = Page(path)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", path.read_text())
    files = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert all((run / link).exists() for link in files), files
    assert {
        "../../artefacts/run-abc",
        "logs/bbqrec-0.json",
        "logs/bbqrec-0.log",
        "notebooks/06_main_results.ipynb",
    } <= set(files)
    assert "logs/markov-0.log" not in files, "an empty log is not worth a click"
    assert all(f'id="{link[1:]}"' in path.read_text() for link in page.links if link.startswith("#"))


def test_a_later_call_keeps_the_folders_of_rows_that_it_did_not_run_and_forgets_old_failures(run: Path) -> None:
    report.record(run, {}, {"markov seed 0": f"ValueError: {EVIL}"})
    page = Page(report.write(run))
    assert {"../../artefacts/run-abc", "logs/bbqrec-0.json"} <= set(page.links)
    assert f"markov seed 0: ValueError: {EVIL}" in page.text
    report.record(run, {}, {})
    assert "markov seed 0" not in Page(report.write(run)).text


def test_pages_of_the_book_are_linked_once_there_is_one(run: Path) -> None:
    assert "run bbqrec book" in Page(report.write(run)).text
    page = run.parent.parent / "book" / run.parent.name / run.name / "notebooks" / "06_main_results.html"
    page.parent.mkdir(parents=True)
    page.write_text("a page")
    shown = Page(report.write(run))
    assert "notebooks/06_main_results.ipynb" in shown.links
    assert "../../book/a%26b%20%3Ci%3E/smoke/notebooks/06_main_results.html" in shown.links
    assert "run bbqrec book" not in shown.text


def test_a_run_without_rows_has_a_page_too(tmp_path: Path) -> None:
    run = tmp_path / "toy" / "smoke"
    page = Page(report.write(run))
    assert "No row was trained in this run." in page.text
    assert "table" not in page.elements
