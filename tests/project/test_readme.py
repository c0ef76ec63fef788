"""The pages promise what the committed tables hold, and show only files that are there."""

import re
from pathlib import Path

import polars as pl
import pytest

from bbqrec_lab.experiments import tables, variants
from bbqrec_lab.suite import notebooks
from benchmarks import tables as written

METRICS = ("recall@10", "ndcg@10")
SEEN_ITEMS = ("included", "filtered")
PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("data", "datasets", "design", "performance", "results", "scale", "serving", "security")
    ),
]
PAGES += ["notebooks/README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]


def page(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def table(text: str) -> list[list[str]]:
    """Cells of the results table of a page, without its two header lines."""
    body = text.split("<!-- results:")[1].split("<!-- results end -->")[0]
    lines = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def shown_table(text: str) -> dict[tuple[str, str], list[str]]:
    """Seeds and both metrics by (variant, seen_items), from the page that has all of them."""
    return {(line[0], line[1]): line[2:] for line in table(text)}


def shown_in_short(text: str) -> dict[str, list[str]]:
    """Seeds, and NDCG@10 with seen items included and filtered, by variant, from the page that has some of them."""
    return {line[0]: line[1:] for line in table(text)}


def expected_table(root: Path) -> dict[tuple[str, str], list[str]]:
    rows = tables.summary(pl.read_csv(root / "figures" / "main_results.csv")).to_dicts()
    return {(row["variant"], row["seen_items"]): [row["seeds"], *(row[m] for m in METRICS)] for row in rows}


def expected_in_short(root: Path, names: list[str]) -> dict[str, list[str]]:
    """The same figures as `shown_in_short` has them."""
    found = expected_table(root)
    return {name: [found[name, "included"][0], *(found[name, way][2] for way in SEEN_ITEMS)] for name in names}


def test_the_results_are_those_of_the_committed_table(root: Path) -> None:
    assert shown_table(page(root, "docs/results.md")) == expected_table(root)
    short = shown_in_short(page(root, "README.md"))
    assert short == expected_in_short(root, list(short))
    assert {"bbqrec", "popularity", "item-knn", "markov", "sasrec", "tiger", "random-ids"} <= set(short)


def test_the_page_has_the_committed_rows(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results.md"
    copy.write_text(page(root, "docs/results.md"), encoding="utf-8")
    written.write_page(copy, root / "figures")
    assert copy.read_text(encoding="utf-8") == page(root, "docs/results.md"), "run python -m benchmarks.tables"
    marked = set(re.findall(r"<!-- rows (\S+) full -->", copy.read_text(encoding="utf-8")))
    assert {path.parent.parent.name for path in (root / "figures").glob("*/full/main_results.csv")} <= marked
    lines = written.short_table(root / "figures" / "ml-100k" / "full")
    assert {line.count("|") for line in lines} == {7}


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_a_changed_digit_would_be_found(root: Path, name: str) -> None:
    text = page(root, name)
    digit = re.search(r"0\.0(\d)", text.split("<!-- results:")[1])
    assert digit
    at = text.index("<!-- results:") + len("<!-- results:") + digit.start(1)
    changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    if name == "README.md":
        short = shown_in_short(changed)
        assert short != expected_in_short(root, list(short))
    else:
        assert shown_table(changed) != expected_table(root)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file(root: Path, name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", page(root, name)) if "://" not in link]
    assert [link for link in links if not ((root / name).parent / link).exists()] == []


def test_every_notebook_and_command_is_on_the_map(root: Path) -> None:
    text = page(root, "README.md")
    assert [path.name for path in notebooks.discover(root / "notebooks") if f"notebooks/{path.name}" not in text] == []
    rows = pl.read_csv(root / "figures" / "main_results.csv")
    assert set(rows["variant"]) <= set(variants.VARIANTS)


def test_pictures_are_small_and_say_in_words_what_they_show(root: Path) -> None:
    found = [pair for name in PAGES for pair in re.findall(r"!\[([^\]]*)\]\([./]*(figures/[^)]+)\)", page(root, name))]
    pictures = [(words, name) for words, name in found if name.startswith("figures/widgets/")]
    assert len(pictures) == len(set(pictures)) >= 5
    assert [name for words, name in found if len(words) < 40] == []
    assert [name for _, name in found if (root / name).stat().st_size >= 200_000] == []
    assert {Path(name).name for _, name in pictures} == {path.name for path in (root / "figures" / "widgets").iterdir()}
