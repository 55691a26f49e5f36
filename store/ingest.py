"""The one place that turns a file into rows: document, chunks, examples, bad lines.

Knows no embedding, no watcher and no clock but the one that it writes down.
"""

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from acclimate.store import buffer, extract, sources, studied
from acclimate.store.chats import BadLine, Exchange, parse_chat
from acclimate.store.chunk import NOTE_SUFFIXES, Chunk, chunk_exchanges, chunk_text
from acclimate.store.curate import RULES, tidy_exchanges, tidy_text
from acclimate.store.db import Db
from acclimate.store.errors import SourceError
from acclimate.store.extract import MAX_FILE_BYTES, Missing, Raw, Refused
from acclimate.store.files import failpoint
from acclimate.store.hidden import visible
from acclimate.store.sources import Source

CHAT_SUFFIXES = (".jsonl", ".ndjson", ".json")
# FAT's times have steps of 2 s: a file that had changed less than this before it was read may have
# changed again since, with the same time and size.
_RACY_SECONDS = 2.0

Outcome = Literal[
    "added", "changed", "renamed", "unchanged", "refused", "gone", "forgotten", "unreachable"
]


@dataclass(frozen=True)
class IngestResult:
    path: str
    outcome: Outcome
    document_id: int | None = None
    chunks: int = 0
    examples: int = 0  # new ones
    bad_lines: int = 0
    redacted: int = 0  # secrets that were taken out
    reason: str = ""


@dataclass(frozen=True)
class Prepared:
    """A file, read, rid of secrets and cut up, before the database is asked."""

    path: str
    read_at: float
    raw: Raw | None
    device: int | None  # given where the file is on a mount below its source
    chunks: Sequence[Chunk] = ()
    exchanges: Sequence[Exchange] = ()
    bad_lines: Sequence[BadLine] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)  # secrets by kind
    originals: Mapping[str, str] = field(default_factory=dict)  # see curate.Tidied
    refused: Refused | None = None


def ingest_file(
    db: Db, source: Source, relative: str, *, max_file_bytes: int = MAX_FILE_BYTES
) -> IngestResult:
    """Bring the rows of one file up to date, in one transaction.

    A file that is not there is gone, but only if its source's folder is there. One that looks as
    it did is not opened, so that no reading can be taken for a change.
    """
    if source.device == sources.ELSEWHERE:
        return IngestResult(relative, "unreachable")
    try:
        found = (source.path / relative).lstat()
        known = sources.find_document(db, source.id, relative)
    except (OSError, ValueError):
        known = None
    if known is not None and looks_same(known, found.st_size, found.st_mtime_ns):
        outcome: Outcome = "unchanged" if known.state == "ok" else known.state
        return IngestResult(relative, outcome, known.id, reason=known.reason)
    try:
        prepared = prepare(source, relative, max_file_bytes)
    except Missing:
        if root_device(db, source) is None:
            return IngestResult(relative, "unreachable")
        return IngestResult(
            relative, "gone" if mark_gone(db, source.id, [relative]) else "unchanged"
        )
    return store(db, source, [prepared])[0]


def add_bytes(
    db: Db, name: str, data: bytes, *, max_file_bytes: int = MAX_FILE_BYTES
) -> IngestResult:
    """Take one file, or standard input, that the person hands over (`acclimate add`).

    `name` decides what it is: JSON Lines are chats, the rest notes or code. What was forgotten
    under this name before is welcome again.
    """
    source = sources.manual_source(db)
    if len(data) > max_file_bytes:
        refused = Refused(f"larger than {max_file_bytes / 1e6:g} MB")
        return store(db, source, [Prepared(name, time.time(), None, None, refused=refused)])[0]
    raw = Raw(data, hashlib.sha256(data).hexdigest(), len(data), time.time_ns())
    with db.write() as conn:
        conn.execute(
            "DELETE FROM documents WHERE source_id = ? AND path = ? AND state = 'forgotten'",
            (source.id, name),
        )
        return store(db, source, [_cut(source, Prepared(name, time.time(), raw, None), raw)])[0]


