"""Adapters that learned what was forgotten: taken out of service with all that descend from them.

The decision is a transaction; what it leaves on disk is cleared after it, or at the next start.
"""

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from acclimate.store import ledger
from acclimate.store.buffer import follow_surprise
from acclimate.store.db import Db, ids
from acclimate.store.files import Home, failpoint, remove_tree, version_name

LEARNED_IT = "it learned what was forgotten"


@dataclass(frozen=True)
class Retired:
    versions: list[int]  # oldest first; only those that were not retired for this before
    live_before: int | None
    live: int | None
    unpinned: bool
    round_ended: int | None  # the running round that works with it, or on one of these adapters
    relearn: list[int]  # examples that only these had learned: they wait again


def retire(db: Db, example_ids: Iterable[int]) -> Retired:
    """Retire whatever learned any of these examples, and move live to what never did.

    What only the retired ones had learned or held out waits again, as if they had never been.
    """
    forgotten = list(example_ids)
    with db.write() as conn:
        carriers = ledger.learners(db, forgotten)
        versions = [v for v in carriers if ledger.adapter(db, v).reason != LEARNED_IT]
        chosen = ids(versions)
        conn.execute(
            "UPDATE adapters SET state = 'retired', reason = ?"
            " WHERE version IN (SELECT value FROM json_each(?))",
            (LEARNED_IT, chosen),
        )
        before, unpinned = ledger.live(db), False
        if before in versions:
            unpinned = ledger.pinned(db)
            ledger.unpin(db)
            ledger.set_live(db, ledger.whole_ancestor(db, before), "forget")
        held_out = "SELECT r.example_id FROM round_examples r JOIN adapters a USING (round_id)"
        held_out += " WHERE r.role = 'held-out' AND a.state = "
        conn.execute(
            "UPDATE examples SET state = 'pending' WHERE state = 'held-out'"  # noqa: S608
            f" AND id IN ({held_out}'retired') AND id NOT IN ({held_out}'ok')"
        )
        waiting = conn.execute(
            "SELECT DISTINCT e.id FROM examples e JOIN round_examples r ON r.example_id = e.id"
            " JOIN adapters a USING (round_id) WHERE r.role = 'new'"
            " AND a.version IN (SELECT value FROM json_each(?))"
            " AND e.state IN ('pending', 'held-out') ORDER BY e.id",
            (chosen,),
        )
        relearn = [row["id"] for row in waiting.fetchall()]
        for version in versions:
            if (round_id := ledger.adapter(db, version).round_id) is not None:
                follow_surprise(conn, round_id)
        ended = _running(conn, db, forgotten, carriers)
        failpoint("forget.retired")
    return Retired(versions, before, ledger.live(db), unpinned, ended, relearn)


def _running(
    conn: sqlite3.Connection, db: Db, forgotten: Iterable[int], carriers: list[int]
) -> int | None:
    row = conn.execute("SELECT id, parent FROM rounds WHERE state = 'running'").fetchone()
    if row is None or not (row["parent"] in carriers or ledger.uses(db, row["id"], forgotten)):
        return None
    return int(row["id"])


def clear(db: Db, home: Home, drop_vectors: Callable[[], object]) -> list[str]:
    """Remove what a decision to forget leaves behind; may be done again at any time.

    The files of retired adapters, tokens and old pages in the database's files, and, by
    `drop_vectors`, the file of vectors. Returns what was done, a line each.
    """
    done = []
    for a in ledger.adapters(db):
        folder = home.adapter_dir(a.version)
        if a.reason == LEARNED_IT and folder.exists():
            remove_tree(folder)
            done.append(f"removed {version_name(a.version)}, which learned what was forgotten")
    if not db.read().execute("SELECT 1 FROM receipts WHERE NOT cleared LIMIT 1").fetchone():
        return done
    home.drop_checkpoint()
    failpoint("forget.removed")
    clean = db.scrub()
    failpoint("forget.scrubbed")
    drop_vectors()
    failpoint("forget.vectors")
    if clean:  # else somebody is reading: once more at the next start
        with db.write() as conn:
            conn.execute("UPDATE receipts SET cleared = 1")
    return [*done, "cleared the database's files of what was forgotten"]
