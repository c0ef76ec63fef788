"""Notebooks run with this interpreter, whatever else offers a kernel called python3, or the reason is one line."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from bbqrec_lab.suite import notebooks


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel python3 of another interpreter, first in the path of Jupyter."""
    spec = {"argv": [str(tmp_path / "no-python"), "{connection_file}"], "display_name": "other", "language": "python"}
    folder = tmp_path / "other" / "kernels" / "python3"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))


def test_a_notebook_runs_with_this_interpreter(another: None, tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell("import sys\nprint(sys.executable)")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "one.ipynb")
    assert notebooks.execute(tmp_path / "one.ipynb", tmp_path / "done.ipynb", {}) == ""
    (cell,) = [cell for cell in nbformat.read(tmp_path / "done.ipynb", as_version=4).cells if cell.outputs]
    assert cell.outputs[0].text.strip() == sys.executable


def test_servers_offer_this_interpreter_first(another: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == str(tmp_path / "no-python")
    monkeypatch.setenv("JUPYTER_PATH", notebooks.own_kernel(tmp_path / "own")["JUPYTER_PATH"])
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == sys.executable


@pytest.mark.parametrize("error", [RuntimeError("no home"), PermissionError("no"), OSError(30, "Read-only")])
def test_without_a_home_the_reason_says_what_to_set(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse() -> str:
        raise error

    monkeypatch.setattr("jupyter_core.paths.jupyter_runtime_dir", refuse)
    with pytest.raises(ValueError, match="set HOME to a folder that you may write"):
        notebooks.need_home()
