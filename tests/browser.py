"""A real Chromium on a real server: fixtures and steps for tests marked `browser`, of JupyterLab and of Voila alike.

A test file uses the fixtures `lab`, `voila` and `chromium` (conftest.py makes them known) and the steps below. A widget
tells that its answer is complete by the last line that it writes, `.bb-status` with a rising `data-answer`: a label set
before the redraw would show the new value over the old picture.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "tests-only"
OFF = ("gpu", "quic", "background-networking", "component-update", "sync", "dev-shm-usage")
FLAGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in OFF)]
SETTINGS = {
    "apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}
SECONDS, ANSWER = 240, 30  # the most for a page to open and run, and for an answer; a busy machine has two cores
HARMLESS = re.compile(r"favicon|GPU stall|GL Driver|WebGL.*(software|deprecated|fallback)|swiftshader", re.IGNORECASE)


class Server(NamedTuple):
    """A running server: its address, the folder of notebook copies it serves, and the log of what it said."""

    url: str
    folder: Path
    log: Path


def missing(*modules: str) -> str:
    """Why a browser test cannot run here; empty if it can."""
    lacking = [name for name in ("playwright", *modules) if not importlib.util.find_spec(name)]
    if lacking:
        return f"{', '.join(lacking)} is not installed: pip install -c constraints.txt -e '.[dev]'"
    return "" if shutil.which("chromium") else "no chromium on the PATH (Debian: apt install chromium)"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def copy_notebook(name: str, folder: Path, **parameters: object) -> Path:
    """A copy of a notebook of the suite with other literals in its parameters cell.

    Raises: ValueError for a parameter that the cell does not declare.
    """
    (source,) = (ROOT / "notebooks").glob(f"{name}*.ipynb")
    notebook = nbformat.read(source, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    for key, value in parameters.items():
        cell.source, found = re.subn(rf"(?m)^({key}: \w+) = .*$", lambda m, v=value: f"{m[1]} = {v!r}", cell.source)
        if found != 1:
            raise ValueError(f"{source.name} does not declare {key}")
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / source.name)
    return folder / source.name


@contextlib.contextmanager
def serve(command: list[str], url: str, folder: Path, home: Path) -> Iterator[Server]:
    """A server process with folders of its own, ready when `url` answers, ended with its kernels."""
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {"IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces"}
    for file, content in SETTINGS.items():
        target = home / "settings" / "@jupyterlab" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))
    own = {name: str(home / place) for name, place in places.items()}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
    environment.pop("MPLBACKEND", None)  # the kernel chooses its own
    log = home / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
        try:
            _wait_for(url, process, log)
            yield Server(url, folder, log)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until the server answers, or say why it never will."""
    for _ in range(2 * SECONDS):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # an answer, if only that there is nothing at this address
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"no answer from {url}; the server said: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab over an empty folder, which `copy_notebook` fills."""
    if reason := missing():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("lab")
    folder, port = home / "notebooks", free_port()
    folder.mkdir()
    shutil.copytree(ROOT / "figures", home / "figures")
    options = {"ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.port_retries": 0}
    options |= {"ServerApp.root_dir": home, "IdentityProvider.token": TOKEN, "ServerApp.allow_root": True}
    options |= {"LabApp.expose_app_in_browser": True, "LabApp.news_url": None, "LabApp.extension_manager": "readonly"}
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", *flags]
    with serve(command, f"http://127.0.0.1:{port}/lab?token={TOKEN}", folder, home) as server:
        yield server._replace(url=f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def voila(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A function that runs a command of `bbqrec` that serves a page through Voila, on a free port."""
    if reason := missing("voila"):
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("voila")
    with contextlib.ExitStack() as running:

        def served(*arguments: str) -> Server:
            port = free_port()
            main = "import sys; from bbqrec_lab.cli import main; sys.exit(main())"
            command = [sys.executable, "-c", main, *arguments, f"--port={port}"]
            url = f"http://127.0.0.1:{port}"
            server = running.enter_context(serve(command, f"{url}/voila/static/", home, home))
            return server._replace(url=url)

        yield served


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A function that opens a page; errors in the page's console collect in its attribute `problems`."""
    if reason := missing():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def opened(width: int = 1280, height: int = 1400) -> object:
            page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
            page.set_default_timeout(1000 * SECONDS)
            page.problems, page.outside = [], []
            page.on("console", lambda said: page.problems.append(_said(said)) if said.type == "error" else None)
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("request", lambda asked: page.outside.append(asked.url) if _is_outside(asked.url) else None)
            return page

        yield opened
        browser.close()


def _said(message: object) -> str:
    """A line of the console and where it comes from: that a file was not found does not say which."""
    return f"{message.text} {message.location.get('url', '')}"


def _is_outside(url: str) -> bool:
    """Whether a request leaves this machine."""
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:", "file:"))


def open_and_run(page: object, server: Server, notebook: Path) -> None:
    """Open a notebook in JupyterLab, run all its cells, and wait until each has run."""
    page.goto(f"{server.url}/lab/tree/{notebook.parent.name}/{notebook.name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    idle = "jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_function(f"() => {idle}")
    page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = "jupyterapp.shell.currentWidget.content.model.cells"
    done = f"""() => {{ const cells = Array.from({cells});
        return cells.every(c => c.type !== 'code' || c.executionCount > 0 || !c.sharedModel.source.trim()) }}"""
    page.wait_for_function(done)
    page.wait_for_function(f"() => {idle}")


def words(locator: object) -> list[str]:
    """Texts of all elements, with plain spaces: options of choosers hold spaces that never break."""
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in locator.all_inner_texts()]


def output_errors(page: object) -> list[str]:
    """Tracebacks in any output, those inside Output widgets among them, and errors that widgets say in words."""
    kinds = "[data-mime-type='application/vnd.jupyter.error'], .jp-RenderedText[data-mime-type*='stderr'], .bb-error"
    return [text.strip() for text in page.locator(kinds).all_inner_texts() if text.strip()]


def console_problems(page: object) -> list[str]:
    """Errors in the browser's console that are not about this machine's missing graphics card."""
    return [text for text in page.problems if not HARMLESS.search(text)]


WATCH = """widget => {
    const box = document.querySelector(widget), kinds = ["keydown", "click", "change", "input", "pointerup"];
    const watch = { begin: 0, end: 0, before: +box.querySelector(".bb-status").dataset.answer };
    const began = () => { watch.begin ||= performance.now(); };
    kinds.forEach(kind => box.addEventListener(kind, began, { capture: true }));
    const seen = new MutationObserver(() => {
        const answer = +(box.querySelector(".bb-status")?.dataset.answer ?? 0);
        if (answer > watch.before) { watch.end = performance.now(); watch.stop(); }
    });
    watch.stop = () => { seen.disconnect(); kinds.forEach(kind => box.removeEventListener(kind, began, true)); };
    seen.observe(box, { subtree: true, childList: true, attributes: true });
    window.bbWatch = watch;
}"""


def answered(page: object, widget: str, act: Callable[[], object]) -> float:
    """Do something, wait until the widget says that its next answer is complete, and return the seconds between.

    They are measured inside the page, from the first key or click to the new last line: what the driver of the browser
    takes to find a control is not the widget's.

    Args: widget: CSS selector of the widget's outermost box.
    """
    page.evaluate(WATCH, widget)
    act()
    try:
        page.wait_for_function("() => window.bbWatch.end", polling=20, timeout=1000 * ANSWER)
    finally:
        page.evaluate("() => window.bbWatch.stop()")
    return page.evaluate("() => window.bbWatch.end - window.bbWatch.begin") / 1000


def said_milliseconds(page: object, widget: str) -> float:
    """How long the widget says its last answer took in the kernel."""
    return float(re.search(r"([\d.]+) ms", page.locator(f"{widget} .bb-status").inner_text())[1])
