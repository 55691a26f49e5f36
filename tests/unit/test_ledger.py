"""Rounds, publishing, the live pointer, and reconciling after a crash."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from lessons import add_rows

from acclimate.store import buffer, carried, files, ledger
from acclimate.store.db import Db
from acclimate.store.errors import Detached, NotFound, RoundError, StoreError
from acclimate.store.reconcile import reconcile


@pytest.fixture
def home(tmp_path: Path) -> files.Home:
    return files.Home.create(tmp_path / "home")


@pytest.fixture
def db(home: files.Home) -> Iterator[Db]:
    db = Db(home.db)
    add_rows(db, 6)
    yield db
    db.close()


def publish(db: Db, home: files.Home, new: list[int], held_out: list[int] = []) -> int:  # noqa: B006
    """One accepted round, the way a daemon does it."""
    parent = ledger.live(db)
    round_id = ledger.start_round(db, parent, 1, new, [], held_out)
    version = ledger.next_version(db)
    temp = files.temp_folder(home.adapters)
    data = f"adapter {version}".encode()
    (temp / ledger.ADAPTER_FILE).write_bytes(data)
    files.publish_folder(temp, home.adapter_dir(version))
    sha256 = hashlib.sha256(data).hexdigest()
    card = {"round": round_id}
    ledger.publish(db, round_id, version, parent, sha256, 1.0, card, new, held_out, {"gain": 1.0})
    return version


def states(db: Db) -> dict[int, str]:
    return dict(map(tuple, db.read().execute("SELECT id, state FROM examples").fetchall()))


def test_a_published_round_moves_everything_together(db: Db, home: files.Home) -> None:
    assert ledger.live(db) is None
    assert publish(db, home, [1, 2], [3]) == 1
    assert ledger.live(db) == 1
    assert states(db) == {
        1: "learned",
        2: "learned",
        3: "held-out",
        4: "pending",
        5: "pending",
        6: "pending",
    }
    (only,) = ledger.rounds(db)
    assert (only.state, only.measures, only.counts) == (
        "accepted",
        {"gain": 1.0},
        {"new": 2, "held-out": 1},
    )
    (swap,) = ledger.swaps(db)
    assert (swap.from_version, swap.to_version, swap.reason) == (None, 1, "round")
    assert ledger.adapter(db, 1).card == {"round": only.id}


def test_publishing_that_fails_changes_nothing(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    round_id = ledger.start_round(db, 1, 1, [2])
    before = states(db)
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.publish(db, round_id, 1, 1, "", 1.0, {}, [2])
    assert states(db) == before
    assert ledger.rounds(db)[0].state == "running"
    assert len(ledger.adapters(db)) == len(ledger.swaps(db)) == 1


def test_a_forgotten_example_stays_forgotten(db: Db, home: files.Home) -> None:
    with db.write() as conn:
        conn.execute("UPDATE examples SET state = 'forgotten' WHERE id = 1")
    publish(db, home, [1, 2])
    assert states(db)[1] == "forgotten"


def test_one_round_at_a_time_and_each_ends_once(db: Db) -> None:
    round_id = ledger.start_round(db, None, 1, [1])
    with pytest.raises(RoundError):
        ledger.start_round(db, None, 1, [2])
    ledger.finish_round(db, round_id, "rejected", {"x": 1}, ["general ability fell"])
    with pytest.raises(RoundError):
        ledger.finish_round(db, round_id, "failed")
    (only,) = ledger.rounds(db)
    assert (only.state, only.reasons) == ("rejected", ["general ability fell"])
    assert states(db)[1] == "pending"


def test_pinned_stays_live_until_unpinned(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    ledger.pin(db, 1)
    assert publish(db, home, [2]) == 2
    assert (ledger.live(db), ledger.pinned(db)) == (1, True)
    ledger.unpin(db)
    ledger.set_live(db, 2, "rollback")
    ledger.set_live(db, None, "rollback")
    ledger.set_live(db, None, "rollback")
    assert [s.to_version for s in ledger.swaps(db)] == [None, 2, 1]
    with pytest.raises(NotFound):
        ledger.set_live(db, 9, "rollback")


def test_lineage_and_who_learned_what(db: Db, home: files.Home) -> None:
    publish(db, home, [1], [2])
    publish(db, home, [2, 3])
    ledger.set_live(db, 1, "rollback")
    publish(db, home, [4])  # v3 descends from v1
    assert ledger.line(db, 3) == [3, 1]
    assert carried.taught(db.read(), [3, 1]) == [(1, 1), (3, 4)]
    assert carried.beyond(db.read(), [2], 3) == [2, 3]
    assert ledger.learners(db, [1]) == [1, 2, 3]
    assert ledger.learners(db, [2]) == [2]
    assert ledger.learners(db, [4, 5]) == [3]
    with pytest.raises(NotFound):
        ledger.line(db, 4)


def test_reconcile_follows_the_last_committed_transaction(db: Db, home: files.Home) -> None:
    for n in (1, 2, 3):
        publish(db, home, [n])
    ledger.start_round(db, 3, 1, [4])
    half = files.temp_folder(home.adapters)
    (half / "adapter.gguf").write_bytes(b"ha")
    home.adapter_dir(4).mkdir()  # renamed, but its transaction never came
    (home.adapters / "README").write_text("a person's own file")
    files.remove_tree(home.adapter_dir(3))
    (home.adapter_dir(2) / ledger.ADAPTER_FILE).write_bytes(b"bit rot")
    done = reconcile(db, home)
    assert len(done) == 6
    assert sorted(p.name for p in home.adapters.iterdir()) == ["README", "v0001", "v0002"]
    assert [a.state for a in ledger.adapters(db)] == ["ok", "retired", "retired"]
    assert ledger.live(db) == 1
    assert ledger.swaps(db)[0].reason == "repair"
    last = ledger.rounds(db)[0]
    assert (last.state, last.error) == ("failed", "interrupted")
    assert states(db)[4] == "pending"
    assert reconcile(db, home) == []
    assert ledger.next_version(db) == 4
    with pytest.raises(StoreError):
        ledger.set_live(db, 3, "rollback")


def test_reconcile_reaches_the_base_when_nothing_is_left(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    files.remove_tree(home.adapter_dir(1))
    reconcile(db, home)
    assert ledger.live(db) is None


def test_reconcile_believes_no_pulled_drive(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    home.marker.unlink()
    with pytest.raises(Detached):
        reconcile(db, home)
    assert ledger.live(db) == 1


def test_what_an_abandoned_adapter_learned_waits_again(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    publish(db, home, [2])
    ledger.set_live(db, 1, "rollback")
    assert (states(db)[1], states(db)[2]) == ("learned", "pending")
    ledger.set_live(db, 2, "roll forward")
    assert (states(db)[1], states(db)[2]) == ("learned", "learned")


def test_what_a_round_beside_a_pinned_adapter_learned_waits(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    ledger.pin(db, 1)
    publish(db, home, [2])
    assert (ledger.live(db), states(db)[2]) == (1, "pending")


def test_a_rollback_while_a_round_runs_is_not_undone(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    round_id = ledger.start_round(db, 1, 1, [2])
    ledger.set_live(db, None, "rollback")
    ledger.publish(db, round_id, 2, 1, "", 1.0, {}, [2], reasons=["well"])
    assert ledger.live(db) is None
    assert ledger.adapter(db, 2).parent == 1
    assert [s.reason for s in ledger.swaps(db)] == ["rollback", "round"]
    newest = ledger.rounds(db, 1)[0]
    assert newest.state == "accepted"
    assert newest.reasons == ["well", "not made live: live moved to base while the round ran"]
    assert states(db)[1] == states(db)[2] == "pending"
    ledger.set_live(db, 2, "rollback")
    assert states(db)[1] == states(db)[2] == "learned"


def test_a_round_with_a_forgotten_example_is_not_published(db: Db) -> None:
    round_id = ledger.start_round(db, None, 1, [1], [2], [3])
    assert ledger.uses(db, round_id, [9, 2]) and not ledger.uses(db, round_id, [4])
    buffer.mark(db, [2], "forgotten", buffer.FORGOTTEN)
    with pytest.raises(RoundError, match=ledger.WAS_FORGOTTEN):
        ledger.publish(db, round_id, 1, None, "", 1.0, {}, [1])
    assert ledger.adapters(db) == [] and ledger.rounds(db)[0].state == "running"


def test_after_a_rollback_an_older_reply_does_not_wait_beside_its_newer_one(
    db: Db, home: files.Home
) -> None:
    with db.write() as conn:
        conn.execute("INSERT INTO sources(id, path, kind, added_at) VALUES (1, '/s', 'chat', 0)")
        conn.execute("UPDATE examples SET source_id = 1, prompt_sha256 = 'q' WHERE id IN (1, 3, 5)")
    publish(db, home, [1, 2])
    publish(db, home, [3])
    ledger.set_live(db, None, "rollback")
    assert states(db) == {n: "forgotten" if n in (1, 3) else "pending" for n in range(1, 7)}
    assert buffer.get(db, 1).reason == buffer.get(db, 3).reason == "superseded by 5"
    ledger.set_live(db, 1, "rollback")
    assert [states(db)[n] for n in (1, 2, 3, 5)] == ["learned", "learned", "forgotten", "pending"]
    assert buffer.get(db, 1).reason == ""
    ledger.set_live(db, 2, "rollback")
    assert [states(db)[n] for n in (1, 3, 5)] == ["learned", "learned", "pending"]


def test_after_a_rejection_only_what_is_new_counts(db: Db, home: files.Home) -> None:
    assert ledger.waiting(db) == 6
    round_id = ledger.start_round(db, None, 1, [1, 2, 3, 4])
    ledger.finish_round(db, round_id, "rejected", {}, ["general"])
    assert ledger.waiting(db) == 2
    publish(db, home, [1, 2, 3, 4, 5])
    assert ledger.waiting(db) == 1


def test_what_is_learned_is_what_live_carries_whatever_was_moved(db: Db, home: files.Home) -> None:
    with db.write() as conn:
        conn.executemany(
            "INSERT INTO examples(sha256, kind, content, prompt_sha256, created_at)"
            " VALUES (?1, 'exchange', '{}', ?1, 0)",
            [(f"more {n}",) for n in range(24)],
        )
    rng = random.Random(3)
    for _ in range(60):
        versions = [None, *(a.version for a in ledger.adapters(db))]
        act = rng.choice(["round", "round", "move", "pin", "unpin", "moved meanwhile"])
        waiting = [n for n, state in states(db).items() if state == "pending"]
        new = rng.sample(waiting, min(3, len(waiting)))
        if act == "round":
            publish(db, home, new)
        elif act == "moved meanwhile":
            parent = ledger.live(db)
            round_id = ledger.start_round(db, parent, 1, new)
            ledger.set_live(db, rng.choice(versions), "rollback")
            ledger.publish(db, round_id, ledger.next_version(db), parent, "", 1.0, {}, new)
        elif act == "unpin":
            ledger.unpin(db)
        else:
            move = ledger.pin if act == "pin" else lambda db, v: ledger.set_live(db, v, "rollback")
            move(db, rng.choice(versions))
        live = ledger.live(db)
        line = carried.line(db.read(), live)
        taught = {example for _, example in carried.taught(db.read(), line)}
        assert taught == {n for n, state in states(db).items() if state == "learned"}
