"""Anthropic's route: /v1/messages, whole or streamed, over the same replies as OpenAI's.

Knows Anthropic's shapes; what an answer is made of comes from the core. Errors have the place that
its clients look in beside ours.
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from acclimate.daemon.bodies import ChatMessage, ChatRequest
from acclimate.daemon.completion import Reply
from acclimate.daemon.core import Core
from acclimate.daemon.events import EventStream, whole
from acclimate.daemon.wire import answers, blocking, body_of, checked, error_body, refusal
from acclimate.store.errors import AcclimateError, EngineError

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesRequest(BaseModel):
    """The body of /v1/messages. What tunes a service elsewhere is passed over."""

    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)

    model: str = Field(default="live", min_length=1, max_length=200)
    system: str | list[dict[str, Any]] | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_tokens: int = Field(ge=1, le=1_000_000)
    stream: bool = False
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    stop_sequences: list[str] = []
    # Not served, and not to be passed over in silence.
    tools: list[Any] | None = Field(default=None, max_length=0)
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
        messages: list[Any] = [*self.messages]  # checked already
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
            }
        )


def routes(core: Core) -> list[Route]:
    """The route, over one core."""

    async def messages(request: Request) -> Response:
        try:
            body = await body_of(request, MessagesRequest)
            message = Message(core, await blocking(core.chat, checked(body.chat)))
            if body.stream:
                return EventStream(message.cancel, message.events())
            return await whole(request, message.cancel, message.whole())
        except AcclimateError as error:
            return refusal(error, type="error")

    return [Route("/v1/messages", answers(messages), methods=["POST"])]


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
        text = "".join([piece.text async for piece in self._stream])
        about = await blocking(self._core.keep, self._reply, text)
        return {
            **self._head,
            "content": [{"type": "text", "text": text}],
            **self._end(),
            "usage": self._usage(),
            "acclimate": about,
        }

    async def events(self) -> AsyncIterator[str]:
        """From `message_start` to `message_stop`, which has `acclimate`."""
        begun = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None}
        usage = {**self._usage(), "output_tokens": 0}
        yield _event("message_start", message={**begun, "usage": usage})
        block = {"type": "text", "text": ""}
        yield _event("content_block_start", index=0, content_block=block)
        said: list[str] = []
        try:
            async for piece in self._stream:
                said.append(piece.text)
                if piece.text:
                    delta = {"type": "text_delta", "text": piece.text}
                    yield _event("content_block_delta", index=0, delta=delta)
        except EngineError as error:
            yield _event("error", **error_body(error)[1])
            return
        about = await blocking(self._core.keep, self._reply, "".join(said))
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=self._end(), usage=self._usage())
        yield _event("message_stop", acclimate=about)

    def _end(self) -> dict[str, Any]:
        stop, reason = self._stream.stop, self._stream.finish_reason
        ended = "stop_sequence" if stop is not None else _REASONS.get(reason or "")
        return {"stop_reason": ended, "stop_sequence": stop}

    def _usage(self) -> dict[str, int]:
        stream = self._stream
        return {
            "input_tokens": stream.prompt_tokens - stream.cached_tokens,
            "cache_read_input_tokens": stream.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": stream.completion_tokens,
        }


def _event(kind: str, **data: Any) -> str:
    body: Mapping[str, Any] = {"type": kind, **data}
    return f"event: {kind}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"
