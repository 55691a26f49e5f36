"""Search over chunks: words by FTS5, meaning by FAISS, one ranking out of both.

Knows no embedding model; the database is the truth and the FAISS file a cache of it.
"""

import contextlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from acclimate.store.clean import telling
from acclimate.store.db import Db, ids
from acclimate.store.files import TEMP_PREFIX, failpoint, fsync_dir, fsync_file, sha256_file

DIMENSIONS = 384
# Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009, with their constant.
_RRF = 60
_MIN_CANDIDATES = 30
_MAX_TERMS = 64
_BATCH = 1000
_MANY = 20_000  # chunks
_CHANGED_SHARE = 0.1
# What a chunk's own vector counts for beside that of its sentence nearest to the question.
CHUNK_SHARE = 0.4


@dataclass(frozen=True)
class Hit:
    chunk_id: int
    text: str
    path: str  # of the document, relative to its source
    source: str
    start_line: int
    end_line: int
    score: float


class Index:
    """Hybrid search. Safe to share between threads.

    `embedder` names the model that vectors come from; another name drops the stored vectors.
    """

    def __init__(
        self, db: Db, path: Path, *, dimensions: int = DIMENSIONS, embedder: str | None = None
    ) -> None:
        self._db = db
        self._path = path
        self._dimensions = dimensions
        # Where both are held, the database's lock is taken first.
        self._lock = threading.Lock()
        self._changed = 0  # vectors that the file lacks, or has and should not
        # A second thread pool beside llama.cpp's costs more than a flat scan of a small index.
        faiss.omp_set_num_threads(1)
        if embedder is not None:
            self._check_embedder(embedder)
        self._faiss = self._load()
        self._catch_up()

    @property
    def size(self) -> int:
        """How many vectors can be found."""
        with self._lock:
            return int(self._faiss.ntotal)

    def pending(self, limit: int) -> list[tuple[int, str]]:
        """Chunks that have no vector yet, as (id, text), oldest first."""
        rows = self._db.read().execute(
            "SELECT id, text FROM chunks WHERE vector IS NULL ORDER BY id LIMIT ?", (limit,)
        )
        return [(row["id"], row["text"]) for row in rows.fetchall()]

    def prose(self, chunk_ids: Iterable[int]) -> set[int]:
        """Those of the chunks that are no code."""
        rows = self._db.read().execute(
            "SELECT c.id FROM chunks c JOIN documents d ON d.id = c.document_id"
            " JOIN sources s ON s.id = d.source_id WHERE s.kind <> 'code'"
            " AND c.id IN (SELECT value FROM json_each(?))",
            (ids(chunk_ids),),
        )
        return {row["id"] for row in rows.fetchall()}

    def set_vectors(
        self,
        chunk_ids: Sequence[int],
        vectors: NDArray[np.float32],
        sentences: Sequence[NDArray[np.float32]] = (),
    ) -> None:
        """Store and index vectors, float32 (n, dimensions) of length 1. Raises ValueError.

        `sentences` are those of each chunk's sentences, (m, dimensions), m may be 0. Chunks that
        were deleted meanwhile are passed over.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.shape != (len(chunk_ids), self._dimensions):
            raise ValueError(
                f"vectors of shape {vectors.shape} for {len(chunk_ids)} chunks of"
                f" {self._dimensions} dimensions"
            )
        if not np.isfinite(vectors).all():
            raise ValueError("a vector has numbers that are not finite")
        lengths = np.linalg.norm(vectors, axis=1)  # (n,)
        if not ((np.abs(lengths - 1) < 0.01) | (lengths == 0)).all():
            raise ValueError("a vector is not of length 1")
        with self._db.write() as conn:
            rows = conn.execute(
                "SELECT id, vector IS NOT NULL AS had_one FROM chunks"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (ids(chunk_ids),),
            )
            there = {row["id"]: row["had_one"] for row in rows.fetchall()}
            kept = [i for i, chunk_id in enumerate(chunk_ids) if chunk_id in there]
            parts = [part.astype(np.float16).tobytes() or None for part in sentences]
            conn.executemany(
                "UPDATE chunks SET vector = ?, sentences = ? WHERE id = ?",
                [(vectors[i].tobytes(), parts[i] if parts else None, chunk_ids[i]) for i in kept],
            )
            failpoint("index.vectors")
            with self._lock:
                # Looking for one to remove costs a pass over all.
                self._remove(np.array([n for n, had_one in there.items() if had_one], np.int64))
                self._faiss.add_with_ids(
                    vectors[kept], np.array([chunk_ids[i] for i in kept], dtype=np.int64)
                )
                self._changed += len(kept)

    def search(self, text: str, vector: NDArray[np.float32] | None, k: int) -> list[Hit]:
        """The `k` chunks that fit best, best first; words alone where there is no vector."""
        if k < 1:
            return []
        self._forget_deleted()
        candidates = max(_MIN_CANDIDATES, 4 * k)
        scores: defaultdict[int, float] = defaultdict(float)
        for ranking in (self._by_words(text, candidates), self._by_meaning(vector, candidates)):
            for rank, chunk_id in enumerate(ranking, start=1):
                scores[chunk_id] += 1 / (_RRF + rank)
        rows = self._db.read().execute(
            "SELECT c.id AS chunk_id, c.text, d.path, s.path AS source, c.start_line, c.end_line"
            " FROM chunks c JOIN documents d ON d.id = c.document_id"
            " JOIN sources s ON s.id = d.source_id"
            " WHERE c.id IN (SELECT value FROM json_each(?))",
            (ids(scores),),
        )
        hits = [Hit(**dict(row), score=scores[row["chunk_id"]]) for row in rows.fetchall()]
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))[:k]

    def similarities(
        self, chunk_ids: Iterable[int], query: NDArray[np.float32]
    ) -> dict[int, float]:
        """How near chunks are to a query's vector, (dimensions,), for those that have one.

        A mean of two cosines, the chunk's and its nearest sentence's: a chunk tells several things,
        of which a question asks one.
        """
        rows = self._db.read().execute(
            "SELECT id, vector, sentences FROM chunks WHERE vector IS NOT NULL"
            " AND id IN (SELECT value FROM json_each(?))",
            (ids(chunk_ids),),
        )
        found = {}
        for row in rows.fetchall():
            whole = float(np.frombuffer(row["vector"], np.float32) @ query)
            nearest = whole
            if row["sentences"]:
                each = np.frombuffer(row["sentences"], np.float16).astype(np.float32)
                nearest = float((each.reshape(-1, self._dimensions) @ query).max())
            found[row["id"]] = nearness(whole, nearest)
        return found

    def _by_words(self, text: str, limit: int) -> list[int]:
        query = fts_query(text, common=self.size < _MANY)
        if not query:
            return []
        rows = self._db.read().execute(
            "SELECT rowid FROM chunks_fts WHERE chunks_fts MATCH ? ORDER BY rank LIMIT ?",
            (query, limit),
        )
        return [row[0] for row in rows.fetchall()]

    def _by_meaning(self, vector: NDArray[np.float32] | None, limit: int) -> list[int]:
        if vector is None:
            return []
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        if query.shape[1] != self._dimensions or not np.isfinite(query).all():
            raise ValueError(f"a query vector has {self._dimensions} finite numbers")
        with self._lock:
            found = self._faiss.search(query, min(limit, max(self._faiss.ntotal, 1)))[1][0]
        return [int(chunk_id) for chunk_id in found if chunk_id >= 0]

    def flush(self) -> None:
        """Bring the file up to date, so that the next start need not rebuild. Raises OSError."""
        self._forget_deleted()
        temp = self._path.with_name(f"{TEMP_PREFIX}{self._path.name}")
        with self._db.write() as conn, self._lock:
            if not self._changed and self._path.exists():
                return
            faiss.write_index(self._faiss, str(temp))
            temp.chmod(0o600)
            fsync_file(temp)
            failpoint("index.written")
            temp.replace(self._path)
            failpoint("index.renamed")
            fsync_dir(self._path.parent)
            # Until this row is committed the hash is off, and a start rebuilds from the database.
            _set(conn, "index", sha256_file(self._path))
            self._changed = 0

    def flush_sometimes(self) -> None:
        """Write the file once so much has changed that writing all of it is worth while.

        What it lacks is read from the database at the next start. Raises OSError.
        """
        if self._changed >= max(_BATCH, self.size * _CHANGED_SHARE):
            self.flush()

    def rebuild(self) -> None:
        """Make the index anew from the vectors in the database."""
        with self._db.write(), self._lock:
            self._faiss = _empty(self._dimensions)
            self._add_missing(set())

    def _load(self) -> Any:
        expected = self._db.read().execute("SELECT value FROM settings WHERE key = 'index'")
        row = expected.fetchone()
        try:
            # faiss trusts what it reads: only a file that we wrote ourselves gets that far.
            if row is None or json.loads(row["value"]) != sha256_file(self._path):
                return _empty(self._dimensions)
            index = faiss.read_index(str(self._path))
        except (OSError, RuntimeError):
            return _empty(self._dimensions)
        return index if index.d == self._dimensions else _empty(self._dimensions)

    def _catch_up(self) -> None:
        """Make the loaded index hold exactly the vectors that the database has."""
        with self._db.write() as conn, self._lock:
            here = {int(i) for i in faiss.vector_to_array(self._faiss.id_map)}
            rows = conn.execute("SELECT id FROM chunks WHERE vector IS NOT NULL").fetchall()
            there = {row["id"] for row in rows}
            self._remove(np.array(sorted(here - there), dtype=np.int64))
            self._add_missing(here & there)
            conn.execute("DELETE FROM deleted_vectors")
            self._changed += len(here - there)

    def _add_missing(self, present: Iterable[int]) -> None:
        rows = self._db.read().execute(
            "SELECT id FROM chunks WHERE vector IS NOT NULL"
            " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id",
            (ids(present),),
        )
        missing = [row["id"] for row in rows.fetchall()]
        for start in range(0, len(missing), _BATCH):
            numbers = missing[start : start + _BATCH]
            found = self._db.read().execute(
                "SELECT vector FROM chunks WHERE id IN (SELECT value FROM json_each(?))"
                " ORDER BY id",
                (ids(numbers),),
            )
            vectors = np.frombuffer(b"".join(row[0] for row in found.fetchall()), np.float32)
            self._faiss.add_with_ids(
                vectors.reshape(-1, self._dimensions), np.array(numbers, dtype=np.int64)
            )
        self._changed += len(missing)

    def _forget_deleted(self) -> None:
        if not self._db.read().execute("SELECT 1 FROM deleted_vectors LIMIT 1").fetchone():
            return
        with self._db.write() as conn, self._lock:
            rows = conn.execute("SELECT chunk_id FROM deleted_vectors").fetchall()
            self._remove(np.array([row[0] for row in rows], dtype=np.int64))
            self._changed += len(rows)
            conn.execute("DELETE FROM deleted_vectors")

    def _remove(self, numbers: NDArray[np.int64]) -> None:
        if len(numbers):
            self._faiss.remove_ids(numbers)

    def _check_embedder(self, embedder: str) -> None:
        name = f"{embedder}:{self._dimensions}"
        with self._db.write() as conn:
            row = conn.execute("SELECT value FROM settings WHERE key = 'embedder'").fetchone()
            if row is None or json.loads(row["value"]) != name:
                conn.execute("UPDATE chunks SET vector = NULL WHERE vector IS NOT NULL")
                conn.execute("DELETE FROM cues")
                _set(conn, "embedder", name)
                with contextlib.suppress(FileNotFoundError):
                    self._path.unlink()


def fts_query(text: str, *, common: bool = True) -> str:
    """Any text as an FTS5 query for any of its words; empty when it has none.

    Every word is quoted, so no operator, quote or NUL in it means anything. Without the `common`
    ones where others are left: those are in nearly every chunk, and a rank is computed for each
    that has one of the words.
    """
    words = [*dict.fromkeys(word.casefold()[:64] for word in re.findall(r"\w+", text))]
    kept = words if common else telling(words)
    return " OR ".join(f'"{word}"' for word in kept[:_MAX_TERMS])


def _empty(dimensions: int) -> Any:
    # Flat, because HNSW cannot remove and IVF drifts when it does (faiss#3339, #4656).
    return faiss.IndexIDMap2(faiss.IndexFlatIP(dimensions))


def _set(conn: Any, key: str, value: Any) -> None:
    conn.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, json.dumps(value)))


def nearness(whole: float, nearest: float) -> float:
    """How near a chunk is, by its own cosine and that of its nearest sentence."""
    return CHUNK_SHARE * whole + (1 - CHUNK_SHARE) * nearest
