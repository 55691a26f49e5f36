"""The benchmark's made-up past: all of it is worth a round, and no two of it are alike."""

import json
import sys
from pathlib import Path

from acclimate.daemon.study import study
from acclimate.store import buffer
from acclimate.store.balance import Caps
from acclimate.store.db import Db
from acclimate.store.ingest import add_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from continual import past

MANY = 400


def test_a_past_is_taught_whole(db: Db) -> None:
    spread = [n * 251 for n in range(MANY)]
    data = "\n".join(json.dumps(past.exchange(n)) for n in spread)
    assert add_bytes(db, "past.jsonl", data.encode()).examples == MANY
    assert study(db).superseded == 0
    taken = buffer.snapshot(db, limit=2 * MANY, replay=0, caps=Caps()).new
    assert len(taken) == MANY == len({e.cluster for e in taken}) == len({e.topic for e in taken})
    assert all(e.topic for e in taken)


def test_every_number_has_a_name_of_its_own() -> None:
    assert len({past.name(n) for n in range(150_000)}) == 150_000
