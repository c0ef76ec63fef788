"""Progress of parallel jobs: status files of workers, the table, the lines, and the estimate of remaining time."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tqdm import tqdm

from bbqrec_lab.suite import progress
from bbqrec_lab.suite.progress import Board, Log, Running, Shown

ROWS = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A mock clock, which the test advances."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def board(tmp_path: Path, jobs: int = 2, expected: dict | None = None) -> Board:
    return progress.board_of(ROWS, tmp_path, jobs, "row", expected or {})


def begin(of: Board, row: tuple, bar: str = "") -> Log:
    log = Log(of.logs[row])
    vars(of).setdefault("kept", []).append(log)  # keep a reference, because an unreferenced log is closed
    if bar:
        log.write("\r" + bar)
    return log


def test_a_log_keeps_prints_and_tells_the_last_bar_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a-0.log"
    before = time.time()
    with Log(path) as log:
        print("a line", file=log)
        assert progress.running(path).bar == ""
        for _ in tqdm(range(3), desc="epoch 2/9", file=log, disable=None, mininterval=0, leave=False):
            pass
        assert before <= progress.running(path).began <= time.time()
        log.write("\repoch 2/9:  67%|######   | 2/3 [00:01<00:00]")
        assert progress.running(path).bar == "epoch 2/9:  67%"
        print("another", file=log)
    assert path.read_text() == "a line\nanother\n"
    assert progress.running(path) is None
    assert [file.name for file in tmp_path.iterdir()] == ["a-0.log"]


def test_a_bar_that_would_hide_from_a_file_shows_itself_to_a_log(tmp_path: Path) -> None:
    with Log(tmp_path / "a.log") as log, tqdm(total=4, desc="work", file=log, disable=None, mininterval=0) as bar:
        assert not bar.disable
        bar.update(1)
        assert progress.running(tmp_path / "a.log").bar == "work:  25%"


def test_neither_file_of_a_worker_commands_the_terminal_that_shows_it(tmp_path: Path) -> None:
    with Log(tmp_path / "a.log") as log:
        print("title \x1b[2J\x07", file=log)
        log.write("\rtitle \x1b[31m: 25%|##   | 1/4")
        assert progress.note_of(tmp_path / "a.log").read_text().endswith("\ntitle \\x1b[31m: 25%")
    assert (tmp_path / "a.log").read_text() == "title \\x1b[2J\\x07\n"


def test_notes_of_a_killed_run_are_taken_away(tmp_path: Path) -> None:
    killed = board(tmp_path)
    begin(killed, ROWS[0])
    assert progress.running(tmp_path / "a-0.log") is not None
    board(tmp_path)
    assert progress.running(tmp_path / "a-0.log") is None


def test_nothing_is_estimated_before_anything_is_known(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path)
    begin(of, ("a", 0))
    assert of.seconds_left() is None
    assert of.left() == "remaining time unknown"


def test_the_estimate_fills_the_places_with_what_alike_rows_took(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path)
    of.finish(("a", 0), 100.0, "done", failed=False)
    begin(of, ("a", 1))
    begin(of, ("b", 0))
    clock[0] += 30
    assert (
        of.seconds_left() == 70 + 100
    )  # kind b is unknown, so it counts as a; its second row waits for one of two workers
    of.finish(("b", 0), 10.0, "done", failed=False)
    assert of.seconds_left() == 70  # the last b takes 10 in parallel
    begin(of, ("b", 1))
    assert of.seconds_left() == 70


def test_rows_of_which_nothing_is_known_take_the_mean_of_all(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path, jobs=1)
    of.finish(("a", 0), 1.0, "done", failed=False)
    of.finish(("a", 1), 3.0, "done", failed=False)
    of.finish(("b", 0), 1.0, "done before", failed=False)
    assert of.seconds_left() == 2


def test_one_job_at_a_time_takes_as_long_as_all_of_them_together(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path, jobs=1)
    of.finish(("a", 0), 100.0, "done", failed=False)
    assert of.seconds_left() == 300


def test_an_earlier_run_says_how_long_rows_take_relative_to_each_other(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path, 1, {("a", 0): 10.0, ("a", 1): 10.0, ("b", 0): 50.0, ("b", 1): 60.0})
    assert of.seconds_left() == 130
    of.finish(("a", 0), 20.0, "done", failed=False)  # this machine is twice as slow
    assert of.seconds_left() == 20 + 100 + 120


def test_failures_and_what_was_done_before_are_no_measure(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path)
    of.finish(("a", 0), 0.1, "done before", failed=False)
    of.finish(("b", 0), 0.2, "failed, ValueError: no", failed=True)
    assert of.seconds_left() is None


def test_a_job_that_takes_longer_than_expected_is_given_more_time(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path)
    for row in (("a", 0), ("b", 0), ("b", 1)):
        of.finish(row, 10.0, "done", failed=False)
    begin(of, ("a", 1))
    clock[0] += 200
    assert of.seconds_left() == pytest.approx(100)


def shown(of: Board, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(of.table())
    return console.file.getvalue()


def test_the_table_has_a_line_for_each_running_row_and_all_counts(tmp_path: Path, clock: list[float]) -> None:
    of = board(tmp_path)
    of.finish(("b", 1), 100.0, "failed, KeyError: x", failed=True)
    begin(of, ("a", 0), "recommender epoch 3/9, best 0.0812:  40%|####    | 4/10")
    clock[0] += 65
    begin(of, ("a", 1))
    text = shown(of)
    assert re.search(r"a 0 +1 min 05 s +recommender epoch 3/9, best 0.0812:  40%\s*\n", text)
    assert re.search(r"a 1 +0 s", text)
    counts = "1 of 4 rows finished, 1 failed, 2 running, 1 waiting, 1 min 05 s so far, remaining time unknown"
    assert counts in " ".join(text.split())
    assert "b 0" not in text


def test_a_narrow_terminal_cuts_a_line_and_never_breaks_it(tmp_path: Path) -> None:
    of = board(tmp_path)
    begin(of, ("a", 0), "recommender epoch 3/9, best 0.0812, at most 12.5 min left:  40%|####")
    body = [line for line in shown(of, 40).splitlines() if "recomm" in line or "min left" in line]
    assert len(body) == 1
    assert len(body[0]) <= 40


def test_a_terminal_gets_lines_above_a_live_table_and_the_table_goes_at_the_end(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    of = board(tmp_path)
    with Shown(of, console) as report:
        log = begin(of, ("a", 1))
        report(("a", 0), 3.0, "done", False)
        inside = console.file.getvalue()
        log.close()
    text = console.file.getvalue()
    assert "row 1 of 4, a 0: done (" in text
    assert "1 of 4 rows finished" in inside  # immediately, not at the next redraw
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[1A\x1b[2K" in text  # the live table is erased


def test_anything_else_gets_plain_lines(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with Shown(board(tmp_path)) as report:
        report(("a", 0), 3.0, "done", False)
        report(("b", 0), 3.0, "failed, ValueError: no; see x.log", True)
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "row 1 of 4, a 0: done",
        "row 2 of 4, b 0: failed, ValueError: no; see x.log",
    ]
    assert lines[0].endswith("about 6 s left)")


SCRIPT = """
import sys, time
from pathlib import Path
from tqdm import tqdm
from bbqrec_lab.suite.process_pool import run_all
def work(name, seconds):
    for _ in tqdm(range(10), desc=f"bar of {name}", file=sys.stderr, disable=None, mininterval=0.1, leave=False):
        time.sleep(seconds / 10)
    if name == "bad":
        raise ValueError("no good")
    return "done"
