"""What is known where a question is made, and what makes a question or an answer a good one.

Pure text. Whatever would leave a "he" or "there" dangling in a question is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from acclimate.adapters.grammar import belongs, capitalised
from acclimate.adapters.questions.phrases import Phrase
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import Token

LONGEST_QUESTION = 20  # words


LONGEST_ANSWER = 8


DANGLING = frozenset(
    "he she it they him them himself herself itself themselves hers theirs there here this these "
    "those one ones other others another such you your yours yourself same former latter both "
    "each either neither something someone somebody anything everything nothing everyone nobody "
    "everybody none all some any which who whom that what of such".split()
) - {"of", "which", "who", "what", "all", "some"} | {"ours", "mine", "none"}


POSSESSIVE = {"his": "he", "her": "she", "its": "it", "their": "they", "your": "you"}


_OBJECT_FORMS = {"him": "he", "her": "she", "them": "they"}


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
        noun = 1 if words and words[0].tag == "P" else 0
        for n, word in enumerate(words):
            low, shown = word.low, tidy(self.text[word.start : word.end]) or word.text
            after = words[n + 1] if n + 1 < len(words) else None
            if low == "her" and after is not None and after.tag in ("w", "N", "#"):
                pronoun, own = "she", True
            else:
                pronoun = _OBJECT_FORMS.get(low, POSSESSIVE.get(low, low))
                own = low in POSSESSIVE and low != "her"
            if pronoun in ("he", "she", "it", "they", "you"):
                if own and owner == pronoun:
                    pass
                elif pronoun in self.meant:
                    shown = self.meant[pronoun] + ("'s" if own else "")
                else:
                    return None
            elif low in DANGLING and not (
                (low == "nothing" and len(words) == 1)
                or (low == "other" and after is not None and after.low in ("side", "end"))
                or (n and low in ("who", "that", "which"))
            ):
                return None
            elif n == 0 and belongs(low, "home_kin") and shown[0].isupper() and word.tag != "'":
                shown = f"my {low}"
            elif n == 0 and after is not None and after.tag == "N" and belongs(low, "title"):
                pass
            elif low == "the" and n == noun and _ours(words[noun:]):
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
    if first.low == "the" and len(phrase.words) > 2:
        first = phrase.words[1]
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
    if len(text.split()) > LONGEST_QUESTION:
        return None
    return f"{capitalised(text)}?"


_UNITS = {
    "g": "grams", "kg": "kilos", "mg": "milligrams", "m": "metres", "cm": "centimetres",
    "mm": "millimetres", "km": "kilometres", "l": "litres", "ml": "millilitres", "w": "watts",
}  # fmt: skip


def spelt(things: str) -> str:
    first, _, rest = things.partition(" ")
    return f"{_UNITS.get(first, first)} {rest}".strip()


def count(words: Sequence[Token]) -> int:
    """How many words of a number stand first: "forty guest books" → 1; 0 if none, or a measure."""
    n = 0
    while n < len(words) and words[n].tag == "#":
        n += 1
    if n == 0 or n >= len(words) or words[0].text[0] in "£$€":
        return 0
    return 0 if words[n].tag != "w" or words[-1].low in ("pm", "am") else n


def is_amount(words: Sequence[Token]) -> bool:
    """ "140 euros", "£40", "12 kg", "140"."""
    numbers = [w for w in words if w.tag == "#"]
    return bool(numbers) and all(
        w.tag in ("#", "C")
        or belongs(w.low, "unit")
        or w.low in ("a", "about", "and", "minus", "plus")
        for w in words
    )
