"""The log: acknowledged once, whatever is sent again; all or none of a request; one file belongs to one run."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bbqrec_lab.serving.event_log import ConflictError, Event, EventLog, StoredItem

FIRST, SECOND = Event("a", "u", "i", 5), Event("b", "u", "j", 6)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    opened = EventLog(tmp_path / "state.sqlite", "run-1")
    yield opened
    opened.close()


def add(log: EventLog, *events: Event, timed: bool = True) -> object:
    (found,) = log.together([partial(log.add_events, list(events), [timed] * len(events))])
    return found


def test_events_come_back_in_the_order_of_their_acknowledgement(log: EventLog) -> None:
    assert add(log, SECOND, FIRST) == [True, True]
    assert log.events() == [SECOND, FIRST]


def test_an_event_that_is_sent_again_is_counted_once(log: EventLog) -> None:
    add(log, FIRST)
    assert add(log, FIRST, SECOND, SECOND) == [False, True, False]
    assert log.events() == [FIRST, SECOND]


def test_an_id_of_another_event_is_a_conflict_and_keeps_nothing_of_its_request(log: EventLog) -> None:
    add(log, FIRST)
    for other in (FIRST._replace(user_id="v"), FIRST._replace(item_id="j"), FIRST._replace(time=6)):
        assert isinstance(add(log, SECOND, other), ConflictError)
        assert log.events() == [FIRST]


def test_a_time_that_the_server_chose_need_not_be_repeated(log: EventLog) -> None:
    add(log, FIRST, timed=False)
    assert add(log, FIRST._replace(time=99), timed=False) == [False]


def test_a_conflict_leaves_the_other_requests_of_its_commit(log: EventLog) -> None:
    add(log, FIRST)
    jobs = [[FIRST._replace(user_id="v")], [SECOND]]
    found = log.together([partial(log.add_events, events, [True]) for events in jobs])
    assert isinstance(found[0], ConflictError)
    assert found[1] == [True]
    assert log.events() == [FIRST, SECOND]


def test_an_error_undoes_the_whole_commit(log: EventLog) -> None:
    def broken() -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        log.together([partial(log.add_events, [FIRST], [True]), broken])
    assert log.events() == []
    assert add(log, FIRST) == [True]


def test_items_come_back_with_their_arrays(log: EventLog) -> None:
    item = StoredItem("i", {"title": "T", "text": None}, "d", {"code": np.array([3, 1]), "v": np.eye(2, dtype="f4")})
    log.together([partial(log.add_item, item)])
    (found,) = log.items()
    assert found[:3] == item[:3]
    assert found.arrays.keys() == item.arrays.keys()
    assert all((found.arrays[name] == item.arrays[name]).all() for name in item.arrays)
    assert (log.item_digest("i"), log.item_digest("j")) == ("d", None)
    assert isinstance(log.together([partial(log.add_item, item)])[0], ConflictError)


def test_a_commit_waits_for_the_disk(log: EventLog) -> None:
    assert log._base.execute("PRAGMA synchronous").fetchone() == (2,)
    assert log._base.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_state_of_another_run_is_refused(log: EventLog) -> None:
    with pytest.raises(ValueError, match=r"has the events of run-1, not of run-2: give --state another file"):
        EventLog(log.path, "run-2")


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("words and words and words " * 100)
    with pytest.raises(ValueError, match="is not a state of bbqrec serve"):
        EventLog(tmp_path / "x", "run-1")
