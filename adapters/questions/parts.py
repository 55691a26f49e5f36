"""How each part of a clause is asked for; objects and complements themselves.

Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.adjuncts import of_other, of_place, of_time
from acclimate.adapters.questions.builder import Builder, apart
from acclimate.adapters.questions.phrases import Phrase
from acclimate.adapters.questions.predicates import Part
from acclimate.adapters.questions.scene import Candidate, count, is_amount, is_person, spelt
from acclimate.adapters.questions.words import Token

_MEASURES = {
    "long": "long", "wide": "wide", "high": "high", "tall": "tall", "deep": "deep", "old": "old",
    "thick": "thick", "heavy": "heavy", "away": "far away",
}  # fmt: skip


def asked_for(b: Builder, part: Part) -> Iterator[Candidate]:
    """The questions that this part answers."""
    kinds: dict[str, Callable[[Builder, Part], Iterator[Candidate]]] = {
        "object": _object,
        "complement": _complement,
        "place": of_place,
        "time": of_time,
        "with": of_other,
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
            # "What is our boat called?" asks the same of what one has.
            weight = -0.1 if belongs(clause.base, "have") else 0.1
            yield from b.make(b.ask(f"which {bare}", part), phrase.name, weight)
        return
    if base == "have" and len(words) == 3 and words[1].low in ("new", "different"):
        return  # what it is now is said elsewhere
    weight = 0.1 if words[0].low not in ("a", "an", "some") else 0.08
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
    kind = _kind(phrase)
    if kind is not None:
        yield from b.make(b.ask(kind, part), answer, weight + 0.06)
    if base in ("like", "love", "hate", "prefer", "detest", "loathe", "dislike", "stand", "drink", "support", "play", "speak"):  # fmt: skip  # noqa: E501
        weight += 0.08
    yield from b.make(b.ask("what", part), answer, weight)


def _kind(phrase: Phrase) -> str | None:
    """ "the number 9 tram" → "which tram", "an old Dutch barge" → "what kind of barge"."""
    words = phrase.words
    last = words[-1]
    if last.tag != "w" or len(words) < 2 or any(w.tag in ("C", "'") for w in words):
        return None
    if any(w.low == "of" for w in words) or not _is_noun_like(last):
        return None
    if words[0].low in ("all", "both", "each", "every"):
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
    role = belongs((who or "").rpartition(" ")[2], "role", "kin")  # "the new one" is a dentist
    person = subject is None or role or (is_person(subject, b.scene) and not b.means_thing())
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
    if who in ("I", "we") and of and words[0].tag == "D" and _is_job(phrase):
        group = b.scene.said(words[of + 1 :])
        if group is not None:  # "the secretary of the chess club"
            yield from b.make(f"What {clause.first or 'am'} {who} in {group}?", words[:of], 0.25)
        return
    if person and words[0].low in ("a", "an") and _is_job(phrase):
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


def _is_job(phrase: Phrase) -> bool:
    low = phrase.head.low
    if low in ("woman", "man", "boy", "girl", "friend", "baby", "person", "guest", "widow"):
        return False
    return belongs(low, "role") or bool(
        re.search(r"(?:[^aeiou]er|or|ist|ian|smith|wright|monger|man|woman)$", low)
        and not belongs(low, "kin")
    )


def _infinitive(b: Builder, part: Part) -> Iterator[Candidate]:
    if b.clause.base in ("teach", "ask", "help", "want", "allow", "promise"):
        yield from b.make(b.ask("what", part, "to do"), part.words[1:], -0.1)


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
