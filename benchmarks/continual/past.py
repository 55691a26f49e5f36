"""A past of any length: exchanges that were read and taught, as many rounds leave them.

Reading, study, the draws and the ledger are the real ones. Not trained is the adapter of each
round: all have the files of the first. Vectors are random: meaning costs the same whatever it says.
"""

from __future__ import annotations

import json
import os
import random
import shutil

import numpy as np

from acclimate.daemon.study import study
from acclimate.store import buffer, ledger
from acclimate.store.index import DIMENSIONS
from acclimate.store.scan import scan
from continual.home import PersonHome

FILE_LINES = 1_000
_EMBED_BATCH = 1_000
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
_THINGS = "kettle lantern saddle ledger compass anvil barrel chisel mirror violin".split()
_KINDS = "copper walnut folding spare Dutch narrow painted borrowed heavy velvet".split()
_PLACES = "pantry attic stable boathouse cellar workshop orchard porch study loft".split()
_SPOTS = "behind the,under the,on top of the,inside the,beside the".split(",")
_OWNERS = "stove ladder oak chest coal bin tall dresser workbench trunk shelf crate".split()


def name(number: int) -> str:
    """A made-up name, another one for each number."""
    parts = []
    number += len(_SYLLABLES) ** 2  # three syllables at least
    while number:
        number, rest = divmod(number, len(_SYLLABLES))
        parts.append(_SYLLABLES[rest])
    return "".join(parts).capitalize()


def exchange(number: int) -> dict[str, object]:
    """A line of a chat file: one fact, unlike any other of them."""
    rng = random.Random(number)
    who, kind, thing = name(number), rng.choice(_KINDS), rng.choice(_THINGS)
    where = f"{rng.choice(_SPOTS)} {rng.choice(_OWNERS)} in the {rng.choice(_PLACES)}"
    asked, told = rng.choice(
        [
            (f"Where do I keep the {kind} {thing} from {who}?", f"You keep it {where}."),
            (f"Who mends my {kind} {thing} from {who}?", f"{name(number * 7)} does, {where}."),
            (f"What do I call my {thing} from {who}?", f"You call it {kind} {name(number * 3)}."),
        ]
    )
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
    return {"messages": messages}


def extend(person: PersonHome, first: int, last: int) -> None:
    """Live through the exchanges from `first` up to `last`: read, study, embed, teach.

    The home has an adapter already, whose files the further ones share.
    """
    for start in range(first, last, FILE_LINES):
        lines = [json.dumps(exchange(n)) for n in range(start, min(start + FILE_LINES, last))]
        (person.streams["chat"] / f"past-{start:06d}.jsonl").write_text("\n".join(lines))
    scan(person.db, person.sources["chat"])
    study(person.db)
    _embed(person)
    while _teach(person):
        pass
    counts = buffer.counts(person.db)
    lost = {state: n for state, n in counts.items() if state != "learned" and n}
    assert not lost, f"the past was not learned whole: {lost}"


def _teach(person: PersonHome) -> bool:
    """One accepted round without its training; False when nothing is left to teach."""
    db, home, learn = person.db, person.home, person.learning
    parent = ledger.live(db)
    assert parent is not None
    version = ledger.next_version(db)
    taken = buffer.snapshot(
        db, limit=learn.max_new, replay=learn.replay, seed=version, caps=learn.caps()
    )
    if not taken.new:
        return False
    new, replay = ([e.id for e in part] for part in (taken.new, taken.replay))
    shutil.copytree(home.adapter_dir(parent), home.adapter_dir(version), copy_function=os.link)
    a, made_by = ledger.adapter(db, parent), ledger.rounds(db, limit=1)[0]
    round_id = ledger.start_round(db, parent, version, new, replay)
    ledger.publish(db, round_id, version, parent, a.sha256, 1.0, a.card, new, (), made_by.measures)
    rng = random.Random(version)
    buffer.set_surprise(db, round_id, {n: rng.expovariate(4.0) for n in new + replay})
    return True


def _embed(person: PersonHome) -> None:
    while pending := person.index.pending(_EMBED_BATCH):
        chunk_ids = [chunk_id for chunk_id, _ in pending]
        vectors = np.random.default_rng(chunk_ids[0]).standard_normal((len(pending), DIMENSIONS))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        person.index.set_vectors(chunk_ids, vectors.astype(np.float32))
    person.index.flush()
