"""Rows on a real Dask scheduler and on a real Slurm: lost workers, refusals, and results equal to those made here."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bbqrec_lab.suite import clusters, process_pool, reproduce

ROOT = Path(__file__).resolve().parents[3]


def work(folder: Path, name: str) -> str:
    """The work of a row on a cluster; `slow` notes its process and waits, the first time only."""
    mark = folder / f"{name}.pid"
    first = not mark.exists()
    mark.write_text(str(os.getpid()))
    if name == "slow" and first:
        time.sleep(60)
    if name == "raises":
        raise ValueError("first line \x1b[2J")
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name} with {os.environ['OMP_NUM_THREADS']} thread"


def wait_for(file: Path, seconds: float = 60) -> str:
    """The text of a file as soon as it has one."""
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, f"{file.name} was not written"
        time.sleep(0.1)
    return file.read_text()


@contextlib.contextmanager
def processes(*commands: list[str], logs: Path) -> Iterator[None]:
    """Run commands until the block ends; workers find this file as a module."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    started = []
    try:
        for number, command in enumerate(commands):
            with (logs / f"process-{number}.log").open("w") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=logs))
        yield
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def dask(folder: Path, threads: str = "1", workers: int = 2) -> Iterator[str]:
    """A scheduler and its workers on loopback."""
    pytest.importorskip("distributed")
    from browser import free_port
    from distributed import Client

    folder.mkdir(exist_ok=True)
    port = free_port()
    module = [sys.executable, "-m", "distributed.cli"]
    scheduler = [*module[:2], "distributed.cli.dask_scheduler", "--host=127.0.0.1", f"--port={port}"]
    worker = [*module[:2], "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", f"--nthreads={threads}"]
    ends = ["--no-dashboard"]
    local = [[*worker, *ends, f"--local-directory={folder / str(number)}"] for number in range(workers)]
    with processes([*scheduler, *ends], *local, logs=folder):
        end = time.monotonic() + 90
        while True:
            try:
                with Client(f"tcp://127.0.0.1:{port}", timeout=5, set_as_default=False) as client:
                    client.wait_for_workers(workers, timeout=60)
                break
            except OSError:
                assert time.monotonic() < end, (folder / "process-0.log").read_text()
        yield f"dask://127.0.0.1:{port}"


@pytest.mark.parametrize("name", ["dask://host", "ray://host:1", "slurm2", "dask://a:1/x"])
def test_another_name_of_a_cluster_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cluster must be dask://HOST:PORT or slurm"):
        reproduce.Request("planted-smoke", "smoke", cluster=name)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"distributed is not installed: pip install .*\[cluster\]"):
        clusters.check("dask://127.0.0.1:1")
    monkeypatch.setattr(clusters.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="there is no sbatch here"):
        clusters.check("slurm")


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with (
        pytest.raises(ValueError, match=r"no scheduler answers at dask://127.0.0.1:9 .*dask scheduler"),
        clusters.executor_on("dask://127.0.0.1:9", tmp_path),
    ):
        pass


def test_a_killed_dask_worker_costs_nothing(tmp_path: Path) -> None:
    rows = [("slow",), ("a",), ("raises",), ("b",)]
    with dask(tmp_path / "dask") as cluster:
        killer = f"import os, sys; os.kill(int(open({str(tmp_path / 'slow.pid')!r}).read()), 9)"
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import sys; sys.path[:0] = {sys.path!r}\n"
                "from pathlib import Path\nfrom test_clusters import wait_for\n"
                f"wait_for(Path({str(tmp_path / 'slow.pid')!r}), 120)\n{killer}",
            ]
        ) as process:
            outcomes = process_pool.run_all(partial(work, tmp_path), rows, 1, tmp_path / "logs", cluster=cluster)
        assert process.returncode == 0
    assert list(outcomes) == rows
    assert [outcomes[row] for row in rows if row != ("raises",)] == [
        f"{name} with 1 thread" for name in ("slow", "a", "b")
    ]
    assert outcomes["raises",].cause.startswith("ValueError: first line \x1b[2J; see ")
    assert "\x1b" not in (tmp_path / "logs" / "raises.log").read_text()


