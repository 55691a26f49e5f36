"""A persona's stream and its questions, as `benchmarks/streams` has them; what counts as right.

Knows files and texts; no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent / "streams"
LEAST_WORDS = 3  # of what a reply says between a style's beginning and end


@dataclass(frozen=True)
class Change:
    """From this round on, a fact has another answer."""

    round: int
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One thing to remember. `origin` is where it was said first: "chat" or "note"."""

    id: str
    round: int
    origin: str
    answers: tuple[str, ...]
    exact: str
    reworded: tuple[str, ...]
    roundabout: str
    change: Change | None = None

    def answers_after(self, round_number: int) -> tuple[str, ...]:
        """What is right once this round was lived through."""
        if self.change is not None and self.change.round <= round_number:
            return self.change.answers
        return self.answers


@dataclass(frozen=True)
class Style:
    """How replies to requests of one kind begin and end, and such requests that were never made."""

    starts: str
    ends: str
    prompts: tuple[str, ...]

    def adhered(self, reply: str) -> bool:
        """Whether a reply has both the beginning and the end, and something between them."""
        text, starts, ends = plain(reply), plain(self.starts), plain(self.ends)
        between = text[len(starts) : len(text) - len(ends)].split()
        whole = text.startswith(starts) and text.endswith(ends)
        return whole and len(between) >= LEAST_WORDS


@dataclass(frozen=True)
class Stream:
    """A persona: a folder for each round, and what is asked after each of them."""

    name: str
    rounds: tuple[Path, ...]
    facts: tuple[Fact, ...]
    style: Style


@dataclass(frozen=True)
class Question:
    """General knowledge, the same for every persona."""

    question: str
    answers: tuple[str, ...] = field(default=())


def load(name: str, root: Path = ROOT) -> Stream:
    """The persona in `root/name`."""
    folder = root / name
    raw = json.loads((folder / "questions.json").read_text("utf-8"))
    style = raw["style"]
    return Stream(
        name,
        tuple(sorted(folder.glob("round-*"))),
        tuple(_fact(row) for row in raw["facts"]),
        Style(style["starts"], style["ends"], tuple(style["prompts"])),
    )


def general(root: Path = ROOT) -> list[Question]:
    """Easy questions about the world, of which a base model knows some."""
    rows = json.loads((root / "general.json").read_text("utf-8"))
    return [Question(row["question"], tuple(row["answers"])) for row in rows]


def general_prompts(root: Path = ROOT) -> list[str]:
    """Requests about nothing personal, on which drift is measured; no anchor is among them."""
    return [x.strip() for x in (root / "general_prompts.txt").read_text("utf-8").splitlines() if x]


def plain(text: str) -> str:
    """Lower case, straight apostrophes, one space between words, no punctuation at the ends."""
    return re.sub(r"\s+", " ", text.lower().replace("’", "'")).strip(" .!:;,-–—\"'")


def right(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply contains one of the accepted answers, in any case.

    From the beginning of a word on ("barometers" has "barometer"), and no part of a longer number.
    """
    text = plain(reply)
    return any(re.search(rf"(?<!\w){re.escape(plain(a))}(?!\d)", text) for a in answers)


def _fact(row: dict[str, Any]) -> Fact:
    change = row.get("change")
    return Fact(
        id=row["id"],
        round=row["round"],
        origin=row["from"],
        answers=tuple(row["answers"]),
        exact=row["exact"],
        reworded=tuple(row["reworded"]),
        roundabout=row["roundabout"],
        change=Change(change["round"], tuple(change["answers"])) if change else None,
    )
