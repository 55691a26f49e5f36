"""Questions that keyed lines and cells of tables answer: "boiler: Vaillant".

Pure text. What the value is about it takes from the key and its heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from acclimate.adapters.grammar import belongs
from acclimate.adapters.questions.asking import asked
from acclimate.adapters.questions.builder import Builder
from acclimate.adapters.questions.clauses import clauses
from acclimate.adapters.questions.fragments import STILL, bare, is_generic, made, topic
from acclimate.adapters.questions.notes import Line
from acclimate.adapters.questions.phrases import phrase
from acclimate.adapters.questions.scene import (
    LONGEST_ANSWER,
    Candidate,
    Scene,
    content_words,
    finished,
    is_amount,
)
from acclimate.adapters.questions.times import time_end
from acclimate.adapters.questions.words import Token, tokens

_WH_COLUMNS = {
    "when": "when is", "by": "when is", "date": "when is", "day": "when is", "time": "when is",
    "where": "where is", "place": "where is", "who": "who does", "with": "who is with",
}  # fmt: skip


_HOW = {
    "length": "how long is", "height": "how high is", "width": "how wide is",
    "depth": "how deep is", "weight": "how heavy is", "age": "how old is",
    "price": "how much is", "cost": "how much is", "colour": "what colour is",
    "color": "what colour is",
}  # fmt: skip


def keyed(line: Line, scene: Scene) -> Iterator[Candidate]:
    """What "key: value" answers."""
    end = line.start + len(line.text)
    value = tokens(scene.text, line.start, end)
    key = tokens(line.key, 0, len(line.key))
    if not key or len(key) > 7 or not any(_segments(value)):
        return
    about = topic(line.headings, scene)
    if line.column:
        yield from _cell(line, value, key, about)
        return
    if belongs(key[0].low, "day", "month") or time_end(key, 0) == len(key):
        yield from _dated(line, value, scene)
        return
    if key[0].tag in ("B", "A", "C", "P", "O") or all(is_generic(w) for w in key):
        return
    ours = belongs(key[0].low, "belongings", "role")
    if key[0].verb and not ours and (len(key) == 1 or key[1].tag in ("P", "A")):
        return  # "Bring", "Take back"
    yield from _related(value, key, line, scene)
    if (
        len(key) == 2 and key[0].tag in ("w", "N") and key[1].tag == "P" and not key[0].verb
    ):  # "Allergic to: penicillin"
        yield from made(finished(["what am I", line.key.lower()]), _segments(value)[0], 0.5)
        return
    if any(w.tag == "S" for w in key):
        return
    thing = _thing(line.key, key, about, scene)
    listed = about is not None and re.search(r"\b(?:list|plan|presents?|gifts?)$", about)
    if listed and about and (key[0].low in scene.persons or belongs(key[0].low, "kin")):
        mine = about if re.match(r"(?:my|our|the)\b", about) else f"my {about}"
        who = Scene(line.key, scene.meant, scene.persons).said(key)
        pieces = [p for p in _segments(value) if p[0].tag in ("w", "D", "#", "N")]
        if pieces and len(pieces[0]) <= LONGEST_ANSWER:
            yield from made(finished([f"what is on {mine} for", who or line.key]), pieces[0], 0.45)
        return
    if thing is None:
        return
    first = True
    for segment in _segments(value):
        if not first and not _follows(segment):
            continue
        yield from _segment(segment, thing, key, scene, first=first)
        first = False


def _follows(words: Sequence[Token]) -> bool:
    """Whether a further piece of a value says something by itself."""
    by = len(words) > 1 and words[0].can("participle") and words[1].tag == "P"
    if words[0].low in ("at", "in", "on", "near", "above", "behind", "opposite", "under"):
        return len(words) > 1 and words[1].tag in ("N", "D") and not is_amount(words[1:])
    return by or words[0].tag in ("N", "X") or time_end(words, 0) == len(words)


def _segments(value: Sequence[Token]) -> list[list[Token]]:
    """The value's pieces between commas; a date or a list stays whole."""
    out: list[list[Token]] = [[]]
    depth = 0
    for n, word in enumerate(value):
        depth += (word.tag == "(") - (word.tag == ")")
        if word.tag in (";", ".", "-") or (word.tag == "(" and depth == 1):
            out.append([])
            if word.tag == ".":
                break
        elif word.tag == "," and depth == 0:
            timed = time_end(value, n + 1) > n + 1 and out[-1] and time_end(out[-1], 0) > 0
            if timed:
                out[-1].append(word)
            else:
                out.append([])
        elif word.tag not in ("(", ")"):
            out[-1].append(word)
    whole = [piece for piece in out if piece]
    if len(whole) > 1 and all(len(p) <= 3 for p in whole) and any(
        w.tag == "C" for w in whole[-1]
    ):  # fmt: skip
        return [list(value[: value.index(whole[-1][-1]) + 1])]
    return whole[:4]


