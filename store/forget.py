"""Taking back what was read: out of the buffer, the chunks, the full-text index and the vectors,
out of what was said (kept messages, feedback, typed lines), and out of every adapter.

One transaction decides all of it. Knows no weights; `retire.clear` removes the files after it.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from acclimate.store import hidden, receipts, retire
from acclimate.store.buffer import FORGOTTEN, get
from acclimate.store.chats import Exchange, Message, canonical
from acclimate.store.chunk import exchange_texts
from acclimate.store.conversations import plain, remove_quotes
from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound
from acclimate.store.files import atomic_write, failpoint
from acclimate.store.prepare import CHAT_SUFFIXES
from acclimate.store.retire import Retired


@dataclass(frozen=True)
class Wanted:
    """What is to be forgotten: ids of documents and examples, a source's, or whatever holds a text.

    `matching` is compared without case and white space, see `conversations.plain`.
    """

    documents: Sequence[int] = ()
    examples: Sequence[int] = ()
    source: int | None = None
    matching: str = ""


@dataclass(frozen=True)
class Forgotten:
    documents: list[int]
    examples: list[int]
    chunks: list[int]
    messages: int  # kept ones that held it
    feedback: int
    lines: int  # typed ones
    retired: Retired
    receipt: int | None  # None: nothing was done, this is what would be

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return _counts(self.documents, self.examples, self.chunks, self.said())

    def said(self) -> tuple[int, int, int]:
        return self.messages, self.feedback, self.lines


@dataclass
class _Taken:
    """What one request takes away, as it grows."""

    documents: set[int] = field(default_factory=set)
    examples: set[int] = field(default_factory=set)
    chunks: dict[int, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    places: set[tuple[str, str]] = field(default_factory=set)  # a source's path, a document's in it


class _OnlyLooked(Exception):
    """Undoes what was tried."""


def forget(
    db: Db, wanted: Wanted, history: Path, *, relearn: bool = True, dry_run: bool = False
) -> Forgotten:
    """Forget, and retire every adapter that learned any of it, in one transaction.

    Documents stay out: scans pass over them, also under another name while their content is the
    same; so do examples, and passages that were found by their text. `history` is the file of typed
    lines, written just before the transaction ends. `relearn` says that rounds are wanted for what
    the retired adapters had learned besides. The caller has the engine follow and then calls
    `retire.clear`. With `dry_run` nothing is changed. Raises NotFound.
    """
    taken = _Taken()
    done: Forgotten | None = None
    try:
        with db.write() as conn:
            _take(db, conn, wanted, taken)
            failpoint("forget.taken")
            said = remove_quotes(
                conn, taken.said, taken.chunks.values(), taken.places, wanted.matching
            )
            failpoint("forget.quotes")
            lines = forget_lines(history, taken.said, wanted.matching, dry_run=dry_run)
            if wanted.matching and not (taken.examples or taken.chunks or any(said) or lines):
                raise NotFound("nothing holds this text", "acclimate search finds passages")
            failpoint("forget.lines")
            retired = retire.retire(db, taken.examples)
            found = sorted(taken.documents), sorted(taken.examples), sorted(taken.chunks)
            removed = _counts(*found, (*said, lines))
            number = None if dry_run else receipts.add(conn, removed, retired, relearn)
            done = Forgotten(*found, *said, lines, retired, number)
            if dry_run:
                raise _OnlyLooked
            failpoint("forget.decided")
    except _OnlyLooked:
        pass
    failpoint("forget.committed")
    assert done is not None  # noqa: S101 - any other way out raises
    return done


def forget_lines(
    history: Path, said: Iterable[str], matching: str = "", *, dry_run: bool = False
) -> int:
    """Take what was forgotten out of the lines that were typed in `chat`; how many.

    Lines go that are one of `said`, or hold `matching`. `history` is prompt_toolkit's file: a
    comment with the time, then the lines of what was typed, each after a plus sign.
    """
    wanted = {plain(text) for text in said}
    needle = plain(matching)
    try:
        lines = history.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except FileNotFoundError:
        return 0
    kept: list[str] = []
    removed = 0
    for typed, group in groupby(lines, key=lambda line: line.startswith("+")):
        block = list(group)
        text = plain("\n".join(line[1:] for line in block).removeprefix("/edit "))
        if typed and (text in wanted or (needle and needle in text)):
            removed += 1
        else:
            kept += block
    if removed and not dry_run:
        data = "\n".join(kept).encode("utf-8", errors="surrogateescape")
        atomic_write(history, data, 0o600)
    return removed


def _take(db: Db, conn: sqlite3.Connection, wanted: Wanted, taken: _Taken) -> None:
    documents, examples = list(wanted.documents), list(wanted.examples)
    if wanted.source is not None:
        rows = conn.execute(
            "SELECT id FROM documents WHERE source_id = ? AND state != 'forgotten'",
            (wanted.source,),
        )
        documents += [row["id"] for row in rows.fetchall()]
        # One that a newer reply has superseded is in that state, too, and has its text.
        rows = conn.execute(
            "SELECT id FROM examples WHERE source_id = ? AND reason != ?",
            (wanted.source, FORGOTTEN),
        )
        examples += [row["id"] for row in rows.fetchall()]
    for document_id in documents:
        examples += _forget_document(conn, document_id, taken)
    if wanted.matching:
        examples += _forget_matching(conn, wanted.matching, taken)
    # What answers the question of one of them anew repeats that question.
    rows = conn.execute(
        "WITH RECURSIVE anew(id) AS ("
        "  SELECT id FROM examples WHERE about IN (SELECT value FROM json_each(?))"
        "  UNION SELECT e.id FROM examples e JOIN anew ON e.about = anew.id"
        ") SELECT id FROM examples WHERE id IN (SELECT id FROM anew) AND reason != ?",
        (ids(examples), FORGOTTEN),
    )
    examples += [row["id"] for row in rows.fetchall()]
    _forget_examples(db, conn, examples, taken)


def _forget_document(conn: sqlite3.Connection, document_id: int, taken: _Taken) -> list[int]:
    """The file's row and passages; its examples, which are to go too, are returned."""
    found = conn.execute(
        "UPDATE documents SET state = 'forgotten', reason = '' WHERE id = ?"
        " RETURNING source_id, path",
        (document_id,),
    ).fetchone()
    if found is None:
        raise NotFound(f"there is no document {document_id}")
    taken.documents.add(document_id)
    conn.execute(
        "DELETE FROM quarantine WHERE source_id = ? AND path = ?",
        (found["source_id"], found["path"]),
    )
    source = conn.execute("SELECT path FROM sources WHERE id = ?", (found["source_id"],))
    taken.places.add((source.fetchone()["path"], found["path"]))
    _delete_chunks(conn, taken, "document_id = ?", (document_id,))
    rows = conn.execute(
        "SELECT id FROM examples WHERE document_id = ? AND reason != ?", (document_id, FORGOTTEN)
    )
    return [row["id"] for row in rows.fetchall()]


