"""The state in memory follows the state on the disk; what the guard counts; how the server listens."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from served import make_run, vectors_of

from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.serving import service as services
from bbqrec_lab.serving.event_log import ConflictError, Event
from bbqrec_lab.serving.guard import Guard, Rate, is_loopback
from bbqrec_lab.serving.new_items import ContentError, ItemContent
from bbqrec_lab.serving.service import BusyError, Service, UnknownError, Worker

web = pytest.importorskip("bbqrec_lab.serving.web", reason="needs fastapi", exc_type=ValueError)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[NamedDataset, Path]:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def service(run: tuple[NamedDataset, Path], tmp_path: Path) -> Iterator[Service]:
    found = Service(run[1], tmp_path / "state.sqlite")
    yield found
    found.close()


def item(run: tuple[NamedDataset, Path], name: str, row: int = 4) -> ItemContent:
    return ItemContent(name, vectors={key: tuple(values) for key, values in vectors_of(run[0], row).items()})


def event(run: tuple[NamedDataset, Path], name: str) -> Event:
    return Event(name, "ann", str(run[0].items["item_id"][0]), 5)


def test_what_cannot_be_written_changes_nothing_in_memory(
    run: tuple[NamedDataset, Path], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = service.log._base.execute

    class Full:
        """A connection to a full disk."""

        in_transaction = property(lambda self: service.log._base is self and real.in_transaction)

        def execute(self, words: str, *more: object) -> object:
            if words == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return inner(words, *more)

        def close(self) -> None:
            real.close()

    real = service.log._base
    monkeypatch.setattr(service.log, "_base", Full())
    before = service.catalogue
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        service.add_events([event(run, "a")], [True]).result(30)
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        service.add_item(item(run, "new")).result(30)
    assert service.catalogue is before
    assert (service.events, service.new_items, service.users) == (0, 0, run[0].n_users)
    with pytest.raises(UnknownError):
        service.recommend("ann", 3)
    monkeypatch.setattr(service.log, "_base", real)
    assert service.add_events([event(run, "a")], [True]).result(30) == [True]
    assert service.add_item(item(run, "new")).result(30)[1]
    assert len(service.recommend("ann", 3).result(30).rows) == 3


def test_one_commit_serves_who_waits_and_refuses_each_by_itself(
    run: tuple[NamedDataset, Path], service: Service
) -> None:
    jobs = [("events", [event(run, "a")], [True]), ("item", item(run, "x")), ("item", ItemContent("bare"))]
    jobs += [("events", [event(run, "a")._replace(user_id="bob")], [True]), ("item", item(run, "y", 7))]
    one, two, three, four, five = service._write(jobs)
    assert one == [True]
    assert two[1]
    assert five[1]
    assert isinstance(three, ContentError)
    assert isinstance(four, ConflictError)
    assert service.catalogue.names[-2:] == ["x", "y"]
    assert (service.events, service.new_items) == (1, 2)


def test_new_items_stay_when_the_data_of_the_run_are_gone(tmp_path: Path) -> None:
    data, directory = make_run(tmp_path)
    first = Service(directory, tmp_path / "state.sqlite")
    code, _ = first.add_item(item((data, directory), "new")).result(30)
    wanted = first.recommend(str(data.users[0]), 25).result(30)
    first.close()
    Path(data.path).rename(tmp_path / "elsewhere")
    again = Service(directory, tmp_path / "state.sqlite")
    assert "no longer at" in again.refused
    assert again.catalogue.code(again.row_of("new")) == code
    found = again.recommend(str(data.users[0]), 25).result(30)
    assert found.rows.tolist() == wanted.rows.tolist()
    assert np.array_equal(found.scores, wanted.scores)
    with pytest.raises(ContentError, match="takes no new items"):
        again.add_item(ItemContent("other", title="x")).result(30)
    again.close()


def test_live_events_count_for_popularity(run: tuple[NamedDataset, Path], service: Service) -> None:
    rare = int(np.argmin(service.catalogue.counts[1:])) + 1
    name, most = service.catalogue.names[rare - 1], int(service.catalogue.counts.max())
    events = [Event(str(number), f"u{number}", name, 1) for number in range(most + 1)]
    service.add_events(events, [True] * len(events)).result(30)
    listed = service.recommend("nobody", 1, new=True).result(30)
    assert (listed.basis, listed.rows.tolist()) == ("popularity", [rare])


def test_a_server_takes_so_many_new_items_and_no_more(
    run: tuple[NamedDataset, Path], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MOST_NEW", 1)
    service.add_item(item(run, "one")).result(30)
    with pytest.raises(ContentError, match="run bbqrec fit again"):
        service.add_item(item(run, "two")).result(30)


def test_who_waits_too_long_is_refused_and_errors_reach_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "WAITING", 2)
    entered, go = threading.Event(), threading.Event()

    def work(batch: list[object]) -> list[object]:
        entered.set()
        go.wait(30)
        raise KeyError("broken")

    worker = Worker("slow", work)
    answers = [worker.ask(0)]
    entered.wait(30)
    answers += [worker.ask(1), worker.ask(2)]
    with pytest.raises(BusyError):
        worker.ask(3)
    go.set()
    for answer in answers:
        with pytest.raises(KeyError, match="broken"):
            answer.result(30)
    worker.close()


def test_a_rate_refills_with_time_and_forgets_old_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = Rate(2)
    assert [rate.take("a", 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert rate.take("b", 0.0)
    assert [rate.take("a", 0.5) for _ in range(2)] == [True, False]
    assert all(Rate(0).take("a", 0.0) for _ in range(99))
    monkeypatch.setattr("bbqrec_lab.serving.guard.ADDRESSES", 3)
    for number in range(9):
        rate.take(str(number), 1.0)
    assert len(rate._left) == 3


LOCAL = ("localhost", "127.0.0.1", "127.9.9.9", "::1")
OTHERS = ("0.0.0.0", "", "10.0.0.1", "::", "localhost.evil.example", "127.0.0.1.evil.example")


@pytest.mark.parametrize(("host", "local"), [*((name, True) for name in LOCAL), *((name, False) for name in OTHERS)])
def test_only_loopback_needs_no_token(host: str, local: bool) -> None:
    assert is_loopback(host) is local

    async def inner(scope: object, receive: object, send: object) -> None: ...

    if local:
        Guard(inner, host=host)
    else:
        with pytest.raises(ValueError, match="give --token"):
            Guard(inner, host=host)
    Guard(inner, host=host, token="t")


def test_answers_are_sent_at_once() -> None:
    """Without the protocol in the socket, asyncio leaves Nagle's algorithm on, and every answer waits 40 ms."""
    with web._listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
        with pytest.raises(ValueError, match=r"cannot listen on 127.0.0.1:\d+ .*choose another --host or --port"):
            web._listen(*listening.getsockname())


def test_items_of_the_log_are_named_as_in_the_run(run: tuple[NamedDataset, Path], service: Service) -> None:
    assert service.catalogue.names == run[0].items["item_id"].cast(pl.String).to_list()
    assert service.row_of(service.catalogue.names[4]) == 5
