"""Whom a pronoun means in a note, where that is certain, and who in it is a person.

Pure text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.notes import Line
from acclimate.adapters.questions.phrases import Phrase
from acclimate.adapters.questions.predicates import Clause
from acclimate.adapters.questions.scene import Scene, is_person
from acclimate.adapters.questions.words import Token, tokens


@dataclass
class Read:
    line: Line
    words: list[Token]
    clauses: list[Clause]


def persons_of(read: list[Read]) -> frozenset[str]:
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


class Memory:
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

    def for_clause(self) -> dict[str, str]:
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
