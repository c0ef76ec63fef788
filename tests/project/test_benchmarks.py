"""The benchmark suite: what its figures mean, and that every row runs and holds both sides against each other.

No time is asserted. A row raises by itself where the two sides compute different things, so running it is the test;
rows whose peer is in no environment of this machine are skipped.
"""

import ast
import csv
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bbqrec_lab.measure import Side
from benchmarks.__main__ import GROUPS, run_group
from benchmarks.harness import Row, cost_row, gain_row, judge, rate_row

SMALL = ["--scale=0.003", "--repetitions=1"]


def test_a_rate_counts_the_work_of_each_side_and_pairs_repetitions() -> None:
    sides = (Side(print, 10), Side(print, 40))
    row = rate_row("w", "p", "things", sides, (np.array([1.0, 2, 5]), np.array([2.0, 8, 10])), ">= 0.5", "")
    assert (row.ours, row.theirs, row.unit) == (5.0, 5.0, "things/s")
    assert (row.ratio_low, row.ratio, row.ratio_high) == (0.5, 0.5, 0.75)  # of 0.5, 1.0 and 0.5
    assert row.met
    assert row.repetitions == 3


def test_a_cost_is_ours_over_theirs_and_a_gain_the_other_way_round() -> None:
    ours, theirs = np.array([2.0, 4.0, 4.0]), np.array([2.0, 2.0, 2.0])
    cost, gain = (make("w", "p", "ms", ours, theirs, "<= 1.5", "") for make in (cost_row, gain_row))
    assert (cost.ratio, cost.met) == (2.0, False)
    assert (gain.ratio, gain.met) == (0.5, True)


@pytest.mark.parametrize(
    ("aim", "ratio", "ours", "met"),
    [(">= 2", 2.0, 0, True), (">= 2", 1.9, 9, False), ("<= 1.15", 1.2, 0, False), ("ours <= 40", 90, 40, True),
     ("ours <= 40", 1, 41, False), ("", 0.0, 0, True)],
)  # fmt: skip
def test_an_aim_speaks_of_the_ratio_unless_it_says_ours(aim: str, ratio: float, ours: float, met: bool) -> None:
    assert judge(aim, ratio, ours) is met


def test_unknown_rows_are_refused_in_one_line(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "beam,beans"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no rows beans" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).resolve().parents[2] / "benchmarks").glob("*.py")), ids=lambda path: path.name
)
def test_what_rows_take_from_the_packages_is_there(path: Path) -> None:
    """Of rows whose peer is nowhere on this machine as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.startswith("bbqrec_"):
            module = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), node.module


def _peers(root: Path, tmp_path: Path, group: str) -> Path:
    """The folder of environments: the one that `make bench` makes, or this interpreter where it has the peer."""
    if (root / ".peers" / GROUPS[group][0] / "bin" / "python").exists():
        return root / ".peers"
    if group in ("sasrec", "evaluate", "beam", "request"):
        pytest.skip("needs the environments of `make bench`")
    place = tmp_path / GROUPS[group][0] / "bin"
    place.mkdir(parents=True)
    (place / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (place / "python").chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("group", GROUPS)
def test_every_row_runs_small_and_both_sides_agree(root: Path, tmp_path: Path, group: str) -> None:
    rows = run_group(group, SMALL, _peers(root, tmp_path, group))
    assert rows
    assert all(row.ratio >= 0 and row.ours_low <= row.ours <= row.ours_high for row in rows)
    assert any(row.checked for row in rows)
    if group in ("tree", "bundle"):
        sizes = [row for row in rows if "memory" in row.work]
        assert all(row.theirs > 0 and row.ours > 0 for row in sizes)


def test_a_row_that_fails_is_named_and_the_others_are_written(root: Path, tmp_path: Path) -> None:
    peers = tmp_path / "peers"
    for name, script in (("main", "echo broken peer >&2; exit 1"), ("recbole", "cat rows.json")):
        (peers / name / "bin").mkdir(parents=True)
        (peers / name / "bin" / "python").write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (peers / name / "bin" / "python").chmod(0o755)
    row = Row("w", "p", "u/s", 2.0, 1.0, 2.0, ">= 3", False, *[1.0] * 6, 5, "")
    (tmp_path / "rows.json").write_text(json.dumps([row._asdict()]))
    command = [sys.executable, "-m", "benchmarks", "--only", "beam,evaluate"]
    done = subprocess.run(
        [*command, "--peers", str(peers), "--to", str(tmp_path / "out")],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 1
    assert "benchmarks: beam: broken peer" in done.stderr
    assert "MISSED" in done.stdout
    with (tmp_path / "out" / "bench.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert (line["work"], line["ratio"], line["aim"], line["met"]) == ("w", "2", ">= 3", "False")
    with (tmp_path / "out" / "bench_machine.csv").open() as file:
        facts = {entry["what"]: entry["value"] for entry in csv.DictReader(file)}
    assert {"cpu", "cores", "threads a side", "torch"} <= facts.keys()
    assert all(facts[name] for name in ("cpu", "cores", "torch"))
