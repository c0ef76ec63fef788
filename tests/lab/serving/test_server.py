"""`bbqrec serve` in a process of its own, over HTTP: lists, events, new items, refusals, and what a kill leaves."""

import http.client
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from served import HEADERS, Server, ask_on, make_run, vectors_of

import bbqrec_lab.serving
from bbqrec_core import Sequences, metrics
from bbqrec_lab import cli
from bbqrec_lab.datasets.reading import NamedDataset
from bbqrec_lab.experiments import runs
from bbqrec_lab.serving import guard, web

pytest.importorskip("fastapi")
Run = tuple[NamedDataset, Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(run[1], "--rate", "0", state=tmp_path_factory.mktemp("state") / "state.sqlite") as found:
        yield found


def wanted(directory: Path, rows: list[int], times: list[int], k: int) -> list[tuple[str, float]]:
    """The list after a history, computed from the run without any part of the server."""
    scorer, items = runs.load_scorer(directory), pl.read_parquet(directory / "items.parquet")["item_id"].cast(pl.String)
    history, user = Sequences(np.array([0, len(rows)]), np.array(rows, np.int32), np.array(times)), np.array([0])
    best = metrics.filter_seen(scorer.scores(history, user), history, user)[0].sort(descending=True, stable=True)
    pairs = zip(best.indices[:k].tolist(), best.values[:k].tolist(), strict=True)
    return [(items[row - 1], score) for row, score in pairs if score > -np.inf]


def listed(answer: dict) -> list[tuple[str, float]]:
    return [(item["item_id"], item["score"]) for item in answer["items"]]


def same(found: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    """Whether two lists have the same items in the same order, with scores equal up to rounding."""
    return [name for name, _ in found] == [name for name, _ in other] and np.allclose(
        [score for _, score in found], [score for _, score in other], atol=1e-5
    )


def history_of(data: NamedDataset, user: str) -> tuple[list[int], list[int]]:
    place = list(map(str, data.users)).index(user)
    part = slice(*data.sequences.offsets[place : place + 2])
    return data.sequences.items[part].tolist(), data.sequences.times[part].tolist()


# ---- lists ----


def test_lists_are_those_of_the_recommend_command(run: Run, server: Server) -> None:
    users = list(map(str, run[0].users))
    table = runs.recommend_users(run[1], users, 7)
    for user in users:
        status, answer = server.ask(f"/recommend/{user}", k=7)
        rows = table.filter(pl.col("user_id").cast(pl.String) == user)
        assert (status, answer["basis"]) == (200, "history")
        assert same(listed(answer), list(rows.select(pl.col("item_id").cast(pl.String), "score").iter_rows()))
        assert [item["code"] for item in answer["items"]] == rows["code"].to_list()
        assert [item["title"] for item in answer["items"]] == rows["title"].to_list()


def test_lists_of_many_who_ask_at_once_are_those_of_one_at_a_time(run: Run, server: Server) -> None:
    users = list(map(str, run[0].users))
    alone = {user: server.ask(f"/recommend/{user}", k=9)[1] for user in users}
    found: dict[str, dict] = {}

    def ask(user: str) -> None:
        found[user] = server.ask(f"/recommend/{user}", k=9)[1]

    threads = [threading.Thread(target=ask, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(listed(found[user]), listed(alone[user])) for user in users)


def test_an_event_changes_the_list_as_if_it_had_been_in_the_data(run: Run, server: Server) -> None:
    user, items = str(run[0].users[3]), run[0].items["item_id"].cast(pl.String)
    rows, times = history_of(run[0], user)
    for row, time_given in ((5, times[-1] + 10), (9, times[-1] + 10), (2, times[0] - 1)):
        event = {"user_id": user, "item_id": items[row - 1], "time": time_given}
        assert server.ask("/events", {"events": [event]})[0] == 200
        place = int(np.searchsorted(times, time_given, "right"))  # behind events of the same time
        rows.insert(place, row)
        times.insert(place, time_given)
        assert same(listed(server.ask(f"/recommend/{user}", k=6)[1]), wanted(run[1], rows, times, 6))


def test_a_new_user_has_the_list_of_the_events_sent(run: Run, server: Server) -> None:
    items = run[0].items["item_id"].cast(pl.String)
    events = [{"user_id": "somebody/new ü", "item_id": items[row - 1], "time": row} for row in (3, 8)]
    assert server.ask("/events", {"events": events})[0] == 200
    status, answer = server.ask("/recommend/somebody%2Fnew%20%C3%BC", k=5)
    assert (status, answer["user_id"]) == (200, "somebody/new ü")
    assert same(listed(answer), wanted(run[1], [3, 8], [3, 8], 5))


def test_a_user_without_events_is_unknown_or_gets_what_is_popular(run: Run, server: Server) -> None:
    known = str(run[0].users[0])
    status, answer = server.ask(f"/recommend/{known}x")
    assert status == 404
    assert answer["error"] == f"no events of user '{known}x'"
    assert f"did you mean '{known}'?" in answer["remedy"]
    status, answer = server.ask("/recommend/nobody", k=3, new="true")
    assert (status, answer["basis"]) == (200, "popularity")
    counts = [item["score"] for item in answer["items"]]
    assert counts == sorted(counts, reverse=True)
    training = pl.read_parquet(run[1] / "items.parquet")["training_events"].max()
    assert counts[0] >= training


def test_an_explanation_names_an_event_that_shares_codes(run: Run, server: Server) -> None:
    user = str(run[0].users[1])
    items = pl.read_parquet(run[1] / "items.parquet")["item_id"].cast(pl.String).to_list()
    past = {items[row - 1] for row in history_of(run[0], user)[0]}
    codes = dict(zip(items, [item["code"] for item in all_items(server)], strict=False))
    explained = server.ask(f"/recommend/{user}", k=20, explain="true")[1]["items"]
    reasons = [item for item in explained if item["because"]]
    assert reasons, "with five codes at the first place, some item shares one"
    for item in reasons:
        because = item["because"]
        assert because["item_id"] in past
        own = similar(server, item["item_id"])
        assert own[because["item_id"]] == because["shared_codes"]
    assert codes
    assert all(item["because"] is None for item in server.ask(f"/recommend/{user}", k=20)[1]["items"])


def all_items(server: Server) -> list[dict]:
    return server.ask("/recommend/whoever", k=1000, new="true")[1]["items"]


def similar(server: Server, item: str) -> dict[str, int]:
    return {found["item_id"]: found["shared_codes"] for found in server.ask(f"/similar/{item}", k=1000)[1]["items"]}


def test_similar_items_share_codes_first_then_signals(run: Run, server: Server) -> None:
    item = str(run[0].items["item_id"][0])
    status, answer = server.ask(f"/similar/{item}", k=1000)
    assert status == 200
    found = answer["items"]
    assert item not in {other["item_id"] for other in found}
    assert len(found) >= run[0].n_items - 1
    keys = [(other["shared_codes"], other["cosine"]) for other in found]
    assert keys == sorted(keys, reverse=True)
    codes = {other["item_id"]: other["code"].split("-") for other in all_items(server)}
    for other in found:
        same_codes = [one == two for one, two in zip(codes[item], codes[other["item_id"]], strict=True)]
        assert other["shared_codes"] == [*same_codes, False].index(False)


# ---- events ----


def test_an_event_sent_again_is_known_and_an_id_of_another_is_refused(run: Run, server: Server) -> None:
    item, other = map(str, run[0].items["item_id"][:2])
    event = {"user_id": "twice", "item_id": item, "event_id": "order-1"}
    total = server.ask("/events")[1]["total"]
    assert server.ask("/events", {"events": [event]})[1] == {"events": [{"event_id": "order-1", "status": "stored"}]}
    assert server.ask("/events", {"events": [event]})[1] == {"events": [{"event_id": "order-1", "status": "known"}]}
    fresh = {"user_id": "twice", "item_id": other, "event_id": "order-2"}
    status, answer = server.ask("/events", {"events": [fresh, event | {"item_id": other}]})
    assert (status, "order-1" in answer["error"]) == (409, True)
    assert server.ask("/events")[1]["total"] == total + 1, "all events of a request, or none"
    assert server.ask("/events", {"events": [fresh]})[1]["events"][0]["status"] == "stored"


def test_events_of_unknown_items_are_refused_with_all_of_their_request(run: Run, server: Server) -> None:
    item, total = str(run[0].items["item_id"][0]), server.ask("/events")[1]["total"]
    events = [{"user_id": "u", "item_id": item}, {"user_id": "u", "item_id": item + "x"}]
    status, answer = server.ask("/events", {"events": events})
    assert (status, answer["error"]) == (404, f"no item '{item}x'")
    assert f"did you mean '{item}'?" in answer["remedy"]
    assert server.ask("/events")[1]["total"] == total


def test_the_log_shows_the_newest_events(run: Run, server: Server) -> None:
    item, before = str(run[0].items["item_id"][4]), server.ask("/events")[1]["total"]
    server.ask("/events", {"events": [{"user_id": "logged", "item_id": item, "time": 12}] * 2})
    answer = server.ask("/events", after=before)[1]
    assert answer["total"] == before + 2
    (one, two) = answer["events"]
    assert (one["number"], two["number"]) == (before + 1, before + 2)
    assert (one["user_id"], one["item_id"], one["time"]) == ("logged", item, 12)


# ---- new items ----


def test_a_new_item_is_listed_at_once_and_can_be_chosen(run: Run, server: Server) -> None:
    user = str(run[0].users[2])
    form = {"item_id": 9001, "title": "A thing", "vectors": vectors_of(run[0], 4)}
    status, answer = server.ask("/items", form)
    assert (status, answer["status"]) == (201, "stored")
    assert (answer["item_id"], len(answer["code"].split("-"))) == ("9001", 2)
    everything = {item["item_id"]: item for item in server.ask(f"/recommend/{user}", k=1000)[1]["items"]}
    assert everything["9001"]["title"] == "A thing"
    assert everything["9001"]["code"] == answer["code"]
    assert server.ask("/items", form)[:2] == (200, answer | {"status": "known"})
    assert server.ask("/items", form | {"title": "Another"})[0] == 409
    assert server.ask("/items", form | {"item_id": str(run[0].items["item_id"][0])})[0] == 409
    assert server.ask("/events", {"events": [{"user_id": "fan", "item_id": 9001}]})[0] == 200
    after = server.ask("/recommend/fan", k=1000)[1]["items"]
    assert "9001" not in {item["item_id"] for item in after}
    assert all(np.isfinite(item["score"]) for item in after)
    assert max(similar(server, "9001").values()) >= 1


@pytest.mark.parametrize(
    ("form", "status", "word"),
    [
        ({"item_id": "a"}, 422, "nothing to encode"),
        ({"item_id": "a", "title": "words alone"}, 422, "numbers in vectors.text"),
        ({"item_id": "a", "vectors": {"text": [1.0]}}, 422, "finite numbers"),
        ({"item_id": "a", "vectors": {"smell": [1.0]}}, 422, "choose from image, text"),
        ({"item_id": "", "title": "x"}, 422, "item_id"),
        ({"item_id": "a", "colour": "red"}, 422, "colour"),
    ],
)
def test_items_that_cannot_be_encoded_are_refused(server: Server, form: dict, status: int, word: str) -> None:
    found, answer = server.ask("/items", form)
    assert found == status
    assert word in answer["error"] + answer["remedy"]


def test_a_run_without_learned_ids_says_that_it_takes_no_items(tmp_path: Path) -> None:
    data, directory = make_run(tmp_path, "popularity")
    with Server(directory, state=tmp_path / "state.sqlite") as server:
        status, answer = server.ask("/items", {"item_id": "a", "vectors": vectors_of(data, 1)})
        assert (status, "takes no new items" in answer["error"]) == (422, True)
        assert "no semantic IDs" in answer["error"]
        assert server.ask("/healthz")[1] == {"status": "ok", "run": directory.name, "new_items": "refused"}
        user = str(data.users[0])
        rows = runs.recommend_users(directory, [user], 4)
        assert [name for name, _ in listed(server.ask(f"/recommend/{user}", k=4)[1])] == rows["item_id"].to_list()
        assert server.ask(f"/similar/{data.items['item_id'][0]}")[0] == 409


# ---- refusals ----


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "word"),
    [
        ("/nowhere", None, {}, 404, "/nowhere"),
        ("/similar/nothing", None, {}, 404, "no item 'nothing'"),
        ("/recommend/u?k=0", None, {}, 422, "k: "),
        ("/recommend/u?k=1001", None, {}, 422, "k: "),
        ("/recommend/u?k=x", None, {}, 422, "k: "),
        ("/events", b"{", {}, 422, "the body"),
        ("/events", b"\xff\xfe", {}, 422, "the body"),
        ("/events", {"events": []}, {}, 422, "events"),
        ("/events", {"events": [{"user_id": "u"}]}, {}, 422, "events.0.item_id"),
        ("/events", {"events": [{"user_id": "u", "item_id": "i", "time": -1}]}, {}, 422, "events.0.time"),
        ("/events", {"events": [{"user_id": "u", "item_id": "i", "time": 1.5}]}, {}, 422, "events.0.time"),
        ("/events", {"events": [{"user_id": "u" * 257, "item_id": "i"}]}, {}, 422, "events.0.user_id"),
        ("/events", b'{"events":[{"user_id":"\\ud800","item_id":"i"}]}', {}, 422, "surrogate"),
        ("/events", {"events": [{"user_id": "u", "item_id": "i"}] * (web.MOST_EVENTS + 1)}, {}, 422, "events"),
        ("/events", b" " * (guard.MOST_BYTES + 1), {}, 413, "more than"),
        ("/events", {"events": []}, {"Content-Type": "text/plain"}, 415, "Content-Type: application/json"),
        ("/healthz", None, {"Host": "shop.example"}, 403, "127.0.0.1"),
        ("/healthz", None, {"Host": "127.0.0.1.evil.example"}, 403, "127.0.0.1"),
        ("/events", {"events": []}, {"Origin": "https://evil.example"}, 403, "evil.example"),
    ],
)
def test_every_refusal_is_json_with_cause_and_remedy(
    server: Server, path: str, body: object, headers: dict[str, str], status: int, word: str
) -> None:
    found, answer = server.ask(path, body, headers)
    assert (found, set(answer)) == (status, {"error", "remedy"})
    assert word in answer["error"] + answer["remedy"]
    assert all(isinstance(text, str) and text for text in answer.values())


def test_a_body_without_a_declared_size_is_limited_too(server: Server) -> None:
    connection = server.connect()
    parts = (b" " * 2**16 for _ in range(guard.MOST_BYTES // 2**16 + 2))
    connection.request("POST", "/events", parts, HEADERS, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert server.ask("/healthz")[0] == 200


def test_another_address_needs_a_token(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["serve", "--run", str(run[1]), "--host", "0.0.0.0"]) == 2
    assert "give --token, or set BBQREC_TOKEN" in capsys.readouterr().err


def test_with_a_token_nothing_is_told_without_it(run: Run, tmp_path: Path) -> None:
    user = str(run[0].users[0])
    with Server(run[1], "--host", "0.0.0.0", state=tmp_path / "s.sqlite", BBQREC_TOKEN="open sesame") as server:
        for given in ({}, {"Authorization": "Bearer open"}, {"Authorization": "Basic open sesame"}):
            status, answer = server.ask(f"/recommend/{user}", None, given)
            assert (status, set(answer)) == (401, {"error", "remedy"})
        right = {"Authorization": "Bearer open sesame", "Host": "shop.example"}
        assert server.ask(f"/recommend/{user}", None, right)[0] == 200
        assert server.ask("/healthz")[0] == 200
        assert server.ask("/openapi.json")[0] == 401


def test_callers_that_ask_too_often_wait(run: Run, tmp_path: Path) -> None:
    with Server(run[1], "--rate", "5", state=tmp_path / "s.sqlite") as server:
        found = [server.ask("/healthz")[0] for _ in range(30)]
        assert found[:10] == [200] * 10, "two seconds' worth may come at once"
        assert 429 in found
        time.sleep(1.1)
        assert server.ask("/healthz")[0] == 200


def test_one_state_has_one_server(run: Run, server: Server) -> None:
    with pytest.raises(AssertionError, match=r"another server has .* open: stop it, or give --state another file"):
        Server(run[1], state=server.state)


def test_without_its_packages_the_command_says_how_to_install_them(
    run: Run, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "bbqrec_lab.serving.web")
    monkeypatch.delattr(bbqrec_lab.serving, "web")
    assert cli.main(["serve", "--run", str(run[1])]) == 2
    assert "pip install 'bbqrec[serve]'" in capsys.readouterr().err


def test_what_is_open_is_described(server: Server) -> None:
    paths = server.ask("/openapi.json")[1]["paths"]
    assert {"/events", "/items", "/recommend/{user_id}", "/similar/{item_id}", "/healthz", "/metrics"} <= {
        path.replace(":path", "") for path in paths
    }
    assert server.ask("/healthz")[0] == 200
    text = server.text("/metrics")
    assert re.search(r'bbqrec_answers_total\{route="/healthz",status="200"\} [1-9]', text)
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{.*\})? [-+.\de]+", line), line
    buckets = re.findall(r'bbqrec_seconds_bucket\{route="/healthz",le="[^"]+"\} (\d+)', text)
    assert list(map(int, buckets)) == sorted(map(int, buckets))


# ---- what a kill leaves ----


class Load(threading.Thread):
    """A client that sends events, now and then a new item, and notes what was acknowledged."""

    def __init__(self, server: Server, data: NamedDataset, name: str) -> None:
        super().__init__(daemon=True)
        self.server, self.data, self.label = server, data, name
        self.sent: dict[str, dict] = {}
        self.acknowledged: set[str] = set()
        self.items: set[str] = set()

    def run(self) -> None:
        names, connection, vectors = (
            self.data.items["item_id"].cast(pl.String),
            self.server.connect(),
            vectors_of(self.data, 3),
        )
        number = 0
        try:
            while True:
                number += 1
                event_id = f"{self.label}-{number}"
                event = {
                    "user_id": self.label,
                    "item_id": names[number % len(names)],
                    "event_id": event_id,
                    "time": number,
                }
                self.sent[event_id] = event
                status, _ = ask_on(connection, "/events", {"events": [event]})
                assert status == 200
                self.acknowledged.add(event_id)
                if number % 10 == 0:
                    status, _ = ask_on(connection, "/items", {"item_id": f"item-{event_id}", "vectors": vectors})
                    assert status == 201
                    self.items.add(f"item-{event_id}")
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


def killed_under_load(run: Run, state: Path, kills: int) -> None:
    """Kill a server under load, start it again, and compare what it has with what was acknowledged."""
    rng = np.random.default_rng(0)
    acknowledged: set[str] = set()
    items: set[str] = set()
    sent: dict[str, dict] = {}
    for round_ in range(kills):
        server = Server(run[1], "--rate", "0", state=state)
        assert int(re.search(r"^bbqrec_events (\d+)", server.text("/metrics"), re.M)[1]) >= len(acknowledged)
        clients = [Load(server, run[0], f"client{round_}.{number}") for number in range(6)]
        for client in clients:
            client.start()
        end = time.monotonic() + 60
        while sum(len(client.acknowledged) for client in clients) < 20 or not any(client.items for client in clients):
            assert time.monotonic() < end, "the server is not under load"
            time.sleep(0.05)
        time.sleep(rng.random())
        server.kill()
        for client in clients:
            client.join(60)
            assert not client.is_alive()
            acknowledged |= client.acknowledged
            items |= client.items
            sent |= client.sent
    with closing(sqlite3.connect(state)) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = [row[0] for row in base.execute("SELECT event_id FROM events")]
        kept_items = {row[0] for row in base.execute("SELECT item_id FROM items")}
    assert acknowledged <= set(kept) <= set(sent)
    assert len(kept) == len(set(kept))
    assert items <= kept_items
    with Server(run[1], "--rate", "0", state=state) as server:
        again = sorted(sent)
        for start in range(0, len(again), 500):
            events = [sent[name] for name in again[start : start + 500]]
            found = server.ask("/events", {"events": events})[1]["events"]
            assert all(event["status"] == "known" for event in found if event["event_id"] in set(kept))
        assert server.ask("/events")[1]["total"] == len(sent), (
            "what was not acknowledged is sent again, and counts once"
        )
        listed_items = {item["item_id"] for item in all_items(server)}
        assert items <= listed_items
        user = sorted({event["user_id"] for event in sent.values()})[0]
        own = sorted((event["time"], event["item_id"]) for event in sent.values() if event["user_id"] == user)
        status, answer = server.ask(f"/recommend/{user}", k=1000)
        assert (status, answer["basis"]) == (200, "history")
        assert not {item for _, item in own} & {item["item_id"] for item in answer["items"]}


def test_a_server_that_is_killed_under_load_loses_nothing_that_it_acknowledged(run: Run, tmp_path: Path) -> None:
    killed_under_load(run, tmp_path / "state.sqlite", 3)


@pytest.mark.torture
def test_a_server_that_is_killed_fifty_times_loses_nothing(run: Run, tmp_path: Path) -> None:
    killed_under_load(run, tmp_path / "state.sqlite", 50)


def test_a_restarted_server_gives_the_same_lists(run: Run, tmp_path: Path) -> None:
    state, names = tmp_path / "state.sqlite", run[0].items["item_id"].cast(pl.String)
    user, other = map(str, run[0].users[:2])
    with Server(run[1], state=state) as server:
        for row in (3, 7):
            server.ask("/items", {"item_id": f"n{row}", "title": f"N {row}", "vectors": vectors_of(run[0], row)})
        events = [{"user_id": user, "item_id": item} for item in (names[2], "n3", names[8])]
        server.ask("/events", {"events": [*events, {"user_id": "new", "item_id": "n7"}]})
        asked = [
            (f"/{kind}", 40) for kind in (f"recommend/{user}", f"recommend/{other}", "recommend/new", "similar/n3")
        ]
        before = [server.ask(path, k=k)[1] for path, k in asked]
        server.kill()
    with Server(run[1], state=state) as server:
        assert [server.ask(path, k=k)[1] for path, k in asked] == before
        assert server.stop() == 0
        assert "all acknowledged events and items are kept" in "".join(server.told)


# ---- the page of the manual ----


def test_the_examples_of_the_manual_work(run: Run, root: Path, tmp_path: Path) -> None:
    """Every curl of docs/serving.md, in its order, on a server of its own."""
    page = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [
        line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("curl ")
    ]
    assert len(commands) >= 6
    with Server(run[1], state=tmp_path / "state.sqlite") as server:
        for command in commands:
            words = shlex.split(command.replace("127.0.0.1:8700", f"127.0.0.1:{server.port}"))
            if any("vectors" in word for word in words):  # the widths of the page are those of another dataset
                place = words.index("-d") + 1
                words[place] = json.dumps(json.loads(words[place]) | {"vectors": vectors_of(run[0], 3)})
            done = subprocess.run([*words, "--fail-with-body", "-sS"], capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
