"""The adapter that a round made live and that is watched since, and how it does in use.

Knows numbers, not what follows from them; ratings are kept by `conversations`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from acclimate.store import ledger
from acclimate.store.buffer import Example, get
from acclimate.store.db import Db, ids
from acclimate.store.route import TEACHABLE


@dataclass(frozen=True)
class OnProbation:
    version: int
    against: int | None  # what would serve instead, None for the base model


def current(db: Db) -> OnProbation | None:
    """The live adapter, if it is so by a round and nobody has moved or pinned live since."""
    swaps = ledger.swaps(db, 1)
    if not swaps or swaps[0].reason != "round" or ledger.pinned(db):
        return None
    version = swaps[0].to_version
    return None if version is None else OnProbation(version, ledger.whole_ancestor(db, version))


def losses(db: Db, on: OnProbation) -> list[tuple[float, float]]:
    """What was measured so far, (before, live), in nats a token."""
    rows = db.read().execute(
        "SELECT before, live FROM probation_losses WHERE version = ? AND against IS ?"
        " ORDER BY example_id",
        (on.version, on.against),
    )
    return [(row["before"], row["live"]) for row in rows.fetchall()]


def record(db: Db, on: OnProbation, example_id: int, before: float, live: float) -> None:
    """Keep the losses of one example, unless it was forgotten while they were measured."""
    with db.write() as conn:
        conn.execute(
            "INSERT OR REPLACE INTO probation_losses SELECT ?, ?, id, ?, ? FROM examples"
            " WHERE id = ? AND content != '{}'",
            (on.version, on.against, before, live, example_id),
        )


def unmeasured(db: Db, on: OnProbation, passed_over: Iterable[int]) -> Example | None:
    """The latest exchange that neither adapter was taught and that was not measured yet.

    What waits or was held out is what live and its ancestors were not taught. Near-duplicates of
    what they were taught are left out, and so is what was made of notes.
    """
    row = (
        db.read()
        .execute(
            "SELECT e.id FROM examples e WHERE e.state IN ('pending', 'held-out')"  # noqa: S608
            f" AND e.{TEACHABLE} AND e.kind = 'exchange' AND e.origin = 'said'"
            " AND e.id NOT IN (SELECT value FROM json_each(?))"
            " AND NOT EXISTS (SELECT 1 FROM probation_losses l WHERE l.version = ?"
            "  AND l.against IS ? AND l.example_id = e.id)"
            " AND NOT EXISTS (SELECT 1 FROM examples t WHERE t.cluster = e.cluster"
            "  AND t.state = 'learned') ORDER BY e.id DESC LIMIT 1",
            (ids(passed_over), on.version, on.against),
        )
        .fetchone()
    )
    return None if row is None else get(db, row["id"])
