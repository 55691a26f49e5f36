"""Phrases of time in a sentence: "on Tuesdays at seven", "every May", "half past six".

Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.words import CLOCK, DAY_OF_MONTH, YEAR, Token

_BEFORE_YEAR = frozenset("in since until of from by before after around about to and".split())
_MEANT_OTHERWISE = frozenset("spring fall supper dinner lunch breakfast birthday term".split())
_BEFORE_SEASON = frozenset(
    "in at last next every this before after each for until by since of the early late half "
    "autumn summer winter".split()
)
_INSIDE = frozenset(
    "the a an of in at on and to from until till since before after by during for around about "
    "within per over through".split()
)


def time_end(words: Sequence[Token], n: int) -> int:
    """Where the phrase of time that begins at n ends, as "on Tuesdays at seven"; n if none does.

    A preposition may open it. What is vague ("yesterday", "now") counts too.
    """
    strong, last, at = False, n, n
    if n < len(words) and words[n].tag in ("C", ","):
        return n
    while at < len(words):
        kind = _timeish(words, at, strong)
        if not kind:
            break
        at += 1
        if kind == "strong":
            strong, last = True, at
        elif kind == "number" and strong:
            last = at
    return last if strong else n


def _timeish(words: Sequence[Token], n: int, strong: bool) -> str:
    """Whether a word can go on a phrase of time: strong, number, weak, or nothing."""
    token, low = words[n], words[n].low
    before = words[n - 1].low if n else ""
    after = words[n + 1].low if n + 1 < len(words) else ""
    if low in ("second", "march", "may") and token.text.islower():
        return "weak" if low == "second" else ""
    if low in _MEANT_OTHERWISE and before not in _BEFORE_SEASON:
        return ""
    if belongs(low, "day", "month", "time"):
        if after in ("'s",) and low not in ("today", "tomorrow"):
            return ""
        if before in ("at", "by") and low in ("night", "day", "noon"):
            return "strong"
        follower = words[n + 1] if n + 1 < len(words) else None
        if follower and follower.tag == "w" and not follower.verb and follower.text.islower():
            return "" if not _continues(follower.low) else "strong"
        return "strong"
    if CLOCK.match(low) or DAY_OF_MONTH.match(low):
        return "strong"
    if YEAR.match(low) and (strong or before in _BEFORE_YEAR):
        return "strong"
    if token.tag == "#":
        if after == "times":
            return "weak"
        if belongs(after, "month", "time") or belongs(before, "month", "day") or after == "past":
            return "number" if strong else "weak"
        if before in ("at", "past", "to", "till", "until", "from", "around", "about", "after",
                      "before", "by", "and", "every", "half"):  # fmt: skip
            nxt = words[n + 1] if n + 1 < len(words) else None
            free = nxt is None or nxt.tag not in ("w", "N", "#") or bool(nxt.verb)
            small = re.fullmatch(r"\d{1,2}", low) or belongs(low, "number")
            if free and small and before not in ("and",):
                return (
                    "strong" if before not in ("about", "around", "by", "to") or strong else "weak"
                )
        return "number" if strong and before in ("from", "and", "to", "-") else ""
    if low in ("half", "quarter") and (
        after in ("past", "to", "a") or before in ("a", "at", "and")
    ):
        return "strong" if low == "half" and after == "past" else "weak"
    if low in ("past", "to") and before in ("half", "quarter", "ten", "five", "twenty", "minutes"):
        return "weak"
    if low in ("start", "end", "beginning", "middle"):
        return "weak" if after == "of" else ""
    if low in ("every", "each", "last", "next", "this", "twice", "once", "other", "early", "late",
               "mid", "times", "whole", "all", "long"):  # fmt: skip
        return "weak"
    if belongs(low, "ordinal") or low in _INSIDE:
        return "weak"
    if token.tag == "," and strong:
        return "weak"
    return ""


def _continues(low: str) -> bool:
    return belongs(low, "month", "day", "time")
