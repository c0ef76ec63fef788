"""Laws of the store: a result is complete or absent, made once, and never silently wrong."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bbqrec_lab.store import (
    MANIFEST,
    DamagedError,
    Store,
    damage,
    file_hash,
    key_hash,
    load_arrays,
    save_arrays,
    verify,
    write_atomic,
)

KEY = {"data": "abc", "tokenizer": {"codes": 5, "signals": ("text", "image")}, "seed": 0}


class Counter:
    """Writes two files and counts how often it was asked; dies once before the second where told to."""

    def __init__(self, dies=False):
        self.calls, self.dies, self.found = 0, dies, []

    def __call__(self, directory):
        self.calls += 1
        self.found.append(sorted(path.name for path in directory.iterdir()))
        (directory / "first").write_text("1")
        if self.dies and self.calls == 1:
            raise KeyboardInterrupt
        (directory / "deep").mkdir(exist_ok=True)
        (directory / "deep" / "second").write_text("2")


def test_a_result_is_made_once_and_found_again(tmp_path):
    store, make = Store(tmp_path / "store"), Counter()
    path = store.get("run", KEY, make)
    assert path == store.path("run", KEY)
    assert path.parent == tmp_path / "store"
    assert path.name == f"run-{key_hash(KEY)}"
    assert Store(tmp_path / "store").get("run", dict(reversed(KEY.items())), make) == path
    assert make.calls == 1
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["key"] == json.loads(json.dumps(KEY))
    assert manifest["size"] == {"first": 1, "deep/second": 1}
    assert manifest["sha256"] == {name: file_hash(path / name) for name in ("first", "deep/second")}


@pytest.mark.parametrize(
    "other", [KEY | {"seed": 1}, KEY | {"tokenizer": KEY["tokenizer"] | {"codes": 6}}, {"seed": 0}]
)
def test_another_key_or_kind_is_another_result(tmp_path, other):
    store = Store(tmp_path)
    asked = [("run", KEY), ("run", other), ("tokenizer", KEY)]
    assert len({store.get(kind, key, Counter()) for kind, key in asked}) == 3


def test_a_key_hashes_alike_in_every_process():
    code = f"from bbqrec_lab.store import key_hash; print(key_hash({KEY!r}))"
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    ]
    assert [text.strip() for text in hashes] == [key_hash(KEY)] * 2
    assert len(key_hash(KEY)) == 32


def test_a_killed_make_finds_its_files_and_leaves_no_result(tmp_path):
    store, make = Store(tmp_path), Counter(dies=True)
    with pytest.raises(KeyboardInterrupt):
        store.get("run", KEY, make)
    assert not store.path("run", KEY).exists()
    path = store.get("run", KEY, make)
    assert make.found == [[], ["first"]]
    assert sorted(p.name for p in path.iterdir()) == ["deep", "first", MANIFEST]
    assert not path.with_name(f"{path.name}.partial").exists()


def test_processes_that_want_the_same_result_wait_for_the_first(tmp_path):
    entered, release, made, found = threading.Event(), threading.Event(), [], []

    def slow(directory):
        made.append(directory)
        entered.set()
        assert release.wait(20)
        (directory / "first").write_text("1")

    threads = [threading.Thread(target=lambda: found.append(Store(tmp_path).get("run", KEY, slow))) for _ in range(2)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    threads[1].join(0.3)
    assert threads[1].is_alive()
    release.set()
    for thread in threads:
        thread.join(20)
    assert len(made) == 1
    assert found == [Store(tmp_path).path("run", KEY)] * 2


def change(path):
    (path / "first").write_text("3")


def remove(path):
    (path / "deep" / "second").unlink()


def lose_manifest(path):
    (path / MANIFEST).unlink()


def cut_manifest(path):
    (path / MANIFEST).write_text((path / MANIFEST).read_text()[:-5])


def lengthen(path):
    with (path / "first").open("a") as file:
        file.write("1")


DAMAGES = [change, remove, lengthen, lose_manifest, cut_manifest]


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_result_is_named_and_made_again(tmp_path, damaged, capsys):
    store, make = Store(tmp_path), Counter()
    path = store.get("run", KEY, make)
    damaged(path)
    with pytest.raises(DamagedError, match=rf"{path}/.* is damaged or missing: run bbqrec fit again"):
        verify(path)
    assert store.get("run", KEY, make) == path
    assert make.calls == 2
    verify(path)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"is damaged: it is made again; what is left is in {tmp_path}/.damaged-{path.name}" in line
    assert [(path / name).read_text() for name in ("first", "deep/second")] == ["1", "2"]
    store.get("run", KEY, make)
    assert make.calls == 2


def test_only_the_files_that_are_read_are_checked(tmp_path):
    path = Store(tmp_path).get("run", KEY, Counter())
    change(path)
    assert damage(path, only="deep/*") == ""
    assert damage(path, but="first") == ""
    assert damage(path) == "first"


def test_files_of_a_killed_writer_never_enter_a_result(tmp_path):
    def killed(directory):
        (directory / "deep").mkdir()
        (directory / ".first.123").write_text("half")
        (directory / "deep" / ".second").write_text("half")
        raise KeyboardInterrupt

    store, make = Store(tmp_path), Counter()
    with pytest.raises(KeyboardInterrupt):
        store.get("run", KEY, killed)
    path = store.get("run", KEY, make)
    assert make.found == [["deep"]]
    assert sorted(json.loads((path / MANIFEST).read_text())["sha256"]) == ["deep/second", "first"]
    assert sorted(p.name for p in path.rglob("*")) == ["deep", "first", MANIFEST, "second"]


def test_files_are_on_the_disk_before_their_names_are(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def told_sync(opened):
        done.append(("sync", os.readlink(f"/proc/self/fd/{opened}")))
        fsync(opened)

    def told_replace(source, goal):
        done.append(("replace", str(source)))
        replace(source, goal)

    monkeypatch.setattr(os, "fsync", told_sync)
    monkeypatch.setattr(os, "replace", told_replace)
    final = Store(tmp_path).get("run", KEY, Counter())
    partial = f"{final}.partial"
    named = done.index(("replace", partial))
    synced = {path for how, path in done[:named] if how == "sync"}
    assert {f"{partial}/first", f"{partial}/deep/second", partial, f"{partial}/deep"} <= synced
    assert any(path.startswith(f"{partial}/.{MANIFEST}") for path in synced)
    assert done[named + 1 :] == [("sync", str(tmp_path))]
    done.clear()
    save_arrays(tmp_path / "x.npz", a=np.zeros(1))
    assert done == [("sync", f"{tmp_path}/.x.npz"), ("replace", f"{tmp_path}/.x.npz"), ("sync", str(tmp_path))]


def test_a_writer_sweeps_what_killed_ones_left_and_leaves_others_alone(tmp_path):
    old, new, other = (tmp_path / name for name in (".file.txt.1", ".file.txt.2", ".other.txt.1"))
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (0, 0))
    write_atomic(tmp_path / "file.txt", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.txt.2", ".other.txt.1", "file.txt"]


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full(opened):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file.txt", "whole")
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside(tmp_path):
    target = tmp_path / "new" / "file.txt"
    write_atomic(target, "old and long")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")
    seen = []
    replace = os.replace

    def watched(source, goal):
        seen.append((target.read_text(), source.read_text()))
        replace(source, goal)

    monkeypatch.setattr(os, "replace", watched)
    write_atomic(target, "new")
    assert seen == [("old", "new")]


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.zeros((0, 4), np.float32), "c": np.array("text")}
    save_arrays(tmp_path / "x.npz", **arrays)
    found = load_arrays(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], a) and found[name].dtype == a.dtype for name, a in arrays.items())
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_arrays_of_objects_are_refused_when_read(tmp_path):
    save_arrays(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        load_arrays(tmp_path / "x.npz")


def test_a_manifest_with_another_key_is_damaged(tmp_path, capsys):
    store, make = Store(tmp_path), Counter()
    path = store.get("run", KEY, make)
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps(manifest | {"key": {**manifest["key"], "seed": 99}}))
    store.get("run", KEY, make)
    assert make.calls == 2
    assert f"{MANIFEST} is damaged" in capsys.readouterr().err
