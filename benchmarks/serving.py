"""A served run under load on loopback: latency and rate by number of clients, new items, events, memory.

`python -m benchmarks.serving RUN` measures any finished run; the group `serve` fits a small one first. The server has
one core of its own where the machine has two, and the clients have the others. The peer is the ranking of the same run
in the process of the clients, one user at a time, so that the ratio shows what the way over HTTP costs, and what
ranking those together who wait gains. Hugging Face `generate` on a model of this size is the group `request`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import numpy as np
import polars as pl

from bbqrec_lab.measure import Plan, processor_name, timed

from .harness import Row, cost_row, make_row

CLIENTS = (1, 16, 64)
SECONDS = 30.0  # at most per number of clients
LIST = 10  # items of a list
READY_MS = 100  # aim: from the sending of a new item to a list that has it
PEER = "ranking of the same run in process, one user at a time"
START = (
    "import sys; from pathlib import Path; from bbqrec_lab.serving import web; "
    "web.serve(Path(sys.argv[1]), port=0, per_second=0, state=Path(sys.argv[2]), beam=int(sys.argv[3]))"
)


@contextlib.contextmanager
def served(run: Path, state: Path, beam: int = 0) -> Iterator[tuple[int, subprocess.Popen]]:
    """A server on a core of its own; gives its port and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(run), str(state), str(beam)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server of {run} did not start")
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(process.pid, {cores[0]})
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {cores[0]})
            os.sched_setaffinity(0, set(cores[1:]))
        try:
            yield int(line.rpartition(":")[2]), process
        finally:
            os.sched_setaffinity(0, set(cores))
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


