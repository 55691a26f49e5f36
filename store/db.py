"""The SQLite file: one writer connection, readers by thread, and commits that are on disk.

Knows no table but through `migrations`.
"""

import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from acclimate.store import migrations
from acclimate.store.errors import Detached, StoreError
from acclimate.store.files import failpoint, fsync_dir

BUSY_TIMEOUT_MS = 5_000


class Db:
    """The store's database. Safe to share between threads.

    `path` is a file, or a `file:` URI (tests choose SQLite's VFS so). `wal` None means WAL where
    the file system can; True raises StoreError where it cannot. `attached` is asked before each
    write and stops it with Detached, so that nothing is written beside a drive that was pulled.
    A closed one is detached, too, until `reopen`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        wal: bool | None = None,
        attached: Callable[[], bool] | None = None,
    ) -> None:
        self.path = str(path)
        self._wal = wal
        self._attached = attached
        self._lock = threading.RLock()
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._generation = 0
        self._depth = 0
        self._owner = 0
        self._open()

    def _open(self) -> None:
        self._failure = ""
        self._closed = True
        self._check_attached()
        file = None if self.path.startswith("file:") else Path(self.path)
        try:
            if file is not None and not file.exists():
                file.touch(mode=0o600)  # SQLite gives its -wal and -shm the same mode
            self._writer, self.journal_mode = _open_writer(self.path, self._wal)
            migrations.migrate(self._writer)
            if file is not None:
                fsync_dir(file.parent)
            self._closed = False
        except (sqlite3.Error, OSError) as e:
            raise StoreError(
                f"cannot open the database {self.path}: {e}",
                "check that the folder is writable; `acclimate doctor` says more",
            ) from e

    @property
    def folder(self) -> Path:
        """The folder that the file is in, which relative paths of sources start from."""
        plain = self.path.removeprefix("file:").partition("?")[0]
        return Path(plain).absolute().parent

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction on the one writer connection; left without an error, it is on disk.

        Re-entrant: inside another `write` of the same thread it is a savepoint of that one.
        Raises Detached, or StoreError when the disk is full or failing; nothing is kept then.
        """
        with self._lock:
            if self._depth:
                with self._savepoint() as conn:
                    yield conn
                return
            if self._failure:
                # After a failed fsync the kernel may drop the dirty pages and report success next
                # time, so nothing more is acknowledged until the file is opened again.
                raise StoreError(
                    f"the database failed before: {self._failure}",
                    "check the drive, then restart Acclimate",
                )
            if self._closed:
                raise _away()
            self._check_attached()
            conn = self._writer
            try:
                conn.execute("BEGIN IMMEDIATE")
                self._depth, self._owner = 1, threading.get_ident()
                try:
                    yield conn
                    failpoint("db.commit")
                    conn.execute("COMMIT")
                finally:
                    self._depth, self._owner = 0, 0
                failpoint("db.committed")
            except BaseException as e:
                with suppress(sqlite3.Error):
                    if conn.in_transaction:
                        conn.execute("ROLLBACK")
                if isinstance(e, sqlite3.OperationalError):
                    raise self._explain(e) from e
                raise

    @contextmanager
    def _savepoint(self) -> Iterator[sqlite3.Connection]:
        name = f"nested_{self._depth}"
        conn = self._writer
        conn.execute(f"SAVEPOINT {name}")
        self._depth += 1
        try:
            yield conn
        except BaseException:
            # A full disk may have rolled the whole transaction back already.
            if conn.in_transaction:
                conn.execute(f"ROLLBACK TO {name}")
            raise
        finally:
            self._depth -= 1
            if conn.in_transaction:
                conn.execute(f"RELEASE {name}")

    def _explain(self, e: sqlite3.OperationalError) -> StoreError:
        primary = getattr(e, "sqlite_errorcode", 0) & 0xFF
        if primary == sqlite3.SQLITE_IOERR:
            self._failure = str(e)
            return StoreError(f"the database cannot be written: {e}", "check the drive")
        if primary == sqlite3.SQLITE_FULL:
            return StoreError("the disk is full; nothing was kept", "free some space")
        if primary == sqlite3.SQLITE_BUSY:
            return StoreError("the database is busy", "is another program using this home?")
        return StoreError(f"the database refused: {e}")

    def read(self) -> sqlite3.Connection:
        """This thread's read-only connection; inside this thread's `write`, the writer itself.

        Fetch all rows of a statement: a half-read one blocks commits where there is no WAL.
        Raises Detached, or StoreError when the file is not there; it never makes one.
        """
        if self._owner == threading.get_ident():
            return self._writer
        if self._closed:
            raise _away()
        if getattr(self._local, "generation", None) != self._generation:
            self._check_attached()
            try:
                conn = _connect(self.path, create=False)
            except sqlite3.OperationalError as e:
                raise StoreError(
                    f"cannot read the database {self.path}: {e}", "check the drive"
                ) from e
            conn.execute("PRAGMA query_only = ON")
            self._readers.add(conn)
            self._local.conn, self._local.generation = conn, self._generation
        reader: _Connection = self._local.conn
        return reader

    def _check_attached(self) -> None:
        if self._attached is not None and not self._attached():
            raise _away()

    def integrity_check(self) -> list[str]:
        """What is wrong with the file, empty when nothing is: pages, foreign keys, FTS."""
        with self._lock:
            rows = self._writer.execute("PRAGMA integrity_check").fetchall()
            problems = [row[0] for row in rows if row[0] != "ok"]
            for row in self._writer.execute("PRAGMA foreign_key_check").fetchall():
                problems.append(f"row {row[1]} of {row[0]} points to no row of {row[2]}")
            try:
                with self.write() as conn:
                    conn.execute(
                        "INSERT INTO chunks_fts(chunks_fts, rank) VALUES ('integrity-check', 1)"
                    )
            except (sqlite3.DatabaseError, StoreError) as e:
                problems.append(f"full-text index: {e}")
        return problems

    def scrub(self) -> bool:
        """After a deletion: leave no token of it in FTS segments, and none in the WAL file.

        False when somebody who is reading kept the WAL from being emptied.
        """
        with self.write() as conn:
            conn.execute("INSERT INTO chunks_fts(chunks_fts) VALUES ('optimize')")
        with self._lock:
            if self.journal_mode == "wal" and not self._depth:
                ((busy, *_),) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return not busy
        return True

    def reopen(self) -> None:
        """Open the file again, after a failure or when its drive is back."""
        with self._lock:
            self.close()
            self._generation += 1
            self._open()

    def close(self) -> None:
        """Close every connection; unfinished transactions are rolled back."""
        with self._lock:
            self._closed = True
            for conn in [*self._readers, self._writer]:
                with suppress(sqlite3.Error):
                    conn.close()
            self._readers.clear()


