"""Pins, ranges, environments and the make targets agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TARGETS = (
    "help",
    "setup",
    "reproduce",
    "test",
    "unit",
    "browser",
    "lab",
    "inspector",
    "book",
    "figures",
    "bench",
    "lock",
    "sbom",
    "clean",
)
SUPPORTED = (11, 12, 13)  # minor versions of Python 3


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
    asked = Requirement(python)
    assert (asked.name, pip, list(inside)) == ("python", "pip", ["pip"])
    assert asked.specifier == SpecifierSet(project["requires-python"])
    assert [minor for minor in range(30) if f"3.{minor}.7" in asked.specifier] == list(SUPPORTED)
    constraint, package = inside["pip"]
    assert constraint == "-c constraints.txt"
    extra = re.fullmatch(r"-e \.\[(\w+)\]", package)[1]
    assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("minor", SUPPORTED)
def test_the_pip_part_of_the_conda_environment_resolves(root: Path, pins: dict[str, str], minor: int) -> None:
    """uv resolves the two pip lines of environment.yml from wheels alone, with each pinned package at its pin."""
    inside = yaml.safe_load((root / "environment.yml").read_text())["dependencies"][-1]["pip"]
    constraint, extra = inside[0].split()[1], re.fullmatch(r"-e \.\[(\w+)\]", inside[1])[1]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", extra, "-c", constraint]
    command += ["--python-version", f"3.{minor}", "--only-binary", ":all:", "--no-annotate", "--no-header"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode and "error sending request" in done.stderr:
        pytest.skip("needs a package index")
    assert done.returncode == 0, done.stderr[-2000:]
    found = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.M)}
    assert {"torch", "jupyterlab", "matplotlib", "seaborn", "umap-learn", "ipywidgets", "papermill"} <= found.keys()
    assert {name: version for name, version in found.items() if pins.get(name, version) != version} == {}


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
    # `make unit VENV=... PYTHON=...` exports its variables to the tests it runs: they are not the inner make's.
    outer = ("MAKE", "MFLAGS", "VENV", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
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
    """A stand-in for another Python: it says its version, and that it is none of the supported ones."""
    path.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "Python {version}" ;; *) exit 1 ;; esac\n')
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "target", ["reproduce", "test", "unit", "browser", "lab", "inspector", "book", "figures", "bench"]
)
def test_other_pythons_are_refused_in_one_line_before_anything_is_made(bare: Path, target: str) -> None:
    other = _interpreter(bare / "python3.14", "3.14.1")
    before = sorted(bare.iterdir())
    result = _make(bare, target, f"PYTHON={other}")
    assert result.returncode != 0
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"bbqrec needs Python {', '.join(f'3.{minor}' for minor in SUPPORTED[:-1])} or 3.{SUPPORTED[-1]}" in line
    assert "(found Python 3.14.1)" in line
    assert f"make {target} PYTHON=" in line
    assert sorted(bare.iterdir()) == before


def test_the_package_itself_refuses_other_pythons(project: dict) -> None:
    allowed = SpecifierSet(project["requires-python"])
    assert all(f"3.{minor}.{patch}" in allowed for minor in SUPPORTED for patch in (0, 7))
    assert "3.10.9" not in allowed
    assert "3.14.0" not in allowed


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
    alone = _make(bare, "unit")
    assert alone.returncode != 0
    assert "make unit: unit tests failed" in alone.stderr


def test_what_make_leaves_behind_is_ignored_by_git(root: Path) -> None:
    if not (root / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    left = [
        ".venv/.stamp",
        ".venv-3.13/.stamp",
        ".uv/bin/uv",
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
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines, "the first command that fails ends it"
    whole, others = lines.index("make test"), lines.index('    make unit PYTHON="$python" VENV=".venv-$found"')
    assert whole < others
    (tried,) = (line for line in lines if line.startswith("for python in"))
    assert all(f"python3.{minor} " in tried for minor in SUPPORTED)
    assert not [line for line in lines if "make " in line and ("|| true" in line or "set +e" in line)]
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0


def test_the_wheel_holds_both_packages_with_their_data_and_the_command(root: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    for package in ("bbqrec_core", "bbqrec_lab"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    files = {str(file.relative_to(tmp_path)) for file in tmp_path.glob("bbqrec_*/**/*") if file.is_file()}
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "dist").glob("bbqrec-*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "bbqrec = bbqrec_lab.cli:main" in wheel.read(entry).decode().splitlines()
    assert {name for name in names if ".dist-info/" not in name} == files
    assert {Path(name).suffix for name in files} == {".py", ".csv", ".css", ".js", ".j2", ".html"}
