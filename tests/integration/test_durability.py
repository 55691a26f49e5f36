"""kill -9 at every step of ingesting, publishing, swapping and indexing.

The children do what a daemon does; the database is then read with sqlite3 alone.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from acclimate.store import files, ledger, sources
from acclimate.store.db import Db
from acclimate.store.index import Index
from acclimate.store.reconcile import reconcile
from acclimate.store.scan import scan

# As many random kills as a person has patience for: ACCLIMATE_KILLS=200 for the full trial.
KILLS = int(os.environ.get("ACCLIMATE_KILLS", "6"))
FILES = 8

INGEST = """
import sys
from pathlib import Path
from acclimate.store import ingest, sources
from acclimate.store.db import Db
db = Db(Path(sys.argv[1]) / "acclimate.db", wal=None if sys.argv[2] == "wal" else False)
(source,) = sources.list_sources(db)
for path in sorted(source.path.iterdir()):
    ingest.ingest_file(db, source, path.name)
    print(path.name, flush=True)  # from here on it is acknowledged
"""

PUBLISH = """
import hashlib, sys
from pathlib import Path
from acclimate.store import files, ledger
from acclimate.store.db import Db
home = files.Home.open(Path(sys.argv[1]))
db = Db(home.db)
version = ledger.next_version(db)
parent = ledger.live(db)
round_id = ledger.start_round(db, parent, 1, [1, 2], [], [3])
temp = files.temp_folder(home.adapters)
(temp / "adapter.gguf").write_bytes(b"weights")
files.publish_folder(temp, home.adapter_dir(version))
ledger.publish(db, round_id, version, parent, hashlib.sha256(b"weights").hexdigest(), 1.0, {},
               [1, 2], [3])
