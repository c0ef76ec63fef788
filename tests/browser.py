"""Real Chromium and real servers: fixtures and helpers for tests marked `browser`, for JupyterLab and Voila.

A test file uses the fixtures `lab`, `voila` and `chromium` (conftest.py imports them) and the helpers below. A widget
marks an update as complete in its status line, `.bb-status`, with a larger `data-answer`. A label would not suffice,
because it can show the new value before the view is redrawn.
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
SECONDS, ANSWER = 240, 30  # time limits of opening and running a page, and of an update, on two busy cores
HARMLESS = re.compile(r"favicon|GPU stall|GL Driver|WebGL.*(software|deprecated|fallback)|swiftshader", re.IGNORECASE)


class Server(NamedTuple):
    """A running server: its address, the folder of its notebook copies, and its log."""

    url: str
    folder: Path
    log: Path


def missing(*modules: str) -> str:
    """The reason why a browser test cannot run; empty if it can."""
    lacking = [name for name in ("playwright", *modules) if not importlib.util.find_spec(name)]
    if lacking:
        return f"{', '.join(lacking)} is not installed: pip install -c constraints.txt -e '.[dev]'"
    return "" if shutil.which("chromium") else "no chromium on the PATH (Debian: apt install chromium)"


def free_port() -> int:
    """A free port."""
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
def serve(
    command: list[str],
    url: str,
    folder: Path,
    home: Path,
    settings: dict[str, dict] = SETTINGS,
    more: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server process with separate folders until the block ends; it is ready when `url` responds.

    Args: settings: of JupyterLab, by file. more: environment variables of the process.
    """
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places |= {"IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "spaces"}
    for file, content in settings.items():
        target = home / "settings" / "@jupyterlab" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))
    own = {name: str(home / place) for name, place in places.items()}
    environment = {**os.environ, **own, "PYTHONPATH": str(ROOT), **(more or {})}
    environment.pop("MPLBACKEND", None)  # the kernel sets its own backend
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
    """Wait until the server responds.

    Raises: RuntimeError with the log if it ends or does not respond.
    """
    for _ in range(2 * SECONDS):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return  # an HTTP error is a response too
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise RuntimeError(f"no response from {url}; log of the server: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab on an empty folder, which `copy_notebook` fills."""
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
    """A function that runs a `bbqrec` command that serves a page with Voila, on a free port; its `url` has a token."""
    if reason := missing("voila"):
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("voila")
    with contextlib.ExitStack() as running:

        def served(*arguments: str) -> Server:
            port = free_port()
            main = "import sys; from bbqrec_lab.cli import main; sys.exit(main())"
            command = [sys.executable, "-c", main, *arguments, f"--port={port}"]
            url = f"http://127.0.0.1:{port}"
            more = {"JUPYTER_TOKEN": TOKEN}
            server = running.enter_context(serve(command, f"{url}/voila/static/", home, home, more=more))
            return server._replace(url=f"{url}/?token={TOKEN}")

        yield served


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A function that opens a page; its attributes list console errors, external requests, and failed requests.

    They are `problems`, `outside` and `failed`. A request that the browser gave up because the page was left has not
    failed: on a busy machine the next page opens while scripts of the last one still load.
    """
    if reason := missing():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def opened(width: int = 1280, height: int = 1400) -> object:
            page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
            page.set_default_timeout(1000 * SECONDS)
            page.problems, page.outside, page.failed = [], [], []

            def on_console(said: object) -> None:
                if said.type == "error":
                    page.problems.append(_said(said))

            def on_request(asked: object) -> None:
                if _is_outside(asked.url):
                    page.outside.append(asked.url)

            def on_failed(asked: object) -> None:
                if asked.failure != "net::ERR_ABORTED":
                    page.failed.append(asked.url)

            page.on("requestfailed", on_failed)
            page.on("console", on_console)
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.on("request", on_request)
            return page

        yield opened
        browser.close()


def _said(message: object) -> str:
    """A console message with its URL; the message for a missing file does not name the file."""
    return f"{message.text} {message.location.get('url', '')}"


def _is_outside(url: str) -> bool:
    """Whether a request leaves this machine."""
    return not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "about:", "file:"))


def open_and_run(page: object, server: Server, notebook: Path) -> None:
    """Open a notebook in JupyterLab, run all its cells, and wait until they have run."""
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
    """Texts of all elements; non-breaking spaces, which options of dropdowns contain, become plain spaces."""
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in locator.all_inner_texts()]


def output_errors(page: object) -> list[str]:
    """Tracebacks in all outputs, including those inside Output widgets, and error messages of widgets."""
    kinds = "[data-mime-type='application/vnd.jupyter.error'], .jp-RenderedText[data-mime-type*='stderr'], .bb-error"
    return [text.strip() for text in page.locator(kinds).all_inner_texts() if text.strip()]


def console_problems(page: object) -> list[str]:
    """Console errors of the browser, without those about the missing GPU of this machine."""
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
    """Run `act`, wait until the next update of the widget is complete, and return the seconds between.

    They are measured inside the page, from the first key or click to the new status line. Thus the time in which the
    browser driver finds the control is not counted.

    Args: widget: CSS selector of the outermost box of the widget.
    """
    page.evaluate(WATCH, widget)
    act()
    try:
        page.wait_for_function("() => window.bbWatch.end", polling=20, timeout=1000 * ANSWER)
    finally:
        page.evaluate("() => window.bbWatch.stop()")
    return page.evaluate("() => window.bbWatch.end - window.bbWatch.begin") / 1000


def said_milliseconds(page: object, widget: str) -> float:
    """Milliseconds of the last update in the kernel, from the status line."""
    return float(re.search(r"([\d.]+) ms", page.locator(f"{widget} .bb-status").inner_text())[1])
