"""What a round asks of the database costs the same after few and after many examples.

Counted in steps of SQLite's virtual machine, which no other program on the machine changes.
"""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from acclimate.daemon import history
from acclimate.daemon.study import study
from acclimate.store import buffer, carried, forget, ledger
from acclimate.store.chats import Exchange, canonical
from acclimate.store.db import Db
from acclimate.store.studied import RULES

PER_ROUND = 100
FEW, MANY = 1_000, 12_000
CARD = json.dumps({"reasons": ["well"] * 20})


def exchange(number: int) -> Exchange:
    word = hashlib.sha256(b"%d" % number).hexdigest()
    prompt = ({"role": "user", "content": f"Where did I put {word[:12]}?"},)
    return Exchange(1, prompt, f"Behind {word[20:32]}.")


def lived(path: Path, learned: int) -> Db:
    """A database as rounds of PER_ROUND examples leave it; a tenth is of a passing kind, and waits
    for ever."""
    db = Db(path)
    rounds = [(n, n - 1 or None) for n in range(1, learned // PER_ROUND + 1)]
    with db.write() as conn:
        conn.execute("INSERT INTO sources(id, path, kind, added_at) VALUES (1, '/s', 'chat', 0)")
        conn.execute(
            "INSERT INTO documents(id, source_id, path, state, seen_at) VALUES (1, 1, 'a', 'ok', 0)"
        )
        rows = [(n, exchange(n)) for n in range(1, learned + learned // 10 + 1)]
        conn.executemany(
            "INSERT INTO examples(id, sha256, kind, content, prompt_sha256, source_id, document_id,"
            " state, route, cluster, surprise, topic, told, created_at)"
            " VALUES (?, ?, 'exchange', ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, 0)",
            [
                (n, e.sha256(), canonical(e.content()), e.prompt_sha256(),
                 *(("learned", "weights") if n <= learned else ("pending", "retrieval")),
                 n, n % 7, e.prompt[-1]["content"], e.reply)
                for n, e in rows
            ],
        )  # fmt: skip
        conn.executemany(
            "INSERT INTO chunks(document_id, ordinal, text, start_line, end_line, studied)"
            " VALUES (1, ?, ?, 1, 1, ?)",
            [(n, e.text(), RULES) for n, e in rows],
        )
        conn.executemany(
            "INSERT INTO rounds(id, parent, state, started_at, seed)"
            " VALUES (?, ?, 'accepted', 0, 0)",
            rounds,
        )
        conn.executemany(
            "INSERT INTO adapters(version, parent, round_id, sha256, scale, card, created_at)"
            " VALUES (?, ?, ?, '', 1, ?, 0)",
            [(n, parent, n, CARD) for n, parent in rounds],
        )
        conn.executemany(
            "INSERT INTO round_examples(round_id, example_id, role, nll) VALUES (?, ?, 'new', 0)",
            [((n - 1) // PER_ROUND + 1, n) for n in range(1, learned + 1)],
        )
        conn.execute("INSERT INTO settings VALUES ('live', ?)", (str(len(rounds)),))
    buffer.add_document_examples(db, 1, 1, [exchange(10**6 + n) for n in range(20)])
    return db


def run_round(db: Db) -> None:
    taken = buffer.snapshot(db, limit=200, replay=48)
    assert (len(taken.new), len(taken.replay)) == (20, 48)
    new, replay = ([e.id for e in part] for part in (taken.new, taken.replay))
    live = ledger.live(db)
    round_id = ledger.start_round(db, live, 1, new, replay)
    ledger.publish(db, round_id, (live or 0) + 1, live, "", 1.0, {}, new)
    buffer.set_surprise(db, round_id, dict.fromkeys(new + replay, 0.5))


def newest(db: Db) -> int:
    return int(ledger.live(db) or 0)


def roll_back_and_forward(db: Db) -> None:
    last = newest(db)
    for version in (last - 1, last):
        ledger.set_live(db, version, "rollback")
    assert len(buffer.examples(db, "pending", 1000, "weights")) == 20


def forget_one(db: Db) -> None:
    taught = carried.taught(db.read(), [newest(db)])[-1][1]
    done = forget.forget(db, forget.Wanted(examples=[taught]), Path("no history"))
    assert (done.examples, len(done.chunks)) == ([taught], 1)


WORK: dict[str, Callable[[Db], object]] = {
    "study": study,
    "a round": run_round,
    "rollback and forward": roll_back_and_forward,
    "forgetting one": forget_one,
    "history": lambda db: history.history(db, 5),
    "one round": lambda db: history.find_round(db, 3),
    "what waits": ledger.waiting,
    "the latest": lambda db: buffer.examples(db, "learned", 50),
}


def steps(db: Db, work: Callable[[Db], object]) -> int:
    """What `work` costs, in hundreds of steps."""
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    with db.write() as conn:
        connections: list[sqlite3.Connection] = [conn]
    connections.append(db.read())
    for conn in connections:
        conn.set_progress_handler(tick, 100)
    work(db)
    for conn in connections:
        conn.set_progress_handler(None, 0)
    return ticks


@pytest.mark.parametrize("sources", [1, 2])
def test_a_long_queue_costs_a_round_no_more(tmp_path: Path, sources: int) -> None:
    found = []
    for waiting in (1_000, 10_000):
        db = Db(tmp_path / f"{waiting}.db")
        with db.write() as conn:
            conn.executemany(
                "INSERT INTO sources(id, path, kind, added_at) VALUES (?1, ?1, 'chat', 0)",
                [(1,), (2,)],
            )
            conn.executemany(
                "INSERT INTO examples(sha256, kind, content, prompt_sha256, source_id, created_at)"
                " VALUES (?1, 'exchange', '{}', ?1, ?2, 0)",
                [(str(n), 1 if n < waiting or sources == 1 else 2) for n in range(waiting + 9)],
            )
        for _ in range(2):
            took = steps(db, lambda db: buffer.snapshot(db, limit=100, replay=0))
        assert len(buffer.snapshot(db, limit=100, replay=0).new) == (100 if sources == 1 else 59)
        found.append(took)
        db.close()
    assert found[1] < 1.3 * found[0] + 20


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("lived")
    paths = [folder / "few.db", folder / "many.db"]
    for path, learned in zip(paths, (FEW, MANY), strict=True):
        lived(path, learned).close()
    return paths


@pytest.mark.parametrize("name", WORK)
def test_it_costs_the_same(homes: list[Path], tmp_path: Path, name: str) -> None:
    found = []
    for path in homes:
        shutil.copy(path, tmp_path)
        db = Db(tmp_path / path.name)
        found.append(steps(db, WORK[name]))
        db.close()
    few, many = found
    assert many < 1.3 * few + 60  # a line of adapters is walked along: a few steps for each
