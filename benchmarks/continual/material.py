"""What each round teaches: a persona's files through the real store, as a round's worker sees them.

For methods that learn without a home of their own; trains nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acclimate.adapters.material import passages_of, prepare
from acclimate.adapters.mixture import choose, round_key, seed_of
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.snapshot import Snapshot, Taught, taught_of
from acclimate.adapters.train import Lesson
from acclimate.daemon.config import LearnConfig
from acclimate.daemon.study import study
from acclimate.store import buffer, sources
from acclimate.store.balance import Caps
from acclimate.store.db import Db
from acclimate.store.scan import scan
from continual.home import EVERYTHING
from continual.sequential import our_tokens

FOLDERS = (("chats", "chat"), ("notes", "notes"))


@dataclass(frozen=True)
class Material:
    """Lessons, for each a passage that says what it teaches, and what our round would spend."""

    lessons: list[Lesson]
    contexts: list[str]
    tokens: int


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
    study(db)
    waiting = buffer.snapshot(db, limit=learn.max_new, replay=0, caps=learn.caps()).new
    seed = seed_of(round_key(map(taught_of, waiting), None), 0)
    found = buffer.snapshot(
        db, limit=learn.max_new, replay=learn.replay, seed=seed, caps=learn.caps()
    )
    waited = frozenset(e.id for e in waiting if e.state == "held-out")
    mixture = choose([*map(taught_of, waiting)], [*map(taught_of, found.replay)], waited, seed)
    material = _material(mixture.new, mixture.replay, prompt, number, seed)
    learned = {lesson.example_id for lesson in material.lessons}
    held = {e.id for e in mixture.held_out}
    buffer.mark(db, learned, "learned")
    buffer.mark(db, held, "held-out")
    left = [e.id for e in waiting if e.id not in learned | held]
    buffer.mark(db, left, "quarantined", "too long")
    return material


def _everything(db: Db, prompt: Prompt, number: int) -> Material:
    """All that was learned and that no newer reply contradicts."""
    caps = Caps(alike_per_round=EVERYTHING, alike=EVERYTHING)
    found = buffer.snapshot(db, limit=0, replay=EVERYTHING, seed=number, caps=caps)
    return _material([*map(taught_of, found.replay)], [], prompt, number, number)


def _material(
    new: Sequence[Taught], replay: Sequence[Taught], prompt: Prompt, number: int, seed: int
) -> Material:
    snapshot = Snapshot(
        round=number,
        seed=seed,
        threads=0,
        base=Path(),
        base_sha256="",
        anchor_cache=Path(),
        new=list(new),
        replay=list(replay),
    )
    every = prepare(snapshot, prompt).lessons
    lessons = [lesson for lesson in every if not lesson.rehearsed]
    contexts = {e.id: passages_of(e)[-1] for e in new}
    return Material(lessons, [contexts[x.example_id] for x in lessons], our_tokens(every))