def mark_gone(db: Db, source_id: int, paths: Iterable[str]) -> int:
    """Take files that are no longer there out of retrieval; their examples stay."""
    count = 0
    with db.write() as conn:
        for path in paths:
            row = conn.execute(
                "UPDATE documents SET state = 'gone', reason = '', sha256 = NULL, mtime_ns = NULL"
                " WHERE source_id = ? AND path = ? AND state IN ('ok', 'refused') RETURNING id",
                (source_id, path),
            ).fetchone()
            if row is None:
                continue
            conn.execute("DELETE FROM chunks WHERE document_id = ?", (row["id"],))
            conn.execute(
                "DELETE FROM quarantine WHERE source_id = ? AND path = ?", (source_id, path)
            )
            count += 1
        failpoint("ingest.gone")
    return count


def root_device(db: Db, source: Source) -> int | None:
    """st_dev of the source's folder; None when it is missing or something else is in its place."""
    expected = sources.get_source(db, source.id).device
    if expected == sources.ELSEWHERE:
        return None
    try:
        found = source.path.lstat()
        with os.scandir(source.path):
            pass
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    device = found.st_dev
    if expected is None or device == expected:
        return device
    # Another device: an unmounted folder, another stick, or only a number given at this start.
    # If it holds anything we know, it is ours.
    known = sources.documents(db, source.id, "ok")
    if known and not any((source.path / d.path).exists() for d in known):
        return None
    return device


def looks_same(document: sources.Document, size: int, mtime_ns: int) -> bool:
    """Whether a file need not be read again: size and time are those of the last reading.

    What was read under older rules is read once more.
    """
    if document.state == "gone" or (document.size, document.mtime_ns) != (size, mtime_ns):
        return False
    if document.rules != RULES:
        return False
    return document.seen_at - mtime_ns / 1e9 > _RACY_SECONDS


def prepare(
    source: Source,
    relative: str,
    max_file_bytes: int,
    device: int | None = None,
    problem: str = "",
) -> Prepared:
    """Read a file and cut it up; what is wrong with it is part of the result. Raises Missing."""
    read_at = time.time()
    try:
        if problem:
            raise Refused(problem)
        raw = extract.read_file(source.path, relative, max_file_bytes)
    except Refused as e:
        return Prepared(relative, read_at, None, device, refused=e)
    failpoint("ingest.read")
    return _cut(source, Prepared(relative, read_at, raw, device), raw)


def _cut(source: Source, prepared: Prepared, raw: Raw) -> Prepared:
    suffix = PurePosixPath(prepared.path).suffix.lower()
    try:
        if source.kind == "chat" or (source.kind == "manual" and suffix in CHAT_SUFFIXES):
            if suffix not in CHAT_SUFFIXES:
                raise Refused("not JSON Lines: a chat file ends in .jsonl", raw.size, raw.mtime_ns)
            exchanges, bad = parse_chat(raw.data)
            if bad and not exchanges and b"\0" in raw.data:
                raise Refused("binary, not JSON Lines", raw.size, raw.mtime_ns)
            tidied = tidy_exchanges(exchanges)
            return replace(
                prepared,
                exchanges=tidied.exchanges,
                bad_lines=bad,
                redacted=tidied.found,
                originals=tidied.originals,
            )
        code = source.kind == "code" or (source.kind == "manual" and suffix not in NOTE_SUFFIXES)
        text = extract.decode(raw)
        if code and suffix in NOTE_SUFFIXES[1:]:
            code = False
        safe = tidy_text(text, code=code)
        chunks = chunk_text(safe.text, "code" if code else "notes")
        return replace(prepared, chunks=chunks, redacted=safe.found)
    except Refused as e:
        return replace(prepared, refused=e)


