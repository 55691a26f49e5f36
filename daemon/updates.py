"""Updates: known questions that a new passage answers otherwise.

A passage that says that something has changed is read for every question near to it that was
answered before. Its answer, where it has a clear one, is taught under the old question, and so
supersedes the old answer (`store.topics`). Knows texts and vectors; knows no language model.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters.questions import ECHOED
from acclimate.adapters.topic import is_news
from acclimate.daemon.general import Embed
from acclimate.daemon.reader import SURE, Reader, content_words, is_numeric
from acclimate.daemon.study import find_topics, sentence
from acclimate.store import updates
from acclimate.store.chunk import sentences
from acclimate.store.db import Db
from acclimate.store.index import nearness
from acclimate.store.studied import Unstudied
from acclimate.store.topics import supersede

log = structlog.get_logger(__name__)

BATCH = 16
MOST = 256  # passages that one call reads: a tenth of a second each
MOST_EMBEDDED = 2000  # questions that wait for their first round, the latest ones
NEAR = 0.4  # a passage to a question, at least (as in `Index.similarities`)
ALIKE = 0.8  # two questions for the same thing, though it was told otherwise (cosine)
LOOKED_AT = 12  # questions for each passage


@dataclass(frozen=True)
class _Found:
    """A known question that a passage answers otherwise."""

    near: float
    example: int
    question: str
    vector: NDArray[np.float32]
    told: str
    answer: str


class Updates:
    """Of one home. `embed` gives vectors of unit length, (texts, dimensions)."""

    def __init__(self, db: Db, embed: Embed, reader: Reader) -> None:
        self._db = db
        self._embed = embed
        self._reader = reader
        self._lock = threading.Lock()

    def find(self) -> int:
        """Looks at the passages that came since the last call, and reads at most `MOST` of them;
        how many brought an update. Raises AcclimateError, sqlite3.Error.
        """
        count, read, known = 0, 0, None
        with self._lock:
            while read < MOST and (parts := updates.not_compared(self._db, BATCH)):
                for part in parts:
                    if is_news(part.text):
                        known = known or self._known()
                        count += self._look(part, known)
                        read += 1
                updates.compared(self._db, [part.chunk_id for part in parts])
        return count

    def _known(self) -> updates.Known:
        """With a vector for the latest of those that no round has given one yet."""
        found = updates.known(self._db, ECHOED, self._embed(["a"]).shape[1])
        bare = np.flatnonzero(~found.vectors.any(axis=1))[:MOST_EMBEDDED]
        if len(bare):
            found.vectors[bare] = self._embed([found.questions[n] for n in bare])
        return found

    def _look(self, part: Unstudied, known: updates.Known) -> bool:
        vectors = self._embed([part.text, *sentences(part.text)])
        found: list[_Found] = []
        for n in _nearest(known, vectors, part.document_id):
            question = known.questions[n]
            vector = self._embed([question])[0]
            near = similarity(vectors, vector)
            quotes = self._reader.read(question, vector, [part.text], [near])
            clear = near >= NEAR and quotes and quotes[0].score >= SURE
            if clear and replaces(part.text, known.told[n], quotes[0].text):
                answer, told = quotes[0].text, known.told[n]
                found.append(_Found(near, known.examples[n], question, vector, told, answer))
        if not found:
            return False
        # One passage answers one thing anew, however many questions ask for it.
        best = max(found, key=lambda each: each.near)
        new = [
            each
            for each in found
            if each.answer == best.answer
            and (each.told in best.told or best.told in each.told or _alike(each, best))
            and updates.record(self._db, part, each.example, each.question, sentence(each.answer))
        ]
        if new:
            find_topics(self._db)
            supersede(self._db)
            log.info("update_found", examples=[each.example for each in new])
        return bool(new)


def _alike(one: _Found, other: _Found) -> bool:
    return bool(one.vector @ other.vector >= ALIKE)


def _nearest(known: updates.Known, vectors: NDArray[np.float32], document: int) -> list[int]:
    """Which questions of earlier documents are the nearest to any of these."""
    earlier = np.flatnonzero(known.documents < document)
    near: NDArray[np.float32] = (known.vectors[earlier] @ vectors.T).max(axis=1, initial=-1.0)
    found: list[int] = earlier[np.argsort(-near, kind="stable")[:LOOKED_AT]].tolist()
    return found


def similarity(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> float:
    """Of a passage, whose own vector comes before those of its sentences, to a query."""
    near: list[float] = (vectors @ query).tolist()
    return nearness(near[0], max(near))


def replaces(text: str, before: str, now: str) -> bool:
    """Whether a text may say that an answer is another one now.

    The sentence that has it speaks of a change. Where the text says the earlier one, too, it does
    so close by; else that may well still hold.
    """
    parts = sentences(text) or [text]
    said = [part.casefold() for part in parts]
    new = [n for n, part in enumerate(said) if now.casefold() in part and is_news(parts[n])]
    old = [n for n, part in enumerate(said) if before in part]
    close = not old or any(abs(one - other) < 2 for one in old for other in new)
    return bool(new) and close and changes(before, now)


def changes(before: str, now: str) -> bool:
    """Whether an answer says something else than an earlier one, of the same kind."""
    told_now = now.casefold().strip(" .!")
    if told_now in before or before in told_now:
        return False
    words, words_now = ({*content_words(text)} for text in (before, now))
    if words <= words_now or words_now <= words:
        return False
    return is_numeric(before) == is_numeric(now)
