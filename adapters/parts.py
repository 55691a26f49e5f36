"""How each part of a clause is asked for: object, complement, place, time, and the rest.

Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from acclimate.adapters.builder import Builder
from acclimate.adapters.clauses import Part
from acclimate.adapters.grammar import belongs, participle, past, third
from acclimate.adapters.phrases import Phrase
from acclimate.adapters.scene import Candidate, count, finished, is_amount, is_person, spelt
from acclimate.adapters.words import Token

_MEASURES = {
    "long": "long", "wide": "wide", "high": "high", "tall": "tall", "deep": "deep", "old": "old",
    "thick": "thick", "heavy": "heavy", "away": "far away",
}  # fmt: skip


def asked_for(b: Builder, part: Part) -> Iterator[Candidate]:
    """The questions that this part answers."""
    kinds: dict[str, Callable[[Builder, Part], Iterator[Candidate]]] = {
        "object": _object,
        "complement": _complement,
        "place": _place,
        "time": _time,
        "with": _with,
        "infinitive": _infinitive,
    }
    yield from kinds[part.kind](b, part)


def _object(b: Builder, part: Part) -> Iterator[Candidate]:
    phrase, clause = part.phrase, b.clause
    words = phrase.words
    objects = [p for p in clause.parts if p.kind == "object"]
    if len(objects) > 1 and objects[1].phrase.head.tag == "D":
        return
    if len(objects) > 1 and part is objects[0]:
        return  # "bought Emrys a sextant": whom, not what
    if phrase.head.tag in ("S", "O"):
        return
    answer = (*words, *phrase.name) if not apart(phrase) else words
    if words[0].low in ("a", "an"):
        answer = b.reaching(part, answer)
    number = count(words)
    if (
        len(words) == 1
        and words[0].tag == "w"
        and clause.tense != "modal"
        and (belongs(clause.base, "intransitive") or belongs(words[0].low, "adjective"))
    ):
        return  # "lay awake"
    if clause.base == "turn" and len(words) == 1 and words[0].tag == "#":
        yield from b.make(b.ask("how old", part), words, 0.3)
        return
    if all(w.tag in ("#", "D") for w in words) and clause.base not in (
        "cost",
        "pay",
        "weigh",
        "say",
    ):
        return
    base = clause.base
    if base in ("cost", "pay") and is_amount(words):
        yield from b.make(b.ask("how much", part), words, 0.3)
        return
    if base in ("weigh", "measure") and is_amount(words):
        yield from b.make(b.ask("how much", part), words, 0.3)
        return
    if number and words[number:]:
        one = next((n for n, w in enumerate(words) if w.tag == "C"), len(words))
        things = b.scene.said(words[number:one])
        far = words[-1].low in ("kilometres", "km", "miles", "metres", "yards", "minutes")
        if far and belongs(base, "static", "intransitive"):
            yield from b.make(b.ask("how far", part), words, 0.3)
            return
        if things is not None and not belongs(words[0].low, "ordinal"):
            yield from b.make(b.ask(f"how many {spelt(things)}", part), words[:number], 0.2)
        return
    owns = base in ("have", "own", "buy", "get", "keep", "ride", "drive", "wear", "adopt")
    colour = next((w for w in words if belongs(w.low, "colour")), None)
    if colour is not None and words[-1] is not colour and (owns and b.ours()):
        rest = [w for w in words if w is not colour and w.low not in ("a", "an", "new")]
        thing = b.scene.said(rest)
        if thing is not None:
            thing = thing if re.match(r"(?:my|our|the)\b", thing) else f"{b.my()} {thing}"
            be = "are" if phrase.plural else "is"
            yield from b.make(f"What colour {be} {thing}?", [colour], 0.15)
    painted = base in ("paint", "dye", "repaint") and words[-1].tag == "w"
    if painted and (words[-1] is colour or (words[0].tag == "D" and len(words) > 2)):
        shade = _shade(words)
        whole = b.scene.said(words[: len(words) - shade])
        if whole is not None:
            verbs = " ".join([b.do(), b.who or "I", base])
            if not clause.first and b.who:
                yield from b.make(f"What colour {verbs} {whole}?", words[-shade:], 0.3)
        return
    if phrase.name and words[0].low in ("a", "an"):
        bare = b.scene.said([w for w in words if w.tag != "D" and w.low != "new"])
        if bare is not None:
            yield from b.make(b.ask(f"which {bare}", part), phrase.name, 0.1)
        return
    weight = 0.1 if words[0].low not in ("a", "an", "some") else 0.05
    if base == "have" and words[0].low in ("a", "an", "no", "some") and not phrase.name:
        weight -= 0.1
    if is_person(phrase, b.scene) or (belongs(base, "who") and words[0].tag == "N"):
        yield from b.make(b.ask("who", part), answer, weight + 0.05)
        return
    at = next((n for n, w in enumerate(words) if w.tag == "'"), 0)
    if at and at < len(words) - 1 and words[-1].tag == "w":
        yield from b.make(
            b.ask(f"whose {b.scene.plain(words[at + 1 :])}", part), words[: at + 1], 0.08
        )
    kind = _kind(b, phrase)
    if kind is not None:
        yield from b.make(b.ask(kind, part), answer, weight + 0.06)
    if base in ("like", "love", "hate", "prefer", "detest", "loathe", "dislike", "stand", "drink", "support", "play", "speak"):  # fmt: skip  # noqa: E501
        weight += 0.08
    yield from b.make(b.ask("what", part), answer, weight)


def _kind(b: Builder, phrase: Phrase) -> str | None:
    """ "the number 9 tram" → "which tram", "an old Dutch barge" → "what kind of barge"."""
    words = phrase.words
    last = words[-1]
    if last.tag != "w" or len(words) < 2 or any(w.tag in ("C", "'") for w in words):
        return None
    if any(w.low == "of" for w in words) or not _is_noun_like(last):
        return None
    before = [
        w for w in words[:-1] if w.tag != "D" and w.low not in ("new", "other", "good", "different")
    ]
    if not before or words[0].low in ("my", "our", "his", "her", "their", "its"):
        return None
    if any(w.tag in ("N", "#") for w in before):
        return f"which {last.low}"
    return f"what kind of {last.low}" if words[0].low in ("a", "an") else None


def _complement(b: Builder, part: Part) -> Iterator[Candidate]:
    phrase, clause = part.phrase, b.clause
    words, subject = phrase.words, clause.subject
    be = clause.first if clause.first in ("is", "are", "was", "were", "am") else "is"
    answer = (*words, *phrase.name) if not apart(phrase) else words
    who = b.who
    if clause.base in ("paint", "dye"):
        yield from b.make(b.ask("what colour", part), answer, 0.3)
        return
    if clause.base in ("name", "call", "christen", "nickname"):
        yield from b.make(b.ask("what", part), answer, 0.45)
        return
    if who is None or clause.base != "be":
        return
    if words[0].tag in ("D", "N") and not apart(phrase):
        answer = b.reaching(part, answer)
    person = subject is None or (is_person(subject, b.scene) and not b.means_thing())
    measured = words[-1].low if words[-1].low in _MEASURES else ""
    if words[0].tag == "#" and measured and len(words) > 1:
        yield from b.make(b.ask(f"how {_MEASURES[measured]}", part), words[:-1], 0.35)
        return
    if person and len(words) == 1 and words[0].tag == "#":
        yield from b.make(b.ask("how old", part), words, 0.1)
        return
    if words[0].low in ("number", "no.") and len(words) > 1:
        yield from b.make(b.ask("what number", part), words, 0.35)
        return
    if words[0].tag == "#" and len(words) == 1 and subject is not None:
        yield from b.make(b.ask("what", part), words, 0.35)
        return
    if words[0].tag == "#" and belongs(phrase.head.low, "unit", "time"):
        wh = "how much" if is_amount(words) and words[0].text[0] in "£$€" else "what"
        yield from b.make(b.ask(wh, part), words, 0.3)
        return
    if belongs(words[-1].low, "colour") and words[-1].tag == "w":
        yield from b.make(b.ask("what colour", part), words, 0.25)
        return
    bare = (
        words[0].tag == "w"
        and not phrase.joined
        and all(w.tag != "N" and not re.search(r"\d", w.text) for w in words)
    )
    of = next((n for n, w in enumerate(words) if w.low == "of"), 0)
    if who in ("I", "we") and of and words[0].tag == "D" and _is_job(b, phrase):
        group = b.scene.said(words[of + 1 :])
        if group is not None:  # "the secretary of the chess club"
            yield from b.make(f"What {clause.first or 'am'} {who} in {group}?", words[:of], 0.25)
        return
    if person and words[0].low in ("a", "an") and _is_job(b, phrase):
        do = "do" if who in ("I", "we") or (subject and subject.plural) else "does"
        if be in ("was", "were"):
            do = "did"
        yield from b.make(f"What {do} {who} do for a living?", answer, 0.2)
        return
    if person and who not in ("I", "we"):
        wh = "who" if words[0].low in ("my", "our", "the") or phrase.head.tag == "N" else "what"
        weight = 0.15 if not bare else -0.3 if len(words) == 1 else 0.0
        yield from b.make(b.ask(wh, part), answer, weight)
        return
    if bare and b.scene.painted and len(words) <= 2:
        yield from b.make(b.ask("what colour", part), words, 0.3)
        return
    others = [p for p in clause.parts if p is not part]
    if bare and any(p.prep in ("to", "of", "with", "about", "at", "for") for p in others):
        return  # "allergic to walnuts": what to is asked elsewhere
    if bare and len(words) == 1 and not re.search(r"\b(?:favou?rite|name)\b", who):
        weight = -0.3 if not re.match(r"(?:my|our) ", who) else -0.15
        yield from b.make(b.ask("what", part), answer, weight)
        return
    if b.mine and bare:
        return
    weight = 0.25 if "favo" in who or words[0].tag in ("N", "#") else 0.1
    if words[0].low in ("a", "an") and not re.match(r"(?:my|our) ", who):
        weight -= 0.15
    if phrase.head.tag == "N" and subject is not None and belongs(subject.head.low, "role", "kin"):
        yield from b.make(b.ask("who", part), answer, weight)
        return
    yield from b.make(b.ask("what", part), answer, weight)


def _is_job(b: Builder, phrase: Phrase) -> bool:
    low = phrase.head.low
    if low in ("woman", "man", "boy", "girl", "friend", "baby", "person", "guest", "widow"):
        return False
    return belongs(low, "role") or bool(
        re.search(r"(?:[^aeiou]er|or|ist|ian|smith|wright|monger|man|woman)$", low)
        and not belongs(low, "kin")
    )


def _place(b: Builder, part: Part) -> Iterator[Candidate]:
    clause, phrase = b.clause, part.phrase
    words = phrase.words
    answer = (*words, *phrase.name) if not apart(phrase) else words
    if phrase.head.tag in ("S", "O") and part.prep != "by":
        return
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
    if part.prep in ("in", "on", "at", "into", "to"):
        weight = 0.12
    else:
        weight = 0.1
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


def _is_place(part: Part, base: str) -> bool:
    """Whether the phrase tells a place, not a manner: "in rows", "at random", "over a hedge"."""
    words, head = part.phrase.words, part.phrase.head
    if part.prep in ("over", "past", "through", "up", "out-of", "down", "around", "round", "against",
                     "by", "along", "off", "within", "into"):  # fmt: skip
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
    yield from b.make(finished([who, verb, thing, *rest]), answer, 0.25)


def _time(b: Builder, part: Part) -> Iterator[Candidate]:
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


def _with(b: Builder, part: Part) -> Iterator[Candidate]:
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


def _infinitive(b: Builder, part: Part) -> Iterator[Candidate]:
    if b.clause.base in ("teach", "ask", "help", "want", "allow", "promise"):
        yield from b.make(b.ask("what", part, "to do"), part.words[1:], -0.1)


def apart(phrase: Phrase) -> bool:
    """Whether the name stands behind a comma or "called", not beside its noun."""
    return bool(phrase.name) and phrase.name[0].start > phrase.words[-1].end + 1


def _is_noun_like(word: Token) -> bool:
    return not belongs(word.low, "colour", "time", "unit")


def _shade(words: Sequence[Token]) -> int:
    """How many words at the end tell the colour: "the door dark green" → 2."""
    count = 1
    while count < len(words) - 2 and re.fullmatch(
        r"dark|light|pale|deep|bright|\w+[ -]?ish|.*-.*", words[-count - 1].low
    ):
        count += 1
    return count
