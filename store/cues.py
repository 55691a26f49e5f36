"""Vectors by which what was taught is found again from a question in other words.

Knows rows and vectors; no embedder, and nothing of what is near enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acclimate.store import carried
from acclimate.store.db import Db, ids
from acclimate.store.topics import OUTDATED

# An adapter's latest examples only: as float32 they take 30 MB.
MOST = 20_000


@dataclass(frozen=True)
class Cues:
    """What an adapter carries: numbers of examples, (n,), and vectors of unit length, (n, D)."""

    examples: NDArray[np.int64]
    asks: NDArray[np.bool_]  # whether it answers a question
    worth: NDArray[np.float32]  # how much worth learning study found it; 1 where a person said it
    vectors: NDArray[np.float32]


def missing(db: Db, limit: int) -> list[int]:
    """Of the learned exchanges that an adapter can have, those without a vector, latest first."""
    rows = db.read().execute(
        "SELECT id FROM (SELECT id FROM examples WHERE state = 'learned' AND kind = 'exchange'"
        "  AND content != '{}' ORDER BY id DESC LIMIT ?) e"
        " WHERE NOT EXISTS (SELECT 1 FROM cues WHERE example_id = e.id) LIMIT ?",
        (MOST, limit),
    )
    return [row["id"] for row in rows.fetchall()]


def put(
    db: Db, example_ids: Sequence[int], asks: Sequence[bool], vectors: NDArray[np.float32]
) -> None:
    """Keeps one vector of unit length for each example; one forgotten meanwhile is passed over."""
    rows = [
        (int(asked), vector.astype(np.float16).tobytes(), number)
        for number, asked, vector in zip(example_ids, asks, vectors, strict=True)
    ]
    with db.write() as conn:
        conn.executemany(
            "INSERT OR REPLACE INTO cues(asks, vector, example_id)"
            " SELECT ?, ?, id FROM examples WHERE id = ? AND content != '{}'",
            rows,
        )


def of(db: Db, version: int) -> Cues:
    """What the adapter and its ancestors were taught, the latest first, at most `MOST`."""
    conn = db.read()
    rows = conn.execute(
        "SELECT c.example_id, c.asks, c.vector, e.weight AS worth"
        " FROM cues c JOIN examples e ON e.id = c.example_id WHERE c.example_id IN ("
        " SELECT example_id FROM round_examples JOIN adapters USING (round_id)"
        " WHERE role = 'new' AND version IN (SELECT value FROM json_each(?)))"
        " ORDER BY c.example_id DESC LIMIT ?",
        (ids(carried.line(conn, version)), MOST),
    ).fetchall()
    vectors = np.frombuffer(b"".join(row["vector"] for row in rows), np.float16)
    return Cues(
        np.array([row["example_id"] for row in rows], np.int64),
        np.array([row["asks"] for row in rows], np.bool_),
        np.array([row["worth"] for row in rows], np.float32),
        vectors.astype(np.float32).reshape(len(rows), -1 if rows else 0),
    )


def exchanges(db: Db, example_ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    """What each of these asks and replies; not those that were forgotten or that a later one
    contradicts."""
    rows = db.read().execute(
        "SELECT e.id, json_extract(e.content, '$.messages[#-2].content') AS asked,"  # noqa: S608
        " json_extract(e.content, '$.messages[#-1].content') AS reply"
        " FROM examples e WHERE e.id IN (SELECT value FROM json_each(?))"
        f" AND e.content != '{{}}' AND e.state != 'forgotten' AND NOT {OUTDATED}",
        (ids(example_ids),),
    )
    return {row["id"]: (row["asked"], row["reply"]) for row in rows.fetchall()}
