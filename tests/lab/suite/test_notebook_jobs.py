"""The notebook suite: order, strict parameter names, execution, and no repeated work."""

import asyncio
import queue
import sys
from pathlib import Path
from typing import ClassVar
from unittest.mock import AsyncMock

import nbformat
import pytest

from bbqrec_lab import code_keys
from bbqrec_lab.suite import notebooks, process_pool

GIVEN = {"dataset": "planted", "preset": "smoke", "seed": 3, "out_dir": "runs", "overrides": {}}
PARAMETERS = """dataset: str = "x"  # name
preset: str = "quick"  # which
seed: int = 0  # start
out_dir: str = "../runs"  # where
overrides: dict = {}  # any field
"""


def write_notebook(path: Path, code: str = "", parameters: str = PARAMETERS) -> Path:
    """A notebook with a parameters cell and one more code cell."""
    cell = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(code)], metadata=kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_notebooks_come_in_order_and_solutions_are_not_among_them(tmp_path: Path) -> None:
    for name in ("02_b.ipynb", "01_a.ipynb", "solutions/01_a.ipynb", "notes.ipynb", "10_c.ipynb"):
        write_notebook(tmp_path / name)
    assert [path.name for path in notebooks.discover(tmp_path)] == ["01_a.ipynb", "02_b.ipynb", "10_c.ipynb"]
    assert [path.name for path in notebooks.discover(tmp_path, ("10", "2"))] == ["02_b.ipynb", "10_c.ipynb"]
    assert [path.name for path in notebooks.of_a_run(tmp_path, "smoke")] == ["01_a.ipynb", "02_b.ipynb", "10_c.ipynb"]
    assert [path.name for path in notebooks.of_a_run(tmp_path, "quick")] == ["01_a.ipynb", "02_b.ipynb"]
    assert [path.name for path in notebooks.of_a_run(tmp_path, "quick", ("10",))] == ["10_c.ipynb"]
    assert notebooks.solutions(tmp_path) == [tmp_path / "solutions" / "01_a.ipynb"]


def test_unknown_number_and_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="available are none"):
        notebooks.discover(tmp_path)
    write_notebook(tmp_path / "01_a.ipynb")
    with pytest.raises(ValueError, match=r"no notebook 07 in .*: available are 01"):
        notebooks.discover(tmp_path, ("01", "07"))


@pytest.mark.parametrize("name", notebooks.REQUIRED)
def test_a_misspelt_parameter_is_refused(tmp_path: Path, name: str) -> None:
    path = write_notebook(tmp_path / "01_a.ipynb", parameters=PARAMETERS.replace(f"{name}:", f"{name}x:"))
    with pytest.raises(ValueError, match=rf"01_a.ipynb does not declare {name}: .*{name}x"):
        notebooks.parameters_for(path, GIVEN, "0,1")


def test_seeds_go_only_to_notebooks_that_declare_them(tmp_path: Path) -> None:
    without = write_notebook(tmp_path / "01_a.ipynb")
    with_them = write_notebook(tmp_path / "05_b.ipynb", parameters=PARAMETERS + 'seeds: str = "0"  # of the rows\n')
    assert notebooks.parameters_for(without, GIVEN, "0,1") == GIVEN
    assert notebooks.parameters_for(with_them, GIVEN, "0,1") == GIVEN | {"seeds": "0,1"}