print("published", flush=True)
ledger.set_live(db, None, "rollback")
print("swapped", flush=True)
"""

FLUSH = """
import sys
from pathlib import Path
from acclimate.store.db import Db
from acclimate.store.index import Index
from acclimate.store.reconcile import reconcile
import numpy as np
home = Path(sys.argv[1])
db = Db(home / "acclimate.db")
index = Index(db, home / "index.faiss")
pending = index.pending(100)
index.set_vectors([i for i, _ in pending], np.eye(384, dtype=np.float32)[: len(pending)])
print("indexed", flush=True)
index.flush()
"""


def run(code: str, *arguments: object, failpoint: str = "") -> tuple[int, list[str]]:
    child = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "ACCLIMATE_FAILPOINT": failpoint},
        stdout=subprocess.PIPE,
    )
    return child.returncode, child.stdout.decode().split()


def query(home: files.Home, sql: str) -> list[tuple]:
    conn = sqlite3.connect(home.db)
    try:
        return conn.execute(sql).fetchall()
    finally:
        conn.close()


def check(home: files.Home) -> None:
    assert query(home, "PRAGMA integrity_check") == [("ok",)]
    assert query(home, "PRAGMA foreign_key_check") == []
    db = Db(home.db)
    assert db.integrity_check() == []
    db.close()


def check_ingested(home: files.Home, acknowledged: set[str]) -> None:
    """Every acknowledged file is there whole and once; any other whole or not at all."""
    check(home)
    found = dict(query(home, "SELECT path, id FROM documents"))
    assert acknowledged <= set(found)
    replies = Counter(
        json.loads(content)["messages"][-1]["content"]
        for (content,) in query(home, "SELECT content FROM examples")
    )
    texts = Counter(text for (text,) in query(home, "SELECT text FROM chunks"))
    bad = Counter(path for (path,) in query(home, "SELECT path FROM quarantine"))
    assert replies == Counter(f"reply {name} {n}" for name in found for n in range(3))
    assert texts == Counter(
        f"User: question {name} {n}\nAssistant: reply {name} {n}"
        for name in found
        for n in range(3)
    )
    assert bad == Counter(list(found))


def drop(folder: Path, name: str) -> None:
    lines = [
        json.dumps({"instruction": f"question {name} {n}", "output": f"reply {name} {n}"})
        for n in range(3)
    ]
    lines.insert(1, "{ a bad line")
    temp = folder / f".{name}"
    temp.write_text("\n".join(lines))
    temp.rename(folder / name)


@pytest.fixture
def home(tmp_path: Path) -> files.Home:
    """A home that watches a folder of a few chats."""
    home = files.Home.create(tmp_path / "home")
    folder = tmp_path / "chats"
    folder.mkdir()
    for n in range(FILES):
        drop(folder, f"{n}.jsonl")
    db = Db(home.db)
    sources.add_source(db, folder, "chat")
    db.close()
    return home


@pytest.mark.parametrize(
    ("point", "mode"),
    [
        ("ingest.read:2", "wal"),
        ("ingest.document:2", "wal"),
        ("ingest.chunks:3", "wal"),
        ("buffer.added:3", "wal"),
        ("ingest.quarantine:2", "wal"),
        ("ingest.stored:4", "wal"),
        ("db.commit:3", "wal"),
        ("db.committed:3", "wal"),
        ("ingest.chunks:3", "truncate"),
        ("db.commit:3", "truncate"),
        ("db.committed:3", "truncate"),
    ],
)
def test_ingesting_killed_anywhere(home: files.Home, point: str, mode: str) -> None:
    code, acknowledged = run(INGEST, home.root, mode, failpoint=point)
    assert code == -9
    assert 0 < len(acknowledged) < FILES
    check_ingested(home, set(acknowledged))
    code, acknowledged = run(INGEST, home.root, mode)
    assert (code, len(acknowledged)) == (0, FILES)
    check_ingested(home, set(acknowledged))


def test_ingesting_killed_at_random(home: files.Home, tmp_path: Path) -> None:
    rng = random.Random(7)
    folder = tmp_path / "chats"
    acknowledged: set[str] = set()
    for kill in range(KILLS):
        for n in range(40):
            drop(folder, f"{kill}-{n}.jsonl")
        child = subprocess.Popen(
            [sys.executable, "-c", INGEST, str(home.root), "wal"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        acknowledged.add(child.stdout.readline().decode().strip())
        time.sleep(rng.random() * 0.15)
        child.kill()
        acknowledged |= set(child.stdout.read().decode().split("\n")[:-1])
        child.wait()
        check_ingested(home, acknowledged)
    db = Db(home.db)
    (source,) = sources.list_sources(db)
    scan(db, source)
    db.close()
    check_ingested(home, {p.name for p in folder.iterdir()})


@pytest.mark.parametrize(
    "point",
    [
        "db.commit:1",
        "round.started",
        "db.committed:1",
        "publish_folder.synced",
        "publish_folder.renamed",
        "publish_folder.done",
        "publish.round",
        "publish.examples",
        "swap.recorded:1",
        "db.commit:2",
        "db.committed:2",
        "swap.recorded:2",
        "db.commit:3",
        "db.committed:3",
    ],
)
def test_publishing_and_swapping_killed_anywhere(home: files.Home, point: str) -> None:
    db = Db(home.db)
    (source,) = sources.list_sources(db)
    scan(db, source)
    db.close()
    code, said = run(PUBLISH, home.root, failpoint=point)
    assert code == -9
    check(home)
    db = Db(home.db)
    reconcile(db, home)
    folders = [path.name for path in home.adapters.iterdir()]
    versions = [a.version for a in ledger.adapters(db)]
    swaps = [(s.from_version, s.to_version) for s in ledger.swaps(db)][::-1]
    states = query(home, "SELECT state FROM examples WHERE id <= 3 ORDER BY id")
    rounds = [r.state for r in ledger.rounds(db)]
    if "published" in said or versions:
        assert (folders, versions, rounds) == (["v0001"], [1], ["accepted"])
        # What counts as learned is what the live adapter carries.
        taught = "learned" if ledger.live(db) == 1 else "pending"
        assert states == [(taught,), (taught,), ("held-out",)]
        assert swaps in ([(None, 1)], [(None, 1), (1, None)])
    else:
        assert (folders, versions, swaps) == ([], [], [])
        assert rounds in ([], ["failed"])
        assert set(states) == {("pending",)}
    assert ledger.live(db) == (swaps[-1][1] if swaps else None)
    assert reconcile(db, home) == []
    db.close()
    assert run(PUBLISH, home.root) == (0, ["published", "swapped"])


@pytest.mark.parametrize(
    "point", ["index.vectors", "db.commit:2", "index.written", "index.renamed", "db.commit:3"]
)
def test_indexing_killed_anywhere(home: files.Home, point: str) -> None:
    db = Db(home.db)
    (source,) = sources.list_sources(db)
    scan(db, source)
    db.close()
    code, said = run(FLUSH, home.root, failpoint=point)
    assert code == -9
    check(home)
    db = Db(home.db)
    index = Index(db, home.index)
    assert index.size == (3 * FILES if said else 0)
    assert index.size + len(index.pending(100)) == 3 * FILES
    index.flush()
    assert Index(db, home.index).size == index.size
    db.close()
