"""Brings what is stored under the rules of this version: secrets out, routes and clusters noted.

Files are read again by the scan; this is for what has no file any more, or never had one.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from acclimate.store import dedupe
from acclimate.store.buffer import FORGOTTEN, rewrite
from acclimate.store.chats import Exchange
from acclimate.store.conversations import safe_passage
from acclimate.store.curate import RULES, judge, tidy_exchanges
from acclimate.store.db import Db
from acclimate.store.redact import redact, redact_messages, redact_reply

_SETTING = "rules"
_BATCH = 200


@dataclass(frozen=True)
class Renewed:
    """How many rows of each kind held a secret, or something else that was mended."""

    examples: int = 0
    chunks: int = 0
    messages: int = 0
    feedback: int = 0


def renew(db: Db) -> Renewed | None:
    """Go through everything once for each version of the rules; None when that is done already.

    Interrupted, it begins again at the next start. Afterwards no old text is left in free pages.
    """
    done = db.read().execute("SELECT value FROM settings WHERE key = ?", (_SETTING,)).fetchone()
    if done is not None and json.loads(done["value"]) == RULES:
        return None
    with db.write() as conn:
        conn.execute("DELETE FROM minhash_bands")  # clusters are made anew, the oldest first
    found = Renewed(
        examples=_each(db, "examples", _renew_example),
        chunks=_each(db, "chunks", _renew_chunk),
        messages=_renew_messages(db),
        feedback=_each(db, "feedback", _renew_feedback),
    )
    if any((found.examples, found.chunks, found.messages, found.feedback)):
        db.scrub()
    with db.write() as conn:
        conn.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_SETTING, str(RULES)))
    return found


def _each(db: Db, table: str, change: Callable[[sqlite3.Connection, sqlite3.Row], bool]) -> int:
    changed = last = 0
    while True:
        with db.write() as conn:
            rows = conn.execute(
                f"SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (last, _BATCH),
            ).fetchall()
            changed += sum(change(conn, row) for row in rows)
        if not rows:
            return changed
        last = rows[-1]["id"]


def _renew_example(conn: sqlite3.Connection, row: sqlite3.Row) -> bool:
    if row["reason"] == FORGOTTEN or row["content"] == "{}":
        return False
    exchange = Exchange.of(row["line"] or 0, json.loads(row["content"]))
    safe = tidy_exchanges([exchange]).exchanges[0]
    if safe != exchange:
        rewrite(conn, row["id"], row["reason"], safe)
    judged = judge(safe)
    conn.execute(
        "UPDATE examples SET route = ?, route_reason = ?, language = ? WHERE id = ?",
        (judged.decision.route, judged.decision.reason, judged.language, row["id"]),
    )
    kept = conn.execute("SELECT content FROM examples WHERE id = ?", (row["id"],)).fetchone()
    if judged.decision.route != "dropped" and kept["content"] != "{}":
        dedupe.join(conn, row["id"], safe)
    return safe != exchange


def _renew_chunk(conn: sqlite3.Connection, row: sqlite3.Row) -> bool:
    text = redact(row["text"]).text
    if text == row["text"]:
        return False
    # A new row: the old one's vector goes with it, and its words leave the full-text index.
    conn.execute("DELETE FROM chunks WHERE id = ?", (row["id"],))
    conn.execute(
        "INSERT INTO chunks(document_id, ordinal, text, start_line, end_line)"
        " VALUES (?, ?, ?, ?, ?)",
        (row["document_id"], row["ordinal"], text, row["start_line"], row["end_line"]),
    )
    return True


def _renew_messages(db: Db) -> int:
    changed = 0
    rows = db.read().execute("SELECT id FROM conversations ORDER BY seq").fetchall()
    for (conversation_id,) in rows:
        with db.write() as conn:
            messages = conn.execute(
                "SELECT seq, role, content, passages FROM messages WHERE conversation_id = ?"
                " ORDER BY seq",
                (conversation_id,),
            ).fetchall()
            safe = redact_messages([{"role": m["role"], "content": m["content"]} for m in messages])
            for message, new in zip(messages, safe, strict=True):
                passages = json.loads(message["passages"])
                used = [safe_passage(passage) for passage in passages]
                if (new["content"], used) != (message["content"], passages):
                    conn.execute(
                        "UPDATE messages SET content = ?, passages = ? WHERE seq = ?",
                        (new["content"], json.dumps(used), message["seq"]),
                    )
                    changed += 1
    return changed


def _renew_feedback(conn: sqlite3.Connection, row: sqlite3.Row) -> bool:
    prompt = json.loads(row["prompt"])
    asked = prompt[-1]["content"] if prompt else ""
    edit = None if row["edit"] is None else redact_reply(asked, row["edit"]).text
    reply = redact_reply(asked, row["reply"]).text
    safe = redact_messages(prompt)
    if (safe, reply, edit) == (prompt, row["reply"], row["edit"]):
        return False
    conn.execute(
        "UPDATE feedback SET prompt = ?, reply = ?, edit = ? WHERE id = ?",
        (json.dumps(safe), reply, edit, row["id"]),
    )
    return True
