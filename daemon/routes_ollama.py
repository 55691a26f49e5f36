"""Ollama's routes that its desktop clients use, over the same replies as OpenAI's.

Knows its lines and errors; what an answer is made of comes from the core.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from acclimate.daemon import ollama
from acclimate.daemon.core import Core
from acclimate.daemon.events import NDJSON, EventStream, whole
from acclimate.daemon.ollama import ChatBody, EmbedBody, GenerateBody, ShowBody, stamp
from acclimate.daemon.stream import Stream
from acclimate.daemon.tools import Reading
from acclimate.daemon.wire import Described, Work, blocking, checked, refusal
from acclimate.store.errors import AcclimateError, EngineError

Shape = Callable[[str], dict[str, Any]]


def routes(core: Core) -> list[Described]:
    """The routes, over one core."""

    async def chat(request: Request, body: ChatBody) -> Response:
        if not body.messages:
            return await load(body.plain_model, body.stream, _message)
        return await answered(request, body, _message)

    async def generate(request: Request, body: GenerateBody) -> Response:
        if not body.prompt:
            return await load(body.plain_model, body.stream, _response)
        if body.raw:
            ((stream,),) = await blocking(core.text, checked(body.text))
            told = Told(stream, body.model, _response)
            return await told.answer(request, streamed=body.stream)
        return await answered(request, body, _response)

    async def answered(request: Request, body: ChatBody | GenerateBody, shape: Shape) -> Response:
        reply = await blocking(core.chat, checked(body.chat))

        async def keep(text: str) -> dict[str, Any]:
            return {"acclimate": await blocking(core.keep, reply, text)}

        told = Told(reply.streams[0], body.model, shape, reply.reading(), keep)
        return await told.answer(request, streamed=body.stream)

    async def load(model: str, streamed: bool, shape: Shape) -> Response:
        await blocking(core.load, model)
        done = {"model": model, "created_at": stamp(), **shape(""), "done": True}
        body = {**done, "done_reason": "load"}
        return JSONResponse(body, media_type=NDJSON if streamed else None)

    async def embed(_request: Request, body: EmbedBody) -> Response:
        begun = time.monotonic_ns()
        found = await blocking(core.embeddings, checked(body.embeddings))
        return JSONResponse(
            {
                "model": body.model,
                "embeddings": [row["embedding"] for row in found["data"]],
                "total_duration": time.monotonic_ns() - begun,
                "load_duration": 0,
                "prompt_eval_count": found["usage"]["prompt_tokens"],
            }
        )

    async def tags(_request: Request) -> Response:
        return JSONResponse({"models": await blocking(ollama.tags, core)})

    async def running(_request: Request) -> Response:
        return JSONResponse({"models": await blocking(ollama.loaded, core)})

    async def show(_request: Request, body: ShowBody) -> Response:
        return JSONResponse(await blocking(ollama.shown, core, body.plain_model))

    async def version(_request: Request) -> Response:
        return JSONResponse({"version": ollama.VERSION})

    async def root(_request: Request) -> Response:
        return PlainTextResponse("Acclimate is running")  # its clients only look for the 200

    def route(
        method: str, name: str, work: Work, says: str, body: type[BaseModel] | None = None
    ) -> Described:
        streams = NDJSON if body in (ChatBody, GenerateBody) else None
        path = f"/api/{name}"
        return Described(method, path, work, says, body=body, streams=streams, refuse=_theirs)

    return [
        Described("GET", "/", root, "That it runs", media="text/plain"),
        route("POST", "chat", chat, "One reply in Ollama's shape", ChatBody),
        route(
            "POST",
            "generate",
            generate,
            "A text answered, or gone on with",
            GenerateBody,
        ),
        route("POST", "embed", embed, "Vectors of texts in Ollama's shape", EmbedBody),
        route("POST", "show", show, "What is known of a model", ShowBody),
        route("GET", "tags", tags, "What `model` may be, in Ollama's shape"),
        route("GET", "ps", running, "Models in memory"),
        route("GET", "version", version, "The version of Ollama's API that is followed"),
    ]


def _theirs(error: AcclimateError) -> Response:
    """The answer for an error in Ollama's shape: a text under `error`."""
    return refusal(error, {"error": _text_of(error)})


def _text_of(error: AcclimateError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, Any]:
    return {"response": text}


async def _nothing(_text: str) -> dict[str, Any]:
    return {}


class Told:
    """One reply in Ollama's lines."""

    def __init__(
        self,
        stream: Stream,
        model: str,
        shape: Shape,
        reading: Reading | None = None,
        keep: Callable[[str], Awaitable[dict[str, Any]]] = _nothing,
    ) -> None:
        self._stream = stream
        self._model = model
        self._shape = shape
        self._reading = reading or Reading(None)
        self._keep = keep
        self._begun = self._first = time.monotonic_ns()

    async def answer(self, request: Request, *, streamed: bool) -> Response:
        """The reply over HTTP, as lines or whole."""
        if streamed:
            return EventStream(self._stream.cancel, self._written(), media_type=NDJSON)
        return await whole(request, self._stream.cancel, self._whole())

    async def _written(self) -> AsyncIterator[str]:
        try:
            async for line in self._lines():
                yield json.dumps(line, ensure_ascii=False) + "\n"
        except EngineError as error:
            yield json.dumps({"error": _text_of(error)}, ensure_ascii=False) + "\n"

    async def _whole(self) -> dict[str, Any]:
        lines = [line async for line in self._lines()]
        text = "".join(_said(line) for line in lines)
        found = {**lines[-1], **self._shape(text)}
        calls = [line["message"] for line in lines if "tool_calls" in line.get("message", {})]
        for message in calls:
            found["message"]["tool_calls"] = message["tool_calls"]
        return found

    async def _lines(self) -> AsyncIterator[dict[str, Any]]:
        said: list[str] = []
        async for piece in self._stream:
            if not said:
                self._first = time.monotonic_ns()
            text = self._reading.push(piece.text)
            said.append(text)
            if text:
                yield self._line(self._shape(text))
        rest, calls = self._reading.finish()
        said.append(rest)
        if rest:
            yield self._line(self._shape(rest))
        if calls:
            made = [{"function": {"name": c.name, "arguments": c.arguments}} for c in calls]
            yield self._line({"message": {**self._shape("")["message"], "tool_calls": made}})
        end = time.monotonic_ns()
        yield self._line(
            self._shape(""),
            done=True,
            done_reason=self._stream.finish_reason,
            total_duration=end - self._begun,
            load_duration=0,
            prompt_eval_count=self._stream.prompt_tokens,
            prompt_eval_duration=self._first - self._begun,
            eval_count=self._stream.completion_tokens,
            eval_duration=end - self._first,
            **await self._keep("".join(said)),
        )

    def _line(self, shaped: Mapping[str, Any], done: bool = False, **more: Any) -> dict[str, Any]:
        head = {"model": self._model, "created_at": stamp()}
        return {**head, **shaped, "done": done, **more}


def _said(line: Mapping[str, Any]) -> str:
    return str(line["response"] if "response" in line else line["message"]["content"])
