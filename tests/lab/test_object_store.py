"""Results shared through an object store: a real S3 server, two writers, killed ones, damage, and no answer.

The server is that of moto, in a process of its own; writers are processes with folders of their own.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import free_port

from bbqrec_lab import cli, object_store
from bbqrec_lab.experiments import estimates, runs
from bbqrec_lab.object_store import Objects, SharedStore, UnavailableError
from bbqrec_lab.store import MANIFEST, Store, damage, file_hash, key_hash

pytest.importorskip("s3fs")
pytest.importorskip("moto")
KEY = {"data": "abc", "seed": 0}
NAME = f"run-{key_hash(KEY)}"
SECONDS = 60
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
CREDENTIALS |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
WRITER = (
    f"KEY = {KEY!r}"
    + """
import os, sys, time
from pathlib import Path
from bbqrec_lab import object_store
address, root, how = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
object_store.BEAT, object_store.EXPIRY, object_store.POLL = 0.2, 1.5, 0.1
if how == "unclaimed":
    object_store.Claim.take = lambda self: True
def make(directory):
    (root / "calls").open("a").write("x")
    (directory / "deep").mkdir(exist_ok=True)
    (directory / "deep" / "second").write_text("2")
    if how == "slow":
        time.sleep(4)
    if how == "stuck":
        time.sleep(600)
    while how == "unclaimed" and len(list(root.parent.glob("*/calls"))) < 2:
        time.sleep(0.02)
    (directory / "first").write_text(f"by {os.getpid()}")
root.mkdir()
object_store.SharedStore(root / "store", object_store.Objects(address)).get("run", KEY, make)
"""
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server with the bucket `lab`."""
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        make = "import s3fs; s3fs.S3FileSystem().mkdir('lab')"
        for _ in range(20):
            environment = {**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
            if not subprocess.run([sys.executable, "-c", make], env=environment, capture_output=True).returncode:
                break
            assert process.poll() is None, log.read_text()
        yield endpoint
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def connection(server: str) -> Objects:
    """A connection to the server; making one takes most of a second."""
    with pytest.MonkeyPatch.context() as given:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server}.items():
            given.setenv(name, value)
        found = Objects("s3://lab/first")
        found.check()
    return found


@pytest.fixture
def objects(connection: Objects, address: str) -> Objects:
    """The connection, at the address of the test."""
    found = copy.copy(connection)
    found.address = address
    return found


