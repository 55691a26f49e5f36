"""Names of adapters, and an adapter that no round made, in the ledger."""

import sqlite3
from pathlib import Path

import pytest
import sqlite_utils
from sqlite_utils import Migrations

from acclimate.store import ledger, migrations, names, reconcile, retire
from acclimate.store.db import Db
from acclimate.store.errors import NotFound
from acclimate.store.files import Home, sha256_file
from acclimate.store.names import NameTaken


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture
def db(home: Home) -> Db:
    return Db(home.db)


def adopt(home: Home, db: Db, version: int, name: str | None = None, **how: bool) -> None:
    file = home.adapter_dir(version) / ledger.ADAPTER_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"GGUF")
    ledger.adopt(db, version, sha256_file(file), {"imported": {}}, name, **how)


@pytest.mark.parametrize("name", ["a", "x" * 64, "My_tone.v2-b", "0", "vocal", "v1x"])
def test_names_that_are_allowed(name: str) -> None:
    assert names.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a b",
        "a/b",
        "é",
        "a\n",
        "base",
        "Live",
        "ACCLIMATE",
        "embedder",
        "v0007",
        "V1",
    ],
)
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(ValueError):
        names.check_name(name)


def test_a_name_is_given_once_taken_over_and_taken_away(home: Home, db: Db) -> None:
    adopt(home, db, 1, "tone")
    with pytest.raises(NameTaken):
        adopt(home, db, 2, "tone")
    assert [a.version for a in ledger.adapters(db)] == [1], "all of it or nothing"
    adopt(home, db, 2, "tone", take_over=True)
    names.give(db, "old", 1)
    assert names.names(db) == {"old": 1, "tone": 2}
    assert names.take_away(db, "tone") == 2
    with pytest.raises(NotFound):
        names.take_away(db, "tone")
    assert names.version_of(db, "tone") is None and ledger.adapter(db, 2).state == "ok"


def test_what_no_round_made_is_an_adapter_like_any_other(home: Home, db: Db) -> None:
    adopt(home, db, 1)
    found = ledger.adapter(db, 1)
    assert (found.round_id, found.parent, found.scale) == (None, None, 1.0)
    assert ledger.live(db) is None, "it is not made live"
    ledger.set_live(db, 1, "rollback")
    assert reconcile.reconcile(db, home) == []
    assert retire.retire(db, [1, 2]).versions == [] and ledger.live(db) == 1
    assert ledger.next_version(db) == 2


def test_an_older_home_keeps_which_round_made_what(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    old = sqlite_utils.Database(path)
    old.conn.execute("PRAGMA foreign_keys = ON")
    steps = Migrations("acclimate")
    for step in migrations.STEPS[:15]:
        steps()(step)
    steps.apply(old)
    with old.conn:
        old.conn.executescript(
            "INSERT INTO rounds(id, parent, state, started_at, seed) VALUES"
            " (1, NULL, 'accepted', 0, 1), (3, 1, 'accepted', 0, 1);"
            "INSERT INTO adapters(version, parent, round_id, sha256, scale, card, created_at)"
            " VALUES (1, NULL, 1, 'a', 1, '{}', 0), (2, 1, 3, 'b', 1, '{}', 0);"
        )
    old.close()
    db = Db(path)
    assert [(a.version, a.parent, a.round_id) for a in ledger.adapters(db)] == [
        (1, None, 1),
        (2, 1, 3),
    ]
    assert ledger.made_by(db, 3) == 2 and db.integrity_check() == []
    with pytest.raises(sqlite3.IntegrityError), db.write() as conn:
        conn.execute("UPDATE adapters SET round_id = 2 WHERE version = 1")
    db.close()
