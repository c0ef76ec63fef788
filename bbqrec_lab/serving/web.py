"""The routes of the server, their forms of questions and answers, and how it starts and ends."""

import asyncio
import re
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

try:
    import uvicorn
    from fastapi import FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise ValueError(f"bbqrec serve needs FastAPI and uvicorn ({error}): pip install 'bbqrec[serve]'") from error

from bbqrec_lab.serving.event_log import ConflictError, Event
from bbqrec_lab.serving.guard import Guard, need_token
from bbqrec_lab.serving.measured import Requests
from bbqrec_lab.serving.new_items import ContentError, ItemContent
from bbqrec_lab.serving.service import (
    MOST_LISTED,
    BusyError,
    Listed,
    Service,
    UnknownError,
    UnsupportedError,
    new_event_id,
    now,
    reason,
)

MOST_EVENTS = 1000  # of one request
LATEST = 50  # events of a page of the log
PAGE = {  # by path: the files of the live page
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"


def _as_text(value: object) -> object:
    """An ID that came as a number, as its digits."""
    return str(value) if type(value) is int else value


def _storable(text: str) -> str:
    """Text that can be written as UTF-8. Raises: ValueError for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which is no character") from None
    return text


Id = Annotated[
    str, BeforeValidator(_as_text), AfterValidator(_storable), Field(min_length=1, max_length=256, examples=["50"])
]
Words = Annotated[str, AfterValidator(_storable), Field(max_length=20_000)]
Count = Annotated[int, Query(ge=1, le=MOST_LISTED, description="Length of the list.")]


class _Form(BaseModel):
    """JSON with these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class EventForm(_Form):
    """A user chose an item. An event that is sent again with the same `event_id` is counted once."""

    user_id: Id
    item_id: Id
    event_id: Annotated[Id | None, Field(description="Without it, an event that is sent again counts again.")] = None
    time: Annotated[
        int | None, Field(ge=0, lt=2**53, strict=True, description="Seconds, or the unit of the data; default: now.")
    ] = None


class EventsForm(_Form):
    """Events that are acknowledged together: all of them, or none."""

    events: Annotated[list[EventForm], Field(min_length=1, max_length=MOST_EVENTS)]


class AcknowledgedEvent(BaseModel):
    """`stored`: on the disk now. `known`: it was there before, and nothing changed."""

    event_id: str
    status: str


class AcknowledgedEvents(BaseModel):
    """All events of the request, in its order."""

    events: list[AcknowledgedEvent]


class ItemForm(_Form):
    """A new item, by title and text, a picture, or vectors."""

    item_id: Id
    title: Words | None = None
    text: Words | None = None
    categories: Annotated[list[Words], Field(max_length=100)] = []
    picture: Annotated[str | None, Field(description="A picture file in base64.")] = None
    vectors: Annotated[
        dict[str, Annotated[list[float], Field(max_length=65_536)]],
        Field(max_length=16, description="Features by modality, as the dataset has them, not scaled."),
    ] = {}


class AcknowledgedItem(BaseModel):
    """The semantic ID of a new item; `status` as of events."""

    item_id: str
    code: str
    status: str


class Because(BaseModel):
    """The latest event of the history whose semantic ID shares most leading codes with a listed item."""

    item_id: str
    title: str | None
    shared_codes: int


class ListedItem(BaseModel):
    """An item of a list. `score`: in nats if the model gives probabilities. `code`: its semantic ID."""

    rank: int
    item_id: str
    title: str | None
    score: float
    code: str
    because: Because | None = None


class Recommended(BaseModel):
    """The next items of a user. `basis`: `history`, or `popularity` for a user without events."""

    user_id: str
    basis: str
    items: list[ListedItem]


class SimilarItem(BaseModel):
    """An item like another one. `shared_codes`: leading codes of both IDs. `cosine`: of their signals."""

    rank: int
    item_id: str
    title: str | None
    code: str
    shared_codes: int
    cosine: float


class Similar(BaseModel):
    """Items like one item: those that share most leading codes first."""

    item_id: str
    items: list[SimilarItem]


class LoggedEvent(BaseModel):
    """An event of the log with its number."""

    number: int
    user_id: str
    item_id: str
    title: str | None
    time: int


class Logged(BaseModel):
    """The newest events of the log, oldest first, and how many there are."""

    total: int
    events: list[LoggedEvent]


class Failure(BaseModel):
    """What every refusal is."""

    error: str
    remedy: str


def _refused(status: int, cause: str, remedy: str) -> Response:
    return JSONResponse({"error": cause, "remedy": remedy}, status, {"retry-after": "1"} if status == 503 else None)


def _handlers() -> dict[type[Exception], Callable[[Request, Exception], Response]]:
    """An answer for each kind of error that routes raise."""

    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        inside = first["loc"] if first["type"] != "json_invalid" else ()
        place = ".".join(str(part) for part in inside if part not in ("body", "query", "path"))
        cause = f"{place or 'the body'}: {first['msg'].removeprefix('Value error, ')}"
        return _refused(422, cause, "see /docs for the form of this request")

    def http(request: Request, error: HTTPException) -> Response:
        return _refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}", "see /docs")

    def unexpected(request: Request, error: Exception) -> Response:
        print(f"bbqrec serve: {request.method} {request.url.path}: {type(error).__name__}: {error}", file=sys.stderr)
        return _refused(500, f"internal error ({type(error).__name__})", "see the output of the server")

    unwritten = "nothing of this request is kept: free space on the disk, then send it again"
    return {
        RequestValidationError: invalid,
        HTTPException: http,
        UnknownError: lambda request, error: _refused(404, error.cause, error.remedy),
        ContentError: lambda request, error: _refused(422, error.cause, error.remedy),
        ConflictError: lambda request, error: _refused(409, str(error), "send the same content, or use another ID"),
        BusyError: lambda request, error: _refused(503, str(error), "try again in a second"),
        sqlite3.Error: lambda request, error: _refused(503, f"the state cannot be written ({error})", unwritten),
        UnsupportedError: lambda request, error: _refused(409, error.cause, error.remedy),
        Exception: unexpected,
    }


