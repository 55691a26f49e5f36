"""The one place that turns a file into rows: document, chunks, examples, bad lines.

Knows no embedding, no watcher and no clock but the one that it writes down.
"""

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from acclimate.store import buffer, place, sources
from acclimate.store.chats import BadLine
from acclimate.store.chunk import Chunk, chunk_exchanges
from acclimate.store.curate import RULES
from acclimate.store.db import Db
from acclimate.store.errors import SourceError
from acclimate.store.extract import MAX_FILE_BYTES, Missing, Raw, Refused
from acclimate.store.files import failpoint
from acclimate.store.hidden import visible
from acclimate.store.prepare import Prepared, cut, prepare
from acclimate.store.sources import Source

# FAT's times have steps of 2 s: a file that had changed less than this before it was read may have
# changed again since, with the same time and size.
_RACY_SECONDS = 2.0
PART = 100  # examples or chunks in one transaction, some 0.1 s
_GAP_SECONDS = 0.001
T = TypeVar("T")

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


def ingest_file(
    db: Db, source: Source, relative: str, *, max_file_bytes: int = MAX_FILE_BYTES
) -> IngestResult:
    """Bring the rows of one file up to date.

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
    prepared = cut(source, Prepared(name, time.time(), raw, None), raw)
    with db.write() as conn:
        conn.execute(
            "DELETE FROM documents WHERE source_id = ? AND path = ? AND state = 'forgotten'",
            (source.id, name),
        )
    return store(db, source, [prepared])[0]


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


def store(db: Db, source: Source, batch: Iterable[Prepared]) -> list[IngestResult]:
    """Write what became of some files; each is kept whole or read again.

    No transaction is longer than PART examples or chunks, so that others can write between: small
    files share one, a large one takes several. Raises SourceError if the source is not watched.
    """
    results: list[IngestResult] = []
    for group in _groups(batch):
        if _size(group[0]) > PART:
            results.append(_store_large(db, source, group[0]))
            continue
        with db.write() as conn:
            _check_watched(db, source)
            results += [_store_one(db, conn, source, prepared) for prepared in group]
            failpoint("ingest.stored")
    return results


def _size(prepared: Prepared) -> int:
    return len(prepared.chunks) + len(prepared.exchanges)


def _groups(batch: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    group: list[Prepared] = []
    for prepared in batch:
        if group and sum(map(_size, group)) + _size(prepared) > PART:
            yield group
            group = []
        group.append(prepared)
    if group:
        yield group


def _check_watched(db: Db, source: Source) -> None:
    if sources.get_source(db, source.id).state == "removed":
        raise SourceError(f"{source.path} is no longer watched")


@dataclass(frozen=True)
class _Begun:
    """A document whose content is to be written."""

    id: int
    outcome: Outcome

    def result(self, prepared: Prepared, chunks: int, examples: int) -> IngestResult:
        bad_lines, redacted = len(prepared.bad_lines), sum(prepared.redacted.values())
        return IngestResult(
            prepared.path, self.outcome, self.id, chunks, examples, bad_lines, redacted
        )


def _store_one(
    db: Db, conn: sqlite3.Connection, source: Source, prepared: Prepared
) -> IngestResult:
    begun = _begin(conn, source, prepared, whole=True)
    if isinstance(begun, IngestResult):
        return begun
    chunks = _visible(db, conn, begun.id, prepared)
    old = place.rows_of(conn, begun.id)
    place.place(conn, begun.id, chunks, old)
    place.drop(conn, [row for rows in old.values() for row in rows])
    failpoint("ingest.chunks")
    added = buffer.add_document_examples(db, source.id, begun.id, prepared.exchanges)
    _replace_quarantine(conn, source.id, prepared.path, prepared.bad_lines)
    failpoint("ingest.quarantine")
    return begun.result(prepared, len(chunks), added.new)


def _store_large(db: Db, source: Source, prepared: Prepared) -> IngestResult:
    """A file in several transactions. Until the last its row says that it was not read: cut short,
    it is read again, and what is there already stays.

    Begins again when something was forgotten meanwhile, and ends early when the file was.
    """
    new = 0
    begun: _Begun | None = None
    last = buffer.last_replies(prepared.exchanges)
    while True:
        with db.write() as conn:
            _check_watched(db, source)
            found = _begin(conn, source, prepared, whole=False)
            if isinstance(found, IngestResult):
                return found
            begun = begun or found
            part = _Part(db, source, found.id, prepared.read_at, _forgettings(conn))
            chunks = _visible(db, conn, found.id, prepared)
            left = place.rows_of(conn, found.id)
        try:
            for some in _cut_up(chunks):
                with part.write() as conn:
                    place.place(conn, found.id, some, left)
            for gone in _cut_up([row for rows in left.values() for row in rows]):
                with part.write() as conn:
                    place.drop(conn, gone)
            for exchanges in _cut_up(last):
                with part.write() as conn:
                    new += buffer.add_document_examples(db, source.id, found.id, exchanges).new
            with part.write() as conn:
                _replace_quarantine(conn, source.id, prepared.path, prepared.bad_lines)
                _upsert(conn, source, prepared, "ok", "")
        except _ForgotMeanwhile:
            continue
        except _Overtaken:
            pass
        return begun.result(prepared, len(chunks), new)


class _ForgotMeanwhile(Exception):
    """Something was: perhaps what is about to be written."""


class _Overtaken(Exception):
    """The document was read again, or its file is gone."""


@dataclass(frozen=True)
class _Part:
    """The transactions of a large file, for as long as nobody else has a hand in its document."""

    db: Db
    source: Source
    document_id: int
    read_at: float
    forgettings: int

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        with self.db.write() as conn:
            _check_watched(self.db, self.source)
            if _forgettings(conn) != self.forgettings:
                raise _ForgotMeanwhile
            ours = conn.execute(
                "SELECT 1 FROM documents WHERE id = ? AND state = 'ok' AND sha256 IS NULL"
                " AND seen_at = ?",
                (self.document_id, self.read_at),
            )
            if ours.fetchone() is None:
                raise _Overtaken
            yield conn
            failpoint("ingest.part")
        time.sleep(_GAP_SECONDS)  # or who waits for the lock would not get it: it is not fair


def _cut_up(many: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(many), PART):
        yield many[start : start + PART]


def _forgettings(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT coalesce(max(id), 0) FROM receipts").fetchone()[0])


def _visible(db: Db, conn: sqlite3.Connection, document_id: int, prepared: Prepared) -> list[Chunk]:
    """The chunks of a file, without what was forgotten."""
    chunks = prepared.chunks
    if prepared.exchanges:
        buffer.follow_rewrites(conn, prepared.exchanges, prepared.originals)
        hidden = buffer.forgotten(db, prepared.exchanges)
        chunks = chunk_exchanges([e for e in prepared.exchanges if e.sha256() not in hidden])
    return visible(conn, document_id, chunks)


def _begin(
    conn: sqlite3.Connection, source: Source, prepared: Prepared, *, whole: bool
) -> _Begun | IngestResult:
    """The row of a file's document; a result where there is nothing more to write.

    `whole` says that its content follows in the same transaction.
    """
    path = prepared.path
    row = conn.execute(
        "SELECT * FROM documents WHERE source_id = ? AND path = ?", (source.id, path)
    ).fetchone()
    if row is not None and row["state"] == "forgotten":
        if (raw := prepared.raw) is not None:
            conn.execute(
                "UPDATE documents SET sha256 = coalesce(sha256, ?), size = ?, mtime_ns = ?,"
                " seen_at = ?, rules = ? WHERE id = ?",
                (raw.sha256, raw.size, raw.mtime_ns, prepared.read_at, RULES, row["id"]),
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
    read = prepared if whole or unchanged else replace(prepared, raw=None)
    document_id = _upsert(conn, source, read, "ok", "")
    failpoint("ingest.document")
    if unchanged:
        return IngestResult(path, outcome if outcome == "renamed" else "unchanged", document_id)
    return _Begun(document_id, outcome)


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


def _replace_quarantine(
    conn: sqlite3.Connection, source_id: int, path: str, bad_lines: Sequence[BadLine]
) -> None:
    conn.execute("DELETE FROM quarantine WHERE source_id = ? AND path = ?", (source_id, path))
    conn.executemany(
        "INSERT INTO quarantine(source_id, path, line, reason, at) VALUES (?, ?, ?, ?, ?)",
        [(source_id, path, bad.line, bad.reason, time.time()) for bad in bad_lines],
    )
