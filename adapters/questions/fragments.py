"""Questions that lines without a verb answer: "Dentist on 2 December", "430 g water".

Pure text. What a line is about it takes from its heading or its own noun.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from acclimate.adapters.grammar import belongs, capitalised
from acclimate.adapters.questions.notes import Line
from acclimate.adapters.questions.phrases import Phrase, phrase
from acclimate.adapters.questions.scene import (
    LONGEST_ANSWER,
    Candidate,
    Scene,
    content_words,
    finished,
    is_person,
    specific,
    spelt,
)
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import Token, tokens


def topic(headings: Sequence[str], scene: Scene) -> str | None:
    """What a section is about, as a question may name it: "boat", "Jana", "the rye loaf"."""
    for heading in reversed(headings):
        text = re.split(r"\s[-–—]\s|[:;,(|?!/]", heading)[0].strip(" .*_`\"'“”")
        words = tokens(text, 0, len(text))
        if words and words[0].low in ("how", "to"):  # "How to make the rye loaf"
            verb = next((n for n, w in enumerate(words) if w.can("base")), None)
            words = words[verb + 1 :] if verb is not None else []
        found = phrase(words, 0, subject=False) if words else None
        if found is None or found.end < len(words) or len(found.words) > 5:
            continue
        inside = [w for w in found.words if w.low not in ("itself", "new")]
        if all(is_generic(w) for w in inside):
            continue
        if time_end(words, 0) == len(words) or any(belongs(w.low, "month", "day") for w in inside):
            continue
        here = Scene(text, scene.meant, scene.persons)
        if text.isupper():
            text = text.lower()
            here = Scene(text, scene.meant, scene.persons)
            inside = tokens(text, 0, len(text))
        said = here.said(inside)
        known = inside[0].low in scene.persons or belongs(inside[0].low, "title")
        if said is not None and not found.joined:
            common = len(inside) == 1 or inside[1].text.islower() or inside[1].tag == "#"
            if common and not known and re.match(r"[A-Z][a-z'’]+(?![\w-])", said):
                said = said[:1].lower() + said[1:]
            return said
    return None


def is_generic(word: Token) -> bool:
    return belongs(word.low, "generic", "time", "number") or word.tag in ("#", "D", "C", "P", "'")


def verbless(words: Sequence[Token], line: Line, scene: Scene) -> Iterator[Candidate]:
    """ "Spare key under the blue pot", "Dentist on 2 December", "430 g water", "vet Dr Pelling"."""
    about = topic(line.headings, scene)
    found = phrase(words, 0, subject=False)
    if found is None or found.head.tag in ("S", "O"):
        return
    ours = belongs(words[0].low, "role", "kin", "belongings")
    if (
        words[0].can("base", "past")
        and words[0].tag == "w"
        and not ours
        and words[0].low != "spare"
    ):
        return  # likelier a task
    if words[0].tag == "#" and about is not None and len(found.words) > 1:
        yield from _quantity(found, about, scene)
        return
    if time_end(words, 0) > 0:
        return
    thing = scene.said(found.words)
    if thing is None or not content_words(thing):
        return
    lone = len(found.words) == 1 and found.words[0].low not in scene.persons
    if lone and found.words[0].tag == "N" and words[0] is found.words[0]:
        thing = f"my {thing[:1].lower()}{thing[1:]}"
    if not re.match(r"(?:my|our|the)\b|.*'s ", thing) and found.words[0].tag != "N":
        thing = f"my {re.sub(r'^(?:a|an) ', '', thing)}"
    if found.name and (belongs(found.head.low, "role", "kin")):
        who = thing if about is None or not about[0].isupper() else f"{about}'s {bare(thing)}"
        yield from made(finished(["who is", who]), found.name, 0.3)
    be = "are" if found.plural else "is"
    at = found.end
    while at < len(words) and words[at].tag in (",", "("):
        at += 1
    if at >= len(words):
        return
    certain = 0.0 if line.item or line.text == scene.text.strip() else -0.15
    end = time_end(words, at)
    if end > at:
        body = words[at:end] if words[at].tag != "P" else words[at + 1 : end]
        vague = any(belongs(w.low, "vague_time") or w.low == "this" for w in body)
        if not vague and (words[at].tag == "P" or words[at - 1].tag == ","):
            yield from made(finished([f"when {be}", thing]), body, 0.32 + certain)
    elif words[at].low in STILL:
        place = phrase(words, at + 1, subject=False)
        if place is None or is_person(place, scene) or place.words[0].tag not in ("D", "N", "'"):
            return
        if place.end < len(words) and words[place.end].tag not in (",", ".", "P", ";", "("):
            return
        body = words[at : place.end]
        body = body[1:] if words[at].low in ("in", "on", "at") else body
        yield from made(finished([f"where {be}", thing]), body, 0.46 + certain)


STILL = frozenset(
    "in on at under behind beside near above below inside between opposite beneath underneath "
    "next-to in-front-of on-top-of".split()
)


def _quantity(found: Phrase, about: str, scene: Scene) -> Iterator[Candidate]:
    numbers = [w for w in found.words if w.tag == "#"]
    rest = found.words[len(numbers) :]
    things = scene.said([w for w in rest if w.low != "of"])
    if things is None or not rest or rest[0].tag != "w" or numbers[0].text[0] in "£$€":
        return
    measured = belongs(rest[0].low, "unit") and len(rest) > 1
    if measured:
        unit, _, what = things.partition(" ")
        things = f"{spelt(unit)} of {what}".replace(" of of ", " of ")
    for_what = (
        about if re.match(r"(?:my|our|the)\b", about) or about[0].isupper() else f"my {about}"
    )
    answer = [*numbers, rest[0]] if measured else numbers
    yield from made(finished([f"how many {things} are for", for_what]), answer, 0.3)


def made(question: str | None, answer: Sequence[Token], weight: float) -> Iterator[Candidate]:
    if question is None or not answer or len(answer) > LONGEST_ANSWER + 1:
        return
    if not content_words(question) or answer[0].tag in ("S", "O"):
        return
    if any(
        w.low in ("it", "he", "she", "they", "you", "there", "this", "each", "both") for w in answer
    ):
        return
    yield Candidate(
        capitalised(question),
        answer[0].start,
        answer[-1].end,
        max(0.0, min(1.0, weight + specific(answer))),
    )


def bare(text: str) -> str:
    return re.sub(r"^(?:my|our|the)\s+", "", text)
