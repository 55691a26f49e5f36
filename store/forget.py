"""Taking back what was read: out of the buffer, the chunks, the full-text index and the vectors.

Knows no adapter's weights; it says which versions still carry what was forgotten.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from acclimate.store import ledger
from acclimate.store.buffer import FORGOTTEN, get
from acclimate.store.chats import Exchange, canonical
from acclimate.store.chunk import exchange_texts
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound


@dataclass(frozen=True)
class Forgotten:
    examples: list[int]
    chunks: int
    versions: list[int]  # adapters that learned any of the examples, or descend from one that did


def forget_document(db: Db, document_id: int) -> Forgotten:
    """Forget a document and every example that came from it. Raises NotFound.

    Its path stays out: scans pass over it, also under another name while its content is the same.
    The caller flushes the vector index (`Index.flush`) so that no old copy of it is left either.
    """
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
        chunks = _delete_chunks(conn, "document_id = ?", (document_id,))
        rows = conn.execute("SELECT id FROM examples WHERE document_id = ?", (document_id,))
        examples: set[int] = set()
        for row in rows.fetchall():
            more, count = _forget_example(db, conn, row["id"])
            examples |= more
            chunks += count
    return _finish(db, examples, chunks)


def forget_example(db: Db, example_id: int) -> Forgotten:
    """Forget an example, its passages, and later turns that quote it. Raises NotFound.

    A row without content stays for the lineage; its hash keeps the same line from coming back.
    """
    with db.write() as conn:
        examples, chunks = _forget_example(db, conn, example_id)
    return _finish(db, examples, chunks)


def _forget_example(db: Db, conn: sqlite3.Connection, example_id: int) -> tuple[set[int], int]:
    example = get(db, example_id)
    if example.reason == FORGOTTEN:
        return {example_id}, 0
    messages = example.content["messages"]
    if example.kind == "exchange":
        # Later turns of the conversation have this one in their prompt, in the same spelling.
        quoted = canonical(messages[-2:])[1:-1]
        rows = conn.execute("SELECT id FROM examples WHERE instr(content, ?)", (quoted,))
        targets = {example_id, *(row["id"] for row in rows.fetchall())}
    else:
        targets = {example_id}
    chunks = 0
    for target in targets:
        content = get(db, target).content
        prompt, reply = content["messages"], content.get("chosen")
        if reply is None:
            prompt, reply = prompt[:-1], prompt[-1]["content"]
        for text in exchange_texts(Exchange(0, tuple(prompt), reply)):
            chunks += _delete_chunks(conn, "text = ?", (text,))
    conn.execute(
        "UPDATE examples SET state = 'forgotten', reason = ?, content = '{}', prompt_sha256 = ''"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (FORGOTTEN, ids(targets)),
    )
    return targets, chunks


def _delete_chunks(conn: sqlite3.Connection, where: str, values: tuple[object, ...]) -> int:
    return conn.execute(f"DELETE FROM chunks WHERE {where}", values).rowcount  # noqa: S608


def _finish(db: Db, examples: Iterable[int], chunks: int) -> Forgotten:
    db.scrub()
    return Forgotten(sorted(examples), chunks, ledger.learners(db, examples))
