"""Examples and their states."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.store import buffer
from acclimate.store.chats import Exchange
from acclimate.store.db import Db
from acclimate.store.errors import NotFound


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db")
    with db.write() as conn:
        conn.execute("INSERT INTO sources(id, path, kind, added_at) VALUES (1, '/s', 'chat', 0)")
        for n in (1, 2):
            conn.execute(
                "INSERT INTO documents(id, source_id, path, state, seen_at) VALUES (?, 1, ?,"
                " 'ok', 0)",
                (n, str(n)),
            )
    yield db
    db.close()


def exchange(question: str, reply: str, line: int = 1) -> Exchange:
    return Exchange(line, ({"role": "user", "content": question},), reply)


def replies(db: Db, state: buffer.State) -> list[str]:
    return [e.content["messages"][-1]["content"] for e in buffer.examples(db, state)][::-1]


def test_the_same_content_is_one_example(db: Db) -> None:
    one = exchange("q", "a")
    assert buffer.add_document_examples(db, 1, 1, [one, one]) == buffer.Added(1, 0, 0)
    assert buffer.add_document_examples(db, 1, 2, [one]) == buffer.Added(0, 1, 0)
    assert buffer.counts(db) == {
        "pending": 1,
        "learned": 0,
        "held-out": 0,
        "quarantined": 0,
        "forgotten": 0,
    }
    only = buffer.get(db, 1)
    assert (only.document_id, only.line, only.kind) == (1, 1, "exchange")
    with pytest.raises(NotFound):
        buffer.get(db, 2)


def test_a_newer_reply_supersedes_one_not_yet_learned(db: Db) -> None:
    buffer.add_document_examples(db, 1, 1, [exchange("q", "old"), exchange("r", "kept")])
    assert buffer.add_document_examples(db, 1, 2, [exchange("q", "new")]).superseded == 1
    assert replies(db, "pending") == ["kept", "new"]
    assert buffer.get(db, 1).reason == "superseded by 3"
    # The old file read again does not bring it back; the newer one changing its mind does.
    buffer.add_document_examples(db, 1, 1, [exchange("q", "old")])
    assert replies(db, "pending") == ["kept", "new"]
    buffer.add_document_examples(db, 1, 2, [exchange("q", "new"), exchange("q", "old", 2)])
    assert replies(db, "pending") == ["old", "kept"]


def test_the_last_reply_in_one_file_counts_however_often_it_is_read(db: Db) -> None:
    for _ in range(3):
        buffer.add_document_examples(db, 1, 1, [exchange("q", "old"), exchange("q", "new", 2)])
        assert replies(db, "pending") == ["new"]


def test_pairs_for_one_prompt_stand_beside_each_other(db: Db) -> None:
    prompt = ({"role": "user", "content": "q"},)
    pairs = [Exchange(1, prompt, "a", "b"), Exchange(2, prompt, "c", "d")]
    assert buffer.add_document_examples(db, 1, 1, pairs).new == 2


def test_a_learned_one_is_kept_but_no_longer_rehearsed(db: Db) -> None:
    buffer.add_document_examples(db, 1, 1, [exchange("q", "old"), exchange("r", "kept")])
    buffer.mark(db, [1, 2], "learned")
    buffer.add_document_examples(db, 1, 1, [exchange("q", "new")])
    taken = buffer.snapshot(db, limit=10, replay=10)
    assert [e.id for e in taken.new] == [3]
    assert [e.id for e in taken.replay] == [2]
    assert buffer.get(db, 1).state == "learned"


def test_a_snapshot_teaches_held_out_ones_first(db: Db) -> None:
    buffer.add_document_examples(db, 1, 1, [exchange(str(n), "a", n) for n in range(1, 9)])
    buffer.mark(db, [7], "held-out")
    buffer.mark(db, [8], "quarantined", "because")
    buffer.mark(db, [1, 2, 3], "learned")
    taken = buffer.snapshot(db, limit=3, replay=2, seed=5)
    assert [e.id for e in taken.new] == [7, 4, 5]
    assert len(taken.replay) == 2
    assert taken == buffer.snapshot(db, limit=3, replay=2, seed=5)
    with pytest.raises(ValueError):
        buffer.mark(db, [1], "done")  # type: ignore[arg-type]
