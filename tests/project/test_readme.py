"""The README promises what the committed tables hold, and shows only files that are there."""

import re
from pathlib import Path

import polars as pl
import pytest

from bbqrec_lab.experiments import tables, variants
from bbqrec_lab.suite import notebooks

METRICS = ("recall@10", "ndcg@10")


def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def shown_table(text: str) -> dict[tuple[str, str], list[str]]:
    """Cells of the results table by (variant, history)."""
    body = text.split("<!-- results:")[1].split("<!-- results end -->")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")
    ]
    return {(line[0], line[1]): line[2:] for line in lines[2:]}


def expected_table(root: Path) -> dict[tuple[str, str], list[str]]:
    rows = tables.summary(pl.read_csv(root / "figures" / "main_results.csv"))
    return {(row["variant"], row["history"]): [row["seeds"], *(row[m] for m in METRICS)] for row in rows.to_dicts()}


def test_the_results_are_those_of_the_committed_table(root: Path) -> None:
    assert shown_table(readme(root)) == expected_table(root)


def test_a_changed_digit_would_be_found(root: Path) -> None:
    text = readme(root)
    digit = re.search(r"0\.0(\d)", text.split("<!-- results:")[1])
    assert digit
    at = text.index("<!-- results:") + len("<!-- results:") + digit.start(1)
    changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    assert shown_table(changed) != expected_table(root)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/datasets.md", "notebooks/README.md"])
def test_every_link_leads_to_a_file(root: Path, page: str) -> None:
    text = (root / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not ((root / page).parent / link).exists()] == []


def test_every_notebook_and_command_is_on_the_map(root: Path) -> None:
    text = readme(root)
    assert [path.name for path in notebooks.discover(root / "notebooks") if f"notebooks/{path.name}" not in text] == []
    rows = pl.read_csv(root / "figures" / "main_results.csv")
    assert set(rows["variant"]) <= set(variants.VARIANTS)


def test_pictures_are_small_and_say_in_words_what_they_show(root: Path) -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\((figures/widgets/[^)]+)\)", readme(root))
    assert len(pictures) == 4
    assert [name for words, name in pictures if len(words) < 40] == []
    assert [name for _, name in pictures if (root / name).stat().st_size >= 200_000] == []
    assert {Path(name).name for _, name in pictures} == {path.name for path in (root / "figures" / "widgets").iterdir()}
