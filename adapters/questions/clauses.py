"""A sentence's clauses: who, does what, and the parts that say whom, what, where and when.

Pure text; knows where clauses begin and end, not what is asked about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.phrases import Phrase, finite, phrase
from acclimate.adapters.questions.predicates import (
    ASSERTING,
    DEPENDENT,
    Clause,
    Part,
    Relative,
    closing,
    part_at,
    predicate,
)
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import BE, HAVE, Token

_UNKNOWN = Phrase((Token("it", 0, 0, "S"),), Token("it", 0, 0, "S"), 0)


_LENT = HAVE | {"is", "are", "was", "were"}


@dataclass
class _Reading:
    words: Sequence[Token]
    out: list[Clause] = field(default_factory=list)
    inside: Relative | None = None  # of the subject read last


def clauses(words: Sequence[Token]) -> list[Clause]:
    """The statements of one sentence in their order. Linear, for sentences of bounded length."""
    reading = _Reading(words)
    n, carried, fresh = 0, None, True
    front: list[Part] = []
    changed = False
    while n < len(words):
        token = words[n]
        low = token.low
        found = _subject(reading, n + 1) if low in DEPENDENT and time_end(words, n) == n else None
        if found is not None and low == "what" and fresh:
            whole = _free(reading, n, found)
            if whole is not None:
                reading.out.append(whole[0])
                fresh, n = False, whole[1]
                continue
        if found is not None:
            clause, end = _statement(words, found.end, found, [])
            reading.out.append(replace(clause, dependent=True))
            n = max(end, n + 1)
            continue
        after = words[n + 1].tag if n + 1 < len(words) else ""
        said = reading.out and belongs(reading.out[-1].base, "feeling", "speech")
        noun = n > 0 and (words[n - 1].tag in (",", "N") or (words[n - 1].tag == "w" and not said))
        found = _subject(reading, n + 1) if low == "that" and noun and not said else None
        if found is not None:  # "the plate that I have walked past": which one, no statement
            clause, end = _statement(words, found.end, found, [])
            n = max(end, n + 1)
            continue
        if low == "that" and n and after in ("D", "S", "N") and _subject(reading, n + 1):
            carried, front, n = None, [], n + 1
            continue
        if low in ("who", "which", "that") and n and finite(words, n + 1, None):
            found = _before(reading, n)
            clause, end = _statement(words, n + 1, found or _UNKNOWN, [])
            if found is not None:
                reading.out.append(clause)
            n = max(end, n + 1)
            continue
        if token.tag == "(":
            n = closing(words, n)
            continue
        if (skip := _from_now(words, n)) > n:
            changed, n = True, skip
            continue
        marks = not (token.tag.isalnum() or token.tag == "#")
        timed = time_end(words, n) > n
        if (token.tag in ("A", "C", "B") or low in ASSERTING or marks) and not timed:
            if low in ("now", "nowadays", "instead"):
                changed = True
            if token.tag in (";", ":", "."):
                carried, front = None, []
            fresh = fresh and token.tag == "A"
            n += 1
            if not (low == "there" and n < len(words) and _is_be(words[n])):
                continue
            clause, n = _statement(words, n, None, front)
            reading.out.append(replace(clause, there=True, changed=changed))
            carried, front, fresh = None, [], False
            continue
        subject = _subject(reading, n)
        if subject is not None:
            inside = reading.inside
            clause, end = _statement(words, subject.end, subject, front)
            if inside is not None and inside.end == subject.end:
                clause = replace(clause, inside=inside)
            carried = subject
            cleft = _cleft(words, clause, end)
            if cleft is not None:
                (clause, end), carried = cleft, cleft[0].subject
        elif fresh and _drops_subject(words, n):
            clause, end = _statement(words, n, None, front)
            carried = None
        elif (
            not fresh
            and reading.out
            and finite(words, n, carried)
            and (
                carried is not None
                or (
                    reading.out[-1].subject is None
                    and not reading.out[-1].there
                    and token.can("past")
                )
            )
        ):
            told = words[n - 1].tag == "," and token.can("participle") and carried is not None
            after_it = words[n + 1].tag if n + 1 < len(words) else ""
            first = ("were" if carried.plural else "was") if told and carried else ""
            lend = first if after_it == "P" else ""  # "a Bedford, bought from a nun"
            clause, end = _statement(words, n, carried, front, first=lend)
        elif (
            not fresh and reading.out and words[n - 1].tag == "C"
            and token.can("participle") and reading.out[-1].first in _LENT
        ):  # fmt: skip
            lent = reading.out[-1].first
            clause, end = _statement(words, n, carried, front, first=lent)
        elif (turned := _turned(words, n, front)) is not None:
            clause, end = turned
        else:
            part, end = part_at(words, n)
            if part is not None and _opens(words, end, part):
                front.append(part)
                n = end
                continue
            n = max(_boundary(words, n), n + 1)
            front, fresh = [], False
            continue
        reading.out.append(
            replace(clause, changed=changed or clause.changed or "now" in clause.adverbs)
        )
        front, fresh, changed = [], False, False
        n = max(end, n + 1)
    return reading.out


def _statement(
    words: Sequence[Token],
    n: int,
    subject: Phrase | None,
    front: list[Part],
    *,
    first: str = "",
    within: bool = False,
) -> tuple[Clause, int]:
    """The clause whose verbs begin at n, with what its complement says, and where it ends."""
    clause, at = predicate(words, n, subject, front, first=first, within=within)
    last = clause.parts[-1] if clause.parts else None
    if clause.base == "be" and last is not None and last.kind == "complement":
        said = last.phrase.end == at and last.words[0].low == "the"
        after = _relative(_Reading(words), last.phrase, at) if said else None
        if after is not None:
            return replace(clause, after=after), after.end
    return clause, at


def _cleft(words: Sequence[Token], clause: Clause, end: int) -> tuple[Clause, int] | None:
    """ "It was Jana who gave me the loom": the statement that is meant."""
    is_it = clause.subject is not None and clause.subject.head.low == "it"
    if not is_it or clause.base != "be" or end + 1 >= len(words) or len(clause.parts) != 1:
        return None
    who = clause.parts[0]
    if who.kind != "complement" or words[end].low not in ("who", "that"):
        return None
    return (
        _statement(words, end + 1, who.phrase, []) if finite(words, end + 1, who.phrase) else None
    )


def _free(reading: _Reading, n: int, subject: Phrase) -> tuple[Clause, int] | None:
    """ "What I drink at night is cocoa"."""
    words = reading.words
    inner, at = _statement(words, subject.end, subject, [], within=True)
    at = _aside_end(reading, at)
    what = Phrase((words[n],), words[n], at)
    if at >= len(words) or words[at].low not in BE:
        return None
    clause, end = _statement(words, at, what, [])
    return replace(clause, inside=Relative(what, "", inner, False, at)), end


def _aside_end(reading: _Reading, at: int) -> int:
    """After a "while I work" that stands at `at`."""
    words = reading.words
    if at < len(words) and words[at].low in ("when", "while", "if", "before", "after"):
        subject = _subject(reading, at + 1)
        if subject is not None:
            return _statement(words, subject.end, subject, [], within=True)[1]
    return at


def _before(reading: _Reading, n: int) -> Phrase | None:
    """The phrase that a "who" or "which" after a comma means."""
    if not reading.out or not reading.out[-1].parts:
        return None
    words, last = reading.words, reading.out[-1].parts[-1]
    here = n - 1 if words[n - 1].tag == "," else n
    sure = words[n - 1].tag == "," and last.kind != "time" and last.phrase.end == here
    return last.phrase if sure and last.phrase.head.tag in ("N", "w") else None


def _turned(words: Sequence[Token], n: int, front: list[Part]) -> tuple[Clause, int] | None:
    """ "In the hall hangs a map": the verb before its subject."""
    token = words[n]
    base = next((b for b, kind in token.verb if kind in ("third", "past", "base")), "")
    if not front or front[-1].kind != "place" or base not in _STANDING:
        return None
    found = phrase(words, n + 1, subject=False)
    if found is None or found.head.tag in ("S", "O"):
        return None
    tense = "past" if token.can("past") and not token.can("base", "third") else "present"
    return Clause(found, "", (), base, tense, tuple(front), front=len(front)), found.end


_STANDING = frozenset("hang stand lie live sit sleep grow hide come".split())


def _from_now(words: Sequence[Token], n: int) -> int:
    """After "from now on", "as of Monday", "these days", which say that a change holds."""
    low = [w.low for w in words[n : n + 3]]
    if low == ["from", "now", "on"]:
        return n + 3
    if low[:2] in (["these", "days"], ["no", "longer"], ["not", "anymore"]):
        return n + 2 if low[0] == "these" else n
    if low[:1] in (["from"], ["as"]) and n == 0:
        end = time_end(words, n + (2 if low[:2] == ["as", "of"] else 0))
        if low[:2] == ["as", "of"] and end > n + 2:
            return end
        if low[0] == "from" and end > n and words[end : end + 1] and words[end].low == "on":
            return end + 1
    return n


def _boundary(words: Sequence[Token], n: int) -> int:
    """The next place where another statement may begin."""
    for at in range(n + 1, len(words)):
        if words[at].tag in (",", ";", ":", "-", "C", "(", ")", ".", "?", "!", "S", '"', "“", "”"):
            return at
        if words[at].low in ASSERTING or (words[at].low in DEPENDENT and words[at].tag != "P"):
            return at
        if words[at].low == "that" and words[n].tag != "D":
            return at
    return len(words)


def _opens(words: Sequence[Token], end: int, part: Part) -> bool:
    """Whether a phrase before the subject: a time, or a place before a comma or a subject."""
    if part.kind == "place" and end + 1 < len(words) and words[end].low == "there":
        return _is_be(words[end + 1])
    while end < len(words) and (words[end].tag in (",", "A")):
        end += 1
    if end >= len(words) or part.kind == "object":
        return False
    if part.kind == "place" and any(b in _STANDING for b, _ in words[end].verb):
        return True
    return words[end].tag in ("S", "D", "N", "w", "P")


def _is_be(token: Token) -> bool:
    return token.low in BE or token.tag == "'" or token.low in ("will", "has", "have", "used")


def _drops_subject(words: Sequence[Token], n: int) -> bool:
    """ "Bought a bike", "Have moved", "Am learning": diary style, the writer is meant."""
    token = words[n]
    if token.low in ("am", "have", "had", "was", "'ve") and n + 1 < len(words):
        following = words[n + 1]
        return following.can("participle", "ing") or token.low in ("am", "was")
    return token.tag == "w" and token.can("past") and not token.can("base")


def _subject(reading: _Reading, n: int) -> Phrase | None:
    """The subject that begins at n, if a finite verb follows it; its `end` is the verb's place."""
    words = reading.words
    if n >= len(words) or words[n].tag not in ("S", "D", "N", "w", "#", "'"):
        return None
    if words[n].low == "who":
        return None
    found = phrase(words, n, subject=True)
    if found is None:
        return None
    at = found.end
    if at < len(words) and words[at].tag == "(":
        at = closing(words, at)
    if at < len(words) and words[at].tag == "P" and found.head.tag != "S" and not found.name:
        # "The key to the shed hangs": a phrase that belongs to the subject
        inner = phrase(words, at + 1, subject=True)
        if inner is not None and inner.head.tag != "S" and not finite(words, at, found):
            whole = tuple(words[n : inner.end])
            if words[inner.end : inner.end + 1] and words[inner.end].tag == ",":
                aside = _aside(reading, replace(found, words=whole), inner.end + 1)
                if aside is not None:
                    return aside
            if finite(words, inner.end, replace(found, joined=found.joined)):
                return replace(found, words=whole, end=inner.end)
    relative = _relative(reading, found, at)
    if relative is not None and finite(words, relative.end, found):
        reading.inside = relative
        return replace(found, words=tuple(words[n : relative.end]), end=relative.end)
    if at < len(words) and words[at].tag == ",":
        aside = _aside(reading, found, at + 1)
        if aside is not None:
            return aside
    if finite(words, at, found):
        return replace(found, end=at)
    return None