def store(db: Db, source: Source, batch: Sequence[Prepared]) -> list[IngestResult]:
    """Write what became of some files, in one transaction. Raises SourceError if not watched."""
    if not batch:
        return []
    with db.write() as conn:
        if sources.get_source(db, source.id).state == "removed":
            raise SourceError(f"{source.path} is no longer watched")
        results = [_store_one(db, conn, source, prepared) for prepared in batch]
        failpoint("ingest.stored")
    return results


def _store_one(
    db: Db, conn: sqlite3.Connection, source: Source, prepared: Prepared
) -> IngestResult:
    path = prepared.path
    row = conn.execute(
        "SELECT * FROM documents WHERE source_id = ? AND path = ?", (source.id, path)
    ).fetchone()
    if row is not None and row["state"] == "forgotten":
        if prepared.raw is not None:
            conn.execute(
                "UPDATE documents SET size = ?, mtime_ns = ?, seen_at = ?, rules = ? WHERE id = ?",
                (prepared.raw.size, prepared.raw.mtime_ns, prepared.read_at, RULES, row["id"]),
            )
        return IngestResult(path, "forgotten", row["id"])
    if prepared.refused is not None or prepared.raw is None:
        return _refuse(conn, source, prepared, row)
    raw = prepared.raw
    outcome: Outcome = "changed"
    if row is None or row["state"] == "gone":
        other = _same_content(conn, source, path, raw)
        if other is not None and other["state"] == "forgotten":
            document_id = _upsert(conn, source, prepared, "forgotten", "")
            return IngestResult(path, "forgotten", document_id)
        outcome = "added"
        if other is not None:
            if row is not None:
                conn.execute(
                    "UPDATE examples SET document_id = ? WHERE document_id = ?",
                    (other["id"], row["id"]),
                )
                conn.execute("DELETE FROM documents WHERE id = ?", (row["id"],))
            conn.execute("UPDATE documents SET path = ? WHERE id = ?", (path, other["id"]))
            conn.execute(
                "UPDATE quarantine SET path = ? WHERE source_id = ? AND path = ?",
                (path, source.id, other["path"]),
            )
            outcome, row = "renamed", other
    unchanged = (
        row is not None
        and (row["state"], row["sha256"], row["rules"]) == ("ok", raw.sha256, RULES)
    )  # fmt: skip
    document_id = _upsert(conn, source, prepared, "ok", "")
    failpoint("ingest.document")
    if unchanged:
        return IngestResult(path, outcome if outcome == "renamed" else "unchanged", document_id)
    chunks = prepared.chunks
    if prepared.exchanges:
        buffer.follow_rewrites(conn, prepared.exchanges, prepared.originals)
        hidden = buffer.forgotten(db, prepared.exchanges)
        exchanges = [e for e in prepared.exchanges if not hidden or e.sha256() not in hidden]
        chunks = chunk_exchanges(exchanges)
    chunks = visible(conn, document_id, chunks)
    _replace_chunks(conn, document_id, chunks)
    failpoint("ingest.chunks")
    added = buffer.add_document_examples(db, source.id, document_id, prepared.exchanges)
    _replace_quarantine(conn, source.id, path, prepared.bad_lines)
    failpoint("ingest.quarantine")
    return IngestResult(
        path,
        outcome,
        document_id,
        len(chunks),
        added.new,
        len(prepared.bad_lines),
        sum(prepared.redacted.values()),
    )


def _same_content(
    conn: sqlite3.Connection, source: Source, path: str, raw: Raw
) -> sqlite3.Row | None:
    """A document of equal content that was forgotten, or whose file is no longer at its path."""
    rows = conn.execute(
        "SELECT * FROM documents WHERE source_id = ? AND sha256 = ? AND path != ?"
        " AND state IN ('ok', 'forgotten') ORDER BY state = 'forgotten' DESC, id",
        (source.id, raw.sha256, path),
    ).fetchall()
    for row in rows:
        if row["state"] == "forgotten":
            return row  # type: ignore[no-any-return]
        if source.kind != "manual" and not os.path.lexists(source.path / row["path"]):
            return row  # type: ignore[no-any-return]
    return None


