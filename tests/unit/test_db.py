"""Transactions, journal modes and the schema's history."""

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
import sqlite_utils

from acclimate.store.db import Db
from acclimate.store.errors import Detached, StoreError


def put(db: Db, key: str) -> None:
    with db.write() as conn:
        conn.execute("INSERT INTO settings VALUES (?, '1')", (key,))


def keys(db: Db) -> list[str]:
    return [row["key"] for row in db.read().execute("SELECT key FROM settings ORDER BY key")]


def test_wal_where_the_file_system_can(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    assert db.journal_mode == "wal"
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600
    conn = db._writer
    assert conn.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert conn.execute("PRAGMA secure_delete").fetchone()[0] == 1
    assert conn.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert db.integrity_check() == []
    db.close()


def test_falls_back_where_shared_memory_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "a.db-shm").mkdir()
    with pytest.raises(StoreError):
        Db(tmp_path / "a.db", wal=True)
    db = Db(tmp_path / "a.db")
    assert db.journal_mode == "truncate"
    put(db, "a")
    assert keys(db) == ["a"]
    db.close()


def test_falls_back_on_a_vfs_without_shared_memory(tmp_path: Path) -> None:
    db = Db(f"file:{tmp_path}/a.db?vfs=unix-dotfile")
    assert db.journal_mode == "truncate"
    put(db, "a")
    assert keys(db) == ["a"]
    assert db.integrity_check() == []
    db.close()


def test_a_wal_file_moved_to_such_a_file_system_opens(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    put(db, "a")
    db.close()
    (tmp_path / "a.db-shm").mkdir()
    db = Db(tmp_path / "a.db")
    assert db.journal_mode == "truncate"
    assert keys(db) == ["a"]
    db.close()


def test_wal_false_is_obeyed(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db", wal=False)
    assert db.journal_mode == "truncate"
    db.close()


def test_an_error_rolls_back_and_a_nested_one_only_itself(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    with pytest.raises(KeyError), db.write():
        put(db, "lost")
        raise KeyError
    with db.write():
        put(db, "kept")
        with pytest.raises(sqlite3.IntegrityError), db.write():
            put(db, "dropped")
            put(db, "kept")
        assert keys(db) == ["kept"]  # reads inside a write see it
    assert keys(db) == ["kept"]
    db.close()


def test_readers_see_only_what_is_committed_and_cannot_write(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    seen: list[list[str]] = []
    with db.write():
        put(db, "a")
        thread = threading.Thread(target=lambda: seen.append(keys(db)))
        thread.start()
        thread.join()
    assert seen == [[]]
    with pytest.raises(sqlite3.OperationalError):
        db.read().execute("DELETE FROM settings")
    db.close()


def test_writers_in_many_threads_take_turns(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")

    def work(name: int) -> None:
        for i in range(20):
            put(db, f"{name}-{i}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys(db)) == 80
    db.close()


def test_nothing_is_written_while_detached(tmp_path: Path) -> None:
    there = True
    db = Db(tmp_path / "a.db", attached=lambda: there)
    put(db, "a")
    there = False
    with pytest.raises(Detached):
        put(db, "b")
    there = True
    db.reopen()
    put(db, "c")
    assert keys(db) == ["a", "c"]
    db.close()


def test_a_full_disk_is_named_and_passes(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    pages = db._writer.execute("PRAGMA page_count").fetchone()[0]
    db._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"), db.write() as conn:
        conn.execute("INSERT INTO settings VALUES ('a', ?)", ("x" * 100_000,))
    db._writer.execute("PRAGMA max_page_count = 100000")
    put(db, "b")
    assert keys(db) == ["b"]
    db.close()


def test_after_a_failed_fsync_nothing_is_acknowledged_until_reopened(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db")
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(StoreError, match="cannot be written"), db.write():
        put(db, "lost")
        raise failure
    with pytest.raises(StoreError, match="failed before"):
        put(db, "refused")
    db.reopen()
    put(db, "kept")
    assert keys(db) == ["kept"]
    db.close()


@pytest.mark.parametrize("vfs", ["unix", "unix-dotfile"])
def test_readers_and_writers_get_along_without_wal(tmp_path: Path, vfs: str) -> None:
    db = Db(f"file:{tmp_path}/a.db?vfs={vfs}", wal=False)
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            for i in range(10):
                put(db, f"{name}{i}")
                db.read().execute("SELECT * FROM settings").fetchall()
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(keys(db)) == 30
    db.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Db(tmp_path / "a.db").close()
    with sqlite3.connect(tmp_path / "a.db") as conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations(migration_set, name, applied_at)"
            " VALUES ('acclimate', 'm999_later', '')"
        )
    conn.close()
    with pytest.raises(StoreError, match="newer"):
        Db(tmp_path / "a.db")


def test_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(StoreError, match=r"a\.db"):
        Db(tmp_path / "a.db")


def test_migrations_run_once(tmp_path: Path) -> None:
    Db(tmp_path / "a.db").close()
    Db(tmp_path / "a.db").close()
    rows = list(sqlite_utils.Database(tmp_path / "a.db")["_sqlite_migrations"].rows)
    names = [row["name"] for row in rows]
    assert names == sorted(set(names))


def test_reading_while_the_drive_is_out_makes_no_empty_database(tmp_path: Path) -> None:
    there = True
    db = Db(tmp_path / "a.db", attached=lambda: there)
    assert db.read().execute("SELECT count(*) FROM rounds").fetchone()[0] == 0
    db.close()
    with pytest.raises(Detached):
        db.read()
    for file in tmp_path.iterdir():
        file.unlink()
    there = False
    with pytest.raises(Detached):
        db.reopen()
    assert list(tmp_path.iterdir()) == []
    there = True
    db.reopen()
    db.read()
    db.close()


def test_a_reader_never_makes_the_file(tmp_path: Path) -> None:
    db = Db(tmp_path / "a.db", wal=False)
    (tmp_path / "a.db").unlink()
    with pytest.raises(StoreError, match="cannot read"):
        db.read()
    assert not (tmp_path / "a.db").exists()
    db.close()
