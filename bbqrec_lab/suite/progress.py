"""Progress of parallel jobs: a live table on a terminal, else one line per finished job, with the remaining time."""

import heapq
import io
import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from bbqrec_lab.escaping import printable
from bbqrec_lab.experiments.durations import duration
from bbqrec_lab.terminal import say

if TYPE_CHECKING:
    from rich.console import Console, Group


Row = tuple[Hashable, ...]
OVERDUE = 0.5  # estimate for a job that exceeds its expected time: this share of the time it has already taken


def name_of(row: Row) -> str:
    """The display name of a row."""
    return " ".join(map(str, row))


class Log(io.TextIOBase):
    """The log file of a worker; progress bars go to a status file next to it, which other processes read.

    A user shows the file in a terminal, so text of the data is written without controls. It reports itself as a
    terminal, because progress bars are hidden otherwise. The status file has the start time and the last progress bar.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.note, self.began = path, note_of(path), time.time()
        self.file = path.open("w", encoding="utf-8")
        self._tell("")

    @property
    def encoding(self) -> str:
        return "utf-8"

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if text.startswith("\r"):
            self._tell(text.rpartition("\r")[2])
        else:
            self.file.write(printable(text))
        return len(text)

    def flush(self) -> None:
        if not self.file.closed:
            self.file.flush()

    def close(self) -> None:
        """Close the file and delete the status file: the work has ended."""
        self.file.close()
        self.note.unlink(missing_ok=True)
        super().close()

    def _tell(self, bar: str) -> None:
        partial = self.note.with_suffix(".part")
        partial.write_text(f"{self.began}\n{printable(bar.partition('|')[0].strip())}", encoding="utf-8")
        os.replace(partial, self.note)


def note_of(log: Path) -> Path:
    """Path of the status file of a log."""
    return log.with_suffix(".now")


class Running(NamedTuple):
    """A running job: its start (`time.time`) and its own progress bar."""

    began: float
    bar: str


def running(log: Path) -> Running | None:
    """Read the status file of a log; None if no job is running."""
    with suppress(OSError, ValueError):
        began, _, bar = note_of(log).read_text(encoding="utf-8").partition("\n")
        return Running(float(began), bar)
    return None


class Board:
    """The finished, running and waiting rows, as a table and as lines, with an estimate of the remaining time.

    Args: logs: log file of every row, in starting order. jobs: number of parallel jobs. unit: the word for a row.
        expected: seconds that rows took in an earlier run, if known.
    """

    def __init__(self, logs: Mapping[Row, Path], jobs: int, unit: str, expected: Mapping[Row, float]) -> None:
        self.logs, self.jobs, self.unit, self.expected = dict(logs), jobs, unit, dict(expected)
        self.start, self.failed = time.time(), 0
        self.spent: dict[Row, float | None] = {}  # per finished row; None if it is no basis for estimates

    def forget_running(self) -> None:
        """Delete the status files of dead workers."""
        for log in self.logs.values():
            note_of(log).unlink(missing_ok=True)

    def finish(self, row: Row, seconds: float, how: str, failed: bool) -> str:
        """Count a row as finished and return its line. The time of a failed or skipped row is not used in estimates."""
        self.spent[row] = seconds if how == "done" and not failed else None
        self.failed += failed
        line = f"{self.unit} {len(self.spent)} of {len(self.logs)}, {name_of(row)}: {how}"
        return f"{line} ({duration(time.time() - self.start)}, {self.left()})"

    def left(self) -> str:
        """The remaining time as text."""
        seconds = self.seconds_left()
        return "remaining time unknown" if seconds is None else f"about {duration(seconds)} left"

    def seconds_left(self) -> float | None:
        """Seconds until all rows are finished, if each takes its expected time; None if nothing is known yet.

        The expected time of a row is the mean over finished rows of its kind (same first name); else its time in an
        earlier run, times the slowdown of this run against that run; else the mean over all finished rows.
        Rows start in order, each on the first free worker.
        Choice: means, because the times differ strongly and the estimate is a sum of them.
        """
        now, places, waiting = time.time(), [], []
        for row, log in self.logs.items():
            if row in self.spent:
                continue
            whole, found = self._expected(row), running(log)
            if whole is None:
                return None
            if found is None:
                waiting.append(whole)
            else:
                places.append(max(whole - (now - found.began), OVERDUE * (now - found.began)))
        places += [0.0] * (self.jobs - len(places))
        heapq.heapify(places)
        for whole in waiting:
            heapq.heapreplace(places, places[0] + whole)
        return max(places)

    def _expected(self, row: Row) -> float | None:
        """Expected seconds of an unfinished row, see `seconds_left`."""
        known = {other: seconds for other, seconds in self.spent.items() if seconds is not None}
        alike = [seconds for other, seconds in known.items() if other[0] == row[0]]
        if alike:
            return fmean(alike)
        if row in self.expected:
            pairs = [seconds / self.expected[other] for other, seconds in known.items() if self.expected.get(other)]
            return self.expected[row] * (fmean(pairs) if pairs else 1.0)
        return fmean(known.values()) if known else None

    def table(self) -> "Group":
        """The running rows with elapsed time and progress bar; below, the counts and the estimate."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now, under_way = time.time(), {row: running(log) for row, log in self.logs.items() if row not in self.spent}
        active = {row: found for row, found in under_way.items() if found is not None}
        table = Table(box=None, pad_edge=False)
        for name, options in ((self.unit, {}), ("time", {"justify": "right"}), ("progress", {"ratio": 1})):
            table.add_column(name, no_wrap=True, overflow="ellipsis", **options)
        for row, found in active.items():
            table.add_row(Text(printable(name_of(row))), duration(now - found.began), Text(printable(found.bar)))
        return Group(table, Text(self._counts(len(active))))

    def _counts(self, active: int) -> str:
        """The counts of rows per status, and the remaining time."""
        waiting = len(self.logs) - len(self.spent) - active
        parts = [f"{len(self.spent)} of {len(self.logs)} {self.unit}s finished", f"{self.failed} failed"]
        parts += [f"{active} running", f"{waiting} waiting", f"{duration(time.time() - self.start)} so far"]
        return ", ".join([*parts, self.left()])


class Shown:
    """Context manager that shows a board on standard error: live on a terminal, else one line per finished row."""

    def __init__(self, board: Board, console: "Console | None" = None) -> None:
        self.board, self.live = board, None
        if console is not None or sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.console = console or Console(stderr=True, highlight=False, markup=False)
            options = {"refresh_per_second": 2, "redirect_stdout": False, "redirect_stderr": False, "transient": True}
            self.live = Live(console=self.console, get_renderable=board.table, **options)

    def __enter__(self) -> Callable[[Row, float, str, bool], None]:
        if self.live is not None:
            self.live.start()
        return self.report

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def report(self, row: Row, seconds: float, how: str, failed: bool) -> None:
        """Count a finished row and print its line, above the table if there is one."""
        line = self.board.finish(row, seconds, how, failed)
        if self.live is None:
            say(line)
        else:
            self.console.print(printable(line), soft_wrap=True)
            self.live.refresh()


def board_of(rows: Sequence[Row], logs: Path, jobs: int, unit: str, expected: Mapping[Row, float]) -> Board:
    """Make a board whose rows log to `logs/A-B.log`; status files of an earlier, killed run are deleted."""
    board = Board({row: logs / f"{'-'.join(map(str, row))}.log" for row in rows}, jobs, unit, expected)
    board.forget_running()
    return board
