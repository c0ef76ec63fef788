"""Results in an object store (S3), so that several machines share them; the folder of results stays the working copy.

An object store has no rename and no lock. It has objects that appear whole, and creation that fails if the object is
there (`If-None-Match: *`). So below the prefix lie `blobs/SHA256`, the files of all results by their content;
`manifests/KIND-HASH.json`, created last and only once, from when on the result exists; and `claims/KIND-HASH.json`,
which says who makes a result now. A claim spares work and protects nothing: a result is right without it.
"""

import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from bbqrec_lab.escaping import one_line
from bbqrec_lab.store import MANIFEST, Store, _sweep_hidden, damage, finish, key_hash
from bbqrec_lab.terminal import say

VARIABLE = "BBQREC_STORE"  # so that workers and kernels use it too
FORM = "s3://BUCKET/PREFIX"
INSTALL = "pip install -c constraints.txt -e '.[object-store]'"
BEAT = 20.0  # seconds between two signs of life of a claim
EXPIRY = 120.0  # seconds without one, by the clock of who waits, after which its owner counts as dead
POLL = 2.0  # seconds between two looks at what another machine makes
LARGEST_NOTE = 2**24  # bytes of a manifest or a claim
PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}


class UnavailableError(ValueError):
    """The object store cannot be used: one line with its address and the cause."""


