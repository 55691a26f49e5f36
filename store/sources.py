"""The folders that the person told us to watch, and what was made of their files.

Knows no file contents.
"""

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from acclimate.store.db import Db, ids
from acclimate.store.errors import NotFound, SourceError
from acclimate.store.files import MARKER
from acclimate.store.studied import study_again
from acclimate.store.walk import check_patterns

Kind = Literal["notes", "chat", "code", "manual"]
_MANUAL = "manual:"
# In place of a device: the folder is on another computer, and one of the same path here is another
# one. Watching it again makes it ours.
ELSEWHERE = -1


@dataclass(frozen=True)
class Source:
    id: int
    path: Path  # absolute; of the manual source a name only
    kind: Kind
    trust: str
    patterns: tuple[str, ...]  # what to leave out, as in .gitignore
    state: Literal["ok", "missing", "removed"]
    device: int | None  # st_dev of the folder when it was last scanned, or ELSEWHERE
    added_at: float


@dataclass(frozen=True)
class Document:
    id: int
    source_id: int
    path: str  # posix, relative to its source
    sha256: str | None
    size: int | None
    mtime_ns: int | None
    device: int | None  # where it is a mount below the source
    state: Literal["ok", "refused", "gone", "forgotten"]
    reason: str
    seen_at: float
    rules: int  # curate.RULES when it was read
    redacted: dict[str, int]  # secrets that were taken out of it, by kind


@dataclass(frozen=True)
class Quarantined:
    source_id: int
    path: str
    line: int
    reason: str
    at: float


def add_source(
    db: Db, path: Path, kind: Kind, patterns: Sequence[str] = (), *, relative: bool = False
) -> Source:
    """Watch a folder. `relative` (portable homes) stores a path on the home's own drive so.

    Adding a folder again changes its kind and patterns. Raises SourceError, ValueError.
    """
    if kind not in get_args(Kind) or kind == "manual":
        raise ValueError(f"a source holds notes, chat or code, not {kind!r}")
    check_patterns(patterns)
    root = path.expanduser().resolve()
    if not root.is_dir():
        hint = "for one file use: acclimate add FILE" if root.exists() else "check the path"
        raise SourceError(f"{path} is not a folder", hint)
    if root == root.parent:
        raise SourceError("the whole disk is too much to watch", "watch the folders that you mean")
    if any((folder / MARKER).exists() for folder in (root, *root.parents)):
        raise SourceError(f"{path} is inside an Acclimate home", "watch a folder outside of it")
    try:
        root.as_posix().encode()
    except UnicodeEncodeError:
        raise SourceError(f"the name of {path!r} is not UTF-8", "rename the folder") from None
    device = root.stat().st_dev
    stored = root.as_posix()
    if relative and device == db.folder.stat().st_dev:
        stored = os.path.relpath(root, db.folder.resolve())
    with db.write() as conn:
        before = conn.execute("SELECT id, kind FROM sources WHERE path = ?", (stored,)).fetchone()
        if before is not None and before["kind"] != kind:
            study_again(conn, before["id"])
        conn.execute(
            "INSERT INTO sources(path, kind, patterns, device, added_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT(path) DO UPDATE SET kind = excluded.kind, patterns = excluded.patterns,"
            " device = excluded.device, state = 'ok'",
            (stored, kind, json.dumps(list(patterns)), device, time.time()),
        )
        row = conn.execute("SELECT * FROM sources WHERE path = ?", (stored,)).fetchone()
    return _source(db, row)


def manual_source(db: Db) -> Source:
    """The source of what `acclimate add` was given: never scanned."""
    with db.write() as conn:
        conn.execute(
            "INSERT OR IGNORE INTO sources(path, kind, added_at) VALUES (?, 'manual', ?)",
            (_MANUAL, time.time()),
        )
        row = conn.execute("SELECT * FROM sources WHERE path = ?", (_MANUAL,)).fetchone()
    return _source(db, row)


def remove_source(db: Db, source_id: int) -> None:
    """Stop watching: its documents leave retrieval, its examples stay until forgotten."""
    get_source(db, source_id)
    with db.write() as conn:
        conn.execute("DELETE FROM quarantine WHERE source_id = ?", (source_id,))
        conn.execute(
            "DELETE FROM documents WHERE source_id = ? AND state != 'forgotten'", (source_id,)
        )
        conn.execute("UPDATE sources SET state = 'removed' WHERE id = ?", (source_id,))


