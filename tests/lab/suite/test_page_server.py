"""The served page, with a real process and a real HTTP client: who is refused, who gets it, and what is left behind."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("voila")
SECONDS = 120
SERVE = """
import signal
import sys
from pathlib import Path
from bbqrec_lab import cli
from bbqrec_lab.suite import web_page
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
web_page.notebook_folder = lambda: Path(sys.argv[1])
options = ["--dataset=planted-smoke", "--preset=smoke", f"--out={sys.argv[2]}", f"--port={sys.argv[3]}"]
sys.exit(cli.main(["inspector", *options]))
"""
PARAMETERS = 'dataset: str = ""\npreset: str = ""\nout_dir: str = ""\noverrides: dict = {}'
COMMANDS = "\x1b]0;title\x07 \x9b2J text of the data"  # for a terminal
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
UPGRADE |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}


class Page(NamedTuple):
    """A running server: its process, port and token, its folder of temporary files, and its log."""

    process: subprocess.Popen
    port: int
    token: str
    temporary: Path
    log: Path

    def cookies(self) -> str:
        """What a browser sends after it has opened the printed address."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        connection.request("GET", f"/login?token={self.token}")
        given = connection.getresponse().headers.get_all("Set-Cookie")
        connection.close()
        return "; ".join(one.partition(";")[0] for one in given)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body of a request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode() if answer.status != 101 else ""
        finally:
            connection.close()


def free_port() -> int:
    """A free port."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


def serve(home: Path, last: str = "") -> Page:
    """Serve a small notebook with the command; returns when the address is printed.

    Args: last: the source of its last cell.
    """
    source, temporary = home / "notebooks", home / "t"
    for folder in (source, temporary):
        folder.mkdir(parents=True)
    cells = [new_code_cell(PARAMETERS), new_code_cell("print('answer', 6 * 7)"), new_code_cell(last)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), source / "07_small.ipynb")
    (home / "own.png").write_bytes(b"own picture")
    port, log = free_port(), home / "log"
    env = {**os.environ, "TMPDIR": str(temporary)}
    env.pop("JUPYTER_TOKEN", None)
    with log.open("w") as out:
        command = [sys.executable, "-c", SERVE, str(source), str(home / "runs"), str(port)]
        process = subprocess.Popen(command, env=env, cwd=home, stdout=out, stderr=out, start_new_session=True)
    for _ in range(4 * SECONDS):
        if found := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{20,}) serves the page", log.read_text()):
            return Page(process, int(found[1]), found[2], temporary, log)
        if process.poll() is not None:
            break
        time.sleep(0.25)
    process.terminate()
    process.wait(SECONDS)
    raise RuntimeError(log.read_text())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One server for all requests."""
    served = serve(tmp_path_factory.mktemp("page"), f"raise ValueError({COMMANDS!r})")
    yield served
    served.process.terminate()
    served.process.wait(SECONDS)


def test_with_the_token_the_printed_address_answers_with_the_page(page: Page) -> None:
    status, body = page.get(f"/?token={page.token}")
    assert status == 200
    assert "answer 42" in body


def test_one_address_is_told_and_no_text_of_a_page_commands_the_terminal(page: Page) -> None:
    page.get(f"/?token={page.token}")
    log = page.log.read_text()
    assert re.findall(r"\S+://\S*", log) == [f"http://127.0.0.1:{page.port}/?token={page.token}"]
    assert r"\x1b]0;title\x07 \x9b2J text of the data" in log, "the error of the cell is told"
    assert [one for one in log if unicodedata.category(one) == "Cc" and one != "\n"] == []


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong"])
def test_without_the_token_nothing_is_shown(page: Page, path: str) -> None:
    status, body = page.get(path)
    assert status in (302, 401, 403)
    assert "answer" not in body


@pytest.mark.parametrize(
    "host", ["rebound.example", "rebound.example:8866", "127.0.0.1.rebound.example", "10.0.0.1", ""]
)
@pytest.mark.parametrize("path", ["/", "/login", "/voila/static/voila.js", "/voila/files/own.png"])
def test_another_host_finds_nothing_even_with_the_token(page: Page, host: str, path: str) -> None:
    status, body = page.get(f"{path}?token={page.token}", Host=host)
    assert status in (400, 404)
    assert "answer" not in body
    assert page.get("/voila/static/voila.js", Host=f"localhost:{page.port}")[0] == 200


def test_a_page_of_another_site_cannot_talk_to_a_kernel(page: Page) -> None:
    _, body = page.get(f"/?token={page.token}")
    channels = f"/api/kernels/{re.search(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}', body)[0]}/channels"
    known, own = {"Cookie": page.cookies()}, f"http://127.0.0.1:{page.port}"
    assert page.get(channels, Origin="http://other.example", **UPGRADE, **known)[0] == 403
    assert page.get(channels, Origin=own, **UPGRADE)[0] == 403, "no cookie and no token"
    assert page.get(channels, Origin=own, **UPGRADE, **known)[0] == 101


def test_no_file_beside_the_user_is_served(page: Page) -> None:
    assert page.get(f"/voila/files/own.png?token={page.token}")[0] in (403, 404)


@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_a_stop_leaves_no_file_and_no_process(how: str, tmp_path: Path) -> None:
    page = serve(tmp_path)
    assert page.get(f"/?token={page.token}")[0] == 200
    assert list(page.temporary.iterdir())
    if how == "interrupt":
        os.killpg(page.process.pid, signal.SIGINT)  # as Ctrl-C, which reaches all processes of a terminal
    else:
        page.process.terminate()
    try:
        assert page.process.wait(SECONDS) == 0
    finally:
        page.process.kill()
        page.process.wait()
    assert list(page.temporary.iterdir()) == []
    assert not (tmp_path / "runs").exists()
    assert "Traceback" not in page.log.read_text()
    with pytest.raises(ProcessLookupError):
        os.killpg(page.process.pid, 0)
