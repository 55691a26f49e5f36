"""Ours: a person's home, fed a round at a time and learned from as the daemon does it.

Real store, engine, worker process and gate; only the clock that starts rounds is left out.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acclimate.adapters import pace
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.snapshot import Pace, Precision, Taught, taught_of
from acclimate.daemon.config import Config, LearnConfig
from acclimate.daemon.cueing import Cue, Cueing
from acclimate.daemon.embed import Embedder
from acclimate.daemon.engine import Engine
from acclimate.daemon.general import General
from acclimate.daemon.reader import Quote, Reader
from acclimate.daemon.retrieve import Found, Retriever
from acclimate.daemon.rounds import Rounds
from acclimate.daemon.scoping import Scoping
from acclimate.daemon.study import study
from acclimate.daemon.switch import Switch
from acclimate.daemon.updates import Updates
from acclimate.store import buffer, ledger, sources
from acclimate.store.balance import Caps
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file, version_name
from acclimate.store.index import Index
from acclimate.store.scan import scan

BASE_WIDTH, BASE_INNER = 576, 1536  # of the default model's layers
EVERYTHING = 100_000  # examples
BASE, EMBEDDER = "smollm2-135m-instruct.gguf", "all-minilm-l6-v2.gguf"


def precision(models: Path) -> Precision:
    """What a round with default settings trains the default model in on this machine."""
    cache, cores = models / "anchors", os.cpu_count() or 1
    pace.measured_once(cache, BASE_WIDTH, BASE_INNER, cores)
    found = Pace.load(cache, cores)
    return "float32" if found is None else found.precision()


@dataclass
class Lived:
    """What became of one round."""

    state: str
    version: int | None
    folder: Path | None  # of the adapter that is live now, None for the base
    seconds: float
    card: dict[str, Any]
    reasons: list[str]


@dataclass(frozen=True)
class Passages:
    """What is worth showing, what besides may bear a cue out, and what the reader found in them."""

    near: list[str]
    wider: list[str]
    quote: Quote | None = None


def _shown(found: Found) -> Passages:
    return Passages([hit.text for hit in found.near], [hit.text for hit in found.wider])


class PersonHome:
    """One home in a folder of its own, made or opened again; `models` has base and embedder."""

    def __init__(self, root: Path, models: Path, learn: LearnConfig | None = None) -> None:
        self.home = Home.create(root / "home")
        self.learning = learn or LearnConfig()
        self.base = models / BASE
        self.streams = {"chat": root / "chats", "notes": root / "notes"}
        self.db = Db(self.home.db)
        self.engine = Engine(self.base, **Config().engine.arguments())
        self.engine.start()
        self.prompt = Prompt.from_gguf(self.base)
        self.embedder = Embedder(models / EMBEDDER)
        self.index = Index(self.db, self.home.index, embedder="bench")
        self.retriever = Retriever(self.db, self.index, self.embedder)
        sha256 = sha256_file(self.base)
        self.switch = Switch(self.home, self.db, self.engine, sha256)
        if (live := ledger.live(self.db)) is not None:
            self.switch.load(live)
            self.engine.set_live(version_name(live))
        anchors, linked = models / "anchors", self.home.models / "anchors"
        anchors.mkdir(exist_ok=True)
        if not linked.is_symlink():
            linked.symlink_to(anchors.resolve())
        self.reader = Reader.shipped(self.embedder)
        embed = self.embedder.embed
        name = f"{EMBEDDER} {sha256_file(models / EMBEDDER)}"
        general = General(models / "anchors", embed, name)
        self.cueing = Cueing(self.db, embed, general)
        self.scoping = Scoping(self.home, embed, name, general, self.cueing)
        self.rounds = Rounds(
            self.home,
            self.db,
            self.learning,
            self.engine,
            self.switch,
            self.base,
            sha256,
            self.scoping,
            self.cueing,
            Updates(self.db, embed, self.reader),
        )
        self.sources = {}
        for kind, folder in self.streams.items():
            folder.mkdir(parents=True, exist_ok=True)
            self.sources[kind] = sources.add_source(self.db, folder, kind)  # type: ignore[arg-type]

    def feed(self, folder: Path) -> None:
        """The files of one round appear in the watched folders."""
        self.put(folder)
        study(self.db)
        self.embed()

    def take_up(self) -> None:
        """What was put into the watched folders is read, studied and embedded."""
        for source in self.sources.values():
            scan(self.db, source)
        study(self.db)
        self.embed()

    def put(self, folder: Path) -> None:
        """The same without studying what they say."""
        for part, kind in (("chats", "chat"), ("notes", "notes")):
            for file in sorted((folder / part).iterdir()):
                shutil.copy(file, self.streams[kind] / f"{folder.name}-{file.name}")
            scan(self.db, self.sources[kind])

    def embed(self) -> None:
        """Gives every passage its vector."""
        while self.retriever.embed_pending():
            pass

    def waiting(self) -> list[Taught]:
        """All examples that wait to be taught, whatever a single round would take of them."""
        caps = Caps(1.0, EVERYTHING, EVERYTHING, EVERYTHING)
        found = buffer.snapshot(self.db, limit=EVERYTHING, replay=0, caps=caps)
        return [*map(taught_of, found.new)]

    def passages(self, question: str) -> Passages:
        """What retrieval finds for a question, for a model that is to read it."""
        return _shown(self.retriever.find(question))

    def read(self, question: str, *, personal: bool | None = None) -> Passages:
        """The same, with the words in it that answer the question; whether that is about the person
        is what the live adapter's scope says, if it is not given."""
        found, quote = self.retriever.find(question), None
        if found.vector is not None:
            sure = self.inside(question) if personal is None else personal
            quote = self.reader.answer(question, found.vector, found.candidates, personal=sure)
        return replace(_shown(found), quote=quote)

    def inside(self, question: str) -> bool:
        """Whether the live adapter would answer a question; else the base does."""
        live = self.engine.live
        asked = [{"role": "user", "content": question}]
        return live != "base" and self.scoping.covers(live, asked)

    def cues(self, question: str) -> list[Cue]:
        """The taught questions that the live adapter may be shown behind this one."""
        live = self.engine.live
        asked = [{"role": "user", "content": question}]
        return [] if live == "base" else self.cueing.several(live, asked)

    def learn(self) -> Lived:
        """One round on what is waiting, to its end."""
        return self.lived(self.rounds.start("benchmark"))

    def lived(self, round_id: int) -> Lived:
        """The end of the round that was started."""
        self.rounds.wait(round_id)
        done = ledger.rounds(self.db, limit=1)[0]
        live = ledger.live(self.db)
        card = ledger.adapter(self.db, live).card if live and done.state == "accepted" else {}
        return Lived(
            done.state,
            live,
            None if live is None else self.home.adapter_dir(live),
            (done.ended_at or 0.0) - done.started_at,
            card or done.measures.get("card", {}),
            [*done.reasons, *([done.error] if done.error else [])],
        )

    def close(self) -> None:
        """Ends the engine and gives the files back."""
        self.rounds.stop()
        self.engine.stop()
        self.embedder.close()
        self.db.close()