def _thing(text: str, key: Sequence[Token], about: str | None, scene: Scene) -> str | None:
    """What the key names, together with what its section is about."""
    cut = next((n for n, w in enumerate(key) if w.tag in (",", "(", "-")), len(key))
    said = Scene(text, scene.meant, scene.persons).said(key[:cut]) if cut else None
    if said is None or not re.search(r"\w", said):
        return None
    kin = belongs(key[0].low, "kin")
    whole_name = len(key) > 1 and all(w.text[0].isupper() for w in key) and not text.isupper()
    person = key[0].low in scene.persons or belongs(key[0].low, "title") or whole_name
    if not person and re.match(r"[A-Z][a-z'’]+(?![\w-])", said) and said.startswith(key[0].text):
        said = said[:1].lower() + said[1:]
    if kin and not said.startswith("my ") and key[0].tag == "w":
        said = f"my {said}"
    owned = key[0].tag == "D" or person or "'" in [w.tag for w in key] or said.startswith("my ")
    if about is None:
        return said if owned else f"my {said}"
    if re.search(rf"\b(?:{_ATTRIBUTES})$", about):
        attribute = bare(_single(about))
        if kin or person or (len(key) == 1 and key[0].tag == "N" and not text.isupper()):
            return f"{text.strip() if said.islower() else said}'s {attribute}"
        return f"the {attribute} of {said if owned else f'the {said}'}"
    if owned:
        return said
    if re.search(r"[^s]s$", about) and not re.match(r"(?:my|our)\b|.*'s ", about):
        return f"my {said}"
    if "'s " in about or (" " in about and re.match(r"(?:my|our|the)\b", about)):
        return f"the {said} of {about}"
    if about[0].isupper():
        return f"{about}'s {said}"
    mine = about if re.match(r"(?:my|our|the)\b", about) else f"my {about}"
    return f"the {said} of {mine}"


_ATTRIBUTES = (
    "birthdays|numbers|codes|passwords|pins|sizes|prices|names|addresses|colours|colors|ages|heights"
    "|weights|jobs|allergies|favourites|anniversaries|shifts|emails"
)


def _single(plural: str) -> str:
    if plural.endswith("ies"):
        return plural[:-3] + "y"
    if re.search(r"(?:ss|sh|ch|x)es$", plural):
        return plural[:-2]
    return plural[:-1]