def _relative(reading: _Reading, noun: Phrase, at: int) -> Relative | None:
    """The clause without commas that says which one the noun is."""
    words = reading.words
    if at >= len(words) or noun.head.tag in ("S", "O"):
        return None
    pronoun = words[at].low if words[at].low in ("who", "that", "which", "where") else ""
    start = at + 1 if pronoun else at
    if not pronoun and words[at].low not in ("i", "we", "he", "she", "they"):
        return None
    subject = _subject(reading, start)
    if subject is not None:
        clause, end = _statement(words, subject.end, subject, [], within=True)
        return Relative(noun, pronoun, clause, False, _aside_end(reading, end))
    if pronoun in ("who", "that", "which") and finite(words, start, noun):
        clause, end = _statement(words, start, noun, [], within=True)
        return Relative(noun, pronoun, clause, True, _aside_end(reading, end))
    return None


def _aside(reading: _Reading, found: Phrase, n: int) -> Phrase | None:
    """ "Jana, my sister, lives": the subject with what stands between commas."""
    words = reading.words
    if n < len(words) and words[n].low in ("who", "which"):
        for at in range(n + 1, len(words)):
            if words[at].tag == "," and finite(words, at + 1, found):
                clause, _ = _statement(words[:at], n + 1, found, [])
                reading.out.append(clause)
                return replace(found, end=at + 1)
        return None
    inner = phrase(words, n, subject=False) if n < len(words) else None
    if inner is None or inner.end >= len(words) or words[inner.end].tag != ",":
        return None
    if inner.head.tag in ("S", "O") or not finite(words, inner.end + 1, found):
        return None
    return _renamed(found, inner, inner.end + 1)


def _renamed(found: Phrase, inner: Phrase, end: int) -> Phrase:
    names = inner.name or inner.words
    if all(w.tag in ("N", "C", "'") for w in inner.words):
        return replace(found, name=inner.words, end=end)
    return replace(found, other=inner.words, name=found.name or (inner.name and names), end=end)
