"""Questions and short answers out of a person's notes, by rules of English grammar.

Pure text; knows neither models nor the store. What the rules cannot read gives no question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from acclimate.adapters.grammar import belongs, stem
from acclimate.adapters.questions.asking import asked
from acclimate.adapters.questions.clauses import clauses
from acclimate.adapters.questions.echo import echoes
from acclimate.adapters.questions.fragments import verbless
from acclimate.adapters.questions.keyed import keyed
from acclimate.adapters.questions.memory import Memory, Read, persons_of
from acclimate.adapters.questions.notes import Line, lines
from acclimate.adapters.questions.scene import Candidate, Scene, tidy
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import tokens

WORTH = 0.5  # from here on a pair is worth learning


MOST_WORTH_OF_SENTENCE = 3


WORDS_PER_WORTH = 12.5  # a note has at most one pair that is worth learning for so many words


# Of a line that gives no pair of at least this weight an echo is asked; it weighs as little, and
# less than the other bound.
ENOUGH = WORTH - 0.06
ECHOED = ENOUGH + 0.02


WORDS_PER_ECHO = 20  # a note has at most one for so many words, and two in any case


@dataclass(frozen=True)
class Asked:
    """A question in the writer's first person, and its answer out of the note."""

    question: str
    answer: str  # a span of the note, on one line
    sentence: str  # the sentence or line that says so
    start: int  # its offset in the text
    weight: float  # how much worth learning, 0 to 1


