"""Study by the base model: while the machine is free it is asked for questions about each note.

What it writes is checked by asking it again. A passage at a time, and chats come first.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from acclimate.adapters.inquiry import (
    GRAMMAR,
    MOST_TOKENS,
    Pair,
    asking,
    fault,
    pairs_of,
    quoted,
    reading,
    says,
)
from acclimate.adapters.prompt import Message, Prompt
from acclimate.adapters.questions import WORTH
from acclimate.adapters.topic import topic
from acclimate.daemon.contexts import BASE
from acclimate.daemon.engine import Busy, Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request, Stream
from acclimate.daemon.study import find_topics, sentence, study, told
from acclimate.store import inquiries
from acclimate.store.chats import Exchange
from acclimate.store.curate import tidy_exchanges
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, EngineError, ModelError
from acclimate.store.route import decide
from acclimate.store.studied import Unstudied
from acclimate.store.topics import stands

log = structlog.get_logger(__name__)

LOOK_SECONDS = 15.0  # how often to see whether there is something to do
ANSWER_TOKENS = 48
SECRET, UNFIT, KNOWN, UNREAD, GUESSED, FAILED = (
    "a secret",
    "not for the weights",
    "asked already",
    "not read back",
    "known without the note",
    "the engine refused",
)


class Interrupted(Exception):
    """Somebody else comes first; the passage is begun again later."""


class Inquirer:
    """Puts the passages of notes to the base, one after the other, in a thread of its own.

    `base` is the model's SHA-256: another one is asked again. `unrest` says why no passage may be
    begun with now, None when one may; `wanted` whether the machine is wanted for something else,
    and is asked before each reply.
    """

    def __init__(
        self,
        db: Db,
        engine: Engine,
        prompt: Prompt,
        base: str,
        *,
        unrest: Callable[[], str | None] = lambda: None,
        wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.paused: str | None = None  # why it waits, though there is something to do
        self._db = db
        self._engine = engine
        self._prompt = prompt
        self._base = base
        self._unrest = unrest
        self._wanted = wanted
        self._lock = threading.Lock()
        self._stream: Stream | None = None  # the reply that is being written
        self._resting = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inquire", daemon=True)

    def start(self) -> None:
        """Begins; once."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Ends what runs; the passage at hand waits again."""
        self._stopping.set()
        with self.resting():
            if self._thread.is_alive():
                self._thread.join(timeout)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Nothing is asked meanwhile: how busy the machine is without it can be measured."""
        with self._lock:
            self._resting += 1
            if self._stream is not None:
                self._stream.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._resting -= 1

    def waiting(self) -> int:
        """Passages that the base was not asked about yet."""
        return inquiries.waiting(self._db, self._base)

    def step(self) -> bool:
        """Puts one passage to the base; False when none waits. Raises Interrupted, StoreError."""
        part = inquiries.first_waiting(self._db, self._base)
        if part is None:
            return False
        study(self._db)  # what the rules find goes first
        asked: list[Pair] = []
        dropped: Counter[str] = Counter()
        good: list[Pair] = []
        try:
            asked = pairs_of(self._reply(asking(part.text), MOST_TOKENS, GRAMMAR))
            for pair in asked:
                exact = Pair(pair.question, quoted(pair.answer, part.text) or pair.answer)
                if why := self._fault(exact, part):
                    dropped[why] += 1
                else:
                    good.append(exact)
        except (EngineError, ModelError) as error:
            if not self._engine.alive():
                raise
            log.warning("inquiry_failed", error=error.message)  # the next passage may do better
            dropped[FAILED] += 1
        self._record(part, asked, dropped, good)
        return True

    def _fault(self, pair: Pair, part: Unstudied) -> str:
        """Why a pair cannot be kept; what costs least is looked at first."""
        why = fault(pair, part.text) or self._unfit(pair, part)
        if why:
            return why
        if not says(self._reply(reading(pair.question, part.text), ANSWER_TOKENS), pair.answer):
            return UNREAD
        if says(self._reply(reading(pair.question), ANSWER_TOKENS), pair.answer):
            return GUESSED
        return ""

    def _unfit(self, pair: Pair, part: Unstudied) -> str:
        asked = {"role": "user", "content": pair.question}
        exchange = Exchange(part.line, (asked,), sentence(pair.answer))
        if tidy_exchanges([exchange]).found:
            return SECRET
        if decide(exchange).route != "weights":
            return UNFIT
        return KNOWN if self._stands(pair, part) else ""

    def _stands(self, pair: Pair, part: Unstudied) -> bool:
        told_of = told(pair.question, sentence(pair.answer))
        return stands(self._db, topic(pair.question), told_of, part.chunk_id)

    def _record(
        self, part: Unstudied, asked: list[Pair], dropped: Counter[str], good: list[Pair]
    ) -> None:
        # In one transaction: what the model wrote must not contradict what came meanwhile.
        with self._db.write():
            find_topics(self._db)
            new: dict[str, Pair] = {}
            for pair in good:
                if self._stands(pair, part) or topic(pair.question) in new:
                    dropped[KNOWN] += 1
                else:
                    new[topic(pair.question)] = pair
            kept = inquiries.record(
                self._db,
                part,
                self._base,
                len(asked),
                dropped,
                [(pair.question, sentence(pair.answer), WORTH) for pair in new.values()],
            )
        log.info("inquired", asked=len(asked), kept=kept)

    def _reply(self, messages: Sequence[Message], tokens: int, grammar: str | None = None) -> str:
        request = Request(
            self._prompt.encode_prompt(messages),
            adapter=BASE,
            max_tokens=tokens,
            sampling=Sampling(grammar=grammar),
            background=True,
        )
        with self._lock:
            if self._resting or self._wanted():
                raise Interrupted
            try:
                stream = self._stream = self._engine.submit(request)
            except Busy:
                raise Interrupted from None
        try:
            text = stream.text()
        finally:
            with self._lock:
                self._stream = None
        if stream.finish_reason == "cancelled":
            raise Interrupted
        return text

    # The thread

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                while not self._stopping.is_set() and self._due():
                    self.step()
            except Interrupted:
                continue
            except (AcclimateError, sqlite3.Error) as error:
                self.paused = str(getattr(error, "message", error))
                log.warning("inquiries_stopped", error=self.paused)

    def _due(self) -> bool:
        if self._wanted():  # with its drive away the database cannot be asked either
            self.paused = None
            return False
        waits = inquiries.first_waiting(self._db, self._base) is not None
        self.paused = self._unrest() if waits else None
        return waits and self.paused is None
