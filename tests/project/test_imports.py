"""Who may import whom: the core stands alone, arrows inside both packages run downwards, notebooks have few sources.

Every import is read, those inside functions and under TYPE_CHECKING as well. The lint is held against small broken
trees too, so that it is tested itself.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import nbformat
import pytest

CORE, LAB = "bbqrec_core", "bbqrec_lab"
THIRD_PARTY = {"torch", "numpy", "safetensors", "jaxtyping"}  # all that the core may ask for
CORE_FLOORS = (  # lowest first; rooms and modules of one floor may use each other only in the lowest
    ("config", "dataset", "kernels", "transformer", "metrics", "training"),
    ("tokenizer",),
    ("recommender",),
)
LAB_FLOORS = (  # lowest first; rooms of one floor do not know each other
    ("escaping",),
    ("terminal",),
    ("code_keys", "frontend", "store", "settings", "measure", "suggestions", "threads", "safe_path"),
    ("datasets", "object_store"),
    ("baselines",),
    ("experiments",),
    ("analysis", "plots"),
    ("without_sequence",),
    ("exercises",),
    ("notebook",),
    ("speed", "widgets", "suite"),
    ("serving",),
    ("replay",),
    ("cli",),
    ("__main__",),
)
MOST_SOURCES = 5
MOST_LINES, MOST_MODULES = 3000, 17  # of the core, which a reader of the paper reads whole


def sources(root: Path) -> dict[str, str]:
    """The text of every module of both packages by dotted name; a package's is that of its `__init__`."""
    files = [file for package in (CORE, LAB) for file in sorted((root / package).rglob("*.py"))]
    dotted = {file: ".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file.read_text(encoding="utf-8") for file, name in dotted.items()}


def packages(texts: Iterable[str]) -> set[str]:
    """Those of the modules that have others inside."""
    return {name.rpartition(".")[0] for name in texts} - {""}


def imported(name: str, texts: Mapping[str, str]) -> Iterator[str]:
    """What a module imports, dotted: a module where one has that name, else what holds the imported names."""
    for node in ast.walk(ast.parse(texts[name])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + (name in packages(texts))]
            source = ".".join([*(above if node.level else ()), *([node.module] if node.module else ())])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in texts else source


def arrows(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every (module, what it imports), once."""
    return [(name, target) for name in texts for target in dict.fromkeys(imported(name, texts))]


def room(name: str) -> str:
    """What of a package a module belongs to: `datasets` of `bbqrec_lab.datasets.reading`; empty for the package."""
    return name.split(".")[1] if "." in name else ""


def foreign(texts: Mapping[str, str]) -> list[str]:
    """Imports of the core that it may not have: of the laboratory, or of another package than the four."""
    allowed = {*sys.stdlib_module_names, *THIRD_PARTY, CORE}
    found = arrows({name: text for name, text in texts.items() if name.split(".")[0] == CORE})
    return [f"{name} imports {target}" for name, target in found if target.split(".")[0] not in allowed]


def upward(texts: Mapping[str, str], package: str, floors: tuple[tuple[str, ...], ...], open_floors: int) -> list[str]:
    """Imports inside a package that do not run downwards, and rooms that stand on no floor.

    Args: open_floors: how many of the lowest floors are of one piece, so that their modules may use each other.
    """
    floor = {name: number for number, names in enumerate(floors) for name in names}
    inside = {name for name in texts if name.split(".")[0] == package}
    found = [f"{name} stands on no floor" for name in sorted({room(name) for name in inside} - {"", *floor})]
    for name, target in arrows(texts):
        mine, other = room(name), room(target)
        if name not in inside or target.split(".")[0] != package or mine == other or not mine or mine not in floor:
            continue
        there = floor.get(other, len(floors))  # the package itself re-exports from above
        if not (there < floor[mine] or there == floor[mine] < open_floors):
            found.append(f"{name} imports {target}")
    return found


def circle(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle, in order; empty where there is none."""
    ways = {name: [target for target in dict.fromkeys(imported(name, texts)) if target in texts] for name in texts}
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name not in done:
            for target in ways[name]:
                if found := walk(target, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in texts if (found := walk(name, []))), [])


def notebook_sources(code: str) -> list[str]:
    """The modules of this project that a notebook's code imports from."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module)
    return sorted({name for name in found if name.split(".")[0] in (CORE, LAB)})


def sentences(text: str) -> int:
    """How many sentences a text has; a dot inside a name ends none."""
    return len(re.findall(r"[.?!](?=\s|$)", text.strip()))


@pytest.fixture(scope="module")
def texts(root: Path) -> dict[str, str]:
    return sources(root)


def test_the_core_stays_small(root: Path) -> None:
    core = {name: text for name, text in sources(root).items() if name.split(".")[0] == CORE}
    assert sum(len(text.splitlines()) for text in core.values()) <= MOST_LINES
    assert len(set(core) - packages(core)) <= MOST_MODULES


def test_the_core_asks_for_nothing_but_four_packages(texts: dict[str, str]) -> None:
    assert foreign(texts) == []


def test_arrows_inside_the_laboratory_run_downwards(texts: dict[str, str]) -> None:
    assert upward(texts, LAB, LAB_FLOORS, open_floors=0) == []


def test_arrows_inside_the_core_run_downwards(texts: dict[str, str]) -> None:
    assert upward(texts, CORE, CORE_FLOORS, open_floors=1) == []


def test_no_modules_import_each_other_in_a_circle(texts: dict[str, str]) -> None:
    assert circle(texts) == []


def test_every_import_of_this_project_leads_to_a_module(texts: dict[str, str]) -> None:
    lost = [(name, target) for name, target in arrows(texts) if target.split(".")[0] in (CORE, LAB)]
    assert [f"{name} imports {target}" for name, target in lost if target not in texts] == []


def test_the_design_page_shows_these_floors(root: Path) -> None:
    page = (root / "docs" / "design.md").read_text(encoding="utf-8").split("## The lab")[1]
    lines = re.findall(r"^\| \d+ \| ([^|]*) \|", page, re.MULTILINE)
    shown = [set(re.findall(r"`(\w+)/?`", line)) for line in lines]
    assert shown == [set(names) for names in LAB_FLOORS]


NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").rglob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_notebook_imports_from_few_modules_that_are_there(path: Path, texts: dict[str, str]) -> None:
    cells = nbformat.read(path, as_version=4).cells
    found = notebook_sources("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    assert f"{LAB}" in found, "every notebook starts from a workspace"
    assert len(found) <= MOST_SOURCES, found
    assert set(found) <= set(texts)


def test_every_room_says_in_about_three_sentences_what_it_holds(texts: dict[str, str]) -> None:
    rooms = packages(texts) - {CORE}  # whose page tells the method
    assert {f"{CORE}.tokenizer", f"{LAB}.datasets", LAB} <= rooms
    told = {name: sentences(ast.get_docstring(ast.parse(texts[name])) or "") for name in sorted(rooms)}
    assert {name: count for name, count in told.items() if not 2 <= count <= 4} == {}


# ---- the lint itself ----


def tree(**changes: str) -> dict[str, str]:
    """A small faultless project; `bbqrec_lab__datasets__reading="..."` gives that module another text."""
    made = {
        CORE: "from .recommender.fit import fit",
        f"{CORE}.dataset": "import numpy as np",
        f"{CORE}.metrics": "from .dataset import Dataset",
        f"{CORE}.recommender": "",
        f"{CORE}.recommender.fit": "from ..metrics import rank\nfrom .heads import Head",
        f"{CORE}.recommender.heads": "import torch.nn.functional as F",
        f"{CORE}.tokenizer": "",
        LAB: "def f():\n    from bbqrec_lab.notebook import Workspace",
        f"{LAB}.store": "",
        f"{LAB}.datasets": "",
        f"{LAB}.datasets.reading": "from bbqrec_core import Dataset\nfrom bbqrec_lab.store import Store",
        f"{LAB}.experiments": "",
        f"{LAB}.experiments.runs": "def f():\n    from bbqrec_lab.datasets import reading",
        f"{LAB}.notebook": "from bbqrec_lab.experiments import runs",
        f"{LAB}.plots": "",
    }
    return made | {name.replace("__", "."): text for name, text in changes.items()}


def problems(texts: Mapping[str, str]) -> list[str]:
    """All that the tests above would find in the packages' imports."""
    found = foreign(texts) + upward(texts, LAB, LAB_FLOORS, 0) + upward(texts, CORE, CORE_FLOORS, 1)
    return found + [" -> ".join(found) for found in [circle(texts)] if found]


def test_a_tree_without_a_fault_passes() -> None:
    assert problems(tree()) == []


@pytest.mark.parametrize(
    ("module", "text", "fault"),
    [
        ("bbqrec_core__metrics", "import bbqrec_lab.store", "bbqrec_core.metrics imports bbqrec_lab.store"),
        ("bbqrec_core__metrics", "def f():\n    import scipy.stats", "bbqrec_core.metrics imports scipy.stats"),
        (
            "bbqrec_core__tokenizer__fit",
            "from ..recommender import fit",
            "bbqrec_core.tokenizer.fit imports bbqrec_core.recommender.fit",
        ),
        (
            "bbqrec_core__dataset",
            "from .tokenizer import SemanticIds",
            "bbqrec_core.dataset imports bbqrec_core.tokenizer",
        ),
        (
            "bbqrec_lab__store",
            "def f():\n    from bbqrec_lab.datasets import reading",
            "bbqrec_lab.store imports bbqrec_lab.datasets.reading",
        ),
        ("bbqrec_lab__store", "from bbqrec_lab import Workspace", "bbqrec_lab.store imports bbqrec_lab"),
        ("bbqrec_lab__plots", "from bbqrec_lab import notebook", "bbqrec_lab.plots imports bbqrec_lab.notebook"),
        ("bbqrec_lab__attic", "", "attic stands on no floor"),
        (
            "bbqrec_core__recommender__heads",
            "from .fit import fit",
            "bbqrec_core.recommender.fit -> bbqrec_core.recommender.heads",
        ),
    ],
)
def test_each_fault_is_found_and_named(module: str, text: str, fault: str) -> None:
    first, *more = problems(tree(**{module: text}))
    assert first == fault
    assert all(" -> " in other for other in more), "some of these arrows close a circle besides"


def test_sources_of_a_notebook_are_modules_whatever_is_taken_from_them() -> None:
    code = "import numpy\nfrom bbqrec_core import a, b\nif a:\n    from bbqrec_core import c\nimport bbqrec_lab.store"
    assert notebook_sources(code) == ["bbqrec_core", "bbqrec_lab.store"]


def test_sentences_end_at_dots_that_end_them() -> None:
    assert sentences("What `a.b` is: c, d. And why?\nIt ends.") == 3
