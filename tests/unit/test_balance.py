"""Caps on sources and clusters, and the draw of what is rehearsed."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.store import replay
from acclimate.store.balance import ALIKE, ALIKE_ROUND, SOURCE_SHARE, Caps, Waiting, choose
from acclimate.store.db import Db


def none_taught(_cluster: int) -> int:
    return 0


def by_source(*rows: Waiting) -> dict[int | None, list[Waiting]]:
    found: dict[int | None, list[Waiting]] = {}
    for one in rows:
        found.setdefault(one.source_id, []).append(one)
    return found


def waiting(count: int, source: int, first: int = 1, cluster: int | None = None) -> list[Waiting]:
    return [Waiting(n, source, cluster) for n in range(first, first + count)]


def test_a_single_source_may_fill_a_round() -> None:
    chosen = choose([], by_source(*waiting(300, 1)), 200, Caps(), none_taught)
    assert chosen.ids == list(range(1, 201))
    assert chosen.held == {}


def test_a_source_gets_its_share_while_others_wait() -> None:
    flood, few = waiting(300, 1), waiting(10, 2, first=1000)
    chosen = choose([], by_source(*flood, *few), 200, Caps(), none_taught)
    assert chosen.ids == [*range(1, 101), *range(1000, 1010)]
    assert set(chosen.held.values()) == {SOURCE_SHARE}
    assert len(chosen.held) == 200


def test_of_a_long_queue_no_more_is_read_than_a_round_takes() -> None:
    read = Counter[int]()

    def queue(source: int, count: int) -> Iterator[Waiting]:
        for n in range(count):
            read[source] += 1
            yield Waiting(10_000 * source + n, source, None)

    chosen = choose([], {1: queue(1, 9_000), 2: queue(2, 10)}, 200, Caps(), none_taught)
    assert chosen.ids == [*range(10_000, 10_100), *range(20_000, 20_010)]
    assert len(chosen.held) <= 201 and read[1] <= 302
    assert len(choose([], {3: queue(3, 9_000)}, 200, Caps(), none_taught).ids) == 200
    assert read[3] <= 201


def test_near_duplicates_come_a_few_at_a_time_and_then_no_more() -> None:
    alike = waiting(50, 1, cluster=1)
    others = waiting(3, 1, first=100)
    chosen = choose([], by_source(*alike, *others), 200, Caps(), none_taught)
    assert chosen.ids == [1, 2, 3, 4, 100, 101, 102]
    assert set(chosen.held.values()) == {ALIKE_ROUND}
    chosen = choose([], by_source(*alike, *others), 200, Caps(), lambda cluster: 15)
    assert chosen.ids == [1, 100, 101, 102]
    assert set(chosen.held.values()) == {ALIKE}


def test_what_was_held_out_comes_first_and_counts() -> None:
    first = [Waiting(7, 1, 1), Waiting(8, 1, 1)]
    chosen = choose(first, by_source(*waiting(9, 1, first=10, cluster=1)), 200, Caps(), none_taught)
    assert chosen.ids == [7, 8, 10, 11]
    assert choose(first, {}, 1, Caps(), none_taught).ids == [7]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db", wal=False)
    yield db
    db.close()


def learn(conn: sqlite3.Connection, first: int, count: int) -> None:
    conn.executemany(
        "INSERT INTO examples(id, sha256, kind, content, prompt_sha256, source_id, state, cluster,"
        " created_at) VALUES (?, ?, 'exchange', '{}', ?, NULL, 'learned', ?, 0)",
        [
            (n, hashlib.sha256(b"%d" % n).hexdigest(), str(n), n)
            for n in range(first, first + count)
        ],
    )


def drawn(conn: sqlite3.Connection, count: int, seed: int, alike: int = 4) -> list[int]:
    return replay.draw(conn, count, seed, alike=alike, clusters={})


def test_each_learned_example_is_as_likely_as_any_other(db: Db) -> None:
    count, seeds, each = 2000, 120, 40
    with db.write() as conn:
        learn(conn, 1, count)
        seen: Counter[int] = Counter()
        for seed in range(seeds):
            found = drawn(conn, each, seed)
            assert len(found) == each == len(set(found))
            seen.update(found)
        assert drawn(conn, each, 3) == drawn(conn, each, 3) != drawn(conn, each, 4)
    expected = seeds * each / count
    chi_square = sum((seen[n] - expected) ** 2 / expected for n in range(1, count + 1))
    assert abs(chi_square - count) < 6 * (2 * count) ** 0.5


def test_a_draw_does_not_cost_more_when_more_is_learned(db: Db) -> None:
    def steps() -> int:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        conn.set_progress_handler(tick, 100)
        drawn(conn, 48, seed=1)
        conn.set_progress_handler(None, 0)
        return ticks

    with db.write() as conn:
        learn(conn, 1, 1_000)
        few = steps()
        learn(conn, 1_001, 19_000)
        assert steps() < 1.5 * few


def test_a_quarter_is_recent_and_a_quarter_hard(db: Db) -> None:
    with db.write() as conn:
        learn(conn, 1, 1_000)
        conn.execute("INSERT INTO rounds(id, state, started_at, seed) VALUES (1, 'accepted', 0, 1)")
        conn.execute(
            "INSERT INTO adapters(version, round_id, sha256, scale, card, created_at)"
            " VALUES (1, 1, '', 1, '{}', 0)"
        )
        conn.executemany(
            "INSERT INTO round_examples(round_id, example_id, role) VALUES (1, ?, 'new')",
            [(n,) for n in range(991, 1001)],
        )
        conn.execute("UPDATE examples SET surprise = id WHERE id BETWEEN 101 AND 110")
        found = drawn(conn, 40, seed=2)
    assert len(found) == 40
    assert set(range(991, 1001)) <= set(found)
    assert set(range(101, 111)) <= set(found)


def test_a_cluster_is_not_rehearsed_more_than_a_round_may_have(db: Db) -> None:
    with db.write() as conn:
        learn(conn, 1, 100)
        conn.execute("UPDATE examples SET cluster = 1 WHERE id <= 60")
        found = drawn(conn, 40, seed=1)
        assert len([n for n in found if n <= 60]) <= 4
        assert drawn(conn, 0, seed=1) == []
