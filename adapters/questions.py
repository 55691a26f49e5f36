"""Questions and short answers out of a person's notes, by rules of English grammar.

Pure text; knows neither models nor the store. What the rules cannot read gives no question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from acclimate.adapters.asking import asked
from acclimate.adapters.clauses import Clause, clauses
from acclimate.adapters.fragments import keyed, verbless
from acclimate.adapters.grammar import belongs, stem
from acclimate.adapters.notes import Line, lines
from acclimate.adapters.phrases import Phrase
from acclimate.adapters.scene import Candidate, Scene, is_person, tidy
from acclimate.adapters.words import Token, time_end, tokens

WORTH = 0.5  # from here on a pair is worth learning
MOST_WORTH_OF_SENTENCE = 3
WORDS_PER_WORTH = 12.5  # a note has at most one pair that is worth learning for so many words


@dataclass(frozen=True)
class Asked:
    """A question in the writer's first person, and its answer out of the note."""

    question: str
    answer: str  # a span of the note, on one line
    sentence: str  # the sentence or line that says so
    start: int  # its offset in the text
    weight: float  # how much worth learning, 0 to 1


@dataclass
class _Read:
    line: Line
    words: list[Token]
    clauses: list[Clause]


def questions(text: str, most: int = 40) -> list[Asked]:
    """At most `most` questions that the note answers, the ones most worth learning first.

    Never raises; the same for the same text; takes time in proportion to its length.
    """
    common = frozenset(re.findall(r"(?<![\w'’])[a-z]{3,}", text))
    read = [_read(text, line, common) for line in lines(text)]
    persons = _persons(read)
    found: list[Asked] = []
    for sentence, candidates in _asked(text, read, persons):
        found += _best(text, sentence, candidates)
    return _spread(_unique(found), len(text.split()))[:most]


def _read(text: str, line: Line, common: frozenset[str]) -> _Read:
    end = line.start + len(line.text)
    words = tokens(text, line.start, end, common)
    if line.key and not line.column and _is_clause(line.key):
        start = line.start + len(line.text) - len(line.whole)
        line = replace(line, text=line.whole, start=start, key="", whole="")
        words = tokens(text, start, end, common)
    said = [] if line.text.rstrip(')*_"” ').endswith("?") or line.column else clauses(words)
    return _Read(line, words, said)


def _is_clause(key: str) -> bool:
    """Whether what stands before a colon or dash is a sentence of its own."""
    words = tokens(key, 0, len(key))
    if words and words[0].tag == "B":
        return False
    return any(w.tag == "X" for w in words) or any(
        c.subject is not None and c.parts and c.subject.words[0] is words[0] for c in clauses(words)
    )


def _persons(read: list[_Read]) -> frozenset[str]:
    """First words of names that surely mean persons in this note."""
    found: set[str] = set()
    lists: dict[tuple[str, ...], list[str]] = {}
    for each in read:
        if each.line.key:
            lists.setdefault(each.line.headings, []).append(each.line.key)
        for one, comma, who in zip(each.words, each.words[1:], each.words[2:], strict=False):
            if one.tag == "N" and comma.tag == "," and who.low in ("who", "whose"):
                found.add(one.low)
        for clause in each.clauses:
            for phrase in [clause.subject, *(p.phrase for p in clause.parts)]:
                if phrase is None:
                    continue
                if phrase.name and belongs(phrase.head.low, "kin", "role"):
                    found.add(phrase.name[0].low)
                if phrase.other and any(belongs(w.low, "kin", "role") for w in phrase.other):
                    found.add(phrase.words[0].low)
            subject = clause.subject
            if subject is None or subject.head.tag != "N" or subject.words[0].tag != "N":
                continue
            human = clause.base in _HUMAN or belongs(clause.base, "feeling")
            if human and not any(w.tag == "'" for w in subject.words):
                found.add(subject.words[0].low)
    for heading in {h for each in read for h in each.line.headings}:
        named = re.match(r"([A-Z][a-z'’-]+[a-rt-z]):", heading)
        if named and any(w.low in ("he", "she", "her") for each in read for w in each.words):
            found.add(named[1].lower())
    for keys in lists.values():  # one "Dad" in a list of names makes the others persons
        firsts = [key.split()[0].lower() for key in keys]
        sure = sum(belongs(f, "home_kin", "title") or f in found for f in firsts)
        if sure and 8 * sure >= len(keys) > 1:
            found |= {k.lower() for k in keys if re.fullmatch(r"[A-Z][a-z]{2,}", k)}
    return frozenset(found)