if __name__ == "__main__":
    found = run_all(work, [("one", 2.0), ("bad", 1.0), ("two", 1.5), ("last", 0.5)], 2, Path(sys.argv[1], "logs"))
    print([getattr(value, "cause", value).partition(";")[0] for value in found.values()])
"""


def test_on_a_real_terminal_both_running_jobs_are_seen_at_once_and_the_rest_finish(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, str(script), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=environment, text=True)
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the child has closed its end
            break
        if not part:
            break
        seen += part
    os.close(parent)
    assert process.communicate(timeout=60)[0].strip() == "['done', 'ValueError: no good', 'done', 'done']"
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    frames = text.split("progress")
    assert any("bar of one" in frame and "bar of bad" in frame for frame in frames)
    assert "2 running" in text
    assert "1 failed" in text
    assert "row 4 of 4" in text
    assert re.search(r"bad 1.0: failed, ValueError: no good; see ", text)
    assert not list((tmp_path / "logs").glob("*.now"))
    assert "bar of" not in (tmp_path / "logs" / "one-2.0.log").read_text()


@pytest.mark.parametrize("text", ["", "no number\nbar", "12"])
def test_a_note_that_cannot_be_read_is_no_job_under_way(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.now").write_text(text)
    assert progress.running(tmp_path / "a.log") == (Running(12.0, "") if text == "12" else None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s"), (7860.0, "2 h 11 min")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
