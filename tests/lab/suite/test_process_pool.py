"""The process pool: order, failures, killed workers, interruption."""

import os
import signal
import subprocess
import sys
import time
import unicodedata
from functools import partial
from pathlib import Path

import pytest

from bbqrec_lab import measure, object_store
from bbqrec_lab.suite import process_pool

COMMANDS = "\x1b]0;title\x07\x9b2J\x00"  # for a terminal, from a text of the data


def _work(folder: Path, name: str, seed: int) -> str:
    """The work of a row, which depends on its name; it runs in a worker."""
    print(f"prints of {name}", COMMANDS)
    (folder / f"{name}-{seed}.calls").open("a").write("x")
    if name == "slow":
        time.sleep(1)
    if name == "raises":
        raise ValueError(f"first line {COMMANDS}\nsecond line")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name} {seed} {os.environ.get('OMP_NUM_THREADS')} {os.environ.get(object_store.VARIABLE)}"


def test_a_failing_row_is_reported_and_the_rest_finish_in_order(
    tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(object_store.VARIABLE, "s3://a/b")
    rows = [("slow", 0), ("raises", 0), ("b", 1)]
    outcomes = process_pool.run_all(partial(_work, tmp_path), rows, 2, tmp_path / "logs")
    assert list(outcomes) == rows
    assert (outcomes["slow", 0], outcomes["b", 1]) == ("slow 0 1 s3://a/b", "b 1 1 s3://a/b")
    assert outcomes["raises", 0].cause.startswith("ValueError: first line")
    log = (tmp_path / "logs" / "raises-0.log").read_text()
    assert "second line" in log
    seen = capfd.readouterr()
    for told in (log, seen.err):
        assert r"first line \x1b]0;title\x07\x9b2J\x00" in told
        assert [one for one in told if unicodedata.category(one) == "Cc" and one != "\n"] == []
    assert "prints of" not in seen.out + seen.err  # prints go to the log, progress goes to the terminal
    assert seen.err.count("row ") == 3
    assert "left" in seen.err


def test_a_killed_worker_costs_its_own_row_alone(tmp_path: Path) -> None:
    rows = [("a", 0), ("dies", 0), ("b", 0), ("c", 0)]
    outcomes = process_pool.run_all(partial(_work, tmp_path), rows, 2, tmp_path / "logs")
    assert [row for row, out in outcomes.items() if isinstance(out, process_pool.Failure)] == [("dies", 0)]
    assert "memory" in outcomes["dies", 0].cause
    assert len((tmp_path / "dies-0.calls").read_text()) == 2  # once in parallel, once alone


SLEEPER = """
import os, sys, time
from pathlib import Path
started = Path(sys.argv[1], f"started-{os.getpid()}")
if __name__ != "__main__":
    started.touch()
    time.sleep(0.5)
from bbqrec_lab.suite import process_pool
def work(name):
    Path(sys.argv[1], name).write_text(str(os.getpid()))
    time.sleep(0 if name == "idle" else 60)
if __name__ == "__main__":
    try:
        process_pool.run_all(work, [("idle",), ("one",), ("two",)], 3, Path(sys.argv[1], "logs"))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path: Path, ending: signal.Signals) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=log, start_new_session=True)
    files = [tmp_path / name for name in ("idle", "one", "two")]
    _wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    workers = [int(file.read_text()) for file in files]
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)  # Ctrl-C also reaches the workers
    else:
        process.send_signal(ending)
    assert process.wait(timeout=20) == (130 if ending == signal.SIGINT else -ending)
    _wait_until(lambda: not any(_alive(worker) for worker in workers))
    log.close()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_ctrl_c_while_workers_start_is_quiet(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=log, start_new_session=True)
        _wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 3)
        for file in tmp_path.glob(
            "started-*"
        ):  # like Ctrl-C in a terminal, but without the parent, which would stop them
            os.kill(int(file.name.split("-")[1]), signal.SIGINT)
        _wait_until(lambda: all((tmp_path / name).exists() for name in ("idle", "one", "two")))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie process does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(condition: object) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "condition not reached within 30 s"
        time.sleep(0.1)


def test_peak_memory_is_that_since_it_was_forgotten() -> None:
    block = bytearray(b"x") * (300 * 2**20)
    high = measure.peak_memory()
    del block
    measure.forget_peak_memory()
    low = measure.peak_memory()
    assert low < high - 0.2
    block = bytearray(b"x") * (200 * 2**20)
    assert measure.peak_memory() > low + 0.1
    del block
