"""The serving engine: one model, one context for each adapter in use, one thread that decodes.

Takes tokens and gives text pieces; knows no chat template, no HTTP and no ledger.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from acclimate.adapters.native import LoadedModel
from acclimate.daemon.contexts import BASE, Contexts
from acclimate.daemon.decode import Lane, Meter
from acclimate.daemon.sampling import Sampler
from acclimate.daemon.stream import Job, Request, Stream
from acclimate.daemon.tuning import Tuning, default_threads
from acclimate.store.errors import AcclimateError, EngineError

LOG = logging.getLogger("acclimate.engine")
HEARTBEAT_SECONDS = 1.0  # an idle decode thread still shows a sign of life this often


class Busy(EngineError):
    """Too many requests wait already."""


class Engine:
    """Serves one base model and its adapters by continuous batching.

    `context_tokens` is each context's KV pool, shared by up to `sequences` requests at a time;
    `max_contexts` bounds how many idle contexts are kept beside busy ones; a context other than
    the live one is freed after `idle_context_seconds`, that too after `idle_unload_seconds` (0:
    never); `gpu_layers` of the model are computed by a graphics processor, "auto": all, if there is
    one. Without `threads` the `tuning` says how many. With `prompt_lookup` tokens are guessed from
    what stands before, where that pays; a reply is the same with and without.

    Any thread may call any method; `load`, `set_live` and `logits` take tens of milliseconds, so
    not from an event loop.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        context_tokens: int = 4096,
        sequences: int = 4,
        threads: int | None = None,
        max_contexts: int = 3,
        mmap: bool = True,
        queue_limit: int = 64,
        idle_context_seconds: float = 60.0,
        idle_unload_seconds: float = 0.0,
        gpu_layers: int | Literal["auto"] = "auto",
        prompt_lookup: bool = True,
        tuning: Tuning | None = None,
    ) -> None:
        self._path = model_path
        self._mmap = mmap
        self._queue_limit = queue_limit
        tuning = tuning or Tuning(threads=default_threads())
        self._threads = threads or tuning.threads
        self._meter = Meter()
        self._contexts = Contexts(
            context_tokens=context_tokens,
            sequences=sequences,
            tuning=replace(tuning, threads=self._threads),
            max_contexts=max_contexts,
            idle_context_seconds=idle_context_seconds,
            idle_unload_seconds=idle_unload_seconds,
            gpu_layers=gpu_layers,
            prompt_lookup=prompt_lookup,
            meter=self._meter,
        )
        self._changed = self._contexts.changed
        # Held while a sampler is made from the vocabulary, so that stop cannot free it meanwhile.
        self._submitting = threading.Lock()
        self._running = False
        self._asked: list[Job] = []  # requests that somebody waits for, but for those that ended
        self._background: list[Job] = []  # the others, likewise
        self._last_work = self.last_step = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine-decode", daemon=True)

    # Life

    def open(self) -> None:
        """Load the model, which `start` does where this has not been called. Raises ModelError."""
        self._contexts.open(self._path, mmap=self._mmap)

    def start(self, *, warm: bool = True) -> None:
        """Load the model and begin to serve; with `warm`, the base model's context is made now.

        Raises ModelError or EngineError. An engine starts once.
        """
        self.open()
        if warm:
            self._contexts.warm()
        self._running = True
        self._last_work = self.last_step = time.monotonic()
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> bool:
        """End every request with an error and free everything; False when decoding hangs."""
        with self._changed:
            self._running = False
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False  # freeing memory under a running thread would crash the process
        with self._submitting:
            self._contexts.close()
        return True

    def alive(self, limit_seconds: float = 30.0) -> bool:
        """Whether the decode thread lives and has made a step within the limit."""
        return self._thread.is_alive() and time.monotonic() - self.last_step < limit_seconds

    # Requests

    def submit(self, request: Request) -> Stream:
        """Queue a request. Its adapter is resolved here and stays the same to the end.

        Raises NotFound for an unknown adapter, Busy when the queue is full (for a background
        request: when anybody is answered), EngineError when the prompt cannot fit or the grammar
        does not parse.
        """
        with self._submitting:
            self._check_prompt(request)
            vocabulary = self._contexts.model.vocabulary
            sampler = Sampler(request.sampling, vocabulary, request.tokens)
            try:
                with self._changed:
                    if not self._running:
                        raise EngineError("the engine is stopping")
                    if self._contexts.waiting() >= self._queue_limit:
                        raise Busy(f"{self._queue_limit} requests wait", "try again later")
                    job = Job(request, self._contexts.resolve(request.adapter), sampler)
                    self._note(job)
                    self._contexts.route(job)
            except AcclimateError:
                sampler.close()
                raise
        return Stream(job)

    def _note(self, job: Job) -> None:
        """What is in the background gives way to what is not; held."""
        awaited = self._awaited()
        if job.request.background:
            if awaited:
                raise Busy("somebody is being answered", "try again later")
            self._background = [job, *(other for other in self._background if not other.ended)]
            return
        for other in self._background:
            other.cancelled = True
        self._background.clear()
        self._asked.append(job)
        self._last_work = time.monotonic()

    def _awaited(self) -> bool:
        """Whether a request runs or waits that is not in the background; held."""
        self._asked = [job for job in self._asked if not job.ended]
        return bool(self._asked)

    def _check_prompt(self, request: Request) -> None:
        limit, size = self._contexts.limit, self._contexts.model.vocabulary.size
        if len(request.tokens) >= limit:
            raise EngineError(
                f"the prompt has {len(request.tokens)} tokens, the context {limit}",
                "shorten it or raise context_tokens",
            )
        if not all(0 <= token < size for token in request.tokens):
            raise EngineError("the prompt holds a token that the model does not have")

    # Adapters

    def load(self, name: str, path: Path, scale: float = 1.0) -> None:
        """Check an adapter's file, load it and make its context; serving goes on meanwhile.

        Raises AdapterError (the file is damaged or does not fit the base) or EngineError.
        """
        self._contexts.load(name, path, scale)

    def set_live(self, name: str | None) -> None:
        """Make an adapter (None: the base) answer as "live" from the next request on.

        Raises NotFound when it is not loaded. Requests that run end on the adapter they began on.
        """
        self._contexts.set_live(name or BASE)

    def unload(self, name: str) -> None:
        """Forget an adapter; requests that began on it end on it, then its memory is freed.

        Raises NotFound, or EngineError for the live adapter.
        """
        self._contexts.unload(name)

    def logits(self, tokens: list[int], adapter: str = BASE) -> np.ndarray:
        """Logits after the last token, (vocabulary,) float32, computed in a fresh context."""
        return self._contexts.logits(tokens, adapter)

    def nll(
        self, tokens: list[int], start: int, adapter: str, go_on: Callable[[], bool]
    ) -> float | None:
        """Mean NLL of the tokens from index `start` (1 or more) on, in nats a token.

        Computed in a fresh context on one thread at low priority; None as soon as `go_on`, asked
        before every few tokens, says no. Raises NotFound, EngineError.
        """
        return self._contexts.nll(tokens, start, adapter, go_on)

    @property
    def live(self) -> str:
        """What "live" means now: "base" or a version name."""
        return self._contexts.live

    @property
    def adapters(self) -> list[str]:
        """Loaded adapters, without the base."""
        with self._changed:
            return self._contexts.names()

    # What others want to know

    @property
    def model_path(self) -> Path:
        """The base model's file."""
        return self._path

    @property
    def base(self) -> LoadedModel:
        """The base in memory, for who needs its vocabulary. Raises EngineError unless started."""
        return self._contexts.model.loaded

    @property
    def parameters(self) -> int:
        """How many numbers the base model has. Raises EngineError unless started."""
        return self._contexts.model.parameters

    @property
    def context_limit(self) -> int:
        """Longest prompt plus reply, in tokens."""
        return self._contexts.limit

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits that is not in the background."""
        with self._changed:
            return self._awaited()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last token or request that somebody waited for; 0 while busy."""
        return 0.0 if self.busy else time.monotonic() - self._last_work

    def stats(self) -> dict[str, Any]:
        """Counts for `status` and `/metrics`; names, no text."""
        with self._changed:
            return {**asdict(self._meter), **self._contexts.stats(), "threads": self._threads}

    # The decode thread

    def _run(self) -> None:
        try:
            while True:
                self.last_step = time.monotonic()
                with self._changed:
                    if not self._running:
                        break
                    self._contexts.tidy()
                    lanes = self._contexts.at_work()
                    awaited = self._awaited()
                    if not lanes:
                        self._changed.wait(HEARTBEAT_SECONDS)
                        continue
                for lane in lanes:
                    self._step(lane, lanes)
                if awaited:
                    self._last_work = time.monotonic()
        finally:
            with self._changed:
                self._running = False
                self._contexts.abandon(EngineError("the engine has stopped"))

    def _step(self, lane: Lane, lanes: list[Lane]) -> None:
        crowded = any(other.generating for other in lanes if other is not lane)
        try:
            lane.step(crowded=crowded)
        except Exception as error:
            LOG.exception("a context failed", extra={"adapter": lane.name})
            with self._changed:
                failure = EngineError(f"decoding with {lane.name} failed: {error}")
                self._contexts.give_up(lane, failure)
