"""What all figures share: how much is measured, the home, and both sides while they run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from acclimate.adapters.prompt import Prompt
from acclimate.daemon import config, tuning
from acclimate.daemon import models as model_files
from acclimate.store.files import Home
from serving.sides import BASE, Ours, Peer, Side, make_home

M = TypeVar("M")
T = TypeVar("T")
CONTEXT_TOKENS, SEQUENCES = 4096, 8


@dataclass(frozen=True)
class Counts:
    """How much is measured."""

    reps: int = 5
    streams: tuple[int, ...] = (1, 4, 8)
    decode_tokens: int = 128
    prefill_tokens: tuple[int, ...] = (512, 2048)
    warm_asks: int = 40  # a repetition
    swap_streams: int = 50
    swap_tokens: int = 64
    swaps: int = 20
    train_asks: int = 40
    phases: tuple[str, ...] = ("train",)  # of the round, in which questions count
    pause_seconds: float = 5.0  # between two questions while a round trains
    soak: int = 500


QUICK = Counts(
    reps=1, decode_tokens=16, prefill_tokens=(64, 256), warm_asks=4, swap_streams=12,
    swap_tokens=24, swaps=6, train_asks=3, phases=("load", "anchors", "prepare", "train"),
    pause_seconds=3.5, soak=30,
)  # fmt: skip


class Bench:
    """One home, and the servers on it; each is started when it is asked for first."""

    def __init__(
        self, root: Path, models: Path, peer: Path | None, threads: int, counts: Counts
    ) -> None:
        self.models = models
        self.base = models / f"{BASE}.gguf"
        self.counts = counts
        self.threads = threads
        self.prompt = Prompt.from_gguf(self.base)
        self.engine = {
            "context_tokens": CONTEXT_TOKENS, "sequences": SEQUENCES, "threads": threads
        }  # fmt: skip
        self.home: Home = make_home(root / "home", models, **self.engine)
        # Or the daemon would do it while something else is measured.
        served = model_files.base_path(self.home, config.load(self.home))
        sha256 = model_files.base_sha256(self.home, served)
        tuning.measure(served, tuning.file_for(self.home.cache, sha256))
        self.peer_python = peer
        self.about_peer: dict[str, str] | None = None
        self._ours: Ours | None = None
        self._peer: Peer | None = None
        self._numbers = random.Random(17)

    @property
    def ours(self) -> Ours:
        self._ours = self._ours or self.new_ours()
        return self._ours

    @property
    def peer(self) -> Peer | None:
        if self._peer is None and self.peer_python is not None:
            self._peer = self.new_peer()
        return self._peer

    def new_ours(self) -> Ours:
        """A daemon on the home; one at a time."""
        return Ours(self.home, sorted(self.prompt.end_ids))

    def new_peer(self) -> Peer | None:
        """One more server of the peer's, None without one."""
        if self.peer_python is None:
            return None
        peer = Peer(self.peer_python, self.base, **self.engine)
        self.about_peer = peer.about
        return peer

    def close(self) -> None:
        """Ends both; they start again when they are asked for."""
        for side in (self._ours, self._peer):
            if side is not None:
                side.close()
        self._ours = self._peer = None

    def in_turn(
        self, prepare: Callable[[], M], measure: Callable[[Side, M], T], times: int | None = None
    ) -> tuple[list[T], list[T] | None]:
        """Ours and the peer's on the same material; who begins changes with each repetition."""
        found: dict[str, list[T]] = {"ours": [], "peer": []}
        sides = [side for side in (self.ours, self.peer) if side is not None]
        for number in range(self.counts.reps if times is None else times):
            material = prepare()
            for side in sides[:: -1 if number % 2 else 1]:
                found[side.name].append(measure(side, material))
        return found["ours"], found["peer"] or None

    def new_tokens(self, count: int) -> list[int]:
        """A prompt that begins like no other one."""
        ordinary = range(len(self.prompt.end_ids) + 100, self.prompt.size)
        return self._numbers.choices(ordinary, k=count)

    def new_text(self) -> list[int]:
        """The beginning of a text, about ten tokens, different from all others."""
        day, year = self._numbers.randint(1, 28), self._numbers.randint(1500, 1990)
        return self.prompt.tokenize(f"{day} May {year}. The harbour master wrote in his log that")
