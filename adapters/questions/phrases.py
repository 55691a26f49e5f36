"""Noun phrases of a sentence, with their names, and whether a verb agrees with one.

Pure text; what a clause does with them is for `clauses` to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import NEGATIONS, Token

_PLURALS = frozenset("people children men women feet teeth mice geese sheep cattle police".split())


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: `words` without its names and appositions, which stand beside it."""

    words: tuple[Token, ...]
    head: Token
    end: int  # index of the token after it, names and all
    name: tuple[Token, ...] = ()  # "my sister Jana", "a boat called Merrow", "our vet, Dr Obi"
    other: tuple[Token, ...] = ()  # "Jana, my sister,"
    joined: bool = False  # "Jana and Bo"

    @property
    def low(self) -> str:
        return " ".join(w.low for w in self.words)

    @property
    def plural(self) -> bool:
        low = self.head.low
        return (
            self.joined
            or low in ("we", "they", "you", "both", "these", "those", "many")
            or low in _PLURALS
            or (
                (self.head.tag == "w" or self.words[0].low in ("the", "misses"))
                and low.endswith("s")
                and not low.endswith(("ss", "us", "is"))
            )
        )


def finite(words: Sequence[Token], n: int, subject: Phrase | None) -> bool:
    """Whether a finite verb of this subject stands at n, maybe after adverbs."""
    while n < len(words) and (words[n].tag == "A" or words[n].low in NEGATIONS):
        n += 1
    if n >= len(words):
        return False
    token = words[n]
    if token.tag == "X":
        return token.low not in ("be", "been", "being")
    if token.tag == "'":
        return subject is not None and subject.end == n
    kinds = {kind for _, kind in token.verb}
    if "past" in kinds:
        return True
    if subject is None:
        return bool(kinds & {"base"})
    if subject.head.low in ("i", "we", "you", "they"):
        return "base" in kinds
    if subject.plural:
        return "base" in kinds or ("third" in kinds and subject.head.tag == "N")
    if "third" in kinds:
        return True
    odd = token.tag == "w" and token.low.endswith("s") and not token.low.endswith("ss")
    return (
        odd
        and subject.head.tag in ("S", "N")
        and n + 1 < len(words)
        and not kinds
        and (words[n + 1].tag in ("D", "P", "#"))
    )


def phrase(words: Sequence[Token], n: int, *, subject: bool) -> Phrase | None:
    """The noun phrase that begins at n, or None."""
    if n >= len(words):
        return None
    first = words[n]
    if first.tag in ("S", "O"):
        alone = Phrase((first,), first, n + 1)
        return _joined(words, n, alone, subject) if first.low not in ("who",) else alone
    found = core(words, n, subject)
    if found is None:
        return None
    found = _named(words, found)
    return _joined(words, n, found, subject)


def core(words: Sequence[Token], n: int, subject: bool) -> Phrase | None:
    at, head = n, None
    while at < len(words) and words[at].tag == "D":
        at += 1
    determined = at > n
    if determined and (at >= len(words) or words[at].tag not in ("w", "N", "#", "A", '"', "“")):
        head = words[at - 1]  # "this", "some of them"
    while at < len(words) and at - n < 14:
        token = words[at]
        if token.tag in ("#", "N"):
            if token.tag == "N" and _other_name(words, n, at, head):
                break
            after = words[at + 1].low if at + 1 < len(words) else ""
            if token.tag == "#" and head is not None and head.tag == "w" and belongs(after, "unit"):
                break  # "pay the cleaner 18 pounds"
            head = token
        elif token.tag == "w":
            if head is not None and head.tag == "N" and token.low in ("best", "most", "least"):
                break
            if head is not None and token.low in ("last", "next") and time_end(words, at) > at:
                break
            if token.verb and not _is_noun(words, n, at, head, subject):
                break
            if head is not None and not determined and head.low in ("home", "work", "school"):
                break
            head = token
        elif token.tag == "'" and head is not None and _possessive(words, at, subject):
            pass
        elif token.tag == "A" and at + 1 < len(words) and (head is None or determined):
            following = words[at + 1]
            if following.tag not in ("w", "#") or (
                head is not None and not following.can("participle")
            ):
                break
            if head is not None:
                break
        elif token.tag in ('"', "“", "‘") and (end := _quoted(words, at)) > at:
            head = words[end - 2]
            at = end
            continue
        elif token.tag == "," and _adjectives(words, n, at):
            pass
        else:
            break
        at += 1
    if head is None:
        return None
    while at > n and words[at - 1].tag in (",", "A"):
        at -= 1
    if at < len(words) and words[at].low == "of":
        inner = phrase(words, at + 1, subject=subject)
        if inner is not None:
            return Phrase(tuple(words[n : inner.end]), head, inner.end)
    return Phrase(tuple(words[n:at]), head, at)


