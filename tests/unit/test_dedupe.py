"""Near-duplicates find each other, and only those; sets of shingles are the reference."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.store import buffer, dedupe
from acclimate.store.chats import Exchange
from acclimate.store.db import Db

REPLY = "You keep them in the shortbread tin that Gran left on the shelf above the button drawers."


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db")
    with db.write() as conn:
        conn.execute("INSERT INTO sources(id, path, kind, added_at) VALUES (1, '/s', 'chat', 0)")
        conn.execute(
            "INSERT INTO documents(id, source_id, path, state, seen_at) VALUES (1, 1, '1', 'ok', 0)"
        )
    yield db
    db.close()


def exchange(question: str, reply: str = REPLY) -> Exchange:
    return Exchange(1, ({"role": "user", "content": question},), reply)


def clusters(db: Db, *exchanges: Exchange) -> list[int | None]:
    for one in exchanges:
        buffer.add_document_examples(db, 1, 1, [one])
    return [example.cluster for example in buffer.examples(db)][::-1]


def similarity(a: Exchange, b: Exchange) -> float:
    """Jaccard's, of the sets themselves."""
    first, second = (
        {text[i : i + dedupe.SHINGLE_CHARS] for i in range(len(text) - dedupe.SHINGLE_CHARS + 1)}
        for text in (" ".join(re.findall(r"\w+", e.text().casefold())) for e in (a, b))
    )
    return len(first & second) / len(first | second)


FIRST = exchange("Where on earth do I keep my good scissors, the long ones for silk?")
NEAR = exchange("Where on earth do I keep my good scissors, the big ones for silk?")
FAR = exchange("And where are the pins?")


def test_near_duplicates_share_a_cluster_and_others_do_not(db: Db) -> None:
    assert similarity(FIRST, NEAR) > 0.87
    assert similarity(FIRST, FAR) < 0.7
    assert clusters(db, FIRST, NEAR, FAR) == [1, 1, 3]


def test_another_reply_is_no_duplicate(db: Db) -> None:
    corrected = exchange(NEAR.prompt[0]["content"], REPLY.replace("shortbread", "biscuit"))
    assert similarity(NEAR, corrected) > 0.8
    assert clusters(db, FIRST, NEAR, corrected) == [1, 1, 3]


def test_estimates_stand_near_the_true_similarity(db: Db) -> None:
    words = [f"word{n}" for n in range(60)]
    joined = 0
    for n in range(20):
        question = " ".join([*words[:-2], f"other{n}", f"more{n}"])
        assert 0.82 < similarity(exchange(" ".join(words)), exchange(question)) < 0.99
        buffer.add_document_examples(db, 1, 1, [exchange(question)])
    joined = sum(example.cluster == 1 for example in buffer.examples(db))
    assert joined >= 18


def test_what_is_forgotten_leaves_no_band(db: Db) -> None:
    clusters(db, FIRST, FAR)
    with db.write() as conn:
        conn.execute("UPDATE examples SET content = '{}', state = 'forgotten' WHERE id = 1")
    left = db.read().execute("SELECT DISTINCT example_id FROM minhash_bands").fetchall()
    assert [row[0] for row in left] == [2]
    assert clusters(db, NEAR)[-1] == 3
