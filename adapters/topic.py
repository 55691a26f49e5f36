"""What a personal question is about, in a form that its rewordings share.

Pure text. Two questions of one topic that were answered differently contradict each other: the
later answer holds.
"""

from __future__ import annotations

import re
from functools import cache

from acclimate.adapters.grammar import stem
from acclimate.adapters.reword import STOP, asks_personally, expand, interchangeable

# Words that say when an answer holds, not what it is about.
_TIME = frozenset(
    "now new nowadays currently current today still again latest present presently longer anymore"
    " these those days at the moment any more".split()
)
_FUNCTION = STOP | frozenset("its us ours whose from and or as so please tell remind".split())
_NAMING = frozenset("call called name named names".split())
# What is done with a thing in most questions about it; what it is about beside two other words.
_LIGHT = frozenset("all come get go have number take up use".split())
_KINDS = (
    ("when", re.compile(r"\b(?:when|what (?:time|day|date|year)|which (?:day|date|year))\b")),
    ("where", re.compile(r"\b(?:where|whereabouts|(?:what|which) (?:place|town|city))\b")),
    ("many", re.compile(r"\bhow (?:many|much|old|tall|long|far|often)\b")),
    ("why", re.compile(r"\bwhy\b")),
    ("colour", re.compile(r"\b(?:what|which) colou?r\b")),
)
# Words by which somebody says that something is no longer as it was.
_NEWS = re.compile(
    r"\b(?:now|nowadays|these days|from (?:now|today|this|next|then)|no longer|any ?more|instead"
    r"|(?:has|have|got) a new|new one|chang(?:es?|ed)|mov(?:e|es|ed)|switch(?:es|ed)?"
    r"|replac(?:es?|ed)|goes? up|went up|put off|as of|since (?:this|last)|currently"
    r"|at (?:the moment|present))\b",
    re.IGNORECASE,
)
# What the kind says already.
_MEASURES = frozenset("time day date year place town city many much".split())
_COLOURS = frozenset("colour color painted".split())


def topic(question: str, *, personal: bool = False) -> str:
    """ "Who's my apprentice these days?" → "|apprentic", as "What's my apprentice called?".

    Empty where the question is not a short one about the person, or has no word to go by. Of a
    person's note every question is: `personal`.
    """
    if not (personal or asks_personally(question)):
        return ""
    text = expand(question).lower().replace("’", "'")
    kind = kind_of(text)
    words = re.findall(r"\w+(?:-\w+)*", re.sub(r"'s?\b", " ", text))
    kept = {w for w in words if w not in _FUNCTION | _TIME | _NAMING}
    if kind:
        kept -= _COLOURS if kind == "colour" else _MEASURES
    if len(kept - _LIGHT) > 1:
        kept -= _LIGHT
    return f"{kind}|{' '.join(sorted({_canonical(w) for w in kept}))}" if kept else ""


def kind_of(question: str) -> str:
    """What kind of thing is asked for: "when", "where", "many", "why", "colour"; else nothing."""
    low = question.lower()
    return next((name for name, pattern in _KINDS if pattern.search(low)), "")


def is_news(text: str) -> bool:
    """Whether it says, or asks as if, something had changed: "Who's my dentist these days?"."""
    return _NEWS.search(text) is not None


def as_news(question: str, sentence: str) -> str:
    """The question with a "now" where the sentence that answers it is news."""
    if not is_news(sentence) or is_news(question):
        return question
    return f"{question.rstrip('?')} now?"


@cache
def _canonical(word: str) -> str:
    """One word for all that may stand in its place."""
    return stem(min([word, *(o for o in interchangeable().get(word, ()) if " " not in o)]))