_HUMAN = frozenset(
    "say ask tell give bring want like love hate prefer drink eat cook teach write ring phone "
    "visit marry study promise think believe lend borrow buy sell read wear retire laugh sit "
    "sing play swim work live know help sign draw paint build collect breed drive ride".split()
)


def _asked(
    text: str, read: list[_Read], persons: frozenset[str]
) -> Iterator[tuple[Line, list[Candidate]]]:
    """Each line with what it answers."""
    memory = _Memory(persons)
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
            here = replace(scene, meant=memory.for_clause(clause), painted=memory.painted)
            out += asked(clause, here)
            memory.see(clause, here)
        if line.key:
            whole = any(c.subject is not None and c.parts for c in each.clauses)
            lead = next((c.subject for c in each.clauses if c.subject is not None), None)
            if whole and lead is not None and not line.column:
                before = text[line.start : lead.words[0].start].rstrip()
                if before.endswith((",", ";")):
                    out += keyed(replace(line, text=before.rstrip(",; ")), scene)
            if not whole or line.column:
                out = [*keyed(line, scene)]
        elif not any(c.parts for c in each.clauses) and each.words:
            out += verbless(each.words, line, scene)
        yield line, [replace(c, weight=c.weight * _tasks(line)) for c in out]


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


class _Memory:
    """Whom "he" or "it" means, where that is certain."""

    def __init__(self, persons: frozenset[str]) -> None:
        self.persons = persons
        self.section: tuple[str, ...] = ()
        self.people: dict[str, str] = {}  # how a question names them → m, f or ?
        self.thing: dict[str, str] = {}  # it, they → the thing last spoken of
        self.letter = ""
        self.painted = False
        self.one = ""  # "the new one" is one of these
        self.keyed = False

    @property
    def meant(self) -> dict[str, str]:
        out = dict(self.thing)
        if self.one:
            out["one"] = self.one
        for pronoun, sex in (("he", "m"), ("she", "f")):
            fitting = [name for name, s in self.people.items() if s in (sex, "?")]
            if len(fitting) == 1:
                out[pronoun] = fitting[0]
        if self.letter:
            out["you"] = self.letter
        return out

    def enter(self, line: Line) -> None:
        """A new section forgets the persons of the last one."""
        if line.headings != self.section:
            self.section, self.people, self.thing, self.one = line.headings, {}, {}, ""
            for heading in line.headings if not line.letter else ():
                named = re.match(r"([A-Z][a-z'’-]+[a-rt-z]):|([A-Z][a-z'’-]+)$", heading)
                name = named and (named[1] or named[2])
                if name and ((named and named[1]) or name.lower() in self.persons):
                    self.people[name] = "?"
        self.letter = line.letter
        self.keyed = bool(line.key)

    def name(self, key: str, named: bool) -> None:
        """In "Leather: I get it from Yeovil" it is the leather."""
        words = tokens(key, 0, len(key))
        if words and (words[0].can("base") or belongs(words[0].low, "generic")):
            return
        if words and words[0].tag in ("w", "N", "D"):
            said = Scene(key).said(words)
            if said is not None and not any(w.tag == "S" for w in words):
                owned = words[0].tag == "D" or words[0].low in self.persons or named
                said = said if owned else f"my {said[:1].lower()}{said[1:]}"
                plural = said.endswith("s") and not said.endswith("ss")
                self.thing = {"they" if plural else "it": said}

    def for_clause(self, clause: Clause) -> dict[str, str]:
        meant = self.meant
        pet = self.thing.get("pet")
        if pet and not self.people:
            meant |= {"he": pet, "she": pet}
        return meant

    def see(self, clause: Clause, scene: Scene) -> None:
        """Remember what the clause spoke of."""
        self.painted = clause.base in ("paint", "repaint", "dye", "respray")
        subject = clause.subject
        objects = [p.phrase for p in clause.parts if p.kind in ("object", "complement")]
        things: list[str] = []
        plural = False
        for phrase in ([subject] if subject else []) + [p.phrase for p in clause.parts]:
            if phrase.head.tag in ("S", "O"):
                continue
            if is_person(phrase, scene) and phrase.words[0].low not in ("a", "an", "some"):
                self._person(phrase, scene)
        for phrase in ([subject] if subject else []) + objects:
            if phrase.head.tag in ("S", "O", "#") or is_person(phrase, scene):
                continue
            named = self._thing(phrase, clause, scene)
            if named is not None and phrase.words[0].tag in ("D", "N"):
                things.append(named)
                plural = phrase.plural
        own = subject is None or subject.head.low in ("i", "we")
        if own and not things:
            spoken = [p.phrase for p in clause.parts if p.kind in ("place", "with")]
            named = self._thing(spoken[0], clause, scene) if len(spoken) == 1 else None
            if named is not None and spoken[0].words[0].low in ("the", "my", "our"):
                things, plural = [named], spoken[0].plural
        whole = scene.said(subject.words) if subject is not None else None
        if whole is not None and whole.startswith(("my ", "our ", "the ")):
            self.one = whole
        if subject is not None and subject.head.low == "it" and not things:
            return
        if clause.subject is None and self.keyed:
            return
        self.thing = {}
        given = objects[0] if clause.base == "have" and len(objects) == 1 else None
        if given is not None and subject is not None and len(given.words) > 1:
            whose = scene.said(subject.words)
            if given.words[1].low in ("new", "different", "other") and whose is not None:
                self.thing["it"] = f"the {given.head.low} of {whose}"
                return
        if len(things) == 1 and not clause.dependent:
            self.thing["they" if plural else "it"] = things[0]
            noun = re.sub(r".* ", "", things[0])
            if belongs(noun, "animal"):
                self.thing["pet"] = things[0]

    def _person(self, phrase: Phrase, scene: Scene) -> None:
        said = scene.said((*phrase.words, *phrase.name))
        if said is None or phrase.plural:
            return
        first, head = phrase.words[0].low.rstrip("."), phrase.head.low
        sex = "?"
        for word in (head, first):
            if belongs(word, "female"):
                sex = "f"
            elif belongs(word, "male"):
                sex = "m"
        known = [n for n in self.people if n.split()[-1] == said.split()[-1]]
        if not known:
            self.people[said] = sex

    def _thing(self, phrase: Phrase, clause: Clause, scene: Scene) -> str | None:
        words = phrase.words
        if words[0].low in ("a", "an"):
            bare = scene.said([w for w in words[1:] if w.low != "new"])
            mine = clause.subject is None or clause.subject.head.low in ("i", "we")
            own = "our" if clause.subject is not None and clause.subject.head.low == "we" else "my"
            kept = mine and belongs(clause.base, "have")
            return None if bare is None else f"{own if kept else 'the'} {bare}"
        return scene.said(words)


