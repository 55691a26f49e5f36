"""Replies over HTTP, whole or as server-sent events, that end when the client leaves.

Knows no route and no shape of a reply.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from acclimate.daemon.stream import Piece, Stream
from acclimate.store.errors import AcclimateError

# OpenAI's floor for tokens that cannot come; JSON has no infinity.
LEAST_LOGPROB = -9999.0
SSE, NDJSON = "text/event-stream", "application/x-ndjson"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def whole(
    request: Request, cancel: Callable[[], None], answer: Awaitable[dict[str, Any]]
) -> Response:
    """The finished answer; a client that leaves meanwhile ends it, and so does an error."""
    found: list[dict[str, Any]] = []
    failure: AcclimateError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            cancel()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            found.append(await answer)
        except AcclimateError as error:
            failure = error  # raised here it would come out wrapped in a group
            cancel()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return JSONResponse(found[0]) if found else Response(status_code=499)  # nobody reads it


class EventStream(StreamingResponse):
    """Server-sent events, or lines, of a reply, which ends within a step when the client leaves."""

    def __init__(
        self,
        cancel: Callable[[], None],
        events: AsyncIterator[str],
        media_type: str = SSE,
    ) -> None:
        super().__init__(events, headers=_HEADERS, media_type=media_type)
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._cancel()


async def merged(streams: Sequence[Stream]) -> AsyncIterator[tuple[int, Piece]]:
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


def event(data: Mapping[str, Any]) -> str:
    """One event."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
