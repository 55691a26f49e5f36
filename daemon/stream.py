"""One request on its way through the engine: what is asked, what comes back, and how it is read.

Any thread or event loop may read a stream; knows no model.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from acclimate.daemon.detok import TextStream
from acclimate.daemon.lookup import Lookup
from acclimate.daemon.sampling import Sampler, Sampling, TokenLogprob
from acclimate.store.errors import AcclimateError

FinishReason = Literal["stop", "length", "cancelled"]
MAX_STOPS, MAX_STOP_CHARS = 16, 256


@dataclass(frozen=True)
class Request:
    """A prompt in tokens, the adapter to answer with, and when to stop.

    `adapter` is "base", "live" or a version name; `logprobs` None gives none, n ≥ 0 gives the
    chosen token's and the n most likely. In the `background` nobody waits for it: it ends as
    cancelled when somebody asks something. Raises ValueError for values out of range.
    """

    tokens: Sequence[int]
    adapter: str = "live"
    max_tokens: int = 512
    stop: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int | None = None
    background: bool = False

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a request needs at least one token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if len(self.stop) > MAX_STOPS or any(len(s) > MAX_STOP_CHARS for s in self.stop):
            raise ValueError(f"at most {MAX_STOPS} stop strings of {MAX_STOP_CHARS} characters")
        if self.logprobs is not None and not 0 <= self.logprobs <= 20:
            raise ValueError("logprobs must be between 0 and 20")


@dataclass(frozen=True)
class Piece:
    """What one step gave. `text` may be empty (held back, or half a character).

    `token` is None in a last piece that only ends the reply.
    """

    text: str
    token: int | None
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


class Job:
    """A request inside the engine. The decode thread owns it, except for `cancelled`."""

    def __init__(self, request: Request, adapter: str, sampler: Sampler) -> None:
        self.request = request
        self.adapter = adapter
        self.sampler = sampler
        self.mailbox = Mailbox()
        self.text = TextStream(request.stop)
        self.lookup = Lookup()
        self.close_call = False  # the next token is not to be told beside guesses
        self.tokens = list(request.tokens)  # the prompt, then what was generated
        self.prompt_tokens = len(self.tokens)
        self.cached_tokens = 0
        self.cancelled = False
        self.started = False
        self.ended = False
        self.asked = time.monotonic()

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    def end(self, reason: FinishReason) -> None:
        """The last piece, with the text that was held back."""
        self.close()
        self.mailbox.put(Piece(self.text.finish(), None, reason))

    def fail(self, error: AcclimateError) -> None:
        self.close()
        self.mailbox.put(error)

    def close(self) -> None:
        """No token follows any more."""
        self.ended = True
        self.sampler.close()


class Mailbox:
    """Pieces on their way to one reader; an error ends it like a last piece."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: deque[Piece | AcclimateError] = deque()
        self._wake: Callable[[], object] | None = None

    def put(self, item: Piece | AcclimateError) -> None:
        with self._lock:
            self._items.append(item)
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def take(self, wake: Callable[[], object]) -> Piece | AcclimateError | None:
        """The next item, or None after which `wake` is called, once, when there is one."""
        with self._lock:
            if self._items:
                return self._items.popleft()
            self._wake = wake
            return None


class Stream:
    """The reply to one request, read by `for` or `async for`, by one reader.

    Iterating raises EngineError when the engine failed. Leaving early (`cancel`, the end of a
    `with` block, or just dropping the stream) frees the sequence within one step.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.finish_reason: FinishReason | None = None
        self.error: AcclimateError | None = None

    @property
    def adapter(self) -> str:
        """The adapter that answers: "base" or a version name, never "live"."""
        return self._job.adapter

    @property
    def prompt_tokens(self) -> int:
        return self._job.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens whose state was reused instead of computed."""
        return self._job.cached_tokens

    @property
    def completion_tokens(self) -> int:
        return self._job.generated

    @property
    def stop(self) -> str | None:
        """The stop string that ended the reply."""
        return self._job.text.stop

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    def cancel(self) -> None:
        """End the reply; a reader gets a last piece with the reason "cancelled".

        Takes no lock, so the garbage collector may call it anywhere; the decode thread looks at
        the mark before each step, and while there is a request to cancel it does not sleep.
        """
        self._job.cancelled = True

    def text(self) -> str:
        """Wait for the whole reply."""
        return "".join(piece.text for piece in self)

    def _accept(self, item: Piece | AcclimateError) -> Piece:
        if isinstance(item, AcclimateError):
            self.error = item
            raise item
        self.finish_reason = item.finish_reason
        return item

    def __iter__(self) -> Iterator[Piece]:
        try:
            while not self.finished:
                ready = threading.Event()
                item = self._job.mailbox.take(ready.set)
                if item is None:
                    ready.wait()
                else:
                    yield self._accept(item)
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(ready.set)
            except RuntimeError:  # the loop is closed: nobody reads any more
                self._job.cancelled = True

        try:
            while not self.finished:
                ready.clear()
                item = self._job.mailbox.take(wake)
                if item is None:
                    await ready.wait()
                else:
                    yield self._accept(item)
        finally:
            self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        # The engine holds the job, not the stream: a dropped stream stops costing anything.
        self.cancel()