def _best(text: str, line: Line, candidates: list[Candidate]) -> list[Asked]:
    """The candidates as pairs; at most three of a sentence, of different answers, stay worth it."""
    out: list[Asked] = []
    worth: list[tuple[int, int]] = []
    start = line.start + len(line.text) - len(line.whole) if line.whole else line.start
    if line.column or (line.whole and text[start : line.start + len(line.text)] != line.whole):
        start = max(0, text.find(line.whole, max(0, line.start - len(line.whole))))
    for each in sorted(candidates, key=lambda c: (-c.weight, c.start, c.question)):
        answer = _answer(text, each.start, each.end)
        if not answer or _says_itself(each.question, answer):
            continue
        weight = each.weight
        if weight >= WORTH:
            if len(worth) >= MOST_WORTH_OF_SENTENCE or (each.start, each.end) in worth:
                weight = WORTH - 0.01
            else:
                worth.append((each.start, each.end))
        out.append(Asked(each.question, answer, line.whole or line.text, start, round(weight, 3)))
    return out


def _answer(text: str, start: int, end: int) -> str:
    answer = re.sub(r"\s+", " ", text[start:end]).strip(' ,;:.*_`"“”')
    return "" if re.search(r"[*_`\n]", answer) else answer


def _says_itself(question: str, answer: str) -> bool:
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