def _other_name(words: Sequence[Token], n: int, at: int, head: Token | None) -> bool:
    """ "In May Jana came": a month or a day ends before another name."""
    return (
        head is not None
        and at > n
        and belongs(words[at - 1].low, "month", "day")
        and (len(words[at - 1].low) > 4 or words[at - 1].low in ("may", "june", "july"))
        and not belongs(words[at].low, "month", "day")
        and words[n].tag != "D"
    )


def _adjectives(words: Sequence[Token], n: int, at: int) -> bool:
    """ "a big, red dog": a comma between two adjectives before a noun."""
    after = words[at + 1 : at + 3]
    return (
        words[n].low in ("a", "an", "the", "my", "our")
        and at - n == 2
        and len(after) == 2
        and all(w.tag == "w" for w in after)
        and not any(w.verb for w in after)
    )


def _quoted(words: Sequence[Token], at: int) -> int:
    for end in range(at + 2, min(at + 9, len(words))):
        if words[end].tag in ('"', "”", "’"):
            return end + 1
    return at


def _possessive(words: Sequence[Token], at: int, subject: bool) -> bool:
    """Whether 's makes an owner, not "is" or "has"."""
    if at + 1 >= len(words):
        return True
    token = words[at + 1]
    if not subject and token.tag in ("P", "C", ",", ".", ";"):
        return True  # "at Kemble's, on Friday"
    if token.tag in ("D", "P", "S", "X", "C", ","):
        return False
    if subject and _ends_in_colour(words, at + 1):
        return False  # "The front door's pale green."
    if token.tag == "A" or token.low in NEGATIONS:
        return False
    if token.can("participle", "ing") and not token.can("base"):
        return at + 2 < len(words) and words[at + 2].tag in ("w", "N")
    return True


def _ends_in_colour(words: Sequence[Token], at: int) -> bool:
    """Whether nothing but a colour stands there, of one or two words."""
    for end in (at + 1, at + 2):
        if end <= len(words) and belongs(words[end - 1].low, "colour"):
            return end == len(words) or words[end].tag in (",", ".", ";", "!", "C", "(")
    return False


def _is_noun(words: Sequence[Token], n: int, at: int, head: Token | None, subject: bool) -> bool:
    """Whether a word that can be a verb is a noun (or stands before one) here."""
    token = words[at]
    after = words[at + 1] if at + 1 < len(words) else None
    if head is None:
        if at > n:
            return True
        if not subject:
            return not token.can("past") or token.can("base")
        return after is not None and (
            after.tag == "X"
            or after.low == "of"
            or (after.tag == "w" and not token.can("past") and after.can("past", "third"))
            or (
                after.tag == "w"
                and after.text.islower()
                and at + 2 < len(words)
                and not token.can("past")
                and words[at + 2].tag == "X"  # "Rent day has moved"
            )
        )
    if after is not None and (after.low == "of" or after.tag == "'"):
        return True
    if words[at - 1].tag in ("'", "D"):
        return True
    if words[at - 1].tag == "#" and at - 1 == n and token.can("third") and not token.can("past"):
        return True  # "two posts"
    if token.can("ing") and not token.can("base"):
        return after is not None and after.tag == "w" and not after.verb
    if subject and belongs(head.low, "adjective") and not token.can("past"):
        return True
    then = words[at + 2].tag if at + 2 < len(words) else ""
    if subject and after and token.can("third") and after.can("past") and then in ("D", "O"):
        return True  # "with cold hands shut me in"
    if subject:
        here = Phrase(tuple(words[n:at]), head, at)
        if finite(words, at, here):
            return after is not None and after.tag == "X" and after.low not in ("had", "'d")
        return not token.can("past")
    if token.can("past", "participle") and not token.can("base"):
        return False
    third = token.can("third") and after is not None and after.tag in ("D", "O", "S")
    return not third


