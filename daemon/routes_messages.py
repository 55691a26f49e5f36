"""Anthropic's route: /v1/messages, whole or streamed, over the same replies as OpenAI's.

Knows Anthropic's shapes; what an answer is made of comes from the core. Errors have the place that
its clients look in beside ours.
"""

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request
from starlette.responses import Response

from acclimate.adapters.calls import Call
from acclimate.daemon.bodies import ChatRequest
from acclimate.daemon.completion import Reply
from acclimate.daemon.core import Core
from acclimate.daemon.events import SSE, EventStream, whole
from acclimate.daemon.tools import MAX_TOOLS, new_id
from acclimate.daemon.wire import (
    Described,
    blocking,
    checked,
    error_body,
    refusal,
)
from acclimate.store.errors import AcclimateError, EngineError

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class _Part(BaseModel):
    """What tunes a service elsewhere is passed over."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True, allow_inf_nan=False)


class AnthropicTool(_Part):
    """One tool that is offered."""

    type: Literal["custom"] | None = None  # the others are run by the service elsewhere
    name: str
    description: str | None = None
    input_schema: dict[str, Any]

    def ours(self) -> dict[str, Any]:
        """The same in OpenAI's shape."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.input_schema,
        }
        return {"type": "function", "function": function}


class AnthropicChoice(_Part):
    """Which tool has to be called, if any."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    def ours(self) -> str | dict[str, Any]:
        """The same in OpenAI's shape."""
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name or ""}}
        return "required" if self.type == "any" else self.type


class Block(_Part):
    """One part of a message."""

    type: Literal["text", "tool_use", "tool_result"]
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    tool_use_id: str = ""
    content: str | list[dict[str, Any]] | None = None


class AnthropicMessage(_Part):
    """One message, its content as a string or in blocks."""

    role: Literal["system", "user", "assistant"]
    content: list[Block]

    @field_validator("content", mode="before", json_schema_input_type=str | list[Block])
    @classmethod
    def _in_blocks(cls, content: Any) -> Any:
        return [{"type": "text", "text": content}] if isinstance(content, str) else content

    def ours(self) -> Iterator[dict[str, Any]]:
        """The same in OpenAI's shape, where what a tool said is a message of its own."""
        text = "".join(block.text for block in self.content if block.type == "text")
        calls = [
            {"id": block.id, "function": {"name": block.name, "arguments": block.input}}
            for block in self.content
            if block.type == "tool_use"
        ]
        told = [block for block in self.content if block.type == "tool_result"]
        for block in told:
            said = "" if block.content is None else block.content
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": said}
        if text or not told:
            yield {"role": self.role, "content": text, "tool_calls": calls}


class MessagesRequest(_Part):
    """The body of /v1/messages."""

    model: str = Field(default="live", min_length=1, max_length=200)
    system: str | list[dict[str, Any]] | None = None
    messages: list[AnthropicMessage] = Field(min_length=1, max_length=10_000)
    max_tokens: int = Field(ge=1, le=1_000_000)
    stream: bool = False
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    stop_sequences: list[str] = []
    tools: list[AnthropicTool] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: AnthropicChoice | None = None
    # Not served, and not to be passed over in silence.
    thinking: Literal[None] = None

    @field_validator("thinking", mode="before")
    @classmethod
    def _not_thinking(cls, wanted: Any) -> None:
        if wanted is not None and not (
            isinstance(wanted, dict) and wanted.get("type") == "disabled"
        ):
            raise ValueError("it cannot be asked to think")

    def chat(self) -> ChatRequest:
        """The same in OpenAI's shape. Raises pydantic's ValidationError."""
        messages = [ours for message in self.messages for ours in message.ours()]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        return ChatRequest.model_validate(
            {
                "model": self.model,
                "messages": messages,
                "max_tokens": self.max_tokens,
                "stream": self.stream,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": self.top_k,
                "stop": self.stop_sequences,
                "tools": [tool.ours() for tool in self.tools],
                "tool_choice": self.tool_choice.ours() if self.tool_choice else None,
            }
        )


