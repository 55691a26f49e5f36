"""What the base model is asked about a passage of a note, and which of its questions are kept.

Pure text: prompts, the grammar of the reply, its reading and what can be judged without asking
again. Knows no engine and no store.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from acclimate.adapters.grammar import is_personal
from acclimate.adapters.passages import with_passages
from acclimate.adapters.questions.pairs import says_itself
from acclimate.adapters.questions.scene import DANGLING, LONGEST_ANSWER, LONGEST_QUESTION
from acclimate.adapters.topic import topic

MOST_PAIRS = 4
MOST_TOKENS = 40 * MOST_PAIRS
MOST_CHARS = 200  # of a line that is read
LONGEST_TITLE = 3  # letters of a word that a full stop only shortens
GRAMMAR = rf"""
root ::= "None\n" | pair{{1,{MOST_PAIRS}}}
pair ::= "Q: " [A-Z] [^?\n]+ "?\nA: " [^\n]+ "\n"
"""
UNCLEAR, LONG, ABSENT, REPEATED = (
    "no clear question about you",
    "no short answer",
    "not in the note",
    "answers itself",
)

_TASK = (
    f"Here is a note that I wrote. Write up to {MOST_PAIRS} short questions about me and my life"
    ' that it answers, as I would ask them, with "my" or "I". After each question copy its answer'
    " from the note, in as few words as you can. If the note says nothing lasting about me, write"
    " None.\n\nNote:\n"
)
_SHOWN = (
    ("It rained again, and the bus was late. Must buy stamps.", "None\n"),
    (
        "Biscuit has taken to sleeping in the airing cupboard, a strange place for so fat a cat."
        " Up at three as always, for the bakery opens at 04:30 and Imke, who is my sister after"
        " all, will not wait with the flour.",
        "Q: What is my cat called?\nA: Biscuit\nQ: Who brings me the flour?\nA: Imke\n"
        "Q: When do I open the bakery?\nA: 04:30\n",
    ),
)
_LINE = re.compile(r"\s*(?:[-*]\s+|\d{1,2}[.)]\s+)?\**([QA])\s*\d{0,2}\**\s*[:.]\**\s*(\S.*)")
_WORD = re.compile(r"[^\W_]+(?:[.:'’-][^\W_]+)*")
_ARTICLES = ("the", "a", "an")
# What may stand between two words of an answer: no end of a cell, an item or a clause.
_GAP = re.compile(r"[^\S\n]*\n?[^\S\n]*|[ ,.'\"“”’*_()&/–-]{1,4}")
_DANGLING = DANGLING - {"that", "there"}


@dataclass(frozen=True)
class Pair:
    """A question in the person's own view, and its answer."""

    question: str
    answer: str


def asking(passage: str) -> list[dict[str, str]]:
    """The messages that ask for questions: two examples, then the passage."""
    messages = []
    for note, lines in _SHOWN:
        messages += [
            {"role": "user", "content": _TASK + note},
            {"role": "assistant", "content": lines.rstrip()},
        ]
    return [*messages, {"role": "user", "content": _TASK + passage.strip()}]


def reading(question: str, passage: str = "") -> list[dict[str, str]]:
    """The question alone, or with the passage as retrieval would show it."""
    return with_passages([{"role": "user", "content": question}], [passage] if passage else [])


def pairs_of(reply: str) -> list[Pair]:
    """The pairs of a reply, at most MOST_PAIRS; whatever has another form is passed over.

    Never raises. A line without its end is half a line and does not count.
    """
    found: dict[str, Pair] = {}
    question = ""
    for line in reply.split("\n")[:-1]:
        match = _LINE.fullmatch(line) if len(line) <= MOST_CHARS else None
        if match is None:
            continue
        text = match[2].strip().strip("*").strip()
        if match[1] == "Q":
            question = text
        elif question and text:
            found.setdefault(question.casefold(), Pair(question, text))
            question = ""
    return list(found.values())[:MOST_PAIRS]


def fault(pair: Pair, passage: str) -> str:
    """Why the pair cannot be kept, as far as its text and the passage say; "" when it may."""
    asked = pair.question
    words = {word.casefold() for word in _WORD.findall(asked)}
    if not topic(asked) or words & _DANGLING or len(asked.split()) > LONGEST_QUESTION:
        return UNCLEAR
    told = [word for word, _, _ in _words(pair.answer)]
    if not 0 < len(told) <= LONGEST_ANSWER or is_personal(pair.answer) or _DANGLING & {*told}:
        return LONG
    if not quoted(pair.answer, passage):
        return ABSENT
    return REPEATED if says_itself(asked, pair.answer) else ""


def quoted(answer: str, passage: str) -> str:
    """The answer as the passage has it, in whole words that stand together; "" where it has not."""
    wanted, words = _told(answer), list(_words(passage))
    for at in _places(wanted, [word for word, _, _ in words]):
        run = words[at : at + len(wanted)]
        if all(_together(passage[a[2] : b[1]], a[0]) for a, b in pairwise(run)):
            return " ".join(passage[run[0][1] : run[-1][2]].split())
    return ""


def _together(gap: str, word: str) -> bool:
    """Whether what stands behind a word joins the next to it; "Mr. Penn" ends no sentence."""
    return bool(_GAP.fullmatch(gap)) and ("." not in gap or len(word) <= LONGEST_TITLE)


def says(reply: str, answer: str) -> bool:
    """Whether the reply has the answer's words, whole and together."""
    return next(_places(_told(answer), [word for word, _, _ in _words(reply)]), None) is not None


def _told(answer: str) -> list[str]:
    """The answer's words without an article in front."""
    words = [word for word, _, _ in _words(answer)]
    return words[1:] if words[:1] and words[0] in _ARTICLES and words[1:] else words


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word in one spelling, with where it begins and ends."""
    for match in _WORD.finditer(text):
        word = unicodedata.normalize("NFKC", match[0]).casefold().replace("’", "'")
        bare = word.removesuffix("'s")
        yield bare, match.start(), match.end() - (0 if bare == word else len("'s"))


def _places(wanted: Sequence[str], words: Sequence[str]) -> Iterator[int]:
    """Where `wanted` stands in `words`, in its order."""
    if wanted:
        for at in range(len(words) - len(wanted) + 1):
            if words[at : at + len(wanted)] == wanted:
                yield at
