"""What each round teaches: a persona's files through the real store, as a round's worker sees them.

For methods that learn without a home of their own; trains nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acclimate.adapters.mixture import choose
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.snapshot import Snapshot, Taught
from acclimate.adapters.train import Lesson
from acclimate.adapters.worker import _as_passage, prepare
from acclimate.daemon.rounds import LearnConfig
from acclimate.store import buffer, sources
from acclimate.store.buffer import Example
from acclimate.store.db import Db
from acclimate.store.scan import scan

EVERYTHING = 100_000
FOLDERS = (("chats", "chat"), ("notes", "notes"))


@dataclass(frozen=True)
class Material:
    """Lessons, and for each a passage that says what it teaches."""

    lessons: list[Lesson]
    contexts: list[str]


@dataclass(frozen=True)
class RoundMaterial:
    """One round: what is new, and everything so far that still holds."""

    number: int
    new: Material
    everything: Material


def rounds(folders: Sequence[Path], prompt: Prompt, learn: LearnConfig) -> list[RoundMaterial]:
    """The material of each round, had every earlier one been accepted."""
    out = []
    with tempfile.TemporaryDirectory() as root:
        db = Db(Path(root) / "buffer.db")
        try:
            watched = {}
            for part, kind in FOLDERS:
                folder = Path(root) / part
                folder.mkdir()
                watched[part] = sources.add_source(db, folder, kind)  # type: ignore[arg-type]
            for number, folder in enumerate(folders, start=1):
                for part, source in watched.items():
                    for file in sorted((folder / part).iterdir()):
                        shutil.copy(file, Path(root) / part / f"{folder.name}-{file.name}")
                    scan(db, source)
                new = _new(db, prompt, learn, number)
                out.append(RoundMaterial(number, new, _everything(db, prompt, number)))
        finally:
            db.close()
    return out


def _new(db: Db, prompt: Prompt, learn: LearnConfig, number: int) -> Material:
    """Takes what waits, as a round does, and marks it learned."""
    found = buffer.snapshot(db, limit=learn.max_new, replay=learn.replay, seed=number)
    waited = frozenset(e.id for e in found.new if e.state == "held-out")
    mixture = choose(
        [_taught(e) for e in found.new], [_taught(e) for e in found.replay], waited, number
    )
    material = _material(mixture.new, mixture.replay, prompt, number)
    buffer.mark(db, [lesson.example_id for lesson in material.lessons], "learned")
    buffer.mark(db, [e.id for e in mixture.held_out], "held-out")
    kept = {lesson.example_id for lesson in material.lessons} | {e.id for e in mixture.held_out}
    buffer.mark(db, [e.id for e in found.new if e.id not in kept], "quarantined", "too long")
    return material


def _everything(db: Db, prompt: Prompt, number: int) -> Material:
    """All that was learned and that no newer reply contradicts."""
    found = buffer.snapshot(db, limit=0, replay=EVERYTHING, seed=number)
    return _material([_taught(e) for e in found.replay], [], prompt, number)


def _material(
    new: Sequence[Taught], replay: Sequence[Taught], prompt: Prompt, number: int
) -> Material:
    snapshot = Snapshot(
        round=number,
        seed=number,
        threads=0,
        base=Path(),
        base_sha256="",
        anchor_cache=Path(),
        new=list(new),
        replay=list(replay),
    )
    contexts = {e.id: _as_passage(e.messages()) for e in new}
    lessons = [x for x in prepare(snapshot, prompt).lessons if x.example_id in contexts]
    return Material(lessons, [contexts[x.example_id] for x in lessons])


def _taught(example: Example) -> Taught:
    return Taught(id=example.id, kind=example.kind, content=example.content)
