"""Rows and notebooks on an existing cluster: each kind is an `Executor` of `concurrent.futures`.

All machines see the folder of results, the datasets and the cache (`BBQREC_CACHE`) under the same paths, and have the
same environment. Rows that a lost worker has begun go on from their checkpoint on another one.
"""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path

from bbqrec_lab.code_keys import packages_hash
from bbqrec_lab.store import write_atomic

KINDS = "dask://HOST:PORT or slurm"
INSTALL = "pip install -c constraints.txt -e '.[cluster]'"
RETRIES = 2  # how often a row is started again after its worker was lost
POLL = 2.0  # seconds between two looks at the jobs of Slurm
HOURS = 24  # time limit of a job of Slurm, unless SBATCH_TIMELIMIT is set


def check(cluster: str) -> None:
    """Check the name of a cluster, and that the package that talks to it is installed; empty is this machine.

    Raises: ValueError with the remedy.
    """
    if cluster and cluster != "slurm" and not re.fullmatch(r"dask://[^/:]+:\d+", cluster):
        raise ValueError(f"cluster must be {KINDS}, got {cluster!r}")
    package = "submitit" if cluster == "slurm" else "distributed"
    if cluster and not importlib.util.find_spec(package):
        raise ValueError(f"{package} is not installed: {INSTALL}")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise ValueError("there is no sbatch here: run this command on a machine from which jobs can be submitted")


@contextlib.contextmanager
def executor_on(cluster: str, folder: Path) -> Iterator[tuple[Executor, int]]:
    """The executor of a cluster, and the number of rows that it runs at once.

    Args: cluster: checked by `check`. folder: for files of the cluster's own; all machines see it.
    Raises: ValueError if the cluster cannot be reached, or if a worker is not as described above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _slurm(folder) if cluster == "slurm" else _dask(cluster, folder) as found:
        yield found


def _seen(file: Path) -> tuple[str, str]:
    """What a worker says of itself: the hash of its code, and what it reads from a file of the caller."""
    return packages_hash(), file.read_text() if file.exists() else ""


@contextlib.contextmanager
def _dask(cluster: str, folder: Path) -> Iterator[tuple[Executor, int]]:
    """A Dask cluster with at least one worker. When the caller stops, rows that have begun run to their end there."""
    from distributed import Client

    mark = folder / f"mark-{time.time_ns()}"
    try:
        client = Client(f"tcp://{cluster.removeprefix('dask://')}", timeout=10, set_as_default=False)
    except OSError as error:
        raise ValueError(f"no scheduler answers at {cluster} ({error}): start one with dask scheduler") from None
    try:
        threads = client.nthreads()
        if not threads:
            raise ValueError(f"{cluster} has no worker: start some with dask worker HOST:PORT --nthreads 1")
        if several := next((name for name, count in threads.items() if count > 1), None):
            raise ValueError(f"worker {several} has several threads: start workers with --nthreads 1, more of them")
        write_atomic(mark, mark.name)
        for name, (code, read) in client.run(_seen, mark).items():
            if read != mark.name:
                raise ValueError(f"worker {name} does not see {folder}: give a folder that all machines share")
            if code != packages_hash():
                raise ValueError(f"worker {name} has other code of bbqrec: install the same version there")
        yield client.get_executor(pure=False, retries=RETRIES), len(threads)
    finally:
        mark.unlink(missing_ok=True)
        client.close()


@contextlib.contextmanager
def _slurm(folder: Path) -> Iterator[tuple[Executor, int]]:
    """Slurm, one job a row; its own variables choose the rest: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT."""
    executor = SlurmExecutor(folder)
    try:
        yield executor, max(1, executor.idle_cores())
    finally:
        executor.shutdown(cancel_futures=True)


class SlurmExecutor(Executor):
    """Jobs of Slurm as futures.

    Choice: whether a job still exists is asked of `squeue`, because `sacct`, which submitit asks, needs a database
    that small installations do not have.

    Args: folder: for scripts, logs and results of the jobs; all machines see it.
    """

    def __init__(self, folder: Path) -> None:
        from submitit import SlurmExecutor as Submitter

        self._submitter = Submitter(folder, max_num_timeout=0)
        self._submitter.update_parameters(job_name="bbqrec", cpus_per_task=1, time=60 * HOURS)
        self._jobs: dict[Future, object] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def submit(self, work: Callable[..., object], /, *args: object, **options: object) -> Future:
        """Submit one job. Raises: ValueError with the words of sbatch if it refuses."""
        from submitit.core.utils import FailedJobError

        future: Future = Future()
        try:
            job = self._submitter.submit(work, *args, **options)
        except (FailedJobError, subprocess.CalledProcessError) as error:
            raise ValueError(f"sbatch refuses the job: {' '.join(str(error).split())}") from None
        with self._lock:
            self._jobs[future] = job
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop watching; with `cancel_futures`, end the jobs that are left."""
        self._ended.set()
        self._watcher.join()
        if cancel_futures and self._jobs:
            subprocess.run(["scancel", *(str(job.job_id) for job in self._jobs.values())], check=False)

    def idle_cores(self) -> int:
        """The number of cores that wait for work, as `sinfo` says."""
        told = subprocess.run(["sinfo", "-h", "-o", "%C"], capture_output=True, text=True, check=False)
        return sum(int(line.split("/")[1]) for line in told.stdout.split() if line.count("/") == 3)

    def _alive(self) -> set[str] | None:
        """The jobs that wait or run; None if Slurm does not answer now."""
        told = subprocess.run(["squeue", "-h", "--me", "-o", "%A"], capture_output=True, text=True, check=False)
        return None if told.returncode else set(told.stdout.split())

    def _watch(self) -> None:
        """Complete the future of each job that has ended; one that ends twice in a row without a result was lost."""
        gone: set[Future] = set()
        while not self._ended.wait(POLL):
            alive = self._alive()
            with self._lock:
                jobs = dict(self._jobs)
            ended = {future for future, job in jobs.items() if job.paths.result_pickle.exists()}
            missing = {future for future, job in jobs.items() if alive is not None and str(job.job_id) not in alive}
            lost, gone = (missing & gone) - ended, missing - ended
            for future in ended | lost:
                with self._lock:
                    job = self._jobs.pop(future)
                try:
                    error = self._lost(job) if future in lost else job.exception()
                    result = None if error else job.result()
                except Exception as unreadable:  # otherwise this thread would end, and the caller wait for ever
                    error = unreadable
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

    @staticmethod
    def _lost(job: object) -> RuntimeError:
        return RuntimeError(f"job {job.job_id} of Slurm ended without a result; see {job.paths.stderr}")
