"""How the command starts: help without a slow import, version, completion, module form, and any encoding of a pipe."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bbqrec_lab import cli
from bbqrec_lab.cli.app import app

COMMANDS = {
    "": {"reproduce", "fit", "recommend", "ids", "variants", "inspector", "book", "lab", "data"}
    | {"config", "runs", "completion", "doctor", "serve"},
    "data": {"list", "get", "check", "stats", "encoders"},
}
SLOW = ("torch", "polars", "matplotlib", "sklearn", "papermill", "numpy")


def started(*command: str, code: str = "", **options: object) -> subprocess.CompletedProcess:
    """The result of a new interpreter that runs a command, or code."""
    given = ["-c", code] if code else ["-m", "bbqrec_lab", *command]
    return subprocess.run([sys.executable, *given], capture_output=True, **options)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["fit", "--help"], ["data"], []])
def test_help_imports_nothing_slow(command: list[str]) -> None:
    code = (
        f"import sys\nfrom bbqrec_lab import cli\nassert cli.main({command}) == 0\n"
        f"slow = set({SLOW}) & set(sys.modules)\nassert not slow, slow"
    )
    result = started(code=code, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_help_takes_little_time_of_the_processor() -> None:
    code = (
        "import contextlib, io, time\nfrom bbqrec_lab import cli\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    cli.main(['--help'])\nprint(time.process_time())"
    )
    best = min(float(started(code=code, text=True).stdout) for _ in range(3))
    assert best < 0.4, "0.2 s on the machine where this was measured; a slow import takes more than a second"


def test_what_answers_from_a_run_imports_neither_sklearn_nor_pandas() -> None:
    code = (
        "import sys\nimport bbqrec_lab.cli.recommending\nimport bbqrec_lab.experiments.runs\n"
        "slow = {'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)\nassert not slow, slow"
    )
    result = started(code=code, text=True)
    assert result.returncode == 0, result.stderr


def test_every_command_says_what_it_does_with_an_example(capsys: pytest.CaptureFixture) -> None:
    for group, names in COMMANDS.items():
        assert cli.main([group] if group else []) == 0
        page = capsys.readouterr().out
        assert all(name in page for name in names)
        for name in names - {"data"}:
            words = [*([group] if group else []), name]
            assert cli.main([*words, "--help"]) == 0
            page = capsys.readouterr().out
            assert f"bbqrec {' '.join(words)}" in page.split("Examples:")[1], words


def test_no_command_is_missing_in_these_tests() -> None:
    found = {name for name in app if not name.startswith("-")}
    assert found == COMMANDS[""]
    assert {name for name in app["data"] if not name.startswith("-")} >= COMMANDS["data"]


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        ("fti --variant bbqrec", '"fit"'),
        ("data lst", '"list"'),
        ("fit --variant bbqrec --sed 3", "--seed"),
        ("fit --variant bbqrc", "'bbqrec'"),
        ("config --overrides levls=3", "'levels'"),
        ("fit --variant tiger --dataset ml100k", "'ml-100k'"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_one_that_was_meant(
    command: str, meant: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(command.split()) == 2
    said = capsys.readouterr().err
    assert f"id you mean {meant}" in said
    assert len(said.splitlines()) == 1


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == version("bbqrec") + "\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("recommend", "inspector", "overrides", "items-from", "encoders"))


@pytest.mark.parametrize("module", ["bbqrec_lab", "bbqrec_lab.cli"])
def test_the_module_runs_the_command_and_hands_its_exit_code_on(module: str) -> None:
    command = [sys.executable, "-m", module, "data", "nonsense"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'Unknown command "nonsense"' in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_pipe_of_any_encoding_gets_every_table(encoding: str) -> None:
    code = (
        "import sys\nimport polars as pl\nfrom bbqrec_lab import cli\nfrom bbqrec_lab.cli import data\n"
        "from bbqrec_lab.datasets import usable\n"
        "from types import SimpleNamespace\n"
        "shop = SimpleNamespace(name='shop \\u7f8e Zo\\u00eb', data_hash='00', n_users=1, n_items=1, report={})\n"
        "usable.usable = lambda *_: pl.DataFrame({'remark': ['\\u7f8e']})\n"
        "data.read = lambda path: shop\nsys.exit(cli.main(['data', 'check', 'x']) or cli.main(['--help']))"
    )
    result = started(code=code, env={"PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)})
    assert result.returncode == 0, result.stderr.decode(encoding)
    said = result.stdout.decode(encoding)
    assert "shop" in said
    assert ("美" in said) == (encoding == "utf-8")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path: Path, closed: str) -> None:
    """A file that a command opens must not get the number of a closed stream, or output would be written into it."""
    code = (
        "import os, sys; from bbqrec_lab import cli; code = cli.main(['--version'])\n"
        f"file = open({str(tmp_path / 'mine')!r}, 'w'); assert file.fileno() > 2\n"
        "print('noise'); os.write(2, b'noise')\n"
        f"open({str(tmp_path / 'code')!r}, 'w').write(str(code)); sys.exit(code)"
    )
    done = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], capture_output=True, text=True)
    assert done.returncode == 0
    assert (tmp_path / "code").read_text() == "0"
    assert (tmp_path / "mine").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bbqrec_lab", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("bbqrec: [Errno 28] No space left on device: ")
    assert done.stderr.count("\n") == 1
