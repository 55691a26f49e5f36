"""Adapters that were made live and are worse in use: a real engine on a tiny model, a real ledger.

Adapters are published as a round publishes them; random ones are worse than the model alone on
what the model likes to say.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from real_daemon import RealDaemon, make_home
from tiny import MERGES, SPECIAL

from acclimate.adapters.base import load_base
from acclimate.adapters.probation import ProbationConfig
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.snapshot import CANDIDATE_DIR, Canary, Result, Snapshot, taught_of
from acclimate.daemon import history
from acclimate.daemon.config import LearnConfig
from acclimate.daemon.engine import Engine
from acclimate.daemon.probation import Probation, state
from acclimate.daemon.rounds import Rounds
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from acclimate.daemon.switch import Switch
from acclimate.store import buffer, conversations, ledger, probation
from acclimate.store.chats import canonical
from acclimate.store.db import Db
from acclimate.store.errors import RoundError
from acclimate.store.files import Home, sha256_file
from acclimate.store.probation import OnProbation

CONFIG = ProbationConfig()
# Only small letters: token 3 + b is byte b. What it says is a text, and each is 24 tokens long.
VOCABULARY = len(SPECIAL) + 256 + len(MERGES)
LETTERS = range(3 + ord("a"), 3 + ord("z") + 1)
SPOKEN = Sampling(logit_bias={t: -1e3 for t in range(VOCABULARY) if t not in LETTERS})
Adapters = Callable[..., Path]


@dataclass
class Place:
    """A home with an engine and a probation that is always allowed to measure."""

    home: Home
    db: Db
    base: Path
    engine: Engine
    prompt: Prompt
    switch: Switch
    idle: bool = True
    go_on: bool = True
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rounds = Rounds(
            self.home, self.db, LearnConfig(), self.engine, self.switch, self.base, ""
        )
        self.probation = self.probation_anew()

    def probation_anew(self, config: ProbationConfig = CONFIG) -> Probation:
        return Probation(
            self.db,
            config,
            self.engine,
            self.prompt,
            self.switch,
            idle=lambda: self.idle,
            go_on=lambda: self.go_on,
            taken_back=self.notices.append,
        )

    def tell(self, count: int) -> list[int]:
        """Exchanges whose replies are what the model itself would say."""
        made = []
        for _ in range(count):
            (number,) = self.db.read().execute("SELECT count(*) + 1 FROM examples").fetchone()
            asked = {"role": "user", "content": f"Write about the {number}th of them."}
            tokens = self.prompt.encode_prompt([asked])
            stream = self.engine.submit(
                Request(tokens, adapter="base", max_tokens=24, sampling=SPOKEN)
            )
            said = {"role": "assistant", "content": stream.text()}
            with self.db.write() as conn:
                conn.execute(
                    "INSERT INTO examples(sha256, kind, content, prompt_sha256, created_at)"
                    " VALUES (?, 'exchange', ?, '', 0)",
                    (str(number), canonical({"messages": [asked, said]})),
                )
            made.append(number)
        return made

    def publish(self, adapter: Path, new: list[int]) -> str:
        """A round that taught these and gave this adapter."""
        parent = ledger.live(self.db)
        number = ledger.start_round(self.db, parent, 1, new)
        folder = self.home.cache / "rounds" / f"{number:06d}"
        candidate = folder / CANDIDATE_DIR
        candidate.mkdir(parents=True)
        (candidate / ledger.ADAPTER_FILE).write_bytes(adapter.read_bytes())
        self.engine.load("candidate", adapter)
        tokens = self.prompt.tokenize("Hello there")
        logp, base = (self.logp(tokens, name) for name in ("candidate", "base"))
        ids = np.argsort(-logp)[:64].tolist()
        canary = Canary(
            tokens=tokens, ids=ids, logp=logp[ids].tolist(), base_logp=base[ids].tolist()
        )
        self.engine.unload("candidate")
        snapshot = Snapshot(
            round=number,
            seed=1,
            threads=1,
            base=self.base,
            base_sha256="",
            anchor_cache=folder,
            parent_version=parent,
            new=[taught_of(buffer.get(self.db, n)) for n in new],
        )
        result = Result(
            accepted=True,
            reasons=[],
            measures={},
            card={},
            canaries=[canary],
            files={ledger.ADAPTER_FILE: sha256_file(adapter)},
        )
        return self.rounds.publish(number, folder, snapshot, result)

    def logp(self, tokens: list[int], name: str) -> np.ndarray:
        logits = self.engine.logits(tokens, name).astype("float64")
        found: np.ndarray = logits - np.log(np.exp(logits).sum())
        return found

    def rate(self, adapter: str, *, good: int = 0, bad: int = 0) -> None:
        for rating, count in (("good", good), ("bad", bad)):
            for _ in range(count):
                asked = [{"role": "user", "content": "hi"}]
                message = conversations.save_exchange(self.db, None, asked, "hello", adapter)
                conversations.add_feedback(self.db, message, rating)  # type: ignore[arg-type]

    def watch(self) -> None:
        """Until there is no more to be had."""
        while self.probation.step():
            pass

    def answers(self) -> str:
        stream = self.engine.submit(Request([10, 20, 30], max_tokens=2))
        stream.text()
        return stream.adapter


@pytest.fixture
def place(
    home: Home, db: Db, tiny_llama: Path, engine: Engine, prompt: Prompt, switch: Switch
) -> Place:
    return Place(home, db, tiny_llama, engine, prompt, switch)


@pytest.fixture
def harmless(tiny_adapter: Adapters) -> Path:
    return tiny_adapter(1, size=0.002)


@pytest.fixture
def broken(tiny_adapter: Adapters) -> Path:
    return tiny_adapter(2, size=1.0)


def test_the_measured_loss_is_that_of_transformers(place: Place) -> None:
    tokens = place.prompt.tokenize("the lighthouse stood at the end of the pier " * 4)
    with torch.no_grad():
        logits = load_base(place.base)(input_ids=torch.tensor([tokens])).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]), reduction="none")
    for start in (1, 5, 33, 64, len(tokens) - 1):
        found = place.engine.nll(tokens, start, "base", lambda: True)
        assert found == pytest.approx(float(nll[start - 1 :].mean()), rel=0.01)


def test_a_measurement_gives_way_to_a_request(place: Place) -> None:
    tokens = place.prompt.tokenize("something long " * 20)
    asked = iter([True, True, False])
    assert place.engine.nll(tokens, 10, "base", lambda: next(asked)) is None
    assert place.answers() == "base"
    assert place.engine.nll(tokens, 10, "base", lambda: True) is not None


def test_bad_ratings_take_an_adapter_back(place: Place, harmless: Path, broken: Path) -> None:
    place.publish(harmless, place.tell(2))
    place.rate("v0001", good=13, bad=2)
    assert place.publish(broken, place.tell(2)) == "v0002"
    place.rate("v0002", good=1, bad=6)
    place.idle = False
    place.watch()
    assert ledger.live(place.db) == 2 and place.notices == []
    place.rate("v0002", good=2, bad=3)
    place.watch()
    said = "v0002 rolled back to v0001: 9 of 12 rated replies were bad, 2 of 15 before"
    assert place.notices == [said] and history.notice(place.db) == said
    assert (ledger.live(place.db), place.answers()) == (1, "v0001")
    assert ledger.swaps(place.db, 1)[0].reason == "probation"
    assert buffer.counts(place.db) == {
        **dict.fromkeys(buffer.counts(place.db), 0), "learned": 2, "pending": 2
    }  # fmt: skip
    # It is over: what came back is not watched, and the person may choose the other again.
    place.switch.set_live("v0002")
    place.watch()
    assert place.answers() == "v0002" and len(place.notices) == 1


def test_a_loss_that_rises_takes_an_adapter_back(place: Place, broken: Path) -> None:
    place.publish(broken, place.tell(2))
    place.tell(9)
    place.idle = False
    place.watch()
    assert probation.losses(place.db, OnProbation(1, None)) == []
    place.idle = True
    for _ in range(4):
        assert place.probation.step()
    shown = state(place.db, CONFIG)
    assert shown is not None
    assert shown["losses"] == {"verdict": "open", "said": "4 of at least 8 exchanges measured"}
    place.probation = place.probation_anew()  # as after a restart: what was measured is kept
    place.watch()
    assert place.answers() == "base"
    assert place.notices[0].startswith("v0001 rolled back to base: the loss of 8 exchanges")
    assert len(probation.losses(place.db, OnProbation(1, None))) == 8


def test_a_good_adapter_stays_and_each_exchange_is_measured_once(
    place: Place, harmless: Path
) -> None:
    place.publish(harmless, place.tell(2))
    place.rate("base", good=10)
    place.rate("v0001", good=9, bad=1)
    place.tell(9)
    place.watch()
    place.watch()
    shown = state(place.db, CONFIG)
    assert shown is not None
    assert (shown["ratings"]["verdict"], shown["losses"]["verdict"]) == ("open", "fine"), shown
    pairs = probation.losses(place.db, OnProbation(1, None))
    assert len(pairs) == 8  # fine by then: no more are measured
    assert all(before != live for before, live in pairs)
    assert place.answers() == "v0001" and place.notices == []


def test_a_pinned_adapter_is_never_taken_back(place: Place, broken: Path) -> None:
    place.publish(broken, place.tell(2))
    place.tell(9)
    place.rate("base", good=20)
    place.rate("v0001", bad=20)
    place.switch.pin(None)
    place.watch()
    assert place.answers() == "v0001" and place.notices == []
    assert not place.switch.take_back(1, "pinned just before")
    assert place.answers() == "v0001"


def test_switched_off_nothing_is_taken_back(place: Place, broken: Path) -> None:
    place.publish(broken, place.tell(2))
    place.rate("base", good=20)
    place.rate("v0001", bad=20)
    place.probation = place.probation_anew(ProbationConfig(enabled=False))
    place.watch()
    assert place.answers() == "v0001"


def test_what_the_model_said_itself_and_what_is_too_long_is_not_measured(
    place: Place, broken: Path
) -> None:
    place.publish(broken, place.tell(2))
    said, long, other = place.tell(3)
    reply = taught_of(buffer.get(place.db, said)).messages()[-1]["content"]
    conversations.save_exchange(
        place.db, None, [{"role": "user", "content": "hi"}], f" {reply}\n", "v0001"
    )
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "word " * 600}]
    with place.db.write() as conn:
        content = json.dumps({"messages": messages})
        conn.execute("UPDATE examples SET content = ? WHERE id = ?", (content, long))
    place.watch()
    rows = place.db.read().execute("SELECT example_id FROM probation_losses").fetchall()
    assert [row["example_id"] for row in rows] == [other]


def test_somebody_who_asks_stops_a_measurement(place: Place, broken: Path) -> None:
    place.publish(broken, place.tell(2))
    place.tell(9)
    place.go_on = False
    place.watch()
    assert probation.losses(place.db, OnProbation(1, None)) == []
    place.go_on = True
    place.watch()
    assert place.answers() == "base"


def test_what_was_taken_back_twice_is_not_taught_a_third_time(place: Place, broken: Path) -> None:
    taught = place.tell(8)
    place.rate("base", good=20)
    for version in ("v0001", "v0002"):
        assert place.publish(broken, taught) == version
        place.rate(version, bad=8)
        place.watch()
        assert place.answers() == "base"
    with pytest.raises(RoundError, match="nothing new to learn"):
        place.rounds.start()
    assert ledger.waiting(place.db) == 0


def test_a_daemon_takes_an_adapter_back_by_itself(tmp_path: Path, real_models: Path) -> None:
    home = make_home(tmp_path / "home", real_models)
    with RealDaemon(home.root) as daemon:
        assert daemon.ready(), daemon.said.read_text()[-2000:]
        daemon.add("one", "two", "three", "four")
        assert daemon.learn()["state"] == "accepted"
        for adapter, rating in (("base", "good"), ("v0001", "bad")):
            for _ in range(8):
                reply = daemon.ask(adapter, tokens=2)["acclimate"]
                assert reply["adapter"] == adapter
                rated = {"message_id": reply["message_id"], "rating": rating}
                daemon.call("POST", "/v1/feedback", rated)
                if rating == "bad":
                    now = daemon.call("GET", "/v1/status")
                    assert now["notice"] or now["probation"]["against"] == "base"
        until = time.monotonic() + 60
        while (now := daemon.call("GET", "/v1/status"))["live"] != "base":
            assert time.monotonic() < until, now["probation"]
            time.sleep(0.2)
        said = "rolled back to base: 8 of 8 rated replies were bad, 0 of 8 before"
        assert now["notice"] == f"v0001 {said}" and now["probation"] is None
        assert daemon.ask(tokens=2)["acclimate"]["adapter"] == "base"
        assert now["examples"]["pending"] == 4
        (swap, _) = daemon.call("GET", "/v1/adapters")["swaps"]
        assert (swap["from"], swap["to"], swap["reason"]) == ("v0001", "base", "probation")
