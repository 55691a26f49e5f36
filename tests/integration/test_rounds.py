"""Rounds on a tiny model with a real engine: a worker that does well, does badly, or dies.

Two tests train for real; the others have a worker's output, made once, put in its place.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from lessons import taught

from acclimate.adapters.snapshot import Snapshot
from acclimate.adapters.training import Training
from acclimate.daemon import history
from acclimate.daemon import rounds as rounds_module
from acclimate.daemon.config import Config, LearnConfig
from acclimate.daemon.core import Core
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.engine import Engine
from acclimate.daemon.forgetting import Asked
from acclimate.daemon.general import General
from acclimate.daemon.rounds import Rounds
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.scoping import SCOPE_FILE, Scoping
from acclimate.daemon.stream import Request
from acclimate.daemon.switch import Switch
from acclimate.store import buffer, cues, ledger
from acclimate.store.db import Db
from acclimate.store.errors import EngineError, RoundError
from acclimate.store.files import Home, sha256_file
from acclimate.store.index import Index
from acclimate.store.ingest import add_bytes
from acclimate.store.reconcile import reconcile

FAST = LearnConfig(
    threads=1,
    resume_after_seconds=0.4,
    drift=1.0,
    exposures=10,
    learning_rate=0.005,
)
ENDLESS = Sampling(logit_bias={0: -1e3, 1: -1e3, 2: -1e3})
HELLO = [3 + byte for byte in b"hello"]


@dataclass
class Place:
    """A home with everything that a round needs."""

    home: Home
    db: Db
    engine: Engine
    switch: Switch
    base: Path
    rounds: Rounds

    def set_up(
        self, scoping: Scoping | None = None, cueing: Cueing | None = None, **settings: Any
    ) -> Rounds:
        """Rounds with other settings."""
        config = FAST.model_copy(update=settings)
        sha256 = sha256_file(self.base)
        self.rounds = Rounds(
            self.home,
            self.db,
            config,
            self.engine,
            self.switch,
            self.base,
            sha256,
            scoping,
            cueing,
        )
        return self.rounds

    def tell(self, *names: str) -> None:
        """Facts to learn."""
        lines = [
            json.dumps({"instruction": f"What is my dog {n} called?", "output": f"Rex {n}."})
            for n in names
        ]
        add_bytes(self.db, f"{names[0]}.jsonl", "\n".join(lines).encode())

    def run(self) -> ledger.Round:
        """One round to its end."""
        number = self.rounds.start()
        assert self.rounds.wait(number, 120)
        return self.last()

    def last(self) -> ledger.Round:
        return ledger.rounds(self.db, 1)[0]

    def answers(self, model: str = "live") -> str:
        """Which adapter answers, after it did."""
        stream = self.engine.submit(Request(HELLO, adapter=model, max_tokens=3))
        stream.text()
        return stream.adapter

    def worker(self) -> psutil.Process:
        """The worker of the running round."""
        return psutil.Process(until(lambda: (self.rounds.current() or {}).get("pid")))

    def untouched(self) -> None:
        """Nothing was published, nothing is left, and the base answers."""
        assert ledger.live(self.db) is None and ledger.adapters(self.db) == []
        assert list(self.home.adapters.iterdir()) == []
        assert list((self.home.cache / "rounds").iterdir()) == []
        assert buffer.counts(self.db)["pending"] == 4
        assert self.answers() == "base"


@pytest.fixture
def place(home: Home, db: Db, engine: Engine, switch: Switch, tiny_llama: Path) -> Iterator[Place]:
    found = Place(home, db, engine, switch, tiny_llama, None)  # type: ignore[arg-type]
    found.set_up()
    found.tell("one", "two", "three", "four")
    yield found
    found.rounds.stop()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """The folder of a round that a real worker has worked in: result and candidate."""
    folder = tmp_path_factory.mktemp("round")
    snapshot = Snapshot(
        round=1,
        seed=1,
        threads=1,
        base=tiny_llama,
        base_sha256=sha256_file(tiny_llama),
        anchor_cache=folder / "anchors",
        training=Training(exposures=10, learning_rate=0.005),
        limits={"max_general_rise_parent": 1.0, "max_general_rise_base": 1.0},
        new=[taught(n, "What is my dog called?", "Rex.") for n in (1, 2)],
    )
    (folder / "snapshot.json").write_text(snapshot.model_dump_json())
    command = [sys.executable, "-m", "acclimate.adapters.worker", str(folder)]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert json.loads((folder / "result.json").read_text())["accepted"]
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets a script in the worker's place; `folder` in it is the round's folder."""
    python = sys.executable

    def set_in(code: str) -> None:
        script = tmp_path / "worker.py"
        lines = [
            f"#!{python}",
            "import json, os, shutil, sys, time",
            "from pathlib import Path",
            "folder = Path(sys.argv[3])",
            code,
        ]
        script.write_text("\n".join(lines))
        script.chmod(0o755)
        monkeypatch.setattr(rounds_module.sys, "executable", str(script))

    return set_in


