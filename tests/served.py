"""Runs to serve, and a server in a process of its own that tests talk to over HTTP."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

from tiny import PLANTED, run_config

from bbqrec_core import EvaluationConfig
from bbqrec_lab.datasets.features import scale
from bbqrec_lab.datasets.planted import write_planted
from bbqrec_lab.datasets.reading import NamedDataset, read_bundle
from bbqrec_lab.experiments import runs
from bbqrec_lab.experiments.presets import Config
from bbqrec_lab.settings import DataConfig
from bbqrec_lab.store import Store

ROOT = Path(__file__).resolve().parent.parent
EVALUATION = EvaluationConfig(early_users=23, beam=20, exact_items=1000, batch=16)
HEADERS = {"Content-Type": "application/json"}


def serving_config(**changes: object) -> Config:
    """Small settings with all parts that a new item touches: both heads, features, both reweightings."""
    small = {"r_epochs": 2, "r_score_reweight": True, "r_score_steps": 3, "epochs": 2}
    return run_config(0, EVALUATION, **(small | changes))


def make_run(folder: Path, variant: str = "bbqrec", **changes: object) -> tuple[NamedDataset, Path]:
    """A finished run on tiny planted data, of which some items are held out of training, and the data."""
    options = DataConfig(cold_items=0.15)
    data = read_bundle(write_planted(folder / "planted-tiny", PLANTED), options)
    data = replace(data, features={name: scale(x, data.presence[name]) for name, x in data.features.items()})
    config = replace(serving_config(**changes), data=options)
    return data, runs.run_variant(data, variant, config, Store(folder / "artefacts")).directory


def vectors_of(data: NamedDataset, row: int) -> dict[str, list[float]]:
    """What a client would send to have the content of a catalogue item: its features by modality, unscaled."""
    raw = read_bundle(data.path, DataConfig())
    return {name: array[row].tolist() for name, array in raw.features.items() if raw.presence[name][row]}


class Server:
    """`bbqrec serve` in a process; use in `with`. Args: run: its folder. options: more words of the command line."""

    def __init__(self, run: Path, *options: str, state: Path | None = None, **environment: str) -> None:
        words = [sys.executable, "-m", "bbqrec_lab", "serve", "--run", str(run), "--port", "0", *options]
        words += ["--state", str(state)] if state is not None else []
        self.state = state
        clean = {name: value for name, value in os.environ.items() if name != "BBQREC_TOKEN"}
        self.process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=clean | {"PYTHONPATH": str(ROOT)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)  # a full pipe would stop the server
        self._reader.start()
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(60)
            self._close()
            raise AssertionError(f"the server ended with {self.process.returncode}: {''.join(self.told)}")
        self.port = int(line.rpartition(":")[2])

    def _read(self) -> None:
        for line in self.process.stderr:
            self.told.append(line)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: object = None, headers: dict[str, str] | None = None, **query: object) -> tuple:
        """(status, JSON) of one request; with a body it is a POST."""
        connection = self.connect()
        try:
            return ask_on(connection, path, body, headers, **query)
        finally:
            connection.close()

    def text(self, path: str) -> str:
        """The body of an answer that is no JSON."""
        connection = self.connect()
        connection.request("GET", path)
        found = connection.getresponse().read().decode()
        connection.close()
        return found

    def kill(self) -> None:
        """End the process as a loss of power would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End the process as a user would; returns its exit status."""
        if self.process.poll() is None:
            self._end(signal.SIGTERM)
        return self.process.returncode

    def _end(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        self._close()

    def _close(self) -> None:
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()


def ask_on(
    connection: http.client.HTTPConnection,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    **query: object,
) -> tuple:
    """As `Server.ask`, on a connection that is open."""
    target = f"{path}?{urlencode(query)}" if query else path
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = "GET" if content is None else "POST"
    connection.request(method, target, content, HEADERS | (headers or {}))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
