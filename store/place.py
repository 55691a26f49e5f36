"""A document's chunks, brought to what its file says now, some at a time.

A chunk whose text stays keeps its row and so its vector: an appended log costs one chunk.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from acclimate.store import studied
from acclimate.store.chunk import Chunk
from acclimate.store.db import ids

Rows = defaultdict[str, list[sqlite3.Row]]


def rows_of(conn: sqlite3.Connection, document_id: int) -> Rows:
    """What the document's chunks are now, by text; of equal ones the last comes first."""
    found: Rows = defaultdict(list)
    for row in conn.execute(
        "SELECT id, ordinal, start_line, end_line, text FROM chunks"
        " WHERE document_id = ? AND derived_from IS NULL ORDER BY ordinal DESC",
        (document_id,),
    ).fetchall():
        found[row["text"]].append(row)
    return found


def place(conn: sqlite3.Connection, document_id: int, chunks: Iterable[Chunk], left: Rows) -> None:
    """Give these chunks their rows: those of `left` with the same text, which takes them out."""
    for chunk in chunks:
        lines = (chunk.ordinal, chunk.start_line, chunk.end_line)
        kept = left[chunk.text].pop() if left[chunk.text] else None
        if kept is not None and lines == (kept["ordinal"], kept["start_line"], kept["end_line"]):
            continue
        # Another one that stands there yet goes where no place is: below zero.
        conn.execute(
            "UPDATE chunks SET ordinal = -id WHERE document_id = ? AND ordinal = ?",
            (document_id, chunk.ordinal),
        )
        if kept is not None:
            conn.execute(
                "UPDATE chunks SET ordinal = ?, start_line = ?, end_line = ? WHERE id = ?",
                (*lines, kept["id"]),
            )
        else:
            conn.execute(
                "INSERT INTO chunks(ordinal, start_line, end_line, text, document_id)"
                " VALUES (?, ?, ?, ?, ?)",
                (*lines, chunk.text, document_id),
            )


def drop(conn: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
    """Delete what the file says no more, and what waits to be learned from it."""
    chosen = ids(row["id"] for row in rows)
    studied.drop_chunks(conn, "id IN (SELECT value FROM json_each(?))", (chosen,))
