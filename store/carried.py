"""What an adapter carries: what its own round and those of its ancestors taught.

Keeps the examples' states equal to what the live one carries; knows rows only.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from acclimate.store.db import ids
from acclimate.store.topics import SUPERSEDED

# The new examples of the rounds that made some adapters, given as a JSON array.
_TAUGHT = (
    "FROM adapters JOIN round_examples USING (round_id)"
    " WHERE role = 'new' AND version IN (SELECT value FROM json_each(?))"
)


def line(conn: sqlite3.Connection, version: int | None) -> list[int]:
    """An adapter, its parent, … , its first ancestor; nothing of the base (None)."""
    rows = conn.execute(
        "WITH RECURSIVE line(version, parent) AS ("
        "  SELECT version, parent FROM adapters WHERE version = ?"
        "  UNION SELECT a.version, a.parent FROM adapters a JOIN line ON a.version = line.parent"
        ") SELECT version FROM line ORDER BY version DESC",
        (version,),
    )
    return [row["version"] for row in rows.fetchall()]


def taught(conn: sqlite3.Connection, versions: Iterable[int]) -> list[tuple[int, int]]:
    """(version, example) of all that these adapters' own rounds taught, in this order."""
    rows = conn.execute(
        f"SELECT version, example_id {_TAUGHT} ORDER BY 1, 2",
        (ids(versions),),
    )
    return [tuple(row) for row in rows.fetchall()]


def how_many(conn: sqlite3.Connection, versions: Iterable[int]) -> int:
    """How many examples these adapters' own rounds taught."""
    row = conn.execute(f"SELECT count(DISTINCT example_id) {_TAUGHT}", (ids(versions),))
    return int(row.fetchone()[0])


def follow(conn: sqlite3.Connection, before: int | None, after: int | None) -> None:
    """Live moved: what counts as learned is what the live adapter carries. After a rollback the
    examples of the abandoned adapters wait again, and come back as learned with a roll forward.

    Looks only at adapters that are in one of the two lines and not in the other, however long the
    part is that they share.
    """
    left, joined = apart(conn, before, after)
    wait_again(conn, left, after)
    conn.execute(
        "UPDATE examples NOT INDEXED SET state = 'learned', reason = ''"  # by id, not by state
        " WHERE (state IN ('pending', 'held-out')"
        " OR (state = 'forgotten' AND substr(reason, 1, length(?)) = ?))"
        " AND id IN (SELECT value FROM json_each(?))",
        (SUPERSEDED, SUPERSEDED, ids(example_id for _, example_id in taught(conn, joined))),
    )


def apart(
    conn: sqlite3.Connection, before: int | None, after: int | None
) -> tuple[list[int], list[int]]:
    """The adapters of the two lines down to where they meet; a parent has the smaller number."""
    left: list[int] = []
    joined: list[int] = []
    a, b = before or 0, after or 0
    while a != b:
        newer = max(a, b)
        (parent,) = conn.execute(
            "SELECT coalesce(parent, 0) FROM adapters WHERE version = ?", (newer,)
        ).fetchone()
        if a > b:
            left.append(a)
            a = parent
        else:
            joined.append(b)
            b = parent
    return left, joined


def beyond(conn: sqlite3.Connection, versions: Sequence[int], other: int | None) -> list[int]:
    """What the rounds of these adapters taught and those of the other one's line did not."""
    examples = {example_id for _, example_id in taught(conn, versions)}
    teachers = conn.execute(
        "SELECT r.example_id, a.version FROM round_examples r JOIN adapters a USING (round_id)"
        " WHERE r.role = 'new' AND r.example_id IN (SELECT value FROM json_each(?))",
        (ids(examples),),
    ).fetchall()
    known = set(line(conn, other))
    return sorted(examples - {row["example_id"] for row in teachers if row["version"] in known})


def wait_again(conn: sqlite3.Connection, left: Sequence[int], live: int | None) -> None:
    """What these adapters' rounds taught is pending, but for what the live one carries.

    One that a newer reply contradicts does not wait: it is superseded by that one.
    """
    if not left:
        return
    dropped = ids(beyond(conn, left, live))
    # Newer is what was read later, or what waits already: an older one waits only where its file
    # went back to it.
    contradicted = conn.execute(
        "SELECT e.id, (SELECT n.id FROM examples n WHERE n.source_id = e.source_id"
        "   AND n.prompt_sha256 = e.prompt_sha256 AND n.kind = 'exchange' AND n.id != e.id"
        "   AND n.state != 'forgotten' AND (n.id > e.id OR n.state IN ('pending', 'held-out'))"
        "   ORDER BY n.state IN ('pending', 'held-out') DESC, n.id DESC LIMIT 1) AS newer"
        " FROM examples e WHERE e.state = 'learned' AND e.kind = 'exchange'"
        " AND e.id IN (SELECT value FROM json_each(?))",
        (dropped,),
    ).fetchall()
    conn.executemany(
        "UPDATE examples SET state = 'forgotten', reason = ? WHERE id = ?",
        [(f"{SUPERSEDED}{row['newer']}", row["id"]) for row in contradicted if row["newer"]],
    )
    conn.execute(
        "UPDATE examples SET state = 'pending' WHERE state = 'learned'"
        " AND id IN (SELECT value FROM json_each(?))",
        (dropped,),
    )
