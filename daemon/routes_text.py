"""OpenAI's older route: /v1/completions, whole or streamed.

Knows its shape; the texts come from the core.
"""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from acclimate.daemon.bodies import TextRequest
from acclimate.daemon.core import Core
from acclimate.daemon.events import LEAST_LOGPROB, SSE, EventStream, event, merged, whole
from acclimate.daemon.stream import Piece, Stream
from acclimate.daemon.wire import Described, blocking, error_body
from acclimate.store.errors import EngineError


def routes(core: Core) -> list[Described]:
    """The route, over one core."""

    async def completions(request: Request, asked: TextRequest) -> Response:
        text = Text(core, asked, await blocking(core.text, asked))
        if asked.stream:
            return EventStream(text.cancel, text.events())
        return await whole(request, text.cancel, text.completion())

    says = "Texts gone on with as they stand"
    return [Described("POST", "/v1/completions", completions, says, body=TextRequest, streams=SSE)]


class Text:
    """What goes on from some prompts, in OpenAI's shape."""

    def __init__(self, core: Core, asked: TextRequest, streams: Sequence[Sequence[Stream]]) -> None:
        self._core = core
        self._asked = asked
        self._streams = [stream for choices in streams for stream in choices]
        self._firsts = [choices[0] for choices in streams]
        prompts = [self._shown(prompt) if asked.echo else "" for prompt in asked.prompts]
        self._echoes = [p for p, s in zip(prompts, streams, strict=True) for _ in s]
        adapter = self._streams[0].adapter
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": adapter,
            "system_fingerprint": core.fingerprint(adapter),
        }

    def cancel(self) -> None:
        """Nobody reads it any more."""
        for stream in self._streams:
            stream.cancel()

    async def completion(self) -> dict[str, Any]:
        """The whole `text_completion`."""
        choices = []
        for index, (stream, echo) in enumerate(zip(self._streams, self._echoes, strict=True)):
            pieces = [piece async for piece in stream]
            text = echo + "".join(piece.text for piece in pieces)
            choices.append(self._choice(index, text, pieces, len(echo), stream.finish_reason))
        return {**self._head, "choices": choices, "usage": self._usage()}

    async def events(self) -> AsyncIterator[str]:
        """`text_completion` events, then [DONE]."""
        options = self._asked.stream_options
        at = [len(echo) for echo in self._echoes]
        for index, echo in enumerate(self._echoes):
            if echo:
                yield self._event(self._choice(index, echo, [], 0))
        try:
            async for index, piece in merged(self._streams):
                named = self._asked.logprobs is not None and piece.token is not None
                if piece.text or named:
                    yield self._event(self._choice(index, piece.text, [piece], at[index]))
                    at[index] += len(piece.text)
        except EngineError as error:
            yield event(error_body(error)[1])
            return
        for index, stream in enumerate(self._streams):
            yield self._event(self._choice(index, "", [], at[index], stream.finish_reason))
        if options is not None and options.include_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _event(self, choice: dict[str, Any]) -> str:
        return event({**self._head, "choices": [choice]})

    def _choice(
        self, index: int, text: str, pieces: Sequence[Piece], at: int, reason: str | None = None
    ) -> dict[str, Any]:
        """`at`: where in the choice's text its pieces begin, in characters."""
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(pieces, at),
            "finish_reason": reason,
        }

    def _logprobs(self, pieces: Sequence[Piece], at: int) -> dict[str, Any] | None:
        if self._asked.logprobs is None:
            return None
        found: dict[str, list[Any]] = {
            name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
        for piece in pieces:
            if piece.token is not None and piece.logprob is not None:
                found["tokens"].append(self._shown([piece.token]))
                found["token_logprobs"].append(max(piece.logprob, LEAST_LOGPROB))
                found["top_logprobs"].append(
                    {self._shown([t.token]): max(t.logprob, LEAST_LOGPROB) for t in piece.top}
                )
                found["text_offset"].append(at)
            at += len(piece.text)
        return found

    def _shown(self, prompt: str | list[int]) -> str:
        if isinstance(prompt, str):
            return prompt
        return self._core.prompt.detokenize(prompt) if self._core.prompt else ""

    def _usage(self) -> dict[str, int]:
        read = sum(stream.prompt_tokens for stream in self._firsts)
        written = sum(stream.completion_tokens for stream in self._streams)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
