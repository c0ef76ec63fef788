"""The paper map and the design page name what exists: functions, tests and notebooks; neither leaves out an idea."""

import importlib
import re
from pathlib import Path

import pytest

IDEAS = "## The method, from idea to test"
COLUMNS = ("idea", "equation", "function", "test", "notebook")
PACKAGES = ("bbqrec_core", "bbqrec_lab")


def table(text: str) -> list[list[str]]:
    """Cells of the first Markdown table in `text`, without its two header lines."""
    lines = re.search(r"(?:^\|.*\n)+", text, re.M)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def page(root: Path) -> str:
    return (root / "notebooks" / "README.md").read_text(encoding="utf-8")


def rows(root: Path) -> list[dict[str, str]]:
    body = page(root).split("<!-- map:")[1].split("<!-- map end -->")[0]
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in table(body)]


def design(root: Path) -> list[dict[str, str]]:
    """The same ideas on the page that tells how the code is built."""
    text = (root / "docs" / "design.md").read_text(encoding="utf-8").split(IDEAS)[1]
    return [dict(zip(("idea", "function", "test"), cells, strict=True)) for cells in table(text)]


def names_in(cell: str) -> list[str]:
    """The dotted names of a cell; `.other` behind `module.one` stands for `module.other`."""
    found: list[str] = []
    for name in re.findall(r"`([\w.]+)`", cell):
        found.append(found[-1].rpartition(".")[0] + name if name.startswith(".") else name)
    return found


def there(name: str) -> bool:
    """Whether `room.module.Name`, below either package or with one, is a module or something that one holds."""
    starts = [""] if name.split(".")[0] in PACKAGES else [f"{package}." for package in PACKAGES]
    for start in starts:
        parts = f"{start}{name}".split(".")
        for cut in range(len(parts), 1, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part, None)
            if found is not None:
                return True
            break
    return False


def missing(names: list[str]) -> list[str]:
    """Those of the names that neither package has."""
    return [name for name in names if not there(name)]


def test_every_function_of_the_map_exists(root: Path) -> None:
    for row in rows(root) + design(root):
        names = names_in(row["function"])
        assert names, row["idea"]
        assert missing(names) == []
        assert all("." in name or name == "metrics" for name in names), "module.Name, not a bare word"


def test_every_test_file_of_the_map_exists(root: Path) -> None:
    for row in rows(root) + design(root):
        names = re.findall(r"`([\w./]+)`", row["test"])
        assert names, row["idea"]
        assert [name for name in names if not (root / "tests" / name).is_file()] == []


def test_every_notebook_of_the_map_exists(root: Path) -> None:
    for row in rows(root):
        numbers = row["notebook"].split(", ")
        assert [n for n in numbers if not list((root / "notebooks").glob(f"{n}_*.ipynb"))] == [], row["idea"]


def test_the_map_has_the_ideas_of_the_design_page_and_an_equation_for_each(root: Path) -> None:
    assert [row["idea"] for row in rows(root)] == [row["idea"] for row in design(root)]
    assert all(row["equation"] for row in rows(root))


@pytest.mark.parametrize(
    "name", ["nowhere.f", "metrics.nothing", "tokenizer.model.Tokenizer.nothing", "bbqrec_lab.metrics", "numpy.array"]
)
def test_a_name_that_is_not_there_is_found_missing(name: str) -> None:
    there_all = ["experiments.statistics.holm", "bbqrec_core.metrics", "tokenizer.model.Tokenizer.units"]
    assert missing([name, *there_all]) == [name]


def test_a_name_in_short_stands_beside_the_one_before() -> None:
    assert names_in("`a.b.C.one`, `.two`, and `d.E`") == ["a.b.C.one", "a.b.C.two", "d.E"]


def test_words_that_the_notebooks_use_are_in_the_glossary(root: Path) -> None:
    words = " ".join(cells[0].lower() for cells in table(page(root).split("## Glossary")[1]))
    asked = "semantic id|residual quantization|codebook|collision|behaviour signal|club|infonce|reweighting|bucket"
    asked += "|prefix tree|beam|ndcg|recall|leave-one-out"
    assert [word for word in asked.split("|") if word not in words] == []