class Objects:
    """Objects below an address `s3://BUCKET/PREFIX`, by names such as `blobs/SHA256`.

    Every method raises UnavailableError if the object store does not answer, or refuses.
    """

    def __init__(self, address: str) -> None:
        if not re.fullmatch(r"s3://[^/\s]+(/[^\s?#]*)?", address):
            raise UnavailableError(f"--store must be {FORM}, got {address!r}; a shared folder is given with --out")
        if not find_spec("s3fs"):
            raise UnavailableError(f"s3fs is not installed: {INSTALL}")
        import fsspec

        self.address = address.rstrip("/")
        # No listing is cached, and no instance: what another machine writes must be seen.
        options = {"skip_instance_cache": True, "use_listings_cache": False}
        self._files = fsspec.filesystem("s3", config_kwargs=PATIENCE, **options)

    def read(self, name: str) -> bytes | None:
        """The content of a small object; None if there is none."""
        with self._asking():
            try:
                return self._files.cat_file(self._at(name), end=LARGEST_NOTE)
            except FileNotFoundError:
                return None

    def size(self, name: str) -> int | None:
        """The size of an object; None if there is none."""
        with self._asking():
            try:
                return self._files.info(self._at(name))["size"]
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        """Make an object, unless there is one; of several writers, one alone gets True."""
        with self._asking():
            for _ in range(3):
                try:
                    self._files.pipe_file(self._at(name), content, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    status = _status(error)
                    if status == 412:
                        return False
                    if status != 409:  # two creations at once: the winner is not settled yet
                        raise
                else:
                    return True
            return False

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a small object."""
        with self._asking():
            self._files.pipe_file(self._at(name), content)

    def put(self, path: Path, name: str) -> None:
        """Make or replace an object with the content of a file; readers see all of it or nothing."""
        with self._asking():
            self._files.put_file(str(path), self._at(name))

    def get(self, name: str, path: Path) -> bool:
        """Write the content of an object to a file; False if there is no such object."""
        with self._asking():
            try:
                self._files.get_file(self._at(name), str(path))
            except FileNotFoundError:
                return False
            return True

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        with self._asking(), suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def check(self) -> None:
        """Check that objects can be written, and that creation fails if the object is there.

        Raises: UnavailableError in one line, also for an object store that ignores `If-None-Match`.
        """
        probe = f"probe-{uuid.uuid4().hex}"
        if not self.create(probe, b"1"):
            raise UnavailableError(f"{self.address}: a new object is refused as one that is there")
        twice = self.create(probe, b"2")
        self.delete(probe)
        if twice:
            told = "it ignores If-None-Match, so that two machines would overwrite each other"
            raise UnavailableError(f"{self.address}: {told}: use S3, or a server that has conditional writes")

    def _at(self, name: str) -> str:
        return f"{self.address}/{name}"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            told = " ".join(str(error).split()) or type(error).__name__
            raise UnavailableError(f"{self.address} cannot be used: {told}") from error


def _status(error: OSError) -> int:
    """The HTTP status behind an error of s3fs; 0 if there is none."""
    answer = getattr(error.__cause__, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@cache
def objects_at(address: str) -> Objects:
    """The objects below an address; one connection per process."""
    return Objects(address)


def use(address: str) -> None:
    """Make this process and all that it starts keep results at this address; empty keeps what the environment says.

    Raises: UnavailableError before any work if it cannot be used.
    """
    address = address or os.environ.get(VARIABLE, "")
    if address:
        objects_at(address).check()
        os.environ[VARIABLE] = address


def open_store(root: str | Path) -> Store:
    """The store of a folder, with the object store that the environment names (`BBQREC_STORE`), if it names one."""
    address = os.environ.get(VARIABLE, "")
    return SharedStore(root, objects_at(address)) if address else Store(root)


class SharedStore(Store):
    """A store that takes finished results from an object store, and puts there what it makes.

    If the object store fails in the middle of the work, a line says so, and the work goes on here: `get` puts a result
    that the object store lacks when it is next asked for.
    """

    def __init__(self, root: str | Path, objects: Objects) -> None:
        super().__init__(root)
        self.objects = objects

    def get(self, kind: str, key: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """As of `Store`; a result that another machine has made, or makes now, is not made again."""
        final = super().get(kind, key, partial(self._fetch_or_make, kind, key, make))
        with self._or_say("the result stays here"):
            if not self.has(final.name):
                self._put(final.name, final)
        return final

    def has(self, name: str) -> bool:
        """Whether the object store has a result `KIND-HASH`. Raises: UnavailableError."""
        return self.objects.size(_manifest(name)) is not None

    def _fetch_or_make(
        self, kind: str, key: Mapping[str, object], make: Callable[[Path], None], directory: Path
    ) -> None:
        """Fill the directory of a result."""
        name = self.path(kind, key).name
        claim = Claim(self.objects, name)
        try:
            with self._or_say("the result is made here"):
                while not self._fetch(name, key, directory):
                    if claim.take():
                        break
                    claim.wait()
                else:
                    return
                if self._fetch(name, key, directory):  # it was finished between the look and the claim
                    return
            make(directory)
            _sweep_hidden(directory)
            finish(directory, key)
            with self._or_say("the result stays here"):
                if not self._put(name, directory):  # another machine was faster: all use its result
                    self._fetch(name, key, directory)
        finally:
            with self._or_say("its claim ends by itself"):
                claim.release()

    @contextmanager
    def _or_say(self, then: str) -> Iterator[None]:
        """Go on after a failure of the object store, with a line on standard error."""
        try:
            yield
        except UnavailableError as error:
            say(f"{error}: {then}")

    def _put(self, name: str, directory: Path) -> bool:
        """Put the files of a finished result, then its manifest; False if the result is there already."""
        content = (directory / MANIFEST).read_bytes()
        notes = json.loads(content)
        for file, digest in notes["sha256"].items():
            if self.objects.size(_blob(digest)) != notes["size"][file]:
                self.objects.put(directory / file, _blob(digest))
        return self.objects.create(_manifest(name), content)

    def _fetch(self, name: str, key: Mapping[str, object], directory: Path) -> bool:
        """Replace the content of a directory by a result of the object store; False if there is none that is sound.

        The files come to a folder beside, and are verified there. A damaged result is removed from the object store,
        with a line on standard error, so that a sound one can take its place.
        """
        content = self.objects.read(_manifest(name))
        if content is None:
            return False
        aside = directory.with_name(f".fetched-{name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            damaged = self._download(content, key, aside)
            if damaged:
                say(f"{self.objects.address}/{_manifest(name)} is damaged ({damaged}): it is removed and made again")
                self.objects.delete(_manifest(name))
                return False
            for old in directory.iterdir():
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            for new in aside.iterdir():
                os.replace(new, directory / new.name)
            return True
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _download(self, content: bytes, key: Mapping[str, object], folder: Path) -> str:
        """Write the files of a manifest into a folder; returns what is damaged, empty if nothing is."""
        try:
            notes = json.loads(content)
            sums = dict(notes["sha256"])
            ours = key_hash(notes["key"]) == key_hash(key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return MANIFEST
        if not ours or not all(_is_inside(file) and _is_digest(digest) for file, digest in sums.items()):
            return MANIFEST
        for file, digest in sums.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if not self.objects.get(_blob(digest), folder / file):
                return file
        (folder / MANIFEST).write_bytes(content)
        damaged = damage(folder, key=key)
        if damaged in sums:
            self.objects.delete(_blob(sums[damaged]))  # else it would count as there, by its size
        return damaged


class Claim:
    """That this process makes a result now, told to other machines by an object that changes as long as it lives.

    Clocks are not compared: who waits measures how long the claim of another has not changed.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self.objects, self.object = objects, f"claims/{name}.json"
        self.owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._seen: tuple[bytes | None, float] = (None, 0.0)
        self._told, self._ended, self._thread = False, threading.Event(), None

    def take(self) -> bool:
        """Claim the result; False if another process has done so and lives."""
        if self.objects.create(self.object, self._note(0)):
            self._thread = threading.Thread(target=self._beat, daemon=True)
            self._thread.start()
            return True
        found, now = self.objects.read(self.object), time.monotonic()
        if found != self._seen[0]:
            self._seen = found, now
        elif found is not None and now - self._seen[1] >= EXPIRY:
            self.objects.delete(self.object)  # two machines that do so at once may both make the result: one is kept
            self._seen = None, now
        return False

    def wait(self) -> None:
        """Wait a moment for the other process, and say once who it is."""
        if not self._told and self._seen[0] is not None:
            self._told = True
            say(f"{self.object}: {_owner(self._seen[0])} makes it now; waiting for it")
        time.sleep(POLL)

    def release(self) -> None:
        """End the claim, if it is ours."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            if self._is_ours():
                self.objects.delete(self.object)

    def _beat(self) -> None:
        """Give signs of life until the end, or until another process has taken the claim."""
        count = 0
        while not self._ended.wait(BEAT):
            count += 1
            with suppress(UnavailableError):
                if not self._is_ours():
                    return
                self.objects.write(self.object, self._note(count))

    def _is_ours(self) -> bool:
        found = self.objects.read(self.object)
        return found is not None and _owner(found) == self.owner

    def _note(self, count: int) -> bytes:
        return json.dumps({"owner": self.owner, "beat": count}).encode()


def _owner(note: bytes) -> str:
    """Who wrote a claim; anything may be in it."""
    try:
        return one_line(json.loads(note)["owner"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "somebody"


def _manifest(name: str) -> str:
    return f"manifests/{name}.json"


def _blob(digest: str) -> str:
    return f"blobs/{digest}"


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _is_inside(file: str) -> bool:
    """Whether the name of a file stays in its folder, on every system, and is no hidden or temporary one."""
    return all(re.fullmatch(r"[^.\\/:\x00-\x1f][^\\/:\x00-\x1f]*", part) for part in file.split("/"))
