"""Stands in front of every route: who may ask (Host, Origin, token), and how much.

Pure ASGI, no routes of its own; knows nothing of what is served behind it.
"""

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY_BYTES = 8 * 2**20
BODY_SECONDS = 60.0  # a client slower than this with its body is let go
DISCARD_SECONDS, DISCARD_BYTES = 0.5, 2**20  # what is taken of a body that is refused
GUESSES = 10  # wrong tokens in a row before it takes time
GUESS_SECONDS = 6.0  # one more guess is allowed each so many seconds
OPEN_PATHS = frozenset({"/health"})
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
SAFE_FETCH_SITES = (b"same-origin", b"none")

SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
]


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further; becomes an OpenAI-style error body."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self) -> bytes:
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        error = {
            "message": self.message,
            "type": kind.get(self.status, "invalid_request_error"),
            "param": None,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()


def values(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header, in order."""
    return [value for key, value in headers if key.lower() == name]


def own_hosts(port: int) -> frozenset[bytes]:
    """What the Host header may say. 80 is the port that clients leave out."""
    names = ("127.0.0.1", "localhost", "[::1]")
    hosts = {f"{name}:{port}".encode() for name in names}
    return frozenset(hosts | {name.encode() for name in names} if port == 80 else hosts)


def check_host(headers: Headers, hosts: Iterable[bytes]) -> Refusal | None:
    """A page of another site reaches us under that site's name (DNS rebinding): refuse it."""
    found = values(headers, b"host")
    if len(found) != 1 or found[0].strip().lower() not in hosts:
        return Refusal(403, "host_not_allowed", "this server answers to its own address only")
    return None


def check_origin(headers: Headers) -> Refusal | None:
    """A request that a page made must come from our own page: same scheme, host and port."""
    refusal = Refusal(403, "origin_not_allowed", "requests of other sites are not answered")
    host = values(headers, b"host")[0].strip().lower()
    if any(origin.strip().lower() != b"http://" + host for origin in values(headers, b"origin")):
        return refusal
    # Requests without an Origin (images, links, forms by GET) still say where they come from.
    if any(site not in SAFE_FETCH_SITES for site in values(headers, b"sec-fetch-site")):
        return refusal
    return None


def given_token(headers: Headers) -> bytes | None:
    """The token as OpenAI's or Anthropic's clients send it; None without one.

    Empty, and so always wrong, for anything unclear: another scheme, or two different tokens.
    """
    found = set()
    for value in values(headers, b"authorization"):
        scheme, _, token = value.strip().partition(b" ")
        found.add(token.strip() if scheme.lower() == b"bearer" else b"")
    found.update(value.strip() for value in values(headers, b"x-api-key"))
    if not found:
        return None
    return found.pop() if len(found) == 1 else b""


def check_content_type(method: str, headers: Headers) -> Refusal | None:
    """Only JSON: a form or a plain text is what a foreign page could send unasked."""
    if method not in BODY_METHODS:
        return None
    found = [value.split(b";")[0].strip().lower() for value in values(headers, b"content-type")]
    if found != [b"application/json"]:
        return Refusal(415, "not_json", "send the body as content-type application/json")
    return None


def check_length(headers: Headers, limit: int) -> Refusal | None:
    """A body that says itself that it is too long."""
    for value in values(headers, b"content-length"):
        if not value.isdigit() or len(value) > 18:
            return Refusal(400, "bad_content_length", "content-length must be a number")
        if int(value) > limit:
            return too_large(limit)
    return None


def too_large(limit: int) -> Refusal:
    return Refusal(413, "body_too_large", f"the body may have {limit} bytes")


class Guesses:
    """How many wrong tokens are still taken: a bucket that fills again with time.

    Shared by all clients: on loopback they cannot be told apart.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(GUESSES)
        self._at = clock()

    def wrong(self) -> float:
        """Count a wrong token; seconds to wait when there were too many, else 0."""
        now = self._clock()
        self._left = min(float(GUESSES), self._left + (now - self._at) / GUESS_SECONDS)
        self._at = now
        if self._left < 1.0:
            return (1.0 - self._left) * GUESS_SECONDS
        self._left -= 1.0
        return 0.0


class Guard:
    """Wraps an ASGI app. `port` is where it is served; `open_paths` need no token for reading.

    Order of the checks: Host, Origin, token, content type, body. A body is read whole before the
    app is called, so the limit holds without a Content-Length too.
    """

    def __init__(
        self,
        app: App,
        token: str,
        port: int,
        *,
        open_paths: frozenset[str] = OPEN_PATHS,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_seconds: float = BODY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not token:
            raise ValueError("the guard needs a token")
        self._app = app
        self._token = token.encode()
        self._hosts = own_hosts(port)
        self._open_paths = open_paths
        self._max_body_bytes = max_body_bytes
        self._body_seconds = body_seconds
        self._guesses = Guesses(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            refusal = self._check(scope, "GET")
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await _refuse_websocket(scope, send, refusal)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        # Any other kind of connection is not answered.

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._check(scope, scope["method"])
        if refusal is not None:
            await _discard(receive)
            await _refuse(send, refusal)
            return
        body = await self._read(receive)
        if isinstance(body, Refusal):
            await _refuse(send, body)
        elif body is not None:
            await self._app(scope, _replay(body, receive), _hardened(send))

    def _check(self, scope: Scope, method: str) -> Refusal | None:
        headers: Headers = list(scope["headers"])
        return (
            check_host(headers, self._hosts)
            or check_origin(headers)
            or self._check_token(scope, method, headers)
            or check_content_type(method, headers)
            or check_length(headers, self._max_body_bytes)
        )

    def _check_token(self, scope: Scope, method: str, headers: Headers) -> Refusal | None:
        token = given_token(headers)
        if token is not None and hmac.compare_digest(token, self._token):
            return None  # also while guesses are limited: the owner is never locked out
        if token is not None and (wait := self._guesses.wrong()):
            seconds = str(int(wait) + 1).encode()
            return Refusal(
                429, "too_many_guesses", "too many wrong tokens", ((b"retry-after", seconds),)
            )
        readable = scope["type"] == "http" and method in ("GET", "HEAD")
        if token is None and readable and scope["path"] in self._open_paths:
            return None
        return Refusal(
            401,
            "invalid_api_key",
            "send the token from the home's file `token` as Authorization: Bearer",
            ((b"www-authenticate", b"Bearer"),),
        )

    async def _read(self, receive: Receive) -> bytes | Refusal | None:
        """The whole body; None when the client is gone."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._max_body_bytes:
                        return too_large(self._max_body_bytes)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return Refusal(408, "body_too_slow", "the body did not arrive in time")


async def _discard(receive: Receive) -> None:
    """Takes a refused body, if it is short and comes soon: closed with bytes unread, a connection
    is reset, and the client never sees why."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while size < DISCARD_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, then what the connection says (that the client left)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _hardened(send: Send) -> Send:
    """Adds our headers to every answer and lets no CORS header through, whoever set it."""

    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (key, value)
                for key, value in message.get("headers", [])
                if not key.lower().startswith(b"access-control-")
            ]
            names = {key.lower() for key, _ in kept}
            extra = [header for header in SECURITY_HEADERS if header[0] not in names]
            message = {**message, "headers": kept + extra}
        await send(message)

    return hardened


def _answer(kind: str, refusal: Refusal) -> tuple[Message, Message]:
    body = refusal.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What is left of a refused body is not read.
        (b"connection", b"close"),
        *refusal.headers,
        *SECURITY_HEADERS,
    ]
    start = {"type": f"{kind}.start", "status": refusal.status, "headers": headers}
    return start, {"type": f"{kind}.body", "body": body}


async def _refuse(send: Send, refusal: Refusal) -> None:
    for message in _answer("http.response", refusal):
        await send(message)


async def _refuse_websocket(scope: Scope, send: Send, refusal: Refusal) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        for message in _answer("websocket.http.response", refusal):
            await send(message)
    else:
        # Before it is accepted, servers answer a close with 403.
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
