"""The store: one directory per result, keyed by everything that determines it; a directory is complete or absent."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

MANIFEST = "manifest.json"
DIGITS = 32  # hex digits of a key, 128 bits: nobody can make two inputs with one key
SHOWN = 8  # of them in tables and captions, which decide nothing


def key_hash(key: Mapping[str, object]) -> str:
    """Hash of the canonical JSON of `key`, 32 hex digits; equal keys give equal hashes in every process."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a temporary sibling, then rename it: a reader sees the old or the new content, but never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


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
        inside it are found. Processes that need the same result wait for the first.

        Raises: ValueError if the files of a finished result do not match their checksums.
        """
        final = self.path(kind, key)
        if final.exists():  # without a lock, so that a folder that may only be read can be used
            verify(final)
            return final
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{final}.lock"):
            if not final.exists():
                partial = final.with_name(final.name + ".partial")
                partial.mkdir(exist_ok=True)
                make(partial)
                files = sorted(path for path in partial.rglob("*") if path.is_file() and path.name != MANIFEST)
                sums = {str(path.relative_to(partial)): file_hash(path) for path in files}
                write_atomic(partial / MANIFEST, json.dumps({"key": key, "sha256": sums}, indent=1, sort_keys=True))
                os.replace(partial, final)
        verify(final)
        return final


def verify(directory: Path) -> None:
    """Check a finished result against its manifest.

    Raises: ValueError naming the first file that is missing or differs, and the directory to delete.
    """
    remedy = f"is damaged or missing: delete {directory} and run again"
    try:
        sums = json.loads((directory / MANIFEST).read_text())["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{directory / MANIFEST} {remedy}") from error
    for name, expected in sums.items():
        path = directory / name
        if not path.exists() or file_hash(path) != expected:
            raise ValueError(f"{path} {remedy}")


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays to one `.npz`, atomically; no pickled objects."""
    partial = path.with_name(f".{path.name}")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz` into memory."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
