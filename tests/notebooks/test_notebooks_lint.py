"""The notebook contract, held against every notebook; and against broken ones, so that the lint itself is tested."""

import ast
import copy
import io
import re
import tokenize
from collections.abc import Callable
from pathlib import Path

import nbformat
import papermill
import pytest

from bbqrec_lab.suite import notebooks

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SOLUTIONS = notebooks.solutions(FOLDER)
EXERCISE, CHECK = re.compile(r"^\*\*(\d \([^)]*\))", re.M), r'notebook\.{}\("(\d\d-\d", answer_\d(?:, \w+)*)\)$'
REQUIRED = {"dataset", "preset", "seed", "out_dir", "overrides"}
MOST_PARAMETERS, CELL_LINES, FUNCTION_LINES = 10, 20, 8
ABSOLUTE = re.compile(r"""["'(\s](/(?:home|root|tmp|work|usr|mnt|Users|opt|data)\b|~/|[A-Z]:\\)""")


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Everything in which a notebook breaks the contract, in words; empty for a good one."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", ())]
    found = []
    if len(tagged) != 1:
        found.append(f"{len(tagged)} cells tagged parameters, wanted 1")
    elif tagged[0] is not code[0]:
        found.append("code before the parameters cell")
    if notebook.cells[0].cell_type != "markdown" or not notebook.cells[0].source.startswith("# "):
        found.append("the first cell is no title")
    if len(code) > len(notebook.cells) - len(code):
        found.append(f"{len(code)} code cells, {len(notebook.cells) - len(code)} prose cells")
    if "widgets" in notebook.metadata:
        found.append("saved widget state")
    for cell in tagged[:1]:
        found += parameter_problems(cell.source)
    for index, cell in enumerate(notebook.cells):
        where = f"cell {index}: "
        found += [where + "absolute path"] * bool(ABSOLUTE.search(cell.source))
        found += [where + text for text in (code_problems(cell) if cell.cell_type == "code" else ())]
    return found


def parameter_problems(source: str) -> list[str]:
    """What is wrong with a parameters cell: annotated literals only, each with a comment that papermill can read."""
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found, names = [], set()
    for statement in ast.parse(source).body:
        line = ast.get_source_segment(source, statement)
        if not isinstance(statement, ast.AnnAssign) or not is_literal(statement.value):
            found.append(f"parameters: not an annotated literal: {line}")
            continue
        names.add(statement.target.id)
        if statement.end_lineno not in comments:
            found.append(f"parameters: no comment: {line}")
    found += [f"parameters: equals sign in a comment: {text}" for text in comments.values() if "=" in text]
    found += [f"parameters: {name} is missing" for name in sorted(REQUIRED - names)]
    if len(names) > MOST_PARAMETERS:
        found.append(f"parameters: {len(names)}, wanted {MOST_PARAMETERS} at most")
    return found


def is_literal(node: ast.expr | None) -> bool:
    """Whether an expression is a plain literal."""
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True