def _segment(
    words: list[Token], thing: str, key: Sequence[Token], scene: Scene, *, first: bool
) -> Iterator[Candidate]:
    """What one piece of the value says about the thing."""
    while words and words[0].tag in ("C", "A", '"', "“", "'"):
        words = words[1:]
    while words and words[-1].tag in ('"', "”", "!", ".", "?", "…"):
        words = words[:-1]
    if words and words[0].tag == "w" and words[0].can("base") and not words[0].can("ing"):
        after = words[1] if len(words) > 1 else None
        if (after is not None and after.tag in ("D", "O", "P", "A")) or (
            first
            and after is None
            and (words[0].verb[0][0] in ("ask", "begin", "sort", "check", "call", "ring"))
        ):
            return  # a task
    if not words or len(words) > LONGEST_ANSWER + 4:
        return
    noun = next((key[n - 1] for n, w in enumerate(key) if n and w.tag in (",", "(", "P")), key[-1])
    be = "are" if _plural(noun) and not re.match(r"the (?!\w+s\b)\w+ of", thing) else "is"
    head = words[0]
    measure = next((how for word, how in _HOW.items() if thing.startswith(f"the {word} of ")), "")
    if (head.can("third", "past") and not head.can("base")) or head.tag == "X" or (
        head.tag == "w" and not first and len(words) > 1 and words[1].tag == "P"
    ):  # fmt: skip
        yield from _stated(words, thing, scene, first=first)
        return
    if any(w.can("third") and not w.can("base") and w.text.islower() for w in words):
        return  # a sentence that could not be read
    weight = 0.46 if first else 0.3
    if head.tag == "#" and len(words) > 1 and words[1].tag == "w":
        weight -= 0.0 if belongs(words[1].low, "unit", "time") else 0.2
    if re.search(r"\b(?:my|our)\b", thing):
        weight += 0.05
    if not content_words(thing):
        return
    if first and head.low == "with" and len(words) > 1 and words[1].tag == "N":
        person = phrase(words, 1, subject=False)
        if person is not None:  # "Chapel key: with Miss Pym"
            yield from made(finished(["who has", thing]), words[1 : person.end], 0.35)
        return
    somebody = belongs(key[-1].low, "role", "kin") or key[0].low in scene.persons
    if somebody and all(w.tag == "#" for w in words) and _DIALLED.fullmatch(_written(words)):
        yield from made(finished([f"what is {thing}'s phone number"]), words, weight)
        return
    if time_end(words, 0) == len(words):
        wh, weight = "when", weight + 0.05
        words = words[1:] if head.tag == "P" and head.low in ("on", "at", "in", "by") else words
    elif head.low in STILL and len(words) > 1 and words[1].tag in ("D", "N"):
        wh = "where"
        place = phrase(words, 1, subject=False)
        if place is not None and len(words) > LONGEST_ANSWER:
            words = words[: place.end]
        words = words[1:] if head.low in ("in", "on", "at") else words
    elif belongs(words[-1].low, "colour") and len(words) <= 2:
        wh = "what colour"
    elif first and _is_stock(words, key):
        many = key[-1].low.endswith("s") and key[-1].tag in ("w", "N")
        held = re.sub(r"^(?:my|the) | of (?:my|our|the) .*", "", thing)
        yield from made(
            finished([f"how {'many' if many else 'much'} {held} do I have"]),
            words[:LONGEST_ANSWER], 0.38,
        )  # fmt: skip
        return
    elif head.tag == "#" and head.text[0] in "£$€":
        wh = "how much"
    elif belongs(key[-1].low, "role", "kin") and words[-1].tag == "N":
        wh = "who"
    elif head.tag in ("w", "N", "#", "D"):
        wh = "what"
        if (
            key[0].low in scene.persons or belongs(key[0].low, "title", "kin")
        ) and "'s" not in thing:
            if not any(belongs(w.low, "kin", "role") for w in words):
                return
            wh = "who"
        found = phrase(words, 0, subject=False)
        if found is not None and first and len(words) > LONGEST_ANSWER:
            words = words[: found.end]
        if not first and head.tag not in ("N", "#"):
            return
        weight -= 0.0 if first else 0.1
        weight -= 0.12 if any(w.tag == "P" and w.low != "of" for w in words) else 0.0
        weight -= 0.1 if len(content_words(thing)) > 3 else 0.0
        if not any(w.tag in ("N", "#") or re.search(r"\d", w.text) for w in words):
            best = re.search(r"\b(?:best|worst|favou?rite|first|last|least|most)\b", thing)
            weight -= -0.05 if best else 0.1
    else:
        return
    if measure:
        question = finished([measure, thing.split(" of ", 1)[1]])
    else:
        question = finished([wh, be, thing])
    yield from made(question, words, weight)


_DIALLED = re.compile(r"\+?\d{7,}")


def _written(words: Sequence[Token]) -> str:
    return "".join(re.sub(r"[^+\d]", "", w.text) for w in words)


