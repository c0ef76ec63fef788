"""The store: one directory per result, keyed by everything that determines it; a directory is complete or absent."""

import hashlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock

from bbqrec_lab.terminal import say

MANIFEST = "manifest.json"
DIGITS = 32  # hex digits of a key, 128 bits: nobody can make two inputs with one key
SHOWN = 8  # of them in tables and captions, which decide nothing
ABANDONED = 3600  # seconds after which a temporary file has lost its writer
UNREADABLE = (  # what numpy raises for an `.npz` in which any byte may differ
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, BadZipFile, struct.error, zlib.error),
)
_SOUND: dict[Path, tuple[int, int]] = {}  # files that this process has checked, with time and size then


class DamagedError(ValueError):
    """A finished result that is no longer what was written: one line with the file and the remedy."""


def key_hash(key: Mapping[str, object]) -> str:
    """Hash of the canonical JSON of `key`, 32 hex digits; equal keys give equal hashes in every process."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk; a loss of power then loses nothing."""
    if os.name == "nt":  # has no such call for what is open to be read
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def replace_synced(partial: Path, path: Path) -> None:
    """Give a complete temporary file its name: the content is on the disk before the name, and the name at the end."""
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a temporary sibling, then rename it: a reader sees the old or the new content, but never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f".{path.name}.*")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        replace_synced(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sweep(folder: Path, pattern: str, age: float = ABANDONED) -> None:
    """Delete what killed writers left in a folder: files and folders of this pattern that nobody has changed lately."""
    for path in folder.glob(pattern):
        try:
            if time.time() - path.lstat().st_mtime >= age:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:  # another process was faster, or the folder can only be read
            continue


class Store:
    """Results below `root`, each in a directory `KIND-HASH` that is written once and then only read.

    Args: root: directory of the store; created on first use.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, kind: str, key: Mapping[str, object]) -> Path:
        """The directory of the result of `kind` with `key`; it may not exist yet."""
        return self.root / f"{kind}-{key_hash(key)}"

    def get(self, kind: str, key: Mapping[str, object], make: Callable[[Path], None]) -> Path:
        """Return the finished directory; if it does not exist, call `make(directory)` first.

        A process that is killed leaves `KIND-HASH.partial`. The next call passes it to `make` again, so checkpoints
        inside it are found. Processes that need the same result wait for the first. A finished result that does not
        match its checksums is renamed to `.damaged-KIND-HASH`, with a line on standard error, and made again.

        Raises: OSError if the result cannot be written, such as in a store that can only be read.
        """
        final = self.path(kind, key)
        if final.exists() and not damage(
            final, key=key
        ):  # without a lock, so that a folder that may only be read can be used
            return final
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{final}.lock"):
            if final.exists() and (damaged := damage(final, key=key)):  # another process may have made it again by now
                _set_aside(final, damaged)
            if not final.exists():
                partial = final.with_name(final.name + ".partial")
                partial.mkdir(exist_ok=True)
                _sweep_hidden(partial)
                make(partial)
                _sweep_hidden(partial)
                finish(partial, key)
                os.replace(partial, final)
                sync(self.root)
        return final


def _sweep_hidden(directory: Path) -> None:
    """Delete the temporary files of killed writers; the lock of the result says that no other writer is alive."""
    for path in directory.rglob(".*"):
        if path.is_file():
            path.unlink()


def _set_aside(directory: Path, damaged: str) -> None:
    """Rename a damaged result, and say so."""
    aside = directory.with_name(f".damaged-{directory.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(directory, aside)
    say(f"{directory / damaged} is damaged: it is made again; what is left is in {aside}")


def finish(directory: Path, key: Mapping[str, object]) -> None:
    """Write the manifest: the key, and size and checksum of every file; then everything is on the disk."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    names = {path: path.relative_to(directory).as_posix() for path in files}
    for path in files:
        sync(path)
    manifest = {
        "key": key,
        "sha256": {names[path]: file_hash(path) for path in files},
        "size": {names[path]: path.stat().st_size for path in files},
    }
    write_atomic(directory / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))
    for folder in {path.parent for path in files} | {directory}:
        sync(folder)


def damage(directory: Path, only: str = "*", but: str = "", key: Mapping[str, object] | None = None) -> str:
    """The first file of a finished result that is missing or differs from the manifest; empty if none does.

    Sizes are compared before checksums, and a file that this process has checked is read again only if it has changed.

    Args: only, but: patterns of the files to check, and of those to leave out. key: that the manifest has to hold.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        sums, sizes = dict(manifest["sha256"]), dict(manifest.get("size", {}))
        if key is not None and key_hash(manifest["key"]) != key_hash(key):
            return MANIFEST
    except (OSError, ValueError, KeyError, TypeError):
        return MANIFEST
    names = [name for name in sums if fnmatch(name, only) and not fnmatch(name, but)]
    try:
        states = {name: (directory / name).stat() for name in names}
    except OSError:
        return next(name for name in names if not (directory / name).is_file())
    for name, state in states.items():
        if state.st_size != sizes.get(name, state.st_size):
            return name
    for name, state in states.items():
        path, seen = directory / name, (state.st_mtime_ns, state.st_size)
        if _SOUND.get(path) != seen:
            try:
                if file_hash(path) != sums[name]:
                    return name
            except OSError:
                return name
            _SOUND[path] = seen
    return ""


def verify(directory: Path, only: str = "*", but: str = "") -> None:
    """Check files of a finished result before they are read without its key; arguments as for `damage`.

    Raises: DamagedError naming the first file that is missing or differs.
    """
    if damaged := damage(directory, only, but):
        remedy = "run bbqrec fit again with the settings of this run, which makes it again"
        raise DamagedError(f"{directory / damaged} is damaged or missing: {remedy}")


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to one `.npz`, atomically; no pickled objects."""
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    replace_synced(partial, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz` into memory."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # numpy leaves a damaged one open
        return {name: archive[name] for name in archive.files}
