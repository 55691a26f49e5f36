"""The watcher on a real folder, with watchdog's real events."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from acclimate.daemon import watch
from acclimate.daemon.config import WatchConfig
from acclimate.daemon.watch import Watcher
from acclimate.store import sources
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.ingest import IngestResult
from acclimate.store.scan import ScanReport

SETTINGS = WatchConfig(settle_seconds=0.05)


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    root.mkdir()
    (root / "first.md").write_text("there from the start")
    return root


class Watching:
    """A running watcher and what it told."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.told: list[IngestResult | ScanReport] = []
        self.watcher = Watcher(
            db, lambda: sources.list_sources(db), lambda _, what: self.told.append(what), SETTINGS
        )
        self.watcher.start()
        wait_for(lambda: self.watcher.settled)

    def documents(self) -> dict[str, str]:
        rows = self.db.read().execute(
            "SELECT path, group_concat(text, '') FROM documents d JOIN chunks c"
            " ON c.document_id = d.id WHERE state = 'ok' GROUP BY d.id"
        )
        return dict(map(tuple, rows.fetchall()))


@pytest.fixture
def watching(db: Db, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    monkeypatch.setattr(watch, "_CHECK_SECONDS", 0.1)
    sources.add_source(db, root, "notes")
    watching = Watching(db)
    yield watching
    watching.watcher.stop()
    assert db.integrity_check() == []


def test_what_happens_in_the_folder_happens_in_the_store(watching: Watching, root: Path) -> None:
    assert watching.documents() == {"first.md": "there from the start"}
    (root / "new.md").write_text("new")
    (root / ".hidden.md").write_text("hidden")
    (root / "x.tmp").write_text("passing")
    wait_for(lambda: watching.documents().get("new.md") == "new")
    (root / "new.md").write_text("changed")
    wait_for(lambda: watching.documents().get("new.md") == "changed")
    temp = root / ".new.md.swp"
    temp.write_text("saved as editors do")
    temp.replace(root / "new.md")
    wait_for(lambda: watching.documents().get("new.md") == "saved as editors do")
    (root / "first.md").unlink()
    wait_for(lambda: "first.md" not in watching.documents())
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "x.md").write_text("deep")
    wait_for(lambda: "deep/er/x.md" in watching.documents())
    (root / "deep").rename(root / "moved")
    wait_for(lambda: set(watching.documents()) == {"new.md", "moved/er/x.md"})


def test_a_rename_keeps_the_row(watching: Watching, root: Path, db: Db) -> None:
    before = db.read().execute("SELECT id FROM chunks").fetchall()[0]["id"]
    (root / "first.md").rename(root / "second.md")
    wait_for(lambda: set(watching.documents()) == {"second.md"})
    assert db.read().execute("SELECT id FROM chunks").fetchall()[0]["id"] == before


def test_reading_triggers_nothing(watching: Watching, root: Path) -> None:
    (root / "new.md").write_text("new")
    wait_for(lambda: "new.md" in watching.documents())
    wait_for(lambda: watching.watcher.settled)
    told = len(watching.told)
    for _ in range(5):
        (root / "new.md").read_text()
    watching.watcher.rescan()
    time.sleep(1.2)  # watchdog itself holds events back for half a second
    assert watching.watcher.settled
    assert len(watching.told) == told


def test_a_folder_that_goes_and_comes_back(watching: Watching, root: Path, db: Db) -> None:
    def state() -> str:
        return sources.list_sources(db)[0].state

    away = root.rename(root.with_name("away"))
    wait_for(lambda: state() == "missing")
    assert set(watching.documents()) == {"first.md"}
    (away / "meanwhile.md").write_text("written elsewhere")
    away.rename(root)
    wait_for(lambda: set(watching.documents()) == {"first.md", "meanwhile.md"})
    assert state() == "ok"
    (root / "later.md").write_text("events work again")
    wait_for(lambda: "later.md" in watching.documents())


