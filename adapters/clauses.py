"""A sentence's clauses: who, does what, and the parts that say whom, what, where and when.

Pure text. A shallow reading by agreement of subject and verb; what it cannot read it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from acclimate.adapters.grammar import belongs
from acclimate.adapters.phrases import Phrase, core, finite, phrase
from acclimate.adapters.words import BE, DO, HAVE, MODALS, NEGATIONS, PLACES, Token, time_end

_ASSERTING = frozenset("because although though so whereas since".split())


_DEPENDENT = frozenset(
    "when whenever while if unless until till once where how why what before after as whether "
    "wherever whatever than lest".split()
)


_PARTICLES = frozenset("up out off down away back over on in round".split())


_IDIOMS = frozenset("once least last first all fact general case love purpose time".split())


_INTRANSITIVE = frozenset(
    "start stop arrive work happen appear die fail sleep live stay open close end last help ring "
    "look stand hang lie fall rise sit stick leak run come go".split()
)


_CHAINED = frozenset(
    "want plan hope need like love hate start begin stop try learn have go intend mean promise "
    "decide prefer enjoy keep use continue give teach ask help finish spend".split()
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


_UNKNOWN = Phrase((Token("it", 0, 0, "S"),), Token("it", 0, 0, "S"), 0)


@dataclass
class _Reading:
    words: Sequence[Token]
    out: list[Clause] = field(default_factory=list)
    inside: Relative | None = None  # of the subject read last


def clauses(words: Sequence[Token]) -> list[Clause]:
    """The statements of one sentence in their order. Linear, for sentences of bounded length."""
    reading = _Reading(words)
    n, carried, fresh = 0, None, True
    front: list[Part] = []
    changed = False
    while n < len(words):
        token = words[n]
        low = token.low
        found = _subject(reading, n + 1) if low in _DEPENDENT and time_end(words, n) == n else None
        if found is not None:
            clause, end = _predicate(words, found.end, found, [])
            reading.out.append(replace(clause, dependent=True))
            n = max(end, n + 1)
            continue
        after = words[n + 1].tag if n + 1 < len(words) else ""
        said = reading.out and belongs(reading.out[-1].base, "feeling", "speech")
        noun = n > 0 and (words[n - 1].tag in (",", "N") or (words[n - 1].tag == "w" and not said))
        found = _subject(reading, n + 1) if low == "that" and noun and not said else None
        if found is not None:  # "the plate that I have walked past": which one, no statement
            clause, end = _predicate(words, found.end, found, [])
            n = max(end, n + 1)
            continue
        if low == "that" and n and after in ("D", "S", "N") and _subject(reading, n + 1):
            carried, front, n = None, [], n + 1
            continue
        if low in ("who", "which", "that") and n and finite(words, n + 1, None):
            found = _before(reading, n)
            clause, end = _predicate(words, n + 1, found or _UNKNOWN, [])
            if found is not None:
                reading.out.append(clause)
            n = max(end, n + 1)
            continue
        if token.tag == "(":
            n = _closing(words, n)
            continue
        if (skip := _from_now(words, n)) > n:
            changed, n = True, skip
            continue
        marks = not (token.tag.isalnum() or token.tag == "#")
        timed = time_end(words, n) > n
        if (token.tag in ("A", "C", "B") or low in _ASSERTING or marks) and not timed:
            if low in ("now", "nowadays", "instead"):
                changed = True
            if token.tag in (";", ":", "."):
                carried, front = None, []
            fresh = fresh and token.tag == "A"
            n += 1
            if not (low == "there" and n < len(words) and _is_be(words[n])):
                continue
            clause, n = _predicate(words, n, None, front)
            reading.out.append(replace(clause, there=True, changed=changed))
            carried, front, fresh = None, [], False
            continue
        subject = _subject(reading, n)
        if subject is not None:
            inside = reading.inside
            clause, end = _predicate(words, subject.end, subject, front)
            if inside is not None and inside.end == subject.end:
                clause = replace(clause, inside=inside)
            carried = subject
        elif fresh and _drops_subject(words, n):
            clause, end = _predicate(words, n, None, front)
            carried = None
        elif (
            not fresh
            and reading.out
            and finite(words, n, carried)
            and (carried is not None or (reading.out[-1].subject is None and token.can("past")))
        ):
            clause, end = _predicate(words, n, carried, front)
        elif (
            not fresh and reading.out and words[n - 1].tag == "C"
            and token.can("participle") and reading.out[-1].first in (*HAVE, "is", "are", "was", "were")
        ):  # fmt: skip
            lent = reading.out[-1].first
            clause, end = _predicate(words, n, carried, front, first=lent)
        elif (turned := _turned(words, n, front)) is not None:
            clause, end = turned
        else:
            part, end = _part(words, n)
            if part is not None and _opens(words, end, part):
                front.append(part)
                n = end
                continue
            n = max(_boundary(words, n), n + 1)
            front, fresh = [], False
            continue
        reading.out.append(
            replace(clause, changed=changed or clause.changed or "now" in clause.adverbs)
        )
        front, fresh, changed = [], False, False
        n = max(end, n + 1)
    return reading.out


def _before(reading: _Reading, n: int) -> Phrase | None:
    """The phrase that a "who" or "which" after a comma means."""
    if not reading.out or not reading.out[-1].parts:
        return None
    words, last = reading.words, reading.out[-1].parts[-1]
    here = n - 1 if words[n - 1].tag == "," else n
    sure = words[n - 1].tag == "," and last.kind != "time" and last.phrase.end == here
    return last.phrase if sure and last.phrase.head.tag in ("N", "w") else None


def _turned(words: Sequence[Token], n: int, front: list[Part]) -> tuple[Clause, int] | None:
    """ "In the hall hangs a map": the verb before its subject."""
    token = words[n]
    base = next((b for b, kind in token.verb if kind in ("third", "past", "base")), "")
    if not front or front[-1].kind != "place" or base not in _STANDING:
        return None
    found = phrase(words, n + 1, subject=False)
    if found is None or found.head.tag in ("S", "O"):
        return None
    tense = "past" if token.can("past") and not token.can("base", "third") else "present"
    return Clause(found, "", (), base, tense, tuple(front), front=len(front)), found.end


_STANDING = frozenset("hang stand lie live sit sleep grow hide come".split())


def _from_now(words: Sequence[Token], n: int) -> int:
    """After "from now on", "as of Monday", "these days", which say that a change holds."""
    low = [w.low for w in words[n : n + 3]]
    if low == ["from", "now", "on"]:
        return n + 3
    if low[:2] in (["these", "days"], ["no", "longer"], ["not", "anymore"]):
        return n + 2 if low[0] == "these" else n
    if low[:1] in (["from"], ["as"]) and n == 0:
        end = time_end(words, n + (2 if low[:2] == ["as", "of"] else 0))
        if low[:2] == ["as", "of"] and end > n + 2:
            return end
        if low[0] == "from" and end > n and words[end : end + 1] and words[end].low == "on":
            return end + 1
    return n


def _closing(words: Sequence[Token], n: int) -> int:
    for at in range(n, len(words)):
        if words[at].tag == ")":
            return at + 1
    return n + 1


def _boundary(words: Sequence[Token], n: int) -> int:
    """The next place where another statement may begin."""
    for at in range(n + 1, len(words)):
        if words[at].tag in (",", ";", ":", "-", "C", "(", ")", ".", "?", "!", "S", '"', "“", "”"):
            return at
        if words[at].low in _ASSERTING or (words[at].low in _DEPENDENT and words[at].tag != "P"):
            return at
    return len(words)


def _opens(words: Sequence[Token], end: int, part: Part) -> bool:
    """Whether a phrase before the subject: a time, or a place before a comma or a subject."""
    while end < len(words) and (words[end].tag in (",", "A")):
        end += 1
    if end >= len(words) or part.kind == "object":
        return False
    if part.kind == "place" and any(b in _STANDING for b, _ in words[end].verb):
        return True
    return words[end].tag in ("S", "D", "N", "w", "P")


def _is_be(token: Token) -> bool:
    return token.low in BE or token.tag == "'" or token.low in ("will", "has", "have", "used")


def _drops_subject(words: Sequence[Token], n: int) -> bool:
    """ "Bought a bike", "Have moved", "Am learning": diary style, the writer is meant."""
    token = words[n]
    if token.low in ("am", "have", "had", "was", "'ve") and n + 1 < len(words):
        following = words[n + 1]
        return following.can("participle", "ing") or token.low in ("am", "was")
    return token.tag == "w" and token.can("past") and not token.can("base")


def _subject(reading: _Reading, n: int) -> Phrase | None:
    """The subject that begins at n, if a finite verb follows it; its `end` is the verb's place."""
    words = reading.words
    if n >= len(words) or words[n].tag not in ("S", "D", "N", "w", "#", "'"):
        return None
    if words[n].low == "who":
        return None
    found = phrase(words, n, subject=True)
    if found is None:
        return None
    at = found.end
    if at < len(words) and words[at].tag == "(":
        at = _closing(words, at)
    if at < len(words) and words[at].tag == "P" and found.head.tag != "S" and not found.name:
        # "The key to the shed hangs": a phrase that belongs to the subject
        inner = phrase(words, at + 1, subject=True)
        if inner is not None and inner.head.tag != "S" and not finite(words, at, found):
            whole = tuple(words[n : inner.end])
            if words[inner.end : inner.end + 1] and words[inner.end].tag == ",":
                aside = _aside(reading, replace(found, words=whole), inner.end + 1)
                if aside is not None:
                    return aside
            if finite(words, inner.end, replace(found, joined=found.joined)):
                return replace(found, words=whole, end=inner.end)
    relative = _relative(reading, found, at)
    if relative is not None and finite(words, relative.end, found):
        reading.inside = relative
        return replace(found, words=tuple(words[n : relative.end]), end=relative.end)
    if at < len(words) and words[at].tag == ",":
        aside = _aside(reading, found, at + 1)
        if aside is not None:
            return aside
    if finite(words, at, found):
        return replace(found, end=at)
    return None


