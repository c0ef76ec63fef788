"""A notebook of the suite as a web page on this machine, through Voila."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from bbqrec_lab.store import write_atomic
from bbqrec_lab.suite.notebooks import discover, notebook_folder, say

CDN = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@^5/css/"
UNWANTED = "jupyterlab-jupytext"  # an extension of JupyterLab that fails in a page, with an error in the console
TEMPLATE = f"""{{%- extends 'lab/index.html.j2' -%}}
{{%- block notebook_css -%}}
{{# icons of buttons, which our widgets do not use, would come from another machine #}}
{{{{ super() | replace('{CDN}all.min.css', 'data:text/css,') | replace('{CDN}v4-shims.min.css', 'data:text/css,') }}}}
{{%- endblock notebook_css -%}}
"""


def page_copy(source: Path, target: Path, parameters: dict[str, object]) -> None:
    """A copy of a notebook with other parameters, to be served as a page.

    Pictures of the folder `figures` are left out: they lie outside of what is served, and the page draws its own.

    Raises: ValueError for a parameter that the notebook does not declare.
    """
    import papermill

    unknown = sorted(set(parameters) - set(papermill.inspect_notebook(source)))
    if unknown:
        raise ValueError(f"{source.name} does not declare {', '.join(unknown)}")
    notebook = papermill.parameterize.parameterize_notebook(papermill.iorw.load_notebook_node(str(source)), parameters)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?m)^!\[[^]]*\]\(\.\./figures/[^)]*\)\n?", "", cell.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.iorw.write_ipynb(notebook, str(target))


def serve_page(number: str, dataset: str, preset: str, out: Path, port: int) -> int:
    """Serve a notebook as a web page through Voila, on this machine only, until it is interrupted.

    The page runs a copy below `out` that holds the given parameters; each visitor has a kernel of their own.

    Returns: Voila's exit code.
    Raises: ValueError where Voila is not installed, or for a dataset that is neither a name nor a folder.
    """
    if not importlib.util.find_spec("voila"):
        raise ValueError("Voila is not installed: pip install -c constraints.txt -e '.[dev]', or run make inspector")
    from bbqrec_lab.datasets.sources import absolute_dataset

    (source,) = discover(notebook_folder(), (number,))
    out = Path(out).expanduser().resolve()
    page = out / "pages" / source.name
    _write_template(out / "pages" / "jupyter")
    page_copy(source, page, {"dataset": absolute_dataset(dataset), "preset": preset, "out_dir": str(out)})
    say(f"http://127.0.0.1:{port}/ shows the page, which computes what it shows when it is opened; Ctrl-C ends it")
    command = [sys.executable, "-m", "voila", str(page), "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
    command += ["--template=bbqrec", "--VoilaConfiguration.show_tracebacks=True"]
    command += [f"--VoilaConfiguration.extension_denylist={UNWANTED}"]
    paths = os.pathsep.join(filter(None, [str(out / "pages" / "jupyter"), os.environ.get("JUPYTER_PATH", "")]))
    return subprocess.call(command, env={**os.environ, "JUPYTER_PATH": paths})


def _write_template(folder: Path) -> None:
    """Voila's template `lab` under another name, so that the page asks no other machine for anything."""
    template = folder / "voila" / "templates" / "bbqrec"
    write_atomic(template / "index.html.j2", TEMPLATE)
    write_atomic(template / "conf.json", json.dumps({"base_template": "lab"}))