def test_sources_added_and_removed_while_running(
    watching: Watching, tmp_path: Path, db: Db
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("a")
    source = sources.add_source(db, other, "notes")
    watching.watcher.poke(source)
    wait_for(lambda: "a.md" in watching.documents())
    (other / "b.md").write_text("b")
    wait_for(lambda: "b.md" in watching.documents())
    sources.remove_source(db, source.id)
    watching.watcher.poke(source)
    (other / "c.md").write_text("c")
    time.sleep(1)
    assert set(watching.documents()) == {"first.md"}


def test_the_homes_drive_goes_and_comes_back(watching: Watching, root: Path, home: Home) -> None:
    assert "new.md" not in watching.documents()  # no reader is opened while the drive is out
    marker = home.marker.read_bytes()
    home.marker.unlink()
    (root / "new.md").write_text("new")
    time.sleep(1)
    assert "new.md" not in watching.documents()
    home.marker.write_bytes(marker)
    wait_for(lambda: "new.md" in watching.documents())


def test_a_callback_that_fails_stops_nothing(watching: Watching, root: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug elsewhere")

    watching.watcher._on_change = fail
    for name in ("a.md", "b.md"):
        (root / name).write_text(name)
        wait_for(lambda name=name: name in watching.documents())


def test_an_overflow_that_watchdog_logs_is_a_scan(watching: Watching, root: Path) -> None:
    watcher = watching.watcher
    assert watcher._observer is not None
    watcher._observer.unschedule_all()  # no events from here on
    (root / "unseen.md").write_text("unseen")
    logger = logging.getLogger("watchdog.observers.inotify_c")
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    wait_for(lambda: "unseen.md" in watching.documents())


CHILD = """
import sys, time
from pathlib import Path
from acclimate.daemon.config import WatchConfig
from acclimate.daemon.watch import Watcher
from acclimate.store import sources
from acclimate.store.db import Db
db = Db(Path(sys.argv[1]))
watcher = Watcher(db, lambda: sources.list_sources(db), lambda *_: None,
                  WatchConfig(settle_seconds=0.05))
watcher.start()
while not watcher.settled:
    time.sleep(0.02)
print("ready", flush=True)
sys.stdin.read()
watcher.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="inotify's queue")
def test_a_kernel_queue_that_overflows_loses_nothing(tmp_path: Path, root: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    count = limit // 4 + 200  # created, opened, modified, closed
    if count > 6000:
        pytest.skip(f"this kernel queues {limit} events; overflowing them takes too long here")
    db = Db(tmp_path / "a.db")
    sources.add_source(db, root, "notes")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "a.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, signal.SIGSTOP)
        for n in range(count):
            (root / f"{n}.md").write_text(str(n))
        os.kill(child.pid, signal.SIGCONT)
        ok = "SELECT count(*) FROM documents WHERE state = 'ok'"
        wait_for(lambda: db.read().execute(ok).fetchone()[0] == count + 1, 60)
    finally:
        child.kill()
        child.wait()
    found = {d.path for d in sources.documents(db, state="ok")}
    assert found == {p.name for p in root.iterdir()}
    db.close()


def test_hints_wait_for_quiet_but_not_for_ever(db: Db, root: Path) -> None:
    watched = watch._Watched(sources.add_source(db, root, "notes"), scan_at=1000.0)
    watched.hint("log.md", 0.0, 1.0)
    watched.hint("log.md", 0.9, 1.0)
    assert watched.next_due() == pytest.approx(1.9)
    for tick in range(100):
        watched.hint("log.md", tick / 2, 1.0)
    assert watched.next_due() == 10.0
    for n in range(300):
        watched.hint(f"{n}.md", 50.0, 1.0)
    assert watched.scan_at == 51.0
    assert len(watched.hints) < 256


def test_settings_are_checked() -> None:
    for bad in ({"settle": 1}, {"settle_seconds": 0}, {"ignore": ["!"]}, {"max_file_bytes": -1}):
        with pytest.raises(ValidationError):
            WatchConfig(**bad)  # type: ignore[arg-type]
