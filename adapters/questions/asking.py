"""Questions that a clause answers: its parts, its subject, and the names in it.

Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from acclimate.adapters.grammar import belongs, participle
from acclimate.adapters.questions.builder import Builder, apart
from acclimate.adapters.questions.parts import asked_for
from acclimate.adapters.questions.phrases import Phrase
from acclimate.adapters.questions.predicates import Clause, Part
from acclimate.adapters.questions.scene import (
    Candidate,
    Scene,
    content_words,
    count,
    finished,
    is_amount,
    is_person,
    specific,
)
from acclimate.adapters.questions.words import Token


def asked(clause: Clause, scene: Scene) -> Iterator[Candidate]:
    """Every question that the clause answers, in no order; some are worth little."""
    clause = _turned(clause, scene)
    builder = Builder(clause, scene)
    if clause.dependent or clause.tense == "former" or _is_dummy(clause):
        return
    if clause.there:
        yield from _existing(builder)
        return
    if clause.subject is not None and clause.subject.head.low == "it":
        yield from _effort(builder)
    yield from _called(builder)
    yield from _names(builder)
    yield from _defined(builder)
    if clause.negative and not (clause.tense == "modal" or clause.first in ("don't", "doesn't")):
        return
    for part in clause.parts:
        yield from asked_for(builder, part)
    yield from _subject_of(builder)


def _turned(clause: Clause, scene: Scene) -> Clause:
    """ "They have moved our pitch" of nobody in particular → "Our pitch has been moved"."""
    objects = [p for p in clause.parts if p.kind == "object"]
    if clause.subject is None or clause.subject.head.low != "they" or "they" in scene.meant:
        return clause
    if len(objects) != 1 or clause.passive or clause.negative or clause.there:
        return clause
    subject = objects[0].phrase
    if subject.head.tag in ("S", "O") or clause.base in ("have", "be", "get"):
        return clause
    many, form = subject.plural, participle(clause.base)
    if not clause.first:
        first = ("were" if many else "was") if clause.tense == "past" else "are" if many else "is"
        middle = (form, *clause.middle)
    elif clause.first in ("have", "has") and clause.middle:
        first, middle = "have" if many else "has", ("been", form, *clause.middle[1:])
    else:
        return clause
    parts = tuple(p for p in clause.parts if p is not objects[0])
    return replace(
        clause, subject=subject, first=first, middle=middle, parts=parts, passive=True, front=0
    )


_WEATHER = frozenset("rain snow hail freeze thunder pour drizzle".split())


def _is_dummy(clause: Clause) -> bool:
    """ "It is late", "It's the seventh year", "It rained": the "it" means nothing."""
    if clause.subject is None or clause.subject.head.low != "it":
        return False
    if clause.base != "be":
        return clause.base in _WEATHER
    of = next((p for p in clause.parts if p.kind == "complement"), None)
    timed = any(p.kind == "time" and p.prep not in ("on", "at") for p in clause.parts)
    told = of is not None and any(belongs(w.low, "time", "day", "ordinal") for w in of.words)
    return timed or told or not clause.parts


def _effort(b: Builder) -> Iterator[Candidate]:
    """ "It takes me 25 minutes to walk to work", "It costs 4 pounds to park"."""
    clause = b.clause
    to = next((p for p in clause.parts if p.kind == "infinitive"), None)
    what = b.scene.said(to.words) if to is not None else None
    if what is None or clause.base not in ("take", "cost") or clause.first:
        return
    for part in clause.parts:
        amount = part.kind == "time" if clause.base == "take" else is_amount(part.phrase.words)
        if amount and part.words[0].tag == "#":
            how = "how long" if clause.base == "take" else "how much"
            do = "did" if clause.tense == "past" else "does"
            me = [p.phrase.low for p in clause.parts if p.phrase.low in ("me", "us")]
            question = finished([how, do, "it", clause.base, *me, what])
            yield from b.make(question, part.words, 0.3)


def _called(b: Builder) -> Iterator[Candidate]:
    """ "They call me Custard"."""
    clause = b.clause
    whom = next((p.phrase.low for p in clause.parts if p.kind == "object"), "")
    name = next((p for p in clause.parts if p.kind == "complement"), None)
    unnamed = clause.subject is not None and clause.subject.head.low == "they" and b.who is None
    if unnamed and clause.base == "call" and whom in ("me", "us") and name is not None:
        do = "did" if clause.tense == "past" else "do"
        yield from b.make(f"What {do} they call {whom}?", name.words, 0.3)


def _defined(b: Builder) -> Iterator[Candidate]:
    """ "The sweets that I keep in my toolbox are violet creams", "Pascoe is the garage that …"."""
    clause, subject = b.clause, b.clause.subject
    relative, answer = clause.inside, None
    if clause.after is not None and subject is not None and subject.words[0].tag == "N":
        relative, answer = clause.after, (*subject.words, *subject.name)
    elif relative is not None and (clause.base == "be" or clause.passive) and clause.parts:
        phrase = clause.parts[0].phrase
        named = clause.parts[0].kind == "complement" or clause.base == "be"
        answer = (*phrase.words, *phrase.name) if named else None
    if relative is None or answer is None:
        return
    if len(answer) == 1 and belongs(answer[0].low, "adjective"):
        return
    inner = Builder(relative.clause, b.scene)
    if relative.noun.head.low == "what":
        yield from inner.make(inner.ask("what", None), answer, 0.3)
        return
    noun = [w for w in relative.noun.words if w.tag not in ("D", "#") and w.low != "only"]
    bare = b.scene.said(noun)
    if bare is None:
        return
    wh = f"which {bare}"
    if is_person(relative.noun, b.scene):
        wh = "who"
    elif relative.pronoun == "where" or relative.noun.head.low in ("place", "spot"):
        wh = "where"
    elif relative.noun.head.low in ("day", "date", "time", "month", "year"):
        wh = "when"
    elif relative.noun.head.low in ("thing", "one", "only", "ones"):
        wh = "what"
    if relative.own:
        verbs, tail = inner.verbs(), inner.tail(None, timed=True)
        question = None if verbs is None or not tail else finished([wh, *verbs, *tail])
    else:
        question = inner.ask(wh, None)
    yield from inner.make(question, answer, 0.3)


def _names(b: Builder) -> Iterator[Candidate]:
    """ "my sister Jana", "a lurcher, Pim", "a boat called Merrow"."""
    clause = b.clause
    phrases: list[tuple[Phrase, Part | None]] = [(p.phrase, p) for p in clause.parts]
    if clause.subject is not None:
        phrases.insert(0, (clause.subject, None))
    for phrase, part in phrases:
        if phrase.other and phrase.head.tag == "N":
            yield from _role(b, phrase)
        if not phrase.name:
            continue
        person = belongs(phrase.head.low, "kin", "role")
        thing = _owned(b, phrase, part)
        if thing is None:
            continue
        be = "are" if phrase.plural else "is"
        if clause.base == "have" and clause.tense == "past":
            be = "were" if phrase.plural else "was"
        if phrase.head.low in ("friend", "friends") and len(phrase.words) > 2:
            question, answer, weight = f"What {be} {thing} called?", phrase.name, 0.2
        elif phrase.head.low in ("friend", "friends", "neighbour", "colleague", "cousin"):
            question, answer, weight = (
                f"Who {be} {b.scene.plain(phrase.name)}?", phrase.words, 0.0)  # fmt: skip
        elif person and not belongs(phrase.head.low, "kin"):
            question, answer, weight = f"Who {be} {thing}?", phrase.name, 0.3
        else:
            question, answer, weight = f"What {be} {thing} called?", phrase.name, 0.35
        yield from _named(question, answer, weight)


def _named(question: str, answer: Sequence[Token], weight: float) -> Iterator[Candidate]:
    if content_words(question):
        weight += 0.2 if re.search(r"\b(?:my|our)\b", question) else 0.0
        yield Candidate(question, answer[0].start, answer[-1].end, weight + specific(answer))


def _role(b: Builder, phrase: Phrase) -> Iterator[Candidate]:
    role = b.scene.said(phrase.other)
    if role is None:
        return
    be = "are" if phrase.plural else "is"
    if role.startswith(("my ", "our ", "the ")) or "'s " in role:
        yield from _named(f"Who {be} {role}?", phrase.words, 0.25)
    name = b.scene.plain(phrase.words)
    yield from _named(f"Who {be} {name}?", phrase.other, 0.2)


def _owned(b: Builder, phrase: Phrase, part: Part | None) -> str | None:
    """The named thing as its owner would speak of it: "a lurcher" → "our lurcher"."""
    words = phrase.words
    if words[0].low in ("a", "an", "two", "three", "four", "some") and part is not None:
        bare = b.scene.said([w for w in words if w.low not in ("a", "an", "some", "new")])
        if bare is None:
            return None
        ours = b.mine or b.clause.subject is None
        if ours and belongs(b.clause.base, "have") and part.kind == "object":
            mine = "our" if b.who == "we" else "my"
            return f"{mine} {bare}"
        return f"the {bare}"
    said = b.scene.said(words)
    return said if said and re.match(r"(?:my|our|the)\b|.*'s ", said) else None


_GIVING = frozenset("give leave teach make build knit sew buy lend sell".split())


def _gives_me(clause: Clause) -> bool:
    return clause.base in _GIVING and any(w.low == "me" for p in clause.parts for w in p.words)


def _gave_me(clause: Clause) -> bool:
    """ "The lads gave me a belt"; not "Wool gives me a rash"."""
    return clause.tense != "present" and _gives_me(clause)


def _subject_of(b: Builder) -> Iterator[Candidate]:
    """Who or what does it."""
    clause, subject = b.clause, b.clause.subject
    if subject is None or subject.head.tag == "S" or subject.words[0].low in ("this", "that"):
        return
    if clause.negative or not clause.parts or b.who is None:
        return
    tail = b.tail(None, timed=clause.tense == "present")
    if not tail or subject.joined:
        return
    person = is_person(subject, b.scene) or _serves(clause, subject)
    named = subject.head.tag == "N" or bool(subject.name)
    answer: tuple[Token, ...] = subject.words
    if subject.name:
        answer = (*subject.words, *subject.name) if not apart(subject) else subject.name
    if clause.base == "be":
        complement = next((p for p in clause.parts if p.kind == "complement"), None)
        if complement is None or complement.words[0].low not in ("my", "our", "the"):
            return
        if not named and not person:
            return
    verbs = b.verbs()
    unsure = subject.words[0].tag == "N" and not person and clause.base not in ("be", "cost")
    if verbs is None or unsure:
        return
    weight = 0.04 if person and named else 0.0 if person or named else -0.25
    if subject.words[0].low in ("my", "our") and clause.tense == "present":
        weight -= 0.15
    if _gives_me(clause):
        weight += 0.3
    wh = "who" if person or _gave_me(clause) else "what"
    if (
        clause.front
        and subject.words[0].start > clause.parts[0].words[-1].end
        and (subject.words[0].low in ("a", "an"))
    ):
        weight += 0.45  # "In the hall hangs a map"
    yield from b.make(finished([wh, *verbs, *tail]), answer, weight)


# What things do to what is mine as well.
_OF_THINGS = frozenset(
    "have contain need cost be become include suit fit cover hold lie stand stop pass run open"
    " close start end begin belong mean make help cause leave reach join serve own use call"
    " get".split()
)


def _serves(clause: Clause, subject: Phrase) -> bool:
    """ "Hesketh mows my lawn": a name that does something to what is mine is taken for somebody."""
    if subject.head.tag != "N" or subject.words[0].tag != "N" or clause.base in _OF_THINGS:
        return False
    if any(w.tag in ("#", "'") for w in subject.words):
        return False
    if _gave_me(clause):
        return True
    return any(p.kind == "object" for p in clause.parts) and any(
        p.phrase.words[0].low in ("my", "our") for p in clause.parts
    )


def _existing(b: Builder) -> Iterator[Candidate]:
    """ "There are 14 hives in the orchard"."""
    clause = b.clause
    thing = next((p for p in clause.parts if p.kind in ("complement", "object")), None)
    if thing is None or clause.negative:
        return
    words = thing.phrase.words
    be = "are" if thing.phrase.plural else "is"
    be = {"is": "was", "are": "were"}[be] if clause.tense == "past" else be
    rest = b.tail(thing, timed=False) or []
    number = count(words)
    if number and words[number:]:
        things = b.scene.said(words[number:])
        if things:
            yield from b.make(
                finished([f"how many {things} {be} there", *rest]), words[:number], 0.15
            )
    bare = b.scene.said([w for w in words if w.tag != "D" and w.tag != "#"])
    for part in clause.parts:
        if part.kind == "place" and not number and {"my", "our"} & {w.low for w in part.words}:
            where = b.scene.said(part.words)
            if where:
                yield from b.make(finished([f"what {be} there", where]), words, 0.15)
        if part.kind == "place" and bare:
            question = finished(["where", be, "the", bare])
            whole = part.phrase.words if part.prep in ("in", "on", "at") else part.words
            yield from b.make(question, whole, 0.1)
    if thing.phrase.name and bare:
        yield from b.make(f"What {be} the {bare} called?", thing.phrase.name, 0.15)