def routes(core: Core) -> list[Described]:
    """The route, over one core."""

    async def messages(request: Request, body: MessagesRequest) -> Response:
        message = Message(core, await blocking(core.chat, checked(body.chat)))
        if body.stream:
            return EventStream(message.cancel, message.events())
        return await whole(request, message.cancel, message.whole())

    return [
        Described(
            "POST",
            "/v1/messages",
            messages,
            "One reply in Anthropic's shape",
            body=MessagesRequest,
            streams=SSE,
            refuse=_marked,
        )
    ]


def _marked(error: AcclimateError) -> Response:
    """The answer for an error, with `type` beside it, where Anthropic's clients look."""
    return refusal(error, {"type": "error", **error_body(error)[1]})


class Message:
    """One reply in Anthropic's shapes."""

    def __init__(self, core: Core, reply: Reply) -> None:
        self._core = core
        self._reply = reply
        self._stream = reply.streams[0]
        self._head: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": reply.adapter,
        }
        self.cancel = reply.cancel

    async def whole(self) -> dict[str, Any]:
        """The whole message."""
        pieces = [piece.text async for piece in self._stream]
        text, calls = self._reply.reading().whole("".join(pieces))
        about = await blocking(self._core.keep, self._reply, text)
        said = [{"type": "text", "text": text}] if text or not calls else []
        return {
            **self._head,
            "content": [*said, *map(_used, calls)],
            **self._end(called=bool(calls)),
            "usage": self._usage(),
            "acclimate": about,
        }

    async def events(self) -> AsyncIterator[str]:
        """From `message_start` to `message_stop`, which has `acclimate`."""
        begun = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None}
        usage = {**self._usage(), "output_tokens": 0}
        yield _event("message_start", message={**begun, "usage": usage})
        reading = self._reply.reading()
        said: list[str] = []
        try:
            async for piece in self._stream:
                for sent in _told(reading.push(piece.text), said):
                    yield sent
        except EngineError as error:
            yield _event("error", **error_body(error)[1])
            return
        rest, calls = reading.finish()
        for sent in _told(rest, said, even_nothing=not calls):
            yield sent
        about = await blocking(self._core.keep, self._reply, "".join(said))
        if said:
            yield _event("content_block_stop", index=0)
        for index, used in enumerate(map(_used, calls), 1 if said else 0):
            given = {
                "type": "input_json_delta",
                "partial_json": json.dumps(used["input"], ensure_ascii=False),
            }
            yield _event("content_block_start", index=index, content_block={**used, "input": {}})
            yield _event("content_block_delta", index=index, delta=given)
            yield _event("content_block_stop", index=index)
        yield _event("message_delta", delta=self._end(called=bool(calls)), usage=self._usage())
        yield _event("message_stop", acclimate=about)

    def _end(self, *, called: bool) -> dict[str, Any]:
        stop, reason = self._stream.stop, self._stream.finish_reason
        ended = "stop_sequence" if stop is not None else _REASONS.get(reason or "")
        return {"stop_reason": "tool_use" if called else ended, "stop_sequence": stop}

    def _usage(self) -> dict[str, int]:
        stream = self._stream
        return {
            "input_tokens": stream.prompt_tokens - stream.cached_tokens,
            "cache_read_input_tokens": stream.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": stream.completion_tokens,
        }


def _told(text: str, said: list[str], *, even_nothing: bool = False) -> Iterator[str]:
    """Events for some text of block 0, which begins with the first of it."""
    if not said and (text or even_nothing):
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        said.append("")
    if text:
        said.append(text)
        delta = {"type": "text_delta", "text": text}
        yield _event("content_block_delta", index=0, delta=delta)


def _used(call: Call) -> dict[str, Any]:
    """A call as a block."""
    return {"type": "tool_use", "id": new_id(), "name": call.name, "input": call.arguments}


def _event(kind: str, **data: Any) -> str:
    body: Mapping[str, Any] = {"type": kind, **data}
    return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"