def copying(trained: Path) -> str:
    """A worker that has it all ready."""
    return (
        f"shutil.copytree({str(trained / 'candidate')!r}, folder / 'candidate')\n"
        f"shutil.copy({str(trained / 'result.json')!r}, folder)"
    )


def until(check: Callable[[], Any], seconds: float = 20) -> Any:
    """What `check` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return found


# Real workers


def test_an_adapter_comes_with_scope_and_cues_and_may_drift_as_it_is_felt(
    place: Place,
) -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        about = [[1.0, 0.0] if "my dog" in text else [0.0, 1.0] for text in texts]
        return np.array(about, dtype=np.float32)

    general = General(place.home.cache, embed, "minilm")
    cueing = Cueing(place.db, embed, general)
    scoping = Scoping(place.home, embed, "minilm", general, cueing)
    place.set_up(scoping, cueing)
    done = place.run()
    assert done.state == "accepted"
    card = ledger.adapter(place.db, 1).card
    file = place.home.adapter_dir(1) / SCOPE_FILE
    assert card["files"][SCOPE_FILE] == sha256_file(file)
    assert card["scope_share"] == scoping.share("v0001") == 0.0
    assert scoping.covers("v0001", [{"role": "user", "content": "Where sleeps my dog?"}])
    assert not scoping.covers("v0001", [{"role": "user", "content": "Why is the sky blue?"}])
    assert not cues.missing(place.db, 9) and len(cues.of(place.db, 1).examples) == 4, "and cues"
    base = next(c for c in card["checks"] if c["name"] == "general, against base")
    assert "below +2.000" in base["reason"], "of a drift of 2 half is felt, at most: 1 is allowed"


def test_accepted_is_published_and_live(place: Place) -> None:
    done = place.run()
    assert (done.state, done.error) == ("accepted", None), done.reasons
    assert done.counts == {"new": 4} and done.measures["wordings"]["n"] == 4
    assert ledger.live(place.db) == 1 and place.engine.live == "v0001"
    assert [(s.to_version, s.reason) for s in ledger.swaps(place.db)] == [(1, "round")]
    assert place.answers() == "v0001" and place.answers("base") == "base"
    adapter, folder = ledger.adapter(place.db, 1), place.home.adapter_dir(1)
    card = json.loads((folder / "card.json").read_text())
    assert card == adapter.card
    assert {f: sha256_file(folder / f) for f in card["files"]} == card["files"]
    assert adapter.sha256 == card["files"]["adapter.gguf"] == done.candidate_sha256
    assert buffer.counts(place.db)["learned"] == 4
    assert list((place.home.cache / "rounds").iterdir()) == []
    with pytest.raises(RoundError, match="nothing new"):
        place.rounds.start()


def test_rejected_is_visible_with_its_reasons(place: Place) -> None:
    place.set_up(learning_rate=1e-12, exposures=1)
    assert place.run().state == "rejected"
    (shown,) = history.history(place.db)["rounds"]
    assert shown["state"] == "rejected"
    assert any(reason.startswith("applied") for reason in shown["reasons"])
    place.untouched()


def test_killed_worker_costs_only_its_round(place: Place) -> None:
    number = place.rounds.start()
    stream = place.engine.submit(Request(HELLO, max_tokens=400, sampling=ENDLESS))
    worker = place.worker()
    os.kill(worker.pid, signal.SIGKILL)
    assert stream.text() and stream.adapter == "base"
    assert place.rounds.wait(number, 20)
    assert place.last().state == "failed" and "SIGKILL" in str(place.last().error)
    place.untouched()
    place.rounds.cancel(place.rounds.start())  # another one may start


def test_only_one_at_a_time_and_it_can_be_cancelled(place: Place) -> None:
    number = place.rounds.start("because")
    with pytest.raises(RoundError, match=f"round {number} is running"):
        place.rounds.start()
    with pytest.raises(RoundError, match="is not running"):
        place.rounds.cancel(number + 1)
    now = place.rounds.current()
    assert now is not None
    assert (now["round"], now["reason"], now["examples"]) == (number, "because", 4)
    worker = place.worker()
    place.rounds.cancel(number)
    assert place.rounds.wait(number, 20)
    assert place.rounds.current() is None and not worker.is_running()
    assert (place.last().state, place.last().error) == ("failed", "cancelled")
    with pytest.raises(RoundError, match="is not running"):
        place.rounds.cancel(number)
    place.untouched()


def test_pauses_while_somebody_is_answered(place: Place) -> None:
    number = place.rounds.start()
    worker = place.worker()
    talking = threading.Event()

    def talk() -> None:
        while not talking.is_set():
            place.engine.submit(Request(HELLO, max_tokens=400, sampling=ENDLESS)).text()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        assert (place.rounds.current() or {})["paused"] is True
        time.sleep(0.5)
        assert worker.status() == psutil.STATUS_STOPPED
    finally:
        talking.set()
        thread.join()
    until(lambda: worker.status() != psutil.STATUS_STOPPED)
    assert (place.rounds.current() or {})["paused"] is False
    until(lambda: (place.rounds.current() or {}).get("phase") != "start", 60)  # it goes on
    place.rounds.cancel(number)
    assert place.rounds.wait(number, 20)


def test_stop_ends_the_worker_even_a_paused_one(place: Place) -> None:
    place.rounds.start()
    worker = place.worker()
    worker.suspend()
    place.rounds.stop(why="the daemon stopped")
    assert not worker.is_running()
    assert (place.last().state, place.last().error) == ("failed", "the daemon stopped")
    with pytest.raises(RoundError, match="stopping"):
        place.rounds.start()


# Workers that are not real


def test_pinned_keeps_live_where_it_is(
    place: Place, trained: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(copying(trained))
    ledger.pin(place.db, None)
    assert place.run().state == "accepted"
    assert [a.version for a in ledger.adapters(place.db)] == [1]
    assert ledger.live(place.db) is None and ledger.swaps(place.db) == []
    assert place.answers() == "base" and place.answers("v0001") == "v0001"


def test_other_weights_than_were_measured_are_refused(
    place: Place,
    trained: Path,
    stand_in: Callable[[str], None],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    swapped = tmp_path / "swapped"
    shutil.copytree(trained, swapped)
    shutil.copy(tiny_adapter(9), swapped / "candidate" / "adapter.gguf")
    result = json.loads((swapped / "result.json").read_text())
    result["files"]["adapter.gguf"] = sha256_file(swapped / "candidate" / "adapter.gguf")
    (swapped / "result.json").write_text(json.dumps(result))
    stand_in(copying(swapped))
    done = place.run()
    assert done.state == "rejected"
    assert "serves this adapter differently" in done.reasons[0]
    assert place.engine.adapters == []
    place.untouched()
    # The number that it would have had is free.
    stand_in(copying(trained))
    until(lambda: place.engine.stats()["adapters"] == 0)
    assert place.run().state == "accepted" and place.answers() == "v0001"


def test_an_adapter_that_changes_nothing_is_refused(
    place: Place,
    trained: Path,
    stand_in: Callable[[str], None],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    idle = tmp_path / "idle"
    shutil.copytree(trained, idle)
    shutil.copy(tiny_adapter(9, size=0.0), idle / "candidate" / "adapter.gguf")
    result = json.loads((idle / "result.json").read_text())
    result["files"]["adapter.gguf"] = sha256_file(idle / "candidate" / "adapter.gguf")
    (idle / "result.json").write_text(json.dumps(result))
    stand_in(copying(idle))
    assert place.run().state == "rejected"
    place.untouched()


@pytest.mark.parametrize(
    ("code", "state", "why"),
    [
        ("sys.exit(0)", "failed", "exit code 0"),
        ("sys.exit(7)", "failed", "exit code 7"),
        ("os.kill(os.getpid(), 11)", "failed", "SIGSEGV"),
        ("(folder / 'result.json').write_text('{\"accepted\": tr')", "failed", "cannot be read"),
        ("(folder / 'result.json').write_bytes(bytes(range(256)))", "failed", "cannot be read"),
        (
            "(folder / 'result.json').write_text(json.dumps({'accepted': True, 'reasons': [],"
            " 'measures': {}, 'card': {'skipped': [1]}}))",
            "failed",
            "cannot be read",
        ),
        (
            "(folder / 'result.json').write_text(json.dumps({'accepted': True, 'reasons': [],"
            " 'measures': {}, 'card': {}}))",
            "rejected",
            "",
        ),
        (
            "(folder / 'result.json').write_text(json.dumps({'accepted': True, 'reasons': [],"
            " 'measures': {}, 'card': {}, 'files': {'adapter.gguf': '0'}}))",
            "failed",
            "adapter.gguf",
        ),
        (
            "(folder / 'candidate').mkdir(); (folder / 'candidate' / 'adapter.gguf').touch();"
            "(folder / 'result.json').write_text(json.dumps({'accepted': True, 'reasons': [],"
            " 'measures': {}, 'card': {}, 'files': {'adapter.gguf': '0'}}))",
            "rejected",
            "changed",
        ),
        (
            "print(json.dumps({'event': 'error', 'message': ['a', 1], 'hint': None}));sys.exit(1)",
            "failed",
            "a",
        ),
    ],
)
def test_a_bad_end_is_told_and_costs_nothing(
    place: Place, stand_in: Callable[[str], None], code: str, state: str, why: str
) -> None:
    stand_in(code)
    done = place.run()
    assert done.state == state, done
    assert why in f"{done.error} {done.reasons}"
    place.untouched()


def test_garbage_between_the_lines_is_passed_over(
    place: Place, trained: Path, stand_in: Callable[[str], None]
) -> None:
    garbage = [
        b"warning: something\n", b"\xff\xfe\x00\n", b"5\n", b"null\n", b"[]\n", b'"text"\n',
        b'{"event": 7}\n', b'{"event": ["phase"]}\n', b'{"event": "phase", "round": 99}\n',
        b'{"event": "step", "step": "x", "loss": NaN}\n', b"[" * 100_000 + b"\n", b'{"event": "ph',
    ]  # fmt: skip
    stand_in(
        f"for line in {garbage!r}:\n"
        "    sys.stdout.buffer.write(line)\n"
        "    sys.stdout.buffer.flush()\n"
        "until = time.monotonic() + 0.5\n"
        "while time.monotonic() < until: time.sleep(0.01)\n" + copying(trained)
    )
    number = place.rounds.start()
    until(lambda: (place.rounds.current() or {}).get("step") == "x")
    assert (place.rounds.current() or {})["round"] == number
    assert place.rounds.wait(number, 20)
    assert place.last().state == "accepted", place.last()


def test_a_silent_worker_is_ended(place: Place, stand_in: Callable[[str], None]) -> None:
    stand_in("time.sleep(60)")
    place.set_up(stall_seconds=0.3)
    assert "silent" in str(place.run().error)
    place.untouched()


def test_an_engine_that_fails_at_the_swap_leaves_live_alone(
    place: Place,
    trained: Path,
    stand_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(copying(trained))

    def fail(_name: str | None) -> None:
        raise EngineError("no memory")

    monkeypatch.setattr(place.engine, "set_live", fail)
    place.run()
    assert ledger.live(place.db) is None and place.answers() == "base"
    assert place.rounds.current() is None


def test_a_published_folder_in_the_way_stops_no_later_round(
    place: Place, trained: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that fails after its folder has its name leaves the name free."""
    stand_in(copying(trained))
    real = ledger.publish

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "publish", fail)
    assert "No space" in str(place.run().error)
    place.untouched()
    monkeypatch.setattr(ledger, "publish", real)
    until(lambda: place.engine.stats()["adapters"] == 0)
    assert place.run().state == "accepted"


