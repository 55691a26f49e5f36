"""One streamed request over HTTP, with the moment at which each piece of its reply came.

While a reply comes its bytes are only kept; they are read afterwards. Knows OpenAI's two shapes,
and no server.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
now = time.perf_counter


class Failed(Exception):
    """A server refused, broke off, or did other than it was asked."""


@dataclass
class Reply:
    """A whole reply. Times are `time.perf_counter`'s, in seconds."""

    began: float
    arrived: list[float] = field(default_factory=list)  # of each piece that has text
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    pieces: list[str] = field(default_factory=list)  # its tokens, where logprobs were asked for

    @property
    def first_seconds(self) -> float:
        """From sending the request to the first text."""
        return self.arrived[0] - self.began

    @property
    def tokens(self) -> int:
        """How many the server says that it made."""
        return int(self.usage["completion_tokens"])

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage["prompt_tokens"])

    @property
    def cached_tokens(self) -> int:
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def ask(client: httpx.Client, path: str, body: Mapping[str, Any]) -> Reply:
    """Sends a request and reads its stream to the end. Raises Failed, httpx.HTTPError."""
    said = {**body, "stream": True, "stream_options": {"include_usage": True}}
    came: list[tuple[float, bytes]] = []
    began = now()
    with client.stream("POST", path, json=said) as response:
        if response.status_code != 200:
            raise Failed(f"{path}: {response.status_code} {response.read()[:300].decode()}")
        for chunk in response.iter_raw():
            came.append((now(), chunk))
    return read(began, came)


def read(began: float, came: Sequence[tuple[float, bytes]]) -> Reply:
    """A reply from its bytes and the moments at which they came. Raises Failed."""
    reply, rest, ended = Reply(began), b"", False
    for when, chunk in came:
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data: ")
            ended = ended or data == b"[DONE]"
            if not data.startswith(b"{"):
                continue
            _take(reply, when, json.loads(data))
    if not (ended and reply.arrived and reply.usage):
        raise Failed(f"a reply broke off after {len(reply.arrived)} pieces")
    return reply


def _take(reply: Reply, when: float, event: Mapping[str, Any]) -> None:
    if "error" in event:
        raise Failed(str(event["error"]))
    reply.model = event.get("model") or reply.model
    reply.usage = event.get("usage") or reply.usage
    for choice in event.get("choices") or ():
        reply.pieces += (choice.get("logprobs") or {}).get("tokens", ())
        if text := choice.get("text") or (choice.get("delta") or {}).get("content"):
            reply.arrived.append(when)
            reply.text += text


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """Each in a thread of its own; all begin at the same moment."""
    ready = threading.Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        ready.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


def rate(replies: Sequence[Reply]) -> float:
    """Tokens a second of replies that came beside each other, from the first token to the last."""
    seconds = max(r.arrived[-1] for r in replies) - min(r.arrived[0] for r in replies)
    return (sum(r.tokens for r in replies) - 1) / seconds
