"""How the command line reaches a home's operations: the running daemon, or the same app in process.

Knows HTTP and where the daemon says that it is; knows nothing of what the routes do.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from acclimate.store.errors import (
    AcclimateError,
    AdapterError,
    ConfigError,
    Detached,
    EngineError,
    HomeError,
    ModelError,
    NotFound,
    RoundError,
    SourceError,
    StoreError,
)
from acclimate.store.files import Home

RUN_FILE = "run.json"  # written by the daemon when it serves: {"pid", "port", "boot_id"}
_START_SECONDS = 15.0  # how long a daemon that holds the lock may take until it answers
_READ_SECONDS = 300.0  # a reply may have to wait for others
_HEALTH_SECONDS = 5.0
_NOT_RUNNING = "daemon_not_running"
_KINDS: dict[str, type[AcclimateError]] = {
    "adapter_error": AdapterError,
    "busy": EngineError,
    "config_error": ConfigError,
    "detached": Detached,
    "engine_error": EngineError,
    "home_error": HomeError,
    "model_error": ModelError,
    "not_found": NotFound,
    "round_error": RoundError,
    "source_error": SourceError,
    "store_error": StoreError,
}


class NotRunning(EngineError):
    """The command needs the daemon, and it does not run."""

    def __init__(self, message: str = "the daemon is not running") -> None:
        super().__init__(message, "start it with: acclimate run")


class TooLong(EngineError):
    """The conversation does not fit into the model's context."""


@dataclass(frozen=True)
class Daemon:
    """A daemon that answered."""

    pid: int
    port: int


class Response(Protocol):
    """What both ways of asking give."""

    @property
    def status_code(self) -> int: ...

    @property
    def content(self) -> bytes: ...


class Client:
    """Speaks to the routes of one home. Raises AcclimateError kinds for every error body.

    `daemon` is None when the app runs in this process; then nothing can be answered or learned.
    """

    daemon: Daemon | None = None

    def get(self, path: str, **params: Any) -> Any:
        """The JSON of a route; parameters that are None are left out."""
        return self._ask("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._ask("POST", path, json=dict(body or {}))

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._ask("DELETE", path, json=dict(body or {}))

    def chat(self, messages: Sequence[Mapping[str, str]], **options: Any) -> "Reply":
        """Ask for a reply, to be read piece by piece; options that are None are left out."""
        body = {k: v for k, v in options.items() if v is not None}
        return Reply(self, {"messages": [dict(m) for m in messages], "stream": True, **body})

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        response = self._send(method, path, **content)
        if response.status_code >= 400:
            raise error_of(response.status_code, response.content)
        return json.loads(response.content) if response.content else None

    def _send(self, method: str, path: str, **content: Any) -> Response:
        raise NotImplementedError

    def lines(self, path: str, body: Mapping[str, Any]) -> Generator[str]:
        """The lines of a streamed answer, as they come."""
        raise NotImplementedError


class LoopbackClient(Client):
    """Over HTTP, to the daemon that serves the home."""

    def __init__(self, daemon: Daemon, token: str) -> None:
        self.daemon = daemon
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{daemon.port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(_READ_SECONDS, connect=_HEALTH_SECONDS),
            trust_env=False,  # no proxy between us and ourselves
        )

    def close(self) -> None:
        self._http.close()

    def _send(self, method: str, path: str, **content: Any) -> Response:
        with _connection():
            return self._http.request(method, path, **content)

    def lines(self, path: str, body: Mapping[str, Any]) -> Generator[str]:
        with _connection(), self._http.stream("POST", path, json=body) as response:
            if response.status_code >= 400:
                raise error_of(response.status_code, response.read())
            yield from _split(response.iter_bytes())


class InProcessClient(Client):
    """The daemon's own app, called in this process on a core without an engine."""

    def __init__(self, app: Any) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app=app)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def close(self) -> None:
        self._runner.run(self._http.aclose())
        self._runner.close()

    def _send(self, method: str, path: str, **content: Any) -> Response:
        return self._runner.run(self._http.request(method, path, **content))

    def lines(self, path: str, body: Mapping[str, Any]) -> Generator[str]:
        response = self._send("POST", path, json=dict(body))
        if response.status_code >= 400:
            raise error_of(response.status_code, response.content)
        yield from _split([response.content])


