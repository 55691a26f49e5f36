"""Cues: the taught question that means what is asked, put behind it or in its place.

A small base holds apart what a sentence embedder knows to mean the same; the answer stands in the
weights all the same, and is found under the question that it was taught with. No answer is shown.
Knows vectors of what was taught; knows no engine and no index.
"""

from __future__ import annotations

import math
import re
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters import study
from acclimate.adapters.mixture import is_fact
from acclimate.adapters.passages import with_cue
from acclimate.adapters.questions import ECHOED
from acclimate.adapters.request import (
    MAX_CHARS,
    asks_for_meaning,
    asks_to_write,
    has_own_form,
    may_be_question,
    works_on_text,
)
from acclimate.adapters.snapshot import Taught, taught_of
from acclimate.adapters.topic import is_news, kind_of
from acclimate.daemon.general import Embed, General
from acclimate.daemon.reader import Quote
from acclimate.daemon.retrieve import question_of
from acclimate.store import buffer, cues
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError
from acclimate.store.files import parse_version

log = structlog.get_logger(__name__)

# Of a cue to what is asked (cosine): by itself, and where a passage bears it out.
MIN_SIMILARITY, MIN_BORNE_OUT = 0.4, 0.3
# As near as this (cosine) a cue is asked in the place of the question: the answer was taught under
# it, and another question's own words only lead away from it.
IN_PLACE = 0.55
# Of the nearest cue where no passage bears one out, and how much farther than it one may be that a
# passage does bear out.
SURE_BESIDE, AS_GOOD = 0.45, 0.02
# What a cue is worth beside an answer that the reader finds in a passage, whose score is how much
# likelier (log-odds) it is than none: so much for its similarity above a point, and some more where
# a passage bears it out. From `WORTH_IT` on nothing is read.
NEAR_WEIGHT, NEAR_POINT, BORNE_OUT = 20.0, 0.4, 1.0
WORTH_IT = 8.0
# How much nearer to a general text than to all that was taught a question may be that somebody asks
# about what was taught.
NEARER = 0.05
# What is this near to something that was taught (cosine), and no nearer to any general text, is
# surely about it.
SURELY = 0.45
# What a word means, or what is to be done with a text that is given, is what the person says only
# where the very question was taught (cosine).
TAUGHT = 0.8
# An echo counts as so much farther than it is: it is no question that anybody would ask.
ECHO_FARTHER = 0.06
# How much farther than from a general text a request to write something may be from all that was
# taught and asked for no fact: in which form somebody wants things written holds for most of them.
REQUESTS_FARTHER = 0.3
MIN_LIKE = 0.25  # of a taught request to another one (cosine)
LOOKED_AT = 16  # of the nearest: some may have been contradicted
# Of those that are this near to the nearest, the latest counts: it may be news of the same matter.
# The very question that is asked counts before them.
AS_NEAR = 0.02
# One that says that something has changed counts before an earlier one that it is so much farther
# than, if the two are this alike (cosines) and ask for the same kind of thing.
NEWS_NEAR, NEWS_ALIKE = 0.1, 0.5
KEPT = 2  # adapters whose vectors are kept in memory

P = TypeVar("P")


