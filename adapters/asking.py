"""Questions that a clause answers, each with the span of the answer and its worth.

Pure text. Whatever would leave a "he" or "there" dangling in a question is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from acclimate.adapters.clauses import Clause, Part, Phrase
from acclimate.adapters.grammar import belongs, capitalised, participle, past, third
from acclimate.adapters.words import BE, Token, time_end

LONGEST_QUESTION = 20  # words
LONGEST_ANSWER = 8

_DANGLING = frozenset(
    "he she it they him them himself herself itself themselves hers theirs there here this these "
    "those one ones other others another such you your yours yourself same former latter both "
    "each either neither something someone somebody anything everything nothing everyone nobody "
    "everybody none all some any which who whom that what of such".split()
) - {"of", "which", "who", "what", "all", "some", "any"}
_POSSESSIVE = {"his": "he", "her": "she", "its": "it", "their": "they", "your": "you"}
_OBJECT_FORMS = {"him": "he", "her": "she", "them": "they"}
_KEPT_ADVERBS = frozenset("always usually mostly often first never".split())
_MEASURES = {
    "long": "long", "wide": "wide", "high": "high", "tall": "tall", "deep": "deep", "old": "old",
    "thick": "thick", "heavy": "heavy", "away": "far away",
}  # fmt: skip
_SIMPLE = frozenset(
    "what who where when how many much which is are was were do does did am have has i my me we "
    "our us the a an of to in on at for with by from and be been will would can could called "
    "name it its kind get go come take make put".split()
)


@dataclass(frozen=True)
class Candidate:
    """A question, where its answer stands in the note, and how much it is worth, 0 to 1."""

    question: str
    start: int
    end: int
    weight: float


@dataclass
class Scene:
    """What is known where a clause stands: the note, whom a pronoun means, who is a person."""

    text: str
    meant: Mapping[str, str] = field(default_factory=dict)  # "he" → "Uncle Bo"
    persons: frozenset[str] = frozenset()  # names in lower case
    dated: bool = False  # under the date of a day
    painted: bool = False  # the sentence before told of painting

    def plain(self, words: Sequence[Token]) -> str:
        """The words as the note has them, on one line."""
        return tidy(self.text[words[0].start : words[-1].end]) if words else ""

    def said(self, words: Sequence[Token], *, owner: str = "") -> str | None:
        """The words as a question may use them, None where one would dangle.

        `owner` is the pronoun that the question itself explains: "When does Bo sell his boat?"
        """
        out: list[str] = []
        for n, word in enumerate(words):
            low, shown = word.low, word.text
            after = words[n + 1] if n + 1 < len(words) else None
            if low == "her" and after is not None and after.tag in ("w", "N", "#"):
                pronoun, own = "she", True
            else:
                pronoun = _OBJECT_FORMS.get(low, _POSSESSIVE.get(low, low))
                own = low in _POSSESSIVE and low != "her"
            if pronoun in ("he", "she", "it", "they", "you"):
                if own and owner == pronoun:
                    pass
                elif pronoun in self.meant:
                    shown = self.meant[pronoun] + ("'s" if own else "")
                else:
                    return None
            elif low in _DANGLING and not (
                (low == "other" and after is not None and after.low in ("side", "end"))
                or (n and low in ("who", "that", "which"))
            ):
                return None
            elif n == 0 and belongs(low, "home_kin") and shown[0].isupper() and word.tag != "'":
                shown = f"my {low}"
            elif n == 0 and after is not None and after.tag == "N" and belongs(low, "title"):
                pass
            elif n == 0 and low == "the" and _ours(words):
                shown = "our"
            elif n == 0 and word.tag != "N" and low != "i":
                kept = shown.isupper() and len(shown) > 1
                shown = shown if kept else shown[:1].lower() + shown[1:]
            if low == "new" and n == 1 and words[0].low in ("my", "our", "the"):
                continue
            spaced = n > 0 and self.text[words[n - 1].end : word.start] != ""
            out.append((" " if spaced and out else "") + shown)
        return tidy("".join(out)) or None


def tidy(text: str) -> str:
    """On one line, without emphasis marks."""
    return re.sub(r"\s+", " ", re.sub(r"[*_`]+", "", text)).strip()


def _ours(words: Sequence[Token]) -> bool:
    """Whether "the boiler", "the plumber" is surely the writer's own."""
    nouns = [w for w in words[1:] if w.tag == "w"]
    at = next((n for n, w in enumerate(words) if w.tag in ("'", "P", "C") or w.low == "of"), None)
    first = words[1:at] if at else words[1:]
    if len(nouns) == 0 or any(w.tag == "N" for w in words):
        return False
    return bool(first) and belongs(first[-1].low, "belongings") and len(first) <= 2