def make_app(service: Service, requests: Requests) -> FastAPI:
    """The routes of a service. Args: requests: the counts for /metrics."""
    refusals = {code: {"model": Failure} for code in (401, 403, 404, 409, 413, 415, 422, 429, 503)}
    app = FastAPI(
        title="bbqrec serve",
        summary="Live events, new items and recommendations of a finished run.",
        exception_handlers=_handlers(),
        responses=refusals,
    )

    for path, (name, kind) in PAGE.items():
        app.get(path, include_in_schema=False)(_page_part(name, kind))

    @app.post("/events")
    async def post_events(form: EventsForm) -> AcknowledgedEvents:
        """Acknowledge events: when the answer comes, they are on the disk and in the histories of their users."""
        at = now()
        events = [
            Event(e.event_id or new_event_id(), e.user_id, e.item_id, at if e.time is None else e.time)
            for e in form.events
        ]
        new = await asyncio.wrap_future(service.add_events(events, [e.time is not None for e in form.events]))
        return AcknowledgedEvents(
            events=[
                AcknowledgedEvent(event_id=event.event_id, status=_status(first))
                for event, first in zip(events, new, strict=True)
            ]
        )

    @app.get("/events")
    async def get_events(after: Annotated[int, Query(ge=0, lt=2**53)] = 0) -> Logged:
        """The newest events with a number above `after`."""
        catalogue = service.catalogue
        return Logged(
            total=service.events,
            events=[
                LoggedEvent(
                    number=number,
                    user_id=event.user_id,
                    item_id=event.item_id,
                    title=catalogue.titles[catalogue.rows[event.item_id] - 1],
                    time=event.time,
                )
                for number, event in service.latest(after, LATEST)
            ],
        )

    @app.post("/items", status_code=201)
    async def post_item(form: ItemForm, response: Response) -> AcknowledgedItem:
        """Encode a new item and give it a semantic ID; when the answer comes, it can be recommended."""
        vectors = {name: tuple(values) for name, values in form.vectors.items()}
        given = form.item_id, form.title, form.text, tuple(form.categories), form.picture, vectors
        code, new = await asyncio.wrap_future(service.add_item(ItemContent(*given)))
        if not new:
            response.status_code = 200
        return AcknowledgedItem(item_id=form.item_id, code=code, status=_status(new))

    @app.get("/recommend/{user_id:path}")
    async def get_recommended(
        user_id: str,
        k: Count = 10,
        explain: Annotated[bool, Query(description="Say which event of the user each item is like.")] = False,
        new: Annotated[bool, Query(description="The user may have no events.")] = False,
    ) -> Recommended:
        """The best next items of a user, without the items of the history, as `bbqrec recommend` gives them."""
        listed = await asyncio.wrap_future(service.recommend(user_id, k, new))
        return Recommended(user_id=user_id, basis=listed.basis, items=_items(listed, explain))

    @app.get("/similar/{item_id:path}")
    async def get_similar(item_id: str, k: Count = 10) -> Similar:
        """Items whose semantic IDs share most leading codes with that of an item, then by the cosine of signals."""
        catalogue, found = await asyncio.to_thread(service.similar, item_id, k)  # takes long in a large catalogue
        items = [
            SimilarItem(
                rank=place,
                item_id=catalogue.names[row - 1],
                title=catalogue.titles[row - 1],
                code=catalogue.code(row),
                shared_codes=shared,
                cosine=cosine,
            )
            for place, (row, shared, cosine) in enumerate(found, start=1)
        ]
        return Similar(item_id=item_id, items=items)

    @app.get("/healthz")
    async def get_health() -> dict[str, str]:
        """That the server answers, which run it serves, and whether new items are taken or refused; needs no token."""
        return {
            "status": "ok",
            "run": service.directory.name,
            "new_items": "refused" if service.refused else "taken",
        }

    @app.get("/metrics")
    async def get_metrics() -> PlainTextResponse:
        """Counts and times in the text form of Prometheus."""
        gauges = {
            "events": ("Live events that were acknowledged.", service.events),
            "users": ("Users with events.", service.users),
            "items": ("Items that can be recommended.", len(service.catalogue.names)),
            "new_items": ("Of these, items that are not of the run.", service.new_items),
            "resident_bytes": ("Memory of this process.", _resident()),
        }
        gauges |= {f"waiting_{name}": (f"Requests that wait for the {name}.", n) for name, n in service.waiting.items()}
        return PlainTextResponse(requests.text(gauges), media_type="text/plain; version=0.0.4")

    return app


