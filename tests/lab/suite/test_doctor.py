"""`bbqrec doctor`: one screen on a sound machine; what is missing is named with its mend, and hides nothing else."""

import importlib
import json
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from bbqrec_lab import cli
from bbqrec_lab.suite import doctor

KINDS = {"python", "bbqrec", "packages", "device", "precision", "threads", "cache", "datasets", "encoders", "results"}
KINDS |= {"runs", "temporary", "notebooks"}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which bbqrec has done nothing yet."""
    monkeypatch.setenv("BBQREC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def of(findings: list[doctor.Finding], what: str) -> doctor.Finding:
    (found,) = [one for one in findings if one.what == what]
    return found


def test_a_sound_machine_has_one_screen_and_code_0_and_nothing_is_written(
    empty: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["doctor", "--out", str(empty / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 26
    assert lines[-1] == "nothing is missing"
    assert torch.__version__ in "".join(lines)
    assert "bbqrec data encoders" in "".join(lines)
    assert list(empty.iterdir()) == []


def test_json_has_every_finding(empty: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["doctor", "--out", str(empty / "runs"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["what"] for one in found} >= KINDS
    assert {tuple(one) for one in found} == {("what", "found", "state", "mend")}


def test_a_missing_and_a_wrong_package_are_named_with_the_command(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "polars":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "scipy" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert cli.main(["doctor", "--out", str(empty / "runs")]) == 1
    said = capsys.readouterr().out
    assert "polars is missing" in said
    assert "scipy 0.1 is not <2,>=1.13" in said
    assert f"-> {doctor.INSTALL}" in said
    assert said.splitlines()[-1].startswith("1 of ")
    assert of(doctor.examine(empty), "packages").state == doctor.MISSING


def test_a_missing_extra_is_no_error(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("voila", "sentence-transformers"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = doctor.examine(empty)
    dev = of(found, "packages [dev]")
    assert dev.found.endswith(": voila is missing")
    assert dev[2:] == (doctor.OPTIONAL, doctor.EXTRAS["dev"])
    assert of(found, "packages [text]").state == doctor.OPTIONAL
    assert of(found, "packages").state == doctor.OK


def test_a_torch_that_cannot_be_loaded_hides_no_other_finding(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def load(name: str, *more: object) -> object:
        if name == "torch":
            raise OSError("libcudart.so.99: cannot open shared object file")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", load)
    found = doctor.examine(empty)
    assert of(found, "device")[1:] == (
        "torch cannot be imported: libcudart.so.99: cannot open shared object file",
        doctor.MISSING,
        "pip install --force-reinstall torch==2.13.0",
    )
    assert {one.what for one in found} >= KINDS - {"precision"}


def test_a_check_that_fails_is_a_finding(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[doctor.Finding]:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(doctor, "_memory", broken)
    found = doctor.examine(empty)
    assert of(found, "broken")[1:3] == ("RuntimeError: no such thing", doctor.MISSING)
    assert "notebooks" in {one.what for one in found}


def test_another_python_is_refused(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.14.1")
    assert of(doctor.examine(empty), "python").state == doctor.MISSING


def test_results_need_a_folder_to_write_and_a_cache_may_be_read_only(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = doctor.examine(empty / "runs")
    assert of(found, "results").state == doctor.MISSING
    assert "--out" in of(found, "results").mend
    assert of(found, "cache").state == doctor.OPTIONAL
    assert "BBQREC_CACHE" in of(found, "cache").mend


def test_a_full_disk_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(empty)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    found = of(doctor.examine(empty / "runs"), "results")
    assert (found.state, "0.1 GB free" in found.found) == (doctor.MISSING, True)


def test_runs_are_counted_and_damaged_ones_named(empty: Path) -> None:
    store = empty / "runs" / "artefacts"
    for name in ("run-1", "run-2.partial", ".damaged-run-3"):
        (store / name).mkdir(parents=True)
    (store / "run-1" / "rows.csv").touch()
    found = of(doctor.examine(empty / "runs"), "runs")
    assert found.found == "1 finished; 1 damaged ones are set aside"
    assert str(store) in found.mend


def test_precision_is_what_the_machine_has(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert of(doctor.examine(empty), "precision").found == "fp32; bf16 needs AMX or a GPU (avx2)"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True, "avx2": True})
    assert of(doctor.examine(empty), "precision").found == "fp32 and bf16 (amx_bf16, avx2)"


def test_a_gpu_that_torch_cannot_use_is_named(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("torch uses the GPU here")
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable if name == "nvidia-smi" else real(name))
    found = of(doctor.examine(empty), "device")
    assert found.state == doctor.OPTIONAL
    assert "torch==2.13.0" in found.mend