def _forget_examples(
    db: Db, conn: sqlite3.Connection, example_ids: Sequence[int], taken: _Taken
) -> None:
    """Examples, their passages, and later turns that quote them.

    A row without content stays for the lineage; its hash keeps the same line from coming back.
    """
    taken.examples |= set(example_ids)
    named = [e for n in dict.fromkeys(example_ids) if (e := get(db, n)).reason != FORGOTTEN]
    turns = [e.content["messages"][-2:] for e in named if e.kind == "exchange"]
    targets = {e.id for e in named} | _quoting(conn, turns)
    for target in targets:
        content = get(db, target).content
        prompt, reply = content["messages"], content.get("chosen")
        if reply is None:
            prompt, reply = prompt[:-1], prompt[-1]["content"]
        taken.said |= {prompt[-1]["content"], reply, content.get("rejected", reply)}
        for text in exchange_texts(Exchange(0, tuple(prompt), reply)):
            _delete_chunks(conn, taken, "substr(text, 1, 64) = ? AND text = ?", (text[:64], text))
    conn.execute(
        "UPDATE examples SET state = 'forgotten', reason = ?, content = '{}', prompt_sha256 = ''"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (FORGOTTEN, ids(targets)),
    )
    taken.examples |= targets


def _quoting(conn: sqlite3.Connection, turns: Sequence[list[Message]]) -> set[int]:
    """Examples with one of these turns (a question, its reply): alone, or in their conversation."""
    if not turns:
        return set()
    alone = [Exchange(0, (asked,), reply["content"]).sha256() for asked, reply in turns]
    rows = conn.execute(
        "SELECT id FROM examples WHERE sha256 IN (SELECT value FROM json_each(?))",
        (json.dumps(alone),),
    )
    found = {row["id"] for row in rows.fetchall()}
    quoted = {canonical(turn) for turn in turns}
    rows = conn.execute(
        "SELECT id, content FROM examples INDEXED BY examples_in_conversation"
        " WHERE json_array_length(content, '$.messages') > 2"
    )
    for row in rows:
        if any(
            canonical(turn) in quoted for turn in pairwise(json.loads(row["content"])["messages"])
        ):
            found.add(row["id"])
    return found


