"""Pins, ranges, environments and the make targets agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TARGETS = ("help", "setup", "reproduce", "test", "browser", "lab", "inspector", "book", "figures", "bench", "clean")


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    """Version by canonical name; every line of constraints.txt that is not a comment must be `name==version`."""
    lines = [line.partition("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines()]
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line]
    assert all(found)
    return {canonicalize_name(match[1]): match[2] for match in found}


def _requirements(project: dict) -> list[Requirement]:
    extras = [entry for extra in project["optional-dependencies"].values() for entry in extra]
    return [Requirement(entry) for entry in project["dependencies"] + extras]


def test_every_dependency_has_a_range_and_a_pin_inside_it(project: dict, pins: dict[str, str]) -> None:
    for requirement in _requirements(project):
        assert requirement.specifier, f"{requirement.name} has no range"
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} has no pin in constraints.txt"
        assert pin in requirement.specifier, f"{requirement.name}=={pin} is outside {requirement.specifier}"


def test_torch_is_the_tested_version(pins: dict[str, str]) -> None:
    assert pins["torch"] == "2.13.0"


def test_peers_have_the_tested_torch_and_pins_only_constraints_lack(root: Path, pins: dict[str, str]) -> None:
    for name in ("main", "recbole"):
        lines = (root / "benchmarks" / f"peers_{name}.txt").read_text().splitlines()
        peers = {
            entry.name: entry
            for line in lines
            if (bare := line.partition("#")[0].strip())
            for entry in [Requirement(bare)]
        }
        if name == "main":  # installed with constraints.txt, which must know every package, or the line pins it
            assert all(canonicalize_name(peer) in pins or "==" in str(entry) for peer, entry in peers.items())
        else:
            assert str(peers["torch"].specifier) == f"=={pins['torch']}"


def test_conda_environment_is_the_same_python_and_the_same_pins(root: Path, project: dict) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, inside = environment["dependencies"]
    name, _, version = python.partition("=")
    assert (name, pip, list(inside)) == ("python", "pip", ["pip"])
    allowed = SpecifierSet(project["requires-python"])
    assert f"{version}.7" in allowed
    assert not any(f"3.{other}.0" in allowed for other in range(20) if f"3.{other}" != version)
    constraint, package = inside["pip"]
    assert constraint == "-c constraints.txt"
    extra = re.fullmatch(r"-e \.\[(\w+)\]", package)[1]
    assert extra in project["optional-dependencies"]


def test_citation_names_this_version_and_the_paper(root: Path, project: dict) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (paper,) = citation["references"]
    assert "2504.06636" in paper["url"]
    assert paper["title"].startswith("BBQRec:")
    assert len(paper["authors"]) == 8


def test_licence_is_the_one_declared(root: Path, project: dict) -> None:
    text = (root / "LICENSE").read_text()
    assert text.startswith("MIT License\n\nCopyright (c) 2026 bbqrec authors")
    assert project["license"] == "MIT"


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=clean)


@pytest.fixture
def bare(root: Path, tmp_path: Path) -> Path:
    """A clone's root without .venv, as far as make looks at it."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / "benchmarks").mkdir()
    for name in ("main", "recbole"):
        shutil.copy(root / "benchmarks" / f"peers_{name}.txt", tmp_path / "benchmarks")
    return tmp_path


def _interpreter(path: Path, version: str) -> Path:
    """A stand-in for another Python: it says its version, and that it is not 3.11."""
    path.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "Python {version}" ;; *) echo False; exit 1 ;; esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("target", ["reproduce", "test", "browser", "lab", "inspector", "book", "figures", "bench"])
def test_other_pythons_are_refused_in_one_line_before_anything_is_made(bare: Path, target: str) -> None:
    other = _interpreter(bare / "python3.12", "3.12.1")
    before = sorted(bare.iterdir())
    result = _make(bare, target, f"PYTHON={other}")
    assert result.returncode != 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "bbqrec needs Python 3.11" in line
    assert "(found Python 3.12.1)" in line
    assert f"make {target} PYTHON=" in line
    assert sorted(bare.iterdir()) == before


def test_the_package_itself_refuses_other_pythons(project: dict) -> None:
    allowed = SpecifierSet(project["requires-python"])
    assert "3.11.7" in allowed
    assert "3.10.9" not in allowed
    assert "3.12.0" not in allowed


@pytest.mark.parametrize("target", TARGETS)
def test_make_targets_are_complete(bare: Path, target: str) -> None:
    result = _make(bare, "--dry-run", target, f"PYTHON={sys.executable}")
    assert result.returncode == 0, result.stderr
    assert target == "help" or f"make {target} " in _make(bare).stdout


def test_set_up_comes_first_and_only_once(bare: Path) -> None:
    assert "-m venv" in _make(bare, "--dry-run", "test", f"PYTHON={sys.executable}").stdout
    (bare / ".venv").mkdir()
    (bare / ".venv" / ".stamp").touch()
    assert "-m venv" not in _make(bare, "--dry-run", "test", f"PYTHON={sys.executable}").stdout
    later = (bare / ".venv" / ".stamp").stat().st_mtime + 10
    os.utime(bare / "constraints.txt", (later, later))
    assert "pip install" in _make(bare, "--dry-run", "test", f"PYTHON={sys.executable}").stdout


def test_a_failing_check_ends_make_with_its_cause(bare: Path) -> None:
    tools = bare / ".venv" / "bin"
    tools.mkdir(parents=True)
    (bare / ".venv" / ".stamp").touch()
    for name in ("ruff", "python"):
        (tools / name).write_text("#!/bin/sh\nexit $(grep -c '' fails.$1.$2 2>/dev/null || echo 0)\n")
        (tools / name).chmod(0o755)
    assert _make(bare, "test").returncode == 0
    (bare / "fails.-m.pytest").write_text("x\n")
    result = _make(bare, "test")
    assert result.returncode != 0
    assert "make test: unit tests failed" in result.stderr
    assert "3 of 3" not in result.stderr
    (bare / "fails.check..").write_text("x\n")
    assert "make test: ruff check found" in _make(bare, "test").stderr


def test_what_make_leaves_behind_is_ignored_by_git(root: Path) -> None:
    if not (root / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    left = [
        ".venv/.stamp",
        ".peers/main/.stamp",
        "runs/x/y.csv",
        "bbqrec.egg-info/PKG-INFO",
        ".pytest_cache/x",
        ".hypothesis/x",
    ]
    left += [".ruff_cache/x", "notebooks/.ipynb_checkpoints/x.ipynb", "tests/__pycache__/x.pyc"]
    result = subprocess.run(["git", "check-ignore", *left], cwd=root, capture_output=True, text=True)
    assert result.stdout.splitlines() == left


def test_ci_runs_what_the_readme_gives(root: Path) -> None:
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "exec make test"
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