@dataclass
class Reply:
    """A streamed reply: iterate its text once, then read what it was made of."""

    client: Client
    body: dict[str, Any]
    text: str = ""
    adapter: str | None = None
    instead_of: str | None = None
    cue: str | None = None
    quote: str | None = None
    passages: list[dict[str, Any]] = field(default_factory=list)
    message_id: str | None = None
    conversation_id: str | None = None
    finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self.pieces()

    def pieces(self) -> Generator[str]:
        """The text as it comes; closing it early ends the request."""
        with contextlib.closing(_events(self.client, self.body)) as events:
            for event in events:
                yield from self._read(event)

    def _read(self, event: dict[str, Any]) -> Generator[str]:
        if "error" in event:
            raise error_of(500, json.dumps(event).encode())
        # Every event names it, so that it is known of a reply that was stopped, too.
        self.adapter = event.get("model", self.adapter)
        for choice in event.get("choices") or []:
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if piece := (choice.get("delta") or {}).get("content"):
                self.text += piece
                yield piece
        if about := event.get("acclimate"):
            self.instead_of = about.get("instead_of")
            self.cue = about.get("cue")
            self.quote = about.get("quote")
            self.passages = about.get("passages") or self.passages
            self.message_id = about.get("message_id", self.message_id)
            self.conversation_id = about.get("conversation_id", self.conversation_id)

    def as_dict(self) -> dict[str, Any]:
        return {
            "reply": self.text,
            "adapter": self.adapter,
            "instead_of": self.instead_of,
            "cue": self.cue,
            "quote": self.quote,
            "passages": self.passages,
            "message_id": self.message_id,
            "conversation_id": self.conversation_id,
            "finish_reason": self.finish_reason,
        }


def _events(client: Client, body: Mapping[str, Any]) -> Generator[dict[str, Any]]:
    """Server-sent events (the WHATWG's format, of which only `data` is used here)."""
    with contextlib.closing(client.lines("/v1/chat/completions", body)) as lines:
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield json.loads(data)


def _split(blocks: Iterable[bytes]) -> Generator[str]:
    """Lines at \\n only: str.splitlines also cuts at U+2028 and others, which JSON may hold."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode()
    if rest:
        yield rest.decode()


@contextlib.contextmanager
def connect(root: Path) -> Iterator[Client]:
    """A client for the home at `root`, by whichever way it can be reached.

    A command that finds the home in use by another one, or a daemon that is just starting, waits
    a few seconds. Raises HomeError.
    """
    from acclimate.daemon.lock import Locked

    home = Home.open(root)
    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + _START_SECONDS
        client: LoopbackClient | InProcessClient | None = None
        while client is None:
            try:
                client = _loopback(home) or _in_process(home, stack)
            except Locked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        stack.callback(client.close)
        yield client


def find_daemon(home: Home) -> Daemon | None:
    """The daemon that serves this home, if one answers."""
    from acclimate.daemon.lock import boot_id

    try:
        said = json.loads((home.root / RUN_FILE).read_bytes())
        daemon = Daemon(int(said["pid"]), int(said["port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Of another start of the machine, or of another machine: the drive was pulled out.
    if said.get("boot_id") != boot_id() or not _exists(daemon.pid):
        return None
    with contextlib.suppress(httpx.HTTPError, ValueError, AttributeError):
        url = f"http://127.0.0.1:{daemon.port}/health"
        answer = httpx.get(url, timeout=_HEALTH_SECONDS, trust_env=False)
        # Whoever else has that port now is not shown the token.
        if answer.json().get("pid") == daemon.pid:
            return daemon
    return None


def error_of(status: int, content: bytes) -> AcclimateError:
    """The error that an OpenAI-style error body stands for."""
    try:
        error = json.loads(content)["error"]
        message, code = str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError):
        return AcclimateError(f"the daemon answered {status}", "see its log: acclimate status")
    if code == _NOT_RUNNING:
        return NotRunning()
    hint = str(error.get("hint") or "")
    if code == "context_length_exceeded":
        return TooLong(message, hint)
    return _KINDS.get(str(code), AcclimateError)(message, hint)


def _loopback(home: Home) -> LoopbackClient | None:
    daemon = find_daemon(home)
    if daemon is None:
        return None
    from acclimate.daemon.token import load_or_create_token

    return LoopbackClient(daemon, load_or_create_token(home))


def _in_process(home: Home, stack: contextlib.ExitStack) -> InProcessClient:
    from acclimate.daemon import app, config, server

    core = stack.enter_context(app.open_core(home, config.load(home)))
    return InProcessClient(server.create_app(core, token=None, port=0))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as e:
        raise AcclimateError("the daemon does not answer in time", "is it busy? try again") from e
    except httpx.TransportError as e:
        raise NotRunning("the daemon stopped while it was asked") from e