def _forget_matching(conn: sqlite3.Connection, text: str, taken: _Taken) -> list[int]:
    """Passages that hold a text anywhere. The examples that do, and what was made of the passages,
    are returned."""
    needle = plain(text)
    rows = conn.execute("SELECT id, content FROM examples WHERE reason != ?", (FORGOTTEN,))
    found = [row["id"] for row in rows if _holds(json.loads(row["content"]), needle)]
    for together in _matching_chunks(conn, needle):
        hidden.hide(conn, together[0]["document_id"], [c["text"] for c in together], text)
        for chunk in together:
            _delete_chunks(conn, taken, "id = ?", (chunk["id"],))
            found += _learned_from(conn, chunk)
    return found


def _holds(content: dict[str, Any], needle: str) -> bool:
    said = [message["content"] for message in content["messages"]]
    said += [content.get("chosen", ""), content.get("rejected", "")]
    return any(needle in plain(text) for text in said)


def _matching_chunks(conn: sqlite3.Connection, needle: str) -> list[list[sqlite3.Row]]:
    """Chunks that hold the text, each alone, and neighbours that hold it across their cut."""
    rows = conn.execute(
        "SELECT c.id, c.document_id, c.text, c.start_line, c.end_line, d.path, s.kind"
        " FROM chunks c JOIN documents d ON d.id = c.document_id"
        " JOIN sources s ON s.id = d.source_id ORDER BY c.document_id, c.ordinal"
    )
    alone: list[list[sqlite3.Row]] = []
    across: list[list[sqlite3.Row]] = []
    before: sqlite3.Row | None = None  # where it does not hold the text itself
    end = ""
    for row in rows:
        text = plain(row["text"])
        if needle in text:
            alone.append([row])
            before = None
            continue
        if (
            before is not None
            and before["document_id"] == row["document_id"]
            and needle in f"{end} {text[: len(needle)]}"
        ):
            across.append([before, row])
        before, end = row, text[-len(needle) :]
    return [*alone, *across]


def _learned_from(conn: sqlite3.Connection, chunk: sqlite3.Row) -> list[int]:
    """Examples that were made from a note's passage: they stand at its lines, or at none."""
    chats = ("chat", "manual") if chunk["path"].lower().endswith(CHAT_SUFFIXES) else ("chat",)
    if chunk["kind"] in chats:
        return []
    rows = conn.execute(
        "SELECT id FROM examples WHERE document_id = ? AND reason != ?"
        " AND (line IS NULL OR line BETWEEN ? AND ?)",
        (chunk["document_id"], FORGOTTEN, chunk["start_line"], chunk["end_line"]),
    )
    return [row["id"] for row in rows.fetchall()]


def _delete_chunks(
    conn: sqlite3.Connection, taken: _Taken, where: str, values: tuple[object, ...]
) -> None:
    rows = conn.execute(
        f"DELETE FROM chunks WHERE {where} RETURNING id, text",  # noqa: S608
        values,
    )
    taken.chunks |= {row["id"]: row["text"] for row in rows.fetchall()}


def _counts(
    documents: Sequence[int],
    examples: Sequence[int],
    chunks: Sequence[int],
    said: Sequence[int],
) -> dict[str, int]:
    kinds = ("documents", "examples", "passages", "messages", "feedback", "lines")
    numbers = (len(documents), len(examples), len(chunks), *said)
    return dict(zip(kinds, numbers, strict=True))
