"""What looks for losses after a kill must see them: each kind is made here on purpose."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from after_kill import Findings, Look, Promised
from real_daemon import fact

from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file
from acclimate.store.ingest import add_bytes


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with three examples, two of them learned by a live adapter."""
    home = Home.create(tmp_path / "home")
    with closing(Db(home.db)) as db:
        for name in ("n1", "n2", "n3"):
            add_bytes(db, f"{name}.jsonl", fact(name).encode())
        folder = home.adapter_dir(1)
        folder.mkdir()
        (folder / "adapter.gguf").write_bytes(b"weights")
        digest = sha256_file(folder / "adapter.gguf")
        number = ledger.start_round(db, None, 1, [1, 2])
        ledger.publish(
            db, number, 1, None, digest, 1.0, {"files": {"adapter.gguf": digest}}, [1, 2]
        )
    return home


def look(home: Home) -> Findings:
    names = {"n1", "n2", "n3"}
    promised = Promised(home.root, names=names, sent=names, versions={"v0001"}, live={"v0001"})
    found = Findings()
    with closing(sqlite3.connect(home.db)) as conn:
        Look(home.root, promised, conn, found).stopped()
    return found


def change(*statements: str) -> Callable[[Home], None]:
    def run(home: Home) -> None:
        with closing(sqlite3.connect(home.db)) as conn, conn:
            for statement in statements:
                conn.execute(statement)

    return run


def spoil(home: Home) -> None:
    (home.adapter_dir(1) / "adapter.gguf").write_bytes(b"weighty")


def double(home: Home) -> None:
    content = json.dumps({"messages": [
        {"role": "user", "content": "What is my dog n1 called?"},
        {"role": "assistant", "content": "Rex n1."},
    ]})  # fmt: skip
    change(
        "INSERT INTO examples(sha256, kind, content, prompt_sha256, created_at)"  # noqa: S608
        f" VALUES ('x', 'exchange', '{content}', 'x', 0)"
    )(home)


def test_a_whole_home_has_nothing_to_find(home: Home) -> None:
    assert look(home) == Findings()


@pytest.mark.parametrize(
    ("harm", "kind", "words"),
    [
        (change("DELETE FROM examples WHERE id = 3"), "lost", "example n3"),
        (change("UPDATE examples SET state = 'forgotten' WHERE id = 3"), "lost", "forgotten"),
        (change("DELETE FROM chunks WHERE id = 3"), "lost", "chunk n3"),
        (double, "doubled", "example n1"),
        (
            change(
                "INSERT INTO chunks(document_id, ordinal, text, start_line, end_line)"
                " SELECT document_id, 7, text, 1, 1 FROM chunks WHERE id = 1"
            ),
            "doubled",
            "chunk n1",
        ),
        (change("UPDATE examples SET state = 'pending' WHERE id = 1"), "other", "in part"),
        (change("UPDATE settings SET value = 'null' WHERE key = 'live'"), "other", "last swap"),
        (
            change(
                "UPDATE settings SET value = 'null' WHERE key = 'live'",
                "INSERT INTO swaps(from_version, to_version, reason, at) VALUES (1, NULL, '', 0)",
                "UPDATE examples SET state = 'pending'",
            ),
            "other",
            "acknowledged was",
        ),
        (
            change("INSERT INTO swaps(from_version, to_version, reason, at) VALUES (5, 1, '', 0)"),
            "other",
            "a swap begins",
        ),
        (spoil, "other", "not whole"),
        (lambda home: shutil.rmtree(home.adapter_dir(1)), "other", "not whole"),
        (
            change("DELETE FROM swaps", "DELETE FROM adapters", "DELETE FROM settings"),
            "lost",
            "adapter v0001",
        ),
        (
            change("INSERT INTO chunks_fts(rowid, text) VALUES (99, 'nothing')"),
            "other",
            "full-text",
        ),
    ],
)
def test_every_harm_is_found(
    home: Home, harm: Callable[[Home], None], kind: str, words: str
) -> None:
    harm(home)
    assert words in " ".join(getattr(look(home), kind))
