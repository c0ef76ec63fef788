"""A key of code moves with what a stage computes, and with nothing else."""

import ast
import shutil
import textwrap
from pathlib import Path

import pytest

from bbqrec_lab.code_keys import PACKAGES, code_hash
from bbqrec_lab.experiments import runs

KEYS = {
    "tokenizer": {"modules": runs.TOKENIZER_CODE},
    "model": {"modules": (*runs.RUN_CODE, *runs.MODEL_CODE, *runs.TOKENIZER_CODE), "alone": (runs.__name__,)},
    "counting": {"modules": (*runs.RUN_CODE, "bbqrec_lab.baselines.counting"), "alone": (runs.__name__,)},
    "bundle": {"modules": ("bbqrec_lab.datasets.sources",)},
}


def keys_with(root: Path, home: Path, file: str = "", old: str = "", new: str = "") -> dict[str, str]:
    """All keys of a copy of the packages in which `old` was changed into `new` in one file."""
    for package in PACKAGES:
        shutil.copytree(root / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        text = (home / file).read_text(encoding="utf-8")
        assert old in text
        (home / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    return {name: code_hash(*key["modules"], alone=key.get("alone", ()), root=home) for name, key in KEYS.items()}


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return keys_with(root, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("file", "old", "new", "moved"),
    [
        ("bbqrec_core/kernels.py", "LOSS_ROWS = 128  # ", "LOSS_ROWS = 128  # about ", set()),
        ("bbqrec_core/kernels.py", '"""Fast versions', '"""Quick versions', set()),
        ("bbqrec_core/kernels.py", "\n\n\n", "\n\n\n\n", set()),
        ("bbqrec_core/kernels.py", "LOSS_ROWS = 128", "LOSS_ROWS = 129", {"tokenizer", "model"}),
        ("bbqrec_core/recommender/decoding.py", "FEWER = 4", "FEWER = 5", {"model"}),
        ("bbqrec_core/metrics.py", "NDCG_AT = (5,", "NDCG_AT = (6,", {"model", "counting"}),
        ("bbqrec_lab/baselines/counting.py", "BLOCK = ", "BLOCK = 1 + ", {"counting"}),
        ("bbqrec_lab/datasets/id_files.py", 'r"', 'r"x', {"tokenizer", "model"}),
        ("bbqrec_lab/datasets/movielens.py", "GRAPH_WIDTH = ", "GRAPH_WIDTH = 1 + ", {"bundle"}),
        ("bbqrec_lab/experiments/runs.py", 'COMPARED = ("ndcg@10"', 'COMPARED = ("ndcg@5"', {"model", "counting"}),
        ("bbqrec_lab/experiments/variants.py", '"training events per item"', '"events per item"', set()),
        ("bbqrec_lab/plots/style.py", "WIDTH", "BREADTH", set()),
        ("bbqrec_lab/widgets/playground.py", "HITS, COMPARED = 8", "HITS, COMPARED = 9", set()),
    ],
)
def test_a_change_moves_the_keys_of_those_that_run_it_alone(
    root: Path, tmp_path: Path, plain: dict[str, str], file: str, old: str, new: str, moved: set[str]
) -> None:
    changed = keys_with(root, tmp_path, file, old, new)
    assert {name for name in KEYS if changed[name] != plain[name]} == moved


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        code_hash("bbqrec_lab.nowhere")


def test_keys_of_rows_are_these() -> None:
    found = {name: code_hash(*key["modules"], alone=key.get("alone", ())) for name, key in KEYS.items()}
    assert found["model"] == runs.run_code("ids")
    assert found["counting"] == runs.run_code("popularity")
    assert len(set(found.values())) == len(KEYS)
    assert {len(key) for key in found.values()} == {32}


HOUSE = {  # file -> content; `first` computes with a name of `third`, which the packages' __init__ modules hand on
    "bbqrec_core/__init__.py": "from .room import third as number\nfrom .second import unused\n",
    "bbqrec_core/second.py": "def unused():\n    return 2\n",
    "bbqrec_core/room/__init__.py": "from ..third import third\nfrom .fourth import fourth\n",
    "bbqrec_core/room/fourth.py": "fourth = 4\n",
    "bbqrec_core/third.py": "from .deep import fifth\n\nthird = 3 + fifth\n",
    "bbqrec_core/deep.py": "fifth = 5\n",
    "bbqrec_lab/__init__.py": "",
    "bbqrec_lab/first.py": '''\
        """The first."""
        from pathlib import Path


        class Shape:
            """A shape."""

            def area(self):
                """Its area."""
                from bbqrec_core import number

                return number  # from far


        def empty():
            """Nothing but this."""
        ''',
}


def build(home: Path, **changes: str) -> str:
    """The key of the first module of the house with other contents of some files (`.py` left out, / as __)."""
    changed = {f"{name.replace('__', '/')}.py": text for name, text in changes.items()}
    for file, text in (HOUSE | changed).items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(textwrap.dedent(text), encoding="utf-8")
    return code_hash("bbqrec_lab.first", root=home)


@pytest.mark.parametrize(
    ("file", "text", "moves"),
    [
        ("bbqrec_core__third", "from .deep import fifth\nthird = 4 + fifth\n", True),
        ("bbqrec_core__deep", "fifth = 6\n", True),
        ("bbqrec_core__third", '"""Third."""\n\nfrom .deep import fifth\nthird = (  # of all\n    3 + fifth)\n', False),
        ("bbqrec_core__second", "def unused():\n    return 3\n", False),
        ("bbqrec_core__room__fourth", "fourth = 5\n", False),
        ("bbqrec_lab__first", HOUSE["bbqrec_lab/first.py"].replace('"""Its area."""', '"""Other words."""'), False),
        ("bbqrec_lab__first", HOUSE["bbqrec_lab/first.py"].replace('"""Nothing but this."""', "pass"), False),
        ("bbqrec_lab__first", HOUSE["bbqrec_lab/first.py"].replace("class Shape:", "class Shape:  # one\n\n"), False),
        ("bbqrec_lab__first", HOUSE["bbqrec_lab/first.py"].replace("return number", "return number + 1"), True),
        ("bbqrec_lab__first", HOUSE["bbqrec_lab/first.py"].replace("def area", "def size"), True),
    ],
)
def test_a_name_is_followed_through_packages_to_the_module_that_defines_it(
    tmp_path: Path, file: str, text: str, moves: bool
) -> None:
    assert (build(tmp_path / "a") != build(tmp_path / "b", **{file: text})) == moves


def test_a_module_that_counts_alone_brings_none_of_its_imports(tmp_path: Path) -> None:
    keys = []
    for home, deep in (("a", "fifth = 5\n"), ("b", "fifth = 6\n")):
        build(tmp_path / home, bbqrec_core__deep=deep)
        keys.append(code_hash("bbqrec_core.second", alone=("bbqrec_core.third",), root=tmp_path / home))
    assert keys[0] == keys[1]
    assert keys[0] != code_hash("bbqrec_core.second", root=tmp_path / "a")
    assert keys[0] != code_hash("bbqrec_core.second", "bbqrec_core.third", root=tmp_path / "a")


def test_a_module_that_another_asks_for_is_missed_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build(tmp_path, bbqrec_core__deep="from .nowhere import fifth\n")


def test_no_module_imports_in_the_one_way_that_is_not_followed(root: Path) -> None:
    """`import bbqrec_core.metrics` names no module's name: a key would not see what is used of it."""
    for package in PACKAGES:
        for file in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                assert not [name for name in names if name.split(".")[0] in PACKAGES], file
