"""A key of code moves with what a stage computes, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from bbqrec_lab.code_keys import PACKAGES, code_hash
from bbqrec_lab.experiments import runs

KEYS = {
    "tokenizer": {"modules": runs.TOKENIZER_CODE},
    "model": {"modules": (*runs.RUN_CODE, *runs.MODEL_CODE, *runs.TOKENIZER_CODE), "alone": (runs.__name__,)},
    "counting": {"modules": (*runs.RUN_CODE, *runs.COUNTING_CODE), "alone": (runs.__name__,)},
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
        ("bbqrec_core/kernels.py", '"""Fast ways', '"""Quick ways', set()),
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
        ("bbqrec_lab/widgets/playground.py", "HITS, RIVAL = 8", "HITS, RIVAL = 9", set()),
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
