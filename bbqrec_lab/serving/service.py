"""The state of a server and its two workers: one writes events and items, one ranks; both serve who waits together."""

import queue
import threading
import time
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from filelock import FileLock, Timeout
from jaxtyping import Float, Int

from bbqrec_core import Recommender, SemanticIds, Sequences, metrics
from bbqrec_lab.analysis.explanations import shared_codes, shared_prefix
from bbqrec_lab.experiments import runs
from bbqrec_lab.serving.compiled import Beam
from bbqrec_lab.serving.event_log import ConflictError, Event, EventLog, StoredItem
from bbqrec_lab.serving.live_model import NewItem, extended, extended_ids
from bbqrec_lab.serving.new_items import ContentError, ItemContent, ItemEncoder
from bbqrec_lab.store import verify
from bbqrec_lab.suggestions import did_you_mean
from bbqrec_lab.threads import use_one_thread

TOGETHER = 64  # requests that one commit or one ranking serves, as `runs.USERS`
WAITING = 512  # requests that may wait for a worker; more are refused
MOST_NEW = 5000  # new items of one server; then the model is too far from its catalogue
MOST_LISTED = 1000  # items of one list
SHORT = 50  # items of a list that are searched for; for more, all items are scored
RECENT = 200  # events that are kept for the page of the log
SUGGESTED = 10_000  # names that a misspelt one is compared with at most: 50 ms


class UnknownError(LookupError):
    """A user or an item that is not there: `cause`, and what to do about it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause, self.remedy = cause, remedy


class UnsupportedError(LookupError):
    """Something that this kind of run does not have: `cause`, and what to do about it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.cause, self.remedy = cause, remedy


class BusyError(RuntimeError):
    """More requests wait than the server takes."""


@dataclass(frozen=True)
class Catalogue:
    """Items and the model for them, as of one moment; a new item makes a new catalogue.

    Args: names, titles: of row r at r - 1. rows: by name. scorer: a recommender or a counting baseline. ids: or None.
        counts: training events by row. known: items of the run; rows above it are new.
    """

    names: list[str]
    titles: list[str | None]
    rows: dict[str, int]
    scorer: object
    ids: SemanticIds | None
    counts: Int[np.ndarray, "rows"]
    known: int

    def code(self, row: int) -> str:
        """The semantic ID of an item as text; empty without IDs."""
        return "" if self.ids is None else "-".join(map(str, self.ids.code_ids[row]))


class Listed(NamedTuple):
    """A list for a user: item rows and scores, best first, what it rests on, and the catalogue of these rows."""

    rows: Int[np.ndarray, "k"]
    scores: Float[np.ndarray, "k"]
    basis: str
    history: Int[np.ndarray, "T"]
    catalogue: Catalogue


class Worker:
    """A thread that takes waiting requests together. Args: name: of the thread. work: answers a batch of requests."""

    def __init__(self, name: str, work: Callable[[list[object]], list[object]]) -> None:
        self._work, self._waiting = work, queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, request: object) -> Future:
        """The answer to come. Raises: BusyError if too many requests wait."""
        answer: Future = Future()
        answer.set_running_or_notify_cancel()  # a caller that leaves cannot cancel what is under way
        try:
            self._waiting.put_nowait((request, answer))
        except queue.Full:
            raise BusyError(f"{WAITING} requests wait") from None
        return answer

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Answer what waits, then end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while batch[-1] is not None and len(batch) < TOGETHER:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            asked = [entry for entry in batch if entry is not None]
            if asked:
                self._answer(asked)
            if batch[-1] is None:
                return

    def _answer(self, asked: list[tuple[object, Future]]) -> None:
        try:
            found = self._work([request for request, _ in asked])
        except Exception as error:  # whatever it is, each of them gets it
            found = [error] * len(asked)
        for (_, answer), result in zip(asked, found, strict=True):
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)