def _named(words: Sequence[Token], found: Phrase) -> Phrase:
    """With the name that follows: "my sister Jana", "a boat called Merrow"."""
    at = found.end
    if at + 2 < len(words) and words[at].tag == "," and words[at + 1].low in ("called", "named"):
        at += 1
    by_name = [w.low for w in words[at : at + 4]] == ["by", "the", "name", "of"]
    if by_name or (at < len(words) and words[at].low in ("called", "named", "nicknamed")):
        first = at + 4 if by_name else at + 1
        end = name_end(words, first)
        if end > first:
            return replace(found, name=_unquoted(words[first:end]), end=end)
    inside = list(found.words)
    cut = len(inside)
    while cut and inside[cut - 1].tag == "N":
        cut -= 1
    if 0 < cut < len(inside) and inside[cut - 1].tag == "w" and inside[0].tag in ("D", "w", "N"):
        noun = inside[cut - 1]
        plain = noun.text.islower() and not belongs(
            noun.low, "time", "unit", "language", "adjective", "colour"
        )
        if plain and (inside[0].tag == "D" or belongs(noun.low, "kin", "role")):
            return replace(found, words=tuple(inside[:cut]), head=noun, name=tuple(inside[cut:]))
    return found


def name_end(words: Sequence[Token], n: int) -> int:
    if n < len(words) and words[n].tag in ('"', "“", "‘"):
        return max(_quoted(words, n), n)
    at = n
    while at < len(words) and (
        words[at].tag in ("N", "#", "'")
        or (at > n and words[at].tag in ("w", "A") and words[at].text[0].isupper())
        or (words[at].tag in ("C", "P", "D") and at + 1 < len(words) and at > n
            and words[at + 1].tag in ("N", "D") and words[at].low in ("and", "of", "the"))
        or (at == n and words[at].tag in ("w", "D") and words[at].text[0].isupper())
    ):  # fmt: skip
        at += 1
    return at


def _unquoted(words: Sequence[Token]) -> tuple[Token, ...]:
    return tuple(w for w in words if w.tag not in ('"', "“", "”", "‘", "’"))


def _verb_follows(words: Sequence[Token], at: int) -> bool:
    """Whether a verb, not a noun, stands after an "and"."""
    if at >= len(words) or words[at].tag != "w" or not words[at].verb:
        return False
    token = words[at]
    after = words[at + 1].tag if at + 1 < len(words) else ""
    return (
        token.can("past")
        or not token.can("base", "third", "ing")
        or after in ("D", "O", "P", "S", "A")
    )


def _joined(words: Sequence[Token], n: int, found: Phrase, subject: bool) -> Phrase:
    """With what "and" joins to it, unless another statement begins there."""
    at = found.end
    if at >= len(words) or found.head.low in ("i",):
        return found
    if words[at].tag == "," and not subject and not found.name:
        return _listed(words, n, found)
    if words[at].low not in ("and", "&", "or"):
        return found
    if at + 1 >= len(words) or words[at + 1].tag not in (
        "N", "D", "w", "#", "S", "O"
    ) or words[at + 1].low in ("that", "this", "then"):  # fmt: skip
        return found
    if not subject and _verb_follows(words, at + 1):
        return found
    inner = phrase(words, at + 1, subject=subject)
    if inner is None or (
        not subject and (inner.head.tag == "S" or finite(words, inner.end, inner))
    ):
        return found
    then = words[inner.end].tag if inner.end < len(words) else ""
    after_prep = n > 0 and words[n - 1].tag == "P" and not subject
    if after_prep and inner.words[0].tag == "D" and then == "P":
        return found  # "in the basket and the dog on the stairs"
    if found.name and inner.words and all(w.tag == "N" for w in inner.words):
        return replace(found, name=tuple(words[found.end - len(found.name) : inner.end]),
                       end=inner.end, joined=True)  # fmt: skip
    return Phrase(tuple(words[n : inner.end]), found.head, inner.end, joined=True)


def _listed(words: Sequence[Token], n: int, found: Phrase) -> Phrase:
    """ "tea, bread and jam": only lists that end with "and"."""
    at, count = found.end, 1
    while at < len(words) and words[at].tag == "," and count < 6:
        if at + 1 < len(words) and words[at + 1].low in ("and", "or"):
            break
        inner = core(words, at + 1, False)
        if inner is None or inner.head.tag in ("S", "O") or finite(words, inner.end, inner):
            return found
        at, count = inner.end, count + 1
    if at < len(words) and words[at].tag == ",":
        at += 1
    if count < 2 or at >= len(words) or words[at].low not in ("and", "or"):
        return found
    if _verb_follows(words, at + 1) or (words[at + 1 : at + 2] and words[at + 1].low == "that"):
        return found
    inner = core(words, at + 1, False)
    if inner is None or inner.head.tag == "S" or finite(words, inner.end, inner):
        return found
    return Phrase(tuple(words[n : inner.end]), found.head, inner.end, joined=True)