def is_person(phrase: Phrase, scene: Scene) -> bool:
    """Whether the phrase means a person, as far as that is sure."""
    low = phrase.head.low
    if low in ("i", "he", "she", "we", "who", "everyone", "everybody", "nobody", "me", "us"):
        return True
    if phrase.head.tag == "w" and belongs(low, "kin", "role") and not _is_of_thing(phrase):
        return True
    first = phrase.words[0]
    if first.tag in ("N", "w") and belongs(first.low.rstrip("."), "title"):
        return first.text[0].isupper() and len(phrase.words) > 1 and first.low != "st"
    if phrase.name and belongs(low, "kin", "role"):
        return True
    return (
        phrase.head.tag == "N"
        and first.tag == "N"
        and first.low in scene.persons
        and (not any(w.tag == "'" for w in phrase.words))
    )


def _is_of_thing(phrase: Phrase) -> bool:
    """ "the sweep of the brush"."""
    return phrase.head.low in ("head", "sweep", "guide", "agent", "guard", "cook") and any(
        w.low == "of" for w in phrase.words
    )


def asked(clause: Clause, scene: Scene) -> Iterator[Candidate]:
    """Every question that the clause answers, in no order; some are worth little."""
    builder = Builder(clause, scene)
    if clause.dependent or clause.tense == "former":
        return
    if clause.there:
        yield from builder.existing()
        return
    yield from builder.names()
    if clause.negative and not (clause.tense == "modal" or clause.first in ("don't", "doesn't")):
        return
    for part in clause.parts:
        yield from builder.part(part)
    yield from builder.subject()


