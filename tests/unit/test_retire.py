"""Who is retired when something is forgotten, what serves then, and what waits again."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lessons import add_rows

from acclimate.store import files, ledger, receipts, retire
from acclimate.store.db import Db
from acclimate.store.errors import NotFound, RoundError
from acclimate.store.reconcile import reconcile


@pytest.fixture
def home(tmp_path: Path) -> files.Home:
    return files.Home.create(tmp_path / "home")


@pytest.fixture
def db(home: files.Home) -> Iterator[Db]:
    db = Db(home.db)
    add_rows(db, 8)
    yield db
    db.close()


def publish(
    db: Db,
    home: files.Home,
    new: Sequence[int],
    replay: Sequence[int] = (),
    held_out: Sequence[int] = (),
) -> int:
    """One accepted round, the way a daemon does it."""
    parent = ledger.live(db)
    round_id = ledger.start_round(db, parent, 1, new, replay, held_out)
    version = ledger.next_version(db)
    home.adapter_dir(version).mkdir()
    data = f"adapter {version}".encode()
    (home.adapter_dir(version) / ledger.ADAPTER_FILE).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    ledger.publish(db, round_id, version, parent, sha256, 1.0, {}, new, held_out)
    return version


def forget(db: Db, *example_ids: int, relearn: bool = True) -> tuple[retire.Retired, int]:
    """What a forgetting decides about adapters, with its receipt."""
    with db.write() as conn:
        conn.executemany(
            "UPDATE examples SET state = 'forgotten', reason = 'forgotten on request' WHERE id = ?",
            [(n,) for n in example_ids],
        )
        retired = retire.retire(db, example_ids)
        return retired, receipts.add(conn, {"examples": len(example_ids)}, retired, relearn)


def states(db: Db) -> dict[int, str]:
    return dict(map(tuple, db.read().execute("SELECT id, state FROM examples").fetchall()))


def test_who_rehearsed_it_is_retired_too_and_other_branches_are_not(
    db: Db, home: files.Home
) -> None:
    publish(db, home, [1, 2])
    publish(db, home, [3], replay=[1])
    ledger.set_live(db, None, "rollback")
    publish(db, home, [4])  # v3 descends from the base
    publish(db, home, [5])
    retired, _ = forget(db, 2)
    assert (retired.versions, retired.live, retired.live_before) == ([1, 2], 4, 4)
    assert not retired.unpinned and retired.round_ended is None
    assert retired.relearn == [1, 3], "what only the retired ones had learned"
    assert (ledger.live(db), next(s.to_version for s in ledger.swaps(db))) == (4, 4)
    assert [a.state for a in ledger.adapters(db)] == ["retired", "retired", "ok", "ok"]


def test_live_moves_to_the_last_ancestor_that_never_knew(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    publish(db, home, [2], held_out=[3])
    publish(db, home, [3, 4], held_out=[5])
    publish(db, home, [6], held_out=[7])
    ledger.pin(db, 4)
    retired, _ = forget(db, 4)
    assert (retired.versions, retired.live, retired.unpinned) == ([3, 4], 2, True)
    assert (ledger.live(db), ledger.pinned(db)) == (2, False)
    assert ledger.swaps(db)[0].reason == "forget"
    # As if the retired rounds had never been: 3 was held out by a round that stands.
    wanted = {1: "learned", 2: "learned", 4: "forgotten"}
    assert states(db) == dict.fromkeys(range(1, 9), "pending") | wanted
    assert retired.relearn == [3, 6]
    done = retire.clear(db, home, lambda: None)
    assert len(done) == 3 and retire.clear(db, home, lambda: None) == []
    assert sorted(p.name for p in home.adapters.iterdir()) == ["v0001", "v0002"]
    assert [a.reason for a in ledger.adapters(db)] == ["", "", *[retire.LEARNED_IT] * 2]


def test_a_round_on_a_retired_adapter_is_never_published(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    round_id = ledger.start_round(db, 1, 1, [2])
    retired, _ = forget(db, 1)
    assert retired.round_ended == round_id
    with pytest.raises(RoundError, match=ledger.WAS_FORGOTTEN):
        ledger.publish(db, round_id, 2, 1, "", 1.0, {}, [2])


def test_what_a_kill_left_is_cleared_at_the_next_start(db: Db, home: files.Home) -> None:
    publish(db, home, [1])
    forget(db, 1)
    home.index.write_bytes(b"old vectors")
    (home.root / ".tmp-chat_history-0a").write_text("words")
    assert home.adapter_dir(1).is_dir()
    assert len(reconcile(db, home)) == 2
    assert list(home.adapters.iterdir()) == [] and not home.index.exists()
    assert not list(home.root.glob(".tmp-*"))
    assert reconcile(db, home) == []


def test_relearning_waits_until_all_is_taught_or_too_much_was_rejected(
    db: Db, home: files.Home
) -> None:
    publish(db, home, [1, 2, 3, 4])
    assert receipts.waiting(db) == 0
    _, number = forget(db, 1)
    assert receipts.waiting(db) == 3
    assert receipts.receipt(db, number).relearning == receipts.Relearning("waits", True, 3, 3, [])
    publish(db, home, [2, 3])
    for _ in range(receipts.RELEARN_TRIES):
        assert receipts.waiting(db) == 1
        round_id = ledger.start_round(db, 2, 1, [4])
        ledger.finish_round(db, round_id, "rejected")
    assert receipts.waiting(db) == 0, "it would be rejected again"
    publish(db, home, [4])
    (receipt,) = receipts.receipts(db)
    assert receipt.relearning == receipts.Relearning("done", True, 3, 0, [2, 3, 4, 5, 6])
    assert (receipt.retired, receipt.live, receipt.removed) == ([1], None, {"examples": 1})
    with pytest.raises(NotFound):
        receipts.receipt(db, 9)


def test_what_waits_again_counts_although_the_last_round_was_rejected(
    db: Db, home: files.Home
) -> None:
    publish(db, home, [1, 2, 3])
    round_id = ledger.start_round(db, 1, 1, [4, 5, 6, 7, 8])
    ledger.finish_round(db, round_id, "rejected")
    assert ledger.waiting(db) == 0
    forget(db, 1, relearn=False)
    assert (ledger.waiting(db), receipts.waiting(db)) == (7, 0)
