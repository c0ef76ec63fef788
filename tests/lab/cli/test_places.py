"""Places that may only be read, and users without a home: what is there is used, else the line says what to set."""

import errno
from pathlib import Path

import pytest

from bbqrec_lab import cli, store
from bbqrec_lab.datasets import download, features, sources
from bbqrec_lab.experiments import run_labels


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A command whose dataset and result are made, in a cache and an out folder of their own."""
    monkeypatch.setenv("BBQREC_CACHE", str(tmp_path / "cache"))
    command = f"fit --dataset planted-smoke --variant popularity --preset smoke --out {tmp_path / 'runs'}"
    assert cli.main(command.split()) == 0
    return command


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, fill: str) -> None:
    """From here on, no lock can be made; permissions would not stop root."""

    def refuse(path: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for module in (store, sources, download, features, run_labels):
        monkeypatch.setattr(module, "FileLock", refuse)


def test_what_is_there_is_used_where_nothing_can_be_written(
    fill: str, read_only: None, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert cli.main(["data", "get", "planted-smoke"]) == 0
    assert cli.main(fill.split()) == 0
    assert "popularity" in capsys.readouterr().out
    assert cli.main(["runs", "--out", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize("command", ["data get planted", "fit --variant markov --dataset planted-smoke --preset smoke"])
def test_what_must_be_made_says_what_to_set(
    command: str, fill: str, read_only: None, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "runs")] if command.startswith("fit") else []
    assert cli.main([*command.split(), *out]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "Read-only file system" in said
    assert "--out for results, BBQREC_CACHE for downloads and datasets" in said


def test_a_user_without_a_home_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("BBQREC_CACHE", raising=False)
    monkeypatch.setattr(download.pooch, "os_cache", refuse)
    assert cli.main(["data", "list"]) == 2
    assert "set BBQREC_CACHE to a folder" in capsys.readouterr().err