def _relative(reading: _Reading, noun: Phrase, at: int) -> Relative | None:
    """The clause without commas that says which one the noun is."""
    words = reading.words
    if at >= len(words) or noun.head.tag in ("S", "O"):
        return None
    pronoun = words[at].low if words[at].low in ("who", "that", "which", "where") else ""
    start = at + 1 if pronoun else at
    if not pronoun and words[at].low not in ("i", "we", "he", "she", "they"):
        return None
    subject = _subject(reading, start)
    if subject is not None:
        clause, end = _predicate(words, subject.end, subject, [], within=True)
        return Relative(noun, pronoun, clause, False, end)
    if pronoun in ("who", "that", "which") and finite(words, start, noun):
        clause, end = _predicate(words, start, noun, [], within=True)
        return Relative(noun, pronoun, clause, True, end)
    return None


def _aside(reading: _Reading, found: Phrase, n: int) -> Phrase | None:
    """ "Jana, my sister, lives": the subject with what stands between commas."""
    words = reading.words
    if n < len(words) and words[n].low in ("who", "which"):
        for at in range(n + 1, len(words)):
            if words[at].tag == "," and finite(words, at + 1, found):
                clause, _ = _predicate(words[:at], n + 1, found, [])
                reading.out.append(clause)
                return replace(found, end=at + 1)
        return None
    inner = phrase(words, n, subject=False) if n < len(words) else None
    if inner is None or inner.end >= len(words) or words[inner.end].tag != ",":
        return None
    if inner.head.tag in ("S", "O") or not finite(words, inner.end + 1, found):
        return None
    return _renamed(found, inner, inner.end + 1)