def test_a_notebook_runs_in_its_folder_with_the_given_values_and_this_interpreter(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    code = "import sys, pathlib\npathlib.Path('here.txt').write_text(f'{seed} {preset} {sys.prefix}')"
    path = write_notebook(tmp_path / "nb" / "01_a.ipynb", code)
    target = tmp_path / "run" / "01_a.ipynb"
    assert notebooks.execute(path, target, GIVEN) == ""
    assert (tmp_path / "nb" / "here.txt").read_text() == f"3 smoke {sys.prefix}"
    assert [file.name for file in target.parent.iterdir()] == ["01_a.ipynb"]
    assert capfd.readouterr() == ("", "")


def test_a_kernel_needs_no_port_that_another_could_take(tmp_path: Path) -> None:
    code = "from ipykernel.connect import get_connection_info as info\nassert info(unpack=True)['transport'] == 'ipc'"
    path = write_notebook(tmp_path / "nb" / "01_a.ipynb", code)
    assert notebooks.execute(path, tmp_path / "01_a.ipynb", GIVEN) == ""


def test_a_failing_cell_gives_one_line_and_no_finished_notebook(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "nb" / "01_a.ipynb", "raise KeyError('lost\\nmore')")
    cause = notebooks.execute(path, tmp_path / "01_a.ipynb", GIVEN)
    assert cause == f"KeyError: 'lost\\nmore' (cell 3); see {tmp_path / '01_a.unfinished.ipynb'}"
    assert not (tmp_path / "01_a.ipynb").exists()
    assert (tmp_path / "01_a.unfinished.ipynb").exists()


def test_an_error_inside_a_widget_fails_the_notebook(tmp_path: Path) -> None:
    code = "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    raise ZeroDivisionError('hidden')\nout"
    path = write_notebook(tmp_path / "nb" / "01_a.ipynb", code)
    cause = notebooks.execute(path, tmp_path / "01_a.ipynb", GIVEN)
    assert cause.startswith("ZeroDivisionError: hidden (in a widget)")
    assert not (tmp_path / "01_a.ipynb").exists()


def test_a_reply_that_the_event_loop_missed_is_found_by_looking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        waits: ClassVar[list[int | None]] = []

        async def poll(self, milliseconds: int | None) -> int:
            self.waits.append(milliseconds)
            return int(len(self.waits) == 3)  # the first two times, nobody says that the reply is there

    monkeypatch.setattr(notebooks, "LOOK_EVERY", 0.01)
    kind = notebooks._this_interpreter()().client_factory().shell_channel_class
    channel = kind.__new__(kind)
    channel.socket, channel._recv = Socket(), AsyncMock(return_value={"reply": 1})
    assert asyncio.run(channel.get_msg()) == {"reply": 1}
    assert Socket.waits == [10, 10, 10], "no wait is endless"
    with pytest.raises(queue.Empty):
        asyncio.run(channel.get_msg(0.0))


class Executor:
    """Mock of `notebooks.execute`: writes the target and a table, records calls, fails or is interrupted on request."""

    def __init__(self, table: Path) -> None:
        self.table, self.calls, self.cause, self.interrupted = table, [], "", False

    def __call__(self, path: Path, target: Path, parameters: dict) -> str:
        self.calls.append(path.stem)
        if self.interrupted:
            raise KeyboardInterrupt
        if not self.cause:
            for file in (target, self.table):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("made")
        return self.cause


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Executor:
    executor = Executor(tmp_path / "run" / "tables" / "01_t.csv")
    monkeypatch.setattr(notebooks, "execute", executor)
    return executor


def _run(tmp_path: Path, parameters: dict = GIVEN, content_hash: str = "aa") -> str | process_pool.Failure:
    path = tmp_path / "nb" / "01_a.ipynb"
    path = path if path.exists() else write_notebook(path)
    return notebooks.run_notebook(tmp_path / "run", {"01_a": (path, parameters)}, content_hash, "01_a")


def test_nothing_is_done_twice_while_nothing_changed(tmp_path: Path, fake: Executor) -> None:
    assert _run(tmp_path) == "done"
    assert _run(tmp_path) == "done before"
    assert fake.calls == ["01_a"]


def test_files_of_a_notebook_beside_it_are_not_its_own(tmp_path: Path, fake: Executor) -> None:
    fake.table = tmp_path / "run" / "figures" / "02_t.png"
    assert _run(tmp_path) == "done"
    fake.table.unlink()
    assert _run(tmp_path) == "done before"


@pytest.mark.parametrize("change", ["parameters", "data", "source", "core", "table", "target", "record"])
def test_any_change_of_an_input_or_loss_of_a_result_runs_it_again(
    tmp_path: Path, fake: Executor, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    _run(tmp_path)
    parameters, content_hash = GIVEN, "aa"
    match change:
        case "parameters":
            parameters = GIVEN | {"seed": 4}
        case "data":
            content_hash = "bb"
        case "source":
            write_notebook(tmp_path / "nb" / "01_a.ipynb", "1 + 1")
        case "core":
            monkeypatch.setattr(notebooks, "packages_hash", lambda: "other")
        case "table":
            fake.table.unlink()
        case "target":
            (tmp_path / "run" / "notebooks" / "01_a.ipynb").unlink()
        case "record":
            (tmp_path / "run" / "notebooks" / "01_a.done.json").write_text('{"key": "cut o')
    assert _run(tmp_path, parameters, content_hash) == "done"
    assert len(fake.calls) == 2


def test_an_interrupted_or_failed_notebook_is_not_taken_for_done(tmp_path: Path, fake: Executor) -> None:
    fake.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    fake.interrupted, fake.cause = False, "ValueError: no"
    assert _run(tmp_path) == process_pool.Failure("ValueError: no")
    fake.cause = ""
    assert _run(tmp_path) == "done"


def test_a_failing_notebook_is_reported_and_the_rest_run(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    codes = {"01_a": "raise ValueError('no')", "02_a": "1 + 1", "03_a": "2 + 2"}
    plan = {write_notebook(tmp_path / "nb" / f"{name}.ipynb", code): GIVEN for name, code in codes.items()}
    failed = notebooks.run_notebooks(plan, tmp_path / "run", "aa", jobs=2)
    assert list(failed) == ["01_a"]
    assert failed["01_a"].startswith("ValueError: no (cell 3); see ")
    write_notebook(tmp_path / "nb" / "01_a.ipynb", "3 + 3")
    assert notebooks.run_notebooks(plan, tmp_path / "run", "aa", jobs=2) == {}
    lines = [line for line in capfd.readouterr().err.splitlines() if " of 3, " in line]
    assert sorted(line.partition(", ")[2].partition(" (")[0] for line in lines[3:]) == [
        "01_a: done",
        "02_a: done before",
        "03_a: done before",
    ]
    assert lines[0].startswith("notebook 1 of 3, ")
    assert sum("failed, ValueError: no" in line for line in lines) == 1


@pytest.mark.parametrize("package", code_keys.PACKAGES)
def test_the_hash_of_the_packages_moves_with_their_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    found = {}
    for content in ("x = 1", "x = 2", "x = 1  # one"):
        folder = tmp_path / str(len(found))  # a new folder, because the hash of a folder is cached per process
        for name in code_keys.PACKAGES:
            (folder / name / "room").mkdir(parents=True)
            (folder / name / "room" / "a.py").write_text(content if name == package else "x = 0")
        monkeypatch.setattr(code_keys, "ROOT", folder)
        found[content] = code_keys.packages_hash()
    assert found["x = 2"] != found["x = 1"]
    assert found["x = 1  # one"] == found["x = 1"]  # a comment does not change the hash
