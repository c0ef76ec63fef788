"""Kills, a full disk, two at once, and damage of every file: a fit always ends with the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.torture
MOMENTS, MOST = 50, 400  # seeded kills; more file operations than a fit has


class Kennel:
    """A process that forks a child for every fit, see kennel.py."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors
        command = [sys.executable, str(Path(__file__).with_name("kennel.py"))]
        with errors.open("a") as told:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, text=True
            )
        assert self.process.stdout.readline() == "ready\n"

    def fit(self, root: Path, last: int = 0, after: float = -1.0) -> tuple[int, int]:
        """Exit status and number of file operations. Args: last: operation not to survive. after: seconds to live."""
        self.process.stdin.write(f"{root} {last}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline().split()[1])
        if after >= 0:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        status, count = map(int, self.process.stdout.readline().split())
        return status, count

    def told(self) -> str:
        """What the children have printed since the last call."""
        text = self.errors.read_text()
        self.errors.write_text("")
        return text


@pytest.fixture(scope="module")
def kennel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kennel]:
    found = Kennel(tmp_path_factory.mktemp("kennel") / "errors.txt")
    with found.process:  # closes its pipes, and waits
        yield found


@pytest.fixture(scope="module")
def whole(kennel: Kennel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("whole")
    assert kennel.fit(root)[0] == 0
    return contents(root)


def contents(root: Path) -> dict[str, bytes]:
    """All files of finished results, except those with times; checks that nothing is missing, half done or left."""
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".damaged")]
    assert len(folders) == 2, "the tokenizer and the run, nothing half done"
    for folder in folders:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        manifest = json.loads((folder / "manifest.json").read_text())
        assert set(manifest["sha256"]) == names - {"manifest.json"}
        assert not [name for name in names if name.startswith(".") or "checkpoint" in name or name.endswith(".damaged")]
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_kill_at_every_file_operation_changes_no_byte(kennel: Kennel, whole: dict, tmp_path: Path) -> None:
    for last in range(1, MOST):
        status, _ = kennel.fit(tmp_path / str(last), last)
        if status == 0:
            break
        assert status == -signal.SIGKILL, kennel.told()
        assert kennel.fit(tmp_path / str(last))[0] == 0, f"after a kill at operation {last}: {kennel.told()}"
        assert contents(tmp_path / str(last)) == whole, f"after a kill at operation {last}"
    assert 50 < last < MOST - 1
    print(f"{last - 1} file operations")


def test_kills_at_any_moment_change_no_byte(kennel: Kennel, whole: dict, tmp_path: Path) -> None:
    start = time.monotonic()
    kennel.fit(tmp_path / "timed")
    longest, rng, killed = time.monotonic() - start, random.Random(0), 0
    for number in range(MOMENTS):
        root = tmp_path / str(number)
        while kennel.fit(root, after=rng.random() * longest)[0] == -signal.SIGKILL and rng.random() < 0.5:
            killed += 1
        assert kennel.fit(root)[0] == 0, kennel.told()
        assert contents(root) == whole
    assert killed > 5


def test_two_at_once_make_one_result(whole: dict, tmp_path: Path) -> None:
    kennels, found = [Kennel(tmp_path / f"errors-{number}.txt") for number in range(2)], []
    threads = [threading.Thread(target=lambda one=one: found.append(one.fit(tmp_path / "store")[0])) for one in kennels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in kennels:
        one.process.stdin.close()
        one.process.wait()
    assert found == [0, 0]
    assert contents(tmp_path / "store") == whole


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [empty, cut, turn_a_bit, folder, remove])
def test_every_damaged_file_is_named_and_made_again(
    kennel: Kennel, whole: dict, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    assert kennel.fit(tmp_path)[0] == 0
    files = [path for path in tmp_path.glob("run-*/*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        kennel.told()
        damage(file)
        assert kennel.fit(tmp_path)[0] == 0
        lines = [line for line in kennel.told().splitlines() if "is damaged: it is made again" in line]
        assert len(lines) == 1
        assert str(file) in lines[0] or damage is turn_a_bit, f"{file}: {lines[0]}"
        assert contents(tmp_path) == whole


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that gives a small disk a size in kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")

    def resize(size: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={size}k", str(place)], check=True, capture_output=True)
        return place

    yield resize
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(kennel: Kennel, whole: dict, disk: Callable[[int], Path]) -> None:
    sizes = [32, 64, 100, 150, 200, 300, 400, 600, 8000]
    for size in sizes:
        kennel.told()
        status, _ = kennel.fit(disk(size) / "store")
        lines = [line for line in kennel.told().splitlines() if line.startswith("bbqrec:")]
        assert (status, len(lines)) in ((0, 0), (2, 1)), lines
        assert all("has space" in line for line in lines), lines
    assert status == 0
    assert contents(disk(8000) / "store") == whole


def test_a_finished_store_that_can_only_be_read_is_used(
    kennel: Kennel, whole: dict, disk: Callable[[int], Path]
) -> None:
    place = disk(8000)
    assert kennel.fit(place / "store")[0] == 0
    modes = {path: path.stat().st_mode & 0o777 for path in (place / "store").rglob("*")}
    wanted = 0o666 & ~umask()
    assert [path for path, mode in modes.items() if mode & wanted != wanted] == [], "a group shares a store by umask"
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True, capture_output=True)
    kennel.told()
    assert kennel.fit(place / "store")[0] == 0
    assert kennel.told() == ""
    assert contents(place / "store") == whole
    assert kennel.fit(place / "other")[0] == 2
    (line,) = kennel.told().splitlines()
    assert line.startswith("bbqrec:")
    assert "Read-only" in line


def umask() -> int:
    """The mask of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
