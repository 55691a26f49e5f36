"""Echo questions of what no rule of grammar could ask about: "Still what on the sign?".

Pure text. The sentence stays as it is but for one name, number or time, in whose place the question
word stands; what it lacks in grammar it has in the words by which it is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from acclimate.adapters.grammar import belongs, capitalised
from acclimate.adapters.questions.fragments import is_generic
from acclimate.adapters.questions.notes import Line
from acclimate.adapters.questions.scene import (
    LONGEST_ANSWER,
    LONGEST_QUESTION,
    Candidate,
    Scene,
    content_words,
    specific,
    tidy,
)
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import PLACES, Token

SPECIFIC = 0.12  # how unguessable an answer has to be: a name, number, time or colour
TELLING = 4  # words with a meaning that a question has, where the sentence has them
# With so many it is found although a "she" in it hangs in the air.
TELLING_ENOUGH = 5
_LOOSE = re.compile(r"\b(?:he|she|it|they|him|them|you|yours?|this|that|there|one)\b")
_BREAKS = frozenset(',;:.!?()-"“”')


@dataclass(frozen=True)
class _Gap:
    """The words [start, end) that a question leaves out, and those [answer, end) that answer it."""

    start: int
    answer: int
    end: int
    asks: str


def echoes(words: Sequence[Token], line: Line, scene: Scene) -> Iterator[Candidate]:
    """A question for each name, number, time and colour of the line."""
    if line.leads or line.asks:
        return
    about = line.headings[-1] if line.headings and not scene.dated else ""
    for gap in _gaps(words, scene):
        answer = words[gap.answer : gap.end]
        worth = specific(answer)
        if worth < SPECIFIC or len(answer) > LONGEST_ANSWER:
            continue
        first, last = _around(words, gap)
        before, after = words[first].start, words[last - 1].end
        left = scene.text[before : words[gap.start].start]
        right = scene.text[words[gap.end - 1].end : after]
        asked = tidy(re.sub(r"[*_`#]+", "", f"{left}{gap.asks}{right}")).strip(" ,;:.-–—!")
        telling = content_words(asked)
        if len(telling) < TELLING_ENOUGH and _LOOSE.search(asked.lower()):
            continue
        if about and about.lower() not in asked.lower():
            asked = f"{about}: {asked}"
        if len(telling) >= (1 if about else 2):
            yield Candidate(f"{capitalised(asked)}?", answer[0].start, answer[-1].end, worth)


def _gaps(words: Sequence[Token], scene: Scene) -> Iterator[_Gap]:
    at = 0
    while at < len(words):
        gap = _gap(words, at, scene)
        if gap is not None:
            yield gap
        at = at + 1 if gap is None else gap.end


def _gap(words: Sequence[Token], at: int, scene: Scene) -> _Gap | None:
    """What begins at `at`: a time, a number, a name or a colour."""
    word = words[at]
    if (end := time_end(words, at)) > at:
        vague = all(is_generic(w) and w.tag != "#" and not belongs(w.low, "day", "month")
                    for w in words[at:end])  # fmt: skip
        own = at + 1 if word.tag == "P" and at + 1 < end else at
        return None if vague else _Gap(at, own, end, "when")
    if word.tag == "#" and word.low not in ("one", "a"):
        end = at + 1
        while end < len(words) and words[end].tag == "#":
            end += 1
        unit = words[end] if end < len(words) else None
        if unit is not None and belongs(unit.low, "unit"):
            return _Gap(at, at, end + 1, "how much")
        counted = unit is not None and unit.tag == "w" and unit.text.islower()
        return _Gap(at, at, end, "how many" if counted else "which number")
    if word.tag == "N":
        end = _name_end(words, at)
        start = at
        while start and words[start - 1].tag == "D":
            start -= 1
        if start and words[start - 1].low in PLACES:
            near = words[start - 1].low in ("in", "on", "at")
            return _Gap(start - 1, at if near else start - 1, end, "where")
        known = word.low in scene.persons or belongs(word.low.rstrip("."), "title")
        return _Gap(at, at, end, "who" if known else "what")
    if belongs(word.low, "colour"):
        return _Gap(at, at, at + 1, "what colour")
    return None


def _name_end(words: Sequence[Token], at: int) -> int:
    end = at + 1
    while end < len(words):
        word = words[end]
        after = words[end + 1] if end + 1 < len(words) else None
        joins = word.low in ("of", "the", "&", "'s") and after is not None and after.tag == "N"
        if not (word.tag in ("N", "#") or word.text[0].isupper() or joins):
            break
        end += 1
    return end


def _around(words: Sequence[Token], gap: _Gap) -> tuple[int, int]:
    """The part of the sentence that is asked: from mark to mark, more where that says little."""
    first, last = _to_marks(words, gap.start, gap.end)
    while first > 0 or last < len(words):
        told = [*words[first : gap.start], *words[gap.end : last]]
        if sum(bool(content_words(w.text)) for w in told) >= TELLING:
            break
        back = _to_marks(words, first - 1, last)[0] if first > 0 else first
        on = _to_marks(words, first, last + 1)[1] if last < len(words) else last
        if last - back <= LONGEST_QUESTION and back < first:
            first = back
        elif on - first <= LONGEST_QUESTION and on > last:
            last = on
        else:
            break
    return first, last


def _to_marks(words: Sequence[Token], first: int, last: int) -> tuple[int, int]:
    while first > 0 and words[first - 1].tag not in _BREAKS:
        first -= 1
    while last < len(words) and words[last].tag not in _BREAKS:
        last += 1
    return first, last