@pytest.fixture
def address(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address on the server that no other test uses."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server}.items():
        monkeypatch.setenv(name, value)
    for name, seconds in {"BEAT": 0.2, "EXPIRY": 1.5, "POLL": 0.1}.items():
        monkeypatch.setattr(object_store, name, seconds)
    return f"s3://lab/{uuid.uuid4().hex}/runs"


def start(address: str, root: Path, how: str) -> subprocess.Popen:
    """A writer process with a folder of its own."""
    return subprocess.Popen([sys.executable, "-c", WRITER, address, str(root), how])


def calls(*roots: Path) -> int:
    """How often these writers made the result."""
    return sum(len(path.read_text()) for root in roots if (path := root / "calls").exists())


def content(root: Path) -> dict[str, bytes]:
    """All files of the result in a folder."""
    final = root / "store" / NAME
    return {path.relative_to(final).as_posix(): path.read_bytes() for path in final.rglob("*") if path.is_file()}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def fill(directory: Path) -> None:
    """Make a result."""
    (directory / "first").write_text("1")
    (directory / "deep").mkdir()
    (directory / "deep" / "second").write_text("2")


def refuse(directory: Path) -> None:
    raise AssertionError("made again")


def shared(root: Path, objects: Objects) -> SharedStore:
    return SharedStore(root / "store", objects)


def test_a_result_of_one_machine_is_fetched_by_another(objects: Objects, tmp_path: Path) -> None:
    made = shared(tmp_path / "a", objects).get("run", KEY, fill)
    found = shared(tmp_path / "b", objects).get("run", KEY, refuse)
    assert damage(found, key=KEY) == ""
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert sorted(content(tmp_path / "b")) == ["deep/second", "first", MANIFEST]
    assert sorted(path.name for path in found.parent.iterdir()) == [NAME, f"{NAME}.lock"]
    assert objects.read(f"manifests/{NAME}.json") == (made / MANIFEST).read_bytes()
    assert objects.read(f"blobs/{file_hash(made / 'first')}") == b"1"
    assert objects.read(f"claims/{NAME}.json") is None
    with pytest.raises(AssertionError, match="made again"):
        shared(tmp_path / "b", objects).get("run", KEY | {"seed": 1}, refuse)


def test_the_manifest_comes_last_so_that_no_reader_sees_half(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    put, create = Objects.put, Objects.create

    def told_put(self: Objects, path: Path, name: str) -> None:
        order.append(name)
        assert self.read(f"manifests/{NAME}.json") is None
        put(self, path, name)

    def told_create(self: Objects, name: str, content: bytes) -> bool:
        order.append(name)
        if name.startswith("manifests/"):
            raise KeyboardInterrupt  # the writer ends before its last step
        return create(self, name, content)

    monkeypatch.setattr(Objects, "put", told_put)
    monkeypatch.setattr(Objects, "create", told_create)
    with pytest.raises(KeyboardInterrupt):
        shared(tmp_path / "a", objects).get("run", KEY, fill)
    assert [name.partition("/")[0] for name in order] == ["claims", "blobs", "blobs", "manifests"]
    monkeypatch.undo()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def test_two_machines_make_a_result_once_however_long_it_takes(address: str, tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    writers = [start(address, root, "slow") for root in roots]
    assert [writer.wait(SECONDS) for writer in writers] == [0, 0]
    assert calls(*roots) == 1, "signs of life keep the claim longer than its expiry"
    assert content(roots[0]) == content(roots[1])


def test_of_two_writers_one_wins_and_both_have_its_result(objects: Objects, address: str, tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    writers = [start(address, root, "unclaimed") for root in roots]
    assert [writer.wait(SECONDS) for writer in writers] == [0, 0]
    assert calls(*roots) == 2, "both made it"
    assert content(roots[0]) == content(roots[1])
    assert content(roots[0])["first"].decode() in [f"by {writer.pid}" for writer in writers]
    shared(tmp_path / "c", objects).get("run", KEY, refuse)
    assert content(tmp_path / "c") == content(roots[0])


def test_a_killed_writer_blocks_nobody(objects: Objects, address: str, tmp_path: Path) -> None:
    dead = start(address, tmp_path / "a", "stuck")
    wait_until(lambda: calls(tmp_path / "a") == 1)
    dead.send_signal(signal.SIGKILL)
    dead.wait(SECONDS)
    assert objects.read(f"claims/{NAME}.json") is not None
    began = time.monotonic()
    assert start(address, tmp_path / "b", "quick").wait(SECONDS) == 0
    assert time.monotonic() - began < 30
    assert calls(tmp_path / "b") == 1
    assert objects.read(f"claims/{NAME}.json") is None


def test_a_failed_make_gives_its_claim_up(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="made again"):
        shared(tmp_path / "a", objects).get("run", KEY, refuse)
    assert objects.read(f"claims/{NAME}.json") is None
    assert objects.read(f"manifests/{NAME}.json") is None


def of_manifest(change: Callable[[dict], dict]) -> Callable[[Objects, dict], None]:
    """A damage of the manifest."""
    return lambda objects, notes: objects.write(f"manifests/{NAME}.json", json.dumps(change(notes)).encode())


def named(file: str) -> Callable[[dict], dict]:
    """A manifest that has another name for its first file."""
    return lambda notes: {part: {file: notes[part]["first"]} if part != "key" else notes[part] for part in notes}


DAMAGES = {
    "another content": lambda objects, notes: objects.write(f"blobs/{notes['sha256']['first']}", b"3"),
    "a shorter content": lambda objects, notes: objects.write(f"blobs/{notes['sha256']['first']}", b""),
    "a missing file": lambda objects, notes: objects.delete(f"blobs/{notes['sha256']['first']}"),
    "a cut manifest": lambda objects, notes: objects.write(f"manifests/{NAME}.json", b'{"key": '),
    "an empty manifest": lambda objects, notes: objects.write(f"manifests/{NAME}.json", b"[]"),
    "another key": of_manifest(lambda notes: notes | {"key": {"seed": 1}}),
    "no checksum": of_manifest(lambda notes: notes | {"sha256": dict.fromkeys(notes["sha256"], "../x")}),
    "a number": of_manifest(lambda notes: notes | {"sha256": dict.fromkeys(notes["sha256"], 3)}),
    "a name above": of_manifest(named("../../above")),
    "an absolute name": of_manifest(named("/tmp/absolute")),
    "a name of Windows": of_manifest(named("..\\above")),
    "a hidden name": of_manifest(named(".hidden")),
    "no name": of_manifest(named("")),
    "nested": lambda objects, notes: objects.write(f"manifests/{NAME}.json", b"[" * 200_000),
}


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_result_is_made_again_and_replaced(
    damaged: str, objects: Objects, address: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    made = shared(tmp_path / "a", objects).get("run", KEY, fill)
    DAMAGES[damaged](objects, json.loads((made / MANIFEST).read_text()))
    calls = []
    shared(tmp_path / "b", objects).get("run", KEY, lambda path: calls.append(fill(path)))
    assert len(calls) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{address}/manifests/{NAME}.json is damaged (" in told
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        ["first", "second", MANIFEST, f"{NAME}.lock"] * 2
    )
    shared(tmp_path / "c", objects).get("run", KEY, refuse)
    assert content(tmp_path / "c") == content(tmp_path / "a") == content(tmp_path / "b")


def test_what_was_made_alone_is_put_when_it_is_next_used(objects: Objects, tmp_path: Path) -> None:
    Store(tmp_path / "a" / "store").get("run", KEY, fill)
    shared(tmp_path / "a", objects).get("run", KEY, refuse)
    shared(tmp_path / "b", objects).get("run", KEY, refuse)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_what_is_half_made_here_leaves_nothing_in_a_fetched_result(objects: Objects, tmp_path: Path) -> None:
    shared(tmp_path / "a", objects).get("run", KEY, fill)
    partial = tmp_path / "b" / "store" / f"{NAME}.partial"
    (partial / "checkpoints").mkdir(parents=True)
    (partial / "checkpoints" / "epoch-1").write_text("half")
    shared(tmp_path / "b", objects).get("run", KEY, refuse)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_store_that_fails_in_the_middle_costs_no_work(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import s3fs

    with monkeypatch.context() as closed:
        closed.setattr(s3fs.S3FileSystem, "retries", 1)
        closed.setitem(object_store.PATIENCE, "retries", {"max_attempts": 0})
        closed.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        shared(tmp_path / "a", Objects(objects.address)).get("run", KEY, fill)
    told = capsys.readouterr().err
    assert f"{objects.address} cannot be used: " in told
    assert "the result is made here" in told
    assert damage(tmp_path / "a" / "store" / NAME, key=KEY) == ""
    shared(tmp_path / "a", objects).get("run", KEY, refuse)
    shared(tmp_path / "b", objects).get("run", KEY, refuse)


@pytest.mark.parametrize(
    "wrong", ["s3:/lab", "lab/runs", "gs://lab/runs", "s3://", "s3://lab/a?b", "/shared", "s3://a b"]
)
def test_another_address_is_refused(wrong: str) -> None:
    with pytest.raises(UnavailableError, match=r"--store must be s3://BUCKET/PREFIX, got .* --out"):
        object_store.use(wrong)


def test_what_cannot_be_used_is_refused_in_one_line_before_any_work(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fit = ["fit", "--dataset", "planted-smoke", "--variant", "popularity", "--preset", "smoke"]
    monkeypatch.setattr(runs, "_make_run", refuse)
    assert cli.main([*fit, "--out", str(tmp_path), "--store", "s3://no-such-bucket/x"]) == 2
    assert capsys.readouterr().err.startswith("bbqrec: s3://no-such-bucket/x cannot be used: ")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    assert cli.main([*fit, "--out", str(tmp_path), "--store", f"{address}/closed"]) == 2
    assert time.monotonic() - began < 30
    told = capsys.readouterr().err
    assert told.startswith(f"bbqrec: {address}/closed cannot be used: ")
    assert told.count("\n") == 1
    monkeypatch.setattr(object_store, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"s3fs is not installed: pip install .*\[object-store\]"):
        Objects(address)


def test_a_server_without_conditional_creation_is_refused(objects: Objects) -> None:
    class Careless:
        """The files of the connection, without the condition."""

        def __getattr__(self, name: str) -> object:
            return getattr(files, name)

        def pipe_file(self, path: str, content: bytes, mode: str = "overwrite") -> None:
            files.pipe_file(path, content)

    files, objects._files = objects._files, Careless()
    with pytest.raises(UnavailableError, match="it ignores If-None-Match"):
        objects.check()


def test_fit_on_a_second_machine_trains_nothing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fit = ["fit", "--dataset", "planted-smoke", "--variant", "item-knn", "--preset", "smoke", "--json"]
    assert cli.main([*fit, "--out", str(tmp_path / "a"), "--store", address]) == 0
    monkeypatch.setattr(runs, "_make_run", refuse)
    monkeypatch.setattr(estimates, "LONG", 0.0)
    first = json.loads(capsys.readouterr().out)
    monkeypatch.setenv(object_store.VARIABLE, address)
    assert cli.main([*fit, "--out", str(tmp_path / "b")]) == 0
    out, told = capsys.readouterr()
    assert "rough estimate" not in told, "nothing is to be done"
    second = json.loads(out)
    assert [{**line, "folder": ""} for line in first] == [{**line, "folder": ""} for line in second]


def test_without_an_address_the_folder_is_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(object_store.VARIABLE, "")
    object_store.use("")
    assert type(object_store.open_store(tmp_path)) is Store
