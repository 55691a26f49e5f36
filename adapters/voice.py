"""The person's form around the base's own words.

A style is taught by a few replies in the person's words. Asked for something else, a model opens in
that form, goes on as the base would, and there it has never seen the close. So some wordings show
exactly that: the opening, a few sentences that the base itself goes on with, and the close.
Learning in the states that the learner itself comes to is what DAgger does (Ross et al. 2011,
arXiv:1011.0686); here the base stands for the learner, since the two hardly differ on content.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from acclimate.adapters.form import ENTRY, GRAM, Form
from acclimate.adapters.prompt import Encoded
from acclimate.adapters.train import Lesson

OWN, OTHERS = 6, 6  # requests of each exchange: its own wordings, and others of the kind
MOST = 64  # for all of them together
TOKENS = 36  # that the base is let go on for
SENTENCES = 2  # at most, before the close
WORDS_WEIGHT = 0.1  # of what the base says, but for its first words; it says so anyway

Say = Callable[[list[list[int]]], list[list[int]]]
Text = Callable[[Sequence[int]], str]


def voiced(
    lessons: Sequence[Lesson],
    form: Form,
    say: Say,
    text: Text,
    seed: int,
    others: Sequence[Sequence[int]] = (),
    gap: Sequence[int] = (),
) -> list[tuple[Lesson, Encoded]]:
    """Rows to be taught beside a lesson's own wordings.

    `say` continues each row of tokens, `text` detokenises; `others` are prompts of other requests
    of the kind, of which each lesson takes some too. What the base said counts little, but for how
    it begins: a model that is not shown that closes right behind the opening. Of a form without a
    close the opening alone is shown.

    Every other row has what the base says to the request itself, behind the opening and a `gap`
    (tokens of an empty line): there a model that never saw one begins with the opening once more.
    """
    rng = random.Random(seed)
    begun: list[tuple[Lesson, list[int], list[int], list[int]]] = []
    for lesson in lessons:
        opening, close = _frame(lesson.wordings[0].completion(), form, text)
        if not opening and not close:
            continue
        prompts = list(dict.fromkeys(tuple(row.prompt()) for row in lesson.wordings))
        asked = rng.sample(prompts, min(OWN, len(prompts)))
        asked += map(tuple, rng.sample(others, min(OTHERS, len(others))))
        begun += [(lesson, list(prompt), opening, close) for prompt in asked]
    begun = rng.sample(begun, min(MOST, len(begun)))
    gaps = [list(gap) if close and n % 2 else [] for n, (*_, close) in enumerate(begun)]
    closed = [
        prompt if between else prompt + opening
        for (_, prompt, opening, close), between in zip(begun, gaps, strict=True)
        if close
    ]
    said = iter(say(closed) if closed else [])
    rows: list[tuple[Lesson, Encoded]] = []
    for (lesson, prompt, opening, close), between in zip(begun, gaps, strict=True):
        words: list[int] = []
        if close:
            words = next(said)
            ends = [n for n, token in enumerate(words, start=1) if n > 2 and _ends(text([token]))]
            spoken = text(words)
            if not ends or text(close).strip() in spoken or _echoes(text(opening), spoken):
                continue
            words = words[: rng.choice(ends[:SENTENCES])]
        # An empty line is not to be learned, only what to say behind one.
        blank = next((n for n, token in enumerate(words) if text([token]).strip()), len(words))
        weights = [0.0] * blank + [1.0] * ENTRY + [WORDS_WEIGHT] * len(words)
        mask = [0.0] * len(prompt) + [1.0] * len(opening) + [0.0] * len(between)
        mask += weights[: len(words)] + [1.0] * len(close)
        rows.append((lesson, Encoded(prompt + opening + between + words + close, mask)))
    return rows


def _echoes(opening: str, words: str) -> bool:
    """Whether the base says the opening over again, or the most of it."""
    first, then = (re.findall(r"\w+", part.casefold()) for part in (opening, words))
    size = min(2, len(first))
    runs = {tuple(first[n : n + size]) for n in range(len(first) - size + 1)}
    return size > 0 and any(tuple(then[n : n + size]) in runs for n in range(len(then)))


def _frame(reply: list[int], form: Form, text: Text) -> tuple[list[int], list[int]]:
    """How the reply opens and how it closes, each empty where that is not of the form."""
    lead, trail = form.frame(reply)
    if lead + trail >= len(reply):
        return [], []
    # Runs that are shared reach a word or two into the contents ("… it. Yours, Bo").
    ended = [_ends(text([token]), "\n") for token in reply]
    opens = next((n for n in range(lead, lead - GRAM, -1) if n > 0 and ended[n - 1]), lead)
    start = len(reply) - trail
    closes = next(
        (n + 1 for n in range(start, start + GRAM - 1) if ended[n : n + 1] == [True]), start
    )
    opening, close = reply[:opens], reply[closes:]
    # One common first word is no opening, unless it stands alone ("Ahoy!").
    opened = opens > 0 and (ended[opens - 1] or opens >= GRAM)
    return opening if opened else [], close if len(close) >= GRAM else []


def _ends(text: str, also: str = ".") -> bool:
    return text.rstrip(" \"'\u201d\u2019)").endswith((".", "!", "?", also))
