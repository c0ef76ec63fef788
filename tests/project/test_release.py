"""What a release is made of: a lock that holds for everybody, its bill of materials, and workflows with few rights."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = re.compile(r"([\w.-]+)==([\w.!]+)(?: ; (.+))? \\")  # no local version, such as +cpu
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def entries(lock: str) -> dict[tuple[str, str], int]:
    """Number of hashes by canonical name and version. Raises: ValueError for a line that a lock may not have."""
    found: dict[tuple[str, str], int] = {}
    more, last = False, None
    for number, line in enumerate(lock.splitlines(), start=1):
        package, file = PACKAGE.fullmatch(line), HASH.fullmatch(line)
        if more != bool(file) or not (package or file):
            raise ValueError(f"line {number}: {line}")
        if package:
            if package[3]:
                Marker(package[3])
            last = canonicalize_name(package[1]), package[2]
            found[last] = 0
            more = True
        else:
            found[last] += 1
            more = bool(file[1])
    if more:
        raise ValueError("the last package has no more hashes")
    return found


@pytest.fixture(scope="module")
def lock(root: Path) -> str:
    return (root / "requirements.lock").read_text(encoding="utf-8")


def test_the_lock_has_only_packages_of_the_public_index_with_hashes(lock: str) -> None:
    assert len(entries(lock)) > 150
    assert min(entries(lock).values()) >= 1


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.13.0+cpu \\",
        "torch @ file:///wheels/torch.whl \\",
        "torch==2.13.0",
        "--index-url https://index.example/simple",
        "--find-links /wheels",
        "-e .",
        "/wheels/torch-2.13.0.whl \\",
        "    # from https://index.example",
    ],
)
def test_what_holds_on_one_machine_alone_is_refused_in_a_lock(lock: str, line: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d+"):
        entries(f"{line}\n{lock}")


def test_the_lock_has_every_requirement_at_its_pin(root: Path, lock: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split()[0].split("==") for line in (root / "constraints.txt").read_text().splitlines() if "==" in line
    )
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    locked = {name for name, _ in entries(lock)}
    asked = [Requirement(entry) for entry in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]
    assert {canonicalize_name(one.name) for one in asked} <= locked
    assert [(name, version) for name, version in entries(lock) if pins.get(name, version) != version] == []
    assert "setuptools" in locked, "the package itself is then built without another download"


def test_the_bill_of_materials_has_every_package_and_is_always_the_same(root: Path, lock: str, tmp_path: Path) -> None:
    written = []
    for name in ("a.json", "b.json"):
        command = [sys.executable, root / ".ci" / "sbom.py", root / "requirements.lock", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
        written.append((tmp_path / name).read_text())
    assert written[0] == written[1]
    bill = json.loads(written[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert {(canonicalize_name(part["name"]), part["version"]): len(part["hashes"]) for part in bill["components"]} == (
        entries(lock)
    )
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in bill["components"])
    references = [part["bom-ref"] for part in bill["components"]]
    assert len(set(references)) == len(references)
    assert bill["dependencies"][0]["dependsOn"] == references


WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_rights_and_run_no_text_of_others(path: Path) -> None:
    text = path.read_text()
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in text
    for job in flow["jobs"].values():
        assert "timeout-minutes" in job or list(job["steps"][0]) == ["id", "uses"]
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "a value goes through env, so that a shell cannot run it"
            if "uses" in step:
                assert re.fullmatch(r"(actions|github)/[\w/-]+@v\d+", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_the_workflows_audit_the_lock_and_analyse_the_code() -> None:
    told = {path.stem: path.read_text() for path in WORKFLOWS}
    assert "pip-audit --requirement requirements.lock --require-hashes" in told["audit"]
    assert all(f"codeql-action/{step}@" in told["codeql"] for step in ("init", "analyze"))
    assert "make sbom" in told["release"]


def test_every_promise_names_a_test_that_is_there(root: Path) -> None:
    lines = re.findall(r"^\| (.+) \| (`tests/.+`) \|$", (root / "docs" / "security.md").read_text(), re.MULTILINE)
    assert len(lines) >= 8
    for promise, tests in lines:
        for name in re.findall(r"`([^`]+)`", tests):
            assert (root / name).is_file(), f"{promise}: {name}"
    assert "docs/security.md" in (root / "SECURITY.md").read_text()
