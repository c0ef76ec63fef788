"""Every notebook on planted data with preset `smoke`, through the command that users run."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bbqrec_lab.suite import notebooks

pytestmark = pytest.mark.suite
DATASET, SEEDS = "planted", "1,2"
BUDGET, SOLUTION = 960.0, 90.0  # processor seconds, so that a busy machine changes nothing


def _git_status(root: Path) -> str:
    if not (root / ".git").exists() or not shutil.which("git"):
        return ""
    return subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True).stdout


def _run(out: Path) -> tuple[subprocess.CompletedProcess, float]:
    """The finished command, and the processor seconds that it, its workers and its kernels took."""
    command = [sys.executable, "-c", "import sys; from bbqrec_lab.cli import main; sys.exit(main())"]
    options = ["reproduce", "--dataset", DATASET, "--preset", "smoke", "--seeds", SEEDS, "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([*command, *options], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess, float]:
    """(folder of the run, finished command, its processor seconds); with seeds that no notebook defaults to."""
    out, before = tmp_path_factory.mktemp("runs"), _git_status(root)
    result, seconds = _run(out)
    assert result.returncode == 0, result.stderr[-4000:]
    assert _git_status(root) == before
    return out / DATASET / "smoke", result, seconds


def test_every_notebook_and_row_is_done(finished: tuple, root: Path) -> None:
    run, result, _ = finished
    names = [path.name for path in notebooks.discover(root / "notebooks")]
    assert [name for name in names if not (run / "notebooks" / name).exists()] == []
    rows = pl.read_csv(run / "tables" / "main_results.csv")
    columns = "dataset data_hash variant seed preset split_seed seen_items segment targets metric value config_hash"
    assert rows.columns == columns.split()
    assert set(rows["seed"]) == {1, 2}
    assert set(rows["seen_items"]) == {"included", "filtered"}
    assert rows["value"].is_finite().all()
    assert (run / "tables" / "intervals.csv").exists()
    assert all(variant in result.stdout for variant in rows["variant"].unique())


def test_each_notebook_leaves_a_figure_in_both_formats(finished: tuple, root: Path) -> None:
    run, _, _ = finished
    unowned = {str(path.relative_to(run)) for path in (run / "figures").iterdir()}
    for path in notebooks.discover(root / "notebooks"):
        files = json.loads((run / "notebooks" / f"{path.stem}.done.json").read_text())["files"]
        figures = {Path(name).stem: set() for name in files if name.startswith("figures/")}
        for name in files:
            if name.startswith("figures/"):
                figures[Path(name).stem].add(Path(name).suffix)
        assert figures, f"{path.name} draws nothing"
        assert all(kinds == {".png", ".svg"} for kinds in figures.values()), figures
        unowned -= set(files)
    assert not unowned, "a figure's name begins with its notebook's number"


def test_no_output_is_the_text_of_a_progress_bar(finished: tuple) -> None:
    for path in (finished[0] / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            said = "".join("".join(out.get("text", "")) for out in cell.get("outputs", ()))
            assert not re.search(r"it/s|\d%\|", said), f"{path.name}: {said[:200]}"


def test_the_suite_keeps_its_time(finished: tuple) -> None:
    assert finished[2] < BUDGET


@pytest.mark.parametrize("path", notebooks.solutions(notebooks.notebook_folder()), ids=lambda path: path.name)
def test_solutions_are_right_on_what_the_suite_left(finished: tuple, path: Path) -> None:
    run = finished[0]
    given = {"dataset": DATASET, "preset": "smoke", "seed": 1, "out_dir": str(run.parent.parent), "overrides": {}}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    cause = notebooks.execute(path, run / "solutions" / path.name, notebooks.parameters_for(path, given, SEEDS))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert cause == ""
    assert after.ru_utime - before.ru_utime < SOLUTION


def test_a_second_run_does_nothing_again(finished: tuple) -> None:
    run, first, seconds = finished
    tables = {path.name: path.read_bytes() for path in (run / "tables").iterdir()}
    again, spent = _run(run.parent.parent)
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stdout == first.stdout
    assert "done (" not in "".join(line for line in again.stderr.splitlines() if line.startswith("notebook"))
    assert {path.name: path.read_bytes() for path in (run / "tables").iterdir()} == tables
    assert spent < seconds / 2
