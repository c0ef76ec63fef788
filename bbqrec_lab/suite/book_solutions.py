"""Solutions of the exercises in the book: executed on the data of the run, and folded below the cell of the answer."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bbqrec_lab import escaping
from bbqrec_lab.code_keys import PACKAGES, ROOT
from bbqrec_lab.suite import notebooks
from bbqrec_lab.terminal import say

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = "solutions"  # in the folder of a run
EXERCISE = re.compile(r"\*\*(\d+) \(")  # the start of an exercise, and of its solution
SOLUTION = """<details class="bb-solution"><summary>Solution of exercise {}</summary>

{}

</details>"""
JOBS = 8  # at most


def execute(run: Path, executed: Iterable[Path], folder: Path) -> None:
    """Execute the solutions of executed notebooks, with the same parameters, once per state of their inputs.

    Their results exist, so this takes seconds per notebook. If the code is newer than the run, or the results are
    elsewhere, they would be computed again, which can take hours: then nothing is executed. A solution that fails is
    named, and the page shows its code alone.

    Args: executed: notebooks of the run; one without the record of its parameters is left out. folder: the notebooks of
        the repository.
    """
    solved = {path.name: path for path in notebooks.solutions(folder)}
    plan, keys, stale = {}, [], _code_time()
    for path in executed:
        record = path.with_name(f"{path.stem}.done.json")
        if path.name not in solved or not record.exists():
            continue
        done = json.loads(record.read_text(encoding="utf-8"))
        if record.stat().st_mtime < stale:
            say(f"{path.stem} is older than the code: its solutions are shown as they are, run reproduce first")
        elif "parameters" in done and (Path(done["parameters"]["out_dir"]) / "artefacts").is_dir():
            plan[solved[path.name]] = {name: done["parameters"][name] for name in notebooks.REQUIRED}
            keys.append(done["key"])
    if plan:
        say(f"solutions of {len(plan)} notebooks; those that were executed before take no time")
        jobs = min(JOBS, os.cpu_count() or 1)
        failed = notebooks.run_notebooks(plan, run / FOLDER, " ".join(keys), jobs)
        for name, cause in failed.items():
            say(f"the solutions of {name} are shown without their output: {cause}")


def _code_time() -> float:
    """When the code of the packages was changed last."""
    return max(file.stat().st_mtime for name in PACKAGES for file in (ROOT / name).rglob("*.py"))


def solution_of(run: Path, name: str, folder: Path) -> Path:
    """The executed solutions of a notebook, or else those of the repository, without output; they may not exist."""
    done = run / FOLDER / "notebooks" / name
    return done if done.with_name(f"{done.stem}.done.json").exists() else folder / FOLDER / name


def add(notebook: "NotebookNode", solved: "NotebookNode") -> None:
    """Insert the solution of each exercise after its answer cell, folded. The notebook is changed in place.

    Args: solved: the notebook of solutions; each begins with the number of its exercise, as the exercise does.
    """
    from nbformat.v4 import new_markdown_cell

    texts: dict[str, list[str]] = {}
    number = ""
    for cell in solved.cells:
        if cell.cell_type == "markdown":
            found = EXERCISE.match(cell.source)
            number = found[1] if found else number
        if number:
            texts.setdefault(number, []).extend(_parts(cell))
    for number, parts in texts.items():
        answers = [place for place, cell in enumerate(notebook.cells) if f"answer_{number} = " in cell.source]
        if answers:
            solution = new_markdown_cell(SOLUTION.format(number, "\n\n".join(parts)))
            notebook.cells.insert(answers[-1] + 1, solution)


def _parts(cell: "NotebookNode") -> Iterator[str]:
    """A cell as Markdown: its text, or its code and then its outputs."""
    text = cell.source.replace("](../", "](")  # the page is one folder higher
    if cell.cell_type == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell.get("outputs", ()):
        yield from _shown(output)


def _shown(output: "NotebookNode") -> Iterator[str]:
    """An output as Markdown: text, a table or a picture; what needs a script or a kernel is left out."""
    data = output.get("data", {})
    if "image/png" in data:
        yield f'<img alt="output of the solution" src="data:image/png;base64,{data["image/png"].strip()}">'
    elif "text/markdown" in data:
        yield data["text/markdown"].strip()
    elif text := (output.get("text") or data.get("text/plain", "")).strip():
        yield f"<pre>{escaping.html(text)}</pre>".replace("\n\n", "\n&nbsp;\n")  # an empty line would end the element
