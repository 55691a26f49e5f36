"""Which learned examples a round rehearses: half by chance, a quarter new, a quarter hard.

Draws by the hash of the content, not by ids, so that equal contents give equal draws; the time
that it takes does not grow with what is learned.
"""

import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping

from acclimate.store.topics import OUTDATED

_COLUMNS = f"e.id, e.cluster, {OUTDATED} AS stale"
_FEW = 512  # as many are read at once, and then there is nothing to estimate
_RECENT_ROUNDS = 16
_HASH_BITS = 60
# Learned examples in one draw's range of hashes: on average, and at most (once in 10^15 ranges).
_IN_RANGE, _MOST_IN_RANGE = 8, 40


class _Draw:
    """What was drawn so far."""

    def __init__(self, count: int, alike: int, clusters: Mapping[int | None, int]) -> None:
        self.count = count
        self.ids: set[int] = set()
        self._alike = alike
        self._clusters = Counter(clusters)

    def take(self, row: sqlite3.Row) -> bool:
        if row["stale"] or row["id"] in self.ids or len(self.ids) >= self.count:
            return False
        if row["cluster"] is not None and self._clusters[row["cluster"]] >= self._alike:
            return False
        self._clusters[row["cluster"]] += 1
        self.ids.add(row["id"])
        return True

    def take_up_to(self, count: int, rows: Iterable[sqlite3.Row]) -> None:
        for row in rows:
            if count <= 0:
                return
            count -= self.take(row)


def draw(
    conn: sqlite3.Connection,
    count: int,
    seed: int,
    *,
    alike: int,
    clusters: Mapping[int | None, int],
) -> list[int]:
    """Ids of at most `count` learned examples, the same for a seed and a history.

    `alike` is how many of one cluster a round may have; `clusters` counts what it has already.
    """
    rng = random.Random(seed)  # noqa: S311
    drawn = _Draw(count, alike, clusters)
    drawn.take_up_to(count // 4, _recent(conn, count, rng))
    drawn.take_up_to(count // 4, _hardest(conn, count))
    _by_chance(conn, drawn, rng)
    return sorted(drawn.ids)


def _recent(conn: sqlite3.Connection, count: int, rng: random.Random) -> Iterable[sqlite3.Row]:
    """What the latest accepted rounds taught, newest round first, shuffled within a round."""
    rounds = conn.execute(
        "SELECT r.id FROM rounds r JOIN adapters a ON a.round_id = r.id"
        " WHERE r.state = 'accepted' AND a.state = 'ok' ORDER BY r.id DESC LIMIT ?",
        (_RECENT_ROUNDS,),
    ).fetchall()
    for row in rounds:
        taught = conn.execute(
            f"SELECT {_COLUMNS} FROM round_examples r JOIN examples e ON e.id = r.example_id"  # noqa: S608
            " WHERE r.round_id = ? AND r.role = 'new' AND e.state = 'learned' ORDER BY e.sha256",
            (row["id"],),
        ).fetchall()
        yield from rng.sample(taught, min(len(taught), 4 * count))


def _hardest(conn: sqlite3.Connection, count: int) -> list[sqlite3.Row]:
    return conn.execute(
        f"SELECT {_COLUMNS} FROM examples e INDEXED BY examples_by_surprise"  # noqa: S608
        " WHERE state = 'learned' AND surprise > 0"
        " ORDER BY surprise DESC, sha256 LIMIT ?",
        (2 * count,),
    ).fetchall()


def _by_chance(conn: sqlite3.Connection, drawn: _Draw, rng: random.Random) -> None:
    """Fill the rest, each learned example as likely as any other.

    Where there are many: a range of hashes is chosen, then a place in it, which may be empty; so
    nobody gains by standing alone in a wide gap.
    """
    few = max(_FEW, 8 * drawn.count)
    start = _range(conn, "", "~", few + 1)
    if len(start) <= few:
        drawn.take_up_to(drawn.count, rng.sample(start, len(start)))
        return
    last = conn.execute("SELECT sha256 FROM examples WHERE id = ?", (start[-1]["id"],)).fetchone()
    share = int(last["sha256"][: _HASH_BITS // 4], 16) / 2**_HASH_BITS
    ranges = max(1, int(len(start) / share / _IN_RANGE))
    for _ in range(200 * drawn.count):
        if len(drawn.ids) >= drawn.count:
            return
        at = rng.randrange(ranges)
        low, high = (_hash_at(at + i, ranges) for i in (0, 1))
        rows = _range(conn, low, high, _MOST_IN_RANGE)
        place = rng.randrange(_MOST_IN_RANGE)
        if place < len(rows):
            drawn.take(rows[place])


def _hash_at(number: int, ranges: int) -> str:
    """The first hash of a range; "~" is behind the last of all."""
    if number == ranges:
        return "~"
    return f"{number * 2**_HASH_BITS // ranges:0{_HASH_BITS // 4}x}"


def _range(conn: sqlite3.Connection, low: str, high: str, limit: int) -> list[sqlite3.Row]:
    return conn.execute(
        f"SELECT {_COLUMNS} FROM examples e INDEXED BY examples_learned"  # noqa: S608
        " WHERE state = 'learned' AND sha256 >= ? AND sha256 < ? ORDER BY sha256 LIMIT ?",
        (low, high, limit),
    ).fetchall()
