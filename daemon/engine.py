"""The serving engine: one model, one context for each adapter in use, one thread that decodes.

Takes tokens and gives text pieces; knows no chat template, no HTTP and no ledger.
"""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from acclimate.adapters import gguf_check, native
from acclimate.daemon.decode import Lane, Meter
from acclimate.daemon.llama import Adapter, Context, Model
from acclimate.daemon.sampling import Sampler
from acclimate.daemon.stream import Job, Request, Stream
from acclimate.store.errors import AcclimateError, EngineError, NotFound

LOG = logging.getLogger("acclimate.engine")
BASE = "base"
HEARTBEAT_SECONDS = 1.0  # an idle decode thread still shows a sign of life this often
BATCH_TOKENS = 128


class Busy(EngineError):
    """Too many requests wait already."""


@dataclass
class _Loaded:
    """An adapter in memory. `leaving`: no new request may use it."""

    adapter: Adapter | None  # None for the base model itself
    leaving: bool = False


def default_threads() -> int:
    """Physical cores that this process may use: a second thread a core slows decoding down."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, psutil.cpu_count(logical=False) or allowed or 1))


class Engine:
    """Serves one base model and its adapters by continuous batching.

    `context_tokens` is each context's KV pool, shared by up to `sequences` requests at a time;
    `max_contexts` bounds how many idle contexts are kept beside busy ones; a context other than
    the live one is freed after `idle_context_seconds`. `submit`, `load`, `set_live`, `unload` and
    `logits` may be called from any thread; `load` and `logits` take tens of milliseconds.
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
    ) -> None:
        self._path = model_path
        self._context_tokens = context_tokens
        self._sequences = sequences
        self._threads = threads or default_threads()
        self._max_contexts = max_contexts
        self._mmap = mmap
        self._queue_limit = queue_limit
        self._idle_context_seconds = idle_context_seconds
        self._model: Model | None = None
        self._header: gguf_check.Header | None = None
        self._meter = Meter()
        # Guards the tables below; held for microseconds, never while llama.cpp works.
        self._changed = threading.Condition()
        self._loaded: dict[str, _Loaded] = {BASE: _Loaded(None)}
        self._lanes: dict[str, Lane] = {}
        self._homeless: dict[str, list[Job]] = {}  # requests whose context is being made
        self._live = BASE
        self._swaps = 0
        self._running = False
        self._last_work = time.monotonic()
        self.last_step = time.monotonic()
        # Everything that changes the model's list of adapters, or makes or frees a context.
        self._native = threading.RLock()
        # Held while a sampler is made from the vocabulary, so that stop cannot free it meanwhile.
        self._submitting = threading.Lock()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="engine-loader")
        self._thread = threading.Thread(target=self._run, name="engine-decode", daemon=True)

    # Life

    def start(self, *, warm: bool = True) -> None:
        """Load the model and begin to serve; with `warm`, the base model's context is made now.

        Raises ModelError or EngineError. An engine starts once.
        """
        self._model = Model(self._path, mmap=self._mmap)
        self._running = True
        if warm:
            self._lanes[BASE] = self._make_lane(BASE)
        self.last_step = self._last_work = time.monotonic()
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
        self._loader.shutdown(wait=True)
        with self._native, self._submitting:
            for lane in self._lanes.values():
                lane.context.close()
            self._lanes.clear()
            if self._model is not None:
                self._model.close()
                self._model = None
        return True

    def alive(self, limit_seconds: float = 30.0) -> bool:
        """Whether the decode thread lives and has made a step within the limit."""
        return self._thread.is_alive() and time.monotonic() - self.last_step < limit_seconds

    # Requests

    def submit(self, request: Request) -> Stream:
        """Queue a request. Its adapter is resolved here and stays the same to the end.

        Raises NotFound for an unknown adapter, Busy when the queue is full, EngineError when the
        prompt cannot fit or the grammar does not parse.
        """
        with self._submitting:
            model = self._require_model()
            self._check_prompt(request, model)
            sampler = Sampler(request.sampling, model.vocabulary, request.tokens)
            try:
                with self._changed:
                    job = Job(request, self._resolve(request.adapter), sampler)
                    self._enqueue(job)
            except AcclimateError:
                sampler.close()
                raise
        return Stream(job, self._notify)

    def _check_prompt(self, request: Request, model: Model) -> None:
        limit = self._limit(model)
        if len(request.tokens) >= limit:
            raise EngineError(
                f"the prompt has {len(request.tokens)} tokens, the context {limit}",
                "shorten it or raise context_tokens",
            )
        if not all(0 <= token < model.vocabulary.size for token in request.tokens):
            raise EngineError("the prompt holds a token that the model does not have")

    def _enqueue(self, job: Job) -> None:
        if not self._running:
            raise EngineError("the engine is stopping")
        if self._waiting() >= self._queue_limit:
            raise Busy(f"{self._queue_limit} requests wait already", "try again later")
        self._last_work = time.monotonic()
        lane = self._lanes.get(job.adapter)
        if lane is not None:
            lane.inbox.append(job)
            self._changed.notify_all()
        elif job.adapter in self._homeless:
            self._homeless[job.adapter].append(job)
        else:
            self._homeless[job.adapter] = [job]
            self._loader.submit(self._provide, job.adapter)

    def _resolve(self, name: str) -> str:
        name = self._live if name == "live" else name
        entry = self._loaded.get(name)
        if entry is None or entry.leaving:
            raise NotFound(f"no adapter {name} is loaded", "acclimate history")
        return name

    def _waiting(self) -> int:
        homeless = sum(len(jobs) for jobs in self._homeless.values())
        return homeless + sum(lane.waiting for lane in self._lanes.values())

    def _limit(self, model: Model) -> int:
        """Longest prompt plus reply, in tokens."""
        return min(self._context_tokens, model.trained_context or self._context_tokens)

    # Adapters

    def load(self, name: str, path: Path, scale: float = 1.0) -> None:
        """Check an adapter's file, load it and make its context; serving goes on meanwhile.

        Raises AdapterError (the file is damaged or does not fit the base) or EngineError.
        """
        if name in (BASE, "live"):
            raise EngineError(f"an adapter cannot be called {name}")
        with self._native:
            model = self._require_model()
            with self._changed:
                if name in self._loaded:
                    raise EngineError(f"adapter {name} is loaded already")
            if self._header is None:
                self._header = gguf_check.read_header(self._path)
            gguf_check.check_adapter(path, self._header)
            adapter = Adapter(model, path, scale)
            try:
                lane = self._make_lane(name, adapter)
            except AcclimateError:
                adapter.close()
                raise
            with self._changed:
                self._loaded[name] = _Loaded(adapter)
                self._lanes[name] = lane
                self._changed.notify_all()

    def set_live(self, name: str | None) -> None:
        """Make an adapter (None: the base) answer as "live" from the next request on.

        Its context exists before the pointer moves, so no request waits for the swap.
        """
        name = name or BASE
        with self._changed:
            self._resolve(name)
            if name in self._lanes:
                self._lanes[name].keep()
        self._provide(name)
        with self._changed:
            self._resolve(name)
            if name != self._live:
                if self._live in self._lanes:
                    self._lanes[self._live].superseded = True
                self._live = name
                self._swaps += 1
            self._changed.notify_all()

    def unload(self, name: str) -> None:
        """Forget an adapter; requests that began on it end on it, then its memory is freed."""
        with self._changed:
            self._resolve(name)
            if name in (BASE, self._live):
                raise EngineError(f"{name} is in use", "make another adapter live first")
            self._loaded[name].leaving = True
            self._changed.notify_all()

    @property
    def live(self) -> str:
        """What "live" means now: "base" or a version name."""
        return self._live

    @property
    def adapters(self) -> list[str]:
        """Loaded adapters, without the base."""
        with self._changed:
            return [name for name, e in self._loaded.items() if name != BASE and not e.leaving]

    def logits(self, tokens: list[int], adapter: str = BASE) -> np.ndarray:
        """Logits after the last token, (vocabulary,) float32, computed in a fresh context."""
        with self._native:
            model = self._require_model()
            if not 0 < len(tokens) <= self._limit(model):
                raise EngineError(f"cannot compute logits of {len(tokens)} tokens")
            with self._changed:
                entry = self._loaded[self._resolve(adapter)]
            with Context(
                model,
                entry.adapter,
                tokens=len(tokens),
                batch=min(BATCH_TOKENS, len(tokens)),
                threads=1,  # see Context.warm
            ) as context:
                index = 0
                for start in range(0, len(tokens), context.batch.size):
                    part = tokens[start : start + context.batch.size]
                    context.batch.clear()
                    last = start + len(part) == len(tokens)
                    index = context.batch.add(0, part, start, want=last)
                    if context.decode() != 0:
                        raise EngineError(f"llama_decode failed for {adapter}")
                return context.logits(index).copy()

    # What others want to know

    @property
    def busy(self) -> bool:
        """Whether any request runs or waits."""
        with self._changed:
            return bool(self._homeless) or any(lane.has_work() for lane in self._lanes.values())

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last token or request; 0 while busy."""
        return 0.0 if self.busy else time.monotonic() - self._last_work

    def stats(self) -> dict[str, Any]:
        """Counts for `status` and `/metrics`; names, no text."""
        with self._changed:
            return {
                **asdict(self._meter),
                "live": self._live,
                "swaps": self._swaps,
                "adapters": len(self._loaded) - 1,
                "contexts": list(self._lanes),
                "active": sum(lane.active for lane in self._lanes.values()),
                "waiting": self._waiting(),
                "threads": self._threads,
            }

    # The decode thread

    def _run(self) -> None:
        try:
            while True:
                self.last_step = time.monotonic()
                with self._changed:
                    if not self._running:
                        break
                    self._tidy()
                    lanes = [lane for lane in self._lanes.values() if lane.has_work()]
                    if not lanes:
                        self._changed.wait(HEARTBEAT_SECONDS)
                        continue
                for lane in lanes:
                    self._step(lane, lanes)
                self._last_work = time.monotonic()
        finally:
            self._abandon()

    def _step(self, lane: Lane, lanes: list[Lane]) -> None:
        crowded = any(other.generating for other in lanes if other is not lane)
        try:
            lane.step(crowded=crowded)
        except Exception as error:
            # Only the requests of this context are lost; a new request gets a new context.
            LOG.exception("a context failed", extra={"adapter": lane.name})
            with self._changed:
                lane.fail_all(EngineError(f"decoding with {lane.name} failed: {error}"))
                del self._lanes[lane.name]
            self._loader.submit(self._free, lane)

    def _abandon(self) -> None:
        """The thread ends: nobody may wait for an answer that will not come."""
        with self._changed:
            self._running = False
            error = EngineError("the engine has stopped")
            for lane in self._lanes.values():
                lane.fail_all(error)
            for jobs in self._homeless.values():
                for job in jobs:
                    job.fail(error)
            self._homeless.clear()

    def _tidy(self) -> None:
        """Let go of contexts that nobody needs: unloaded, swapped out, too many, or long idle."""
        idle = [lane for lane in self._lanes.values() if not lane.has_work()]
        idle.sort(key=lambda lane: lane.last_used)
        surplus = len(self._lanes) - self._max_contexts
        now = time.monotonic()
        for lane in idle:
            old = lane.superseded or now - lane.last_used > self._idle_context_seconds
            gone = self._loaded[lane.name].leaving
            if gone or (lane.name != self._live and (surplus > 0 or old)):
                del self._lanes[lane.name]
                surplus -= 1
                self._loader.submit(self._free, lane)
        for name, entry in list(self._loaded.items()):
            if entry.leaving and name not in self._lanes and name not in self._homeless:
                del self._loaded[name]
                self._loader.submit(self._free_adapter, entry)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # The loader: native work that must not hold up decoding

    def _provide(self, name: str) -> None:
        """Make the context of a loaded adapter unless there is one, and give it its requests."""
        with self._native:
            with self._changed:
                entry = self._loaded.get(name)
                if name in self._lanes or entry is None:
                    return
            try:
                lane = self._make_lane(name, entry.adapter)
            except AcclimateError as error:
                with self._changed:
                    for job in self._homeless.pop(name, []):
                        job.fail(error)
                raise
            with self._changed:
                lane.inbox.extend(self._homeless.pop(name, []))
                self._lanes[name] = lane
                self._changed.notify_all()

    def _make_lane(self, name: str, adapter: Adapter | None = None) -> Lane:
        model = self._require_model()
        context = Context(
            model,
            adapter,
            tokens=self._context_tokens,
            sequences=self._sequences,
            batch=BATCH_TOKENS,
            threads=self._threads,
        )
        try:
            context.warm(0)
        except EngineError:
            context.close()
            raise
        return Lane(
            name,
            context,
            model.vocabulary,
            sequences=self._sequences,
            max_tokens=self._limit(model),
            shareable=not model.recurrent,
            meter=self._meter,
        )

    def _free(self, lane: Lane) -> None:
        with self._native:
            lane.context.close()
            native.give_memory_back()

    def _free_adapter(self, entry: _Loaded) -> None:
        with self._native:
            if entry.adapter is not None:
                entry.adapter.close()

    def _require_model(self) -> Model:
        if self._model is None:
            raise EngineError("the engine is not running")
        return self._model
