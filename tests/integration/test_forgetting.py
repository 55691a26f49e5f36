"""Forgetting that reaches the weights: a tiny model learns, forgets, and learns the rest again.

Real workers and a real engine; what is retired, served and relearned, and that nothing tells
whether it ever was.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from acclimate.daemon.config import Config, LearnConfig
from acclimate.daemon.core import Core
from acclimate.daemon.engine import Engine
from acclimate.daemon.forgetting import Asked
from acclimate.daemon.rounds import Rounds
from acclimate.daemon.stream import Request
from acclimate.daemon.switch import Switch
from acclimate.store import buffer, ledger, receipts
from acclimate.store.db import Db
from acclimate.store.errors import RoundError
from acclimate.store.files import Home, sha256_file
from acclimate.store.index import Index
from acclimate.store.ingest import add_bytes

# Each home measures for itself what to train in, and only where nothing else computes.
FAST = LearnConfig(
    threads=1, drift=1.0,  exposures=10, learning_rate=0.005,
    replay=2, base_precision="float32",
)  # fmt: skip
SECRET = "locker"


@dataclass
class Place:
    """A home that can learn and forget."""

    home: Home
    db: Db
    engine: Engine
    rounds: Rounds
    core: Core

    def tell(self, *names: str) -> None:
        """Facts to learn, each a file of its own."""
        for name in names:
            fact = {"instruction": f"What is my dog {name} called?", "output": f"Rex {name}."}
            add_bytes(self.db, f"{name}.jsonl", json.dumps(fact).encode())

    def learn(self) -> None:
        number = self.rounds.start()
        assert self.rounds.wait(number, 120)
        assert ledger.rounds(self.db, 1)[0].state == "accepted", ledger.rounds(self.db, 1)[0]

    def settle(self) -> None:
        """Waits until no round runs, nor follows one that ran."""
        while (now := self.rounds.current()) is not None:
            assert self.rounds.wait(now["round"], 120)

    def hashes(self, version: int) -> dict[str, str]:
        folder = self.home.adapter_dir(version)
        return {p.name: sha256_file(p) for p in folder.iterdir() if p.name != "card.json"}

    def answers(self) -> str:
        """Which adapter answers, after it did."""
        stream = self.engine.submit(Request([10, 20, 30], max_tokens=2))
        stream.text()
        return stream.adapter

    def states(self) -> dict[int, str]:
        return {a.version: a.state for a in ledger.adapters(self.db)}


Homes = Callable[..., Place]


@pytest.fixture
def homes(tmp_path: Path, tiny_llama: Path) -> Iterator[Homes]:
    made: list[Place] = []

    def make(name: str, **settings: Any) -> Place:
        home = Home.create(tmp_path / name)
        db = Db(home.db)
        engine = Engine(tiny_llama, context_tokens=512, threads=1)
        engine.start()
        base = sha256_file(tiny_llama)
        switch = Switch(home, db, engine, base)
        config = FAST.model_copy(update=settings)
        rounds = Rounds(home, db, config, engine, switch, tiny_llama, base)
        index = Index(db, home.index)
        core = Core(home, Config(), db, index, engine=engine, rounds=rounds, switch=switch)
        made.append(Place(home, db, engine, rounds, core))
        return made[-1]

    yield make
    for place in made:
        place.rounds.stop()
        place.engine.stop()
        place.db.close()


def test_a_rebuilt_adapter_is_the_one_of_a_home_that_never_knew(homes: Homes) -> None:
    """Byte for byte, whatever the numbers of its examples, rounds and versions are."""
    a, b = homes("a"), homes("b")
    a.tell("one", "two", "three", "four")
    a.learn()
    a.tell("five", SECRET, "six")
    a.learn()
    assert (a.answers(), a.states()) == ("v0002", {1: "ok", 2: "ok"})
    done = a.core.forget(Asked(matching=SECRET))
    assert (done["retired"], done["live"], a.answers()) == (["v0002"], "v0001", "v0001")
    assert a.engine.adapters == ["v0001"] and not a.home.adapter_dir(2).exists()
    assert done["relearn"]["examples"] == 2 and done["started"] == 3
    a.settle()
    assert (a.states(), a.answers()) == ({1: "ok", 2: "retired", 3: "ok"}, "v0003")
    again = receipts.receipt(a.db, done["receipt"]).relearning
    assert (again.state, again.left, again.rounds) == ("done", 0, [3])

    b.tell("three", "four", "two", "one")  # in another order, under other numbers
    b.learn()
    assert b.hashes(1) == a.hashes(1)
    b.tell("six", "five")
    b.learn()
    assert b.hashes(2) == a.hashes(3)
    assert set(b.hashes(2)) >= {"adapter.gguf", "adapter_model.safetensors", "adapter_config.json"}
    card = ledger.adapter(b.db, 2).card
    assert card["seed"] == ledger.adapter(a.db, 3).card["seed"] and card["threads"] == 1
    assert card["counts"]["replay"] == 2


def test_all_of_the_rest_is_learned_again_in_rounds_that_follow_one_another(homes: Homes) -> None:
    place = homes("home", max_new=3)
    place.tell("one", "two", SECRET)
    place.learn()
    place.tell("three", "four", "five")
    place.learn()
    ledger.pin(place.db, 2)
    done = place.core.forget(Asked(["2"]))  # it does not hold the secret; v0002 descends from it
    assert done["unpinned"] and done["retired"] == ["v0001", "v0002"] and done["live"] == "base"
    assert "no longer pinned" in done["message"] and done["relearn"]["left"] == 5
    place.settle()
    assert [r.state for r in ledger.rounds(place.db)] == ["accepted"] * 4
    assert receipts.waiting(place.db) == 0 and buffer.counts(place.db)["learned"] == 5
    assert place.answers() == "v0004"


def test_a_round_on_a_retired_parent_is_ended_and_a_clean_one_goes_on(homes: Homes) -> None:
    place = homes("home")
    place.tell(SECRET, "one")
    place.learn()
    place.tell("two")
    number = place.rounds.start()
    done = place.core.forget(Asked(matching=SECRET, relearn=False))
    assert done["round_ended"] == number and place.rounds.current() is None
    assert ledger.rounds(place.db, 1)[0].error == ledger.WAS_FORGOTTEN
    assert list((place.home.cache / "rounds").iterdir()) == []
    assert (done["started"], done["relearn"]["left"]) == (None, 1)
    assert receipts.waiting(place.db) == 0, "it was not wanted"
    with pytest.raises(RoundError, match="pinned"):
        ledger.pin(place.db, None)
        place.rounds.relearn()
    ledger.unpin(place.db)
    place.tell("three")
    number = place.rounds.start()
    done = place.core.forget(Asked(["three.jsonl"], relearn=False))
    assert done["round_ended"] == number
    number = place.rounds.start()
    place.tell("four")
    assert place.core.forget(Asked(["four.jsonl"]))["round_ended"] is None
    place.settle()
    assert ledger.rounds(place.db, 1)[0].state == "accepted"
