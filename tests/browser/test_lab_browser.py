"""`bbqrec lab` in a real browser: the first notebook with its picture and links, no question, nothing for git."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browser import ROOT, TOKEN, console_problems, copy_notebook, free_port, missing, serve

pytestmark = pytest.mark.browser
COMMAND = """
import sys
from pathlib import Path
from bbqrec_lab.suite import lab
lab.notebook_folder = lambda: Path(sys.argv[1])
sys.exit(lab.open_lab())
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository with the first notebook, under git."""
    root = tmp_path_factory.mktemp("repository")
    copy_notebook("00", root / "notebooks", dataset="planted-smoke", preset="smoke")
    shutil.copytree(ROOT / "figures", root / "figures")
    for name in (".gitignore", "README.md"):
        shutil.copyfile(ROOT / name, root / name)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def address(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that `bbqrec lab` has started, with its token."""
    if reason := missing():
        pytest.skip(reason)
    home, port = tmp_path_factory.mktemp("home"), free_port()
    command = [sys.executable, "-c", COMMAND, str(repository / "notebooks")]
    own = {"JUPYTER_TOKEN": TOKEN, "JUPYTER_PORT": str(port), "BROWSER": "true"}
    with serve(command, f"http://127.0.0.1:{port}/lab?token={TOKEN}", repository, home, settings={}, more=own):
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"


def test_the_first_notebook_is_open_with_its_picture_and_saving_it_changes_nothing_for_git(
    address: str, repository: Path, chromium: object
) -> None:
    page = chromium(1280, 900)
    page.goto(address)
    page.wait_for_selector(".jp-Notebook h1")
    assert "What is a semantic ID" in page.locator(".jp-Notebook h1").first.inner_text()
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.jp-Notebook img')];"
        " return all.length && all.every(one => one.complete && one.naturalWidth) }"
    )
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_selector(".jp-InputPrompt:has-text('[1]')")
    page.keyboard.press("Control+s")
    saved = repository / "lab" / "00_quickstart.ipynb"
    for _ in range(100):
        if any(cell.get("execution_count") for cell in nbformat.read(saved, as_version=4).cells):
            break
        page.wait_for_timeout(100)
    else:
        pytest.fail("the copy was not saved")
    original = f"{address.partition('/?')[0]}/api/contents/notebooks/00_quickstart.ipynb?token={TOKEN}"
    model = page.request.get(original).json()
    for cell in model["content"]["cells"]:
        cell |= {"execution_count": 1, "outputs": []} if cell["cell_type"] == "code" else {}
    assert page.request.put(original, data=model).ok
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, cwd=repository, check=True, capture_output=True, text=True).stdout == ""
    page.wait_for_timeout(2000)  # the question about news comes after the start
    assert page.locator(".jp-toastContainer, .Toastify__toast").all_inner_texts() == []
    assert page.locator(".jp-Dialog").count() == 0
    assert console_problems(page) == []
    page.close()
