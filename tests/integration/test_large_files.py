"""A large file is kept in several transactions: whole in the end, whatever comes between."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acclimate.store import buffer, forget, ingest, sources
from acclimate.store.chats import Exchange
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.ingest import PART, add_bytes
from acclimate.store.scan import scan

MANY = 3 * PART + 7

READ = """
import sys
from pathlib import Path
from acclimate.store import ingest, sources
from acclimate.store.db import Db
db = Db(Path(sys.argv[1]) / "acclimate.db")
(source,) = sources.list_sources(db)
ingest.ingest_file(db, source, "long.jsonl")
"""


def chat(*pairs: tuple[str, str]) -> bytes:
    return "\n".join(json.dumps({"instruction": q, "output": a}) for q, a in pairs).encode()


def pairs(count: int, reply: str = "Behind the churn") -> list[tuple[str, str]]:
    return [(f"Where does Gran keep jar {n}?", f"{reply} of dairy {n * n}.") for n in range(count)]


def texts(db: Db) -> list[str]:
    rows = db.read().execute("SELECT text FROM chunks ORDER BY document_id, ordinal").fetchall()
    return [row["text"] for row in rows]


def shown(*said: tuple[str, str]) -> list[str]:
    return [f"User: {q}\nAssistant: {a}" for q, a in said]


def replies(db: Db, state: buffer.State = "pending") -> list[str]:
    return [e.content["messages"][-1]["content"] for e in buffer.examples(db, state, -1)][::-1]


def between(monkeypatch: pytest.MonkeyPatch, part: int, work: Callable[[], object]) -> None:
    """Let `work` be done after a part of the next large file, once."""
    parts = 0

    def sleep(_seconds: float) -> None:
        nonlocal parts
        parts += 1
        if parts == part:
            work()

    monkeypatch.setattr(time, "sleep", sleep)


def test_no_transaction_holds_more_than_a_part(db: Db) -> None:
    transactions: list[set[str]] = []  # a trigger's steps show their statement again

    def trace(statement: str) -> None:
        if statement.startswith("BEGIN"):
            transactions.append(set())
        transactions[-1].add(statement)

    def inserted(table: str) -> list[int]:
        begin = f"INSERT INTO {table}("
        return [sum(one.startswith(begin) for one in some) for some in transactions]

    with db.write() as conn:
        transactions.append(set())
        conn.set_trace_callback(trace)
    said = pairs(MANY)
    result = add_bytes(db, "long.jsonl", chat(*said))
    with db.write() as conn:
        conn.set_trace_callback(None)
    assert (result.outcome, result.chunks, result.examples) == ("added", MANY, MANY)
    for table in ("examples", "chunks"):
        assert max(inserted(table)) == PART
        assert sum(inserted(table)) == MANY
    assert texts(db) == shown(*said)
    assert add_bytes(db, "long.jsonl", chat(*said)).outcome == "unchanged"


def test_small_files_share_a_transaction_and_results_keep_their_order(
    db: Db, tmp_path: Path
) -> None:
    (tmp_path / "n").mkdir()
    source = sources.add_source(db, tmp_path / "n", "chat")
    sizes = [3, PART + 1, 4, 5]
    prepared = []
    for number, size in enumerate(sizes):
        (source.path / f"{number}.jsonl").write_bytes(chat(*pairs(size, f"In {number}")))
        prepared.append(ingest.prepare(source, f"{number}.jsonl", 10**7))
    done = ingest.store(db, source, prepared)
    assert [(r.path, r.examples) for r in done] == [(f"{n}.jsonl", s) for n, s in enumerate(sizes)]


@pytest.fixture
def home_of_one_chat(home: Home, tmp_path: Path) -> Home:
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "long.jsonl").write_bytes(chat(*pairs(MANY)) + b"\n{ a bad line")
    db = Db(home.db)
    sources.add_source(db, tmp_path / "chats", "chat")
    db.close()
    return home


@pytest.mark.parametrize(
    "point",
    ["ingest.document", "ingest.part:1", "ingest.part:4", "ingest.part:6", "ingest.part:9",
     "db.commit:5", "db.committed:5", "buffer.added:2"],
)  # fmt: skip
def test_killed_in_the_middle_nothing_is_doubled_or_lost(
    home_of_one_chat: Home, point: str
) -> None:
    home = home_of_one_chat

    def read(failpoint: str) -> int:
        environment = {**os.environ, "ACCLIMATE_FAILPOINT": failpoint}
        return subprocess.run([sys.executable, "-c", READ, home.root], env=environment).returncode

    assert read(point) == -9
    with sqlite3.connect(home.db) as conn:
        known = dict(conn.execute("SELECT path, sha256 FROM documents").fetchall())
    conn.close()
    assert not any(known.values()), "what was not read to its end is not known as read"
    assert read("") == 0
    db = Db(home.db)
    assert db.integrity_check() == []
    assert texts(db) == shown(*pairs(MANY))
    assert replies(db) == [reply for _, reply in pairs(MANY)]
    assert len(sources.quarantined(db)) == 1
    (source,) = sources.list_sources(db)
    assert scan(db, source).examples == 0
    db.close()


def test_a_longer_file_keeps_the_rows_of_what_it_said(db: Db) -> None:
    said = pairs(MANY)
    add_bytes(db, "long.jsonl", chat(*said))
    query = "SELECT text, id FROM chunks"
    before = dict(map(tuple, db.read().execute(query).fetchall()))
    changed = [("What is new?", "The roof."), *said[:5], *said[6:], said[0]]
    assert add_bytes(db, "long.jsonl", chat(*changed)).outcome == "changed"
    assert texts(db) == shown(*changed)
    after = dict(map(tuple, db.read().execute(query).fetchall()))
    assert {text: after.get(text) for text in before} == {
        **before,
        shown(said[0])[0]: after[shown(said[0])[0]],
        shown(said[5])[0]: None,
    }


def test_the_last_reply_counts_however_far_apart_they_stand(db: Db) -> None:
    said = [("Who mows?", "Ern."), *pairs(MANY), ("Who mows?", "Nob.")]
    for name in ("a.jsonl", "b.jsonl", "a.jsonl"):
        add_bytes(db, name, chat(*said))
    assert "Ern." not in replies(db) and "Nob." in replies(db)
    assert len(replies(db)) == MANY + 1


@pytest.mark.parametrize("part", [1, 4, 6])
def test_what_is_forgotten_meanwhile_stays_out(
    db: Db, home: Home, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    said = pairs(MANY)
    first, last = said[3], said[-3]
    prompt = ({"role": "user", "content": first[0]},)
    known = add_bytes(db, "other.jsonl", chat(first))
    assert known.examples == 1

    def take_back(**wanted: Any) -> None:
        forget.forget(db, forget.Wanted(**wanted), home.chat_history)

    between(monkeypatch, part, lambda: take_back(examples=[1]))
    result = add_bytes(db, "long.jsonl", chat(*said))
    assert result.outcome == "added"
    assert shown(first)[0] not in texts(db) and shown(last)[0] in texts(db)
    (row,) = (
        db.read()
        .execute(
            "SELECT state, content FROM examples WHERE sha256 = ?",
            (Exchange(0, prompt, first[1]).sha256(),),
        )
        .fetchall()
    )
    assert tuple(row) == ("forgotten", "{}")
    assert len(replies(db)) == MANY - 1


def test_a_file_that_is_forgotten_meanwhile_ends_there(
    db: Db, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_back() -> None:
        (document,) = sources.documents(db)
        forget.forget(db, forget.Wanted([document.id]), home.chat_history)

    between(monkeypatch, 6, take_back)
    data = chat(*pairs(MANY))
    assert add_bytes(db, "long.jsonl", data).outcome == "forgotten"
    assert (texts(db), replies(db)) == ([], [])
    (document,) = sources.documents(db)
    assert (document.state, bool(document.sha256)) == ("forgotten", True)


def test_a_newer_reading_of_the_same_file_holds(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = [("What is left?", "A barn.")]
    between(monkeypatch, 2, lambda: add_bytes(db, "long.jsonl", chat(*newer)))
    add_bytes(db, "long.jsonl", chat(*pairs(MANY)))
    assert texts(db) == shown(*newer)
    assert add_bytes(db, "long.jsonl", chat(*newer)).outcome == "unchanged"


def test_a_source_that_is_removed_meanwhile_leaves_nothing_to_find(
    db: Db, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "long.jsonl").write_bytes(chat(*pairs(MANY)))
    source = sources.add_source(db, tmp_path / "c", "chat")
    between(monkeypatch, 2, lambda: sources.remove_source(db, source.id))
    with pytest.raises(sources.SourceError):
        scan(db, source)
    assert texts(db) == []
