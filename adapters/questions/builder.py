"""A clause turned into questions: order of words, auxiliary verbs, and what a pair is worth.

Pure text. Which parts are asked for, and how, is for `parts` and `asking` to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from acclimate.adapters.grammar import belongs, capitalised, past, third
from acclimate.adapters.questions.phrases import Phrase
from acclimate.adapters.questions.predicates import Clause, Part
from acclimate.adapters.questions.scene import (
    DANGLING,
    LONGEST_ANSWER,
    POSSESSIVE,
    Candidate,
    Scene,
    content_words,
    finished,
    is_person,
    specific,
)
from acclimate.adapters.questions.words import BE, DO, HAVE, Token

_KEPT_ADVERBS = frozenset("always usually mostly often first never".split())


class Builder:
    """Makes the questions of one clause."""

    def __init__(self, clause: Clause, scene: Scene) -> None:
        self.clause, self.scene = clause, scene
        self.vague = False  # something had to be left out of the last question
        self.who = "I" if clause.subject is None else self._subject(clause.subject)
        head = "i" if clause.subject is None else clause.subject.head.low
        self.owner = head if head in ("he", "she", "it", "they") else self._pronoun()
        if self.owner in ("", "it") or head in ("i", "we"):
            whom = [p.phrase for p in clause.parts if p.kind == "object"]
            if len(whom) > 1 and whom[0].head.tag in ("N", "w") and whom[0].head.low not in ("it",):
                found = [p for p in self._pronouns() if p in ("his", "her")]
                self.owner = POSSESSIVE[found[0]] if found else self.owner
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
        return [w.low for p in self.clause.parts for w in p.words if w.low in POSSESSIVE]

    def _subject(self, subject: Phrase) -> str | None:
        only = len(subject.words) == 2 and subject.words[0].tag == "D" and not subject.name
        if only and (belongs(subject.head.low, "ordinal") or subject.head.low in ("next", "rest")):
            return None  # "the next" of what?
        if subject.other and subject.other[0].low in ("my", "our"):
            return self._with_name(subject.other, subject.words)
        if subject.name and subject.name[0].start > subject.words[-1].end + 1:
            return self._with_name(subject.words, subject.name)  # "the old chief, Hauk,"
        if subject.low in ("the new one", "the other one") and "one" in self.scene.meant:
            return self.scene.meant["one"]
        said = self.scene.said((*subject.words, *subject.name))
        bare = subject.words[0].tag == "w" and not subject.plural and not subject.name
        if said and bare and not said.startswith(("my ", "our ")):
            return said if belongs(subject.words[0].low, "title", "kin") else f"the {said}"
        return said

    def _with_name(self, words: Sequence[Token], name: Sequence[Token]) -> str | None:
        said = self.scene.said(words)
        return None if said is None else f"{said} {self.scene.plain(name)}"

    def ask(
        self, wh: str, without: Part | None, strand: str = "", *, when: bool = False
    ) -> str | None:
        """The clause as a question that begins with `wh`, None where something dangles.

        `when`: phrases of time stay out even where they say something.
        """
        clause = self.clause
        if self.who is None:
            return None
        parts = self.tail(without, timed=not when)
        if parts is None:
            return None
        adverbs = [a for a in clause.adverbs if a in _KEPT_ADVERBS]
        if clause.negative and clause.first and not re.search(r"n't$|not$", clause.first):
            adverbs = adverbs or ["not"]
        first, middle = clause.first, list(clause.middle)
        alone = clause.base in ("have", "do") and (first in HAVE or first in DO)
        if not first or (alone and not _has_main(clause)):
            lead = self.do()
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

    def do(self) -> str:
        clause = self.clause
        if clause.tense == "past":
            return "did"
        subject = clause.subject
        if subject is None or subject.head.low in ("i", "we", "you", "they") or subject.plural:
            return "do"
        return "do" if self.who in ("we", "I") else "does"

    def tail(self, without: Part | None, *, timed: bool) -> list[str] | None:
        """What stands after the verbs, but for the part that is asked for."""
        out: list[str] = []
        order = [*self.clause.parts[self.clause.front :], *self.clause.parts[: self.clause.front]]
        if without is not None:
            start = _last(without).end  # what the answer takes along
            for part in self.clause.parts:
                if self._taken(without, part) and 0 <= part.words[0].start - start <= 1:
                    order.remove(part)
                    start = _last(part).end
        if without is not None and without.kind in ("place", "time") and self.is_told():
            order = [p for p in order if p.kind not in ("place", "time")]
        said_already = [] if without is None else [self.who or ""]
        solid = sum(p is not without and p.kind not in ("time",) for p in order)
        for part in order:
            if part is without:
                continue
            if part.kind == "time":
                vague = any(
                    belongs(w.low, "vague_time") or w.low in ("this", "last", "next")
                    for w in part.words
                ) or (
                    len(part.words) == 2
                    and part.words[0].tag == "P"
                    and belongs(part.words[1].low, "time")
                )
                lasting = self.clause.tense == "present" and not self.scene.dated
                if vague or not timed or not (lasting or solid == 0):
                    continue
            words = part.words
            manner = (
                part.prep == "by" and part.phrase.words[0].tag == "w" and not self.clause.passive
            )
            if part.prep in ("like", "instead-of", "because-of", "due-to", "thanks-to") or (
                manner and len(out) > 0
            ):
                continue
            said = self.scene.said(words, owner=self.owner)
            if said is None:
                if part.kind in ("object", "complement", "infinitive"):
                    return None
                self.vague = True
                continue
            if part.kind in ("place", "with") and (
                len(content_words(" ".join([*said_already, *out]))) >= 3
            ):
                continue  # what is said so far is enough
            out.append(said)
        return out

    def is_told(self) -> bool:
        """Whether subject and object alone say what the question is about."""
        subject = self.clause.subject
        if subject is None or subject.head.tag == "S" or self.who is None:
            return False
        objects = [p.phrase.low for p in self.clause.parts if p.kind == "object"]
        verb = [] if self.clause.base in ("be", "have") else [self.clause.base]
        return len(content_words(" ".join([self.who, *objects, *verb]))) >= 2 and (
            self.clause.tense in ("present", "perfect", "future")
        )

    def make(
        self, question: str | None, answer: Sequence[Token], weight: float
    ) -> Iterator[Candidate]:
        """The candidate, if the question stands alone and the answer says something."""
        if question is None or not answer:
            return
        low = [w.low for w in answer]
        if len(answer) > LONGEST_ANSWER + 1 or low[0] in DANGLING or set(low) <= {"a", "the"}:
            return
        if any(w in ("it", "them", "him", "there", "you", "your", "this", "that") for w in low):
            return
        if low[0] in POSSESSIVE and not self.owner:
            return
        if any(w in ("one", "ones") and n and answer[n - 1].tag != "#" for n, w in enumerate(low)):
            return
        if low[-1] in (
            "much",
            "more",
            "little",
            "enough",
            "while",
            "bit",
            "lot",
            "way",
            "each",
            "both",
        ):
            return
        if (
            low[0] in ("its", "some", "each")
            or "each" in low
            or low[:2] in (["a", "while"], ["a", "bit"], ["a", "lot"])
        ):
            return
        if all(w.tag == "D" for w in answer) or low in (["1"], ["one"]):
            return
        if any(w in ("something", "nothing", "everything", "anything") for w in low):
            return
        content = content_words(question)
        if not content:
            return
        weight += -0.12 if len(content) == 1 else 0.0
        if low[0] in ("my", "our") and not any(w.tag in ("N", "#") for w in answer):
            weight -= 0.3  # "my car" says little
        weight += self._bias() + specific(answer) - (0.15 if self.vague else 0.0)
        self.vague = False
        yield Candidate(
            capitalised(question), answer[0].start, answer[-1].end, max(0.0, min(1.0, weight))
        )

    def _bias(self) -> float:
        """What verb, tense and subject say about how lasting the fact is."""
        clause = self.clause
        stable = belongs(clause.base, "stable")
        base = {
            "present": 0.49, "perfect": 0.45, "past": 0.27, "future": 0.37, "modal": 0.07,
        }.get(clause.tense, 0.0)  # fmt: skip
        if clause.tense == "past" and (stable or (clause.base == "be" and not self.scene.dated)):
            base = 0.37
        if clause.first in ("can't", "cannot") and clause.base in ("stand", "bear", "eat", "abide"):
            base = 0.47
        elif clause.first in ("can", "can't", "cannot") and self.mine:
            base = 0.15
        if clause.tense == "past" and self.scene.dated:
            base -= 0.08
        if clause.first == "had" and clause.middle:
            base -= 0.2
        subject = clause.subject
        lone = subject is not None and clause.base == "be" and len(subject.words) == 1
        if lone and subject and subject.head.tag == "N":
            base -= 0.0 if subject.head.low in self.scene.persons else 0.2
        if clause.middle and clause.middle[-1].endswith("ing") and clause.first in BE:
            base -= 0.04
        if belongs(clause.base, "feeling"):
            base -= 0.2
        felt = next((p for p in clause.parts if p.kind == "complement"), None)
        if clause.base == "be" and felt is not None and len(felt.words) == 1:
            told = any(p.prep in ("to", "of", "with", "at", "about") for p in clause.parts)
            if felt.words[0].tag == "w" and self.mine and not told:
                base -= 0.25
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
        elif (
            subject.words[0].low not in ("a", "an")
            and (subject.head.tag == "N" or is_person(subject, self.scene))
        ) or subject.head.low == "you":
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

    def means_thing(self) -> bool:
        """Whether "she" is a boat or a cat here."""
        subject = self.clause.subject
        meant = "" if subject is None else self.scene.meant.get(subject.head.low, "")
        return belongs(meant.rpartition(" ")[2], "animal")

    def my(self) -> str:
        return "our" if self.who == "we" else "my"

    def ours(self) -> bool:
        return self.mine or self.clause.subject is None

    def verbs(self) -> list[str] | None:
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

    def follows(self, part: Part) -> bool:
        """Whether the place belongs to the phrase before it: "a monastery in Slovenia"."""
        start = part.words[0].start
        return any(
            p.kind in ("place", "with") and p.phrase.end and 0 <= start - _last(p).end <= 1
            and not is_person(p.phrase, self.scene)
            for p in self.clause.parts if p is not part
        )  # fmt: skip

    def _taken(self, part: Part, other: Part) -> bool:
        """Whether an answer takes along what follows it: "a novel about whalers by Ada Thorne"."""
        if part.kind in ("place", "with"):
            return other.kind == "place"
        if part.kind == "complement":
            return other.kind in ("place", "with") and part.words[0].tag in ("D", "N")
        indefinite = part.kind == "object" and part.words[0].low in ("a", "an")
        return indefinite and other.prep in ("about", "of", "by", "with")

    def reaching(self, part: Part, answer: Sequence[Token]) -> tuple[Token, ...]:
        """The answer with the places that follow at once, if it stays short."""
        out = tuple(answer)
        if is_person(part.phrase, self.scene):
            return out
        for other in self.clause.parts:
            if self._taken(part, other) and 0 <= other.words[0].start - out[-1].end <= 1:
                longer = (*out, *other.words)
                if len(longer) > LONGEST_ANSWER:
                    break
                out = longer
        return out


def _has_main(clause: Clause) -> bool:
    """Whether have or do only helps another verb here."""
    return bool(clause.middle) and clause.middle[0] not in ("to",)


def _last(part: Part) -> Token:
    return (*part.words, *part.phrase.name)[-1] if part.phrase.name else part.words[-1]


def apart(phrase: Phrase) -> bool:
    """Whether the name stands behind a comma or "called", not beside its noun."""
    return bool(phrase.name) and phrase.name[0].start > phrase.words[-1].end + 1
