"""The paper map names what exists: functions, tests and notebooks; and no idea of the README is left out."""

import importlib
import re
from pathlib import Path

import pytest

IDEAS = "## The method, from idea to test"
COLUMNS = ("idea", "equation", "function", "test", "notebook")


def table(text: str) -> list[list[str]]:
    """Cells of the first Markdown table in `text`, without its two header lines."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.M)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def page(root: Path) -> str:
    return (root / "notebooks" / "README.md").read_text(encoding="utf-8")


def rows(root: Path) -> list[dict[str, str]]:
    body = page(root).split("<!-- map:")[1].split("<!-- map end -->")[0]
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in table(body)]


def missing(names: list[str]) -> list[str]:
    """Those of `module.name` or `module.Class.method` that the core does not have."""
    gone = []
    for name in names:
        module, *parts = name.split(".")
        try:
            found = importlib.import_module(f"bbqrec_core.{module}")
            for part in parts:
                found = getattr(found, part)
        except (ModuleNotFoundError, AttributeError):
            gone.append(name)
    return gone


def test_every_function_of_the_map_exists(root: Path) -> None:
    for row in rows(root):
        names = re.findall(r"`([\w.]+)`", row["function"])
        assert names, row["idea"]
        assert missing(names) == []


def test_every_test_file_of_the_map_exists(root: Path) -> None:
    for row in rows(root):
        names = re.findall(r"`([\w.]+)`", row["test"])
        assert names, row["idea"]
        assert [name for name in names if not (root / "tests" / name).is_file()] == []


def test_every_notebook_of_the_map_exists(root: Path) -> None:
    for row in rows(root):
        numbers = row["notebook"].split(", ")
        assert [n for n in numbers if not list((root / "notebooks").glob(f"{n}_*.ipynb"))] == [], row["idea"]


def test_the_map_has_the_ideas_of_the_readme_and_an_equation_for_each(root: Path) -> None:
    readme = table((root / "README.md").read_text(encoding="utf-8").split(IDEAS)[1])
    assert [row["idea"] for row in rows(root)] == [cells[0] for cells in readme]
    assert all(row["equation"] for row in rows(root))


@pytest.mark.parametrize("name", ["nowhere.f", "metrics.nothing", "alignment.Tokenizer.nothing"])
def test_a_name_that_is_not_there_is_found_missing(name: str) -> None:
    assert missing([name, "metrics.holm"]) == [name]


def test_words_that_the_notebooks_use_are_in_the_glossary(root: Path) -> None:
    words = " ".join(cells[0].lower() for cells in table(page(root).split("## Glossary")[1]))
    asked = "semantic id|residual quantization|codebook|collision|behaviour signal|club|infonce|reweighting|bucket"
    asked += "|prefix tree|beam|ndcg|recall|leave-one-out"
    assert [word for word in asked.split("|") if word not in words] == []
