"""What study made out of notes: questions with answers, as examples and as passages.

Knows rows; the questions come from its caller.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.store import buffer
from acclimate.store.chats import Exchange
from acclimate.store.chunk import NOTE_SUFFIXES
from acclimate.store.db import Db, ids
from acclimate.store.files import failpoint

# Raised when study finds other questions than before: notes are then studied again.
RULES = 4
NOTE_CHANGED = "the note no longer says so"
# Derived passages stand behind a document's own ones.
_FIRST_ORDINAL = 1_000_000
_BY_NAME = " OR ".join(f"lower(d.path) LIKE '%{suffix}'" for suffix in NOTE_SUFFIXES if suffix)
_LOOKED_AT = 16  # passages, for each that is asked for: most are no notes
NOTES = (
    "c.derived_from IS NULL AND d.state = 'ok' AND (s.kind = 'notes'"
    f" OR (s.kind = 'manual' AND (instr(d.path, '.') = 0 OR {_BY_NAME})))"
)


@dataclass(frozen=True)
class Unstudied:
    """A passage of a note."""

    chunk_id: int
    document_id: int
    source_id: int
    line: int
    text: str


def unstudied(db: Db, limit: int) -> list[Unstudied]:
    """Passages of notes that no question was made of yet, oldest first, `limit` at most.

    Chats and code, of which none is made, are marked on the way: each passage is looked at once.
    """
    while True:
        rows = db.read().execute(
            "SELECT c.id, c.document_id, d.source_id, c.start_line, c.text,"  # noqa: S608
            f" {NOTES} AS note FROM chunks c INDEXED BY chunks_by_study"
            " JOIN documents d ON d.id = c.document_id JOIN sources s ON s.id = d.source_id"
            " WHERE c.studied < ? ORDER BY c.studied, c.id LIMIT ?",
            (RULES, _LOOKED_AT * limit),
        )
        found = rows.fetchall()
        if others := [row["id"] for row in found if not row["note"]]:
            with db.write() as conn:
                conn.execute(
                    "UPDATE chunks SET studied = ? WHERE id IN (SELECT value FROM json_each(?))",
                    (RULES, ids(others)),
                )
        notes = [Unstudied(*tuple(row)[:-1]) for row in found if row["note"]]
        if notes or not found:
            return notes[:limit]


def record(db: Db, part: Unstudied, pairs: Sequence[tuple[str, str, float]]) -> int:
    """Keep (question, answer, weight) of a passage as examples and as passages of their own.

    The weight is how much worth learning it is, 0 to 1. Returns how many are this note's; none when
    the passage is gone by now, and everything about it.
    """
    with db.write() as conn:
        found = conn.execute(
            "UPDATE chunks SET studied = ? WHERE id = ? RETURNING end_line", (RULES, part.chunk_id)
        ).fetchone()
        if found is None:
            return 0
        conn.execute("DELETE FROM chunks WHERE derived_from = ? AND NOT by_model", (part.chunk_id,))
        kept = add(db, part, pairs, found["end_line"])
        failpoint("study.recorded")
    return kept


def add(
    db: Db,
    part: Unstudied,
    pairs: Sequence[tuple[str, str, float]],
    end_line: int,
    *,
    by_model: bool = False,
    about: int | None = None,
) -> int:
    """Put pairs beside those that a passage has already; how many are this note's own. With `about`
    they answer the question of that example anew."""
    exchanges = [
        Exchange(part.line, ({"role": "user", "content": question},), answer)
        for question, answer, _ in pairs
    ]
    with db.write() as conn:
        buffer.add_document_examples(db, part.source_id, part.document_id, exchanges)
        return sum(
            _tie(conn, part, exchange, weight, end_line, by_model, about)
            for exchange, (_, _, weight) in zip(exchanges, pairs, strict=True)
        )


def _tie(
    conn: sqlite3.Connection,
    part: Unstudied,
    exchange: Exchange,
    weight: float,
    end_line: int,
    by_model: bool,
    about: int | None,
) -> bool:
    """The example to its note, where no chat has said the same; the pair into retrieval."""
    row = conn.execute(
        "UPDATE examples SET origin = 'note', chunk_id = ?, weight = ?, about = ?,"
        " state = iif(reason = ?, 'pending', state), reason = iif(reason = ?, '', reason)"
        " WHERE sha256 = ? AND document_id = ? AND content != '{}' RETURNING id",
        (
            part.chunk_id,
            weight,
            about,
            NOTE_CHANGED,
            NOTE_CHANGED,
            exchange.sha256(),
            part.document_id,
        ),
    ).fetchone()
    if row is None:
        return False
    ordinal = conn.execute(
        "SELECT max(coalesce(max(ordinal), 0) + 1, ?) FROM chunks WHERE document_id = ?",
        (_FIRST_ORDINAL, part.document_id),
    ).fetchone()[0]
    conn.execute(
        "INSERT INTO chunks(document_id, ordinal, text, start_line, end_line, derived_from,"
        " studied, compared, by_model) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
        (
            part.document_id,
            ordinal,
            exchange.text(),
            part.line,
            end_line,
            part.chunk_id,
            RULES,
            by_model,
        ),
    )
    return True


def study_again(conn: sqlite3.Connection, source_id: int) -> None:
    """Look once more at a source's passages: it holds something else than was thought."""
    conn.execute(
        "UPDATE chunks SET studied = 0 WHERE derived_from IS NULL"
        " AND document_id IN (SELECT id FROM documents WHERE source_id = ?)",
        (source_id,),
    )


def drop_chunks(conn: sqlite3.Connection, where: str, values: tuple[object, ...]) -> None:
    """Delete passages of a changed note, and what waits to be learned from them."""
    conn.execute(
        "UPDATE examples SET state = 'forgotten', reason = ? WHERE origin = 'note'"  # noqa: S608
        " AND state IN ('pending', 'held-out')"
        f" AND chunk_id IN (SELECT id FROM chunks WHERE {where})",
        (NOTE_CHANGED, *values),
    )
    conn.execute(f"DELETE FROM chunks WHERE {where}", values)  # noqa: S608