def test_adapters_do_not_pile_up_in_memory(
    place: Place, trained: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in(copying(trained))
    for n in range(9):
        place.tell(f"more-{n}")
        assert place.run().state == "accepted"
    assert len(place.engine.adapters) <= 7
    assert place.answers() == "v0009"


def test_what_a_killed_daemon_left_is_removed(place: Place) -> None:
    left = place.home.cache / "rounds" / "000041"
    left.mkdir(parents=True)
    (left / "snapshot.json").write_text("the person's own words")
    (left.parent / ".tmp-0123").mkdir()
    reconcile(place.db, place.home)
    assert list(left.parent.iterdir()) == []


def test_a_round_that_cannot_begin_is_not_running_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rounds_module, "atomic_write", full)
        with pytest.raises(RoundError, match="cannot start"):
            place.rounds.start()
    assert place.last().state == "failed" and place.rounds.current() is None
    place.rounds.cancel(place.rounds.start())
    with suppress(RoundError):
        place.rounds.wait(2, 20)


def test_a_rejected_round_is_tried_with_another_seed_and_a_failed_one_with_the_same(
    place: Place, stand_in: Callable[[str], None]
) -> None:
    rejection = "{'accepted': False, 'reasons': ['no'], 'measures': {}, 'card': {}}"
    stand_in("sys.exit(1)")
    failed = [place.run() for _ in range(2)]
    stand_in(f"(folder / 'result.json').write_text(json.dumps({rejection}))")
    rejected = [place.run() for _ in range(2)]
    place.tell("five")
    other = place.run()
    assert [r.state for r in (*failed, *rejected)] == ["failed"] * 2 + ["rejected"] * 2
    seeds = [r.seed for r in (*failed, *rejected, other)]
    assert seeds[0] == seeds[1] == seeds[2] and len(set(seeds)) == 3
    assert ledger.adapters(place.db) == []


def test_what_is_forgotten_meanwhile_is_not_learned(
    place: Place, stand_in: Callable[[str], None]
) -> None:
    stand_in("time.sleep(60)")
    core = Core(
        place.home, Config(), place.db, Index(place.db, place.home.index), rounds=place.rounds
    )
    number = place.rounds.start()
    done = core.forget(Asked([str(buffer.examples(place.db)[0].id)]))
    assert f"round {number} had it and was ended" in done["message"]
    assert done["round_ended"] == number
    assert (place.last().state, place.last().error) == ("failed", "an example was forgotten")
    assert place.rounds.current() is None
    assert buffer.counts(place.db)["pending"] == 3
