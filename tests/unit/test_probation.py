"""Probation: the statistics, the verdicts, and what the ledger makes of an adapter taken back."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.probation import (
    ProbationConfig,
    Rated,
    by_losses,
    by_ratings,
    fisher,
    predecessors,
)
from acclimate.daemon import history
from acclimate.daemon.config import Config
from acclimate.daemon.probation import findings, state, tells_something
from acclimate.store import buffer, conversations, ledger, probation
from acclimate.store.balance import TAKEN_BACK
from acclimate.store.db import Db
from acclimate.store.forget import Wanted, forget
from acclimate.store.probation import OnProbation

CONFIG = ProbationConfig()


# Decisions


def counted(live: Rated, before: Rated) -> float:
    """The same probability, by counting every way to choose which replies are the live ones."""
    replies = [1] * (live.bad + before.bad)
    replies += [0] * (live.rated + before.rated - len(replies))
    ways = [sum(chosen) for chosen in itertools.combinations(replies, live.rated)]
    return sum(bad >= live.bad for bad in ways) / len(ways)


small = st.integers(0, 6).flatmap(lambda n: st.builds(Rated, st.integers(0, n), st.just(n)))


@given(small, small)
def test_fishers_test_counts_the_ways(live: Rated, before: Rated) -> None:
    assert fisher(live, before) == pytest.approx(counted(live, before))


def test_fishers_test_on_the_tea() -> None:
    """Fisher's own example (1935): three of four cups."""
    assert fisher(Rated(3, 4), Rated(1, 4)) == pytest.approx(17 / 70)


@pytest.mark.parametrize(
    ("live", "before", "verdict"),
    [
        (Rated(9, 12), Rated(2, 15), "worse"),
        (Rated(7, 7), Rated(0, 20), "open"),  # too few yet
        (Rated(8, 8), Rated(0, 20), "worse"),
        (Rated(8, 8), Rated(8, 8), "open"),  # before it was no better
        (Rated(8, 8), Rated(0, 0), "open"),  # nothing is known of before
        (Rated(3, 12), Rated(2, 15), "open"),  # chance
        (Rated(6, 30), Rated(3, 15), "fine"),
        (Rated(25, 30), Rated(1, 15), "worse"),
    ],
)
def test_ratings(live: Rated, before: Rated, verdict: str) -> None:
    assert by_ratings(live, before, CONFIG).verdict == verdict


def test_ratings_are_told_in_plain_words() -> None:
    said = by_ratings(Rated(9, 12), Rated(2, 15), CONFIG).said
    assert said == "9 of 12 rated replies were bad, 2 of 15 before"


def test_somebody_as_content_as_before_hardly_ever_loses_an_adapter() -> None:
    """Every new rating is looked at: the whole probation must keep to little more than 1 %."""
    rng = random.Random(5)
    taken = 0
    for _ in range(600):
        before = Rated(sum(rng.random() < 0.4 for _ in range(20)), 20)
        bad = [rng.random() < 0.4 for _ in range(CONFIG.enough_ratings)]
        looks = range(1, len(bad) + 1)
        found = (by_ratings(Rated(sum(bad[:n]), n), before, CONFIG) for n in looks)
        taken += any(f.verdict == "worse" for f in found)
    assert taken / 600 < 0.04


def test_only_as_many_predecessors_are_asked_as_it_takes() -> None:
    asked = []

    def of(*rated: Rated) -> Iterator[Rated]:
        for one in rated:
            asked.append(one)
            yield one

    parent, older, base = Rated(1, 5), Rated(2, 4), Rated(20, 20)
    assert predecessors(of(parent, older, base), CONFIG) == Rated(3, 9)
    assert predecessors(of(Rated(0, 8), base), CONFIG) == Rated(0, 8)
    assert predecessors([], CONFIG) == Rated()


def noisy(rise: float, count: int, spread: float = 0.1) -> list[tuple[float, float]]:
    rng = random.Random(3)
    befores = [rng.uniform(1, 3) for _ in range(count)]
    return [(b, b + rise + spread * (-1) ** n) for n, b in enumerate(befores)]


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        (noisy(2.0, 7), "open"),  # too few yet
        (noisy(0.3, 8), "worse"),
        (noisy(0.1, 8), "open"),  # over the limit, not surely
        (noisy(0.1, 60), "worse"),
        (noisy(0.0, 8), "open"),
        (noisy(0.0, 60), "fine"),
        (noisy(-0.3, 8), "fine"),
        ([(1.0, 1.0)] * 8, "fine"),
    ],
)
def test_losses(pairs: list[tuple[float, float]], verdict: str) -> None:
    assert by_losses(pairs, CONFIG).verdict == verdict