class Builder:
    """Makes the questions of one clause."""

    def __init__(self, clause: Clause, scene: Scene) -> None:
        self.clause, self.scene = clause, scene
        self.who = "I" if clause.subject is None else self._subject(clause.subject)
        head = "i" if clause.subject is None else clause.subject.head.low
        self.owner = head if head in ("he", "she", "it", "they") else self._pronoun()
        if self.owner in ("", "it") or head in ("i", "we"):
            whom = [p.phrase for p in clause.parts if p.kind == "object"]
            if len(whom) > 1 and whom[0].head.tag in ("N", "w") and whom[0].head.low not in ("it",):
                found = [p for p in self._pronouns() if p in ("his", "her")]
                self.owner = _POSSESSIVE[found[0]] if found else self.owner
        self.mine = head in ("i", "we")
        negated = clause.first in ("don't", "doesn't", "didn't")
        self.never = "never" if negated else ""

    def _pronoun(self) -> str:
        subject = self.clause.subject
        if subject is None or subject.head.low in ("i", "we", "you"):
            return ""
        if subject.plural:
            return "they"
        if belongs(subject.head.low, "female") or belongs(subject.words[0].low, "female"):
            return "she"
        if belongs(subject.head.low, "male") or belongs(subject.words[0].low, "male"):
            return "he"
        if subject.head.tag == "N":
            return (
                "she"
                if any(p == "her" for p in self._pronouns())
                else ("he" if "his" in self._pronouns() else "it")
            )
        return (
            "it"
            if not is_person(subject, self.scene)
            else ("she" if "her" in self._pronouns() else "he")
        )

    def _pronouns(self) -> list[str]:
        return [w.low for p in self.clause.parts for w in p.words if w.low in _POSSESSIVE]

    def _subject(self, subject: Phrase) -> str | None:
        if subject.other and subject.other[0].low in ("my", "our"):
            return self._with_name(subject.other, subject.words)
        if subject.name and subject.name[0].start > subject.words[-1].end + 1:
            return self._with_name(subject.words, subject.name)  # "the old chief, Hauk,"
        return self.scene.said((*subject.words, *subject.name))

    def _with_name(self, words: Sequence[Token], name: Sequence[Token]) -> str | None:
        said = self.scene.said(words)
        return None if said is None else f"{said} {self.scene.plain(name)}"

    # Putting a question together.

    def ask(
        self, wh: str, without: Part | None, strand: str = "", *, when: bool = False
    ) -> str | None:
        """The clause as a question that begins with `wh`, None where something dangles.

        `when`: phrases of time stay out even where they say something.
        """
        clause = self.clause
        if self.who is None:
            return None
        parts = self._tail(without, timed=not when)
        if parts is None:
            return None
        adverbs = [a for a in clause.adverbs if a in _KEPT_ADVERBS]
        first, middle = clause.first, list(clause.middle)
        if not first or clause.base in ("have", "do") and first in (
            "have", "has", "had", "do", "does", "did", "'ve") and not _has_main(clause):  # fmt: skip
            lead = self._do()
            middle = [clause.base, *middle]
        elif first in ("don't", "doesn't", "didn't"):
            lead = first[:-3]
            if clause.base in ("like", "eat", "drink", "use", "wear", "read", "watch", "take"):
                middle = ["never", clause.base, *middle]
            else:
                return None
            if clause.base == "like":
                middle[:2] = ["dislike"]
        elif first in ("can't", "cannot"):
            lead = "can't"
        else:
            lead = first
        lead = "am" if self.who == "I" and lead == "are" else lead
        words = [wh, lead, self.who, *adverbs, *middle, *parts, strand]
        return finished(words)

    def _do(self) -> str:
        clause = self.clause
        if clause.tense == "past":
            return "did"
        subject = clause.subject
        if subject is None or subject.head.low in ("i", "we", "you", "they") or subject.plural:
            return "do"
        return "do" if self.who in ("we", "I") else "does"

    def _tail(self, without: Part | None, *, timed: bool) -> list[str] | None:
        """What stands after the verbs, but for the part that is asked for."""
        out: list[str] = []
        order = [*self.clause.parts[self.clause.front :], *self.clause.parts[: self.clause.front]]
        if without is not None and without.kind in ("place", "with"):
            start = _last(without).end  # what the answer takes along
            for part in self.clause.parts:
                if part.kind == "place" and 0 <= part.words[0].start - start <= 1:
                    order.remove(part)
                    start = _last(part).end
        if without is not None and without.kind in ("place", "time") and self._is_told():
            order = [p for p in order if p.kind in ("object", "infinitive", "with")]
        solid = sum(p is not without and p.kind not in ("time",) for p in order)
        for part in order:
            if part is without:
                continue
            if part.kind == "time":
                vague = any(belongs(w.low, "vague_time") or w.low == "this" for w in part.words)
                lasting = self.clause.tense == "present" and not self.scene.dated
                if vague or not timed or not (lasting or solid == 0):
                    continue
            words = part.words
            if part.prep == "like" or part.prep == "instead-of":
                continue
            said = self.scene.said(words, owner=self.owner)
            if said is None:
                if part.kind in ("object", "complement", "infinitive"):
                    return None
                continue
            if part.kind in ("place", "with") and (
                len(content_words(" ".join([self.who or "", *out]))) >= 3
            ):
                continue  # what is said so far is enough
            out.append(said)
        return out

    def _is_told(self) -> bool:
        """Whether subject and object alone say what the question is about."""
        subject = self.clause.subject
        if subject is None or subject.head.tag == "S" or self.who is None:
            return False
        objects = [p.phrase.low for p in self.clause.parts if p.kind == "object"]
        verb = [] if self.clause.base in ("be", "have") else [self.clause.base]
        return len(content_words(" ".join([self.who, *objects, *verb]))) >= 2 and (
            self.clause.tense in ("present", "perfect", "future")
        )

    # What can be asked for.

    def part(self, part: Part) -> Iterator[Candidate]:
        kinds: dict[str, Callable[[Part], Iterator[Candidate]]] = {
            "object": self._object,
            "complement": self._complement,
            "place": self._place,
            "time": self._time,
            "with": self._with,
            "infinitive": self._infinitive,
        }
        yield from kinds[part.kind](part)

    def make(
        self, question: str | None, answer: Sequence[Token], weight: float
    ) -> Iterator[Candidate]:
        """The candidate, if the question stands alone and the answer says something."""
        if question is None or not answer:
            return
        low = [w.low for w in answer]
        if len(answer) > LONGEST_ANSWER + 1 or low[0] in _DANGLING or set(low) <= {"a", "the"}:
            return
        if any(w in ("it", "them", "him", "there", "you", "your", "this", "that") for w in low):
            return
        if low[0] in _POSSESSIVE and not self.owner:
            return
        if any(w in ("one", "ones") and n and answer[n - 1].tag != "#" for n, w in enumerate(low)):
            return
        if any(w in ("something", "nothing", "everything", "anything") for w in low):
            return
        content = content_words(question)
        if not content:
            return
        weight += -0.12 if len(content) == 1 else 0.0
        weight += self._bias() + specific(answer)
        yield Candidate(
            capitalised(question), answer[0].start, answer[-1].end, max(0.0, min(1.0, weight))
        )

    def _bias(self) -> float:
        """What verb, tense and subject say about how lasting the fact is."""
        clause = self.clause
        stable = belongs(clause.base, "stable")
        base = {
            "present": 0.42, "perfect": 0.34, "past": 0.16, "future": 0.28, "modal": 0.0,
        }.get(clause.tense, 0.0)  # fmt: skip
        if clause.tense == "past" and (stable or clause.base == "be" and not self.scene.dated):
            base = 0.3
        if clause.first in ("can't", "cannot") and clause.base in ("stand", "bear", "eat", "abide"):
            base = 0.42
        if clause.tense == "past" and self.scene.dated:
            base -= 0.08
        if clause.middle and clause.middle[-1].endswith("ing") and clause.first in BE:
            base -= 0.08
        if belongs(clause.base, "feeling"):
            base -= 0.2
        if clause.changed or clause.base in ("switch", "swap", "change", "replace"):
            base += 0.15
        subject = clause.subject
        if subject is None:
            base += 0.04
        elif (
            self.mine
            or subject.words[0].low in ("my", "our")
            or (self.who or "").startswith(("my ", "our "))
        ):
            base += 0.1
        elif subject.words[0].low not in ("a", "an") and (
            subject.head.tag == "N" or is_person(subject, self.scene)
        ):
            base += 0.05
        elif subject.head.low == "you":
            base += 0.05
        elif subject.head.low in ("he", "she", "it", "they"):
            base -= 0.05
        elif subject.words[0].low in ("a", "an"):
            base -= 0.25
        elif subject.words[0].low in ("the",):
            base -= 0.02
        else:
            base -= 0.15
        return base

    def names(self) -> Iterator[Candidate]:
        """ "my sister Jana", "a lurcher, Pim", "a boat called Merrow"."""
        clause = self.clause
        phrases: list[tuple[Phrase, Part | None]] = [(p.phrase, p) for p in clause.parts]
        if clause.subject is not None:
            phrases.insert(0, (clause.subject, None))
        for phrase, part in phrases:
            if phrase.other and phrase.head.tag == "N":
                yield from self._role(phrase)
            if not phrase.name:
                continue
            person = belongs(phrase.head.low, "kin", "role")
            thing = self._owned(phrase, part)
            if thing is None:
                continue
            be = "are" if phrase.plural else "is"
            if phrase.head.low in ("friend", "friends", "neighbour", "colleague", "cousin"):
                question, answer, weight = (
                    f"Who {be} {self.scene.plain(phrase.name)}?", phrase.words, 0.0)  # fmt: skip
            elif person and not belongs(phrase.head.low, "kin"):
                question, answer, weight = f"Who {be} {thing}?", phrase.name, 0.3
            else:
                question, answer, weight = f"What {be} {thing} called?", phrase.name, 0.35
            yield from self._named(question, answer, weight)

    def _named(self, question: str, answer: Sequence[Token], weight: float) -> Iterator[Candidate]:
        if content_words(question):
            weight += 0.2 if re.search(r"\b(?:my|our)\b", question) else 0.0
            yield Candidate(question, answer[0].start, answer[-1].end, weight + specific(answer))

    def _role(self, phrase: Phrase) -> Iterator[Candidate]:
        role = self.scene.said(phrase.other)
        if role is None:
            return
        be = "are" if phrase.plural else "is"
        if role.startswith(("my ", "our ", "the ")) or "'s " in role:
            yield from self._named(f"Who {be} {role}?", phrase.words, 0.25)
        name = self.scene.plain(phrase.words)
        yield from self._named(f"Who {be} {name}?", phrase.other, 0.2)

    def _owned(self, phrase: Phrase, part: Part | None) -> str | None:
        """The named thing as its owner would speak of it: "a lurcher" → "our lurcher"."""
        words = phrase.words
        if words[0].low in ("a", "an", "two", "three", "four", "some") and part is not None:
            bare = self.scene.said([w for w in words if w.low not in ("a", "an", "some", "new")])
            if bare is None:
                return None
            ours = self.mine or self.clause.subject is None
            if ours and belongs(self.clause.base, "have") and part.kind == "object":
                mine = "our" if self.who == "we" else "my"
                return f"{mine} {bare}"
            return f"the {bare}"
        said = self.scene.said(words)
        return said if said and re.match(r"(?:my|our|the)\b|.*'s ", said) else None

    def _object(self, part: Part) -> Iterator[Candidate]:
        phrase, clause = part.phrase, self.clause
        words = phrase.words
        objects = [p for p in clause.parts if p.kind == "object"]
        if len(objects) > 1 and part is objects[0]:
            return  # "bought Emrys a sextant": whom, not what
        if phrase.head.tag in ("S", "O"):
            return
        answer = (*words, *phrase.name) if not _apart(phrase) else words
        number = _count(words)
        base = clause.base
        if base in ("cost", "pay") and _is_amount(words):
            yield from self.make(self.ask("how much", part), words, 0.3)
            return
        if base in ("weigh", "measure") and _is_amount(words):
            yield from self.make(self.ask("how much", part), words, 0.3)
            return
        if number and words[number:]:
            things = self.scene.said(words[number:])
            if things is not None and not belongs(words[0].low, "ordinal"):
                yield from self.make(
                    self.ask(f"how many {_spelt(things)}", part), words[:number], 0.2
                )
            return
        owns = base in ("have", "own", "buy", "get", "keep", "ride", "drive", "wear", "adopt")
        colour = next((w for w in words if belongs(w.low, "colour")), None)
        if colour is not None and words[-1] is not colour and (owns and self._ours()):
            rest = [w for w in words if w is not colour and w.low not in ("a", "an", "new")]
            thing = self.scene.said(rest)
            if thing is not None:
                thing = thing if re.match(r"(?:my|our|the)\b", thing) else f"{self._my()} {thing}"
                be = "are" if phrase.plural else "is"
                yield from self.make(f"What colour {be} {thing}?", [colour], 0.15)
        painted = base in ("paint", "dye", "repaint") and words[-1].tag == "w"
        if painted and (words[-1] is colour or (words[0].tag == "D" and len(words) > 2)):
            shade = _shade(words)
            whole = self.scene.said(words[: len(words) - shade])
            if whole is not None:
                verbs = " ".join([self._do(), self.who or "I", base])
                if not clause.first and self.who:
                    yield from self.make(f"What colour {verbs} {whole}?", words[-shade:], 0.3)
            return
        if phrase.name and words[0].low in ("a", "an"):
            return
        weight = 0.1 if words[0].low not in ("a", "an", "some") else 0.05
        if base == "have" and words[0].low in ("a", "an", "no", "some") and not phrase.name:
            weight -= 0.1
        if is_person(phrase, self.scene) or (belongs(base, "who") and words[0].tag == "N"):
            yield from self.make(self.ask("who", part), answer, weight + 0.05)
            return
        at = next((n for n, w in enumerate(words) if w.tag == "'"), 0)
        if at and at < len(words) - 1 and words[-1].tag == "w":
            yield from self.make(
                self.ask(f"whose {self.scene.plain(words[at + 1 :])}", part), words[: at + 1], 0.08
            )
        kind = self._kind(phrase)
        if kind is not None:
            yield from self.make(self.ask(kind, part), answer, weight + 0.06)
        if base in ("like", "love", "hate", "prefer", "detest", "loathe", "dislike", "stand", "drink", "support", "play", "speak"):  # fmt: skip  # noqa: E501
            weight += 0.08
        yield from self.make(self.ask("what", part), answer, weight)

    def _kind(self, phrase: Phrase) -> str | None:
        """ "the number 9 tram" → "which tram", "an old Dutch barge" → "what kind of barge"."""
        words = phrase.words
        last = words[-1]
        if last.tag != "w" or len(words) < 2 or any(w.tag in ("C", "'") for w in words):
            return None
        if any(w.low == "of" for w in words) or not _is_noun_like(last):
            return None
        before = [w for w in words[:-1] if w.tag != "D"]
        if not before or words[0].low in ("my", "our", "his", "her", "their", "its"):
            return None
        if any(w.tag in ("N", "#") for w in before):
            return f"which {last.low}"
        return f"what kind of {last.low}" if words[0].low in ("a", "an") else None

    def _my(self) -> str:
        return "our" if self.who == "we" else "my"

    def _ours(self) -> bool:
        return self.mine or self.clause.subject is None

    def _complement(self, part: Part) -> Iterator[Candidate]:
        phrase, clause = part.phrase, self.clause
        words, subject = phrase.words, clause.subject
        be = clause.first if clause.first in ("is", "are", "was", "were", "am") else "is"
        answer = (*words, *phrase.name) if not _apart(phrase) else words
        who = self.who
        if clause.base in ("paint", "dye"):
            yield from self.make(self.ask("what colour", part), answer, 0.3)
            return
        if clause.base in ("name", "call", "christen", "nickname"):
            yield from self.make(self.ask("what", part), answer, 0.45)
            return
        if who is None or clause.base != "be":
            return
        person = subject is None or is_person(subject, self.scene)
        measured = words[-1].low if words[-1].low in _MEASURES else ""
        if words[0].tag == "#" and measured and len(words) > 1:
            yield from self.make(self.ask(f"how {_MEASURES[measured]}", part), words[:-1], 0.35)
            return
        if person and len(words) == 1 and words[0].tag == "#":
            yield from self.make(self.ask("how old", part), words, 0.1)
            return
        if words[0].low in ("number", "no.") and len(words) > 1:
            yield from self.make(self.ask("what number", part), words, 0.35)
            return
        if words[0].tag == "#" and len(words) == 1 and subject is not None:
            yield from self.make(self.ask("what", part), words, 0.35)
            return
        if words[0].tag == "#" and belongs(phrase.head.low, "unit", "time"):
            wh = "how much" if _is_amount(words) and words[0].text[0] in "£$€" else "what"
            yield from self.make(self.ask(wh, part), words, 0.3)
            return
        if belongs(words[-1].low, "colour") and words[-1].tag == "w":
            yield from self.make(self.ask("what colour", part), words, 0.25)
            return
        bare = (
            words[0].tag == "w"
            and not phrase.joined
            and all(w.tag != "N" and not re.search(r"\d", w.text) for w in words)
        )
        if person and words[0].low in ("a", "an") and self._is_job(phrase):
            do = "do" if who in ("I", "we") or (subject and subject.plural) else "does"
            if be in ("was", "were"):
                do = "did"
            yield from self.make(f"What {do} {who} do for a living?", answer, 0.2)
            return
        if person and who not in ("I", "we"):
            wh = "who" if words[0].low in ("my", "our", "the") or phrase.head.tag == "N" else "what"
            yield from self.make(self.ask(wh, part), answer, 0.0 if bare else 0.15)
            return
        if bare and self.scene.painted and len(words) <= 2:
            yield from self.make(self.ask("what colour", part), words, 0.3)
            return
        others = [p for p in clause.parts if p is not part]
        if bare and any(p.prep in ("to", "of", "with", "about", "at", "for") for p in others):
            return  # "allergic to walnuts": what to is asked elsewhere
        if bare and len(words) == 1 and not re.search(r"\b(?:favou?rite|name)\b", who):
            weight = -0.3 if not re.match(r"(?:my|our) ", who) else -0.15
            yield from self.make(self.ask("what", part), answer, weight)
            return
        if self.mine and bare:
            return
        weight = 0.25 if "favo" in who or words[0].tag in ("N", "#") else 0.1
        if words[0].low in ("a", "an") and not re.match(r"(?:my|our) ", who):
            weight -= 0.15
        if (
            phrase.head.tag == "N"
            and subject is not None
            and belongs(subject.head.low, "role", "kin")
        ):
            yield from self.make(self.ask("who", part), answer, weight)
            return
        yield from self.make(self.ask("what", part), answer, weight)

    def _is_job(self, phrase: Phrase) -> bool:
        low = phrase.head.low
        if low in ("woman", "man", "boy", "girl", "friend", "baby", "person", "guest", "widow"):
            return False
        return belongs(low, "role") or bool(
            re.search(r"(?:[^aeiou]er|or|ist|ian|smith|wright|monger|man|woman)$", low)
            and not belongs(low, "kin")
        )

    def _place(self, part: Part) -> Iterator[Candidate]:
        clause, phrase = self.clause, part.phrase
        words = phrase.words
        answer = (*words, *phrase.name) if not _apart(phrase) else words
        if phrase.head.tag in ("S", "O") and part.prep != "by":
            return
        if part.prep == "by" and clause.passive:
            yield from self._agent(part, answer)
            return
        if words[0].tag == "#" and len(words) == 1 or _is_amount(words) or self._follows(part):
            return
        if part.prep == "by" and len(words) == 1:
            yield from self.make(self.ask("how", part), part.words, 0.0)
            return
        adjective = next((p for p in clause.parts if p.kind == "complement"), None)
        stranded = belongs(clause.base, "strand") or (
            adjective is not None and clause.base == "be" and adjective.words[0].tag == "w"
            and part.prep in ("at", "on", "in", "by")
        )  # fmt: skip
        if stranded and part.prep in ("in", "on", "at", "by"):
            wh = "who" if is_person(phrase, self.scene) else "what"
            yield from self.make(self.ask(wh, part, part.prep), answer, 0.1)
            return
        if is_person(phrase, self.scene) and part.prep not in ("at", "next-to", "near", "behind"):
            return
        if belongs(phrase.head.low, "language", "colour") or part.prep in ("among", "within"):
            yield from self.make(self.ask("which " + ("colour" if belongs(phrase.head.low, "colour") else "language") + " " + part.prep, part), answer, -0.1)  # fmt: skip  # noqa: E501
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
        yield from self.make(self.ask("where", part), self._reaching(part, whole), weight)

    def _follows(self, part: Part) -> bool:
        """Whether the place belongs to the phrase before it: "a monastery in Slovenia"."""
        start = part.words[0].start
        return any(
            p.kind in ("place", "with") and p.phrase.end and 0 <= start - _last(p).end <= 1
            and not is_person(p.phrase, self.scene)
            for p in self.clause.parts if p is not part
        )  # fmt: skip

    def _reaching(self, part: Part, answer: Sequence[Token]) -> tuple[Token, ...]:
        """The answer with the places that follow at once, if it stays short."""
        out = tuple(answer)
        if is_person(part.phrase, self.scene):
            return out
        for other in self.clause.parts:
            if other.kind == "place" and 0 <= other.words[0].start - out[-1].end <= 1:
                longer = (*out, *other.words)
                if len(longer) > LONGEST_ANSWER:
                    break
                out = longer
        return out

    def _agent(self, part: Part, answer: Sequence[Token]) -> Iterator[Candidate]:
        clause = self.clause
        if self.who is None:
            return
        rest = self._tail(part, timed=clause.tense == "present")
        if rest is None:
            return
        who = "who" if not belongs(part.phrase.head.low, "unit", "time") else "what"
        be = clause.first
        verb = third(clause.base) if be in ("is", "are", "am") else past(clause.base)
        if be in ("has", "have"):
            verb = f"has {participle(clause.base)}"
        elif be in ("will", "shall", "can", "must"):
            verb = f"{be} {clause.base}"
        thing = {"I": "me", "we": "us"}.get(self.who, self.who)
        yield from self.make(finished([who, verb, thing, *rest]), answer, 0.25)

    def _time(self, part: Part) -> Iterator[Candidate]:
        words = part.words
        low = [w.low for w in words]
        if (
            any(belongs(w, "vague_time") for w in low)
            or "this" in low
            or low[0] in ("last", "next")
        ):
            return
        if len(low) == 1 or (len(low) == 2 and low[0] in ("in", "at", "by", "before", "after", "during", "for")):  # fmt: skip  # noqa: E501
            lone = low[-1]
            if belongs(lone, "time") and not belongs(lone, "month", "day"):
                return
        if (
            low[:2] == ["in", "the"]
            or low[:2] == ["at", "the"]
            or (low[0] == "the" and "day" in low)
        ):
            return
        if low[0] == "for":
            yield from self.make(self.ask("how long", part, when=True), words[1:], 0.1)
            return
        if low[0] == "since":
            yield from self.make(self.ask("since when", part, when=True), words[1:], 0.12)
            return
        if (
            self.clause.base in ("take", "last")
            and words[0].tag == "#"
            and belongs(low[-1], "time")
        ):
            yield from self.make(self.ask("how long", part, when=True), words, 0.2)
            return
        often = re.match(r"(?:(?:once|twice|three times|four times) a|every (?:two|three|four|second|other))", " ".join(low))  # fmt: skip  # noqa: E501
        body = words[1:] if words[0].tag == "P" and len(words) > 1 and low[0] in (
            "on", "at", "in", "by") else words  # fmt: skip
        if often:
            yield from self.make(self.ask("how often", part, when=True), words, 0.12)
            return
        clocked = any(re.match(r"\d{1,2}[:.]\d\d", w) for w in low) or "past" in low
        weight = 0.12 + (0.06 if clocked else 0.0)
        others = [p for p in self.clause.parts if p.kind == "time" and p is not part]
        if others and self.clause.tense == "present":
            weight -= 0.02
        yield from self.make(self.ask("when", part, when=True), body, weight)

    def _with(self, part: Part) -> Iterator[Candidate]:
        phrase, clause = part.phrase, self.clause
        answer = (*phrase.words, *phrase.name) if not _apart(phrase) else phrase.words
        if phrase.head.tag in ("S", "O"):
            return
        prep, base = part.prep, clause.base
        person = is_person(phrase, self.scene)
        if prep == "as":
            if base == "work":
                do = self._do()
                yield from self.make(f"What {do} {self.who} do for a living?", answer, 0.2)
            return
        if prep == "to" and belongs(base, "motion") and not person:
            yield from self.make(self.ask("where", part), answer, 0.2)
        elif prep == "from" and not person and phrase.words[0].tag != "#":
            wh = (
                "where"
                if base in ("come", "be", "get", "buy", "move", "order", "fetch")
                else "what"
            )
            weight = 0.34 if base in ("come", "be") else 0.14
            yield from self.make(self.ask(wh, part, "from"), self._reaching(part, answer), weight)
        elif prep == "for" and _is_amount(phrase.words):
            yield from self.make(self.ask("how much", part, "for"), answer, 0.1)
        elif prep in ("to", "for", "about", "with", "from", "of", "after", "without"):
            wh = "who" if person else "what"
            weight = 0.16 if person or base == "be" else 0.02
            yield from self.make(self.ask(wh, part, prep), answer, weight)

    def _infinitive(self, part: Part) -> Iterator[Candidate]:
        if self.clause.base in ("teach", "ask", "help", "want", "allow", "promise"):
            yield from self.make(self.ask("what", part, "to do"), part.words[1:], -0.1)

    def subject(self) -> Iterator[Candidate]:
        """Who or what does it."""
        clause, subject = self.clause, self.clause.subject
        if subject is None or subject.head.tag == "S" or subject.words[0].low in ("this", "that"):
            return
        if clause.negative or not clause.parts or self.who is None:
            return
        tail = self._tail(None, timed=clause.tense == "present")
        if not tail or subject.joined:
            return
        person = is_person(subject, self.scene)
        named = subject.head.tag == "N" or bool(subject.name)
        answer: tuple[Token, ...] = subject.words
        if subject.name:
            answer = (*subject.words, *subject.name) if not _apart(subject) else subject.name
        if clause.base == "be":
            complement = next((p for p in clause.parts if p.kind == "complement"), None)
            if complement is None or complement.words[0].low not in ("my", "our", "the"):
                return
            if not named and not person:
                return
        verbs = self._verbs()
        if verbs is None:
            return
        weight = 0.04 if person and named else 0.0 if person or named else -0.25
        if subject.words[0].low in ("my", "our") and clause.tense == "present":
            weight -= 0.2
        wh = "who" if person else "what"
        if (
            clause.front
            and subject.words[0].start > clause.parts[0].words[-1].end
            and (subject.words[0].low in ("a", "an"))
        ):
            weight += 0.45  # "In the hall hangs a map"
        yield from self.make(finished([wh, *verbs, *tail]), answer, weight)

    def _verbs(self) -> list[str] | None:
        """The verbs with "who" or "what" as their subject."""
        clause = self.clause
        adverbs = [a for a in clause.adverbs if a in _KEPT_ADVERBS]
        if not clause.first:
            verb = past(clause.base) if clause.tense == "past" else third(clause.base)
            return [*adverbs, verb, *clause.middle]
        first = {"are": "is", "were": "was", "have": "has", "do": "does"}.get(
            clause.first, clause.first
        )
        if first.endswith("n't"):
            return None
        return [first, *adverbs, *clause.middle]

    def existing(self) -> Iterator[Candidate]:
        """ "There are 14 hives in the orchard"."""
        clause = self.clause
        thing = next((p for p in clause.parts if p.kind in ("complement", "object")), None)
        if thing is None or clause.negative:
            return
        words = thing.phrase.words
        be = "are" if thing.phrase.plural else "is"
        be = {"is": "was", "are": "were"}[be] if clause.tense == "past" else be
        rest = self._tail(thing, timed=False) or []
        number = _count(words)
        if number and words[number:]:
            things = self.scene.said(words[number:])
            if things:
                yield from self.make(
                    finished([f"how many {things} {be} there", *rest]), words[:number], 0.15
                )
        bare = self.scene.said([w for w in words if w.tag != "D" and w.tag != "#"])
        for part in clause.parts:
            if part.kind == "place" and bare:
                question = finished(["where", be, "the", bare])
                whole = part.phrase.words if part.prep in ("in", "on", "at") else part.words
                yield from self.make(question, whole, 0.1)
        if thing.phrase.name and bare:
            yield from self.make(f"What {be} the {bare} called?", thing.phrase.name, 0.15)


