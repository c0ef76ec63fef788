"""What the server has acknowledged: events and new items in one SQLite file, each on the disk before its answer."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

# WAL: readers never wait for the writer. FULL: a commit waits for the disk, so a loss of power loses nothing either.
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000")
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS items (
    number INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, digest TEXT NOT NULL,
    arrays BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, item_id TEXT NOT NULL,
    time INTEGER NOT NULL
) STRICT;
"""


class ConflictError(ValueError):
    """An ID that was acknowledged before with other content."""


class Event(NamedTuple):
    """A user chose an item. `event_id`: the same ID means the same event. `time`: in seconds, or the data's unit."""

    event_id: str
    user_id: str
    item_id: str
    time: int


class StoredItem(NamedTuple):
    """A new item as it was acknowledged. `digest`: hash of what the client sent. `arrays`: its codes and vectors."""

    item_id: str
    content: dict[str, str | None]
    digest: str
    arrays: dict[str, np.ndarray]


class EventLog:
    """Events and new items in one file; for one thread at a time.

    Args: path: of the file, made if it does not exist. run: name of the run that the state belongs to.
    Raises: ValueError for the state of another run, or a file that is no such state.
    """

    def __init__(self, path: Path, run: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            owner = self._prepare(run)
            if owner != run:
                raise ValueError(f"{path} has the events of {owner}, not of {run}: give --state another file")
        except BaseException:
            self.close()
            raise

    def _prepare(self, run: str) -> str:
        try:
            for pragma in PRAGMAS:
                self._base.execute(f"PRAGMA {pragma}")
            self._base.executescript(SCHEMA)
            self._base.execute("INSERT OR IGNORE INTO about VALUES ('run', ?)", (run,))
            (owner,) = self._base.execute("SELECT value FROM about WHERE name = 'run'").fetchone()
        except sqlite3.DatabaseError as error:
            told = f"{self.path} is not a state of bbqrec serve ({error}): give --state another file"
            raise ValueError(told) from error
        return owner

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def events(self) -> list[Event]:
        """All events, in the order of their acknowledgement."""
        return [
            Event(*row)
            for row in self._base.execute("SELECT event_id, user_id, item_id, time FROM events ORDER BY number")
        ]

    def items(self) -> list[StoredItem]:
        """All new items, in the order of their acknowledgement."""
        rows = self._base.execute("SELECT item_id, content, digest, arrays FROM items ORDER BY number")
        return [StoredItem(name, json.loads(text), digest, _unpack(blob)) for name, text, digest, blob in rows]

    def together(self, jobs: Sequence[Callable[[], object]]) -> list[object]:
        """Run jobs that write, in one transaction; returns the result of each, or the ConflictError that undid it.

        One wait for the disk serves all of them. When this returns, everything is on the disk.

        Raises: sqlite3.Error if the transaction cannot be written; then nothing of it is kept.
        """
        found: list[object] = []
        self._base.execute("BEGIN IMMEDIATE")
        try:
            for job in jobs:
                self._base.execute("SAVEPOINT job")
                try:
                    found.append(job())
                except ConflictError as error:
                    self._base.execute("ROLLBACK TO job")
                    found.append(error)
                self._base.execute("RELEASE job")
            self._base.execute("COMMIT")
        except BaseException:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise
        return found

    def add_events(self, events: Sequence[Event], timed: Sequence[bool]) -> list[bool]:
        """Write events inside `together`; returns which of them are new.

        Args: timed: whether the client gave the time; else the time is no part of what a re-sent event has to repeat.
        Raises: ConflictError for an event ID that was used for another event.
        """
        return [self._add_event(event, exact) for event, exact in zip(events, timed, strict=True)]

    def _add_event(self, event: Event, exact: bool) -> bool:
        known = self._base.execute(
            "SELECT event_id, user_id, item_id, time FROM events WHERE event_id = ?", (event.event_id,)
        ).fetchone()
        if known is None:
            self._base.execute("INSERT INTO events (event_id, user_id, item_id, time) VALUES (?, ?, ?, ?)", event)
            return True
        before = Event(*known)
        if before[:3] != event[:3] or (exact and before.time != event.time):
            told = f"user {before.user_id!r}, item {before.item_id!r}, time {before.time}"
            raise ConflictError(f"event_id {event.event_id!r} was used for another event ({told})")
        return False

    def add_item(self, item: StoredItem) -> None:
        """Write a new item inside `together`. Raises: ConflictError if there is one of this ID."""
        if self.item_digest(item.item_id) is not None:
            raise ConflictError(f"there is an item {item.item_id!r} already")
        row = item.item_id, json.dumps(item.content), item.digest, _pack(item.arrays)
        self._base.execute("INSERT INTO items (item_id, content, digest, arrays) VALUES (?, ?, ?, ?)", row)

    def item_digest(self, item_id: str) -> str | None:
        """The digest of a new item; None if there is none of this ID."""
        found = self._base.execute("SELECT digest FROM items WHERE item_id = ?", (item_id,)).fetchone()
        return None if found is None else found[0]


def _pack(arrays: dict[str, np.ndarray]) -> bytes:
    file = BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _unpack(blob: bytes) -> dict[str, np.ndarray]:
    with np.load(BytesIO(blob), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
