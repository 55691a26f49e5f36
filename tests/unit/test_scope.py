"""Who answers: the adapter what is like what it was taught, the base the rest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import taught
from numpy.typing import NDArray

from acclimate.adapters.scope import MISSED, RIDGE, Scope
from acclimate.daemon.config import ScopeConfig
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.general import General
from acclimate.daemon.scoping import (
    LOOKED_AT,
    SCOPE_FILE,
    USUAL_SHARE,
    Scoping,
)
from acclimate.store.db import Db
from acclimate.store.errors import EngineError
from acclimate.store.files import Home

WIDTH = 16
PERSONAL = ["Where does my canoe lie?", "What do I call my canoe?", "Who has my spare key?"]
TAUGHT = [taught(n, asked) for n, asked in enumerate(PERSONAL)]


def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Points around one pole for what has "my" or "I" in it, around another for the rest."""
    found = np.zeros((len(texts), WIDTH), dtype=np.float32)
    for row, text in zip(found, texts, strict=True):
        noise = np.random.default_rng(sum(map(ord, text))).normal(size=WIDTH) * 0.1
        row[:] = noise
        row[0] += 1.0 if set(text.split()) & {"my", "I"} else -1.0
        row /= np.linalg.norm(row)
    return found


class Embedder:
    """Counts what it is asked; can break."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.broken:
            raise EngineError("no vectors today")
        self.asked += texts
        return vectors(texts)


def said(*texts: str) -> list[dict[str, str]]:
    """A conversation whose user said these, each answered but for the last."""
    messages = []
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "So."}]
    return messages[:-1]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


def scoping_of(
    home: Home,
    embedder: Embedder,
    name: str = "minilm",
    settings: ScopeConfig | None = None,
) -> Scoping:
    general = General(home.cache, embedder, name)
    cueing = Cueing(Db(home.db), embedder, general)
    return Scoping(home, embedder, name, general, cueing, settings)


def publish(home: Home, scoping: Scoping, version: int = 1) -> Scope:
    scope = scoping.fit(TAUGHT)
    assert scope is not None
    folder = home.adapter_dir(version)
    folder.mkdir(parents=True)
    (folder / SCOPE_FILE).write_bytes(scope.to_json())
    return scope


def test_what_is_like_what_was_taught_lies_inside(home: Home) -> None:
    scoping = scoping_of(home, Embedder())
    scope = publish(home, scoping)
    assert scope.general < 0.2, "few of the shipped texts are about the person"
    assert scoping.covers("v0001", said("Which river is my canoe on?"))
    assert not scoping.covers("v0001", said("What is the capital of France?"))


def test_a_conversation_stays_with_the_adapter_once_it_was_about_the_person(home: Home) -> None:
    scoping = scoping_of(home, Embedder())
    publish(home, scoping)
    assert scoping.covers("v0001", said("Where is my canoe?", "And what colour?"))
    assert not scoping.covers("v0001", said("Who wrote Emma?", "And what else?"))
    long = ["Where is my canoe?", *["And what else?"] * LOOKED_AT]
    assert scoping.covers("v0001", said(*long[:-1])) and not scoping.covers("v0001", said(*long))
    assert scoping.covers("v0001", said("  ")), "nothing was asked: no reason to leave the adapter"


def test_without_a_scope_the_adapter_answers_everything(home: Home) -> None:
    general = said("What is the capital of France?")
    embedder = Embedder()
    scoping = scoping_of(home, embedder)
    assert scoping.covers("v0001", general), "made before there were scopes"
    assert not embedder.asked
    publish(home, scoping, 2)
    other = scoping_of(home, embedder, "another embedder")
    assert other.covers("v0002", general), "its vectors do not compare"
    assert scoping_of(home, embedder, settings=ScopeConfig(enabled=False)).covers("v0002", general)
    (home.adapter_dir(2) / SCOPE_FILE).write_bytes(b'{"weights": [1, NaN]}')
    assert scoping_of(home, embedder).covers("v0002", general), "damaged"


def test_a_broken_embedder_costs_the_scope_and_nothing_else(home: Home) -> None:
    embedder = Embedder()
    scoping = scoping_of(home, embedder)
    publish(home, scoping)
    embedder.broken = True
    assert scoping.covers("v0001", said("What is the capital of France?"))
    assert scoping_of(home, embedder).fit(TAUGHT) is None


def test_general_texts_are_embedded_once(home: Home) -> None:
    embedder = Embedder()
    scoping = scoping_of(home, embedder)
    first = scoping.fit(TAUGHT)
    before = len(embedder.asked)
    assert scoping.fit(TAUGHT) == first, "the same texts give the same scope"
    assert len(embedder.asked) == before + 3 * len(PERSONAL), "as keys and as questions"


def test_the_share_of_general_text_is_what_drift_is_felt_by(home: Home) -> None:
    scoping = scoping_of(home, Embedder())
    scope = publish(home, scoping)
    assert scoping.share("v0001") == scope.general
    assert scoping.share(None) == USUAL_SHARE, "before the first round"
    assert scoping.share("v0007") == 1.0, "an adapter without a scope answers all"
    assert scoping_of(home, Embedder(), settings=ScopeConfig(enabled=False)).share(None) == 1.0


def test_what_was_taught_that_looks_general_widens_the_scope(home: Home) -> None:
    scoping = scoping_of(home, Embedder())
    general = [taught(8, "What is the capital of Spain?"), taught(9, "How do planes fly?")]
    mixed = scoping.fit([*general, *TAUGHT])
    assert mixed is not None and mixed.general > 0.5, "none of it may be missed"


def test_leave_one_out_is_what_fitting_again_without_it_gives() -> None:
    rng = np.random.default_rng(5)
    taught = rng.normal(0.3, 1, (40, 6)).astype(np.float32)
    general = rng.normal(-0.3, 1, (60, 6)).astype(np.float32)
    scope = Scope.fit(taught, general, "m")
    weight = np.r_[np.full(40, 0.5 / 40), np.full(60, 0.5 / 60)]
    x = np.hstack([np.vstack([taught, general]), np.ones((100, 1))])
    side = np.r_[np.ones(40), -np.ones(60)]
    scores = np.zeros(100)
    penalty = np.diag([RIDGE] * 6 + [1e-9])
    for n in range(100):
        rest = np.arange(100) != n
        w, xs = weight[rest], x[rest]
        theta = np.linalg.solve(xs.T @ (xs * w[:, None]) + penalty, xs.T @ (w * side[rest]))
        scores[n] = x[n] @ theta
    threshold = min(0.0, float(np.quantile(scores[:40], MISSED)))
    assert scope.general == pytest.approx(float((scores[40:] > threshold).mean()))
    leaning = np.repeat([1, 0, -1], 20).astype(np.int8)
    some = Scope.fit(taught, general, "m", leaning)
    inside = (scores[60:80] > threshold).sum() + 20
    assert some.general == pytest.approx(inside / 60) and some.offset == scope.offset
    inside = [scope.covers(vector) for vector in taught]
    assert sum(inside) >= 38


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with pytest.raises(ValueError):
        Scope.from_json(data)
