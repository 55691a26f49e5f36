"""Which passages of notes the base model was asked for questions, and what came of it.

Knows rows and counts; the questions come from its caller.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from acclimate.store import studied
from acclimate.store.db import Db
from acclimate.store.studied import NOTES, Unstudied

_WAITING = (
    "FROM chunks c JOIN documents d ON d.id = c.document_id JOIN sources s ON s.id = d.source_id"
    " LEFT JOIN inquiries i ON i.chunk_id = c.id"
    f" WHERE {NOTES} AND (i.base IS NULL OR i.base != ?)"
)


@dataclass(frozen=True)
class Inquiries:
    """What came of all passages that are there; `dropped` counts by reason."""

    passages: int = 0
    asked: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


def first_waiting(db: Db, base: str) -> Unstudied | None:
    """The oldest passage of a note that this base (its SHA-256) was not asked about."""
    row = db.read().execute(
        f"SELECT c.id, c.document_id, d.source_id, c.start_line, c.text {_WAITING}"
        " ORDER BY c.id LIMIT 1",
        (base,),
    )
    found = row.fetchone()
    return None if found is None else Unstudied(*found)


def waiting(db: Db, base: str) -> int:
    """How many such passages there are."""
    found = db.read().execute(f"SELECT count(*) {_WAITING}", (base,)).fetchone()
    return int(found[0])


def record(
    db: Db,
    part: Unstudied,
    base: str,
    asked: int,
    dropped: Mapping[str, int],
    pairs: Sequence[tuple[str, str, float]],
) -> int:
    """Keep a passage's (question, answer, weight) beside what the rules made of it; how many.

    The passage waits no more. None is kept when it is gone by now, and everything about it.
    """
    with db.write() as conn:
        found = conn.execute(
            "SELECT end_line FROM chunks WHERE id = ?", (part.chunk_id,)
        ).fetchone()
        if found is None:
            return 0
        kept = studied.add(db, part, pairs, found["end_line"], by_model=True)
        conn.execute(
            "INSERT OR REPLACE INTO inquiries(chunk_id, base, asked, kept, dropped)"
            " VALUES (?, ?, ?, ?, ?)",
            (part.chunk_id, base, asked, kept, json.dumps(dropped)),
        )
    return kept


def total(db: Db) -> Inquiries:
    """What came of every passage that was asked about and is still there."""
    rows = db.read().execute("SELECT asked, kept, dropped FROM inquiries").fetchall()
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(json.loads(row["dropped"]))
    return Inquiries(
        len(rows), sum(r["asked"] for r in rows), sum(r["kept"] for r in rows), dict(dropped)
    )