def questions(text: str, most: int = 40) -> list[Asked]:
    """At most `most` questions that the note answers, the ones most worth learning first.

    Never raises; the same for the same text; takes time in proportion to its length.
    """
    common = frozenset(re.findall(r"(?<![\w'’])[a-z]{3,}", text))
    read = [_read(text, line, common) for line in lines(text)]
    persons = persons_of(read)
    found: list[Asked] = []
    echoed: list[Asked] = []
    for line, candidates in _asked(text, read, persons):
        pairs = _best(text, line, candidates)
        found += pairs
        if all(pair.weight < ENOUGH for pair in pairs):
            echoed += _best(text, line, _echoes(text, line, common, persons))
    size = len(text.split())
    echoed = sorted(echoed, key=lambda pair: -pair.weight)[: max(2, size // WORDS_PER_ECHO)]
    return _spread(_unique([*found, *echoed]), size)[:most]


def _echoes(
    text: str, line: Line, common: frozenset[str], persons: frozenset[str]
) -> list[Candidate]:
    """The echo questions of a line, its key included; all of about the same weight."""
    scene = Scene(text, {}, persons, dated=_is_dated(line.headings))
    words = tokens(text, _start(text, line), line.start + len(line.text), common)
    return [replace(c, weight=ENOUGH + c.weight / 20) for c in echoes(words, line, scene)]


def _read(text: str, line: Line, common: frozenset[str]) -> Read:
    end = line.start + len(line.text)
    words = tokens(text, line.start, end, common)
    if line.key and not line.column and _is_clause(line.key):
        start = line.start + len(line.text) - len(line.whole)
        line = replace(line, text=line.whole, start=start, key="", whole="")
        words = tokens(text, start, end, common)
    said = [] if line.asks or line.column else clauses(words)
    return Read(line, words, said)


def _is_clause(key: str) -> bool:
    """Whether what stands before a colon or dash is a sentence of its own."""
    words = tokens(key, 0, len(key))
    if words and words[0].tag == "B":
        return False
    return any(w.tag == "X" for w in words) or any(
        c.subject is not None and c.parts and c.subject.words[0] is words[0] for c in clauses(words)
    )


def _asked(
    text: str, read: list[Read], persons: frozenset[str]
) -> Iterator[tuple[Line, list[Candidate]]]:
    """Each line with what it answers."""
    memory = Memory(persons)
    for each in read:
        line = each.line
        memory.enter(line)
        if line.key and each.clauses and not line.column:
            first = each.clauses[0].subject
            memory.name(
                line.key, named=first is None and re.fullmatch(r"[A-Z]\w+", line.key) is not None
            )
        scene = Scene(text, memory.meant, persons, dated=_is_dated(line.headings))
        out: list[Candidate] = []
        for clause in each.clauses:
            if line.key and clause.front and clause.subject is not None:
                clause = replace(clause, parts=clause.parts[clause.front :], front=0)
            here = replace(scene, meant=memory.for_clause(), painted=memory.painted)
            out += asked(clause, here)
            memory.see(clause, here)
        if line.key:
            whole = any(c.subject is not None and c.parts for c in each.clauses)
            lead = next((c.subject for c in each.clauses if c.subject is not None), None)
            if whole and lead is not None and not line.column:
                before = text[line.start : lead.words[0].start].rstrip()
                if not before.endswith((",", ";")):
                    before = _head(line.text)
                if before:
                    out += keyed(replace(line, text=before.rstrip(",; ")), scene)
            if not whole or line.column:
                out = [*keyed(line, scene)]
        elif not any(c.parts for c in each.clauses) and each.words and not line.leads:
            out += verbless(each.words, line, scene)
        yield line, [replace(c, weight=c.weight * _tasks(line)) for c in out]


def _head(value: str) -> str:
    """What stands before the first comma or bracket, where it is no sentence: "Dr Obi, who …"."""
    head = re.split(r"\s*(?:[,;(]|\s[-–—]\s)", value, maxsplit=1)[0]
    words = tokens(head, 0, len(head))
    if head == value or any(w.tag in ("X", "S") or w.can("third") for w in words):
        return ""
    return "" if any(c.subject is not None for c in clauses(words)) else head


def _is_dated(headings: tuple[str, ...]) -> bool:
    """Whether a day's date stands above: what is told happened once."""
    for heading in headings:
        words = tokens(heading[:80], 0, min(len(heading), 80))
        if any(belongs(w.low, "day") for w in words) or time_end(words, 0) > 1:
            return True
    return False


def _tasks(line: Line) -> float:
    words = re.findall(r"[a-z-]+", " ".join(line.headings).lower())
    return 0.9 if any(belongs(word, "task") for word in words) else 1.0


def _best(text: str, line: Line, candidates: list[Candidate]) -> list[Asked]:
    """The candidates as pairs; at most three of a sentence, of different answers, stay worth it."""
    out: list[Asked] = []
    worth: list[tuple[int, int]] = []
    start = _start(text, line)
    for each in sorted(candidates, key=lambda c: (-c.weight, c.start, c.question)):
        answer = _answer(text, each.start, each.end)
        if not answer or says_itself(each.question, answer):
            continue
        weight = each.weight
        if weight >= WORTH:
            if len(worth) >= MOST_WORTH_OF_SENTENCE or (each.start, each.end) in worth:
                weight = WORTH - 0.01
            else:
                worth.append((each.start, each.end))
        out.append(Asked(each.question, answer, line.whole or line.text, start, round(weight, 3)))
    return out


def _start(text: str, line: Line) -> int:
    """Where the line begins in the note, its key included."""
    start = line.start + len(line.text) - len(line.whole) if line.whole else line.start
    if line.column or (line.whole and text[start : line.start + len(line.text)] != line.whole):
        start = max(0, text.find(line.whole, max(0, line.start - len(line.whole))))
    return start


def _answer(text: str, start: int, end: int) -> str:
    """The span on one line; of one with marks of emphasis inside its longest part without."""
    part = max(re.split(r"[*_`]+", text[start:end]), key=len)
    return re.sub(r"\s+", " ", part).strip(' ,;:."“”')


def says_itself(question: str, answer: str) -> bool:
    """Whether the question already holds what the answer says."""
    asked_words = {stem(w) for w in re.findall(r"\w+", question.lower())}
    new = [w for w in re.findall(r"\w+", answer.lower()) if stem(w) not in asked_words]
    return not [w for w in new if w not in ("the", "a", "an", "my", "our", "in", "on", "at", "of")]


def _unique(found: list[Asked]) -> list[Asked]:
    """One pair for each question: of two answers the later, for that is what holds now."""
    kept: dict[str, Asked] = {}
    for pair in found:
        key = tidy(re.sub(r"[^\w ]+", "", pair.question.lower()))
        before = kept.get(key)
        if before is not None and before.sentence == pair.sentence and before.weight >= pair.weight:
            continue
        kept[key] = pair
    return sorted(kept.values(), key=lambda p: (-p.weight, p.start, p.question))


def _spread(pairs: list[Asked], words: int) -> list[Asked]:
    """With no more pairs worth learning than a note of that length should have."""
    most = max(4, int(words / WORDS_PER_WORTH))
    return [
        replace(pair, weight=WORTH - 0.01) if n >= most and pair.weight >= WORTH else pair
        for n, pair in enumerate(pairs)
    ]
