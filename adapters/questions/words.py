"""A sentence as tokens with a rough part of speech each.

Pure text; a word's tag is what it can be, what it is here is for `clauses` to say.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from acclimate.adapters.grammar import Form, belongs, verb_forms

MOST_TOKENS = 90


_TOKEN = re.compile(
    r"(?P<mark>[*_`#]+)"
    r"|[£$€]\s?\d[\d.,]*\d[mk]?\b|[£$€]\d|\d[\d.,:/-]*\d(?:st|nd|rd|th|%|[a-z]{1,3})?(?!\w)"
    r"|\w+(?:[-.&/@+]\w+)*\.?(?<=\b[A-Z]\.)|\d+[\w.,:/-]*\w%?"
    r"|\w+(?:[-&@/+]\w+)*(?:['’](?!(?:m|re|ve|ll|d|s)\b)\w+)*|['’](?:m|re|ve|ll|d|s)\b"
    r"|--+|[^\w\s]"
)


_ABBREVIATED = re.compile(r"(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|No)$")


SUBJECTS = frozenset(
    "i we you he she it they who everyone everybody nobody somebody someone".split()
)


_OBJECTS = frozenset(
    "me us him them myself ourselves himself herself itself themselves something nothing "
    "everything anything anyone anybody none".split()
)


_DETERMINERS = frozenset(
    "a an the my our your his her its their this that these those some any no every each both "
    "all another either several many few enough more most less whose".split()
)


PREPOSITIONS = frozenset(
    "in on at to from with without by for of about under behind beside besides near above below "
    "inside outside opposite between over round around against off along across beyond past up "
    "down through among into onto out during until till since before after as like than towards "
    "toward via per within beneath underneath alongside upon next-to in-front-of on-top-of "
    "out-of as-far-as because-of instead-of due-to thanks-to close-to up-to except despite".split()
)


PLACES = frozenset(
    "in on at under behind beside near above below inside outside opposite between over round "
    "around against off along across beyond into onto beneath underneath alongside next-to "
    "in-front-of on-top-of by through upon within among up down close-to past out-of".split()
)


_COMPOUND = frozenset(
    tuple(several.split("-"))
    for several in (
        "next-to as-far-as in-front-of on-top-of out-of because-of instead-of due-to thanks-to "
        "close-to up-to"
    ).split()
)


_CLAUSAL = frozenset(
    "because although though when whenever while if unless whereas whether where wherever how why "
    "what which whom whatever lest".split()
)


BE = {
    "am": "present", "is": "present", "are": "present", "'m": "present", "'re": "present",
    "isn't": "present", "aren't": "present", "was": "past", "were": "past", "wasn't": "past",
    "weren't": "past",
}  # fmt: skip


MODALS = frozenset(
    "can could will would shall should must may might 'll 'd can't cannot couldn't won't "
    "wouldn't shan't shouldn't mustn't ought".split()
)


HAVE = frozenset("have has had 've haven't hasn't hadn't".split())


DO = frozenset("do does did don't doesn't didn't".split())


NEGATIONS = frozenset("not never no n't hardly neither nor".split())


_BEFORE_LIKE = frozenset(
    "i we you they to would 'd really always also don't doesn't didn't never and both all".split()
)


_ADVERBS = frozenset(
    "once twice always usually mostly often never ever also only just still already now then "
    "again soon later too very quite rather almost nearly about even both well here there "
    "away back home together alone abroad upstairs downstairs indoors outdoors today tomorrow "
    "yesterday tonight sometimes recently lately currently finally actually really exactly "
    "probably perhaps maybe not instead anyway however therefore else yet ago nowadays "
    "meanwhile seldom rarely every-day overnight please yes no apparently".split()
)


_ADVERB_ENDING = re.compile(r"[a-z]{3,}ly$")


_NO_ADVERB = frozenset(
    "family early july italy holly jelly lily belly bully fly reply "
    "supply assembly anomaly monopoly silly friendly lovely lonely ugly elderly curly likely "
    "only woolly hilly smelly butterfly barely".split()
)


CLOCK = re.compile(r"\d{1,2}[:.]\d\d(?:am|pm)?$|\d{1,2}(?:am|pm|h)$", re.I)


YEAR = re.compile(r"(?:1[6-9]|20)\d\ds?$")


DAY_OF_MONTH = re.compile(r"\d{1,2}(?:st|nd|rd|th)$")


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a mark. Tags: S O subject and object pronoun, D determiner, P preposition,
    C and/or/but, B what opens another clause, X be, have, do, modal, A adverb, # number, N name,
    w other word, ' possessive, and a mark itself. `verb` is what it can be as a verb.
    """

    text: str
    start: int
    end: int
    tag: str
    verb: tuple[Form, ...] = ()

    @property
    def low(self) -> str:
        return self.text.lower().replace("’", "'")

    def can(self, *kinds: str) -> bool:
        return any(kind in kinds for _, kind in self.verb)


def tokens(text: str, start: int, end: int, common: Container[str] = frozenset()) -> list[Token]:
    """The words of text[start:end], at most 90, with offsets in `text`; emphasis marks left out.

    `common`: words that the note writes with a small letter, and so are no names.
    """
    out: list[Token] = []
    for match in _TOKEN.finditer(text, start, end):
        if match["mark"] or len(out) >= MOST_TOKENS:
            continue
        word = match[0]
        if (
            word == "."
            and out
            and _ABBREVIATED.match(out[-1].text)
            and out[-1].end == match.start()
        ):
            out[-1] = Token(out[-1].text + ".", out[-1].start, match.end(), "N")
            continue
        out.append(Token(word, match.start(), match.end(), "w"))
    out = _compounds(out)
    return [_tagged(out, n, common) for n in range(len(out))]


