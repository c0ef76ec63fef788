"""Many jobs at once, shown: one live table on a terminal, a line a finished job elsewhere, and what is left to do."""

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

if TYPE_CHECKING:
    from rich.console import Console, Group


Row = tuple[Hashable, ...]
OVERDUE = 0.5  # share of the time already spent that a job is given once it has taken longer than expected


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def name_of(row: Row) -> str:
    """A row as people read it."""
    return " ".join(map(str, row))


class Log(io.TextIOBase):
    """What a worker prints, in its file; bars that redraw themselves go to a note beside it, for others to read.

    It passes for a terminal, because bars hide from anything else. The note holds when the work began and the last bar.
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
            self.file.write(text)
        return len(text)

    def flush(self) -> None:
        if not self.file.closed:
            self.file.flush()

    def close(self) -> None:
        """Close the file and take the note away: nothing is under way any more."""
        self.file.close()
        self.note.unlink(missing_ok=True)
        super().close()

    def _tell(self, bar: str) -> None:
        partial = self.note.with_suffix(".part")
        partial.write_text(f"{self.began}\n{bar.partition('|')[0].strip()}", encoding="utf-8")
        os.replace(partial, self.note)


def note_of(log: Path) -> Path:
    """Where `Log` keeps its note."""
    return log.with_suffix(".now")


class Running(NamedTuple):
    """A job under way: since when (`time.time`), and what its own bar says."""

    began: float
    bar: str


def running(log: Path) -> Running | None:
    """What the note beside a log says; None where nothing is under way."""
    with suppress(OSError, ValueError):
        began, _, bar = note_of(log).read_text(encoding="utf-8").partition("\n")
        return Running(float(began), bar)
    return None


class Board:
    """What is done, under way and waiting; as a table, as lines, and as an estimate of the time left.

    Args: logs: log file of every row, in the order in which they start. jobs: how many at a time. unit: what a row is
        called. expected: seconds that rows took before, where that is known.
    """

    def __init__(self, logs: Mapping[Row, Path], jobs: int, unit: str, expected: Mapping[Row, float]) -> None:
        self.logs, self.jobs, self.unit, self.expected = dict(logs), jobs, unit, dict(expected)
        self.start, self.failed = time.time(), 0
        self.spent: dict[Row, float | None] = {}  # of finished rows; None where it tells nothing of others

    def forget_running(self) -> None:
        """Take away the notes of workers that died."""
        for log in self.logs.values():
            note_of(log).unlink(missing_ok=True)

    def finish(self, row: Row, seconds: float, how: str, failed: bool) -> str:
        """Count a row as finished; returns its line. A failed row, or one that was done before, is no measure."""
        self.spent[row] = seconds if how == "done" and not failed else None
        self.failed += failed
        line = f"{self.unit} {len(self.spent)} of {len(self.logs)}, {name_of(row)}: {how}"
        return f"{line} ({duration(time.time() - self.start)}, {self.left()})"

    def left(self) -> str:
        """The time until all are finished, in words."""
        seconds = self.seconds_left()
        return "time left not known yet" if seconds is None else f"about {duration(seconds)} left"

    def seconds_left(self) -> float | None:
        """Seconds until all are finished if each row takes as long as expected; None before anything can be said.

        A row is expected to take the mean of finished rows of its kind (equal first name); else what it took in an
        earlier run, times how much longer than then the rows of this run take; else the mean of all finished ones.
        Rows start in order, each where a place is free first.
        Choice: means, since times of rows are far apart and their sum is what is asked for.
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
        """Seconds that an unfinished row is expected to take, see `seconds_left`."""
        known = {other: seconds for other, seconds in self.spent.items() if seconds is not None}
        alike = [seconds for other, seconds in known.items() if other[0] == row[0]]
        if alike:
            return fmean(alike)
        if row in self.expected:
            pairs = [seconds / self.expected[other] for other, seconds in known.items() if self.expected.get(other)]
            return self.expected[row] * (fmean(pairs) if pairs else 1.0)
        return fmean(known.values()) if known else None

    def table(self) -> "Group":
        """Rows under way with the time that each has taken and its own bar; below, the counts and the estimate."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now, under_way = time.time(), {row: running(log) for row, log in self.logs.items() if row not in self.spent}
        active = {row: found for row, found in under_way.items() if found is not None}
        table = Table(box=None, pad_edge=False)
        for name, options in ((self.unit, {}), ("time", {"justify": "right"}), ("progress", {"ratio": 1})):
            table.add_column(name, no_wrap=True, overflow="ellipsis", **options)
        for row, found in active.items():
            table.add_row(Text(name_of(row)), duration(now - found.began), Text(found.bar))
        return Group(table, Text(self._counts(len(active))))

    def _counts(self, active: int) -> str:
        """How many rows are where, and the time left."""
        waiting = len(self.logs) - len(self.spent) - active
        parts = [f"{len(self.spent)} of {len(self.logs)} {self.unit}s finished", f"{self.failed} failed"]
        parts += [f"{active} running", f"{waiting} waiting", f"{duration(time.time() - self.start)} so far"]
        return ", ".join([*parts, self.left()])


class Shown:
    """A board on standard error while a `with` lasts: live on a terminal, else a line for every finished row."""

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
        """Count a finished row and leave its line, above the table where there is one."""
        line = self.board.finish(row, seconds, how, failed)
        if self.live is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.console.print(line, soft_wrap=True)
            self.live.refresh()


def board_of(rows: Sequence[Row], logs: Path, jobs: int, unit: str, expected: Mapping[Row, float]) -> Board:
    """A board whose rows log to `logs/A-B.log`; notes that an earlier, killed run left there are taken away."""
    board = Board({row: logs / f"{'-'.join(map(str, row))}.log" for row in rows}, jobs, unit, expected)
    board.forget_running()
    return board