def _last(part: Part) -> Token:
    return (*part.words, *part.phrase.name)[-1] if part.phrase.name else part.words[-1]


def _has_main(clause: Clause) -> bool:
    """Whether have or do only helps another verb here."""
    return bool(clause.middle) and clause.middle[0] not in ("to",)


def _apart(phrase: Phrase) -> bool:
    """Whether the name stands behind a comma or "called", not beside its noun."""
    return bool(phrase.name) and phrase.name[0].start > phrase.words[-1].end + 1


def _is_noun_like(word: Token) -> bool:
    return not belongs(word.low, "colour", "time", "unit")


def _count(words: Sequence[Token]) -> int:
    """How many words of a number stand first: "forty guest books" → 1; 0 if none, or a measure."""
    n = 0
    while n < len(words) and words[n].tag == "#":
        n += 1
    if n == 0 or n >= len(words) or words[0].text[0] in "£$€":
        return 0
    return 0 if not words[n].tag == "w" or words[-1].low in ("pm", "am") else n


def _is_amount(words: Sequence[Token]) -> bool:
    """ "140 euros", "£40", "12 kg", "140"."""
    numbers = [w for w in words if w.tag == "#"]
    return bool(numbers) and all(
        w.tag in ("#", "C") or belongs(w.low, "unit") or w.low in ("a", "about", "and")
        for w in words
    )


