"""What of the person's documents goes into a prompt: found, weighed, cut to size, put in place.

Knows the index and the embedder; knows no model, no chat template and no HTTP.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from acclimate.adapters.request import asks_to_write
from acclimate.daemon.config import RetrievalConfig
from acclimate.store.chats import asked_in
from acclimate.store.chunk import sentences
from acclimate.store.db import Db
from acclimate.store.errors import EngineError
from acclimate.store.index import Hit, Index
from acclimate.store.topics import outdated

MAX_QUERY_CHARS = 2000
# Chunks that are looked at for each passage that is shown, and what all of a query's telling words
# in a chunk add to its similarity.
CANDIDATES, WORDS_WEIGHT = 12, 0.1
# How many passages may bear a cue out, and how near to the best each of them has to be.
WIDER, WIDER_RELATIVE = 5, 0.8
READ = 12  # passages that an answer is looked for in
# Words of questions, which say nothing about what is asked.
_QUESTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "about could does from have mine should that their them there they this what when where"
        " which whose will with would your",
    )
)


class TextEmbedder(Protocol):
    """Gives vectors of length 1, (texts, dimensions) float32. Raises EngineError."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Found:
    """Passages worth showing, best first, and some more that may bear out what is thought.

    `candidates` are the nearest by meaning alone, however near, each with its similarity as score,
    without what was written on request; `vector` is the query's, None where there are none.
    """

    near: list[Hit] = field(default_factory=list)
    wider: list[Hit] = field(default_factory=list)
    candidates: list[Hit] = field(default_factory=list)
    vector: NDArray[np.float32] | None = None


class Retriever:
    """Searches the chunks; every method blocks and may be called from any thread."""

    def __init__(
        self,
        db: Db,
        index: Index,
        embedder: TextEmbedder | None = None,
        settings: RetrievalConfig | None = None,
    ) -> None:
        self._db = db
        self._index = index
        self._embedder = embedder
        self.settings = settings or RetrievalConfig()

    def search(self, query: str, k: int) -> list[Hit]:
        """The `k` best chunks, best first, whether they fit or not; by words where no embedder is.

        A hit's score is its rank in both searches put together, not a similarity.
        """
        return self._index.search(query, self._vector(query), k)

    def passages(self, query: str) -> list[Hit]:
        """The chunks worth showing the model, best first; their score is how well they fit.

        That is the similarity to the query (`Index.similarities`), or the share of its words
        while a chunk has no vector yet. What is below the floor is left out, what is over
        `max_chars`, and an exchange that a later one contradicts.
        """
        return self.find(query).near

    def find(self, query: str) -> Found:
        """The same, and the next best beside them, each cut to `max_chars`."""
        query = query.strip()[:MAX_QUERY_CHARS]
        if not query:
            return Found()
        vector = self._vector(query)
        # A question in other words than the answer's shares mostly its little ones with other
        # chunks, so that the ranking of words only names candidates here.
        hits = self._index.search(query, vector, CANDIDATES * self.settings.passages)
        stale = outdated(self._db, [hit.chunk_id for hit in hits])
        hits = [hit for hit in hits if hit.chunk_id not in stale]
        numbers = [hit.chunk_id for hit in hits]
        similarities = {} if vector is None else self._index.similarities(numbers, vector)
        fitting: list[tuple[float, Hit]] = []
        similar: list[Hit] = []
        for hit in hits:
            words = shared_words(query, hit.text)
            score, floor, rank = words, self.settings.min_words, words
            if (similarity := similarities.get(hit.chunk_id)) is not None:
                score, floor = similarity, self.settings.min_similarity
                rank = similarity + WORDS_WEIGHT * words
                similar.append(replace(hit, score=round(similarity, 4)))
            if score >= floor:
                fitting.append((rank, replace(hit, score=round(score, 4))))
        similar.sort(key=lambda hit: -hit.score)
        fitting.sort(key=lambda ranked: -ranked[0])
        settings, best = self.settings, fitting[0][0] if fitting else 0.0
        shown = fitting[: settings.passages]
        near = [hit for rank, hit in shown if rank >= settings.min_relative * best]
        wider = [hit for rank, hit in fitting[:WIDER] if rank >= WIDER_RELATIVE * best]
        return Found(
            within(near, settings.max_chars),
            [within([hit], settings.max_chars)[0] for hit in wider],
            [*islice((hit for hit in similar if not _was_written(hit.text)), READ)],
            vector,
        )

    def embed_pending(self, batch: int = 16) -> int:
        """Give up to `batch` chunks their vectors; how many there were, 0 when all have theirs.

        Raises EngineError when the embedder does not work at all.
        """
        if self._embedder is None:
            return 0
        pending = self._index.pending(batch)
        if not pending:
            return 0
        texts = [text for _, text in pending]
        chunk_ids = [chunk_id for chunk_id, _ in pending]
        prose = self._index.prose(chunk_ids)
        parts = [sentences(text) if n in prose else [] for n, text in pending]
        vectors = self._vectors([*texts, *(part for each in parts for part in each)])
        ends = np.cumsum([len(texts), *map(len, parts)])
        self._index.set_vectors(
            chunk_ids,
            vectors[: len(texts)],
            [vectors[start:end] for start, end in pairwise(ends)],
        )
        return len(pending)

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        if self._embedder is None:
            raise EngineError("there is no embedder")
        try:
            return self._embedder.embed(texts)
        except EngineError:
            # One odd text must not keep the rest from being found. It gets a vector of zeros,
            # which is similar to nothing; this raises when the embedder itself is the trouble.
            width = self._embedder.embed(["a"]).shape[1]
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        for row, text in enumerate(texts):
            try:
                vectors[row] = self._embedder.embed([text])[0]
            except EngineError:
                continue
        return vectors

    def _vector(self, query: str) -> NDArray[np.float32] | None:
        """Its meaning; None where there is nothing to compare it with."""
        if self._embedder is None or not query.strip() or not self._index.size:
            return None
        vector: NDArray[np.float32] = self._embedder.embed([query[:MAX_QUERY_CHARS]])[0]
        return vector


def shared_words(query: str, text: str) -> float:
    """The share of the query's telling words that the text has, 0 to 1."""
    words = {word for word in _words(query) if len(word) > 3} - _QUESTION_WORDS
    return len(words & _words(text)) / len(words) if words else 0.0


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def within(hits: Sequence[Hit], max_chars: int) -> list[Hit]:
    """As many of the first hits as fit into `max_chars`; the first one is cut if it must be."""
    kept: list[Hit] = []
    room = max_chars
    for hit in hits:
        if len(hit.text) > room:
            if not kept:
                kept.append(replace(hit, text=hit.text[:room]))
            break
        kept.append(hit)
        room -= len(hit.text)
    return kept


def question_of(messages: Sequence[Mapping[str, str]]) -> str:
    """What to search for: what the user said last, empty when somebody else did."""
    return messages[-1]["content"] if messages and messages[-1]["role"] == "user" else ""


def _was_written(text: str) -> bool:
    """Whether this is something that was written for the person, which says nothing about him."""
    asked = asked_in(text)
    return asked is not None and asks_to_write(asked)