def _compounds(words: list[Token]) -> list[Token]:
    out: list[Token] = []
    n = 0
    while n < len(words):
        for size in (3, 2):
            several = words[n : n + size]
            if tuple(w.low for w in several) in _COMPOUND:
                name = "-".join(w.low for w in several)
                out.append(Token(name, several[0].start, several[-1].end, "P"))
                n += size
                break
        else:
            out.append(words[n])
            n += 1
    return out


def _tagged(words: list[Token], n: int, common: Container[str]) -> Token:
    token = words[n]
    low = token.low
    forms = verb_forms().get(low, ())
    tag = _tag(token, low, forms, words, n, common)
    if tag in ("N", "#", "S", "O", "D", "P", "C"):
        forms = ()
    elif not forms and tag == "w" and low.isalpha():
        forms = _guessed(low) or _after_pronoun(words, n)
    return Token(token.text, token.start, token.end, tag, forms)


def _tag(
    token: Token,
    low: str,
    forms: tuple[Form, ...],
    words: list[Token],
    n: int,
    common: Container[str],
) -> str:
    if token.tag != "w":
        return token.tag
    if low == "'s":
        return "'"
    if not (low[0].isalnum() or low[0] in "'£$€"):
        return "-" if low[0] in "-–—" else low[0]
    if token.text == "May" or (token.text == "Will" and n):
        return "N"
    if low in BE or low in MODALS or low in HAVE or low in DO or low in ("been", "being", "be"):
        return "X"
    if low in ("and", "or", "but", "nor", "&", "plus"):
        return "C"
    if low in ("first", "last") and n and words[n - 1].low in SUBJECTS:
        return "A"  # "where we first met"
    if low in SUBJECTS and (low != "i" or token.text == "I"):
        return "S"
    if low in _OBJECTS:
        return "O"
    if low in _DETERMINERS:
        return "D"
    if low[0].isdigit() or low[0] in "£$€" or all(belongs(w, "number") for w in low.split("-")):
        return "#"
    if low in ("about", "around", "over", "under") and _numeric(words, n + 1):
        return "A"
    before = words[n - 1].low if n else ""
    if low == "like" and before in _BEFORE_LIKE:
        return "w"
    if low == "well" and (before in _DETERMINERS or belongs(before, "adjective")):
        return "w"
    if low in PREPOSITIONS:
        return "P"
    if low in _CLAUSAL and not (low == "while" and n and words[n - 1].low == "a"):
        return "B"
    if low == "longer" and n and words[n - 1].low == "no":
        return "A"
    if low in _ADVERBS or (
        _ADVERB_ENDING.match(low) and low not in _NO_ADVERB and not token.text[0].isupper()
    ):
        return "A"
    known = bool(forms) or belongs(low, "kin", "role", "time", "colour", "belongings", "ordinal")
    if token.text[0].isupper() and (n or not known) and not token.text.isupper():
        first = n == 0 or words[n - 1].low in (".", ":", '"', "“")
        return "w" if first and (known or low in common or _compound(words, n)) else "N"
    if token.text.isupper() and len(token.text) > 1:
        return "N"
    return "w"


def _compound(words: list[Token], n: int) -> bool:
    """ "Salt stone hangs": a noun before a noun, not a name before its verb."""
    after = words[n + 1].low if n + 1 < len(words) else ""
    return (
        after.isalpha() and words[n + 1].text.islower() and after not in verb_forms()
        and after not in PREPOSITIONS and after not in _ADVERBS and after not in _DETERMINERS
        and after not in BE and after not in HAVE and after not in MODALS and after not in DO
        and after not in ("and", "or", "but", "who", "which", *_CLAUSAL, *SUBJECTS, *_OBJECTS)
        and not after.endswith(("s", "ed", "ly"))
    )  # fmt: skip


def _numeric(words: list[Token], n: int) -> bool:
    """Whether a number that is no time of day stands there: "about 40 boards"."""
    if n >= len(words) or CLOCK.match(words[n].low) or YEAR.match(words[n].low):
        return False
    number = words[n].text[0].isdigit() or belongs(words[n].low, "number")
    return number and n + 1 < len(words) and words[n + 1].text[0].isalpha()


def _after_pronoun(words: list[Token], n: int) -> tuple[Form, ...]:
    """ "We barter", "she embroiders": what follows such a pronoun is a verb, known or not."""
    low = words[n].low
    if belongs(low, "ordinal"):
        return ()
    before = n - 1
    while before >= 0 and words[before].low in _ADVERBS:
        before -= 1
    pronoun = words[before].low if before >= 0 else ""
    if pronoun in ("i", "we", "they") and low.endswith("ed"):
        return ((low[:-2], "past"), (low[:-2], "participle"))
    if pronoun in ("i", "we", "they") or pronoun in MODALS or pronoun in DO:
        return ((low, "base"),)
    if pronoun in ("he", "she") and low.endswith("s") and len(low) > 3:
        return ((low[:-1], "third"),)
    return ()


def _guessed(low: str) -> tuple[Form, ...]:
    """What an unknown word may be: "moored" → a past form. Its plain form is a guess."""
    if len(low) < 5 or (low[-3:] in ("eed", "red") and low[-4:] != "ired"):
        return ()
    if low.endswith("ied"):
        return ((low[:-3] + "y", "past"), (low[:-3] + "y", "participle"))
    if low.endswith("ed"):
        root = low[:-2]
        if re.search(r"([bdgmnprt])\1$", root):
            root = root[:-1]
        elif re.search(r"(?:[aeiou][vczgus]|[^aeiou]l|[cs]iz|[aiu]t|rg|nc|rs|ns)$", root):
            root += "e"
        return ((root, "past"), (root, "participle"))
    return ()