nll = st.floats(0, 20)


@given(st.lists(st.tuples(nll, nll), min_size=8, max_size=30), st.floats(0.001, 5))
def test_a_worse_adapter_is_never_judged_better(
    pairs: list[tuple[float, float]], more: float
) -> None:
    order = ["fine", "open", "worse"]
    before = order.index(by_losses(pairs, CONFIG).verdict)
    assert order.index(by_losses([(b, n + more) for b, n in pairs], CONFIG).verdict) >= before


# What the store keeps and what follows


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Db]:
    db = Db(tmp_path / "a.db")
    yield db
    assert db.integrity_check() == []
    db.close()


def add(db: Db, *numbers: int, **columns: object) -> None:
    """Pending exchanges, each with its number in it."""
    for number in numbers:
        asked = {"role": "user", "content": f"Write something about {number}."}
        reply = {"role": "assistant", "content": f"Something about {number}."}
        row: dict[str, object] = {
            "id": number,
            "sha256": str(number),
            "kind": "exchange",
            "content": json.dumps({"messages": [asked, reply]}),
            "prompt_sha256": str(number),
            "created_at": 0,
            **columns,
        }
        names = ", ".join(row)
        with db.write() as conn:
            conn.execute(
                f"INSERT INTO examples({names}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
                tuple(row.values()),
            )


def promote(db: Db, *new: int, key: str = "", held_out: list[int] | None = None) -> int:
    """A round that taught these and whose adapter is live now."""
    parent, version = ledger.live(db), ledger.next_version(db)
    held_out = held_out or []
    number = ledger.start_round(db, parent, 1, new, [], held_out, key)
    ledger.publish(db, number, version, parent, "", 1.0, {}, new, held_out)
    return version


def take_back(db: Db) -> None:
    version = ledger.live(db)
    assert version is not None
    to = ledger.whole_ancestor(db, version)
    ledger.set_live(db, to, ledger.PROBATION, "9 of 12 rated replies were bad, 2 of 15 before")


def test_only_what_a_round_made_live_is_on_probation(db: Db) -> None:
    add(db, 1, 2)
    assert probation.current(db) is None and state(db, CONFIG) is None
    promote(db, 1)
    assert probation.current(db) == OnProbation(1, None)
    promote(db, 2)
    assert probation.current(db) == OnProbation(2, 1)
    ledger.pin(db, 2)
    assert probation.current(db) is None
    ledger.unpin(db)
    assert probation.current(db) == OnProbation(2, 1)
    assert state(db, ProbationConfig(enabled=False)) is None
    ledger.set_live(db, 1, "rollback")
    assert probation.current(db) is None  # the person chose it
    ledger.set_live(db, 2, "rollback")
    assert probation.current(db) is None


def test_what_took_an_adapter_back_is_told_until_live_moves_again(db: Db) -> None:
    add(db, 1, 2)
    promote(db, 1)
    promote(db, 2)
    take_back(db)
    said = "rolled back to v0001: 9 of 12 rated replies were bad, 2 of 15 before"
    assert history.notice(db) == f"v0002 {said}"
    assert [a["taken_back"] for a in history.history(db)["adapters"]] == [said, ""]
    assert history.show(db, "v0002")["taken_back"] == said
    assert history.history(db)["swaps"][0]["why"].startswith("9 of 12")
    assert probation.current(db) is None
    ledger.set_live(db, 2, "rollback")
    assert history.notice(db) == ""


def test_the_last_rating_of_a_reply_counts_for_what_gave_it(db: Db) -> None:
    def rate(adapter: str, *ratings: str) -> None:
        asked = [{"role": "user", "content": "hi"}]
        message = conversations.save_exchange(db, None, asked, "hello", adapter)
        for rating in ratings:
            edit = "Hello." if rating == "edit" else None
            conversations.add_feedback(db, message, rating, edit)  # type: ignore[arg-type]

    rate("base", "good")
    rate("v0001", "bad", "good")
    rate("v0001", "good", "bad")
    rate("v0001", "edit")
    rate("v0001")
    assert conversations.ratings(db) == {"base": [False], "v0001": [False, True, True]}
    add(db, 1)
    promote(db, 1)
    ratings, losses = findings(db, OnProbation(1, None), CONFIG)
    assert ratings.said == "2 of 3 rated replies were bad, 0 of 1 before"
    assert losses.said == "0 of at least 8 exchanges measured"
    now = state(db, Config().probation)
    assert now is not None and (now["adapter"], now["against"]) == ("v0001", "base")


