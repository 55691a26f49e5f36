"""What was said in chats with the model, and what the person thought of the replies.

Knows no model; nothing here is learned from unless the person rates it.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from acclimate.store.db import Db
from acclimate.store.errors import NotFound
from acclimate.store.redact import redact, redact_messages, redact_reply

Rating = Literal["good", "bad", "edit"]
# A text that is shorter than this is looked for as a whole message: "Yes." is part of too many.
_QUOTE_CHARS = 16


@dataclass(frozen=True)
class Message:
    id: str
    conversation_id: str
    role: str
    content: str
    adapter: str | None  # "base" or "v0007": which one wrote it
    passages: list[dict[str, Any]]
    created_at: float


@dataclass(frozen=True)
class Feedback:
    id: int
    message_id: str | None
    rating: Rating
    edit: str | None
    prompt: list[dict[str, str]]
    reply: str
    created_at: float
    used: bool


def save_exchange(
    db: Db,
    conversation_id: str | None,
    messages: Sequence[Mapping[str, str]],
    reply: str,
    adapter: str,
    passages: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Record a reply and the messages before it that are new; returns the reply's id.

    `messages` is the whole prompt. When it does not continue what the conversation holds (an
    edited or repeated question), the exchange opens a new one: nothing said is overwritten.
    Secrets are taken out of all of it.
    """
    *before_it, last = redact_messages([*messages, {"role": "assistant", "content": reply}])
    prompt, reply = [(m["role"], m["content"]) for m in before_it], last["content"]
    now = time.time()
    with db.write() as conn:
        before: list[tuple[str, str]] = []
        if conversation_id is not None:
            before = [(m.role, m.content) for m in _messages(conn, conversation_id)]
            if before != prompt[: len(before)]:
                conversation_id, before = None, []
        if conversation_id is None:
            conversation_id = uuid.uuid4().hex
        conn.execute(
            "INSERT OR IGNORE INTO conversations(id, created_at) VALUES (?, ?)",
            (conversation_id, now),
        )
        add = (
            "INSERT INTO messages(id, conversation_id, role, content, adapter, passages,"
            " created_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        for role, content in prompt[len(before) :]:
            message = (uuid.uuid4().hex, conversation_id, role, content, None, "[]", now)
            conn.execute(add, message)
        message_id = uuid.uuid4().hex
        used = json.dumps([safe_passage(passage) for passage in passages])
        conn.execute(add, (message_id, conversation_id, "assistant", reply, adapter, used, now))
    return message_id


def safe_passage(passage: Mapping[str, Any]) -> dict[str, Any]:
    """A passage with the secrets taken out of its text."""
    text = passage.get("text")
    return {**passage, "text": redact(text).text} if isinstance(text, str) else dict(passage)


def get_message(db: Db, message_id: str) -> Message:
    """One message. Raises NotFound."""
    row = db.read().execute("SELECT * FROM messages WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no message {message_id}")
    return _message(row)


def last_message(db: Db, conversation_id: str | None = None) -> Message | None:
    """The latest reply, of one conversation or of all; None before the first."""
    row = (
        db.read()
        .execute(
            "SELECT * FROM messages WHERE role = 'assistant' AND adapter IS NOT NULL"
            " AND (:id IS NULL OR conversation_id = :id) ORDER BY seq DESC LIMIT 1",
            {"id": conversation_id},
        )
        .fetchone()
    )
    return None if row is None else _message(row)


def messages(db: Db, conversation_id: str) -> list[Message]:
    """A conversation in order, empty when there is none."""
    return _messages(db.read(), conversation_id)


def add_feedback(db: Db, message_id: str, rating: Rating, edit: str | None = None) -> int:
    """Keep the person's verdict on a reply, with the reply and its prompt as they were."""
    if rating not in ("good", "bad", "edit"):
        raise ValueError(f"a rating is good, bad or edit, not {rating!r}")
    if (rating == "edit") != bool(edit and edit.strip()):
        raise ValueError("an edit, and only an edit, comes with the better reply")
    with db.write() as conn:
        reply = get_message(db, message_id)
        if reply.role != "assistant":
            raise ValueError(f"message {message_id} is not a reply")
        before = []
        for message in _messages(conn, reply.conversation_id):
            if message.id == message_id:
                break
            before.append({"role": message.role, "content": message.content})
        if edit is not None:
            edit = redact_reply(before[-1]["content"] if before else "", edit).text
        feedback_id = conn.execute(
            "INSERT INTO feedback(message_id, rating, edit, prompt, reply, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (message_id, rating, edit, json.dumps(before), reply.content, time.time()),
        ).lastrowid
    return int(feedback_id or 0)


def list_feedback(db: Db, *, unused: bool = False, limit: int = 50) -> list[Feedback]:
    """The latest feedback, newest first; `unused` leaves out what a round has used."""
    rows = db.read().execute(
        "SELECT * FROM feedback WHERE NOT (? AND used) ORDER BY id DESC LIMIT ?", (unused, limit)
    )
    return [
        Feedback(**{**dict(row), "prompt": json.loads(row["prompt"]), "used": bool(row["used"])})
        for row in rows.fetchall()
    ]


def ratings(db: Db) -> dict[str, list[bool]]:
    """By adapter, whether each rated reply of it was bad; the last rating of a reply counts.

    In the order of these ratings. Who corrects a reply was not content with it: that is a bad one.
    """
    rows = db.read().execute(
        "SELECT m.adapter, f.rating FROM feedback f JOIN messages m ON m.id = f.message_id"
        " WHERE m.adapter IS NOT NULL"
        " AND f.id IN (SELECT max(id) FROM feedback GROUP BY message_id) ORDER BY f.id"
    )
    found: dict[str, list[bool]] = {}
    for row in rows.fetchall():
        found.setdefault(row["adapter"], []).append(row["rating"] != "good")
    return found


def generated(db: Db, reply: str) -> bool:
    """Whether a kept reply of the model, under whatever adapter, is this text."""
    row = db.read().execute(
        "SELECT 1 FROM messages WHERE role = 'assistant' AND adapter IS NOT NULL"
        " AND trim(content, :white) = trim(:reply, :white) LIMIT 1",
        {"reply": reply, "white": " \t\r\n"},
    )
    return row.fetchone() is not None


def plain(text: str) -> str:
    """A text as it is compared: case and white space do not count."""
    return " ".join(text.split()).casefold()


def remove_quotes(
    conn: sqlite3.Connection,
    said: Iterable[str],
    passages: Iterable[str],
    documents: Iterable[tuple[str, str]] = (),
    matching: str = "",
) -> tuple[int, int]:
    """Remove kept messages and feedback that hold what was forgotten; how many of each.

    `said` are prompts and replies: a message goes that contains one (a short one: that is one), and
    a question's reply goes with it. `passages` are texts of chunks, `documents` each a source's
    path and a file's in it: a reply goes that was given one of them. `matching` is a text of any
    length: what contains it goes.
    """
    texts = {plain(text) for text in said} - {""}
    long = [text for text in texts if len(text) >= _QUOTE_CHARS]
    chunks, places = set(passages), set(documents)
    needle = plain(matching)
    if needle:
        long.append(needle)

    def quotes(content: str) -> bool:
        content = plain(content)
        return content in texts or any(text in content for text in long)

    def came_from(passage: Mapping[str, Any]) -> bool:
        place, text = (passage.get("source"), passage.get("path")), passage.get("text") or ""
        return text in chunks or place in places or bool(needle and needle in plain(text))

    doomed: list[str] = []
    rows = conn.execute("SELECT * FROM messages ORDER BY conversation_id, seq").fetchall()
    for _, conversation in groupby(map(_message, rows), key=lambda m: m.conversation_id):
        asked = False  # the question before was one of them
        for message in conversation:
            hit = quotes(message.content) or any(map(came_from, message.passages))
            if message.role == "user":
                asked = hit
            if hit or asked:
                doomed.append(message.id)
    gone = set(doomed)
    rated = [
        row["id"]
        for row in conn.execute("SELECT * FROM feedback").fetchall()
        if row["message_id"] in gone
        or any(map(quotes, (row["reply"], row["edit"] or "")))
        or any(quotes(m["content"]) for m in json.loads(row["prompt"]))
    ]
    conn.executemany("DELETE FROM feedback WHERE id = ?", [(n,) for n in rated])
    conn.executemany("DELETE FROM messages WHERE id = ?", [(n,) for n in doomed])
    conn.execute("DELETE FROM conversations WHERE id NOT IN (SELECT conversation_id FROM messages)")
    return len(doomed), len(rated)


def _messages(conn: sqlite3.Connection, conversation_id: str) -> list[Message]:
    rows = conn.execute(
        "SELECT * FROM messages WHERE conversation_id = ? ORDER BY seq", (conversation_id,)
    )
    return [_message(row) for row in rows.fetchall()]


def _message(row: sqlite3.Row) -> Message:
    fields = dict(row)
    del fields["seq"]
    return Message(**{**fields, "passages": json.loads(row["passages"])})