def _is_stock(words: Sequence[Token], key: Sequence[Token]) -> bool:
    """ "Brass wire: two coils", "Screws: 40"."""
    if words[0].tag != "#" or len(words) < 2:
        return len(words) == 1 and words[0].tag == "#" and _plural(key[-1])
    return belongs(words[1].low, "container") and words[-1].low != "each"


def _plural(word: Token) -> bool:
    return word.low.endswith("s") and not word.low.endswith(("ss", "us", "is"))


def _stated(words: list[Token], thing: str, scene: Scene, *, first: bool) -> Iterator[Candidate]:
    """ "boiler: serviced by Mr Obi" → "Who is my boiler serviced by?"."""
    at = words[0].start
    subject = Token("it", at, at, "S")
    be = [] if words[0].tag == "X" or words[0].can("third") else [Token("is", at, at, "X")]
    here = replace(scene, meant={**scene.meant, "it": thing, "he": thing, "she": thing})
    for clause in clauses([subject, *be, *words])[:1]:
        for candidate in asked(clause, here):
            yield replace(candidate, weight=candidate.weight + (0.05 if first else 0.0))


def _related(
    value: list[Token], key: Sequence[Token], line: Line, scene: Scene
) -> Iterator[Candidate]:
    """ "Instrument I play at home: the ocarina" → "Which instrument do I play at home?"."""
    noun = phrase(key, 0, subject=False)
    if noun is None or noun.end >= len(key) or noun.head.tag in ("S", "O"):
        return
    rest = key[noun.end + 1 :] if key[noun.end].low in ("that", "which", "who") else key[noun.end :]
    if not rest or rest[0].tag != "S":
        return
    thing = Scene(line.key).said([w for w in noun.words if w.tag != "D"])
    for clause in clauses(rest)[:1]:
        pieces = _segments(value)
        if thing and clause.parts is not None and pieces and not is_generic(noun.head):
            builder = Builder(clause, Scene(line.key, scene.meant, scene.persons))
            question = builder.ask(f"which {thing[:1].lower() + thing[1:]}", None)
            yield from made(question, pieces[0], 0.45)


def _dated(line: Line, value: Sequence[Token], scene: Scene) -> Iterator[Candidate]:
    """ "Tuesday: choir" → "When is choir?" is asked by the value's noun."""
    found = phrase(value, 0, subject=False)
    if found is None or (
        found.end < len(value) and value[found.end].tag not in (",", ".", "P", ";")
    ):
        return
    if all(w.tag in ("#", "C") for w in found.words):
        return
    if (value[0].verb and not value[0].can("base")) or found.head.tag in ("S", "O"):
        return
    whole = line.whole or line.text
    at = scene.text.rfind(line.key, 0, line.start)
    thing = scene.said(found.words)
    if at < 0 or thing is None or not whole:
        return
    key_words = tokens(scene.text, at, at + len(line.key))
    question = finished(["when is", thing if value[0].tag in ("D", "N") else f"my {thing}"])
    yield from made(question, key_words, 0.31)


def _cell(
    line: Line, value: Sequence[Token], key: Sequence[Token], about: str | None
) -> Iterator[Candidate]:
    """A table's cell, by its column and its row."""
    said = Scene(line.key).said(key)
    column = line.column.lower().strip("*_ .")
    if said is None or len(value) > LONGEST_ANSWER or not column:
        return
    thing = (
        said
        if key[0].tag in ("N", "#", "D") or key[-1].tag == "#"
        else f"my {said}"
        if about is None
        else f"the {said}"
    )
    tail = "" if about is None else f"on {about}" if about.startswith(("my", "our", "the")) else ""
    if any(belongs(w, "generic") for w in column.split()) and column not in _WH_COLUMNS:
        return
    asked = _WH_COLUMNS.get(column)
    if asked is not None and _plural(key[-1]):
        asked = asked.replace(" is", " are")
    question = (
        finished([asked, thing, tail])
        if asked
        else finished([f"what is the {column} of", thing, tail])
    )
    yield from made(question, value, 0.28)
