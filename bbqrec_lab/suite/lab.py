"""JupyterLab on copies of the notebooks, so that an evening of reading and trying changes no file of the repository.

The copies are in the folder `lab`, next to `notebooks`: from there, all links to pictures and pages lead to the same
files. Git ignores the folder. A notebook that is opened in `notebooks` instead is saved without outputs.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from bbqrec_lab.store import key_hash, write_atomic
from bbqrec_lab.suite.notebooks import need_home, notebook_folder, own_kernel, until_interrupted
from bbqrec_lab.terminal import say

FIRST = "00_quickstart.ipynb"
COPIED = ".copied.json"  # in the folder of copies: what each copy was made of
UNWANTED = ("@jupyterlab/apputils-extension:announcements",)  # the question about news from Jupyter


def open_lab() -> int:
    """Open the repository in JupyterLab at the copy of the first notebook, on this machine only.

    Returns: the exit code of JupyterLab, 0 after an interrupt.
    Raises: ValueError without a home folder for Jupyter, or if the copies cannot be written.
    """
    need_home()
    root = notebook_folder().parent
    try:
        kept = refresh(notebook_folder(), root / "lab")
    except OSError as error:
        raise ValueError(f"cannot write copies of the notebooks to {root / 'lab'}: {error}") from error
    if kept:
        say(f"lab has your edits of {', '.join(kept)}, whose notebooks are newer: delete a copy to get the new version")
    command = [sys.executable, "-m", "jupyterlab", str(root), "--ServerApp.ip=127.0.0.1"]
    command += [f"--FileContentsManager.pre_save_hook={__name__}.without_outputs"]
    command += [f"--LabApp.default_url=/lab/tree/lab/{FIRST}"]
    command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container; loopback address and token still protect it
        command.append("--allow-root")
    with tempfile.TemporaryDirectory() as folder:
        return until_interrupted(command, _quiet(Path(folder)))


def refresh(source: Path, copies: Path) -> list[str]:
    """Copy the notebooks, their solutions and their README, unless the copy is as new or has edits of the reader.

    Returns: names of the copies that are kept because of edits although their source has changed.
    """
    record = copies / COPIED
    made: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    kept = []
    for path in sorted([*source.rglob("*.ipynb"), *source.glob("*.md")]):
        name = path.relative_to(source).as_posix()
        if ".ipynb_checkpoints" in path.parts:
            continue
        target, new = copies / name, content_hash(path)
        if not target.exists() or (made.get(name) != new and content_hash(target) == made.get(name)):
            write_atomic(target, path.read_bytes())
            made[name] = new
        elif made.get(name) != new and content_hash(target) != new:
            kept.append(name)
    write_atomic(record, json.dumps(made, indent=1))
    return kept


def content_hash(path: Path) -> str:
    """Hash of what a reader can edit: the cells of a notebook without their outputs, else the whole text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return key_hash({"text": text})
    try:
        cells = json.loads(text)["cells"]
        return key_hash({"cells": [(cell["cell_type"], "".join(cell["source"])) for cell in cells]})
    except (ValueError, KeyError, TypeError):  # a reader may save anything
        return key_hash({"text": text})


def without_outputs(model: dict, path: str, contents_manager: object, **_: object) -> None:
    """Remove from a notebook in `notebooks` what running it adds, before the server saves it; edits of cells stay.

    Args: model: of the Jupyter server; it is changed in place. path: below the root of the server.
    """
    if model["type"] != "notebook" or not path.strip("/").startswith("notebooks/"):
        return
    stored = Path(contents_manager._get_os_path(path))
    before = json.loads(stored.read_text(encoding="utf-8"))["metadata"] if stored.exists() else {}
    model["content"]["metadata"] = before  # the frontend adds the version of Python, and widgets their state
    for cell in model["content"]["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        for added in ("trusted", "execution", "collapsed", "scrolled"):
            cell["metadata"].pop(added, None)


def _quiet(folder: Path) -> dict[str, str]:
    """The environment of a server whose kernel is this interpreter and which asks no questions at its start."""
    disabled = dict.fromkeys(UNWANTED, True)
    write_atomic(folder / "labconfig" / "page_config.json", json.dumps({"disabledExtensions": disabled}))
    environment = own_kernel(folder)
    paths = os.pathsep.join(filter(None, [str(folder), environment.get("JUPYTER_CONFIG_PATH", "")]))
    return {**environment, "JUPYTER_CONFIG_PATH": paths}