def code_problems(cell: nbformat.NotebookNode) -> list[str]:
    """What is wrong with one code cell."""
    found = []
    if cell.outputs or cell.execution_count is not None:
        found.append("outputs or an execution count")
    if len(cell.source.splitlines()) > CELL_LINES:
        found.append(f"{len(cell.source.splitlines())} lines, wanted {CELL_LINES} at most")
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        return [*found, "no plain Python"]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.append(f"class {node.name}")
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
            found.append(f"function {node.name} has more than {FUNCTION_LINES} lines")
    return found


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_notebook_keeps_the_contract(path: Path) -> None:
    assert problems(read(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_papermill_sees_every_parameter(path: Path) -> None:
    (cell,) = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", ())]
    assert set(papermill.inspect_notebook(path)) == {line.target.id for line in ast.parse(cell.source).body}


def test_the_suite_is_there_to_be_held() -> None:
    assert [path.name[:2] for path in NOTEBOOKS][:9] == ["00", "01", "02", "03", "04", "05", "06", "07", "08"]
    assert "09_keeping_up_with_time.ipynb" in [path.name for path in NOTEBOOKS]


def exercises(path: Path, call: str) -> tuple[list[str], list[str]]:
    """Titles of a notebook's exercises, and what its checks (`call` is `check` or `solve`) hold answers against."""
    cells = read(path).cells
    titles = [title for cell in cells if cell.cell_type == "markdown" for title in EXERCISE.findall(cell.source)]
    pattern = re.compile(CHECK.format(call), re.M)
    return titles, [found for cell in cells if cell.cell_type == "code" for found in pattern.findall(cell.source)]


def test_each_notebook_has_solutions() -> None:
    assert [path.name for path in SOLUTIONS] == [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.name)
def test_solutions_solve_the_exercises_of_their_notebook_by_the_same_checks(path: Path) -> None:
    titles, checks = exercises(FOLDER / path.name, "check")
    assert exercises(path, "solve") == (titles, checks)
    assert [title[0] for title in titles] == ["1", "2", "3"]
    numbered = [f'{path.name[:2]}-{n}", answer_{n}' for n in "123"]
    assert [check.startswith(start) for check, start in zip(checks, numbered, strict=True)] == [True] * 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_cell_that_checks_an_answer_has_neither_the_answer_nor_a_way_to_it(path: Path) -> None:
    sources = [cell.source for cell in read(path).cells if "notebook.check(" in cell.source]
    one = re.compile(r'answer_(\d) = None\nnotebook\.check\("\d\d-\1", answer_\1(, [a-z_]+)*\)')
    assert len(sources) == 3
    assert [source for source in sources if not one.fullmatch(source)] == []


@pytest.mark.parametrize("number", ["00", "02", "04"])
def test_the_method_is_built_once_by_hand_and_compared_with_the_core(number: str) -> None:
    (path,) = FOLDER.glob(f"{number}_*.ipynb")
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    (place,) = [place for place, cell in enumerate(cells) if "by-hand" in cell.metadata.get("tags", ())]
    assert "assert" in cells[place].source + cells[place + 1].source, "nothing compares it with the core"


def unanswered(notebook: nbformat.NotebookNode) -> list[str]:
    """The numbered sections that end without an answer made from the numbers of the run."""
    sections: dict[str, bool] = {}
    title = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            title = cell.source.splitlines()[0].removeprefix("## ")
        if title[:1].isdigit():
            sections[title] = cell.cell_type == "code" and "notebook.answer(" in cell.source
    return [title for title, answered in sections.items() if not answered]


@pytest.mark.parametrize(("number", "by_hand"), [("03", 0), ("05", 0), ("06", 2)])
def test_each_section_of_the_notebooks_on_results_ends_with_its_answer(number: str, by_hand: int) -> None:
    (path,) = FOLDER.glob(f"{number}_*.ipynb")
    assert [title.partition(" ")[0] for title in unanswered(read(path))] == [str(n + 1) for n in range(by_hand)]


def good() -> nbformat.NotebookNode:
    """A notebook without a fault."""
    parameters = (
        'dataset: str = "ml-100k"  # a name\npreset: str = "quick"  # which\nseed: int = 0  # start\n'
        'out_dir: str = "../runs"  # where\noverrides: dict = {}  # any field\n'
    )
    cells = [
        nbformat.v4.new_markdown_cell("# 01 · A question"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("Prose, and a path like ../figures/01.png, and a rate a/data of things."),
        nbformat.v4.new_code_cell('half = seed / 2\npath = "../runs"'),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_good_notebook_passes() -> None:
    assert problems(good()) == []


def _code(notebook: nbformat.NotebookNode, source: str) -> None:
    notebook.cells[3].source = source


def _parameters(notebook: nbformat.NotebookNode, old: str, new: str) -> None:
    assert old in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace(old, new)


FAULTS: dict[str, Callable[[nbformat.NotebookNode], object]] = {
    "0 cells tagged parameters": lambda nb: nb.cells[1].metadata.clear(),
    "2 cells tagged parameters": lambda nb: nb.cells[3].metadata.update(tags=["parameters"]),
    "code before the parameters cell": lambda nb: nb.cells.insert(1, nb.cells.pop(3)),
    "the first cell is no title": lambda nb: nb.cells.insert(0, nb.cells.pop(2)),
    "3 code cells, 2 prose cells": lambda nb: nb.cells.append(copy.deepcopy(nb.cells[3])),
    "saved widget state": lambda nb: nb.metadata.update(widgets={}),
    "not an annotated literal: k = 0": lambda nb: _parameters(nb, "seed:", "k = 0  # bare\nseed:"),
    "not an annotated literal: k: int = 1 + 1": lambda nb: _parameters(nb, "seed:", "k: int = 1 + 1  # sum\nseed:"),
    "no comment: seed: int = 0": lambda nb: _parameters(nb, "  # start", ""),
    "equals sign in a comment: # start=0": lambda nb: _parameters(nb, "# start", "# start=0"),
    "overrides is missing": lambda nb: _parameters(nb, "overrides:", "override:"),
    "parameters: 11, wanted 10 at most": lambda nb: _parameters(
        nb, "seed:", "".join(f"p{index}: int = 0  # one more\n" for index in range(6)) + "seed:"
    ),
    "cell 3: outputs": lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output("stream", text="x")),
    "cell 3: outputs or an execution count": lambda nb: nb.cells[3].update(execution_count=1),
    "cell 3: 21 lines": lambda nb: _code(nb, "a = 1\n" * 21),
    "cell 3: no plain Python": lambda nb: _code(nb, "%matplotlib inline"),
    "cell 3: class Model": lambda nb: _code(nb, "if seed:\n    class Model: ..."),
    "cell 3: function f has more than 8": lambda nb: _code(nb, "def f():\n" + "    a = 1\n" * 8),
    "cell 3: absolute path": lambda nb: _code(nb, 'open("/home/me/x.csv")'),
    "cell 2: absolute path": lambda nb: nb.cells[2].update(source="see ~/work"),
}


@pytest.mark.parametrize("text", FAULTS)
def test_each_fault_is_found_and_named(text: str) -> None:
    notebook = good()
    FAULTS[text](notebook)
    found = problems(notebook)
    assert len(found) == 1
    assert text in found[0]