def _refuse(
    conn: sqlite3.Connection, source: Source, prepared: Prepared, row: sqlite3.Row | None
) -> IngestResult:
    refused = prepared.refused or Refused("not read")
    if row is not None and row["state"] == "ok" and refused.mtime_ns is None:
        # It may pass by itself (a drive being pulled out, say): what was read before still counts.
        conn.execute(
            "UPDATE documents SET reason = ?, mtime_ns = NULL WHERE id = ?",
            (refused.message, row["id"]),
        )
        return IngestResult(prepared.path, "refused", row["id"], reason=refused.message)
    document_id = _upsert(conn, source, prepared, "refused", refused.message)
    conn.execute("DELETE FROM chunks WHERE document_id = ?", (document_id,))
    _replace_quarantine(conn, source.id, prepared.path, ())
    return IngestResult(prepared.path, "refused", document_id, reason=refused.message)


def _upsert(
    conn: sqlite3.Connection, source: Source, prepared: Prepared, state: str, reason: str
) -> int:
    at: Raw | Refused | None = prepared.raw or prepared.refused
    row = conn.execute(
        "INSERT INTO documents(source_id, path, sha256, size, mtime_ns, device, state, reason,"
        " seen_at, rules, redacted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT(source_id, path) DO UPDATE SET"
        " sha256 = excluded.sha256, size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " device = excluded.device, state = excluded.state, reason = excluded.reason,"
        " seen_at = excluded.seen_at, rules = excluded.rules, redacted = excluded.redacted"
        " RETURNING id",
        (
            source.id,
            prepared.path,
            prepared.raw.sha256 if prepared.raw else None,
            at.size if at else None,
            at.mtime_ns if at else None,
            prepared.device,
            state,
            reason,
            prepared.read_at,
            RULES,
            json.dumps(prepared.redacted),
        ),
    ).fetchone()
    return int(row["id"])


def _replace_chunks(conn: sqlite3.Connection, document_id: int, chunks: Sequence[Chunk]) -> None:
    """A chunk whose text stays keeps its row and so its vector: an appended log costs one chunk."""
    old: defaultdict[str, list[int]] = defaultdict(list)
    for row in conn.execute(
        "SELECT id, text FROM chunks WHERE document_id = ? AND derived_from IS NULL"
        " ORDER BY ordinal DESC",
        (document_id,),
    ).fetchall():
        old[row["text"]].append(row["id"])
    conn.execute(
        "UPDATE chunks SET ordinal = -1 - ordinal WHERE document_id = ? AND derived_from IS NULL",
        (document_id,),
    )
    for chunk in chunks:
        lines = (chunk.ordinal, chunk.start_line, chunk.end_line)
        if old[chunk.text]:
            conn.execute(
                "UPDATE chunks SET ordinal = ?, start_line = ?, end_line = ? WHERE id = ?",
                (*lines, old[chunk.text].pop()),
            )
        else:
            conn.execute(
                "INSERT INTO chunks(ordinal, start_line, end_line, text, document_id)"
                " VALUES (?, ?, ?, ?, ?)",
                (*lines, chunk.text, document_id),
            )
    studied.drop_chunks(conn, "document_id = ? AND ordinal < 0", (document_id,))


def _replace_quarantine(
    conn: sqlite3.Connection, source_id: int, path: str, bad_lines: Sequence[BadLine]
) -> None:
    conn.execute("DELETE FROM quarantine WHERE source_id = ? AND path = ?", (source_id, path))
    conn.executemany(
        "INSERT INTO quarantine(source_id, path, line, reason, at) VALUES (?, ?, ?, ?, ?)",
        [(source_id, path, bad.line, bad.reason, time.time()) for bad in bad_lines],
    )
