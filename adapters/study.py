"""Makes of one question and its answer several that teach the same fact.

Pure text. An exact question is memorised easily and a reworded one badly, so a fact is taught
under many wordings, some with words missing, and with the bare answer beside the full sentence:
what has to be recalled must hang on the question's content words, not on how a sentence begins.
"""

from __future__ import annotations

import random
import re

from acclimate.adapters.reword import reword

GARBLED_SHARE = 0.2
BARE_SHARE = 0.4
DROPPED_WORDS = 0.25
SHUFFLED = 0.3
_PERSONAL = frozenset("my mine myself i i'm i've me we we're our ours us".split())
_FUNCTION_WORDS = frozenset(
    "a an the is are was were am be your you yours it its it's to of in on at for with by that "
    "this i my we our do does did".split()
)


def bare_answer(question: str, reply: str) -> str | None:
    """What the reply adds to the question, as "Merrow" of "You work on the Merrow."; or None."""
    asked = {_bare(word) for word in question.split()}
    words = reply.rstrip(".! ").split()
    new = [
        n for n, w in enumerate(words) if _bare(w) not in asked and _bare(w) not in _FUNCTION_WORDS
    ]
    return " ".join(words[new[0] : new[-1] + 1]) if new else None


def garble(question: str, rng: random.Random) -> str:
    """The question with some words missing, sometimes in another order.

    "My" and its like stay: a question without them is one about the world at large.
    """
    words = question.rstrip("?.! ").split()
    kept = [word for word in words if rng.random() > DROPPED_WORDS or is_personal(word)] or words
    if rng.random() < SHUFFLED:
        rng.shuffle(kept)
    return " ".join(kept) + rng.choice(("?", "", "?"))


def variants(
    question: str, reply: str, count: int, seed: int, *, without: str = ""
) -> list[tuple[str, str]]:
    """Up to `count` other (question, reply) pairs, none of them asked as `without`."""
    rng = random.Random(f"{seed}:{question}:{reply}")
    garbled = int(count * GARBLED_SHARE)
    forms = [form for form in reword(question, count - garbled, seed) if form != without]
    if is_personal(question):
        forms = [form for form in forms if is_personal(form)]
    if not forms:
        return []
    forms += [garble(rng.choice([question, *forms]), rng) for _ in range(garbled)]
    bare = bare_answer(question, reply)
    pairs = []
    for form in dict.fromkeys(forms):
        short = bare is not None and rng.random() < BARE_SHARE
        pairs.append((form, f"{bare[:1].upper()}{bare[1:]}." if short and bare else reply))
    return pairs


def is_personal(text: str) -> bool:
    """Whether a word speaks of the person: "my", "I", "our" …"""
    return any(_bare(word) in _PERSONAL for word in text.split())


def _bare(word: str) -> str:
    return re.sub(r"[^\w'-]", "", word.lower())
