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
    kind = next((name for name, pattern in _KINDS if pattern.search(text)), "")
    words = re.findall(r"\w+(?:-\w+)*", re.sub(r"'s?\b", " ", text))
    kept = {w for w in words if w not in _FUNCTION | _TIME | _NAMING}
    if kind:
        kept -= _COLOURS if kind == "colour" else _MEASURES
    if len(kept - _LIGHT) > 1:
        kept -= _LIGHT
    return f"{kind}|{' '.join(sorted({_canonical(w) for w in kept}))}" if kept else ""


@cache
def _canonical(word: str) -> str:
    """One word for all that may stand in its place."""
    return stem(min([word, *(o for o in interchangeable().get(word, ()) if " " not in o)]))
