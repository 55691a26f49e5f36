"""What `doctor` finds in homes with one thing wrong."""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from acclimate.daemon import config, doctor, models
from acclimate.daemon.doctor import Finding
from acclimate.daemon.lock import HomeLock
from acclimate.daemon.token import load_or_create_token
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.files import Home


@pytest.fixture
def home(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> Home:
    """A home with a database, a token, and a tiny base model. No embedder is here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = Home.create(tmp_path / "home")
    source = Path(shutil.copy(tiny_llama, tmp_path / "tiny.gguf"))
    models.pull(home, str(source), lambda *_: None)
    models.use(home, "tiny")
    config.set_value(home, "server", "port", free_port)
    Db(home.db).close()
    load_or_create_token(home)
    return home


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def look(home: Home) -> dict[str, Finding]:
    findings = doctor.examine(home)
    json.dumps([asdict(finding) for finding in findings])
    for finding in findings:
        assert finding.message
        assert finding.ok or finding.hint, finding
    return {finding.name: finding for finding in findings}


def test_a_sound_home(home: Home) -> None:
    found = look(home)
    assert [n for n, f in found.items() if f.level == "error"] == ["model all-minilm-l6-v2"]
    assert found["model all-minilm-l6-v2"].hint == "acclimate models pull all-minilm-l6-v2"
    assert "journal wal" in found["database"].message
    assert "threads" in found["engine"].message
    assert "is free" in found["daemon"].message


def test_many_things_wrong(home: Home) -> None:
    path = home.models / "tiny.gguf"
    before = path.stat()
    with path.open("r+b") as file:  # as a failing drive does it: same size, same time
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    home.token.chmod(0o644)
    with contextlib.closing(Db(home.db)) as db:
        round_id = ledger.start_round(db, None, 1, [], [], [])
        ledger.publish(db, round_id, 1, None, "0" * 64, 1.0, {}, [])
    found = look(home)
    assert found["model tiny"].level == "error"
    assert found["token"].level == "error"
    assert "v0001" in found["adapters"].message


def test_a_damaged_database(home: Home) -> None:
    with home.db.open("r+b") as file:
        file.seek(0)
        file.write(b"not a database at all")
    assert look(home)["database"].level == "error"


def test_a_row_that_refers_to_nothing(home: Home) -> None:
    with contextlib.closing(sqlite3.connect(home.db)) as conn, conn:
        conn.execute(
            "INSERT INTO round_examples(round_id, example_id, role) VALUES (77, 88, 'new')"
        )
    assert "round_examples" in look(home)["database"].message


def test_a_mistake_in_the_settings(home: Home) -> None:
    home.config.write_text("[server]\nprot = 1\n")
    assert "server.prot" in look(home)["config"].message


def test_a_daemon_that_runs_is_fine_and_its_port_is_its_own(home: Home, free_port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        found = look(home)["daemon"]
        assert (found.level, str(free_port) in found.message) == ("warning", True)
        with HomeLock(home):
            assert look(home)["daemon"].level == "ok"


def test_a_library_for_another_processor(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesser = tmp_path / "python"
    lesser.write_text("#!/bin/sh\nkill -ILL $$\n")
    lesser.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(lesser))
    found = look(home)["engine"]
    assert found.level == "error"
    assert "another processor" in found.message


def test_little_room(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((10**12, "ok"), (10**9, "warning"), (10**6, "error")):
        usage = shutil._ntuple_diskusage(10**13, 0, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, usage=usage: usage)
        assert look(home)["disk"].level == level


def test_a_home_that_is_gone(home: Home) -> None:
    shutil.rmtree(home.root)
    assert look(home)["home"].level == "error"
