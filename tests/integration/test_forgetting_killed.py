"""kill -9 of a real daemon at every step of forgetting, and what its restart makes of it.

Looks with sqlite3, bytes of files and HTTP; uses none of the code that made the promises.
"""

import contextlib
import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from real_daemon import RealDaemon, fact, make_home, settle

from acclimate.store.files import Home

# A word that is nowhere by chance, in every spelling in which something may have kept it.
SECRET = "Zanzibar8861"
TRACES = (SECRET.encode(), SECRET.lower().encode(), SECRET.upper().encode())
# Up to the commit nothing is forgotten; from it on all of it is, whatever comes. (The first file
# that is written atomically is run.json.)
BEFORE = (
    "forget.taken", "forget.quotes", "atomic_write.written:2", "atomic_write.renamed:2",
    "forget.lines", "swap.recorded", "forget.retired", "forget.decided",
)  # fmt: skip
AFTER = (
    "forget.committed", "forget.served", "forget.ended", "remove_tree.renamed", "forget.removed",
    "forget.scrubbed", "index.written", "index.renamed", "forget.vectors", "forget.cleared",
)  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, real_models: Path) -> Home:
    """A home whose v0002 learned the secret and whose v0001 did not; it stands everywhere else."""
    home = make_home(tmp_path_factory.mktemp("taught") / "home", real_models)
    notes = tmp_path_factory.mktemp("notes")
    (notes / "diary.md").write_text(f"# Tuesday\n\nThe code of my locker is {SECRET}.\n")
    with RealDaemon(home.root) as daemon:
        assert daemon.ready()
        daemon.add("one", "two")
        assert daemon.learn()["state"] == "accepted"
        # What notes say is learned, too: only from now on may this one be known.
        daemon.call("POST", "/v1/sources", {"path": str(notes), "kind": "notes"})
        while not daemon.call("POST", "/v1/search", {"query": SECRET})["hits"]:
            pass
        daemon.add("three", SECRET)
        assert daemon.learn()["state"] == "accepted"
        daemon.ask(text=f"Is it {SECRET.lower()}?")
        daemon.call("POST", "/v1/feedback", {"rating": "edit", "edit": f"No, {SECRET}."})
        while daemon.call("GET", "/v1/status")["index"]["pending"]:
            pass
        daemon.terminate(10)
    home.chat_history.write_text(f"\n# now\n+Is it {SECRET.lower()}?\n\n# now\n+Hello\n")
    assert {path.name for path in traces(home)} >= {"acclimate.db", "chat_history"}
    return home


def traces(home: Home, *more: bytes) -> list[Path]:
    """Files of the home that hold the secret, or any of `more`."""
    return [
        path
        for path in home.root.rglob("*")
        if path.is_file() and any(trace in path.read_bytes() for trace in (*TRACES, *more))
    ]


def vectors(home: Home) -> list[bytes]:
    """Of the passages that hold the secret."""
    with contextlib.closing(sqlite3.connect(home.db)) as conn:
        rows = conn.execute("SELECT vector FROM chunks WHERE instr(text, ?)", (SECRET,)).fetchall()
    assert rows and all(row[0] for row in rows)
    return [row[0] for row in rows]


@pytest.fixture
def home(taught: Home, tmp_path: Path) -> Home:
    """A copy of it, to be killed on."""
    shutil.copytree(taught.root, tmp_path / "home")
    copy = Home.open(tmp_path / "home")
    settle(copy)
    return copy


@contextlib.contextmanager
def daemon(home: Home, failpoint: str = "") -> Iterator[RealDaemon]:
    with RealDaemon(home.root, ACCLIMATE_FAILPOINT=failpoint) as running:
        assert running.ready()
        yield running


def check(home: Home, daemon: RealDaemon, gone: list[bytes]) -> None:
    """Nothing is left of it, and what serves is the adapter that never knew."""
    assert traces(home, *gone) == []
    with contextlib.closing(sqlite3.connect(home.db)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        conn.execute("INSERT INTO chunks_fts(chunks_fts, rank) VALUES('integrity-check', 1)")
        conn.rollback()
        states = conn.execute("SELECT version, state FROM adapters ORDER BY version").fetchall()
    assert states == [(1, "ok"), (2, "retired")]
    assert [path.name for path in (home.root / "adapters").iterdir()] == ["v0001"]
    rounds = home.root / "cache" / "rounds"
    assert not rounds.is_dir() or list(rounds.iterdir()) == []
    assert daemon.call("GET", "/health")["live"] == "v0001"
    assert daemon.ask()["acclimate"]["adapter"] == "v0001"
    hits = daemon.call("POST", "/v1/search", {"query": SECRET})["hits"]
    assert not any(SECRET in hit["text"] for hit in hits)
    assert "Hello" in home.chat_history.read_text()


@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
def test_forgetting_killed_anywhere(home: Home, point: str) -> None:
    gone = vectors(home)
    wanted = {"matching": SECRET, "relearn": False}
    with daemon(home, point) as running:
        if point in AFTER[:3]:  # a round is running that has it, and that nobody ends
            running.add("late")
            running.call("POST", "/v1/rounds", {})
            assert traces(Home(home.root / "cache", ""))
        with pytest.raises(httpx.HTTPError):
            running.call("POST", "/v1/forget", wanted)
        assert running.process.wait(10) == -signal.SIGKILL
    with daemon(home) as running:
        if point in BEFORE:
            assert running.call("GET", "/health")["live"] == "v0002"
            assert running.call("GET", "/v1/receipts")["receipts"] == []
            done = running.call("POST", "/v1/forget", wanted)
            assert done["retired"] == ["v0002"] and done["live"] == "v0001"
        check(home, running, gone)
        (receipt,) = running.call("GET", "/v1/receipts")["receipts"]
        assert receipt["relearn"]["left"] == 1
        assert json.dumps(receipt).lower().count(SECRET.lower()) == 0
    assert traces(home, *gone) == [], "nor does its end write any of it"


def test_killed_again_while_a_start_clears_up(home: Home) -> None:
    gone = vectors(home)
    with daemon(home, "forget.committed") as running, contextlib.suppress(httpx.HTTPError):
        running.call("POST", "/v1/forget", {"matching": SECRET, "relearn": False})
    for point in ("remove_tree.renamed", "forget.removed", "forget.scrubbed", "forget.vectors"):
        with RealDaemon(home.root, ACCLIMATE_FAILPOINT=point) as running:
            assert not running.ready() and running.process.returncode == -signal.SIGKILL
    with daemon(home) as running:
        check(home, running, gone)


def test_the_rest_is_learned_again_and_the_text_never_comes_back(home: Home) -> None:
    gone = vectors(home)
    with daemon(home) as running:
        done = running.call("POST", "/v1/forget", {"matching": SECRET})
        assert done["started"] == 3 and running.wait(3)["state"] == "accepted"
        (receipt,) = running.call("GET", "/v1/receipts")["receipts"]
        assert receipt["relearn"] == {
            "state": "done", "wanted": True, "examples": 1, "left": 0, "rounds": [3],
        }  # fmt: skip
        assert running.call("GET", "/health")["live"] == "v0003"
        text = fact(SECRET)  # handed over once more
        running.call("POST", "/v1/examples", {"name": "again.jsonl", "text": text})
        assert running.call("GET", "/v1/status")["examples"]["pending"] == 0
        running.terminate(10)
    assert traces(home, *gone) == []
