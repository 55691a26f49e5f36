"""Taking back what was read: out of the buffer, the chunks, the full-text index and the vectors,
and out of what was said: kept messages, feedback, lines that were typed.

Knows no adapter's weights; it says which versions still carry what was forgotten.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from acclimate.store import ledger
from acclimate.store.buffer import FORGOTTEN, get
from acclimate.store.chats import Exchange, canonical
from acclimate.store.chunk import exchange_texts
from acclimate.store.conversations import plain, remove_quotes
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound
from acclimate.store.files import atomic_write


@dataclass(frozen=True)
class Forgotten:
    examples: list[int]
    chunks: int
    versions: list[int]  # adapters that learned any of the examples, or descend from one that did
    messages: int  # kept ones that held it
    feedback: int
    said: frozenset[str] = field(repr=False)  # the prompts and replies, for `forget_lines`


@dataclass
class _Taken:
    """What one request takes away, as it grows."""

    examples: set[int] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    chunks: list[str] = field(default_factory=list)
    document: tuple[str, str] | None = None  # its source's path, as stored, and its own


def forget_document(db: Db, document_id: int) -> Forgotten:
    """Forget a document and every example that came from it. Raises NotFound.

    Its path stays out: scans pass over it, also under another name while its content is the same.
    The caller flushes the vector index (`Index.flush`) so that no old copy of it is left either.
    """
    taken = _Taken()
    with db.write() as conn:
        found = conn.execute(
            "UPDATE documents SET state = 'forgotten', reason = '' WHERE id = ?"
            " RETURNING source_id, path",
            (document_id,),
        ).fetchone()
        if found is None:
            raise NotFound(f"there is no document {document_id}")
        conn.execute(
            "DELETE FROM quarantine WHERE source_id = ? AND path = ?",
            (found["source_id"], found["path"]),
        )
        source = conn.execute("SELECT path FROM sources WHERE id = ?", (found["source_id"],))
        taken.document = (source.fetchone()["path"], found["path"])
        taken.chunks += _delete_chunks(conn, "document_id = ?", (document_id,))
        rows = conn.execute("SELECT id FROM examples WHERE document_id = ?", (document_id,))
        for row in rows.fetchall():
            _forget_example(db, conn, row["id"], taken)
        messages, feedback = remove_quotes(conn, taken.said, taken.chunks, taken.document)
    return _finish(db, taken, messages, feedback)


def forget_example(db: Db, example_id: int) -> Forgotten:
    """Forget an example, its passages, and later turns that quote it. Raises NotFound.

    A row without content stays for the lineage; its hash keeps the same line from coming back.
    """
    taken = _Taken()
    with db.write() as conn:
        _forget_example(db, conn, example_id, taken)
        messages, feedback = remove_quotes(conn, taken.said, taken.chunks)
    return _finish(db, taken, messages, feedback)


def forget_lines(history: Path, said: Iterable[str]) -> int:
    """Take what was forgotten out of the lines that were typed in `chat`; how many.

    `history` is prompt_toolkit's file: a comment with the time, then the lines of what was typed,
    each after a plus sign.
    """
    wanted = {plain(text) for text in said}
    try:
        lines = history.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return 0
    kept: list[str] = []
    removed = 0
    for typed, group in groupby(lines, key=lambda line: line.startswith("+")):
        block = list(group)
        text = plain("\n".join(line[1:] for line in block).removeprefix("/edit "))
        if typed and text in wanted:
            removed += 1
        else:
            kept += block
    if removed:
        data = "\n".join(kept).encode("utf-8", errors="surrogateescape")
        atomic_write(history, data, 0o600)
    return removed


def _forget_example(db: Db, conn: sqlite3.Connection, example_id: int, taken: _Taken) -> None:
    example = get(db, example_id)
    taken.examples.add(example_id)
    if example.reason == FORGOTTEN:
        return
    messages = example.content["messages"]
    if example.kind == "exchange":
        # Later turns of the conversation have this one in their prompt, in the same spelling.
        quoted = canonical(messages[-2:])[1:-1]
        rows = conn.execute("SELECT id FROM examples WHERE instr(content, ?)", (quoted,))
        targets = {example_id, *(row["id"] for row in rows.fetchall())}
    else:
        targets = {example_id}
    for target in targets:
        content = get(db, target).content
        prompt, reply = content["messages"], content.get("chosen")
        if reply is None:
            prompt, reply = prompt[:-1], prompt[-1]["content"]
        taken.said |= {prompt[-1]["content"], reply, content.get("rejected", reply)}
        for text in exchange_texts(Exchange(0, tuple(prompt), reply)):
            taken.chunks += _delete_chunks(conn, "text = ?", (text,))
    conn.execute(
        "UPDATE examples SET state = 'forgotten', reason = ?, content = '{}', prompt_sha256 = ''"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (FORGOTTEN, ids(targets)),
    )
    taken.examples |= targets


def _delete_chunks(conn: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[str]:
    rows = conn.execute(f"DELETE FROM chunks WHERE {where} RETURNING text", values)  # noqa: S608
    return [row["text"] for row in rows.fetchall()]


def _finish(db: Db, taken: _Taken, messages: int, feedback: int) -> Forgotten:
    db.scrub()
    return Forgotten(
        sorted(taken.examples),
        len(taken.chunks),
        ledger.learners(db, taken.examples),
        messages,
        feedback,
        frozenset(taken.said),
    )