def test_workers_that_cannot_do_the_work_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(cluster: str, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            process_pool.run_all(partial(work, tmp_path), [("a",)], 1, tmp_path / "logs", cluster=cluster)

    with dask(tmp_path / "several", threads="2", workers=1) as cluster:
        refused(cluster, "has several threads: start workers with --nthreads 1")
    with dask(tmp_path / "one", workers=1) as cluster:
        with monkeypatch.context() as changed:
            changed.setattr(clusters, "packages_hash", lambda: "of another version")
            refused(cluster, "has other code of bbqrec")
        monkeypatch.setattr(clusters, "write_atomic", lambda *_: None)
        refused(cluster, "give a folder that all machines share")


@pytest.mark.suite
def test_rows_of_a_cluster_equal_those_of_this_machine(tmp_path: Path) -> None:
    rows = [("sasrec", 0), ("tiger", 0), ("item-knn", 0)]

    def made(out: Path, cluster: str) -> list:
        row = partial(reproduce.run_row, "planted-smoke", "smoke", {}, out)
        found = process_pool.run_all(row, rows, 2, out / "logs", cluster=cluster)
        return [found[row].rows.drop("config_hash").rows() for row in rows]

    with dask(tmp_path / "dask") as cluster:
        there = made(tmp_path / "there", cluster)
    assert there == made(tmp_path / "here", "")


SLURM = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
SlurmctldPort={controller}
SlurmdPort={node}
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of one node; its daemons need root."""
    pytest.importorskip("submitit")
    if lacking := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"no {', '.join(lacking)} on the PATH (Debian: apt install slurmctld slurmd munge)")
    if os.geteuid():
        pytest.skip("slurmd needs root")
    from browser import free_port

    folder = Path("/run") / f"bbqrec-slurm-{os.getpid()}"  # a socket needs a short path that only root can write
    folder.mkdir(mode=0o755)
    try:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = os.uname().nodename.partition(".")[0]
        ports = {"controller": free_port(), "node": free_port()}
        (folder / "slurm.conf").write_text(SLURM.format(host=host, user="root", folder=folder, **ports))
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]))
        munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
        with processes(munge, ["slurmctld", "-D"], ["slurmd", "-D"], logs=folder):
            end = time.monotonic() + 60
            while "idle" not in subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False).stdout:
                assert time.monotonic() < end, [(log.name, log.read_text()[-400:]) for log in folder.glob("*.log")]
                time.sleep(0.5)
            yield
    finally:
        shutil.rmtree(folder)


def test_rows_run_on_slurm_and_a_lost_job_fails_alone(slurm: None, tmp_path: Path) -> None:
    rows = [("a",), ("dies",), ("raises",), ("b",)]
    outcomes = process_pool.run_all(partial(work, tmp_path), rows, 1, tmp_path / "logs", cluster="slurm")
    assert list(outcomes) == rows
    assert [outcomes["a",], outcomes["b",]] == ["a with 1 thread", "b with 1 thread"]
    assert "of Slurm ended without a result; see " in outcomes["dies",].cause
    assert outcomes["raises",].cause.startswith("ValueError: first line \x1b[2J; see ")
    assert "\x1b" not in (tmp_path / "logs" / "raises.log").read_text()


def test_jobs_that_are_left_are_cancelled(slurm: None, tmp_path: Path) -> None:
    with clusters.executor_on("slurm", tmp_path / "jobs") as (executor, cores):
        assert cores == 2
        future = executor.submit(work, tmp_path, "slow")
        wait_for(tmp_path / "slow.pid")
        assert not future.done()
    end = time.monotonic() + 40
    while subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < end, "the job was not cancelled"
        time.sleep(0.5)