def test_losses_are_measured_on_what_neither_was_taught(db: Db) -> None:
    add(db, 1, 2, 3)
    add(db, 4, route="retrieval")
    add(db, 5, kind="preference", route="preference")
    add(db, 6, origin="note")
    add(db, 7, cluster=1)
    add(db, 8)
    with db.write() as conn:
        conn.execute("UPDATE examples SET cluster = 1 WHERE id = 1")
    promote(db, 1, held_out=[2])
    on = OnProbation(1, None)
    found = []
    while (example := probation.unmeasured(db, on, [8])) is not None:
        found.append(example.id)
        probation.record(db, on, example.id, 1.0, 2.0)
    assert found == [3, 2]
    # Another pair of adapters is measured anew.
    assert probation.losses(db, OnProbation(1, 1)) == []
    assert probation.losses(db, on) == [(1.0, 2.0)] * 2


def test_forgetting_an_example_removes_its_evidence(db: Db, tmp_path: Path) -> None:
    add(db, 1, 2, 3)
    promote(db, 1)
    on = OnProbation(1, None)
    probation.record(db, on, 2, 1.0, 2.0)
    probation.record(db, on, 3, 1.0, 3.0)
    forget(db, Wanted(examples=[2]), tmp_path / "lines")
    assert probation.losses(db, on) == [(1.0, 3.0)]
    probation.record(db, on, 2, 1.0, 2.0)  # it was being measured just then
    assert probation.losses(db, on) == [(1.0, 3.0)]


def test_the_same_round_is_not_repeated_after_its_adapter_was_taken_back(db: Db) -> None:
    add(db, 1, 2)
    promote(db, 1, 2, key="same")
    assert ledger.rejections(db, "same") == 0
    take_back(db)
    # They wait, and do not start a round by themselves; another seed if one is asked for.
    assert buffer.counts(db)["pending"] == 2 and ledger.waiting(db) == 0
    assert ledger.rejections(db, "same") == 1 and ledger.rejections(db, "other") == 0
    add(db, 3)
    assert ledger.waiting(db) == 1


def test_what_was_taken_back_twice_waits_until_another_adapter_is_live(db: Db) -> None:
    add(db, 1, 2)
    promote(db, 1)
    take_back(db)
    assert ledger.often_taken_back(db, None) == []
    promote(db, 1, 2)
    take_back(db)
    lost = ledger.often_taken_back(db, None)
    assert lost == [1]
    add(db, 3)
    taken = buffer.snapshot(db, limit=10, replay=0, taken_back=lost)
    assert [e.id for e in taken.new] == [2, 3]
    assert buffer.get(db, 1).reason == TAKEN_BACK and buffer.held_back(db) == {TAKEN_BACK: 1}
    version = promote(db, 3)
    assert ledger.often_taken_back(db, version) == []
    taken = buffer.snapshot(db, limit=10, replay=0)
    assert [e.id for e in taken.new] == [1, 2] and buffer.held_back(db) == {}


def test_what_is_forgotten_stays_so_though_it_was_taken_back(db: Db, tmp_path: Path) -> None:
    add(db, 1)
    for _ in range(2):
        promote(db, 1)
        take_back(db)
    forget(db, Wanted(examples=[1]), tmp_path / "lines")
    buffer.snapshot(db, limit=10, replay=0, taken_back=ledger.often_taken_back(db, None))
    assert buffer.get(db, 1).reason == buffer.FORGOTTEN


def test_facts_tell_nothing(db: Db) -> None:
    def example(number: int, question: str, reply: str, language: str = "en") -> buffer.Example:
        asked, said = (
            {"role": r, "content": c} for r, c in (("user", question), ("assistant", reply))
        )
        add(db, number, content=json.dumps({"messages": [asked, said]}), language=language)
        return buffer.get(db, number)

    assert not tells_something(example(1, "What is my dog called?", "Rex."))
    assert not tells_something(example(2, "Wie heißt mein Hund?", "Rex.", "de"))
    assert tells_something(example(3, "Write a haiku.", "An old silent pond."))
    assert tells_something(example(4, "Erzähl mir etwas.", "Es war einmal ein Hund. " * 10, "de"))
