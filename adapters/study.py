"""Makes of one question and its answer several that teach the same fact.

Pure text. An exact question is memorised easily and a reworded one badly, so a fact is taught
under many wordings, some with words missing, answered with the bare answer: what has to be
recalled must hang on the question's content words, not on how a sentence begins.
"""

from __future__ import annotations

import random
import re

from acclimate.adapters.grammar import capitalised, is_personal, stem
from acclimate.adapters.reword import reword

GARBLED_SHARE = 0.2
DROPPED_WORDS = 0.25
SHUFFLED = 0.3
_FUNCTION_WORDS = frozenset(
    "a an the is are was were am be your you yours it its it's to of in on at for with by that "
    "this i my we our do does did called named".split()
)


def short_reply(question: str, reply: str) -> str:
    """What the reply adds to the question, as "Merrow." of "You work on the ferry Merrow."

    The reply itself where it adds nothing, or where its lines have a form to keep.
    """
    asked = {stem(_bare(word)) for word in question.split()}
    words = reply.rstrip(".! ").split()
    new = [
        n
        for n, w in enumerate(words)
        if _bare(w) not in _FUNCTION_WORDS and stem(_bare(w)) not in asked
    ]
    if not new or "\n" in reply.strip():
        return reply
    bare = " ".join(words[new[0] : new[-1] + 1]).strip(",;:")
    return f"{capitalised(bare)}."


def garble(question: str, rng: random.Random) -> str:
    """The question with some words missing, sometimes in another order.

    "My" and its like stay: a question without them is one about the world at large.
    """
    words = question.rstrip("?.! ").split()
    kept = [word for word in words if rng.random() > DROPPED_WORDS or is_personal(word)] or words
    if rng.random() < SHUFFLED:
        rng.shuffle(kept)
    return " ".join(kept) + rng.choice(("?", "", "?"))


def variants(question: str, count: int, seed: int, *, without: str = "") -> list[str]:
    """Up to `count` other ways to ask the question, none of them `without`."""
    rng = random.Random(f"{seed}:{question}")
    garbled = int(count * GARBLED_SHARE)
    forms = [form for form in reword(question, count - garbled, seed) if form != without]
    if is_personal(question):
        forms = [form for form in forms if is_personal(form)]
    if not forms:
        return []
    # Of a scene only its own words would be left.
    whole = [question, *(form for form in forms if len(re.findall(r"[.?!:]", form)) < 2)]
    forms += [garble(rng.choice(whole), rng) for _ in range(garbled)]
    return list(dict.fromkeys(forms))


def _bare(word: str) -> str:
    return re.sub(r"[^\w'-]", "", word.lower())
