"""Which adapters and contexts are in memory, which adapter is live, and when each is let go.

Makes and frees native memory off the decode thread; decodes only to measure, never for a reply.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from acclimate.adapters import gguf_check, native
from acclimate.daemon import lookup
from acclimate.daemon.decode import Lane, Meter
from acclimate.daemon.llama import Adapter, Context, Model
from acclimate.daemon.sampling import logprobs
from acclimate.daemon.stream import Job
from acclimate.daemon.tuning import Tuning
from acclimate.store.errors import AcclimateError, EngineError, NotFound

BASE, LIVE = "base", "live"
LOADER_NICENESS = 10
MEASURED_TOKENS = 32  # at once: who asks meanwhile waits for no more, and their logits take 6 MB


P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class _Loaded:
    """An adapter in memory. `leaving`: no new request may use it."""

    adapter: Adapter | None  # None for the base model itself
    leaving: bool = False


def _let_decoding_go_first() -> None:
    """Lower this thread's priority, where threads have one: a swap must not be felt in streams."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADER_NICENESS)


class Contexts:
    """One model, its adapters, and a lane (a context with its requests) for each in use.

    `changed` guards the tables and wakes the decode thread. Methods that say so must be called
    while it is held; the others must not be. It is never held while llama.cpp works.
    """

    def __init__(
        self,
        *,
        context_tokens: int,
        sequences: int,
        tuning: Tuning,
        max_contexts: int,
        idle_context_seconds: float,
        idle_unload_seconds: float,
        gpu_layers: int | Literal["auto"],
        prompt_lookup: bool,
        meter: Meter,
    ) -> None:
        self.changed = threading.Condition()
        self.live = BASE
        self.swaps = 0
        self._context_tokens = context_tokens
        self._sequences = sequences
        self._tuning = tuning
        self._max_contexts = max_contexts
        self._idle_context_seconds = idle_context_seconds
        self._idle_unload_seconds = idle_unload_seconds or math.inf
        self._gpu_layers = gpu_layers
        self._prompt_lookup = prompt_lookup
        self._meter = meter
        self._model: Model | None = None
        self._model_path: Path | None = None
        self._header: gguf_check.Header | None = None
        self._loaded: dict[str, _Loaded] = {BASE: _Loaded(None)}
        self._lanes: dict[str, Lane] = {}
        self._homeless: dict[str, list[Job]] = {}  # requests whose context is being made
        # Held by whoever changes the model's list of adapters, or makes or frees a context.
        self._native = threading.RLock()
        self._loader = ThreadPoolExecutor(
            1, thread_name_prefix="engine-loader", initializer=_let_decoding_go_first
        )

    # The model

    def open(self, path: Path, *, mmap: bool) -> None:
        with self._native:
            if self._model is None:
                self._model = Model(path, mmap=mmap, gpu_layers=self._gpu_layers)
                self._model_path = path

    def warm(self) -> None:
        """Make the base's context now."""
        with self._native:
            self._lanes[BASE] = self._make(BASE, None)

    def close(self) -> None:
        """Free everything; nothing may decode any more."""
        self._loader.shutdown(wait=True)
        with self._native:
            for lane in self._lanes.values():
                lane.context.close()
            self._lanes.clear()
            for entry in self._loaded.values():
                self._free_adapter(entry)
            if self._model is not None:
                self._model.close()
                self._model = None

    @property
    def model(self) -> Model:
        if self._model is None:
            raise EngineError("the engine is not running")
        return self._model

    @property
    def limit(self) -> int:
        """Longest prompt plus reply, in tokens."""
        return min(self._context_tokens, self.model.trained_context or self._context_tokens)

    # Adapters

    def load(self, name: str, path: Path, scale: float) -> None:
        """Check an adapter's file, load it and make its context."""
        if name in (BASE, LIVE):
            raise EngineError(f"an adapter cannot be called {name}")
        self._on_loader(self._load, name, path, scale)

    def _load(self, name: str, path: Path, scale: float) -> None:
        with self._native:
            model = self.model
            with self.changed:
                if name in self._loaded:
                    raise EngineError(f"adapter {name} is loaded already")
            if self._header is None and self._model_path is not None:
                self._header = gguf_check.read_header(self._model_path)
            if self._header is not None:
                gguf_check.check_adapter(path, self._header)
            adapter = Adapter(model, path, scale)
            try:
                lane = self._make(name, adapter)
            except AcclimateError:
                adapter.close()
                raise
            with self.changed:
                self._loaded[name] = _Loaded(adapter)
                self._lanes[name] = lane
                self.changed.notify_all()

    def set_live(self, name: str) -> None:
        """Move the pointer once the context exists, so that no request waits for the swap."""
        with self.changed:
            self.resolve(name)
            if name in self._lanes:
                self._lanes[name].keep()
        self._on_loader(self._provide, name)
        with self.changed:
            self.resolve(name)
            if name != self.live:
                if self.live in self._lanes:
                    self._lanes[self.live].superseded = True
                self.live = name
                self.swaps += 1
            self.changed.notify_all()

    def unload(self, name: str) -> None:
        with self.changed:
            self.resolve(name)
            if name in (BASE, self.live):
                raise EngineError(f"{name} is in use", "make another adapter live first")
            self._loaded[name].leaving = True
            self.changed.notify_all()

    def logits(self, tokens: list[int], name: str) -> np.ndarray:
        """Logits after the last token in a context made for this, (vocabulary,) float32."""
        return self._on_loader(self._logits, tokens, name)

    def _logits(self, tokens: list[int], name: str) -> np.ndarray:
        batch = self._tuning.batch_tokens
        with closing(self._outputs(tokens, len(tokens) - 1, name, batch)) as outputs:
            return next(outputs).copy()

    def nll(
        self, tokens: list[int], start: int, name: str, go_on: Callable[[], bool]
    ) -> float | None:
        """Mean NLL of the tokens from index `start` (1 or more) on, in nats a token.

        None as soon as `go_on`, asked before every few tokens, says no.
        """
        return self._on_loader(self._nll, tokens, start, name, go_on)

    def _nll(
        self, tokens: list[int], start: int, name: str, go_on: Callable[[], bool]
    ) -> float | None:
        found = self._outputs(tokens[:-1], start - 1, name, MEASURED_TOKENS, go_on)
        with closing(found) as outputs:
            nlls = [
                -logprobs(logits, token, 0)[0]
                for logits, token in zip(outputs, tokens[start:], strict=False)
            ]
        return fmean(nlls) if len(nlls) == len(tokens) - start else None

    def _outputs(
        self,
        tokens: list[int],
        first: int,
        name: str,
        batch: int,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Generator[np.ndarray, None, None]:
        """Logits after each token from index `first` on; each is valid until the next is asked for.

        They are computed in a context made for this, `batch` tokens at a time, while `go_on`.
        """
        with self._native:
            if not 0 < len(tokens) <= self.limit:
                raise EngineError(f"cannot compute logits of {len(tokens)} tokens")
            with self.changed:
                adapter = self._loaded[self.resolve(name)].adapter
            batch = min(batch, len(tokens))
            # One thread: see Context.warm.
            with Context(
                self.model,
                adapter,
                tokens=len(tokens),
                batch=batch,
                threads=1,
                outputs=min(batch, len(tokens) - first),
            ) as context:
                for start in range(0, len(tokens), batch):
                    if not go_on():
                        return
                    part = tokens[start : start + batch]
                    wanted = range(min(max(first - start, 0), len(part)), len(part))
                    context.batch.clear()
                    context.batch.add(0, part, start, want=False)
                    context.batch.want_all(wanted.start)
                    if context.decode() != 0:
                        raise EngineError(f"llama_decode failed for {name}")
                    yield from map(context.logits, wanted)

    # While `changed` is held

    def resolve(self, name: str) -> str:
        """The adapter that a name means now; held."""
        name = self.live if name == LIVE else name
        entry = self._loaded.get(name)
        if entry is None or entry.leaving:
            raise NotFound(f"no adapter {name} is loaded", "acclimate history")
        return name

    def route(self, job: Job) -> None:
        """Give a request to its lane, which is made first where there is none; held."""
        lane = self._lanes.get(job.adapter)
        if lane is not None:
            lane.inbox.append(job)
            self.changed.notify_all()
        elif job.adapter in self._homeless:
            self._homeless[job.adapter].append(job)
        else:
            self._homeless[job.adapter] = [job]
            self._loader.submit(self._provide, job.adapter)

    def at_work(self) -> list[Lane]:
        """Lanes with requests; held."""
        return [lane for lane in self._lanes.values() if lane.has_work()]

    def waiting(self) -> int:
        """Requests that do not run yet; held."""
        homeless = sum(len(jobs) for jobs in self._homeless.values())
        return homeless + sum(lane.waiting for lane in self._lanes.values())

    def names(self) -> list[str]:
        """Loaded adapters, without the base; held."""
        return [name for name, e in self._loaded.items() if name != BASE and not e.leaving]

    def stats(self) -> dict[str, Any]:
        """What is in memory; held."""
        return {
            "live": self.live,
            "swaps": self.swaps,
            "adapters": len(self._loaded) - 1,
            "contexts": list(self._lanes),
            "active": sum(lane.active for lane in self._lanes.values()),
            "waiting": self.waiting(),
        }

    def tidy(self) -> None:
        """Let go of contexts that nobody needs: unloaded, swapped out, surplus, long idle; held."""
        idle = [lane for lane in self._lanes.values() if not lane.has_work()]
        idle.sort(key=lambda lane: lane.last_used)
        surplus = len(self._lanes) - self._max_contexts
        now = time.monotonic()
        for lane in idle:
            idle_for = now - lane.last_used
            old = lane.superseded or idle_for > self._idle_context_seconds
            gone = self._loaded[lane.name].leaving or idle_for > self._idle_unload_seconds
            if gone or (lane.name != self.live and (surplus > 0 or old)):
                self._let_go(lane)
                surplus -= 1
        for name, entry in list(self._loaded.items()):
            if entry.leaving and name not in self._lanes and name not in self._homeless:
                del self._loaded[name]
                self._loader.submit(self._free_adapter, entry)

    def give_up(self, lane: Lane, error: AcclimateError) -> None:
        """A context failed: its requests end, the next one gets a new context; held."""
        lane.fail_all(error)
        self._let_go(lane)

    def abandon(self, error: AcclimateError) -> None:
        """End every request: nobody may wait for an answer that will not come; held."""
        for lane in self._lanes.values():
            lane.fail_all(error)
        for jobs in self._homeless.values():
            for job in jobs:
                job.fail(error)
        self._homeless.clear()

    def _let_go(self, lane: Lane) -> None:
        del self._lanes[lane.name]
        self._loader.submit(self._free, lane)

    # Native work, on the loader's thread

    def _on_loader(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have it done at low priority and wait."""
        try:
            future = self._loader.submit(work, *args, **kwargs)
        except RuntimeError:  # it takes no more work after `close`
            raise EngineError("the engine is not running") from None
        return future.result()

    def _provide(self, name: str) -> None:
        """Make the context of a loaded adapter unless there is one, and give it its requests."""
        with self._native:
            with self.changed:
                entry = self._loaded.get(name)
                if name in self._lanes or entry is None:
                    return
            try:
                lane = self._make(name, entry.adapter)
            except Exception as error:
                failure = EngineError(f"no context for {name} can be made: {error}")
                with self.changed:
                    for job in self._homeless.pop(name, []):
                        job.fail(failure)
                raise failure from error
            with self.changed:
                lane.inbox.extend(self._homeless.pop(name, []))
                self._lanes[name] = lane
                self.changed.notify_all()

    def _make(self, name: str, adapter: Adapter | None) -> Lane:
        model = self.model
        # What did not hold has to be cut off again. And with two threads attention sums up a token
        # alone in another order than several: the reply could go another way where two tokens are
        # nearly as likely, and be another one each time.
        guesses = self._prompt_lookup and not model.recurrent and self._tuning.threads == 1
        context = Context(
            model,
            adapter,
            tokens=self._context_tokens,
            sequences=self._sequences,
            batch=self._tuning.batch_tokens,
            threads=self._tuning.threads,
            flash_attention=self._tuning.flash_attention,
            outputs=self._sequences + (lookup.MOST if guesses else 0),
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
            max_tokens=self.limit,
            shareable=not model.recurrent,
            guesses=guesses,
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
