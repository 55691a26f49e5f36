"""The history of rounds, adapters and swaps, and which adapter is live.

Knows no weights: an adapter is a version, a parent, a hash and a card.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from acclimate.store import carried, names
from acclimate.store.balance import ALIKE, TAKEN_BACK
from acclimate.store.buffer import FORGOTTEN
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound, RoundError, StoreError
from acclimate.store.files import Home, failpoint, sha256_file, version_name
from acclimate.store.route import TEACHABLE

ADAPTER_FILE = "adapter.gguf"
WAS_FORGOTTEN = "an example was forgotten"  # why a round was ended that had it
PROBATION = "probation"  # the reason of a swap that took an adapter back, see `store.probation`
# So many times the adapter that learned an example is taken back before the example has to wait.
MOST_TAKEN_BACK = 2
_WAS_TAKEN_BACK = (
    "EXISTS (SELECT 1 FROM adapters a JOIN swaps s ON s.from_version = a.version"
    " WHERE a.round_id = rounds.id AND s.reason = 'probation')"
)


@dataclass(frozen=True)
class Round:
    id: int
    parent: int | None
    state: Literal["running", "accepted", "rejected", "failed"]
    started_at: float
    ended_at: float | None
    seed: int
    measures: dict[str, Any]
    reasons: list[str]
    candidate_sha256: str | None
    error: str | None
    content_sha256: str  # what it was about, see mixture.round_key
    counts: dict[str, int]  # examples by role


@dataclass(frozen=True)
class Adapter:
    version: int
    parent: int | None
    round_id: int | None  # None: it was made elsewhere
    sha256: str  # of adapter.gguf
    scale: float
    card: dict[str, Any]
    state: Literal["ok", "retired"]
    created_at: float
    reason: str  # why it was retired, where that was decided


@dataclass(frozen=True)
class Swap:
    id: int
    from_version: int | None  # None is the base model
    to_version: int | None
    reason: str
    at: float
    why: str  # in words, where the program decided it by itself


def start_round(
    db: Db,
    parent: int | None,
    seed: int,
    new_ids: Iterable[int],
    replay_ids: Iterable[int] = (),
    held_out_ids: Iterable[int] = (),
    content_sha256: str = "",
) -> int:
    """Record a running round and what it uses. Raises RoundError while another one runs."""
    with db.write() as conn:
        running = conn.execute("SELECT id FROM rounds WHERE state = 'running'").fetchone()
        if running:
            raise RoundError(f"round {running['id']} is running", "wait for its verdict")
        round_id = conn.execute(
            "INSERT INTO rounds(parent, state, started_at, seed, content_sha256)"
            " VALUES (?, 'running', ?, ?, ?)",
            (parent, time.time(), seed, content_sha256),
        ).lastrowid
        if round_id is None:
            raise StoreError("the round got no number")
        roles = (("new", new_ids), ("replay", replay_ids), ("held-out", held_out_ids))
        for role, example_ids in roles:
            conn.executemany(
                "INSERT INTO round_examples(round_id, example_id, role) VALUES (?, ?, ?)",
                [(round_id, example_id, role) for example_id in example_ids],
            )
        failpoint("round.started")
    return round_id


def finish_round(
    db: Db,
    round_id: int,
    state: Literal["rejected", "failed"],
    measures: Mapping[str, Any] | None = None,
    reasons: Sequence[str] = (),
    error: str | None = None,
    candidate_sha256: str | None = None,
) -> None:
    """End a running round without an adapter; its examples stay as they were."""
    if state not in ("rejected", "failed"):
        raise ValueError(f"a round ends here rejected or failed, not {state}")
    with db.write() as conn:
        _end_round(conn, round_id, state, measures, reasons, error, candidate_sha256)


def _end_round(
    conn: sqlite3.Connection,
    round_id: int,
    state: str,
    measures: Mapping[str, Any] | None,
    reasons: Sequence[str],
    error: str | None,
    candidate_sha256: str | None,
) -> None:
    done = conn.execute(
        "UPDATE rounds SET state = ?, ended_at = ?, measures = ?, reasons = ?, error = ?,"
        " candidate_sha256 = ? WHERE id = ? AND state = 'running'",
        (
            state,
            time.time(),
            json.dumps(dict(measures or {})),
            json.dumps(list(reasons)),
            error,
            candidate_sha256,
            round_id,
        ),
    ).rowcount
    if done != 1:
        raise RoundError(f"round {round_id} is not running")


def publish(
    db: Db,
    round_id: int,
    version: int,
    parent: int | None,
    sha256: str,
    scale: float,
    card: Mapping[str, Any],
    learned_ids: Iterable[int],
    held_out_ids: Iterable[int] = (),
    measures: Mapping[str, Any] | None = None,
    reasons: Sequence[str] = (),
) -> None:
    """Accept a round's adapter, whose folder is in place already: all of it or nothing.

    The adapter's row, its examples' states, the round's verdict and `live` change in one
    transaction. Live stays where it is when it is pinned, or is no longer the round's parent: the
    person moved it meanwhile, and the round's reasons say so. Raises RoundError when one of its
    examples was forgotten on request meanwhile, or its parent was retired for having learned one.
    """
    version_name(version)
    with db.write() as conn:
        if conn.execute(
            "SELECT 1 FROM round_examples r JOIN examples e ON e.id = r.example_id"
            " WHERE r.round_id = ? AND e.reason = ?",
            (round_id, FORGOTTEN),
        ).fetchone() or (parent is not None and adapter(db, parent).state != "ok"):
            raise RoundError(WAS_FORGOTTEN)
        serving = _setting(conn, "live", None)
        moved = serving != parent
        if moved:
            name = "base" if serving is None else version_name(serving)
            reasons = [*reasons, f"not made live: live moved to {name} while the round ran"]
        _end_round(conn, round_id, "accepted", measures, reasons, None, sha256)
        failpoint("publish.round")
        conn.execute(
            "INSERT INTO adapters(version, parent, round_id, sha256, scale, card, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (version, parent, round_id, sha256, scale, json.dumps(dict(card)), time.time()),
        )
        for state, example_ids in (("learned", learned_ids), ("held-out", held_out_ids)):
            conn.execute(
                "UPDATE examples SET state = ?, reason = '' WHERE state IN"
                " ('pending', 'learned', 'held-out') AND id IN (SELECT value FROM json_each(?))",
                (state, ids(example_ids)),
            )
        failpoint("publish.examples")
        if moved or _setting(conn, "pinned", False):
            carried.wait_again(conn, [version], serving)
        else:
            _move_live(conn, version, "round")


def adopt(
    db: Db,
    version: int,
    sha256: str,
    card: Mapping[str, Any],
    name: str | None = None,
    *,
    take_over: bool = False,
) -> None:
    """Add an adapter that no round made, whose folder is in place already; live stays.

    Its parent is the base. Raises NameTaken, unless the name is to be taken over.
    """
    version_name(version)
    with db.write() as conn:
        conn.execute(
            "INSERT INTO adapters(version, sha256, scale, card, created_at) VALUES (?, ?, 1, ?, ?)",
            (version, sha256, json.dumps(dict(card)), time.time()),
        )
        if name is not None:
            names.give(db, name, version, take_over=take_over)
        failpoint("adopt.recorded")


def live(db: Db) -> int | None:
    """The version served by default, None for the base model."""
    version = _setting(db.read(), "live", None)
    return None if version is None else int(version)


def pinned(db: Db) -> bool:
    """Whether accepted rounds leave `live` alone."""
    return bool(_setting(db.read(), "pinned", False))


def set_live(db: Db, version: int | None, reason: str, why: str = "") -> None:
    """Make another adapter (None: the base model) the one served. Raises NotFound, StoreError."""
    with db.write() as conn:
        if version is not None and adapter(db, version).state != "ok":
            why = adapter(db, version).reason or "it was damaged"
            raise StoreError(f"{version_name(version)} is retired: {why}", "see: acclimate history")
        _move_live(conn, version, reason, why)


def pin(db: Db, version: int | None) -> None:
    """Serve `version` until `unpin`, whatever rounds give."""
    with db.write() as conn:
        set_live(db, version, "pin")
        _set(conn, "pinned", True)


def unpin(db: Db) -> None:
    """Let accepted rounds move `live` again."""
    with db.write() as conn:
        _set(conn, "pinned", False)


def begin_load(db: Db, version: int) -> int:
    """Notes that this adapter is about to be loaded into the server; how often without an end.

    More than 1 means that the process ended while it loaded: a power cut, or, where it goes on so,
    a file that harms native code.
    """
    with db.write() as conn:
        last = _setting(conn, "loading", None) or {}
        tries = last["tries"] + 1 if last.get("version") == version else 1
        _set(conn, "loading", {"version": version, "tries": tries})
    return int(tries)


def end_load(db: Db) -> None:
    """Notes that loading ended, well or with an error that was caught."""
    with db.write() as conn:
        _set(conn, "loading", None)


def _move_live(conn: sqlite3.Connection, version: int | None, reason: str, why: str = "") -> None:
    before = _setting(conn, "live", None)
    if before == version:
        return
    _set(conn, "live", version)
    conn.execute(
        "INSERT INTO swaps(from_version, to_version, reason, at, why) VALUES (?, ?, ?, ?, ?)",
        (before, version, reason, time.time(), why),
    )
    carried.follow(conn, before, version)
    failpoint("swap.recorded")


def _setting(conn: sqlite3.Connection, key: str, default: Any) -> Any:
    row = conn.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return json.loads(row["value"]) if row else default


def _set(conn: sqlite3.Connection, key: str, value: Any) -> None:
    conn.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, json.dumps(value)))


def next_version(db: Db) -> int:
    """The number that the next accepted adapter gets; numbers are never used twice."""
    row = db.read().execute("SELECT coalesce(max(version), 0) + 1 FROM adapters").fetchone()
    return int(row[0])


def adapters(db: Db, limit: int = -1) -> list[Adapter]:
    """The accepted adapters (-1: all, else the latest ones), oldest first."""
    rows = db.read().execute("SELECT * FROM adapters ORDER BY version DESC LIMIT ?", (limit,))
    return [_adapter(row) for row in rows.fetchall()[::-1]]


def adapter(db: Db, version: int) -> Adapter:
    """One adapter. Raises NotFound."""
    row = db.read().execute("SELECT * FROM adapters WHERE version = ?", (version,)).fetchone()
    if row is None:
        raise NotFound(f"there is no adapter {version}", "see: acclimate history")
    return _adapter(row)


def made_by(db: Db, round_id: int) -> int | None:
    """The version of the adapter that a round gave, None where it gave none."""
    row = db.read().execute("SELECT version FROM adapters WHERE round_id = ?", (round_id,))
    found = row.fetchone()
    return None if found is None else int(found["version"])


def _adapter(row: sqlite3.Row) -> Adapter:
    return Adapter(**{**dict(row), "card": json.loads(row["card"])})


def waiting(db: Db) -> int:
    """How many examples a scheduled round would find worth its while: those not taught yet.

    After a rejection, only what came since: the same round again would be rejected again. So it is
    after a round whose adapter was taken back. After something was forgotten it is no longer the
    same.
    """
    query = (
        "SELECT count(*) FROM examples INDEXED BY examples_counted"  # noqa: S608
        f" WHERE state IN ('pending', 'held-out') AND {TEACHABLE}"
        " AND id NOT IN (SELECT id FROM examples INDEXED BY examples_held"
        "  WHERE state = 'pending' AND reason != '' AND reason IN (?, ?)) AND id > coalesce(("
        "  SELECT max(r.example_id) FROM round_examples r JOIN rounds ON rounds.id = r.round_id"
        f"  WHERE (state = 'rejected' OR {_WAS_TAKEN_BACK})"
        "  AND rounds.id > coalesce((SELECT max(last_round) FROM receipts), 0)"
        "  AND rounds.id = (SELECT id FROM rounds WHERE state IN ('accepted', 'rejected')"
        "   ORDER BY id DESC LIMIT 1)"
        "), 0)"
    )
    (count,) = db.read().execute(query, (ALIKE, TAKEN_BACK)).fetchone()
    return int(count)


def rejections(db: Db, content_sha256: str) -> int:
    """How many rounds about exactly this were rejected, or gave an adapter that was taken back."""
    row = db.read().execute(
        "SELECT count(*) FROM rounds WHERE content_sha256 = ?"  # noqa: S608
        f" AND (state = 'rejected' OR {_WAS_TAKEN_BACK})",
        (content_sha256,),
    )
    return int(row.fetchone()[0])


def taken_back(db: Db) -> dict[int, Swap]:
    """How each adapter that was taken back lost its place, the last time."""
    rows = db.read().execute("SELECT * FROM swaps WHERE reason = ? ORDER BY id", (PROBATION,))
    return {row["from_version"]: Swap(**dict(row)) for row in rows.fetchall()}


def often_taken_back(db: Db, parent: int | None) -> list[int]:
    """Examples that `MOST_TAKEN_BACK` adapters or more learned on this parent and lost with it."""
    rows = db.read().execute(
        "SELECT r.example_id FROM round_examples r JOIN adapters a USING (round_id)"
        " WHERE r.role = 'new' AND a.parent IS ? AND a.version IN"
        "  (SELECT from_version FROM swaps WHERE reason = ?)"
        " GROUP BY r.example_id HAVING count(*) >= ?",
        (parent, PROBATION, MOST_TAKEN_BACK),
    )
    return [row["example_id"] for row in rows.fetchall()]


def rounds(db: Db, limit: int = 50) -> list[Round]:
    """The latest rounds, newest first."""
    conn = db.read()
    query = "SELECT * FROM rounds ORDER BY id DESC LIMIT ?"
    return _rounds(conn, conn.execute(query, (limit,)).fetchall())


def rounds_of(db: Db, round_ids: Iterable[int]) -> dict[int, Round]:
    """Those of these rounds that there are, by number."""
    conn = db.read()
    query = "SELECT * FROM rounds WHERE id IN (SELECT value FROM json_each(?))"
    found = _rounds(conn, conn.execute(query, (ids(round_ids),)).fetchall())
    return {r.id: r for r in found}


def _rounds(conn: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Round]:
    counts: dict[int, dict[str, int]] = {row["id"]: {} for row in rows}
    for round_id, role, count in conn.execute(
        "SELECT round_id, role, count(*) FROM round_examples"
        " WHERE round_id IN (SELECT value FROM json_each(?)) GROUP BY round_id, role",
        (ids(counts),),
    ).fetchall():
        counts[round_id][role] = count
    return [
        Round(
            **{
                **dict(row),
                "measures": json.loads(row["measures"]),
                "reasons": json.loads(row["reasons"]),
                "counts": counts[row["id"]],
            }
        )
        for row in rows
    ]


def swaps(db: Db, limit: int = 50) -> list[Swap]:
    """The latest moves of `live`, newest first."""
    rows = db.read().execute("SELECT * FROM swaps ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
    return [Swap(**dict(row)) for row in rows]


def whole_ancestor(db: Db, version: int) -> int | None:
    """The nearest adapter before this one that is not retired, None for the base model."""
    parent = adapter(db, version).parent
    while parent is not None and adapter(db, parent).state != "ok":
        parent = adapter(db, parent).parent
    return parent


def line(db: Db, version: int) -> list[int]:
    """An adapter, its parent, … , its first ancestor. Raises NotFound."""
    return carried.line(db.read(), adapter(db, version).version)


def learners(db: Db, example_ids: Iterable[int]) -> list[int]:
    """Versions that carry any of these examples: taught, replayed or inherited, oldest first."""
    rows = db.read().execute(
        "WITH RECURSIVE carrier(version) AS ("
        "  SELECT a.version FROM adapters a JOIN round_examples r USING (round_id)"
        "  WHERE r.role IN ('new', 'replay') AND r.example_id IN (SELECT value FROM json_each(?))"
        "  UNION SELECT a.version FROM adapters a JOIN carrier c ON a.parent = c.version"
        ") SELECT version FROM carrier ORDER BY version",
        (ids(example_ids),),
    )
    return [row[0] for row in rows.fetchall()]


def uses(db: Db, round_id: int, example_ids: Iterable[int]) -> bool:
    """Whether a round works with any of these examples, in whatever role."""
    row = db.read().execute(
        "SELECT 1 FROM round_examples WHERE round_id = ?"
        " AND example_id IN (SELECT value FROM json_each(?))",
        (round_id, ids(example_ids)),
    )
    return row.fetchone() is not None


def whole(home: Home, a: Adapter, *, check_hash: bool) -> bool:
    """Whether an adapter's file is there and, if that is to be checked, as it was published."""
    file = home.adapter_dir(a.version) / ADAPTER_FILE
    try:
        return file.is_file() and (not check_hash or sha256_file(file) == a.sha256)
    except OSError:
        return False
