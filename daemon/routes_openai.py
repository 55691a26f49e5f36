"""OpenAI's routes: chat completions, whole or streamed, embeddings, and the list of models.

Knows OpenAI's shapes; what an answer is made of comes from the core.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from acclimate.daemon.completion import ChatRequest, Reply
from acclimate.daemon.core import Core
from acclimate.daemon.embeddings import EmbeddingRequest
from acclimate.daemon.stream import Piece, Stream
from acclimate.daemon.wire import answers, blocking, body_of, error_body
from acclimate.store.errors import AcclimateError, EngineError, NotFound

_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def routes(core: Core) -> list[Route]:
    """The routes, over one core."""

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await blocking(core.models)})

    async def model(request: Request) -> Response:
        wanted = request.path_params["model"]
        found = [m for m in await blocking(core.models) if m["id"] == wanted]
        if not found:
            raise NotFound(f"there is no model {wanted[:40]}", "see: acclimate history")
        return JSONResponse(found[0])

    async def chat(request: Request) -> Response:
        asked = await body_of(request, ChatRequest)
        reply = await blocking(core.chat, asked)
        answer = Answer(core, reply)
        if asked.stream:
            return EventStream(reply, answer.events())
        return await _whole(request, reply, answer)

    async def embeddings(request: Request) -> Response:
        asked = await body_of(request, EmbeddingRequest)
        return JSONResponse(await blocking(core.embeddings, asked))

    return [
        Route("/v1/embeddings", answers(embeddings), methods=["POST"]),
        Route("/v1/models", answers(models), methods=["GET"]),
        Route("/v1/models/{model}", answers(model), methods=["GET"]),
        Route("/v1/chat/completions", answers(chat), methods=["POST"]),
    ]


async def _whole(request: Request, reply: Reply, answer: "Answer") -> Response:
    """The finished answer; a client that leaves meanwhile ends it."""
    found: list[dict[str, Any]] = []
    failure: AcclimateError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            reply.cancel()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            found.append(await answer.completion())
        except AcclimateError as error:
            failure = error  # raised here it would come out wrapped in a group
            reply.cancel()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return JSONResponse(found[0]) if found else Response(status_code=499)  # nobody reads it


class EventStream(StreamingResponse):
    """Server-sent events of a reply, which ends within a step when the client leaves."""

    def __init__(self, reply: Reply, events: AsyncIterator[str]) -> None:
        super().__init__(events, headers=_STREAM_HEADERS, media_type="text/event-stream")
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reply.cancel()


class Answer:
    """One reply in OpenAI's shapes."""

    def __init__(self, core: Core, reply: Reply) -> None:
        self._core = core
        self._reply = reply
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": reply.adapter,
            "system_fingerprint": core.fingerprint(reply.adapter),
        }

    async def completion(self) -> dict[str, Any]:
        """The whole `chat.completion`."""
        choices: list[dict[str, Any]] = []
        for index, stream in enumerate(self._reply.streams):
            pieces = [piece async for piece in stream]
            text = "".join(piece.text for piece in pieces)
            choice: dict[str, Any] = {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": self._logprobs(pieces),
                "finish_reason": stream.finish_reason,
            }
            choices.append(choice)
        kept = choices[0]["message"]["content"]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": choices,
            "usage": self._usage(),
            "acclimate": await blocking(self._core.keep, self._reply, kept),
        }

    async def events(self) -> AsyncIterator[str]:
        """`chat.completion.chunk` events; the last one before [DONE] has `acclimate`."""
        asked, streams = self._reply.asked, self._reply.streams
        counted = asked.stream_options is not None and asked.stream_options.include_usage
        for index in range(len(streams)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        said: list[str] = []  # of the first choice, which is kept
        try:
            async for index, piece in _merged(streams):
                if index == 0:
                    said.append(piece.text)
                if piece.text or (asked.logprobs and piece.token is not None):
                    yield self._chunk(index, {"content": piece.text}, self._logprobs([piece]))
        except EngineError as error:
            # The status line is gone already; clients look for an error in the events.
            yield _event(error_body(error)[1])
            return
        about = await blocking(self._core.keep, self._reply, "".join(said))
        last = len(streams) - 1
        for index, stream in enumerate(streams):
            more = {"acclimate": about} if index == last and not counted else {}
            yield self._chunk(index, {}, finish_reason=stream.finish_reason, **more)
        if counted:
            yield _event(
                {**self._chunk_head(), "choices": [], "usage": self._usage(), "acclimate": about}
            )
        yield "data: [DONE]\n\n"

    def _chunk_head(self) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk"}

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
        **more: Any,
    ) -> str:
        choice = {
            "index": index,
            "delta": dict(delta),
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return _event({**self._chunk_head(), "choices": [choice], **more})

    def _usage(self) -> dict[str, Any]:
        first = self._reply.streams[0]
        written = sum(stream.completion_tokens for stream in self._reply.streams)
        return {
            "prompt_tokens": first.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": first.prompt_tokens + written,
            "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
        }

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self._reply.asked.logprobs:
            return None
        content = []
        for piece in pieces:
            if piece.token is None or piece.logprob is None:
                continue
            entry = self._token(piece.token, piece.logprob)
            entry["top_logprobs"] = [self._token(top.token, top.logprob) for top in piece.top]
            content.append(entry)
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._core.prompt.piece(token) if self._core.prompt else b""
        # OpenAI's floor for tokens that cannot come; JSON has no infinity.
        value = max(logprob, -9999.0)
        return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}


async def _merged(streams: Sequence[Stream]) -> AsyncIterator[tuple[int, Piece]]:
    """The pieces of several streams as they come, each with its stream's number."""
    if len(streams) == 1:
        async for piece in streams[0]:
            yield 0, piece
        return
    pieces: asyncio.Queue[tuple[int, Piece | AcclimateError | None]] = asyncio.Queue()

    async def read(index: int, stream: Stream) -> None:
        try:
            async for piece in stream:
                pieces.put_nowait((index, piece))
            pieces.put_nowait((index, None))
        except AcclimateError as error:
            pieces.put_nowait((index, error))

    tasks = [asyncio.create_task(read(*numbered)) for numbered in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            index, item = await pieces.get()
            if isinstance(item, AcclimateError):
                raise item
            if item is None:
                left -= 1
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()


def _event(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