def _renamed(found: Phrase, inner: Phrase, end: int) -> Phrase:
    names = inner.name or inner.words
    if all(w.tag in ("N", "C", "'") for w in inner.words):
        return replace(found, name=inner.words, end=end)
    return replace(found, other=inner.words, name=found.name or (inner.name and names), end=end)


def _part(words: Sequence[Token], n: int) -> tuple[Part | None, int]:
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
        if inner.head.low in _IDIOMS and len(inner.words) == 1:
            return None, inner.end
        if belongs(inner.head.low, "abstract") and inner.words[0].low not in ("the", "my", "our"):
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


def _predicate(
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
        base, passive, shown = _main(main, first, last, subject)
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
    changed, after = False, None
    last_part = parts[-1] if parts else None
    if base == "be" and last_part is not None and last_part.kind == "complement":
        if last_part.phrase.end == at and last_part.words[0].low == "the":
            after = _relative(_Reading(words), last_part.phrase, at)
            at = after.end if after is not None else at
    if subject is not None and not first and main is not None and subject.words[0].tag == "w":
        bare = not any(p.kind in ("object", "infinitive") for p in parts) and tense == "past"
        if bare and main.can("participle") and base not in _INTRANSITIVE:
            if not belongs(subject.head.low, "kin", "role") and subject.head.tag == "w":
                first, passive = "were" if subject.plural else "was", True  # "boots resoled"
                middle.insert(0, main.low)
    if negative and parts and words[at : at + 1] and words[at].low == "but":
        other, end = _parts(words, at + 1, base)
        same = [p for p in parts if other and p.kind != other[0].kind]
        if other and len(same) < len(parts) and not finite(words, end, other[-1].phrase):
            parts, at, negative, changed = [*same, *other], end, False, True
    clause = Clause(
        subject, first, tuple(middle), base, tense, (*front, *parts), tuple(adverbs), passive,
        negative, front=len(front), changed=changed, after=after,
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


def _main(main: Token, first: str, last: str, subject: Phrase | None) -> tuple[str, bool, str]:
    """Plain form of the main verb, whether it is passive, and its form after `first`."""

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
            or (token.low in ("up", "out", "off", "away", "back") and time_end(words, at + 1) > at + 1)
            or (token.low in ("up", "away") and following.tag in ("D", "N"))
            or (belongs(base, "phrasal") and following.tag in ("D", "N", "w", "#"))
        ):  # fmt: skip
            if time_end(words, at) > at:
                break
            chain.append(token.low)
            at += 1
        else:
            break
    return at, chain


_NAMING = frozenset("name call christen nickname".split())


def _parts(
    words: Sequence[Token], at: int, base: str, passive: bool = False, within: bool = False
) -> tuple[list[Part], int]:
    parts: list[Part] = []
    while at < len(words) and len(parts) < 7:
        token = words[at]
        if token.tag == "(":
            at = _closing(words, at)
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
        if token.low in _DEPENDENT and not time_end(words, at) > at:
            if token.tag != "P" or token.low == "than":
                break
        elif token.low in _ASSERTING and time_end(words, at) == at:
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
        part, end = _part(words, at)
        if base in _NAMING and token.low in ("her", "his") and part:
            part, end = Part("object", Phrase((token,), token, at + 1), "", (token,)), at + 1
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
