"""Independent pieces of work in processes of their own: one table, failures kept apart, no process left behind."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bbqrec_lab.suite.progress import Log, Row, Shown, board_of

KILLED = "its process was killed; where memory ran out, use fewer jobs or a smaller preset"


@dataclass(frozen=True)
class Failure:
    """A piece that came to nothing, and why in one line."""

    cause: str


def use_one_thread() -> None:
    """Give this process and its children one thread each; call it before torch is imported.

    More threads than free cores are many times slower, and one thread makes results equal for any number of jobs.
    """
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _guarded(work: Callable[..., object], logs: Mapping[Row, Path], row: Row) -> tuple[object, float]:
    """`work(*row)` in a worker and its seconds, prints and traceback in its log; errors come back as `Failure`."""
    start, log = time.monotonic(), logs[row]
    log.parent.mkdir(parents=True, exist_ok=True)
    with Log(log) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            outcome = work(*row)
        except Exception as error:  # any error is this row's alone: the others go on
            traceback.print_exc()
            cause = (str(error).splitlines() or ["no message"])[0]
            outcome = Failure(f"{type(error).__name__}: {cause}; see {log}")
    return outcome, time.monotonic() - start


def run_all(
    work: Callable[..., object],
    rows: Sequence[Row],
    jobs: int,
    logs: Path,
    unit: str = "row",
    expected: Mapping[Row, float] | None = None,
) -> dict[Row, object]:
    """Call `work(*row)` for every row, `jobs` at a time, each worker a fresh process (spawn).

    A row that raises or returns a `Failure`, or whose process dies, is a `Failure` and the rest finish. After a death
    the rest runs one at a time: memory was the likely cause, and then it is clear which row the next death belongs to.

    Args: work: importable by name, as are its result and arguments; a result that is a string is shown. jobs: at least
        1. logs: one file per row. unit: what a row is called. expected: seconds that rows took in an earlier run.
    Returns: result or `Failure` by row, in the order of `rows`.
    """
    outcomes: dict[Row, object] = {}
    width, board = jobs, board_of(rows, logs, jobs, unit, expected or {})
    with Shown(board) as shown:
        report = partial(_report, shown)
        while left := [row for row in rows if row not in outcomes]:
            broken = _one_pool(partial(_guarded, work, board.logs), left, min(width, len(left)), outcomes, report)
            left = [row for row in left if row not in outcomes]
            board.forget_running()
            if broken and left and width == 1:
                outcomes[left[0]] = Failure(KILLED)
                report(left[0], outcomes[left[0]], 0.0)
            width = board.jobs = 1 if broken else width
    return {row: outcomes[row] for row in rows}


def _report(shown: Callable[[Row, float, str, bool], None], row: Row, outcome: object, seconds: float) -> None:
    """Show what became of a row: a text of its own, its failure, or that it is done."""
    failed = isinstance(outcome, Failure)
    how = f"failed, {outcome.cause}" if failed else outcome if isinstance(outcome, str) else "done"
    shown(row, seconds, how, failed)


def _one_pool(
    work: Callable[[tuple], object],
    rows: Sequence[tuple],
    width: int,
    outcomes: dict[tuple, object],
    report: Callable[[Row, object, float], None],
) -> bool:
    """Fill `outcomes` from one pool; returns whether a worker died, which ends the pool with rows left over."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(width, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    broken = False
    try:
        # A worker that is still importing would print a traceback on Ctrl-C: it starts with the signal held back.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pending = {pool.submit(work, row): row for row in rows}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        while pending and not broken:
            finished, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            for future in finished:
                row, error = pending.pop(future), future.exception()
                if isinstance(error, BrokenProcessPool):
                    broken = True
                    continue
                failure = Failure(f"{type(error).__name__}: {error}"), 0.0
                outcomes[row], seconds = failure if error else future.result()
                report(row, outcomes[row], seconds)
    except BrokenProcessPool:  # died while rows were still being handed in
        broken = True
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return broken
