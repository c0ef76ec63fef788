"""Solutions in the book: executed with the parameters of their notebook, once, and shown with their outputs."""

import json
from pathlib import Path

import nbformat
import pytest

from bbqrec_lab.suite import book_solutions

PARAMETERS = {"dataset": "toy", "preset": "smoke", "seed": 3, "out_dir": "runs", "overrides": {}}
PICTURE = "iVBORw0KGgo="


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The notebooks of a repository; the second one has solutions that fail."""
    root = tmp_path / "notebooks"
    (root / "solutions").mkdir(parents=True)
    lines = "\n".join(f"{name}: {type(value).__name__} = {value!r}  # one" for name, value in PARAMETERS.items())
    for name, code in (("00_first", "print(seed * 7)"), ("01_second", "raise ValueError('no such row')")):
        cells = [
            nbformat.v4.new_code_cell(lines, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_markdown_cell("**1 (by hand).** Multiply."),
            nbformat.v4.new_code_cell(code),
        ]
        python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
        solved = nbformat.v4.new_notebook(cells=cells, metadata=python)
        nbformat.write(solved, root / "solutions" / f"{name}.ipynb")
    return root


@pytest.fixture
def executed(tmp_path: Path) -> list[Path]:
    """Executed notebooks of a run; the third has no record, the fourth no solutions."""
    run = tmp_path / "run" / "notebooks"
    run.mkdir(parents=True)
    (tmp_path / "artefacts").mkdir()
    given = PARAMETERS | {"out_dir": str(tmp_path)}
    paths = [run / f"{name}.ipynb" for name in ("00_first", "01_second", "02_third", "03_fourth")]
    for path in (*paths[:2], paths[3]):
        path.with_name(f"{path.stem}.done.json").write_text(json.dumps({"key": "k", "parameters": given}))
    return paths


def test_solutions_run_with_the_parameters_of_their_notebook_and_only_once(
    folder: Path, executed: list[Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = executed[0].parent.parent
    monkeypatch.setattr(book_solutions, "JOBS", 1)
    book_solutions.execute(run, executed, folder)
    first = book_solutions.solution_of(run, "00_first.ipynb", folder)
    assert [cell.outputs[0].text for cell in nbformat.read(first, 4).cells if cell.get("outputs")] == ["21\n"]
    second = book_solutions.solution_of(run, "01_second.ipynb", folder)
    assert second == folder / "solutions" / "01_second.ipynb"
    assert "01_second are shown without their output: ValueError: no such row" in capsys.readouterr().err
    before = first.stat().st_mtime_ns
    book_solutions.execute(run, executed, folder)
    assert first.stat().st_mtime_ns == before, "executed again"
    assert "no such row" in capsys.readouterr().err, "a failure is told each time"
    assert book_solutions.solution_of(run, "02_third.ipynb", folder) == folder / "solutions" / "02_third.ipynb"


def test_outputs_are_inside_the_folded_solution_and_never_markup() -> None:
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("answer_1 = None\ncheck(answer_1)")])
    output = nbformat.v4.new_output
    shown = [
        output("stream", name="stdout", text="<b>a</b>\n\nlast"),
        output("display_data", {"text/markdown": "| a |\n| --- |\n| 1 |\n", "text/plain": "hidden"}),
        output("display_data", {"image/png": PICTURE, "text/plain": "hidden"}),
        output("execute_result", {"text/plain": "28"}, execution_count=1),
    ]
    cells = [nbformat.v4.new_markdown_cell("**1 (by hand).** Count."), nbformat.v4.new_code_cell("x", outputs=shown)]
    book_solutions.add(page, nbformat.v4.new_notebook(cells=cells))
    text = page.cells[1].source
    assert text.startswith("<details")
    assert text.endswith("</details>")
    assert "```python\nx\n```\n\n<pre>&lt;b&gt;a&lt;/b&gt;\n&nbsp;\nlast</pre>" in text
    assert "\n\n| a |\n| --- |\n| 1 |\n\n" in text
    assert f'src="data:image/png;base64,{PICTURE}"' in text
    assert "<pre>28</pre>" in text
    assert "hidden" not in text


def test_nothing_is_executed_if_results_would_have_to_be_computed_again(
    folder: Path, executed: list[Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = executed[0].parent.parent
    with monkeypatch.context() as patch:
        patch.setattr(book_solutions, "_code_time", lambda: executed[0].with_suffix(".done.json").stat().st_mtime + 9)
        book_solutions.execute(run, executed, folder)
    assert "00_first is older than the code" in capsys.readouterr().err
    (run.parent / "artefacts").rmdir()
    book_solutions.execute(run, executed, folder)
    assert not (run / "solutions").exists()
