"""Passages that may say that something has changed, and the questions that it may be about.

Knows rows and vectors; what a passage answers is its caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.store import studied
from acclimate.store.db import Db, ids
from acclimate.store.route import TEACHABLE
from acclimate.store.studied import Unstudied
from acclimate.store.topics import SUPERSEDED

MOST = 20_000  # questions, the latest ones


@dataclass(frozen=True)
class Known:
    """Questions that were answered, (n,) each: in which documents, and with which bare answer;
    `vectors` (n, D), of unit length, with zeros where an example has none yet."""

    examples: list[int]
    documents: NDArray[np.int64]
    questions: list[str]
    told: list[str]
    vectors: NDArray[np.float32]


def not_compared(db: Db, limit: int) -> list[Unstudied]:
    """Passages that were not looked at yet, oldest first; not those that study made. Code
    says nothing."""
    rows = db.read().execute(
        "SELECT c.id, c.document_id, d.source_id, c.start_line, iif(s.kind = 'code', '', c.text)"
        " FROM chunks c INDEXED BY chunks_not_compared JOIN documents d ON d.id = c.document_id"
        " JOIN sources s ON s.id = d.source_id WHERE c.compared = 0 ORDER BY c.id LIMIT ?",
        (limit,),
    )
    return [Unstudied(*row) for row in rows.fetchall()]


def compared(db: Db, chunk_ids: Iterable[int]) -> None:
    """Marks passages as looked at."""
    with db.write() as conn:
        conn.execute(
            "UPDATE chunks SET compared = 1 WHERE id IN (SELECT value FROM json_each(?))",
            (ids(chunk_ids),),
        )


def known(db: Db, least_weight: float, width: int) -> Known:
    """What was answered, whether it still holds or not, the latest first.

    Without what study found less worth learning than `least_weight`.
    """
    rows = (
        db.read()
        .execute(
            "SELECT e.id, e.document_id, e.told, c.vector,"  # noqa: S608
            " json_extract(e.content, '$.messages[#-2].content') AS question"
            " FROM examples e LEFT JOIN cues c ON c.example_id = e.id"
            " WHERE (e.state IN ('pending', 'held-out', 'learned') OR instr(e.reason, ?) = 1)"
            f" AND e.kind = 'exchange' AND e.{TEACHABLE} AND e.content != '{{}}'"
            " AND e.document_id IS NOT NULL AND e.told != '' AND e.topic != '' AND e.weight >= ?"
            " AND json_array_length(e.content, '$.messages') = 2 ORDER BY e.id DESC LIMIT ?",
            (SUPERSEDED, least_weight, MOST),
        )
        .fetchall()
    )
    vectors = np.zeros((len(rows), width), np.float32)
    for n, row in enumerate(rows):
        if row["vector"] is not None:
            vectors[n] = np.frombuffer(row["vector"], np.float16)
    return Known(
        [row["id"] for row in rows],
        np.array([row["document_id"] for row in rows], np.int64),
        [row["question"] for row in rows],
        [row["told"] for row in rows],
        vectors,
    )


def record(db: Db, part: Unstudied, example_id: int, question: str, reply: str) -> bool:
    """Keeps a passage's answer to the question of an earlier example; False when it is gone, or its
    document or a later one has answered that already."""
    with db.write() as conn:
        row = conn.execute(
            "SELECT c.end_line FROM chunks c, examples e WHERE c.id = ? AND e.id = ?"
            " AND e.content != '{}' AND NOT EXISTS (SELECT 1 FROM examples n"
            " WHERE n.topic = e.topic AND n.topic != '' AND n.document_id >= c.document_id"
            " AND n.state != 'forgotten')",
            (part.chunk_id, example_id),
        ).fetchone()
        if row is None:
            return False
        pair = (question, reply, 1.0)
        return bool(studied.add(db, part, [pair], row["end_line"], about=example_id))