class Client:
    """One connection that is kept open. Args: port: of the server."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, path: str, body: object = None) -> tuple[int, bytes]:
        """(status, body) of one request."""
        if not hasattr(self, "reader"):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{'POST' if content else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        )
        self.writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        told = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        size = int(told.split(b"content-length:")[1].split(b"\r\n")[0])
        return int(told.split()[1]), await self.reader.readexactly(size)

    def close(self) -> None:
        """Close the connection."""
        if hasattr(self, "writer"):
            self.writer.close()


async def load(
    port: int, paths: list[str], clients: int, bodies: list[object] | None = None
) -> tuple[np.ndarray, float]:
    """Seconds of every request, sent by clients that wait for each answer, and seconds of all together."""
    seconds: list[float] = []
    jobs = iter(zip(paths, bodies or itertools.repeat(None), strict=False))
    end = time.perf_counter() + SECONDS

    async def one(client: Client) -> None:
        for path, body in jobs:
            begin = time.perf_counter()
            status, told = await client.ask(path, body)
            seconds.append(time.perf_counter() - begin)
            if status >= 300:
                raise RuntimeError(f"{path}: {status} {told[:200]!r}")
            if time.perf_counter() > end:
                return

    crowd = [Client(port) for _ in range(clients)]
    begin = time.perf_counter()
    await asyncio.gather(*map(one, crowd))
    spent = time.perf_counter() - begin
    for client in crowd:
        client.close()
    return np.array(seconds), spent


async def new_item_times(port: int, bodies: list[dict], user: str) -> np.ndarray:
    """Milliseconds from the sending of a new item to the end of the next list, in which it can be."""
    client, found = Client(port), []
    for body in bodies:
        begin = time.perf_counter()
        status, told = await client.ask("/items", body)
        if status != 201:
            raise RuntimeError(f"/items: {status} {told[:200]!r}")
        await client.ask(f"/recommend/{quote(user, safe='')}?k={LIST}")
        found.append(1000 * (time.perf_counter() - begin))
        _, listed = await client.ask(f"/recommend/{quote(user, safe='')}?k=1000")
        names = {item["item_id"] for item in json.loads(listed)["items"]}
        if len(names) < 1000 and body["item_id"] not in names:
            raise ArithmeticError(f"{body['item_id']} was acknowledged and is in no list of all items")
    client.close()
    return np.array(found)


def resident(process: subprocess.Popen) -> float:
    """Resident memory of a process in MB."""
    told = Path(f"/proc/{process.pid}/status").read_text()
    return int(told.split("VmRSS:")[1].split()[0]) / 1024


def measure(run: Path, plan: Plan, beam: int = 0) -> list[Row]:
    """All rows of one run. Args: beam: width of a compiled search; 0 scores all items."""
    from bbqrec_lab.experiments import runs
    from bbqrec_lab.serving.service import rank

    users = pl.read_parquet(run / "users.parquet").with_columns(pl.col("user_id").cast(pl.String))
    drawn = users[np.random.default_rng(0).integers(0, users.height, plan.size(2000, 130)).tolist()]
    paths = [f"/recommend/{quote(user, safe='')}?k={LIST}" for user in drawn["user_id"]]
    scorer = runs.load_scorer(run)
    histories = [(np.array(rows), np.array(times)) for rows, times in drawn.select("rows", "times").iter_rows()]
    few = histories[: plan.size(200, 10)]
    rank(scorer, few[:1], LIST)
    alone = 1000 * np.array([timed(lambda past=past: rank(scorer, [past], LIST), plan) for past in few])
    words, rows = f"{run_words(run)}, lists of {LIST}{f', compiled beam {beam}' * bool(beam)}", []
    with TemporaryDirectory() as folder, served(run, Path(folder) / "state.sqlite", beam) as (port, process):
        checked = same_lists(port, drawn["user_id"][0], run)
        asyncio.run(load(port, paths[:20], 1))
        if beam:
            wait_for_program(run)
        for clients in CLIENTS:
            seconds, spent = asyncio.run(load(port, paths, clients))
            p50, p99 = np.percentile(1000 * seconds, (50, 99))
            what = f"serve, {clients} client{'s' * (clients > 1)}, {words}"
            rows.append(cost_row(f"{what}: p50", PEER, "ms", p50, np.median(alone), "", checked))
            rows.append(cost_row(f"{what}: p99", "its own p50", "ms", p99, p50, "", ""))
            rate, theirs = len(seconds) / spent, 1000 / alone.mean()
            rows.append(make_row(f"{what}: rate", PEER, "requests/s", rate, theirs, rate / theirs, "", ""))
        names = pl.read_parquet(run / "items.parquet")["item_id"].cast(pl.String)
        rows += event_rows(port, names, words, plan)
        rows += item_rows(port, run, drawn["user_id"][0], words, plan)
        rows.append(
            cost_row(f"serve, {words}: memory", "the clients with the model", "MB", resident(process), own(), "", "")
        )
    return rows


def wait_for_program(run: Path) -> None:
    """Wait until the program of a run is in the store beside it, and a moment more until the server has loaded it."""
    end = time.monotonic() + 300
    while not any(run.parent.glob("program-*/manifest.json")):
        if time.monotonic() > end:
            raise RuntimeError("the beam search was not compiled within 5 minutes")
        time.sleep(0.5)
    time.sleep(3)


def own() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def same_lists(port: int, user: str, run: Path) -> str:
    """Compare a list with that of `bbqrec recommend`."""
    from bbqrec_lab.experiments import runs

    wanted = runs.recommend_users(run, [user], LIST)["item_id"].cast(pl.String).to_list()
    _, told = asyncio.run(Client(port).ask(f"/recommend/{quote(user, safe='')}?k={LIST}"))
    found = [item["item_id"] for item in json.loads(told)["items"]]
    if found != wanted:
        raise ArithmeticError(f"the server lists {found}, bbqrec recommend {wanted}")
    return "the list of bbqrec recommend"


def event_rows(port: int, names: pl.Series, words: str, plan: Plan) -> list[Row]:
    """Acknowledgement of single events, each on the disk, by number of clients."""
    rows = []
    for clients in CLIENTS:
        count = plan.size(1000, 70)
        bodies = [
            {"events": [{"user_id": f"bench-{n % 50}", "item_id": names[n % len(names)], "event_id": f"{clients}-{n}"}]}
            for n in range(count)
        ]
        seconds, spent = asyncio.run(load(port, ["/events"] * count, clients, bodies))
        p50, p99 = np.percentile(1000 * seconds, (50, 99))
        what = f"serve, one event per request, on the disk, {clients} client{'s' * (clients > 1)}"
        rows.append(cost_row(f"{what}: p99", "its own p50", "ms", p99, p50, "", ""))
        rows.append(
            make_row(
                f"{what}: rate",
                "its own p50, one by one",
                "events/s",
                len(seconds) / spent,
                1000 / p50,
                len(seconds) / spent * p50 / 1000,
                "",
                "",
            )
        )
    return rows


def item_rows(port: int, run: Path, user: str, words: str, plan: Plan) -> list[Row]:
    """Time until a new item can be recommended, by vectors and, if the run encodes texts, by text."""
    from bbqrec_core import SemanticIds
    from bbqrec_lab.serving.new_items import ItemEncoder

    encoder = ItemEncoder(run, SemanticIds.load(run / "ids.npz"))
    count = plan.size(60, 5)
    kinds = {"vectors": lambda n: {"vectors": {m: encoder.scales[m].mean.tolist() for m in encoder.modalities}}}
    if "text" in encoder.run:
        kinds["text"] = lambda n: {
            "title": f"The return of number {n}",
            "text": f"A film about the number {n} and its friends.",
        }
    rows = []
    for kind, body in kinds.items():
        bodies = [{"item_id": f"{kind}-{n}"} | body(n) for n in range(count)]
        times = asyncio.run(new_item_times(port, bodies, user))
        p50, p99 = np.percentile(times, (50, 99))
        work = f"serve, a new item by {kind} until a list has it, {words}"
        rows.append(
            cost_row(f"{work}: p50", "its p99", "ms", p50, p99, f"ours <= {READY_MS}", "in the list of all items")
        )
    return rows


def run_words(run: Path) -> str:
    """What a run is of."""
    from bbqrec_lab.experiments.run_labels import read_labels

    labels = read_labels(run)[-1]
    items = json.loads((run / "run.json").read_text())["n_items"]
    return f"{labels['variant']} on {labels['dataset']} ({labels['preset']}, {items:,} items)"


def serve(plan: Plan) -> list[Row]:
    """The rows of a small run on planted data."""
    from bbqrec_lab.experiments import fitting

    with TemporaryDirectory() as folder:
        run = fitting.fit("planted-smoke", "bbqrec", "smoke", out=folder).directory
        return measure(run, plan)


def main() -> None:
    """Measure a finished run and print its rows."""
    from .__main__ import shown

    command = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    command.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    command.add_argument("--scale", type=float, default=1.0, help="share of the full number of requests")
    command.add_argument("--beam", type=int, default=0, help="width of a compiled search; 0 scores all items")
    given = command.parse_args()
    print(f"{processor_name()}, {os.cpu_count()} cores, load {' '.join(f'{load:.2f}' for load in os.getloadavg())}")
    for row in measure(given.run, Plan(given.scale, 1), given.beam):
        print(shown(row), flush=True)


if __name__ == "__main__":
    main()