@dataclass(frozen=True)
class Cue:
    """A taught question, and the bare answer that it was taught with, which the model is not told.

    `words` are what is put behind the question that was asked, or in its place; None where that is
    the taught one.
    `near` is how near it is (a cosine). A taught `request` to write something has no answer: it
    shows in whose manner to write.
    """

    question: str
    answer: str
    words: str | None
    near: float = 1.0
    request: bool = False

    def within(self, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The messages with this in the place of the last one, or behind it if it is not sure."""
        sure = self.near >= IN_PLACE and not self.request
        return with_cue(messages, self.words, request=self.request, in_place=sure)

    def said_in(self, texts: Sequence[str]) -> int | None:
        """Which of the texts, the first of them, has the answer; None where none has."""
        wanted = f" {_bare(self.answer)} "
        return next((at for at, text in enumerate(texts) if wanted in f" {_bare(text)} "), None)


def worth(cue: Cue | None, *, borne_out: bool) -> float:
    """How surely a cue leads to the answer, as a score that the reader's has to be above; infinite
    where nothing need be read."""
    if cue is None:
        return -math.inf
    if cue.request:
        return math.inf
    found = NEAR_WEIGHT * (cue.near - NEAR_POINT) + (BORNE_OUT if borne_out else 0.0)
    return found if found < WORTH_IT else math.inf


def surer(read: Callable[[], Quote | None], cue: Cue | None, *, borne_out: bool) -> Quote | None:
    """What the reader finds, where that leads to the answer more surely than the cue; it is asked
    only where that may be so."""
    least = worth(cue, borne_out=borne_out)
    quote = read() if least < math.inf else None
    return quote if quote is not None and quote.score > least else None


def agreeing(
    cues: Sequence[Cue], near: Sequence[P], wider: Sequence[P], texts: Sequence[str]
) -> tuple[list[P], Cue | None]:
    """What is shown of passages, and which cue: two searches that check each other.

    Of the cues that are as good as the nearest the first that one of the `wider` found passages,
    with these texts, bears out, and that passage alone. Where there is none, the nearest cue
    without a passage, if it is sure; else the passages that are `near` and no cue. Beside a request
    they are all shown.
    """
    if cues and cues[0].request:
        return [*near], cues[0]
    for cue in cues:
        if cue.near < cues[0].near - AS_GOOD:
            break
        if (said := cue.said_in(texts)) is not None:
            return [wider[said]], cue
    least = SURE_BESIDE if near else MIN_SIMILARITY
    if cues and cues[0].near >= least:
        return [], cues[0]
    return [*near], None


class Cueing:
    """Cues of one home's adapters. Every method blocks and may be called from any thread.

    `embed` gives vectors of unit length, (texts, dimensions); `general` are those of general text.
    """

    def __init__(self, db: Db, embed: Embed, general: General) -> None:
        self._db = db
        self._embed = embed
        self._general = general
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, cues.Cues] = OrderedDict()
        self._complete = False  # whether all that is learned has its vector

    def take_up(self, examples: Iterable[Taught]) -> None:
        """Gives examples that are about to be learned their vectors. Raises AcclimateError."""
        rows = [e for e in examples if e.kind == "exchange" and asked_of(e)]
        if rows:
            vectors = keys(rows, self._embed)
            cues.put(self._db, [e.id for e in rows], [*map(is_fact, rows)], vectors)
        with self._lock:
            self._loaded.clear()
            self._complete = False

    def embed_pending(self, batch: int) -> int:
        """Gives up to `batch` learned examples their vectors, those that a round has not given any;
        how many there were. Raises AcclimateError."""
        if self._complete:
            return 0
        found = cues.missing(self._db, batch)
        if found:
            self.take_up(taught_of(buffer.get(self._db, number)) for number in found)
        self._complete = not found
        return len(found)

    def leaning(self, adapter: str, text: str) -> int:
        """1 for a question that is surely about what the adapter was taught, and for a request that
        may be like those that it was taught, -1 for a question that is clearly nearer to general
        text, asks what a word means, or has the text with it that it is about, and for a script, a
        table or the like where none was taught, 0 for any other.

        0, too, for any other text that is no short question, and where nothing is known. Raises
        AcclimateError, sqlite3.Error.
        """
        known = self._of(adapter) if 0 < len(text) <= MAX_CHARS else None
        if known is None or not len(known.examples):
            return 0
        vector = self._embed([text])[0]
        near, general = _near(known, vector), self._general_near(vector)
        if (asks_for_meaning(text) or works_on_text(text)) and near.max() < TAUGHT:
            return -1
        if asks_to_write(text):
            if has_own_form(text) and not any(
                has_own_form(cue.question) for cue in self._like(adapter, text)
            ):
                return -1
            requests = near[~known.asks]
            return int(requests.max(initial=-1.0) >= general - REQUESTS_FARTHER)
        return int(lean(np.array([general]), near.max(keepdims=True))[0])

    def _general_near(self, vector: NDArray[np.float32]) -> np.float32:
        """How near the nearest general text is to the vector."""
        nearest: np.float32 = (self._general.vectors() @ vector).max()
        return nearest

    def of(self, adapter: str, messages: Sequence[Mapping[str, str]]) -> Cue | None:
        """The question that the adapter was taught and that means what the last message asks, or
        the request that is most like one to write something; None where there is none.

        What goes wrong is logged, and costs no more than the cue.
        """
        return agreeing(self.several(adapter, messages), (), (), ())[1]

    def several(self, adapter: str, messages: Sequence[Mapping[str, str]]) -> list[Cue]:
        """That question first, and others that it may mean instead, the nearest first."""
        asked = question_of(messages).strip()
        try:
            if asks_to_write(asked):
                return self._like(adapter, asked)
            return self._nearest(adapter, asked) if may_be_question(asked) else []
        except (AcclimateError, sqlite3.Error, ValueError) as error:
            log.warning("no_cue", error=str(error))
            return []

    def _nearest(self, adapter: str, asked: str) -> list[Cue]:
        known = self._of(adapter)
        if not len(known.examples):
            return []
        vector = self._embed([asked])[0]
        near = _near(known, vector)
        if near.max() < self._general_near(vector):
            return []
        best = np.argsort(-near, kind="stable")[:LOOKED_AT]
        best = best[near[best] >= MIN_BORNE_OUT]
        taught = cues.exchanges(self._db, map(int, known.examples[best]))
        best = np.array([at for at in best if int(known.examples[at]) in taught], int)
        if not len(best):
            return []
        said = {int(at): taught[int(known.examples[at])] for at in best}
        found = {int(at): _cue(asked, *said[int(at)], near[at]) for at in best}
        same = [at for at in best if found[int(at)].words is None]
        as_near = same or best[near[best] >= near[best[0]] - AS_NEAR]
        latest = min(as_near)  # they are in this order
        first = next((at for at in best if _is_news_of(at, latest, near, known, said)), latest)
        if not known.asks[first]:
            return []
        others = [at for at in best if at != first and known.asks[at]]
        return [found[int(at)] for at in (first, *others)]

    def _like(self, adapter: str, asked: str) -> list[Cue]:
        """The nearest request that was taught, if it is near enough."""
        known = self._of(adapter)
        if not len(known.examples):
            return []
        near = np.where(known.asks, -1.0, known.vectors @ self._embed([asked])[0])
        best = np.argsort(-near, kind="stable")[:LOOKED_AT]
        best = best[near[best] >= MIN_LIKE]
        taught = cues.exchanges(self._db, map(int, known.examples[best]))
        for at in best:
            request, _ = taught.get(int(known.examples[at]), ("", ""))
            if asks_to_write(request):
                return [_cue(asked, request, None, near[at])]
        return []

    def _of(self, adapter: str) -> cues.Cues:
        with self._lock:
            if (found := self._loaded.get(adapter)) is None:
                found = self._loaded[adapter] = cues.of(self._db, parse_version(adapter))
            self._loaded.move_to_end(adapter)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return found


def _cue(asked: str, question: str, reply: str | None, near: float) -> Cue:
    """Of a request to write something the reply is not told: None."""
    question = question.strip()
    answer = "" if reply is None else study.short_reply(question, reply.strip())
    words = None if _bare(question) == _bare(asked) else question
    return Cue(question, answer, words, float(near), request=reply is None)


def _near(known: cues.Cues, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """How near each taught example is to the vector."""
    near: NDArray[np.float32] = known.vectors @ vector
    return np.where(known.worth < ECHOED, near - np.float32(ECHO_FARTHER), near)


def _is_news_of(
    at: int,
    earlier: int,
    near: NDArray[np.float32],
    known: cues.Cues,
    said: Mapping[int, tuple[str, str]],
) -> bool:
    """Whether one example says what has become of the matter of an earlier one."""
    if at >= earlier or near[at] < near[earlier] - NEWS_NEAR:
        return False
    (question, reply), (before, _) = said[int(at)], said[int(earlier)]
    kinds = {kind_of(question), kind_of(before)} - {""}
    return (
        is_news(f"{question} {reply}")
        and len(kinds) < 2
        and float(known.vectors[at] @ known.vectors[earlier]) >= NEWS_ALIKE
    )


def lean(general: NDArray[np.float32], taught: NDArray[np.float32]) -> NDArray[np.int8]:
    """`Cueing.leaning` of questions by how near, (questions,), each is to the nearest of both."""
    surely = (taught >= SURELY) & (taught >= general)
    return np.where(general - taught > NEARER, -1, surely).astype(np.int8)


def keys(examples: Sequence[Taught], embed: Embed) -> NDArray[np.float32]:
    """The vectors by which examples are found, (examples, dimensions), of unit length. Each has to
    ask something.

    What is said about a question is a part of what it is about; of a request it is not.
    """
    texts: list[str] = []
    for example in examples:
        asked = asked_of(example)
        said = example.messages()[-1]["content"]
        texts += [asked, f"{asked} {said}" if is_fact(example) else asked]
    vectors = embed(texts)
    together: NDArray[np.float32] = vectors[0::2] + vectors[1::2]
    together /= np.maximum(np.linalg.norm(together, axis=1, keepdims=True), 1e-6)
    return together


def asked_of(example: Taught) -> str:
    """What the user says last before the reply, empty when somebody else does."""
    return question_of(example.messages()[:-1]).strip()


def _bare(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()
