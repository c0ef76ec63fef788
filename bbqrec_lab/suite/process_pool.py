"""Run independent pieces of work in separate processes: isolated failures, one progress display, no orphans."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bbqrec_lab import object_store
from bbqrec_lab.safe_path import protect_children
from bbqrec_lab.suite.clusters import executor_on
from bbqrec_lab.suite.progress import Log, Row, Shown, board_of
from bbqrec_lab.threads import use_one_thread

KILLED = "its process was killed; if memory ran out, use fewer jobs or a smaller preset"


@dataclass(frozen=True)
class Failure:
    """A failed piece of work, with its cause in one line."""

    cause: str


def _prepare_worker() -> None:
    """Use one thread, ignore Ctrl-C, which the parent handles, and exit when the parent has ended for any reason."""
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _guarded(work: Callable[..., object], logs: Mapping[Row, Path], address: str, row: Row) -> tuple[object, float]:
    """Call `work(*row)` in a worker and return result and seconds; output goes to its log, errors become `Failure`.

    Args: address: of the object store, because a worker of a cluster has an environment of its own; empty for none.
    """
    use_one_thread()
    os.environ[object_store.VARIABLE] = address
    start, log = time.monotonic(), logs[row]
    log.parent.mkdir(parents=True, exist_ok=True)
    with Log(log) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            outcome = work(*row)
        except Exception as error:  # an error must not stop the other rows
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
    cluster: str = "",
) -> dict[Row, object]:
    """Call `work(*row)` for every row, `jobs` at a time, in fresh worker processes (spawn), or on a cluster.

    A row that raises, returns a `Failure` or loses its process becomes a `Failure`; the others finish. After a process
    dies, the remaining rows run one at a time: the likely cause is memory, and the next death has a known row.

    Args: work: a picklable function with picklable arguments and result; a string result is displayed. jobs: at least
        1; on a cluster, all rows are submitted. logs: folder with one file per row. unit: the word for a row.
        expected: seconds per row in an earlier run. cluster: see `clusters`; empty for processes of this machine.
    Returns: result or `Failure` per row, in the order of `rows`.
    Raises: ValueError if the cluster cannot be used.
    """
    use_one_thread()
    protect_children()
    outcomes: dict[Row, object] = {}
    width, board = jobs, board_of(rows, logs, jobs, unit, expected or {})
    guarded = partial(_guarded, work, board.logs, os.environ.get(object_store.VARIABLE, ""))
    with Shown(board) as shown:
        report = partial(_report, shown)
        if cluster and rows:
            with executor_on(cluster, logs / "cluster") as (executor, board.jobs):
                _collect(executor, guarded, rows, outcomes, report)
            return {row: outcomes[row] for row in rows}
        while left := [row for row in rows if row not in outcomes]:
            broken = _one_pool(guarded, left, min(width, len(left)), outcomes, report)
            left = [row for row in left if row not in outcomes]
            board.forget_running()
            if broken and left and width == 1:
                outcomes[left[0]] = Failure(KILLED)
                report(left[0], outcomes[left[0]], 0.0)
            width = board.jobs = 1 if broken else width
    return {row: outcomes[row] for row in rows}


def _report(shown: Callable[[Row, float, str, bool], None], row: Row, outcome: object, seconds: float) -> None:
    """Display the outcome of a row: its own text, its failure, or `done`."""
    failed = isinstance(outcome, Failure)
    how = outcome if isinstance(outcome, str) else "done"
    if failed:
        how = f"failed, {outcome.cause}"
    shown(row, seconds, how, failed)


def _one_pool(
    work: Callable[[tuple], object],
    rows: Sequence[tuple],
    width: int,
    outcomes: dict[tuple, object],
    report: Callable[[Row, object, float], None],
) -> bool:
    """Fill `outcomes` with one pool. Return whether a worker died; the pool then ends with rows left over."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(width, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    try:
        return _collect(pool, work, rows, outcomes, report)
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(
    executor: Executor,
    work: Callable[[tuple], object],
    rows: Sequence[tuple],
    outcomes: dict[tuple, object],
    report: Callable[[Row, object, float], None],
) -> bool:
    """Submit all rows and fill `outcomes`. Return whether the executor broke; rows are then left over."""
    try:
        # During its imports, a worker would print a traceback on Ctrl-C. Therefore it starts with the signal blocked.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pending = {executor.submit(work, row): row for row in rows}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    except BrokenProcessPool:  # a worker died during the submission of the rows
        return True
    broken = False
    while pending and not broken:
        finished, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
        for future in finished:
            row, error = pending.pop(future), future.exception()
            if isinstance(error, BrokenProcessPool):
                broken = True
                continue  # other rows of this round may have finished
            failure = Failure(f"{type(error).__name__}: {error}"), 0.0
            outcomes[row], seconds = failure if error else future.result()
            report(row, outcomes[row], seconds)
    return broken
