"""Other wordings of a request to write something: "Draft a note …" → "I need a note …".

Pure text. A style that is taught under one opening of a request appears under that opening only,
and one whose replies all are of one length ends at that length only.
"""

from __future__ import annotations

import random
import re

from acclimate.adapters.grammar import capitalised

MAX_CHARS = 200  # of a request, or of a question
SENTENCES = 4  # from so many on a reply has two that can be left out in turn
_VERB = (
    r"(?:write|draft|compose|scribble|jot down|jot|pen|word|prepare|create|make up|make"
    r"|put together|come up with|knock up|whip up|dash off|leave|give|design|type|send)"
)
_LEAD = r"(?:(?:now|then|and|also|next|ok|okay|please)[,\s]+)*"
_ASKING = (
    r"(?:(?:can|could|would|will) you(?: please)?|please|help me(?: to)?"
    r"|I(?: want| need|['’]d like) you to|I have to|I must|I need to|let['’]s)"
)
_THING = r"(?P<thing>(?:an?|the|some|something|my|our|two|three|a few)\b.+)"
# "Give me the number of our house" asks for what there is already; "a line for a card" is new.
_WANT = rf"{_LEAD}I(?: want| need|['’]d like| would like)"
_WANTING = re.compile(rf"{_WANT}\b", re.I)
_HAVING = re.compile(rf"{_WANT}\b|{_LEAD}give\b", re.I)
_REQUESTS = (
    re.compile(rf"{_LEAD}(?:{_ASKING} )?{_VERB}(?: (?:me|us|up|out))* {_THING}", re.I),
    re.compile(rf"{_WANT}(?: to have)? {_THING}", re.I),
)
_ADDRESSED = re.compile(
    rf"{_LEAD}(?:{_ASKING} )?(?:write|text|email|message) (?:to )?(?P<to>(?:an?|the|my|our) .+)",
    re.I,
)
# Something said to somebody else, who is not there: that can only be written. With a "what" or
# "where" in it somebody asks for what there is to say.
_SAYING = {
    "ask": "asking",
    "invite": "inviting",
    "remind": "reminding",
    "tell": "telling",
    "thank": "thanking",
    "warn": "warning",
}
_TO_OTHERS = re.compile(
    rf"{_LEAD}(?:{_ASKING} )?(?P<verb>{'|'.join(_SAYING)})"
    r" (?!(?:me|us|you|yourself|a)\b)(?!.*\b(?:what|which|who(?:m|se)?|where|when|why|how)\b)"
    r"(?P<whom>\w.* (?:that|about|of|to|for) .+)",
    re.I,
)
# A word or two that anybody may know: "What does al dente mean?", "What is an isotope?".
_MEANING = re.compile(
    r"what does (?:[\"'‘“].+[\"'’”]|(?!(?:the|an?|my|our|this|that|it)\b)[\w-]+(?: [\w-]+)?) mean"
    r"|what(?: is|['’]s| are) (?:an? )?(?!(?:mine|ours|that|this|it|on|up)\b)(?-i:[a-z-]+)",
    re.I,
)
# What has a form of its own, whoever asks for it.
_OWN_FORM = re.compile(
    r"antonyms?|(?:check)?lists?|codes?|commands?|definitions?|diagrams?|dialogues?|essays?"
    r"|expressions?|fables?|formulas?|functions?|haikus?|itinerar(?:y|ies)|jokes?|limericks?"
    r"|lyrics|menus?|numbers?|outlines?|plans?|poems?|programs?|quer(?:y|ies)|quiz|recipes?|regex"
    r"|rhymes?|riddles?|schedules?|scripts?|songs?|sonnets?|spreadsheets?|stor(?:y|ies)|synonyms?"
    r"|tables?|timetables?",
    re.I,
)
# "Find all the names in this text: …": what is to be worked on stands behind the colon.
_ON_TEXT = re.compile(
    rf"{_LEAD}(?:{_ASKING} )?"
    r"(?:change|classify|correct|count|extract|find|fix|give(?! me)|list|make|pick|proofread"
    r"|punctuate|put|rephrase|rewrite|shorten|simplify|sort|spell|summari[sz]e|translate|turn)\b"
    r"(?=[^:?]*\b(?:commas?|following|grammar|paragraph|passive|sentence|spelling|text|these|this"
    r"|words?)\b)[^:?]*:\s+\S+(?:\s+\S+){2,}",
    re.I,
)
_HEAD_ENDS = re.compile(
    r"[,:;(]| (?:about|by|for|from|in|of|on|that|to|what|where|which|who|with)\b", re.I
)
_FORMS = (
    "Write {0}.",
    "Draft {0}.",
    "I need {0}.",
    "Can you write {0}?",
    "Compose {0}.",
    "Please write {0}.",
    "Put together {0}.",
    "Give me {0}.",
    "Help me write {0}.",
    "I'd like {0}.",
    "Could you draft {0}?",
    "Make {0}.",
    "Come up with {0}.",
    "I have to write {0}.",
)


