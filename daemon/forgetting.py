"""Forgetting as `/v1/forget` and `acclimate forget` ask for it: from names to a receipt.

Has the store decide, then the engine follow, the running round end, the files go, the rest be
learned again; what is cut short is finished at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import structlog

from acclimate.daemon import history
from acclimate.daemon.naming import other_names
from acclimate.store import buffer, ledger, receipts, retire, sources
from acclimate.store.db import ids
from acclimate.store.errors import AcclimateError, NotFound
from acclimate.store.files import failpoint
from acclimate.store.forget import Forgotten, Wanted, forget

if TYPE_CHECKING:
    from acclimate.daemon.core import Core

log = structlog.get_logger(__name__)

_MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class Asked:
    """One request. `targets` are paths, names or ids of examples; `source` a folder or an id."""

    targets: Sequence[str] = ()
    source: str | None = None
    matching: str = ""
    dry_run: bool = False
    relearn: bool = True


def forget_all(core: Core, asked: Asked) -> dict[str, Any]:
    """Forget, and say what went, what serves now and what is learned again. Raises NotFound."""
    wanted = _wanted(core, asked)
    kept = core.home.chat_history

    def decide() -> Forgotten:
        return forget(core.db, wanted, kept, relearn=asked.relearn, dry_run=asked.dry_run)

    if asked.dry_run:
        return _would(core, decide())
    done = core.switch.retire(decide)
    failpoint("forget.served")
    # Should it be publishing just now: the ledger refuses an adapter with what was forgotten.
    running = core.rounds.current() if core.rounds else None
    if core.rounds and running and running["round"] == done.retired.round_ended:
        core.rounds.interrupt(ledger.WAS_FORGOTTEN)
    failpoint("forget.ended")
    retire.clear(core.db, core.home, core.index.flush)
    failpoint("forget.cleared")
    started, why = _relearn(core) if asked.relearn else (None, "not wanted")
    receipt = receipt_of(receipts.receipt(core.db, done.receipt or 0))
    return {
        **receipt,
        "documents": _paths(core, done.documents),
        "examples": done.examples,
        "started": started,
        "message": _message(receipt, started, why),
    }


def receipt_of(r: receipts.Receipt) -> dict[str, Any]:
    """A receipt as the routes give it."""
    again = r.relearning
    return {
        "receipt": r.id,
        "at": r.at,
        "removed": r.removed,
        "retired": [history.name_of(version) for version in r.retired],
        "live_before": history.name_of(r.live_before),
        "live": history.name_of(r.live),
        "unpinned": r.unpinned,
        "round_ended": r.round_ended,
        "relearn": {
            "state": again.state,
            "wanted": again.wanted,
            "examples": again.examples,
            "left": again.left,
            "rounds": again.rounds,
        },
    }


def _wanted(core: Core, asked: Asked) -> Wanted:
    documents: list[int] = []
    examples: list[int] = []
    for target in asked.targets:
        if target.isascii() and target.isdecimal():
            examples.append(_example(core, target))
        else:
            documents += _documents(core, target)
    source = None if asked.source is None else _source(core, asked.source)
    return Wanted(list(dict.fromkeys(documents)), examples, source, asked.matching)


def _example(core: Core, target: str) -> int:
    if not 0 < int(target) <= _MAX_ID:
        raise NotFound(f"there is no example {target[:40]}", "see: acclimate status")
    return buffer.get(core.db, int(target)).id


def _documents(core: Core, target: str) -> list[int]:
    try:
        found = sources.find_documents(core.db, Path(target))
    except (ValueError, OSError):
        found = []
    if not Path(target).is_absolute():
        # A daemon's own folder means nothing to the person: only a name that was given fits.
        found = [d for d in found if d.path == target]
    if PurePosixPath(target).suffix or not found:
        by_hand = sources.manual_source(core.db).id
        for name in other_names(target):
            document = sources.find_document(core.db, by_hand, name)
            found += [document] if document else []
    known = [d.id for d in found if d.state != "forgotten"]
    if not known:
        raise NotFound(f"nothing was read from {target[:200]}", "give the path of a file")
    return known


def _source(core: Core, name: str) -> int:
    """A source's id, also of one that is watched no longer; "manual" is what was handed over."""
    if name == "manual":
        return sources.manual_source(core.db).id
    if name.isascii() and name.isdecimal() and 0 < int(name) <= _MAX_ID:
        return sources.get_source(core.db, int(name)).id
    try:
        found = sources.find_source(core.db, Path(name).resolve())
    except (ValueError, OSError):
        found = None
    if found is None:
        raise NotFound(f"{name[:200]} is no source", "see: acclimate watch list")
    return found.id


def _relearn(core: Core) -> tuple[int | None, str]:
    """The round that was started for what waits again, or why none was."""
    if not receipts.waiting(core.db):
        return None, ""
    if core.rounds is None:
        return None, "at the next start of the daemon, by its schedule"
    try:
        return core.rounds.relearn(), "after the round that runs"
    except AcclimateError as error:
        log.warning("not_relearned", error=error.message)
        return None, f"by the schedule: {error.message}"


def _message(receipt: dict[str, Any], started: int | None, why: str) -> str:
    """In words, for a person."""
    retired, again = receipt["retired"], receipt["relearn"]
    said = ["no adapter learned it"]
    if retired:
        said = [f"{', '.join(retired)} learned it and {'is' if len(retired) == 1 else 'are'} gone"]
        if receipt["live"] != receipt["live_before"]:
            said.append(f"live is {receipt['live']} now")
        if receipt["unpinned"]:
            said.append("it is no longer pinned")
    if receipt["round_ended"] is not None:
        said.append(f"round {receipt['round_ended']} had it and was ended")
    if again["left"]:
        when = f"round {started} has started" if started is not None else why
        said.append(f"{again['left']} other examples are to be learned again: {when}")
    return "; ".join(said)


def _would(core: Core, done: Forgotten) -> dict[str, Any]:
    """What would go, each thing with where it is; nothing was changed."""
    retired = done.retired
    places = core.db.read().execute(
        "SELECT s.path AS source, d.path, c.start_line, c.end_line FROM chunks c"
        " JOIN documents d ON d.id = c.document_id JOIN sources s ON s.id = d.source_id"
        " WHERE c.id IN (SELECT value FROM json_each(?)) ORDER BY c.id",
        (ids(done.chunks),),
    )
    return {
        "dry_run": True,
        "removed": done.counts(),
        "documents": _paths(core, done.documents),
        "passages": [dict(row) for row in places.fetchall()],
        "examples": [
            {"id": n, "text": history.preview(buffer.get(core.db, n).content)}
            for n in done.examples
        ],
        "retired": [history.name_of(version) for version in retired.versions],
        "live_before": history.name_of(retired.live_before),
        "live": history.name_of(retired.live),
        "unpinned": retired.unpinned,
        "round_ended": retired.round_ended,
        "relearn": {"examples": len(retired.relearn)},
    }


def _paths(core: Core, document_ids: Sequence[int]) -> list[str]:
    rows = core.db.read().execute(
        "SELECT path FROM documents WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (ids(document_ids),),
    )
    return [row["path"] for row in rows.fetchall()]
