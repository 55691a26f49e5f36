"""The scan that makes a source's rows equal to its folder: the truth behind watcher events.

Knows which files to look at, not what is in them.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from acclimate.store import sources
from acclimate.store.curate import RULES
from acclimate.store.db import Db
from acclimate.store.extract import MAX_FILE_BYTES, Missing
from acclimate.store.ingest import looks_same, mark_gone, root_device, store
from acclimate.store.prepare import Prepared, prepare
from acclimate.store.sources import Source
from acclimate.store.walk import DEFAULT_IGNORE, Ignore, Walked, walk

# Files are read outside a transaction and stored some at a time, so that others can write between.
_BATCH_FILES = 32
_BATCH_BYTES = 8_000_000


@dataclass(frozen=True)
class ScanReport:
    """Counts of files by what became of them. `complete` is False when it was told to stop."""

    added: int = 0
    changed: int = 0
    renamed: int = 0
    unchanged: int = 0
    refused: int = 0
    gone: int = 0
    forgotten: int = 0
    unreachable: int = 0
    examples: int = 0
    bad_lines: int = 0
    missing: bool = False  # the source's folder is not there; nothing was changed
    complete: bool = True

    @property
    def touched(self) -> bool:
        """Whether retrieval or the buffer may have changed."""
        return bool(self.added or self.changed or self.renamed or self.gone or self.examples)


def scan(
    db: Db,
    source: Source,
    *,
    ignore: Iterable[str] = DEFAULT_IGNORE,
    max_file_bytes: int = MAX_FILE_BYTES,
    should_stop: Callable[[], bool] = lambda: False,
) -> ScanReport:
    """Make the rows equal to the folder. Watcher events are only hints; this is the truth.

    A folder that is not there, that another device has taken the place of, or that cannot be
    listed loses no document: its source is then 'missing' until it is back.
    """
    device = root_device(db, source)
    if device is None:
        sources.set_state(db, source.id, "missing")
        return ScanReport(missing=True)
    sources.set_state(db, source.id, "ok", device)
    inner = [s.path for s in sources.list_sources(db) if s.path != source.path]
    rules = Ignore(source.path, [*ignore, *source.patterns], inner)
    walked = Walked()
    known = {document.path: document for document in sources.documents(db, source.id)}
    seen: set[str] = set()
    counts: Counter[str] = Counter()
    batch: list[Prepared] = []

    def flush() -> None:
        for result in store(db, source, batch):
            counts[result.outcome] += 1
            counts["examples"] += result.examples
            counts["bad_lines"] += result.bad_lines
        batch.clear()

    try:
        for found in walk(source.path, rules, walked):
            if should_stop():
                flush()
                return _report(counts, complete=False)
            seen.add(found.relative)
            document = known.get(found.relative)
            if document is not None and looks_same(document, found.size, found.mtime_ns):
                counts["unchanged" if document.state == "ok" else document.state] += 1
                continue
            try:
                mount = None if found.device == device else found.device
                batch.append(prepare(source, found.relative, max_file_bytes, mount, found.problem))
            except Missing:
                seen.discard(found.relative)
                continue
            size = sum(len(p.raw.data) for p in batch if p.raw)
            if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
                flush()
    except OSError:
        # The folder went away under the walk: what was not seen is unknown, not gone.
        flush()
        sources.set_state(db, source.id, "missing")
        return _report(counts, missing=True)
    flush()
    if any(document.state == "ok" and document.rules != RULES for document in known.values()):
        db.scrub()  # what older rules had left in them is gone from the free pages too
    # Renames moved rows, so ask again which are left over; and look again whether the drive is in.
    lost = [
        document.path
        for document in sources.documents(db, source.id)
        if document.path not in seen and document.state in ("ok", "refused")
    ]
    if lost and root_device(db, source) != device:
        sources.set_state(db, source.id, "missing")
        return _report(counts, missing=True)
    gone = [path for path in lost if _reachable(path, known.get(path), walked)]
    counts["unreachable"] = len(lost) - len(gone)
    counts["gone"] = mark_gone(db, source.id, gone)
    return _report(counts)


def _reachable(path: str, document: sources.Document | None, walked: Walked) -> bool:
    if any(path == folder or path.startswith(folder + "/") for folder in walked.unreadable):
        return False
    mount = document.device if document else None
    return mount is None or mount in walked.devices


def _report(counts: Counter[str], *, missing: bool = False, complete: bool = True) -> ScanReport:
    fields: dict[str, Any] = dict(counts)
    return ScanReport(**fields, missing=missing, complete=complete)
