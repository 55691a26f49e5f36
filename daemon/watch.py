"""Watches sources: events are hints to read a file soon, scans are the truth.

Knows no example and no model; what was read goes to the store, what changed to a callback.
"""

import logging
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from acclimate.daemon.config import WatchConfig
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError
from acclimate.store.ingest import IngestResult, ingest_file
from acclimate.store.scan import ScanReport, scan
from acclimate.store.sources import Source
from acclimate.store.walk import Ignore

log = structlog.get_logger(__name__)

# More hints than this for one source, and a scan is cheaper.
_MAX_HINTS = 256
# A file that is written to all the time is read after this many times the settling time.
_PATIENCE = 10
_CHECK_SECONDS = 5.0
# Reading a file gives these: a handler that reads because of them would never stop.
_OWN_EVENTS = ("opened", "closed_no_write")


OnChange = Callable[[Source, IngestResult | ScanReport], None]


@dataclass
class _Watched:
    source: Source
    scan_at: float  # monotonic seconds
    watch: ObservedWatch | None = None
    inode: tuple[int, int] | None = None  # of the folder that `watch` was placed on
    hints: dict[str, tuple[float, float]] = field(default_factory=dict)  # path → first, due

    def hint(self, path: str, now: float, settle_seconds: float) -> None:
        first, _ = self.hints.get(path, (now, now))
        due = min(now + settle_seconds, first + _PATIENCE * settle_seconds)
        self.hints[path] = (first, due)
        if len(self.hints) > _MAX_HINTS:
            self.hints.clear()
            self.scan_at = min(self.scan_at, now + settle_seconds)

    def next_due(self) -> float:
        return min([self.scan_at, *(due for _, due in self.hints.values())])