def list_sources(db: Db) -> list[Source]:
    """The watched folders, in the order they were added."""
    rows = db.read().execute(
        "SELECT * FROM sources WHERE state != 'removed' AND kind != 'manual' ORDER BY id"
    )
    return [_source(db, row) for row in rows.fetchall()]


def get_source(db: Db, source_id: int) -> Source:
    """One source, removed or not. Raises NotFound."""
    row = db.read().execute("SELECT * FROM sources WHERE id = ?", (source_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no source {source_id}", "see: acclimate watch list")
    return _source(db, row)


def find_source(db: Db, path: Path) -> Source | None:
    """The source of a folder, also of one that is watched no longer."""
    found = [_source(db, row) for row in db.read().execute("SELECT * FROM sources").fetchall()]
    return next((s for s in found if s.path == path and s.kind != "manual"), None)


def set_state(
    db: Db, source_id: int, state: Literal["ok", "missing"], device: int | None = None
) -> None:
    """Note whether a source's folder is there, and on which device."""
    source = get_source(db, source_id)
    if source.state == state and device in (None, source.device):
        return
    with db.write() as conn:
        conn.execute(
            "UPDATE sources SET state = ?, device = coalesce(?, device)"
            " WHERE id = ? AND state != 'removed'",
            (state, device, source_id),
        )


def documents(
    db: Db,
    source_id: int | None = None,
    state: Literal["ok", "refused", "gone", "forgotten"] | None = None,
    limit: int | None = None,
) -> list[Document]:
    """Documents by id; `status` shows the refused ones with their reasons."""
    rows = db.read().execute(
        "SELECT * FROM documents WHERE (:source IS NULL OR source_id = :source)"
        " AND (:state IS NULL OR state = :state) ORDER BY id LIMIT :limit",
        {"source": source_id, "state": state, "limit": -1 if limit is None else limit},
    )
    return [_document(row) for row in rows.fetchall()]


def find_document(db: Db, source_id: int, path: str) -> Document | None:
    """The document at a path of a source, as it was last read."""
    row = (
        db.read()
        .execute("SELECT * FROM documents WHERE source_id = ? AND path = ?", (source_id, path))
        .fetchone()
    )
    return None if row is None else _document(row)


def find_documents(db: Db, path: Path) -> list[Document]:
    """Documents that a path names: a file, a folder's files, or a manual entry's name."""
    wanted = path.expanduser().resolve()
    found = []
    rows = db.read().execute("SELECT * FROM sources").fetchall()
    by_id = {row["id"]: _source(db, row) for row in rows}
    for document in documents(db):
        source = by_id[document.source_id]
        if source.kind == "manual":
            if document.path in (str(path), wanted.as_posix()):
                found.append(document)
        elif (source.path / document.path).is_relative_to(wanted):
            found.append(document)
    return found


def redacted_by_source(
    db: Db, document_ids: Iterable[int] | None = None
) -> dict[int, dict[str, int]]:
    """Secrets that were taken out of the documents (None: of all), by source and kind."""
    rows = db.read().execute(
        "SELECT d.source_id, j.key, sum(j.value) AS n FROM documents d, json_each(d.redacted) j"
        " WHERE d.state = 'ok' AND d.redacted != '{}'"
        " AND (:ids IS NULL OR d.id IN (SELECT value FROM json_each(:ids)))"
        " GROUP BY 1, 2 ORDER BY 1, 2",
        {"ids": None if document_ids is None else ids(document_ids)},
    )
    found: dict[int, dict[str, int]] = {}
    for row in rows.fetchall():
        found.setdefault(row["source_id"], {})[row["key"]] = row["n"]
    return found


def redacted(db: Db, document_ids: Iterable[int] | None = None) -> dict[str, int]:
    """The same by kind only."""
    found: Counter[str] = Counter()
    for kinds in redacted_by_source(db, document_ids).values():
        found.update(kinds)
    return dict(sorted(found.items()))


def quarantined(db: Db, limit: int = 50) -> list[Quarantined]:
    """The latest lines that could not be used, newest first."""
    rows = db.read().execute(
        "SELECT source_id, path, line, reason, at FROM quarantine ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [Quarantined(**dict(row)) for row in rows.fetchall()]


def _document(row: sqlite3.Row) -> Document:
    return Document(**{**dict(row), "redacted": json.loads(row["redacted"])})


def _source(db: Db, row: sqlite3.Row) -> Source:
    path = Path(row["path"])
    if row["kind"] != "manual" and not path.is_absolute():
        path = (db.folder / path).resolve()
    fields = {**dict(row), "path": path, "patterns": tuple(json.loads(row["patterns"]))}
    return Source(**fields)
