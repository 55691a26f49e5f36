"""How places, times and other phrases with prepositions are asked for.

Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from acclimate.adapters.grammar import belongs, participle, past, third
from acclimate.adapters.questions.builder import Builder, apart
from acclimate.adapters.questions.predicates import Part
from acclimate.adapters.questions.scene import Candidate, finished, is_amount, is_person, spelt
from acclimate.adapters.questions.words import Token


def of_place(b: Builder, part: Part) -> Iterator[Candidate]:
    clause, phrase = b.clause, part.phrase
    words = phrase.words
    answer = (*words, *phrase.name) if not apart(phrase) else words
    if phrase.head.tag in ("S", "O") and part.prep != "by":
        return
    if clause.base == "have" and not any(p.kind == "object" for p in clause.parts):
        return  # "whom I had on the phone"
    if part.prep == "by" and clause.passive:
        yield from _agent(b, part, answer)
        return
    if (
        is_amount(words)
        and belongs(words[-1].low, "unit")
        and part.prep in ("above", "below", "over", "under", "up-to")
    ):
        unit = b.scene.said(words[-1:])
        wh = f"{part.prep.replace('-', ' ')} how many {spelt(unit or '')}"
        yield from b.make(b.ask(wh, part), words, 0.25)
        return
    if part.prep == "by" and len(words) == 1:
        yield from b.make(b.ask("how", part), part.words, 0.0)
        return
    adjective = next((p for p in clause.parts if p.kind == "complement"), None)
    stranded = belongs(clause.base, "strand") or (
        adjective is not None and clause.base == "be" and adjective.words[0].tag == "w"
        and part.prep in ("at", "on", "in", "by")
    )  # fmt: skip
    if stranded and part.prep in ("in", "on", "at", "by"):
        wh = "who" if is_person(phrase, b.scene) else "what"
        yield from b.make(b.ask(wh, part, part.prep.replace("-", " ")), answer, 0.1)
        return
    if (
        part.prep == "at"
        and len(words) == 1
        and re.fullmatch(r"[1-9]\d|\w+ty(-\w+)?|\w+teen", words[0].low)
    ):
        yield from b.make(b.ask("at what age", part), words, 0.25)
        return
    if (words[0].tag == "#" and len(words) == 1) or is_amount(words) or b.follows(part):
        return
    owner = any(w.tag == "'" for w in words)
    if is_person(phrase, b.scene) and part.prep not in ("next-to", "near", "behind") and not owner:
        return
    if any(belongs(w.low, "time") for w in words):
        return
    if belongs(phrase.head.low, "language", "colour") or part.prep in ("among", "within"):
        yield from b.make(b.ask("which " + ("colour" if belongs(phrase.head.low, "colour") else "language") + " " + part.prep, part), answer, -0.1)  # fmt: skip  # noqa: E501
        return
    if not _is_place(part, clause.base):
        return
    whole = answer if part.prep in ("in", "on", "at", "into") else (*part.words,)
    weight = 0.12 if part.prep in ("in", "on", "at", "into", "to") else 0.1
    if clause.base in (
        "keep",
        "live",
        "store",
        "hide",
        "park",
        "hang",
        "stand",
        "meet",
        "work",
    ):
        weight += 0.1
    yield from b.make(b.ask("where", part), b.reaching(part, whole), weight)


_WAYS = frozenset(
    "over past through up out-of down around round against by along off within into".split()
)


def _is_place(part: Part, base: str) -> bool:
    """Whether the phrase tells a place, not a manner: "in rows", "at random", "over a hedge"."""
    words, head = part.phrase.words, part.phrase.head
    if part.prep in _WAYS:
        return belongs(base, "static", "motion") and not is_amount(words)
    bare = all(w.tag == "w" for w in words) and not part.phrase.plural and len(words) == 1
    if bare and part.prep in ("in", "on", "at", "under"):
        return belongs(head.low, "bare_place", "belongings")
    if part.prep == "in" and belongs(head.low, "clothing"):
        return False
    return not (belongs(head.low, "vehicle") and not belongs(base, "static"))


def _agent(b: Builder, part: Part, answer: Sequence[Token]) -> Iterator[Candidate]:
    clause = b.clause
    if b.who is None:
        return
    rest = b.tail(part, timed=clause.tense == "present")
    if rest is None:
        return
    who = "who" if not belongs(part.phrase.head.low, "unit", "time") else "what"
    be = clause.first
    verb = third(clause.base) if be in ("is", "are", "am") else past(clause.base)
    if be in ("has", "have"):
        verb = f"has {participle(clause.base)}"
    elif be in ("will", "shall", "can", "must"):
        verb = f"{be} {clause.base}"
    thing = {"I": "me", "we": "us"}.get(b.who, b.who)
    yield from b.make(finished([who, verb, thing, *rest]), b.reaching(part, answer), 0.25)


def of_time(b: Builder, part: Part) -> Iterator[Candidate]:
    words = part.words
    low = [w.low for w in words]
    if any(belongs(w, "vague_time") for w in low) or "this" in low or low[0] in ("last", "next"):
        return
    if len(low) == 1 or (len(low) == 2 and low[0] in ("in", "at", "by", "before", "after", "during", "for")):  # fmt: skip  # noqa: E501
        lone = low[-1]
        if belongs(lone, "time") and not belongs(lone, "month", "day"):
            return
    if low[:2] == ["in", "the"] or low[:2] == ["at", "the"] or (low[0] == "the" and "day" in low):
        return
    if low[0] in ("a", "an") or (
        low[0] == "the" and b.clause.base != "be" and not belongs(b.clause.base, "motion")
    ):
        return
    if low[0] == "for":
        yield from b.make(b.ask("how long", part, when=True), words[1:], 0.1)
        return
    if low[0] == "since":
        yield from b.make(b.ask("since when", part, when=True), words[1:], 0.12)
        return
    if b.clause.base in ("take", "last") and words[0].tag == "#" and belongs(low[-1], "time"):
        yield from b.make(b.ask("how long", part, when=True), words, 0.2)
        return
    if words[0].tag == "#" and belongs(low[-1], "time") and not part.prep:
        yield from b.make(b.ask("how long", part, when=True), words, 0.1)
        return
    if part.prep == "to" and b.clause.base in ("move", "shift", "change", "go") and b.who:
        be = "are" if b.clause.subject is not None and b.clause.subject.plural else "is"
        yield from b.make(finished(["when", be, b.who]), words[1:], 0.2)
        return
    if part.prep in ("until", "till"):
        yield from b.make(b.ask("until when", part, when=True), words[1:], 0.1)
        return
    often = re.match(r"(?:(?:once|twice|three times|four times) a|every (?:two|three|four|second|other))", " ".join(low))  # fmt: skip  # noqa: E501
    body = words[1:] if words[0].tag == "P" and len(words) > 1 and low[0] in (
        "on", "at", "in", "by") else words  # fmt: skip
    if often:
        yield from b.make(b.ask("how often", part, when=True), words, 0.12)
        return
    clocked = any(re.match(r"\d{1,2}[:.]\d\d", w) for w in low) or "past" in low
    weight = 0.12 + (0.06 if clocked else 0.0)
    others = [p for p in b.clause.parts if p.kind == "time" and p is not part]
    if others and b.clause.tense == "present":
        weight -= 0.02
    yield from b.make(b.ask("when", part, when=True), body, weight)


def of_other(b: Builder, part: Part) -> Iterator[Candidate]:
    phrase, clause = part.phrase, b.clause
    answer = (*phrase.words, *phrase.name) if not apart(phrase) else phrase.words
    if phrase.head.tag in ("S", "O"):
        return
    prep, base = part.prep, clause.base
    noun = next((p for p in clause.parts if p.kind == "complement"), None)
    if base == "be" and noun is not None and noun.words[0].tag != "w":
        return  # "the only way to seven houses": a part of what it is
    person = is_person(phrase, b.scene)
    if prep == "as":
        if base == "work":
            do = b.do()
            yield from b.make(f"What {do} {b.who} do for a living?", answer, 0.2)
        return
    if prep == "to" and belongs(base, "motion") and not person:
        yield from b.make(b.ask("where", part), answer, 0.2)
    elif prep == "from" and not person and phrase.words[0].tag != "#":
        wh = "where" if base in ("come", "be", "get", "buy", "move", "order", "fetch") else "what"
        weight = 0.34 if base in ("come", "be") else 0.14
        yield from b.make(b.ask(wh, part, "from"), b.reaching(part, answer), weight)
    elif prep == "for" and is_amount(phrase.words):
        yield from b.make(b.ask("how much", part, "for"), answer, 0.1)
    elif prep == "up-to" and is_amount(phrase.words):
        yield from b.make(b.ask("what", part, "up to"), answer, 0.2)
    elif prep in ("to", "for", "about", "with", "from", "of", "after", "without"):
        given = prep == "to" and base in ("give", "sell", "lend", "leave", "send", "write", "show")
        wh = "who" if person or given else "what"
        weight = 0.2 if given else 0.16 if person or base == "be" else 0.02
        if not person and any(p.kind == "object" for p in clause.parts):
            weight -= 0.12
        yield from b.make(b.ask(wh, part, prep), answer, weight)
