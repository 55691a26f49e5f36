"""Secrets on their way through a home: from files, chats and feedback, and out of an old one."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from secrets_seed import Seeded, pieces, secrets

from acclimate.store import buffer, conversations, forget, ingest, sources
from acclimate.store.chats import Exchange, canonical
from acclimate.store.curate import RULES
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.index import Index
from acclimate.store.redact import MARKER, redact
from acclimate.store.renew import renew
from acclimate.store.scan import scan

KEY = "AKIAIOSFODNN7EXAMPLE"
MARKED = "[redacted: aws key]"


def held(home: Home, needle: str) -> list[str]:
    """Files of the home that have these bytes anywhere, free pages and logs among them."""
    found = [needle.encode(), json.dumps(needle)[1:-1].encode()]
    files = [path for path in home.root.rglob("*") if path.is_file()]
    return [p.name for p in files if any(form in p.read_bytes() for form in found)]


def write(folder: Path, seeded: Sequence[Seeded], db: Db) -> list[sources.Source]:
    """Each secret in a file of its own, as its carrier wants it, and the folders watched."""
    made = []
    for kind, carrier, suffix in (("notes", "note", "md"), ("code", "code", "py")):
        (folder / kind).mkdir()
        for n, one in enumerate(seeded):
            if one.carrier == carrier:
                (folder / kind / f"{n}.{suffix}").write_text(one.text)
        made.append(sources.add_source(db, folder / kind, kind))  # type: ignore[arg-type]
    (folder / "chat").mkdir()
    chats = [one for one in seeded if one.carrier == "chat"]
    for n, one in enumerate(chats):
        turns = [
            {"role": "user", "content": one.text if n % 2 else f"What was number {n}?"},
            {"role": "assistant", "content": "I see." if n % 2 else one.text},
            {"role": "user", "content": "And then, when all is said?"},
            {"role": "assistant", "content": f"Then felt, and hat {n}."},
        ]
        (folder / "chat" / f"{n}.jsonl").write_text(json.dumps({"messages": turns}))
    made.append(sources.add_source(db, folder / "chat", "chat"))
    return made


def test_no_secret_that_is_found_is_anywhere_in_the_home(
    tmp_path: Path, home: Home, db: Db
) -> None:
    seeded = secrets()
    watched = write(tmp_path, seeded, db)
    index = Index(db, home.index)
    for source in watched:
        assert scan(db, source).refused == 0
    for one in seeded:
        if one.carrier == "chat":
            message = conversations.save_exchange(
                db, None, [{"role": "user", "content": one.text}], one.text, "base",
                [{"path": "a", "source": "/s", "text": one.text}],
            )  # fmt: skip
            conversations.add_feedback(db, message, "edit", f"Better: {one.text}")
    waiting = index.pending(10_000)
    vectors = np.zeros((len(waiting), 384), dtype=np.float32)
    vectors[:, 0] = 1
    index.set_vectors([chunk_id for chunk_id, _ in waiting], vectors)
    index.flush()
    taken = buffer.snapshot(db, limit=10_000, replay=0)
    (home.cache / "snapshot.json").write_text(json.dumps([e.content for e in taken.new]))
    found = [
        one for one in seeded if not any(p in redact(one.text).text for p in pieces(one.secret))
    ]
    assert len(found) >= 475
    # Four digits are in any megabyte: those are looked for in what was stored of their own text.
    long = [piece for one in found for piece in pieces(one.secret) if len(piece) > 7]
    assert len(long) > 480
    assert [piece for piece in long if held(home, piece)] == []
    texts = [row["text"] for row in db.read().execute("SELECT text FROM chunks").fetchall()]
    short = [p for one in found for p in pieces(one.secret) if len(p) <= 7 and "PIN" in one.text]
    assert not [t for t in texts for piece in short if f"PIN {piece}" in t or f"is {piece}" in t]
    # The search itself finds what is there.
    assert held(home, "renew the tram pass")
    counted = sources.redacted(db)
    assert sum(counted.values()) >= 475
    assert counted["credit card"] >= 14


def test_each_message_is_counted_once(db: Db) -> None:
    turns = [{"role": "user", "content": f"The key is {KEY}"}]
    for n in range(4):
        turns += [
            {"role": "assistant", "content": f"Noted {n}."},
            {"role": "user", "content": f"And {n}?"},
        ]
    turns = turns[:-1]
    added = ingest.add_bytes(db, "log.jsonl", json.dumps({"messages": turns}).encode())
    assert (added.examples, added.redacted) == (4, 1)
    assert sources.redacted(db) == {"aws key": 1}


def test_a_conversation_with_a_secret_in_it_goes_on(db: Db) -> None:
    asked = [{"role": "user", "content": "What is the password of the box office?"}]
    first = conversations.save_exchange(db, None, asked, "It's tulip42.", "base")
    said = conversations.get_message(db, first)
    assert said.content == "It's [redacted: password]."
    again = [*asked, {"role": "assistant", "content": "It's tulip42."}]
    again.append({"role": "user", "content": "Thanks."})
    second = conversations.save_exchange(db, said.conversation_id, again, "Mind the hem.", "base")
    assert conversations.get_message(db, second).conversation_id == said.conversation_id
    assert len(conversations.messages(db, said.conversation_id)) == 4


def old_example(conn: sqlite3.Connection, question: str, reply: str, **columns: object) -> None:
    """A row as a version without rules wrote it."""
    exchange = Exchange(1, ({"role": "user", "content": question},), reply)
    row = {
        "sha256": exchange.sha256(),
        "kind": "exchange",
        "content": canonical(exchange.content()),
        "prompt_sha256": exchange.prompt_sha256(),
        "created_at": 0,
        **columns,
    }
    conn.execute(
        f"INSERT INTO examples({','.join(row)}) VALUES ({','.join('?' * len(row))})",  # noqa: S608
        list(row.values()),
    )


def test_an_old_home_is_brought_under_the_rules_once(tmp_path: Path, home: Home, db: Db) -> None:
    with db.write() as conn:
        old_example(conn, "Which key was it?", f"It was {KEY}, for the hats.")
        old_example(conn, f"Is {KEY} right?", "It is, said Odile.", state="learned")
        old_example(conn, "What's the weather?", "Rain.")
        old_example(conn, "Who mends hats?", "Odile does.")
        conn.execute("INSERT INTO conversations(id, created_at) VALUES ('c', 0)")
        conn.execute(
            "INSERT INTO messages(id, conversation_id, role, content, passages, created_at)"
            " VALUES ('m', 'c', 'user', ?, ?, 0)",
            (f"use {KEY}", json.dumps([{"text": f"key {KEY}"}])),
        )
        conn.execute(
            "INSERT INTO feedback(rating, edit, prompt, reply, created_at)"
            " VALUES ('edit', ?, ?, ?, 0)",
            (KEY, json.dumps([{"role": "user", "content": KEY}]), KEY),
        )
    ingest.add_bytes(db, "note.md", b"The hats are blue.")
    with db.write() as conn:
        conn.execute("UPDATE chunks SET text = ?", (f"The hats: {KEY}",))
    assert held(home, KEY)
    renewed = renew(db)
    assert renewed is not None
    assert vars(renewed) == {"examples": 2, "chunks": 1, "messages": 1, "feedback": 1}
    assert held(home, KEY) == []
    assert [(e.state, e.route) for e in buffer.examples(db)][::-1] == [
        ("pending", "dropped"),
        ("learned", "weights"),
        ("pending", "retrieval"),
        ("pending", "weights"),
    ]
    assert MARKED in buffer.get(db, 2).content["messages"][0]["content"]
    assert all(e.cluster == e.id for e in buffer.examples(db) if e.route != "dropped")
    assert renew(db) is None


def test_a_document_read_under_older_rules_is_read_again(
    tmp_path: Path, home: Home, db: Db
) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    lines = [
        json.dumps({"instruction": f"Which key {n}?", "output": f"Number {n}. Not {KEY}, I hope."})
        for n in range(2)
    ]
    (folder / "log.jsonl").write_text("\n".join(lines))
    source = sources.add_source(db, folder, "chat")
    assert scan(db, source).added == 1
    # As an older version would have left it: the first one plain, the second one forgotten.
    with db.write() as conn:
        conn.execute("DELETE FROM minhash_bands")
        conn.execute("DELETE FROM examples")
        conn.execute("DELETE FROM chunks")
        conn.execute("UPDATE documents SET rules = 0, redacted = '{}'")
        for n in range(2):
            reply = f"Number {n}. Not {KEY}, I hope."
            old_example(conn, f"Which key {n}?", reply, source_id=1, document_id=1, line=n + 1)
        forgotten = conn.execute("SELECT max(id) FROM examples").fetchone()[0]
    forget.forget(db, forget.Wanted(examples=(forgotten,)), home.chat_history)
    assert scan(db, source).changed == 1
    assert scan(db, source).unchanged == 1
    assert held(home, KEY) == []
    states = {e.state: e.content for e in buffer.examples(db)}
    assert set(states) == {"pending", "forgotten"}
    assert MARKER.search(states["pending"]["messages"][1]["content"])
    texts = [row["text"] for row in db.read().execute("SELECT text FROM chunks").fetchall()]
    assert len(texts) == 1
    assert "Number 0." in texts[0]
    document = sources.documents(db)[0]
    assert (document.rules, document.redacted) == (RULES, {"aws key": 2})


def test_a_note_keeps_its_line_numbers(db: Db) -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + ("Ab3" * 20 + "\n") * 9 + "-----END PRIVATE KEY-----"
    note = f"# Hats\n\n{key}\n\n# After\n\nThe felt is in the shed.\n"
    ingest.add_bytes(db, "note.md", note.encode())
    rows = db.read().execute("SELECT text, start_line FROM chunks ORDER BY ordinal").fetchall()
    after = next(row for row in rows if "felt" in row["text"])
    first = after["text"].split("\n").index("The felt is in the shed.")
    assert after["start_line"] + first == 1 + note.split("\n").index("The felt is in the shed.")
