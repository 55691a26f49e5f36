"""Which examples a round teaches, rehearses and holds out, in which order, and its seed.

Pure decisions on examples; knows neither the database nor the model. They hang on what examples
say, never on their numbers: two homes that hold the same make the same adapter.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from acclimate.adapters.request import may_be_question
from acclimate.adapters.reword import asks_personally
from acclimate.adapters.snapshot import Taught
from acclimate.store.chats import canonical

HELD_OUT_SHARE = 0.2
HELD_OUT_MOST = 12
HELD_OUT_FROM = 8
FACT_REPLY_CHARS = 160
# Of a question that has no "my" in it the reply is that of a fact up to so many characters: general
# advice takes more.
NAMED_REPLY_CHARS = 90
_ASKS = re.compile(
    r"(?:(?:please|remind me|tell me|and|so)[,:]?\s+)*(?:who|whose|what|which|where|when"
    r"|how (?:many|much|old|long|far|often|tall|big|high))(?:['’]s|['’]re)?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Mixture:
    """The three parts of a round, each in the order of `content_sha256`."""

    new: list[Taught]
    replay: list[Taught]
    held_out: list[Taught]


def content_sha256(example: Taught) -> str:
    """What the example says, as a hash: the same in every home and under every number."""
    return hashlib.sha256(canonical(example.content).encode()).hexdigest()


def round_key(new: Iterable[Taught], parent_sha256: str | None) -> str:
    """What a round is about, as a hash: what it may teach, on which parent (None: the base)."""
    parts = [parent_sha256 or "base", *sorted(map(content_sha256, new))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def seed_of(key: str, rejected: int) -> int:
    """The seed of a round, another one after each time that the very same was rejected."""
    return int(hashlib.sha256(f"{key}:{rejected}".encode()).hexdigest()[:12], 16)


def is_fact(example: Taught) -> bool:
    """Whether the example answers a question about the person, shortly.

    No model can answer it without having been taught it, so holding it out measures nothing:
    facts are measured by unseen wordings of what was taught.
    """
    messages = example.messages()
    turns = [m for m in messages if m["role"] != "system"]
    if len(turns) != 2:
        return False
    question, reply = turns[0]["content"], turns[1]["content"]
    # Of what was made out of a note every question is: "Where does Uncle Bo live?"
    about_me = bool(example.passage) or asks_personally(question)
    return (about_me and len(reply) <= FACT_REPLY_CHARS) or asks_shortly(question, reply)


def asks_shortly(question: str, reply: str) -> bool:
    """Whether it asks who, what, where, when or how many, and is answered in few words: "Where does
    Juno's mum work?"."""
    short = len(reply) <= NAMED_REPLY_CHARS and "\n" not in reply.strip()
    return short and _ASKS.match(question.strip()) is not None and may_be_question(question)


def choose(
    new: Sequence[Taught], replay: Sequence[Taught], waited: frozenset[int], seed: int
) -> Mixture:
    """Holds out a fifth of the new exchanges that are not facts, where there are enough of them.

    `waited` are ids that an earlier round held out: they are taught now, so that nothing that the
    person said stays unlearned.
    """
    new, replay = sorted(new, key=content_sha256), sorted(replay, key=content_sha256)
    eligible = [e.id for e in new if e.id not in waited and not is_fact(e)]
    count = min(int(len(eligible) * HELD_OUT_SHARE), HELD_OUT_MOST)
    if len(eligible) < HELD_OUT_FROM:
        count = 0
    held = set(random.Random(seed).sample(eligible, count))
    return Mixture(
        [e for e in new if e.id not in held],
        replay,
        [e for e in new if e.id in held],
    )