class _Connection(sqlite3.Connection):
    """sqlite3's own class takes no weak references."""


def _away() -> Detached:
    return Detached("the home's drive is not there", "plug it in again")


def _connect(path: str, *, create: bool = True) -> _Connection:
    if not create and not path.startswith("file:"):
        path = f"{Path(path).absolute().as_uri()}?mode=rw"
    conn: _Connection = sqlite3.connect(
        path,
        factory=_Connection,
        uri=path.startswith("file:"),
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
    )
    conn.row_factory = sqlite3.Row
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


def _open_writer(path: str, wal: bool | None) -> tuple[_Connection, str]:
    conn = _connect(path)
    try:
        mode = _choose_journal(conn, wal) if wal is not False else ""
        if mode != "wal":
            conn.close()
            conn = _connect(path)
            # A file that says WAL already opens without shared memory only under an exclusive lock.
            conn.execute("PRAGMA locking_mode = EXCLUSIVE")
            mode = conn.execute("PRAGMA journal_mode = TRUNCATE").fetchone()[0]
            conn.execute("PRAGMA locking_mode = NORMAL")
            conn.execute("SELECT count(*) FROM sqlite_master").fetchall()  # gives the lock back
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA secure_delete = ON")
        if sys.platform == "darwin":
            conn.execute("PRAGMA fullfsync = ON")
    except BaseException:
        conn.close()
        raise
    return conn, mode


def _choose_journal(conn: sqlite3.Connection, wal: bool | None) -> str:
    try:
        mode: str = conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode == "wal":
            # Only a transaction maps the shared memory; exFAT and some network mounts fail here.
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
    except sqlite3.OperationalError:
        mode = ""
    if wal and mode != "wal":
        raise StoreError("the file system has no shared memory for WAL", "leave the choice open")
    return mode


def ids(values: Any) -> str:
    """Integers as a JSON array, for `IN (SELECT value FROM json_each(?))` of any length."""
    return "[" + ",".join(str(int(value)) for value in values) + "]"
