"""What the server refuses before any route runs: callers without the token, foreign hosts, too much, too often."""

import asyncio
import hmac
import ipaddress
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

OPEN = ("/", "/page.js", "/page.css", "/healthz")  # without a token: they tell nothing of users or items
MOST_BYTES, MOST_ITEM_BYTES = 2**20, 2**23  # of a body; of one with a new item, which may have a picture
MOST_READ = 2**25  # bytes of a body that is too large, before the connection is closed
MOST_WAITING = 1024  # requests at one time
BODY_SECONDS = 20  # for a whole body: a caller that sends one byte per second would hold a place for hours
ADDRESSES = 10_000  # callers whose rate is remembered
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
Scope = MutableMapping[str, object]
Receive = Callable[[], Awaitable[MutableMapping[str, object]]]
Send = Callable[[MutableMapping[str, object]], Awaitable[None]]


class Refusal(Exception):
    """An answer with an error. Args: status: of HTTP. cause, remedy: what is wrong, and what to do. wait: seconds."""

    def __init__(self, status: int, cause: str, remedy: str, wait: int = 0) -> None:
        super().__init__(f"{cause}: {remedy}")
        self.status, self.body, self.wait = status, {"error": cause, "remedy": remedy}, wait


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def need_token(host: str, token: str) -> None:
    """Raises: ValueError for an address that others can reach, without a token."""
    if not (token or is_loopback(host)):
        remedy = "give --token, or set BBQREC_TOKEN to a long secret"
        raise ValueError(f"--host {host} can be reached from other machines: {remedy}")


@dataclass
class Rate:
    """A budget of requests per caller that refills with time. Args: per_second: 0 is no limit."""

    per_second: float
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, caller: str, at: float) -> bool:
        """Whether a caller may send one more request at a time in seconds; two seconds' worth may come at once."""
        if not self.per_second:
            return True
        most = max(2 * self.per_second, 1.0)
        left, before = self._left.pop(caller, (most, at))
        left = min(most, left + (at - before) * self.per_second)
        self._left[caller] = (left - 1 if left >= 1 else left, at)
        while len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return left >= 1


class Guard:
    """An ASGI application around another one; all refusals are JSON with the keys error and remedy.

    Args: inner: the application. host: on which the server listens. token: that callers have to send; empty for none.
        per_second: requests of one address. count: told the route, the status and the seconds of each answer.
    Raises: as `need_token`.
    """

    def __init__(
        self,
        inner: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        host: str,
        token: str = "",
        per_second: float = 0,
        count: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ) -> None:
        self.inner, self.token, self.local, self.count = inner, token, is_loopback(host), count
        self.rate, self.waiting = Rate(per_second), 0
        need_token(host, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.inner(scope, receive, send)
            return
        if scope["type"] != "http":  # no route is a web socket
            await send({"type": "websocket.close", "code": 1008})
            return
        began, status = time.monotonic(), 500

        async def answer(message: MutableMapping[str, object]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                there = {name for name, _ in message.get("headers", [])}
                message["headers"] = [*message.get("headers", []), *(pair for pair in HEADERS if pair[0] not in there)]
            await send(message)

        self.waiting += 1
        try:
            body = await self._checked(scope, receive)
            await self.inner(scope, _replay(body, receive), answer)
        except Refusal as refusal:
            await _refuse(refusal, answer)
        finally:
            self.waiting -= 1
            route = scope.get("route")
            self.count(getattr(route, "path", "none"), status, time.monotonic() - began)

    async def _checked(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that is not refused. Raises: Refusal."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, method, caller = str(scope["path"]), str(scope["method"]), str((scope.get("client") or ("?",))[0])
        if self.waiting > MOST_WAITING:
            raise Refusal(503, f"more than {MOST_WAITING} requests at one time", "try again in a second", 1)
        if not self.rate.take(caller, time.monotonic()):
            limit = f"more than {self.rate.per_second:g} requests per second from one address"
            raise Refusal(429, limit, "wait a second, or start the server with a higher --rate", 1)
        if self.local:
            self._check_host(headers)
        if self.token and path not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
                raise Refusal(401, "no valid token", "send the header Authorization: Bearer TOKEN")
        if method not in ("POST", "PUT", "PATCH", "DELETE"):
            return b""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "the body is not declared as JSON", "send the header Content-Type: application/json")
        return await _body(headers, receive, MOST_ITEM_BYTES if path == "/items" else MOST_BYTES)

    def _check_host(self, headers: dict[str, str]) -> None:
        """On loopback, a page of another site may reach this server by a name of its own that leads here.

        Raises: Refusal for a request that names another host, or comes from a page of another host.
        """
        named = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if not is_loopback(named):
            raise Refusal(403, f"host {named!r} is not this machine", "use 127.0.0.1 or localhost in the address")
        origin = headers.get("origin")
        if origin and not is_loopback(urlsplit(origin).hostname or ""):
            raise Refusal(403, f"pages of {origin!r} may not use this server", "send requests from this machine")


async def _body(headers: dict[str, str], receive: Receive, most: int) -> bytes:
    """A whole body. Raises: Refusal if it is too large or takes too long.

    Choice: of a body that is too large, some more is read and thrown away: a caller that is still sending when the
        connection closes sees a broken pipe instead of the reason.
    """
    declared = headers.get("content-length", "0")
    parts, size, more = [], 0, not (declared.isdecimal() and int(declared) > MOST_READ)
    large = not more
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more and size <= MOST_READ:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the caller left before the body was complete", "send the request again")
                part = message.get("body", b"")
                size, more = size + len(part), bool(message.get("more_body"))
                large = large or size > most
                if not large:
                    parts.append(part)
    except TimeoutError:
        raise Refusal(408, f"the body took more than {BODY_SECONDS} seconds", "send it faster, or in parts") from None
    if large:
        raise Refusal(413, f"the body has more than {most:,} bytes", "send fewer events, or a smaller picture")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that has been read."""
    told = False

    async def again() -> MutableMapping[str, object]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(refusal: Refusal, send: Send) -> None:
    content = json.dumps(refusal.body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"retry-after", str(refusal.wait).encode())] if refusal.wait else []
    headers += [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
    headers += [(b"connection", b"close")] if refusal.status in (408, 413) else []  # the rest of the body is not read
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
