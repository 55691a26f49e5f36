"""Cues: the taught question that means what is asked, put behind it.

A small base holds apart what a sentence embedder knows to mean the same; the answer stands in the
weights all the same, and is found under the question that it was taught with. No answer and no
passage is shown. Knows vectors of what was taught; knows no engine and no index.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters.mixture import is_fact
from acclimate.adapters.request import asks_to_write
from acclimate.adapters.snapshot import Taught, taught_of
from acclimate.daemon.retrieve import question_of
from acclimate.daemon.scoping import Embed, Scoping
from acclimate.store import buffer, cues
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError
from acclimate.store.files import parse_version

log = structlog.get_logger(__name__)

MAX_CHARS = 200  # of a message that may be a question
# A cue is as near as this to what is asked (cosine), which lies so deep in the adapter's scope.
MIN_SIMILARITY, MIN_DEPTH = 0.4, 0.2
LOOKED_AT = 8  # of the nearest: some may have been contradicted
KEPT = 2  # adapters whose vectors are kept in memory


class Cueing:
    """Cues of one home's adapters. Every method blocks and may be called from any thread.

    `embed` gives vectors of unit length, (texts, dimensions).
    """

    def __init__(self, db: Db, embed: Embed, scoping: Scoping) -> None:
        self._db = db
        self._embed = embed
        self._scoping = scoping
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, cues.Cues] = OrderedDict()
        self._complete = False  # whether all that is learned has its vector

    def take_up(self, examples: Iterable[Taught]) -> None:
        """Gives examples that are about to be learned their vectors. Raises AcclimateError."""
        rows, asks, texts = [], [], []
        for example in examples:
            messages = example.messages()
            asked = question_of(messages[:-1]).strip()
            if example.kind == "exchange" and asked:
                rows.append(example.id)
                asks.append(is_fact(example))
                # What is said about it is a part of what it is about; of a request it is not.
                both = f"{asked} {messages[-1]['content']}" if asks[-1] else asked
                texts += [asked, both]
        if rows:
            vectors = self._embed(texts)
            both_ways = vectors[0::2] + vectors[1::2]
            both_ways /= np.maximum(np.linalg.norm(both_ways, axis=1, keepdims=True), 1e-6)
            cues.put(self._db, rows, asks, both_ways)
        self._changed()

    def embed_pending(self, batch: int) -> int:
        """Gives up to `batch` learned examples their vectors, those that a round has not given any;
        how many there were. Raises AcclimateError."""
        if self._complete:
            return 0
        found = cues.missing(self._db, batch)
        self.take_up(taught_of(buffer.get(self._db, number)) for number in found)
        self._complete = not found
        return len(found)

    def of(self, adapter: str, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The question that the adapter was taught and that means what the last message asks; None
        where there is none, and where it asks for something to be written."""
        asked = question_of(messages).strip()
        if not 0 < len(asked) <= MAX_CHARS or asks_to_write(asked):
            return None
        try:
            if self._scoping.depth(adapter, asked) < MIN_DEPTH:
                return None
            return self._nearest(adapter, asked)
        except (AcclimateError, sqlite3.Error, ValueError) as error:
            log.warning("no_cue", error=str(error))
            return None

    def _nearest(self, adapter: str, asked: str) -> str | None:
        known = self._of(adapter)
        if not len(known.examples):
            return None
        near: NDArray[np.float32] = known.vectors @ self._embed([asked])[0]
        best = np.argsort(-near, kind="stable")[:LOOKED_AT]
        best = best[near[best] >= MIN_SIMILARITY]
        questions = cues.questions(self._db, map(int, known.examples[best]))
        for at in best:
            if (cue := questions.get(int(known.examples[at]))) is not None:
                fits = bool(known.asks[at]) and _bare(cue) != _bare(asked)
                return cue.strip() if fits else None
        return None

    def _of(self, adapter: str) -> cues.Cues:
        with self._lock:
            if (found := self._loaded.get(adapter)) is None:
                found = self._loaded[adapter] = cues.of(self._db, parse_version(adapter))
            self._loaded.move_to_end(adapter)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return found

    def _changed(self) -> None:
        with self._lock:
            self._loaded.clear()
            self._complete = False


def _bare(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()