class Service:
    """A finished run with live events and items.

    Args: directory: of the run. state: file of the events. beam: width of a beam search, in place of scores of all
        items; 0 for none. say: takes lines about the start.
    Raises: as `Beam`; ValueError for a run without histories, or a state that another server has open or that is of
        another run.
    """

    def __init__(
        self, directory: Path, state: Path, beam: int = 0, say: Callable[[str], None] = lambda line: None
    ) -> None:
        use_one_thread()
        state.parent.mkdir(parents=True, exist_ok=True)
        self._owner = FileLock(f"{state}.lock")
        try:
            self._owner.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another server has {state} open: stop it, or give --state another file") from None
        verify(directory, but="ranks_*")
        self.directory = directory
        self._base = _catalogue_of(directory)
        self.beam = Beam(self._base.scorer, beam) if beam else None
        self._users = _Histories(directory)
        self.log = EventLog(state, directory.name)
        self.encoder, self.refused = None, ""
        try:
            self.encoder = ItemEncoder(directory, self._base.ids)
        except (ValueError, OSError) as error:  # the lists need no encoder
            self.refused = " ".join(str(error).split())
        self._added: list[NewItem] = []
        self._contents: list[np.ndarray] = []
        self.catalogue = self._base
        self.events, self._latest = 0, deque(maxlen=RECENT)
        self._replay()
        told = f"{len(self._base.names)} items, {self._users.count} users"
        say(f"{told}, {self.events} events and {len(self._added)} new items replayed from {state}")
        if self.refused:
            say(f"no new items: {self.refused}")
        if self.beam is not None:
            self.beam.compile(directory, say)
        self._writer = Worker("writer", self._write)
        self._ranker = Worker("ranker", self._rank)
        self._rank([(name, 1, True) for name in self._users.names()[:1]])  # what torch makes once is made now

    def close(self) -> None:
        """Finish what waits, then let go of the state."""
        self._writer.close()
        self._ranker.close()
        self.log.close()
        self._owner.release()

    @property
    def waiting(self) -> dict[str, int]:
        """Number of requests that wait for each worker."""
        return {"writer": self._writer.waiting, "ranker": self._ranker.waiting}

    @property
    def users(self) -> int:
        """Number of users with events."""
        return self._users.count

    @property
    def new_items(self) -> int:
        """Number of items that are not of the run."""
        return len(self._added)

    # ---- writing ----

    def add_events(self, events: Sequence[Event], timed: Sequence[bool]) -> Future:
        """Acknowledge events, all or none; the answer is which of them are new. See `EventLog.add_events`.

        Raises: UnknownError for an item that is not there, BusyError.
        """
        for event in events:
            self.row_of(event.item_id)
        return self._writer.ask(("events", list(events), list(timed)))

    def add_item(self, item: ItemContent) -> Future:
        """Acknowledge a new item; the answer is its semantic ID as text, and whether it is new.

        Raises: BusyError.
        """
        return self._writer.ask(("item", item))

    def _write(self, jobs: list[tuple]) -> list[object]:
        """One transaction for many jobs; the state in memory follows the state on the disk, never the reverse."""
        done: list[Callable[[], None]] = []
        before = self._added, self._contents
        self._draft = self.catalogue

        def events(given: list[Event], timed: list[bool]) -> list[bool]:
            new = self.log.add_events(given, timed)
            done.append(lambda: self._take([event for event, first in zip(given, new, strict=True) if first]))
            return new

        def run(job: tuple) -> object:
            try:
                return events(*job[1:]) if job[0] == "events" else self._put(job[1])
            except (ContentError, UnknownError) as error:
                return error

        try:
            found = self.log.together([lambda job=job: run(job) for job in jobs])
        except Exception:
            self._added, self._contents = before
            raise
        self.catalogue = self._draft
        for apply in done:
            apply()
        return found

    def _take(self, events: list[Event]) -> None:
        rows = self.catalogue.rows
        for event in events:
            self._users.add(event.user_id, rows[event.item_id], event.time)
            self.events += 1
            self._latest.append((self.events, event))

    def _put(self, item: ItemContent) -> tuple[str, bool]:
        """Encode an item, give it an ID, and put it into the next catalogue. Raises: ContentError, ConflictError."""
        if (known := self.log.item_digest(item.item_id)) is not None:
            if known != item.digest():
                raise ConflictError(f"there is a new item {item.item_id!r} already, with other content")
            return self._draft.code(self._draft.rows[item.item_id]), False
        if item.item_id in self._draft.rows:
            raise ConflictError(f"item {item.item_id!r} is of the catalogue of this run")
        if self.encoder is None:
            raise ContentError(f"this server takes no new items ({self.refused})", "see docs/serving.md")
        if len(self._added) >= MOST_NEW:
            raise ContentError(f"this server has {MOST_NEW} new items", "add them to the data and run bbqrec fit again")
        new, content = self.encoder.encode(item, self._draft.ids.code_ids, self._contents)
        told = {"title": item.title, "text": item.text}
        self.log.add_item(StoredItem(item.item_id, told, item.digest(), new.arrays() | {"content": content}))
        self._added, self._contents = [*self._added, new], [*self._contents, content]
        self._draft = self._extend(self._draft, [(item.item_id, item.title)])
        return self._draft.code(len(self._draft.names)), True

    def _extend(self, now: Catalogue, fresh: Sequence[tuple[str, str | None]]) -> Catalogue:
        """The catalogue with all new items, of which `fresh` (name, title) are not in it yet."""
        base = self._base
        names = [*now.names, *(name for name, _ in fresh)]
        return Catalogue(
            names,
            [*now.titles, *(title for _, title in fresh)],
            now.rows | {name: len(now.names) + place for place, (name, _) in enumerate(fresh, start=1)},
            extended(base.scorer, base.ids, base.counts > 0, self._added),
            extended_ids(base.ids, self._added),
            np.append(base.counts, np.zeros(len(self._added), base.counts.dtype)),
            base.known,
        )

    def _replay(self) -> None:
        """Bring the state in memory to that of the file."""
        items = self.log.items()
        for item in items:
            arrays = dict(item.arrays)
            self._contents.append(arrays.pop("content"))
            self._added.append(NewItem(**arrays))
        if items:
            self.catalogue = self._extend(self._base, [(item.item_id, item.content["title"]) for item in items])
        self._take(self.log.events())

    # ---- reading ----

    def row_of(self, item_id: str) -> int:
        """The row of an item. Raises: UnknownError."""
        row = self.catalogue.rows.get(item_id)
        if row is None:
            close = _suggest(item_id, self.catalogue.names)
            raise UnknownError(
                f"no item {item_id!r}", f"{close}give an item_id of the data, or post it to /items first"
            )
        return row

    def recommend(self, user_id: str, k: int, new: bool = False) -> Future:
        """The k best items that a user has not had; the answer is `Listed`.

        Args: new: a user without events gets the most popular items, and is no error.
        Raises: UnknownError for a user without events, BusyError.
        """
        if not new and not self._users.has(user_id):
            close = _suggest(user_id, self._users.names())
            raise UnknownError(
                f"no events of user {user_id!r}",
                f"{close}post an event of this user to /events, or add new=true for the most popular items",
            )
        return self._ranker.ask((user_id, k, new))

    def _rank(self, asked: list[tuple[str, int, bool]]) -> list[Listed]:
        """As `bbqrec recommend`, for several users at once."""
        catalogue, histories = self.catalogue, [self._users.get(user) for user, *_ in asked]
        found: list[Listed | None] = [None] * len(asked)
        read = [place for place, (rows, _) in enumerate(histories) if len(rows)]
        if read:
            lists = self._lists(catalogue, [histories[place] for place in read], max(asked[place][1] for place in read))
            for place, (rows, scores) in zip(read, lists, strict=True):
                k, past = asked[place][1], histories[place][0]
                found[place] = Listed(rows[:k], scores[:k], "history", past, catalogue)
        for place, (_, k, _) in enumerate(asked):
            if found[place] is None:
                counts = self._users.popular(catalogue.counts)
                rows = np.argsort(-counts[1:], kind="stable")[:k] + 1
                found[place] = Listed(
                    rows, counts[rows].astype(np.float32), "popularity", histories[place][0], catalogue
                )
        return found

    def _lists(self, catalogue: Catalogue, histories: list[tuple], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Best items and scores after each history, by the beam if there is one that is wide enough."""
        if self.beam is not None and 2 * k <= self.beam.width:
            return self.beam.lists(catalogue.scorer, [rows for rows, _ in histories], k)
        return rank(catalogue.scorer, histories, k)

    def latest(self, after: int, limit: int) -> list[tuple[int, Event]]:
        """The newest events with a number above `after`, oldest first, at most `limit` of the last `RECENT`."""
        return [entry for entry in tuple(self._latest) if entry[0] > after][-limit:]

    def similar(self, item_id: str, k: int) -> tuple[Catalogue, list[tuple[int, int, float]]]:
        """Items that share most leading codes with an item, then those with the highest cosine: row, codes, cosine.

        The cosine is that of the compared signals, averaged over those that both have; without IDs, of item vectors.

        Raises: UnknownError; UnsupportedError for a model that has neither IDs nor item vectors.
        """
        row, catalogue = self.row_of(item_id), self.catalogue
        if catalogue.ids is None:
            vectors, shared = _item_vectors(catalogue.scorer), np.zeros(len(catalogue.names) + 1, int)
            cosine = _cosine(vectors[row], vectors)
        else:
            codes, ids = catalogue.ids.code_ids, catalogue.ids
            shared = shared_prefix(codes[[row]], codes)[0]
            both = ids.present & ids.present[row]
            each = _cosine(ids.signal_vectors[row], ids.signal_vectors)
            cosine = (each * both).sum(-1) / np.maximum(both.sum(-1), 1)
        order = np.lexsort((-cosine, -shared))
        order = order[(order != row) & (order != 0)][:k]
        return catalogue, [(int(other), int(shared[other]), float(cosine[other])) for other in order]


def rank(
    scorer: object, histories: Sequence[tuple[np.ndarray, np.ndarray | None]], k: int
) -> list[tuple[Int[np.ndarray, "k"], Float[np.ndarray, "k"]]]:
    """The k best items and their scores after each history (rows, times), without its items, as `runs.recommend`."""
    offsets = np.append(0, np.cumsum([len(rows) for rows, _ in histories])).astype(np.int64)
    items = np.concatenate([rows for rows, _ in histories]).astype(np.int32)
    known = all(times is not None for _, times in histories)
    times = np.concatenate([times for _, times in histories]).astype(np.int64) if known else None
    history, users = Sequences(offsets, items, times), np.arange(len(histories))
    if isinstance(scorer, Recommender) and k <= SHORT:  # the same lists; a batch takes a third of the time
        scores = scorer.ranking_scores(history, users, k)
    else:
        scores = scorer.scores(history, users)
    best = metrics.filter_seen(scores, history, users).sort(descending=True, stable=True)
    values, rows = best.values[:, :k].numpy(), best.indices[:, :k].numpy()
    return [(row[value > -np.inf], value[value > -np.inf]) for row, value in zip(rows, values, strict=True)]


def reason(listed: Listed, row: int) -> dict[str, object] | None:
    """The event of the history whose ID shares most leading codes with an item, and how many; None if none does."""
    catalogue = listed.catalogue
    if catalogue.ids is None or not len(listed.history):
        return None
    place, shared = shared_codes(catalogue.ids.code_ids, row, listed.history.tolist())
    if not shared:
        return None
    like = int(listed.history[place])
    return {"item_id": catalogue.names[like - 1], "title": catalogue.titles[like - 1], "shared_codes": shared}


def new_event_id() -> str:
    """An ID for an event that came without one."""
    return f"server-{uuid.uuid4()}"


def now() -> int:
    """The time of an event that came without one, in seconds."""
    return int(time.time())


class _Histories:
    """Events of users by item row and time: those of the run as arrays, and lists of users with live events."""

    def __init__(self, directory: Path) -> None:
        path = directory / "users.parquet"
        if not path.exists():
            raise ValueError(f"{directory} has no histories of users: make the run again, with bbqrec fit")
        stored = pl.read_parquet(path)
        self._place = {name: place for place, name in enumerate(stored["user_id"].cast(pl.String))}
        self._offsets = np.append(0, np.cumsum(stored["rows"].list.len().to_numpy().astype(np.int64)))
        flat = stored.select("rows", "times").explode("rows", "times")
        self._rows = flat["rows"].to_numpy()
        self._times = None if flat["times"].null_count() else flat["times"].to_numpy()
        self._live: dict[str, tuple[list[int], list[int]]] = {}
        self._added: dict[int, int] = {}  # live events by item row
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Number of users with events."""
        return len(self._place) + sum(name not in self._place for name in list(self._live))

    def names(self) -> list[str]:
        """Names of all users with events."""
        return [*self._place, *(name for name in list(self._live) if name not in self._place)]

    def has(self, user_id: str) -> bool:
        """Whether a user has events."""
        return user_id in self._place or user_id in self._live

    def get(self, user_id: str) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "T"] | None]:
        """Item rows and times of a user, oldest first; empty for a user without events."""
        with self._lock:
            if (live := self._live.get(user_id)) is not None:
                rows, times = (np.array(part, np.int64) for part in live)
                return rows, None if self._times is None else times
        if (place := self._place.get(user_id)) is None:
            return np.zeros(0, np.int64), None
        part = slice(*self._offsets[place : place + 2])
        return self._rows[part], None if self._times is None else self._times[part]

    def add(self, user_id: str, row: int, time: int) -> None:
        """Add an event behind all events of the same or an earlier time."""
        if user_id not in self._live:
            rows, times = self.get(user_id)
            known = [0] * len(rows) if times is None else times.tolist()  # of unknown times: before all that come
            with self._lock:
                self._live[user_id] = rows.tolist(), known
        with self._lock:
            rows, times = self._live[user_id]
            place = bisect_right(times, time)
            rows.insert(place, row)
            times.insert(place, time)
            self._added[row] = self._added.get(row, 0) + 1

    def popular(self, counts: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "rows"]:
        """Events of every item row, in training and live."""
        found = counts.astype(np.int64)
        with self._lock:
            for row, more in self._added.items():
                if row < len(found):
                    found[row] += more
        return found


def _catalogue_of(directory: Path) -> Catalogue:
    """The catalogue of a run as it was trained."""
    items = pl.read_parquet(directory / "items.parquet")
    names = items["item_id"].cast(pl.String).to_list()
    rows = {name: row for row, name in enumerate(names, start=1)}
    path = directory / "ids.npz"
    ids = SemanticIds.load(path) if path.exists() else None
    counts = np.append(0, items["training_events"].to_numpy())
    return Catalogue(names, items["title"].to_list(), rows, runs.load_scorer(directory), ids, counts, len(names))


def _item_vectors(scorer: object) -> Float[np.ndarray, "rows D"]:
    if not isinstance(scorer, Recommender) or scorer.model.items is None:
        raise UnsupportedError("this run has neither semantic IDs nor item vectors", "serve a sequence model")
    return scorer.model.item_embeddings().detach().numpy()


def _cosine(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Cosine along the last axis; 0 with a vector of zeros."""
    length = np.linalg.norm(one, axis=-1) * np.linalg.norm(many, axis=-1)
    return (one * many).sum(-1) / np.maximum(length, 1e-12)


def _suggest(name: str, known: list[str]) -> str:
    return did_you_mean(name[:64], known) if len(known) <= SUGGESTED else ""
