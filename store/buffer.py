"""The buffer of examples: what is waiting to be learned, and what became of each.

Knows no files and no training.
"""

import json
import random
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from acclimate.store.chats import Exchange, canonical
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound
from acclimate.store.files import failpoint

State = Literal["pending", "learned", "held-out", "quarantined", "forgotten"]
SUPERSEDED = "superseded by "
FORGOTTEN = "forgotten on request"


@dataclass(frozen=True)
class Example:
    id: int
    kind: Literal["exchange", "preference"]
    content: dict[str, Any]  # see chats.Exchange.content
    source_id: int | None
    document_id: int | None
    line: int | None
    state: State
    reason: str
    created_at: float


@dataclass(frozen=True)
class Added:
    new: int
    known: int
    superseded: int


@dataclass(frozen=True)
class Snapshot:
    """What a round may use: first come those held out before, so nothing stays unlearned."""

    new: list[Example]
    replay: list[Example]


def add_document_examples(
    db: Db, source_id: int, document_id: int, exchanges: Sequence[Exchange]
) -> Added:
    """Put a document's exchanges into the buffer, each content once, whatever file it came from.

    Of several replies to the same messages the last one counts: it supersedes older ones of the
    same source that no round has taught yet. What was forgotten on request stays out.
    """
    latest = {_key(exchange): exchange for exchange in exchanges}
    new = known = superseded = 0
    with db.write() as conn:
        for exchange in latest.values():
            row = conn.execute(
                "SELECT id, state, reason FROM examples WHERE sha256 = ?", (exchange.sha256(),)
            ).fetchone()
            if row is None:
                example_id = _insert(conn, source_id, document_id, exchange)
                new += 1
            else:
                example_id = int(row["id"])
                known += 1
                conn.execute(
                    "UPDATE examples SET line = ? WHERE id = ? AND document_id = ?",
                    (exchange.line, example_id, document_id),
                )
                if not _returns(conn, row, document_id):
                    continue
            if exchange.kind == "exchange":
                superseded += conn.execute(
                    "UPDATE examples SET state = 'forgotten', reason = ? WHERE source_id = ?"
                    " AND prompt_sha256 = ? AND kind = 'exchange' AND id != ?"
                    " AND state IN ('pending', 'held-out')",
                    (f"{SUPERSEDED}{example_id}", source_id, exchange.prompt_sha256(), example_id),
                ).rowcount
        failpoint("buffer.added")
    return Added(new, known, superseded)


def _key(exchange: Exchange) -> str:
    # Several pairs for one prompt do not contradict each other; several replies do.
    return exchange.prompt_sha256() if exchange.kind == "exchange" else exchange.sha256()


def _insert(
    conn: sqlite3.Connection, source_id: int, document_id: int, exchange: Exchange
) -> int | None:
    return conn.execute(
        "INSERT INTO examples(sha256, kind, content, prompt_sha256, source_id, document_id, line,"
        " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            exchange.sha256(),
            exchange.kind,
            canonical(exchange.content()),
            exchange.prompt_sha256(),
            source_id,
            document_id,
            exchange.line,
            time.time(),
        ),
    ).lastrowid


def _returns(conn: sqlite3.Connection, row: sqlite3.Row, document_id: int) -> bool:
    """Revive a superseded example when the document that replaced it now says this one again."""
    if row["state"] != "forgotten" or not row["reason"].startswith(SUPERSEDED):
        return False
    return (
        conn.execute(
            "UPDATE examples SET state = 'pending', reason = '' WHERE id = ? AND EXISTS"
            " (SELECT 1 FROM examples WHERE id = ? AND document_id = ?)",
            (row["id"], int(row["reason"].removeprefix(SUPERSEDED)), document_id),
        ).rowcount
        == 1
    )


def forgotten(db: Db, exchanges: Iterable[Exchange]) -> set[str]:
    """Hashes of those exchanges that were forgotten on request and must not come back."""
    hashes = json.dumps([exchange.sha256() for exchange in exchanges])
    rows = db.read().execute(
        "SELECT sha256 FROM examples WHERE reason = ?"
        " AND sha256 IN (SELECT value FROM json_each(?))",
        (FORGOTTEN, hashes),
    )
    return {row["sha256"] for row in rows.fetchall()}


def counts(db: Db) -> dict[State, int]:
    """How many examples are in each state; every state is there."""
    rows = db.read().execute("SELECT state, count(*) FROM examples GROUP BY state").fetchall()
    return {**dict.fromkeys(get_args(State), 0), **{row[0]: row[1] for row in rows}}


def get(db: Db, example_id: int) -> Example:
    """One example. Raises NotFound."""
    row = db.read().execute("SELECT * FROM examples WHERE id = ?", (example_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no example {example_id}")
    return _example(row)


def examples(db: Db, state: State | None = None, limit: int = 50) -> list[Example]:
    """The latest examples, newest first."""
    rows = db.read().execute(
        "SELECT * FROM examples WHERE :state IS NULL OR state = :state"
        " ORDER BY id DESC LIMIT :limit",
        {"state": state, "limit": limit},
    )
    return [_example(row) for row in rows.fetchall()]


def snapshot(db: Db, *, limit: int, replay: int, seed: int = 0) -> Snapshot:
    """At most `limit` examples to teach, oldest first, and a random `replay` of the learned ones.

    A learned reply that a newer one contradicts is not rehearsed.
    """
    conn = db.read()
    new = conn.execute(
        "SELECT * FROM examples WHERE state IN ('held-out', 'pending') ORDER BY state, id LIMIT ?",
        (limit,),
    ).fetchall()
    learned = [
        row["id"]
        for row in conn.execute(
            "SELECT id FROM examples e WHERE state = 'learned' AND NOT EXISTS ("
            "  SELECT 1 FROM examples n WHERE n.source_id = e.source_id"
            "  AND n.prompt_sha256 = e.prompt_sha256 AND n.id > e.id"
            "  AND n.kind = 'exchange' AND e.kind = 'exchange' AND n.state != 'forgotten')"
            # By content, not by number: what was forgotten must leave no trace in the draw.
            " ORDER BY sha256"
        ).fetchall()
    ]
    chosen = random.Random(seed).sample(learned, min(replay, len(learned)))  # noqa: S311
    rehearsed = conn.execute(
        "SELECT * FROM examples WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (ids(chosen),),
    ).fetchall()
    return Snapshot([_example(row) for row in new], [_example(row) for row in rehearsed])


def mark(db: Db, example_ids: Iterable[int], state: State, reason: str = "") -> None:
    """Move examples to a state. Those forgotten on request have no content and do not move."""
    if state not in get_args(State):
        raise ValueError(f"{state!r} is not a state of an example")
    with db.write() as conn:
        conn.execute(
            "UPDATE examples SET state = ?, reason = ? WHERE reason != ?"
            " AND id IN (SELECT value FROM json_each(?))",
            (state, reason, FORGOTTEN, ids(example_ids)),
        )


def _example(row: sqlite3.Row) -> Example:
    fields = {key: row[key] for key in row.keys() if not key.endswith("sha256")}  # noqa: SIM118
    return Example(**{**fields, "content": json.loads(row["content"])})
