"""OpenAI's routes: chat completions, whole or streamed, embeddings, and the list of models.

Knows OpenAI's shapes; what an answer is made of comes from the core.
"""

import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from acclimate.daemon.bodies import ChatRequest
from acclimate.daemon.completion import Reply
from acclimate.daemon.core import Core
from acclimate.daemon.embeddings import EmbeddingRequest
from acclimate.daemon.events import LEAST_LOGPROB, SSE, EventStream, event, merged, whole
from acclimate.daemon.stream import Piece
from acclimate.daemon.tools import written
from acclimate.daemon.wire import Described, blocking, error_body
from acclimate.store.errors import EngineError


def routes(core: Core) -> list[Described]:
    """The routes, over one core."""

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await blocking(core.models)})

    async def model(request: Request) -> Response:
        return JSONResponse(await blocking(core.model, request.path_params["model"]))

    async def chat(request: Request, asked: ChatRequest) -> Response:
        reply = await blocking(core.chat, asked)
        answer = Answer(core, reply)
        if asked.stream:
            return EventStream(reply.cancel, answer.events())
        return await whole(request, reply.cancel, answer.completion())

    async def embeddings(_request: Request, asked: EmbeddingRequest) -> Response:
        return JSONResponse(await blocking(core.embeddings, asked))

    return [
        Described("POST", "/v1/embeddings", embeddings, "Vectors of texts", body=EmbeddingRequest),
        Described("GET", "/v1/models", models, "What `model` may be"),
        Described("GET", "/v1/models/{model}", model, "One of them"),
        Described("POST", "/v1/chat/completions", chat, "One reply", body=ChatRequest, streams=SSE),
    ]


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
            text, calls = self._reply.reading().whole("".join(piece.text for piece in pieces))
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if calls:
                message |= {"content": text or None, "tool_calls": written(calls)}
            choice: dict[str, Any] = {
                "index": index,
                "message": message,
                "logprobs": self._logprobs(pieces),
                "finish_reason": "tool_calls" if calls else stream.finish_reason,
            }
            choices.append(choice)
        kept = choices[0]["message"]["content"] or ""
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
        reasons = []
        readings = [self._reply.reading() for _ in streams]
        try:
            async for index, piece in merged(streams):
                text = readings[index].push(piece.text)
                if index == 0:
                    said.append(text)
                if text or (asked.logprobs and piece.token is not None):
                    yield self._chunk(index, {"content": text}, self._logprobs([piece]))
        except EngineError as error:
            # The status line is gone already; clients look for an error in the events.
            yield event(error_body(error)[1])
            return
        for index, (stream, reading) in enumerate(zip(streams, readings, strict=True)):
            rest, calls = reading.finish()
            if index == 0:
                said.append(rest)
            if rest:
                yield self._chunk(index, {"content": rest})
            numbered = [{"index": n, **call} for n, call in enumerate(written(calls))]
            if numbered:
                yield self._chunk(index, {"tool_calls": numbered})
            reasons.append("tool_calls" if calls else stream.finish_reason)
        about = await blocking(self._core.keep, self._reply, "".join(said))
        for index, reason in enumerate(reasons):
            last = index == len(reasons) - 1 and not counted
            more = {"acclimate": about} if last else {}
            yield self._chunk(index, {}, finish_reason=reason, **more)
        if counted:
            yield event(
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
        return event({**self._chunk_head(), "choices": [choice], **more})

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
        value = max(logprob, LEAST_LOGPROB)
        return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}