def _shade(words: Sequence[Token]) -> int:
    """How many words at the end tell the colour: "the door dark green" → 2."""
    count = 1
    while count < len(words) - 2 and re.fullmatch(
        r"dark|light|pale|deep|bright|\w+[ -]?ish|.*-.*", words[-count - 1].low
    ):
        count += 1
    return count


_UNITS = {
    "g": "grams", "kg": "kilos", "mg": "milligrams", "m": "metres", "cm": "centimetres",
    "mm": "millimetres", "km": "kilometres", "l": "litres", "ml": "millilitres", "w": "watts",
}  # fmt: skip


def _spelt(things: str) -> str:
    first, _, rest = things.partition(" ")
    return f"{_UNITS.get(first, first)} {rest}".strip()


def specific(answer: Sequence[Token]) -> float:
    """How unguessable an answer looks: numbers, names, colours, times."""
    low = " ".join(w.low for w in answer)
    if any(re.search(r"\d", w.text) for w in answer):
        return 0.2
    if any(w.tag == "N" or belongs(w.low, "home_kin") for w in answer):
        return 0.2
    if any(w.tag == "#" for w in answer) or time_end(answer, 0) > 0:
        return 0.15
    if any(belongs(w.low, "colour") for w in answer):
        return 0.12
    if len(answer) == 1 and (low in ("home", "work", "bed", "house") or answer[0].verb):
        return -0.2
    return 0.05 if len(answer) <= 4 else -0.05


def content_words(question: str) -> list[str]:
    """The words that say what the question is about."""
    return [w for w in re.findall(r"[\w'’-]+", question.lower()) if w not in _SIMPLE]


def finished(words: Sequence[str]) -> str | None:
    """One question of these words, None where it is too long."""
    text = tidy(" ".join(w for w in words if w)).rstrip(" ,;:.")
    text = re.sub(r"\b(next|in|on|out|close|up)-((?:front|top)-)?(to|of)\b",
                  lambda m: m[0].replace("-", " "), text)  # fmt: skip
    if len(text.split()) > LONGEST_QUESTION:
        return None
    return f"{capitalised(text)}?"
