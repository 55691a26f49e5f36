"""The client: error bodies, streamed replies, how the daemon is found."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from acclimate.daemon import client as clients
from acclimate.daemon.client import Daemon, InProcessClient, NotRunning, TooLong, find_daemon
from acclimate.daemon.lock import boot_id
from acclimate.store import errors
from acclimate.store.files import Home


def body(code: str, **more: Any) -> bytes:
    error = {"message": "what", "type": "server_error", "code": code, "hint": "how", **more}
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (503, body("daemon_not_running"), NotRunning),
        (400, body("context_length_exceeded"), TooLong),
        (404, body("not_found"), errors.NotFound),
        (409, body("round_error"), errors.RoundError),
        (409, body("adapter_error"), errors.AdapterError),
        (503, body("detached"), errors.Detached),
        (401, body("invalid_api_key", hint=None), errors.AcclimateError),
        (500, b"<html>", errors.AcclimateError),
        (500, b"[]", errors.AcclimateError),
    ],
)
def test_error_bodies(status: int, content: bytes, kind: type[errors.AcclimateError]) -> None:
    assert type(clients.error_of(status, content)) is kind


def app_of(events: list[bytes], status: int = 200) -> Any:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def event(delta: str = "", **more: Any) -> bytes:
    choices = [{"delta": {"content": delta}, "finish_reason": more.pop("finish", None)}]
    data = json.dumps({"model": "v0001", "choices": choices, **more}, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


ABOUT = {
    "adapter": "v0001",
    "instead_of": None,
    "cue": "Where is x?",
    "quote": None,
    "passages": [{"path": "a.md", "start_line": 1, "end_line": 2, "score": 1.0, "text": "x"}],
    "message_id": "m",
    "conversation_id": "c",
}


def test_reply_is_read_piece_by_piece() -> None:
    # U+2028 and U+0085 are line ends to str.splitlines, but stand in JSON as they are.
    said = ["Grüße ", "a\u2028b", "\x85!"]
    raw = b"".join(map(event, said)) + event(finish="stop", acclimate=ABOUT) + b"data: [DONE]\n\n"
    cut = [raw[i : i + 7] for i in range(0, len(raw), 7)]
    client = InProcessClient(app_of(cut))
    reply = client.chat([{"role": "user", "content": "hi"}], model="live", retrieval=None)
    assert "retrieval" not in reply.body
    assert list(reply) == said
    assert reply.as_dict() == {"reply": "".join(said), **ABOUT, "finish_reason": "stop"}
    client.close()


def test_error_inside_a_stream_and_instead_of_one() -> None:
    client = InProcessClient(app_of([event("half"), b"data: " + body("engine_error") + b"\n\n"]))
    with pytest.raises(errors.EngineError, match="what"):
        list(client.chat([]))
    client.close()
    client = InProcessClient(app_of([body("daemon_not_running")], 503))
    with pytest.raises(NotRunning):
        list(client.chat([]))
    with pytest.raises(NotRunning):
        client.get("/v1/x", a=None)
    client.close()


class LoopbackFake(httpx.MockTransport):
    """A daemon that breaks off in the middle of a reply."""

    def __init__(self) -> None:
        super().__init__(self._answer)

    @staticmethod
    def _answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer secret"

        class Broken(httpx.SyncByteStream):
            def __iter__(self) -> Any:
                yield event("half")
                raise httpx.RemoteProtocolError("gone")

        return httpx.Response(200, stream=Broken())


def test_daemon_that_dies_while_it_answers() -> None:
    client = clients.LoopbackClient(Daemon(1, 7077), "secret")
    client._http = httpx.Client(
        transport=LoopbackFake(), base_url="http://127.0.0.1", headers=client._http.headers
    )
    pieces = []
    with pytest.raises(NotRunning, match="stopped"):
        for piece in client.chat([]):
            pieces.append(piece)
    assert pieces == ["half"]
    client.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


def said(home: Home, **changes: Any) -> None:
    content = {"pid": os.getpid(), "port": 1, "boot_id": boot_id(), **changes}
    (home.root / clients.RUN_FILE).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({"boot_id": "another"}, {"pid": os.getpid()}),  # a file from before a restart
        ({"pid": 2**22 + 1}, {"pid": 2**22 + 1}),  # nobody has that pid
        ({}, {"pid": os.getpid() + 1}),  # another program has the port
        ({}, ["no", "object"]),
    ],
)
def test_who_is_not_the_daemon(
    home: Home, changes: Any, health: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(home, **changes)
    monkeypatch.setattr(httpx, "get", lambda *a, **k: httpx.Response(200, json=health))
    assert find_daemon(home) is None


def test_the_daemon_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_daemon(home) is None
    (home.root / clients.RUN_FILE).write_text("{}")
    assert find_daemon(home) is None
    said(home)
    assert find_daemon(home) is None  # nobody listens
    health = {"pid": os.getpid()}
    monkeypatch.setattr(httpx, "get", lambda *a, **k: httpx.Response(200, json=health))
    assert find_daemon(home) == Daemon(os.getpid(), 1)


def test_a_stopped_reply_closes_the_stream() -> None:
    closed = []

    class Endless(clients.Client):
        def lines(self, path: str, body: Any) -> Any:
            try:
                while True:
                    yield event("x").decode().strip()
            finally:
                closed.append(path)

    pieces = Endless().chat([]).pieces()
    assert next(pieces) == "x"
    pieces.close()
    assert closed == ["/v1/chat/completions"]
