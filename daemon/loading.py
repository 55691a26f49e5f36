"""The first of a start: the home is locked, and its base model loads beside what comes next.

Importing the rest of the daemon takes longer than loading a small model, and neither waits for the
other: `Loading` is entered before `app` is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Self

from acclimate.adapters import native
from acclimate.adapters.prompt import Prompt
from acclimate.daemon import models, tuning
from acclimate.daemon.config import Config
from acclimate.daemon.decode import common_prefix
from acclimate.daemon.engine import Engine
from acclimate.daemon.lock import HomeLock, Locked
from acclimate.daemon.stream import Request
from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home

LOCK_SECONDS = 5.0  # how long a command that has the home is waited for
_SWITCH_SECONDS = 0.0005  # llama.cpp tells of each step of its loading, in Python


class Loading:
    """A home that is locked, and its engine, in a thread until `ready`. Its end stops both."""

    def __init__(self, home: Home, config: Config) -> None:
        self.home = home
        self.config = config
        self.lock = HomeLock(home)
        self._steps: list[Future[None]] = []

    def __enter__(self) -> Self:
        """Raises AcclimateError: the home is in use, or has no base model."""
        _spare_memory()
        with ExitStack() as stack:
            # Before the server has its own handlers, a signal ends the process plainly.
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _leave))
            self._take_lock()
            stack.callback(self.lock.release)
            self.base = models.base_path(self.home, self.config)
            self.base_sha256 = models.base_sha256(self.home, self.base)
            self.tuning_file = tuning.file_for(self.home.cache, self.base_sha256)
            self.engine = Engine(
                self.base,
                **self.config.engine.arguments(),
                # A page of a mapped file on a drive that was pulled out ends the process (SIGBUS).
                mmap=not self.home.portable,
                tuning=tuning.read(self.tuning_file),
            )
            stack.callback(self.engine.stop)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading")
            stack.callback(self._thread.shutdown, cancel_futures=True)
            self._steps.append(self._thread.submit(self._open))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def start(self, *, on_base: bool) -> None:
        """Let the engine serve, and with `on_base` make the base's context first."""
        self._steps.append(self._thread.submit(self._start, on_base))

    def ready(self) -> Prompt:
        """The base's vocabulary, once all is done. Raises ModelError or EngineError."""
        for step in self._steps:
            step.result()
        return self._prompt

    def _open(self) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            self.engine.open()
            self._prompt = Prompt.from_model(self.engine.base)
        finally:
            sys.setswitchinterval(usual)

    def _start(self, on_base: bool) -> None:
        self.engine.start(warm=on_base)
        if on_base:
            with suppress(AcclimateError):  # a template may refuse to be tried
                begun = Request(opening(self._prompt), max_tokens=1, background=True)
                self.engine.submit(begun).text()

    def _take_lock(self) -> None:
        """A command may hold the home for a moment; a daemon that answers will not let go."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                return self.lock.acquire()
            except Locked:
                from acclimate.daemon.client import find_daemon

                if time.monotonic() > deadline or find_daemon(self.home):
                    raise
                time.sleep(0.2)


def opening(prompt: Prompt) -> list[int]:
    """The tokens that a conversation begins with, whatever is asked."""
    one, other = (prompt.encode_prompt([{"role": "user", "content": text}]) for text in "ab")
    return one[: common_prefix(one, other)]


def _spare_memory() -> None:
    """Two heaps for all threads, where glibc would keep one for each and give none back.

    What a context allocates stays out of them: freed within a heap, it would leave holes.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another libc
            libc = ctypes.CDLL(None)
            libc.mallopt(-8, 2)  # M_ARENA_MAX
            libc.mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, bytes; else it grows with use


def _leave(number: int, frame: FrameType | None) -> None:
    if native.in_callback(frame):  # what is raised there is lost: the signal comes again
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    raise SystemExit(0)
