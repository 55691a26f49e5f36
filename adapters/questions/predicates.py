"""Verbs of a clause and the parts that follow them.

Pure text. A shallow reading by agreement and prepositions; what it cannot read it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.phrases import Phrase, core, finite, name_end, phrase
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import BE, DO, HAVE, MODALS, NEGATIONS, PLACES, Token

_PARTICLES = frozenset("up out off down away back over on in round".split())


_APART = frozenset("up out off away back".split())
_ENDS = ("the end", "the meantime", "the way", "the whole", "the moment")
_IDIOMS = frozenset("once least last first all fact general case love purpose time".split())


_INTRANSITIVE = frozenset(
    "start stop arrive work happen appear die fail sleep live stay open close end last help ring "
    "look stand hang lie fall rise sit stick leak run come go".split()
)


_CHAINED = frozenset(
    "want plan hope need like love hate start begin stop try learn have go intend mean promise "
    "decide prefer enjoy keep use continue give teach ask help finish spend".split()
)


ASSERTING = frozenset("because although though so whereas since".split())


DEPENDENT = frozenset(
    "when whenever while if unless until till once where how why what before after as whether "
    "wherever whatever than lest".split()
)


@dataclass(frozen=True)
class Part:
    """What follows the verb: kind is object, complement, place, time or with (any preposition)."""

    kind: str
    phrase: Phrase
    prep: str = ""
    words: tuple[Token, ...] = ()  # with the preposition


@dataclass(frozen=True)
class Clause:
    """One statement. `first` is the verb that moves to the front in a question, "" if do must."""

    subject: Phrase | None  # None: the writer, not said
    first: str
    middle: tuple[str, ...]  # verbs after `first`: "been moved", "swimming"
    base: str  # plain form of the main verb
    tense: str  # present, past, perfect, future, modal, former
    parts: tuple[Part, ...] = ()
    adverbs: tuple[str, ...] = ()
    passive: bool = False
    negative: bool = False
    there: bool = False  # "There is a key under the pot"
    changed: bool = False  # says what is so from now on
    dependent: bool = False
    front: int = 0  # how many of the parts stood before the subject
    inside: Relative | None = None  # what its subject says: "The place where I swim is …"
    after: Relative | None = None  # what its complement says: "Pascoe is the garage that …"


@dataclass(frozen=True)
class Relative:
    """A noun and the clause that says which one: "the sweets that I keep in my toolbox"."""

    noun: Phrase
    pronoun: str  # who, which, that, where; "" where it is left out
    clause: Clause
    own: bool  # the noun is the clause's subject
    end: int


def closing(words: Sequence[Token], n: int) -> int:
    for at in range(n, len(words)):
        if words[at].tag == ")":
            return at + 1
    return n + 1


def part_at(words: Sequence[Token], n: int) -> tuple[Part | None, int]:
    """One phrase with or without a preposition, and where it ends."""
    token = words[n]
    end = time_end(words, n)
    if end > n:
        inside = tuple(words[n:end])
        prep = inside[0].low if inside[0].tag == "P" else ""
        body = inside[1:] if prep else inside
        return Part("time", Phrase(body or inside, (body or inside)[-1], end), prep, inside), end
    if token.tag == "P":
        inner = phrase(words, n + 1, subject=False)
        if (
            inner is None
            and token.low == "from"
            and words[n + 1 : n + 2]
            and words[n + 1].tag == "P"
        ):  # "from under the bed"
            inner = phrase(words, n + 2, subject=False)
        if inner is None or inner.head.low in ("i", "he", "she", "we", "they", "who"):
            return None, n + 1
        inner = _apposed(words, inner)
        kind = "place" if token.low in PLACES else "with"
        if (inner.head.low in _IDIOMS and len(inner.words) == 1) or inner.low in _ENDS:
            return None, inner.end
        abstract = belongs(inner.head.low, "abstract") and inner.head.tag != "N"
        if abstract and inner.words[0].low not in ("the", "my", "our"):
            kind = "with"
        return Part(kind, inner, token.low, tuple(words[n : inner.end])), inner.end
    inner = phrase(words, n, subject=False)
    if inner is None:
        return None, n + 1
    inner = _apposed(words, inner)
    return Part("object", inner, "", tuple(words[n : inner.end])), inner.end


def _apposed(words: Sequence[Token], found: Phrase) -> Phrase:
    """ "a lurcher, Pim" and "Pim, a lurcher": with the phrase after the comma."""
    at = found.end
    if found.joined or found.name or at + 1 >= len(words) or words[at].tag != ",":
        return found
    if time_end(words, at + 1) > at + 1 or found.head.tag in ("S", "O"):
        return found
    inner = core(words, at + 1, False)
    if inner is None or inner.head.tag in ("S", "O"):
        return found
    if inner.end < len(words) and words[inner.end].tag not in (",", ".", ";", "C", "-", "!", "P"):
        return found
    names = all(w.tag == "N" for w in inner.words)
    ours = all(w.tag == "N" for w in found.words)
    if names and found.words[0].tag in ("D", "#") and found.words[-1].tag == "w":
        inner = phrase(words, at + 1, subject=False) or inner
        if all(w.tag in ("N", "C", ",") for w in inner.words):
            return replace(found, name=inner.words, end=inner.end)
    titled = inner.words[0].low == "the" and len(inner.words) > 1
    if titled and found.words[0].tag == "D" and all(w.tag == "N" for w in inner.words[1:]):
        return replace(found, name=inner.words, end=inner.end)  # "a band, the Silver Otters"
    if ours and inner.words[0].low in ("my", "our", "a", "an", "the", "his", "her"):
        return replace(found, other=inner.words, end=inner.end)
    return found


def predicate(
    words: Sequence[Token],
    n: int,
    subject: Phrase | None,
    front: list[Part],
    *,
    first: str = "",
    within: bool = False,
) -> tuple[Clause, int]:
    """The clause whose verbs begin at n, and where it ends.

    `first`: a verb that an earlier clause lends: "I have given up sugar and taken up fencing".
    `within`: it stands inside of another clause, whose verb may follow.
    """
    middle: list[str] = []
    adverbs: list[str] = []
    negative = False
    at = n
    while at < len(words):
        token = words[at]
        if token.low in NEGATIONS:
            negative = True
            if token.low == "never":
                adverbs.append(token.low)
        elif token.tag == "A":
            adverbs.append(token.low)
        elif first in BE and token.low == "going" and _is_future(words, at):
            middle += ["going", "to"]
            at += 1
        elif token.tag in ("X", "'"):
            negative = negative or token.low.endswith("n't") or token.low == "cannot"
            if not first:
                first = token.low
            else:
                middle.append(token.low)
        else:
            break
        at += 1
    main = words[at] if at < len(words) else None
    agent = subject is not None and (
        subject.head.low in ("he", "she", "nobody", "everybody", "everyone", "who")
        or subject.head.tag == "N"
    )
    first = _full(first, main, agent)
    base, tense, passive = "", "present", False
    last = (middle or [first])[-1]
    tense = _tense(first)
    if main is not None and main.verb and main.tag == "w":
        base, passive, shown = _main(main, last, subject)
        if base:
            if shown:
                middle.append(shown)
            if not first:
                tense = "past" if main.can("past") and not _agrees(main, subject) else "present"
            at += 1
    if not base:
        base = "be" if last in BE or last in ("be", "been") else "have" if last in HAVE else "do"
        if base == "have" and first in HAVE and not middle:
            tense = "past" if first == "had" else "present"
    if base == "use" and words[at : at + 1] and words[at].low == "to" and tense == "past":
        tense = "former"
    if middle[:2] == ["going", "to"]:
        tense = "future"
    at, chain = _chain(words, at, base)
    middle += chain
    parts, at = _parts(words, at, base, passive, within)
    changed = False
    if subject is not None and main is not None and not first and tense == "past":
        done = main.can("participle") and base not in _INTRANSITIVE
        done = done and not any(p.kind in ("object", "infinitive") for p in parts)
        bare = subject.words[0].tag == subject.head.tag == "w"
        if done and bare and not belongs(subject.head.low, "kin", "role"):
            first, passive = "were" if subject.plural else "was", True  # "boots resoled"
            middle.insert(0, main.low)
    if negative and parts and words[at : at + 1] and words[at].low == "but":
        other, end = _parts(words, at + 1, base)
        same = [p for p in parts if other and p.kind != other[0].kind]
        if other and len(same) < len(parts) and not finite(words, end, other[-1].phrase):
            parts, at, negative, changed = [*same, *other], end, False, True
    clause = Clause(
        subject, first, tuple(middle), base, tense, (*front, *parts), tuple(adverbs), passive,
        negative, front=len(front), changed=changed,
    )  # fmt: skip
    return clause, at


def _is_future(words: Sequence[Token], at: int) -> bool:
    """ "going to be painted", "going to sell", not "going to the market"."""
    after = words[at + 2] if at + 2 < len(words) and words[at + 1].low == "to" else None
    return after is not None and (after.low == "be" or (after.tag == "w" and after.can("base")))


def _full(first: str, main: Token | None, person: bool) -> str:
    """The verb behind a short form."""
    plain = {"'m": "am", "'re": "are", "'ve": "have", "'ll": "will"}
    if first == "'s":
        if main is None or not main.can("participle"):
            return "is"
        return "has" if person or main.low in ("got", "been", "had") else "is"
    if first == "'d":
        return "would" if main is None or main.can("base") else "had"
    return plain.get(first, first)


def _tense(first: str) -> str:
    if first in BE:
        return BE[first]
    if first in HAVE:
        return "perfect" if first != "had" else "past"
    if first in ("will", "shall", "won't"):
        return "future"
    if first in MODALS:
        return "modal"
    return "past" if first in ("did", "didn't") else "present"


def _agrees(main: Token, subject: Phrase | None) -> bool:
    if subject is None or not main.can("base"):
        return False
    return subject.head.low in ("i", "we", "you", "they") or subject.plural


def _main(main: Token, last: str, subject: Phrase | None) -> tuple[str, bool, str]:
    """Plain form of the main verb, whether it is passive, and its form after other verbs."""

    def form(*kinds: str) -> str:
        return next((base for base, kind in main.verb if kind in kinds), "")

    if last in BE or last in ("be", "been", "being"):
        if form("ing"):
            return form("ing"), False, main.low
        if form("participle") and (not form("base") or main.low in ("set", "put", "cut")):
            return form("participle"), True, main.low
        return "", False, ""
    if last in HAVE:
        base = form("participle", "past")
        return base, False, main.low if base else ""
    if last in MODALS or last in DO or last in ("will", "shall", "to"):
        return form("base"), False, main.low if form("base") and last not in DO else ""
    if subject is not None and not _agrees(main, subject) and form("third"):
        return form("third"), False, ""
    if _agrees(main, subject):
        return form("base"), False, ""
    return form("past", "third", "base"), False, ""


def _chain(words: Sequence[Token], at: int, base: str) -> tuple[int, list[str]]:
    """Verbs and particles that hang on: "want to learn", "go swimming", "get up"."""
    chain: list[str] = []
    for _ in range(3):
        following = words[at + 1] if at + 1 < len(words) else None
        if at >= len(words):
            break
        token = words[at]
        if (
            token.low == "to"
            and following is not None
            and (following.can("base") or following.low == "be")
            and (following.tag == "w" or following.low in ("have", "do", "be"))
        ):
            chain += ["to", following.low]
            at += 2
        elif (base == "get" and token.low in ("married", "divorced", "engaged", "dressed")) or (
            token.can("ing") and base in _CHAINED and not chain and token.tag == "w"
        ):
            chain.append(token.low)
            at += 1
        elif token.low in _PARTICLES and base != "be" and (
            following is None or following.tag in (",", ".", "P", "C", "A")
            or (token.low in _APART and time_end(words, at + 1) > at + 1)
            or (token.low in ("up", "away") and following.tag in ("D", "N"))
            or (belongs(base, "phrasal") and not chain and following.tag in ("D", "N", "w", "#"))
        ):  # fmt: skip
            if time_end(words, at) > at:
                break
            chain.append(token.low)
            at += 1
        else:
            break
    return at, chain


_DAYS = frozenset("day time month year hour week".split())
_NAMING = frozenset("name call christen nickname".split())


def _parts(
    words: Sequence[Token], at: int, base: str, passive: bool = False, within: bool = False
) -> tuple[list[Part], int]:
    parts: list[Part] = []
    while at < len(words) and len(parts) < 7:
        token = words[at]
        if token.tag == "(":
            at = closing(words, at)
            continue
        if token.low in ("best", "most") and base in ("like", "love", "enjoy"):
            alone = Phrase((token,), token, at + 1)
            parts.append(Part("infinitive", alone, "", (token,)))  # stays in the question
            at += 1
            continue
        if token.tag == "A" and time_end(words, at) == at:
            at += 1
            continue
        if token.tag == ",":
            if not _goes_on(words, at + 1, parts):
                break
            at += 1
            continue
        if token.low in ("that", "who", "which", "whose", "whom") and parts:
            break
        if token.low == "that" and belongs(base, "feeling", "speech") and _says(words, at + 1):
            break
        if token.low in DEPENDENT and not time_end(words, at) > at:
            if token.tag != "P" or token.low == "than":
                break
        elif token.low in ASSERTING and time_end(words, at) == at:
            break
        if [w.low for w in words[at : at + 2]] in (["these", "days"], ["all", "over"]):
            at += 2
            continue
        if token.low in ("any", "anymore") and [w.low for w in words[at : at + 2]] == [
            "any",
            "more",
        ]:
            at += 2
            continue
        around = [w.low for w in words[at : at + 4]]
        if len(around) == 4 and around[0::2] == ["from", "to"] and around[1] == around[3]:
            at += 4  # "from end to end"
            continue
        if token.low == "to" and at + 1 < len(words) and words[at + 1].can("base") and parts:
            end = _infinitive_end(words, at + 2)
            inside = tuple(words[at:end])
            parts.append(Part("infinitive", Phrase(inside, inside[-1], end), "", inside))
            at = end
            continue
        if token.tag == "C":
            if token.low == "and" and _goes_on(words, at + 1, parts):
                at += 1
                continue
            break
        if not (token.tag.isalnum() or token.tag == "#") or token.tag in ("S", "X", "'", "B"):
            break
        if token.tag == "w" and token.verb and not token.can("base") and parts:
            if token.can("participle") and not token.can("ing"):
                at += 1  # "a boat painted blue": read as a complement of it
                continue
            break
        part, end = part_at(words, at)
        if base in _NAMING and token.low in ("her", "his") and part:
            part, end = Part("object", Phrase((token,), token, at + 1), "", (token,)), at + 1
        if base in _NAMING and (passive or parts) and (name := name_end(words, at)) > at:
            inside = tuple(words[at:name])
            part, end = Part("complement", Phrase(inside, inside[-1], name), "", inside), name
        day = part is not None and part.kind == "time" and part.words[-1].low in _DAYS
        if part is not None and day and base == "be" and not parts and token.low == "the":
            part = replace(part, kind="complement")  # "Tuesday is the day I go to the baths"
        if part is not None:
            objects = [p for p in parts if p.kind in ("object", "complement")]
            if (
                (part.kind == "object" and base in ("be", "become", "remain") and not objects)
                or (part.kind == "object" and base in _NAMING and (objects or passive))
                or (part.kind == "object" and base in ("paint", "dye") and passive and not objects)
            ):
                part = replace(part, kind="complement")
            elif part.kind == "object" and not within and finite(words, end, part.phrase):
                break  # "and the hens lay": another statement
            parts.append(part)
        at = max(end, at + 1)
    return parts, at


def _says(words: Sequence[Token], at: int) -> bool:
    """Whether a statement stands there: "I know that my sister lives in Oban"."""
    found = phrase(words, at, subject=True) if at < len(words) else None
    return found is not None and finite(words, found.end, found)


def _infinitive_end(words: Sequence[Token], at: int) -> int:
    inner = phrase(words, at, subject=False)
    at = at if inner is None or inner.head.tag == "S" else inner.end
    if at < len(words) and words[at].tag == "P" and time_end(words, at) == at:
        inner = phrase(words, at + 1, subject=False)
        at = at if inner is None else inner.end
    return at


def _goes_on(words: Sequence[Token], at: int, parts: list[Part]) -> bool:
    """Whether after a comma or "and" comes a time or place of the same statement."""
    if at >= len(words) or not parts:
        return False
    if time_end(words, at) > at:
        end = time_end(words, at)
        while end < len(words) and words[end].tag == ",":
            end += 1
        return end >= len(words) or words[end].tag != "S"
    return words[at].tag == "P" and words[at].low not in ("since", "as", "like", "than")
