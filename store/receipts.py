"""What each forgetting took away, and how far the rest is learned again; numbers and names only.

Knows no text. How far relearning is follows from the ledger, so a receipt completes itself.
"""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from acclimate.store.balance import ALIKE
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound
from acclimate.store.retire import Retired
from acclimate.store.route import TEACHABLE

# So many rejected rounds in a row, each with another seed, and the rest waits for something new.
RELEARN_TRIES = 3


@dataclass(frozen=True)
class Relearning:
    state: Literal["nothing", "waits", "done"]
    wanted: bool  # whether a round is to start for it, or only what waits is taught some day
    examples: int
    left: int
    rounds: list[int]  # that used any of them since, whatever became of them


@dataclass(frozen=True)
class Receipt:
    id: int
    at: float
    removed: dict[str, int]  # by kind
    retired: list[int]
    live_before: int | None
    live: int | None
    unpinned: bool
    round_ended: int | None
    relearning: Relearning


def add(
    conn: sqlite3.Connection, removed: Mapping[str, int], retired: Retired, relearn: bool
) -> int:
    """Write a receipt into the transaction that decides; its number."""
    number = conn.execute(
        "INSERT INTO receipts(at, removed, retired, live_before, live, unpinned, round_ended,"
        " relearn, last_round) VALUES (?, ?, ?, ?, ?, ?, ?, ?,"
        " (SELECT coalesce(max(id), 0) FROM rounds))",
        (
            time.time(),
            json.dumps(dict(removed)),
            json.dumps(retired.versions),
            retired.live_before,
            retired.live,
            retired.unpinned,
            retired.round_ended,
            relearn,
        ),
    ).lastrowid
    conn.executemany(
        "INSERT INTO receipt_examples VALUES (?, ?)", [(number, n) for n in retired.relearn]
    )
    return int(number or 0)


def receipts(db: Db, limit: int = 50) -> list[Receipt]:
    """The latest receipts, newest first."""
    rows = db.read().execute("SELECT * FROM receipts ORDER BY id DESC LIMIT ?", (limit,))
    return [_receipt(db, row) for row in rows.fetchall()]


def receipt(db: Db, number: int) -> Receipt:
    """One receipt. Raises NotFound."""
    row = None
    if 0 < number < 2**63:  # what SQLite can hold
        row = db.read().execute("SELECT * FROM receipts WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise NotFound(f"there is no receipt {number}", "see: acclimate receipts")
    return _receipt(db, row)


def waiting(db: Db) -> int:
    """How many examples are to be learned again and wait for a round; 0 after enough rejections."""
    conn = db.read()
    wanted = conn.execute("SELECT * FROM receipts WHERE relearn ORDER BY id").fetchall()
    open_ones = [(row, left) for row in wanted if (left := _left(conn, row))]
    if not open_ones:
        return 0
    (rejected,) = conn.execute(
        "SELECT count(*) FROM rounds WHERE state = 'rejected' AND id > ?"
        " AND id > coalesce((SELECT max(id) FROM rounds WHERE state = 'accepted'), 0)",
        (open_ones[-1][0]["last_round"],),
    ).fetchone()
    if rejected >= RELEARN_TRIES:
        return 0
    return len({example for _, left in open_ones for example in left})


def _left(conn: sqlite3.Connection, row: sqlite3.Row) -> list[int]:
    """Examples that wait still: no accepted round has taught them since, and they may be taught."""
    found = conn.execute(
        "SELECT e.id FROM receipt_examples x JOIN examples e ON e.id = x.example_id"  # noqa: S608
        f" WHERE x.receipt_id = ? AND e.state IN ('pending', 'held-out') AND e.{TEACHABLE}"
        " AND e.reason != ? AND NOT EXISTS ("
        "  SELECT 1 FROM round_examples r JOIN adapters a USING (round_id)"
        "  WHERE r.example_id = e.id AND r.role = 'new' AND r.round_id > ? AND a.state = 'ok')",
        (row["id"], ALIKE, row["last_round"]),
    )
    return [example["id"] for example in found.fetchall()]


def _receipt(db: Db, row: sqlite3.Row) -> Receipt:
    conn = db.read()
    wanted = conn.execute(
        "SELECT example_id FROM receipt_examples WHERE receipt_id = ?", (row["id"],)
    ).fetchall()
    rounds = conn.execute(
        "SELECT DISTINCT round_id FROM round_examples WHERE round_id > ? AND example_id IN"
        " (SELECT value FROM json_each(?)) AND role != 'replay' ORDER BY round_id",
        (row["last_round"], ids(x["example_id"] for x in wanted)),
    ).fetchall()
    left = len(_left(conn, row))
    relearning = Relearning(
        "waits" if left else "done" if wanted else "nothing",
        bool(row["relearn"]),
        len(wanted),
        left,
        [r["round_id"] for r in rounds],
    )
    return Receipt(
        row["id"],
        row["at"],
        json.loads(row["removed"]),
        json.loads(row["retired"]),
        row["live_before"],
        row["live"],
        bool(row["unpinned"]),
        row["round_ended"],
        relearning,
    )
