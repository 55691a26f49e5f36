"""The guard against hostile pages and clients, spoken to in plain ASGI."""

import asyncio
import json
from typing import Any

import pytest

from acclimate.daemon.guard import GUESS_SECONDS, GUESSES, Guard

TOKEN = "t" * 43
PORT = 8765
HOST = (b"host", b"127.0.0.1:8765")
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())
JSON = (b"content-type", b"application/json")
PATHS = ["/", "/v1/chat/completions", "/docs", "/openapi.json", "/static/app.js", "/health"]


class Served:
    """An app behind the guard that notes what reaches it, and sets a CORS header."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.bodies: list[bytes] = []
        self.guard = Guard(self.app, TOKEN, PORT, clock=lambda: self.now, **options)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        message = await receive()
        self.bodies.append(message["body"])
        headers = [(b"access-control-allow-origin", b"*"), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(
        self,
        *headers: tuple[bytes, bytes],
        method: str = "GET",
        path: str = "/v1/models",
        body: list[bytes] | None = None,
        kind: str = "http",
    ) -> tuple[int, dict[bytes, bytes], Any]:
        """Status, headers and parsed body of the answer."""
        parts = list(body or [b""])
        sent: list[Any] = []

        async def receive() -> Any:
            if not parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": kind, "method": method, "path": path, "headers": list(headers)}
        asyncio.run(self.guard(scope, receive, send))
        if kind == "websocket":
            return (101 if sent[0]["type"] == "websocket.accept" else 403), {}, None
        answer = dict(sent[0]["headers"])
        assert not any(name.startswith(b"access-control") for name in answer)
        return sent[0]["status"], answer, json.loads(sent[1]["body"])


def test_the_owner_is_served_under_every_own_name() -> None:
    served = Served()
    for host in (b"127.0.0.1:8765", b"localhost:8765", b"LocalHost:8765", b"[::1]:8765"):
        status, headers, _ = served.ask((b"host", host), BEARER)
        assert status == 200
        assert headers[b"x-kept"] == b"1"
        assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "host",
    [
        b"evil.com",
        b"evil.com:8765",
        b"localhost.evil.com:8765",
        b"127.evil.com:8765",
        b"127.0.0.1:evil.com",
        b"127.0.0.1:8765.evil.com",
        b"127.0.0.1:8765@evil.com",
        b"x.local:8765",
        b"localhost.:8765",
        b"localhost",
        b"127.0.0.1:80",
        b"127.0.0.2:8765",
        b"0.0.0.0:8765",
        b"[::]:8765",
        b"::1:8765",
        b"2130706433:8765",
        b"",
        b"localhost:8765, evil.com",
        b"\xff",
    ],
)
def test_a_foreign_host_is_refused_on_every_path(host: bytes) -> None:
    served = Served()
    for path in PATHS:
        assert served.ask((b"host", host), BEARER, path=path)[0] == 403
    assert served.ask((b"host", host), BEARER, kind="websocket")[0] == 403
    assert served.bodies == []


def test_no_host_and_two_hosts_are_refused() -> None:
    served = Served()
    assert served.ask(BEARER)[0] == 403
    assert served.ask(HOST, HOST, BEARER)[0] == 403
    assert served.ask(HOST, (b"Host", b"evil.com"), BEARER)[0] == 403


def test_port_80_may_be_left_out() -> None:
    guard = Guard(Served().app, TOKEN, 80)
    served = Served()
    served.guard = guard
    assert served.ask((b"host", b"localhost"), BEARER)[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        b"https://evil.com",
        b"null",
        b"",
        b"http://127.0.0.1:9999",
        b"http://localhost:8765",
        b"https://127.0.0.1:8765",
        b"http://127.0.0.1:8765.evil.com",
        b"http://127.0.0.1:8765/",
        b"file://",
    ],
)
def test_a_foreign_origin_is_refused_on_every_path(origin: bytes) -> None:
    served = Served()
    for path in PATHS:
        for method in ("GET", "POST", "OPTIONS"):
            assert served.ask(HOST, (b"origin", origin), BEARER, path=path, method=method)[0] == 403
    assert served.ask(HOST, (b"origin", origin), BEARER, kind="websocket")[0] == 403
    assert served.bodies == []


def test_our_own_page_may_ask() -> None:
    served = Served()
    own = (b"origin", b"http://127.0.0.1:8765")
    assert served.ask(HOST, own, BEARER)[0] == 200
    assert served.ask(HOST, own, BEARER, kind="websocket")[0] == 101
    assert served.ask(HOST, own, (b"origin", b"https://evil.com"), BEARER)[0] == 403


@pytest.mark.parametrize(("site", "status"), [
    (b"cross-site", 403), (b"same-site", 403), (b"same-origin", 200), (b"none", 200),
])  # fmt: skip
def test_images_and_links_of_other_sites_are_refused(site: bytes, status: int) -> None:
    assert Served().ask(HOST, (b"sec-fetch-site", site), BEARER)[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", TOKEN.encode())],
        [(b"authorization", b"Basic " + TOKEN.encode())],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer " + TOKEN.encode()[:-1])],
        [(b"authorization", b"Bearer \xff\xfe")],
        [BEARER, (b"authorization", b"Bearer other")],
        [BEARER, (b"x-api-key", b"other")],
        [(b"cookie", b"token=" + TOKEN.encode())],
    ],
)
def test_without_the_token_nothing_is_served(headers: list[tuple[bytes, bytes]]) -> None:
    status, answer, body = Served().ask(HOST, *headers)
    assert status == 401
    assert answer[b"www-authenticate"] == b"Bearer"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert TOKEN not in json.dumps(body)


def test_the_token_may_come_as_anthropics_clients_send_it() -> None:
    key = (b"x-api-key", TOKEN.encode())
    assert Served().ask(HOST, key)[0] == 200
    assert Served().ask(HOST, key, BEARER)[0] == 200


def test_health_can_be_read_without_a_token_and_only_read() -> None:
    served = Served()
    assert served.ask(HOST, path="/health")[0] == 200
    assert served.ask(HOST, JSON, path="/health", method="POST")[0] == 401
    assert served.ask(HOST, path="/health/../v1/models")[0] == 401
    assert served.ask(HOST, path="/health", kind="websocket")[0] == 403


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
def test_guesses_are_limited_and_the_owner_is_not(name: bytes) -> None:
    served = Served()
    prefix = b"Bearer " if name == b"authorization" else b""
    statuses = [served.ask(HOST, (name, prefix + b"guess%d" % i))[0] for i in range(1000)]
    assert statuses == [401] * GUESSES + [429] * (1000 - GUESSES)
    status, headers, _ = served.ask(HOST, (name, prefix + b"x"), path="/health")
    assert (status, headers[b"retry-after"]) == (429, b"7")
    assert served.ask(HOST, BEARER)[0] == 200
    served.now += GUESS_SECONDS
    assert [served.ask(HOST, (name, prefix + b"x"))[0] for _ in range(2)] == [401, 429]


@pytest.mark.parametrize(
    "content",
    [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b"", b"json"],
)
def test_a_body_that_is_not_json_is_refused(content: bytes) -> None:
    served = Served()
    for method in ("POST", "PUT", "PATCH"):
        kind = (b"content-type", content)
        assert served.ask(HOST, BEARER, kind, method=method, body=[b"{}"])[0] == 415
        assert served.ask(HOST, BEARER, method=method, body=[b"{}"])[0] == 415
        assert served.ask(HOST, BEARER, JSON, kind, method=method, body=[b"{}"])[0] == 415
    assert served.bodies == []


def test_a_json_body_arrives_whole() -> None:
    served = Served()
    kind = (b"Content-Type", b"application/json; charset=utf-8")
    assert served.ask(HOST, BEARER, kind, method="POST", body=[b'{"a"', b":", b"1}"])[0] == 200
    assert served.bodies == [b'{"a":1}']


def test_a_body_over_the_limit_is_refused_said_or_unsaid() -> None:
    served = Served(max_body_bytes=10)
    ask = {"method": "POST"}
    said = (b"content-length", b"11")
    assert served.ask(HOST, BEARER, JSON, said, body=[b"x" * 11], **ask)[0] == 413
    assert served.ask(HOST, BEARER, JSON, body=[b"x" * 6, b"x" * 5, b""], **ask)[0] == 413
    lie = (b"content-length", b"3")
    assert served.ask(HOST, BEARER, JSON, lie, body=[b"x" * 11], **ask)[0] == 413
    for wrong in (b"-1", b"1e9", b"9" * 400, b"\xb2"):
        length = (b"content-length", wrong)
        assert served.ask(HOST, BEARER, JSON, length, body=[b"x"], **ask)[0] == 400
    assert served.bodies == []
    assert served.ask(HOST, BEARER, JSON, body=[b"x" * 10], **ask)[0] == 200


def test_a_client_that_never_ends_its_body_is_let_go() -> None:
    served = Served(body_seconds=0.01)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [HOST, BEARER, JSON]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    asyncio.run(served.guard(scope, receive, send))
    assert sent[0]["status"] == 408


def test_an_empty_token_guards_nothing_and_is_refused() -> None:
    with pytest.raises(ValueError, match="token"):
        Guard(Served().app, "", PORT)
