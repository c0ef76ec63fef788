"""Laws of the store: a result is complete or absent, made once, and never silently wrong."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from bbqrec_lab.store import MANIFEST, Store, file_hash, key_hash, load_arrays, save_arrays, verify, write_atomic

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


@pytest.mark.parametrize("damage", [change, remove, lose_manifest, cut_manifest])
def test_a_damaged_result_is_refused_with_the_remedy(tmp_path, damage):
    store = Store(tmp_path)
    path = store.get("run", KEY, Counter())
    damage(path)
    with pytest.raises(ValueError, match=rf"{path}.*damaged or missing: delete .*{path.name} and run again"):
        store.get("run", KEY, Counter())
    with pytest.raises(ValueError, match="damaged or missing"):
        verify(path)


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