class Watcher:
    """Keeps the store equal to the sources' folders, in two threads of its own.

    `on_change` is called from one of them for every file or scan that changed something.
    """

    def __init__(
        self,
        db: Db,
        get_sources: Callable[[], Iterable[Source]],
        on_change: OnChange,
        settings: WatchConfig | None = None,
    ) -> None:
        self._db = db
        self._get_sources = get_sources
        self._on_change = on_change
        self._settings = settings or WatchConfig()
        self._watched: dict[int, _Watched] = {}
        self._wake = threading.Condition()
        self._busy = False
        self._stale = True  # the list of sources is to be read again
        self._checked_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._observer: BaseObserver | None = None
        self._overflow = _Overflow(self.rescan)

    def start(self) -> None:
        """Watch, beginning with a scan of every source."""
        if self._thread is not None:
            raise RuntimeError("the watcher has been started already")
        self._observer = Observer()
        self._observer.start()
        _INOTIFY_LOG.addHandler(self._overflow)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End both threads; what is half read is read again at the next start."""
        self._stop.set()
        with self._wake:
            self._wake.notify_all()
        _INOTIFY_LOG.removeHandler(self._overflow)
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout)
        if self._thread is not None:
            self._thread.join(timeout)

    def rescan(self) -> None:
        """Scan every source now."""
        with self._wake:
            for watched in self._watched.values():
                watched.scan_at = 0.0
            self._stale = True
            self._wake.notify_all()

    def poke(self, source: Source) -> None:
        """Take up a source that was added, changed or removed; scan it now."""
        with self._wake:
            if source.id in self._watched:
                self._watched[source.id].scan_at = 0.0
            self._stale = True
            self._wake.notify_all()

    @property
    def settled(self) -> bool:
        """Whether all that is known to have happened has been read."""
        with self._wake:
            now = time.monotonic()
            return not (
                self._busy
                or self._stale
                or any(w.hints or w.scan_at <= now for w in self._watched.values())
            )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._refresh()
                self._work()
            except (AcclimateError, sqlite3.Error, OSError) as e:
                # The drive is out or the disk full: what was missed, a scan finds.
                log.warning("watching paused", error=str(e))
                with self._wake:
                    self._busy = False
                    for watched in self._watched.values():
                        watched.hints.clear()
                        watched.scan_at = 0.0
                self._stop.wait(_CHECK_SECONDS)
                continue
            with self._wake:
                now = time.monotonic()
                due = min((w.next_due() for w in self._watched.values()), default=now + 60)
                if not self._stale:
                    self._wake.wait(max(0.0, min(due, self._checked_at + _CHECK_SECONDS) - now))

    def _refresh(self) -> None:
        """Follow the list of sources, and folders that went or came back."""
        now = time.monotonic()
        with self._wake:
            if not self._stale and now - self._checked_at < _CHECK_SECONDS:
                return
        sources = {source.id: source for source in self._get_sources()}
        with self._wake:
            self._checked_at = now
            for source_id in self._watched.keys() - sources.keys():
                self._unschedule(self._watched.pop(source_id))
            for source_id, source in sources.items():
                watched = self._watched.setdefault(source_id, _Watched(source, 0.0))
                watched.source = source
            self._stale = False
            watched_now = list(self._watched.values())
        for watched in watched_now:
            inode = _inode(watched.source.path)
            if inode == watched.inode:
                continue
            # A watch ends with its folder, and a drive that is back has another one.
            self._unschedule(watched)
            if inode is not None:
                self._schedule(watched, inode)
            with self._wake:
                watched.scan_at = 0.0

    def _schedule(self, watched: _Watched, inode: tuple[int, int]) -> None:
        if self._observer is None:
            return
        handler = _Handler(watched.source.path, lambda path: self._hint(watched, path))
        try:
            watched.watch = self._observer.schedule(
                handler, str(watched.source.path), recursive=True
            )
        except OSError as e:
            log.warning(
                "no events for this source, only scans",
                source=str(watched.source.path),
                error=str(e),
                hint="raise fs.inotify.max_user_watches",
            )
        watched.inode = inode

    def _unschedule(self, watched: _Watched) -> None:
        if watched.watch is not None and self._observer is not None:
            with suppress(KeyError, OSError):
                self._observer.unschedule(watched.watch)
        watched.watch = watched.inode = None

    def _hint(self, watched: _Watched, path: str | None) -> None:
        """A file may have changed; None is the whole folder."""
        now = time.monotonic()
        with self._wake:
            if path is None:
                watched.scan_at = min(watched.scan_at, now + self._settings.settle_seconds)
            else:
                watched.hint(path, now, self._settings.settle_seconds)
            self._wake.notify_all()

    def _work(self) -> None:
        now = time.monotonic()
        scans: list[_Watched] = []
        hints: defaultdict[int, list[str]] = defaultdict(list)
        with self._wake:
            self._busy = True
            for source_id, watched in self._watched.items():
                if watched.scan_at <= now:
                    watched.scan_at = now + self._settings.scan_interval_seconds
                    watched.hints.clear()
                    scans.append(watched)
                    continue
                for path, (_, due) in list(watched.hints.items()):
                    if due <= now:
                        del watched.hints[path]
                        hints[source_id].append(path)
            files = [(self._watched[source_id].source, paths) for source_id, paths in hints.items()]
        for source, paths in files:
            self._ingest(source, paths)
        for watched in scans:
            self._scan(watched.source)
        with self._wake:
            self._busy = False

    def _ingest(self, source: Source, paths: list[str]) -> None:
        inner = [s.path for s in self._get_sources() if s.id != source.id]
        rules = Ignore(source.path, [*self._settings.ignore, *source.patterns], inner)
        taken = [path for path in paths if not rules.skips(path)]
        # New names come before lost ones, or a renamed file's chunks would be dropped too early.
        for path in sorted(taken, key=lambda p: not os.path.lexists(source.path / p)):
            if self._stop.is_set():
                return
            result = ingest_file(
                self._db, source, path, max_file_bytes=self._settings.max_file_bytes
            )
            if result.outcome not in ("unchanged", "unreachable", "forgotten"):
                self._tell(source, result)

    def _scan(self, source: Source) -> None:
        if self._stop.is_set():
            return
        report = scan(
            self._db,
            source,
            ignore=self._settings.ignore,
            max_file_bytes=self._settings.max_file_bytes,
            should_stop=self._stop.is_set,
        )
        if report.missing and source.state != "missing":
            log.warning("source is missing", source=str(source.path))
        if report.touched or report.missing:
            self._tell(source, report)

    def _tell(self, source: Source, result: IngestResult | ScanReport) -> None:
        try:
            self._on_change(source, result)
        except Exception:
            log.exception("the watcher's callback failed", source=str(source.path))


class _Handler(FileSystemEventHandler):
    """Turns events into relative paths; does nothing slow, as it runs in the observer's thread."""

    def __init__(self, root: Path, hint: Callable[[str | None], None]) -> None:
        self._root = root
        self._hint = hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _OWN_EVENTS:
            return
        if event.is_directory:
            if event.event_type != "modified":  # that only says that something inside changed
                self._hint(None)
            return
        # An atomic save arrives as a move onto the name that counts.
        for path in (event.src_path, event.dest_path):
            if path:
                self._hint_file(os.fsdecode(path))

    def _hint_file(self, path: str) -> None:
        try:
            relative = Path(path).relative_to(self._root).as_posix()
            relative.encode()
        except ValueError:
            return  # moved out of the source, or a name that scans report
        if relative.rpartition("/")[2] == ".gitignore":
            self._hint(None)
        elif not relative.startswith(".") and "/." not in relative:
            self._hint(relative)


class _Overflow(logging.Handler):
    """watchdog drops events when the kernel's queue overflows and only logs that it did (#654)."""

    def __init__(self, rescan: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._rescan = rescan

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._rescan()


_INOTIFY_LOG = logging.getLogger("watchdog.observers.inotify_c")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
