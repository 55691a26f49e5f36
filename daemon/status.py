"""Everything that `status` shows on one screen, as one JSON-able dict.

Asks the parts that it is given; changes nothing.
"""

import os
import sqlite3
import time
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import psutil

from acclimate.daemon import history, probation
from acclimate.daemon.token import token_file
from acclimate.store import buffer, inquiries, ledger, receipts, sources
from acclimate.store.db import Db

if TYPE_CHECKING:
    from acclimate.daemon.core import Core

LATEST = 20


def program_version() -> str:
    """The installed distribution's version, "unknown" when it runs from a bare checkout."""
    try:
        return metadata.version("acclimate")
    except metadata.PackageNotFoundError:
        return "unknown"


def status(core: "Core") -> dict[str, Any]:
    """What the daemon is doing; of a home whose daemon does not run, what the store says."""
    db = core.db
    rounds = ledger.rounds(db, limit=1)
    token = token_file(core.home)
    return {
        "daemon": _daemon(core),
        "home": {
            "path": str(core.home.root),
            "portable": core.home.portable,
            "attached": core.home.attached(),
        },
        "token_file": str(token) if token else None,
        "models": {"base": core.config.models.base, "embedder": core.config.models.embedder},
        "live": history.name_of(ledger.live(db)),
        "pinned": ledger.pinned(db),
        "probation": probation.state(db, core.config.probation),
        "notice": history.notice(db),
        "engine": core.engine.stats() if core.engine else None,
        "examples": dict(buffer.counts(db)),
        "routes": dict(buffer.routes(db)),
        "held_back": buffer.held_back(db),
        "redacted": sources.redacted(db),
        "sources": source_list(db),
        "documents": _documents(db),
        "refused": _refused(db),
        "quarantined": quarantined(db, LATEST),
        "index": {"size": core.index.size, "pending": _pending(db)},
        "study": _study(core),
        "round": core.rounds.current() if core.rounds else None,
        "last_round": history.round_of(rounds[0]) if rounds else None,
        "relearning": receipts.waiting(db),
        "next_round_at": core.schedule.next_at() if core.schedule else None,
        "paused": core.schedule.last_obstacle if core.schedule else None,
    }


def _daemon(core: "Core") -> dict[str, Any]:
    if not core.running:
        return {"running": False, "version": program_version()}
    memory = psutil.Process().memory_info()
    return {
        "running": True,
        "version": program_version(),
        "pid": os.getpid(),
        "port": core.port,
        "uptime_seconds": round(time.monotonic() - core.started, 1),
        "memory_bytes": memory.rss,
    }


def _study(core: "Core") -> dict[str, Any]:
    """What the base made of notes; `asks` says whether it is asked at all."""
    asker = core.inquirer
    return {
        "by_model": core.config.study.by_model,
        "asks": asker is not None,
        "waiting": asker.waiting() if asker else 0,
        "paused": asker.paused if asker else None,
        **asdict(inquiries.total(core.db)),
    }


def source_list(db: Db) -> list[dict[str, Any]]:
    """The watched folders, each with its documents by state and its examples."""
    documents: dict[int, dict[str, int]] = {}
    for row in _all(db, "SELECT source_id, state, count(*) AS n FROM documents GROUP BY 1, 2"):
        documents.setdefault(row["source_id"], {})[row["state"]] = row["n"]
    counted = _all(
        db,
        "SELECT source_id, count(*) AS n FROM examples INDEXED BY examples_counted"
        " WHERE state IN ('pending', 'learned', 'held-out', 'quarantined') GROUP BY 1",
    )
    examples = {row["source_id"]: row["n"] for row in counted}
    redacted = sources.redacted_by_source(db)
    return [
        {
            "id": source.id,
            "path": source.path.as_posix(),
            "kind": source.kind,
            "state": source.state,
            "ignore": list(source.patterns),
            "documents": documents.get(source.id, {}),
            "examples": examples.get(source.id, 0),
            "redacted": redacted.get(source.id, {}),
            "added_at": source.added_at,
        }
        for source in sources.list_sources(db)
    ]


def quarantined(db: Db, limit: int) -> list[dict[str, Any]]:
    """The latest lines that could not be used, newest first."""
    names: dict[int, str] = {}
    rows = []
    for q in sources.quarantined(db, limit):
        name = names.setdefault(q.source_id, history.source_name(db, q.source_id))
        rows.append(
            {"source": name, "path": q.path, "line": q.line, "reason": q.reason, "at": q.at}
        )
    return rows


def _refused(db: Db) -> list[dict[str, Any]]:
    rows = _all(
        db,
        "SELECT d.source_id, d.path, d.reason, d.seen_at FROM documents d"
        " JOIN sources s ON s.id = d.source_id"
        " WHERE d.state = 'refused' AND s.state != 'removed' ORDER BY d.id DESC LIMIT ?",
        LATEST,
    )
    return [
        {
            "source": history.source_name(db, row["source_id"]),
            "path": row["path"],
            "reason": row["reason"],
            "at": row["seen_at"],
        }
        for row in rows
    ]


def _documents(db: Db) -> dict[str, int]:
    counted = _all(db, "SELECT state, count(*) AS n FROM documents GROUP BY state")
    return {**dict.fromkeys(("ok", "refused", "gone"), 0), **{r["state"]: r["n"] for r in counted}}


def _pending(db: Db) -> int:
    return int(_all(db, "SELECT count(*) AS n FROM chunks WHERE vector IS NULL")[0]["n"])


def _all(db: Db, query: str, *values: int) -> list[sqlite3.Row]:
    return db.read().execute(query, values).fetchall()
