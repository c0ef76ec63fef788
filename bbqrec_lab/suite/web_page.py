"""Serve a notebook of the suite as a web page on this machine, with Voila."""

import importlib.util
import json
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bbqrec_lab.store import write_atomic
from bbqrec_lab.suite.notebooks import QUIET, discover, need_home, notebook_folder, own_kernel, until_interrupted

CDN = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@^5/css/"
VOILA = {
    "template": "bbqrec",
    "show_tracebacks": True,
    "extension_denylist": "jupyterlab-jupytext",  # it fails in a Voila page, with a console error
    "preheat_kernel": True,
    "default_pool_size": 1,
    "file_allowlist": "nothing",  # a page has its pictures inside
}
SHORT = 38  # letters of a folder in which the path of a socket has at most 103, the limit of macOS
KEPT = {"page", "parameters", "injected-parameters"}  # tags of the cells that a page with a `page` cell keeps
TEMPLATE = f"""{{%- extends 'lab/index.html.j2' -%}}
{{%- block notebook_css -%}}
{{# removes button icons, which our widgets do not need and the browser would load from another machine #}}
{{{{ super() | replace('{CDN}all.min.css', 'data:text/css,') | replace('{CDN}v4-shims.min.css', 'data:text/css,') }}}}
{{%- endblock notebook_css -%}}
"""


def page_copy(source: Path, target: Path, parameters: dict[str, object]) -> None:
    """Write a copy of a notebook with other parameters, for the web page.

    If cells are tagged `page`, only they and the parameters are kept, and of the title its heading: a page shows its
    instrument at once, and the lesson stays in the notebook. Images from `figures/` are removed: they are outside the
    served folder, and the page draws its own.

    Raises: ValueError for a parameter that the notebook does not declare.
    """
    import papermill

    unknown = sorted(set(parameters) - set(papermill.inspect_notebook(source)))
    if unknown:
        raise ValueError(f"{source.name} does not declare {', '.join(unknown)}")
    notebook = papermill.parameterize.parameterize_notebook(papermill.iorw.load_notebook_node(str(source)), parameters)
    if any("page" in tags_of(cell) for cell in notebook.cells):
        notebook.cells = [cell for cell in notebook.cells if KEPT & tags_of(cell)]
        notebook.cells[0].source = notebook.cells[0].source.splitlines()[0]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?m)^!\[[^]]*\]\(\.\./figures/[^)]*\)\n?", "", cell.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.iorw.write_ipynb(notebook, str(target))


def tags_of(cell: Mapping) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", ()))


def serve_page(
    number: str, dataset: str, preset: str, out: Path, port: int, overrides: dict[str, object], theme: str = "light"
) -> int:
    """Serve a notebook as a web page with Voila, on this machine only and with a token, until it is interrupted.

    The page runs a copy with the given parameters; each visitor has a separate kernel. One kernel is always prepared
    before the next visitor comes, so that a page opens with its content. The copy and all other files of the server are
    in a temporary folder, which goes with it. The token is new for every start, unless `JUPYTER_TOKEN` has one.

    Args: theme: light or dark; a visitor can choose by `?theme=` in the address.
    Returns: 0 after an interrupt, else the exit code of Voila.
    Raises: ValueError if Voila is not installed, if the port is in use, or if the dataset is neither a registered name
        nor a folder.
    """
    if not importlib.util.find_spec("voila"):
        raise ValueError("Voila is not installed: pip install -c constraints.txt -e '.[dev]', or run make inspector")
    import zmq

    from bbqrec_lab.datasets.sources import absolute_dataset

    need_home()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} cannot be used ({error.strerror}): give another with --port") from error
    (source,) = discover(notebook_folder(), (number,))
    out = Path(out).expanduser().resolve()
    given = {"dataset": absolute_dataset(dataset), "preset": preset, "out_dir": str(out), "overrides": overrides}
    with tempfile.TemporaryDirectory(prefix="bbqrec-page-") as place:
        folder = Path(place)
        page = folder / "page" / source.name
        page_copy(source, page, given)
        _write_template(folder / "jupyter")
        options = {"Voila.ip": "127.0.0.1", "Voila.port": port, "Voila.port_retries": 0, "Voila.auto_token": True}
        options |= {"Voila.root_dir": page.parent, "Voila.connection_dir_root": folder, "Voila.open_browser": False}
        options["Voila.log_level"] = "WARN"  # otherwise Voila tells an address of its own, before it listens
        if zmq.has("ipc") and len(place) <= SHORT:  # no other user of the machine can reach the sockets of a kernel
            options["KernelManager.transport"] = "ipc"
        options |= {f"VoilaConfiguration.{name}": value for name, value in (VOILA | {"theme": theme}).items()}
        command = [sys.executable, "-m", "bbqrec_lab.suite.page_server", str(page)]
        env = own_kernel(folder / "jupyter", QUIET) | {"JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
        env["JUPYTER_TOKEN"] = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(24)
        return until_interrupted([*command, *(f"--{name}={value}" for name, value in options.items())], env)


def _write_template(folder: Path) -> None:
    """Write a variant of the Voila template `lab` that loads nothing from other machines."""
    template = folder / "voila" / "templates" / "bbqrec"
    write_atomic(template / "index.html.j2", TEMPLATE)
    write_atomic(template / "conf.json", json.dumps({"base_template": "lab"}))