def asks_to_write(text: str) -> bool:
    """Whether something is to be written, not answered."""
    text = text.strip()
    if _WANTING.match(text) and text.endswith("?"):
        return False  # "I need a battery for the lamp. Which one?"
    return _thing(text.rstrip("?.! ")) is not None


def has_own_form(text: str) -> bool:
    """Whether what is to be written is a script, a table, a poem or the like, which does not begin
    and end as somebody's notes do."""
    thing = _thing(text.strip().rstrip("?.! "))
    head = _HEAD_ENDS.split(thing, maxsplit=1)[0] if thing else ""
    return _OWN_FORM.fullmatch(head.rpartition(" ")[2]) is not None


def works_on_text(text: str) -> bool:
    """Whether something is to be done with a text that stands in it, behind a colon."""
    return _ON_TEXT.fullmatch(text.strip()) is not None


def asks_for_meaning(text: str) -> bool:
    """Whether it asks what a word means or what some such thing is, which no life tells."""
    return _MEANING.fullmatch(text.strip().rstrip("?.! ")) is not None


def may_be_question(text: str) -> bool:
    """Whether it is short, and nothing is to be written."""
    return 0 < len(text) <= MAX_CHARS and not asks_to_write(text)


def rephrased(request: str, count: int, seed: int = 0) -> list[str]:
    """Up to `count` other wordings of a request, the same for a seed; none where it is not one."""
    text = request.strip().rstrip("?.! ")
    thing = _thing(text)
    if thing is None:
        return []
    forms = [capitalised(form.format(thing)) for form in _FORMS]
    others = [form for form in forms if form.rstrip("?.").lower() != text.lower()]
    return random.Random(f"{seed}:{request}").sample(others, min(count, len(others)))


def shortened(reply: str) -> list[str]:
    """The reply without one of its inner sentences, for each of them; [] of fewer than four.

    What was written has room for less; how it begins and how it ends are its form.
    """
    sentences = re.split(r"(?<=[.!?])\s+", reply.strip())
    if len(sentences) < SENTENCES or "\n" in reply.strip():
        return []
    return [" ".join(sentences[:n] + sentences[n + 1 :]) for n in range(1, len(sentences) - 1)]


def _thing(text: str) -> str | None:
    """What is asked for: "a note for the milkman"."""
    if len(text) > MAX_CHARS or "\n" in text:
        return None
    for shape in _REQUESTS:
        match = shape.fullmatch(text)
        if match is not None:
            known = re.match(r"(?:the|my|our)\b", match["thing"], re.I) and _HAVING.match(text)
            return None if known else match["thing"]
    if match := _ADDRESSED.fullmatch(text):
        return f"a message to {match['to']}"
    if match := _TO_OTHERS.fullmatch(text):
        return f"a message {_SAYING[match['verb'].lower()]} {match['whom']}"
    return None