def _page_part(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    """A route that sends one file of the live page."""
    content = (Path(__file__).parent / name).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers={"content-security-policy": POLICY})

    return send


def _status(new: bool) -> str:
    return "stored" if new else "known"


def _items(listed: Listed, explain: bool) -> list[ListedItem]:
    """The items of a list as they are sent."""
    catalogue, found = listed.catalogue, []
    for rank, (row, score) in enumerate(zip(listed.rows.tolist(), listed.scores.tolist(), strict=True), start=1):
        like = reason(listed, row) if explain else None
        because = Because(**like) if like else None
        name, title = catalogue.names[row - 1], catalogue.titles[row - 1]
        code = catalogue.code(row)
        found.append(ListedItem(rank=rank, item_id=name, title=title, score=score, code=code, because=because))
    return found


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    with suppress(OSError):
        told = re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())
        return 1024 * int(told[1]) if told else 0
    return 0


class _Server(uvicorn.Server):
    """Says on standard output where it can be reached, once it can be."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = sockets[0].getsockname()[:2]
        print(f"serving on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: ValueError for an address that is in use or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small answers at once; else each would wait 40 ms for an acknowledgement.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(2048)
    except OSError as error:
        found.close()
        cause = f"cannot listen on {host}:{port} ({error.strerror})"
        raise ValueError(f"{cause}: choose another --host or --port") from error
    return found


def serve(
    directory: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8700,
    token: str = "",
    per_second: float = 1000,
    state: Path | None = None,
    beam: int = 0,
) -> None:
    """Serve a finished run until the process is stopped.

    Args: directory: of the run. host, port: to listen on; port 0 takes a free one. token: that callers have to send.
        per_second: requests of one address; 0 is no limit. state: file of the events; beside the run if None.
        beam: as in `Service`.
    Raises: ValueError for an address that is in use, or that others can reach without a token, and as `Service`.
    """
    requests = Requests()
    need_token(host, token)  # before anything slow
    listening = _listen(host, port)
    path = state or directory.with_name(f"{directory.name}.served.sqlite")
    with listening:
        service = Service(
            directory, path, beam, lambda line: print(f"bbqrec serve: {line}", file=sys.stderr, flush=True)
        )
        try:
            app = make_app(service, requests)
            guarded = Guard(app, host=host, token=token, per_second=per_second, count=requests.count)
            config = uvicorn.Config(
                guarded,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,  # a caller could choose the address that its rate is counted for
                server_header=False,
                timeout_graceful_shutdown=10,
            )
            _Server(config).run(sockets=[listening])
        finally:
            service.close()
