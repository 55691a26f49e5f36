"""Study: notes become questions and answers, and questions get the topic that they are about.

Rules of grammar on text, no model: cheap enough to be done before every round. Knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from acclimate.adapters.mixture import asks_shortly
from acclimate.adapters.questions import ENOUGH, questions
from acclimate.adapters.study import short_reply
from acclimate.adapters.topic import as_news, topic
from acclimate.store.db import Db
from acclimate.store.studied import record, unstudied
from acclimate.store.topics import set_topics, supersede, without_topic

log = structlog.get_logger(__name__)

BATCH = 64


@dataclass(frozen=True)
class Studied:
    """What one call did."""

    pairs: int
    superseded: int


def study(db: Db) -> Studied:
    """Brings everything that was read since the last call into a form that a round can teach."""
    pairs = 0
    while parts := unstudied(db, BATCH):
        for part in parts:
            try:
                # What is a little less than worth learning waits behind the rest: a round takes
                # the weightiest.
                asked = [a for a in questions(part.text) if a.weight >= ENOUGH]
            except Exception as error:  # what the rules stumble over must not keep rounds waiting
                log.warning("not_studied", error=type(error).__name__)
                asked = []
            found = [(as_news(a.question, a.sentence), sentence(a.answer), a.weight) for a in asked]
            pairs += record(db, part, found)
    find_topics(db)
    return Studied(pairs, supersede(db))


def find_topics(db: Db) -> None:
    """Notes of every exchange that has come since what it is about."""
    while rows := without_topic(db, BATCH):
        set_topics(
            db,
            [
                (n, _topic(question, reply, of_note), told(question, reply))
                for n, question, reply, of_note in rows
            ],
        )


def _topic(question: str, reply: str, of_note: bool) -> str:
    return topic(question, personal=of_note or asks_shortly(question, reply))


def sentence(answer: str) -> str:
    """The answer as a reply."""
    return f"{answer[:1].upper()}{answer[1:].rstrip('.')}."


def told(question: str, reply: str) -> str:
    """The bare answer in one spelling."""
    return short_reply(question, reply).casefold().strip(" .!")
