"""Other wordings of a question, by rules of English grammar and a small thesaurus.

Pure text; knows neither models nor examples. A model memorises the exact question easily and the
reworded one badly: what helps is more true wordings of each question in training.
"""

from __future__ import annotations

import random
import re
from functools import cache
from importlib import resources

# Irregular past forms of common verbs; the rest takes -ed.
_PAST = dict(
    pair.split(":")
    for pair in (
        "be:was become:became begin:began break:broke bring:brought build:built buy:bought "
        "catch:caught choose:chose come:came cost:cost cut:cut do:did drink:drank drive:drove "
        "eat:ate fall:fell feel:felt find:found fly:flew forget:forgot get:got give:gave go:went "
        "grow:grew have:had hear:heard hide:hid hit:hit hold:held keep:kept know:knew leave:left "
        "lend:lent let:let lose:lost make:made mean:meant meet:met pay:paid put:put "
        "read:read ride:rode ring:rang run:ran say:said see:saw sell:sold send:sent set:set "
        "shut:shut sing:sang sit:sat sleep:slept speak:spoke spend:spent stand:stood swim:swam "
        "take:took teach:taught tell:told think:thought throw:threw understand:understood "
        "wake:woke wear:wore win:won write:wrote"
    ).split()
)
_AUX = "am|is|are|was|were|can|could|will|would|should|must|may|might|have|has|had"
_SUBJECT = (
    r"(?:(?:my|our|the|your|his|her|their)\s+[\w'’-]+(?:\s+and\s+I)?"
    r"|I|we|you|he|she|they|it|(?!my\b|our\b|the\b)[A-Z][\w'’-]+(?:\s+and\s+I)?)"
)
_WH = r"(?:what|who|whom|when|where|why|how|which)"
_WRAPPERS = (
    "Tell me {0}.",
    "Do you know {0}?",
    "Can you remind me {0}?",
    "I forgot {0}.",
    "Remind me {0}, please.",
    "Could you say {0}?",
    "I need to know {0}.",
    "Do you remember {0}?",
)
_STOP = frozenset(
    "a an the is are was were am be been do does did of to in on at for with by it that this "
    "have has had will would can could should i me my mine we our us you your what which who "
    "whom when where why how 's s there".split()
)


@cache
def thesaurus() -> dict[str, tuple[str, ...]]:
    """Word or phrase → words that may stand in its place in a question, from `data/thesaurus.txt`.

    Each line of the file is one set of interchangeable words.
    """
    table: dict[str, tuple[str, ...]] = {}
    text = resources.files("acclimate.adapters").joinpath("data/thesaurus.txt").read_text("utf-8")
    for line in text.splitlines():
        words = [w.strip() for w in line.split("|") if w.strip() and not line.startswith("#")]
        for word in words:
            table[word] = tuple(dict.fromkeys([*table.get(word, ()), *words]))
    return {w: tuple(o for o in others if o != w) for w, others in table.items()}


def _past(verb: str) -> str:
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb):
        return verb + verb[-1] + "ed"
    return verb + "ed"


def _third(verb: str) -> str:
    if verb in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + "s"


def _expand(question: str) -> str:
    return re.sub(rf"^({_WH})['’]s\b", r"\1 is", question, flags=re.I)


def embedded(question: str) -> str | None:
    """The question as a clause: "Where do I live?" → "where I live"; None where it is unclear."""
    text = _expand(question).strip().rstrip("?.! ")
    match = re.match(rf"^({_WH}\b.*?)\s+(do|does|did)\s+({_SUBJECT})\s+([a-z]+)\b(.*)$", text, re.I)
    if match:
        lead, aux, subject, verb, rest = match.groups()
        form = {"do": lambda v: v, "does": _third, "did": _past}[aux.lower()](verb)
        return f"{_lower(lead)} {subject} {form}{rest}"
    match = re.match(rf"^({_WH}\b.*?)\s+({_AUX})\s+({_SUBJECT})\b(.*)$", text, re.I)
    if match:
        lead, aux, subject, rest = match.groups()
        if re.fullmatch(_WH, lead, re.I) and aux.lower() in ("is", "are", "was", "were"):
            # "What is my dog's name" → "what my dog's name is"
            if not rest.strip() or not re.search(r"\b(ing|ed)\b|\w+(ing|ed)\b", rest):
                return f"{_lower(lead)} {subject}{rest} {aux}"
            return f"{_lower(lead)} {subject} {aux}{rest}"
        return f"{_lower(lead)} {subject} {aux}{rest}"
    if re.match(rf"^{_WH}\b", text, re.I):  # "Who cuts my hair" is its own clause
        return _lower(text)
    return None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not text.startswith("I ") else text


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pattern_forms(question: str) -> list[str]:
    """True rewordings of the commonest question types."""
    text = _expand(question).strip().rstrip("?.! ")
    out: list[str] = []

    def add(*forms: str) -> None:
        out.extend(_upper(re.sub(r"\s+", " ", form).strip()) for form in forms)

    if m := re.match(r"^what (?:is|was|are) (.+?)['’]s? (?:first |full )?names?$", text, re.I):
        owner = m[1]
        add(
            f"What is {owner} called?",
            f"What is the name of {owner}?",
            f"How is {owner} called?",
            f"Tell me the name of {owner}.",
            f"Who is {owner}?",
            f"Which name does {owner} have?",
        )
    if m := re.match(r"^what (?:is|was|are) the names? of (.+)$", text, re.I):
        thing = m[1]
        add(
            f"What is {thing} called?",
            f"How is {thing} called?",
            f"Tell me {thing}'s name.",
            f"Which name does {thing} have?",
            f"What name did I give {thing}?" if thing.lower().startswith("my") else "",
        )
    if m := re.match(r"^what do (?:I|we) call (.+)$", text, re.I):
        add(
            f"What is the name of {m[1]}?",
            f"What is {m[1]} called?",
            f"What name did I give {m[1]}?",
            f"Tell me {m[1]}'s name.",
        )
    if m := re.match(r"^(?:what|which|who) (is|are|was|were) ((?:my|our|the) .+)$", text, re.I):
        be, thing = m[1].lower(), m[2]
        add(
            f"Tell me {thing}.",
            f"{thing}: which one {be} it?",
            f"Which one {be} {thing}?",
            f"What would you say {be} {thing}?",
            f"Name {thing}.",
        )
        if fav := re.match(r"^(my|our) favou?rite (.+)$", thing, re.I):
            who = "I" if fav[1].lower() == "my" else "we"
            add(
                f"Which {fav[2]} do {who} like best?",
                f"What {fav[2]} do {who} like the most?",
                f"Which {fav[2]} do {who} prefer?",
                f"The {fav[2]} {who} love most, which is it?",
            )
    if m := re.match(
        r"^(what|which) (.+?) (do|does|did) (I|we|my .+?|our .+?) (\w+)(.*)$", text, re.I
    ):
        _, noun, aux, who, verb, rest = m.groups()
        form = {"do": lambda v: v, "does": _third, "did": _past}[aux.lower()](verb)
        add(
            f"What is the {noun} {who} {form}{rest}?",
            f"Which is the {noun} that {who} {form}{rest}?",
            f"Tell me which {noun} {who} {form}{rest}.",
            f"Name the {noun} {who} {form}{rest}.",
            f"The {noun} {who} {form}{rest}: which one is it?",
        )
        if verb in ("have", "own", "drive", "ride", "use", "play", "live", "work"):
            mine = {"I": "my", "we": "our"}.get(who, f"{who}'s")
            add(f"What is {mine} {noun}{rest}?", f"Which {noun} is {mine.replace('my', 'mine')}?")
    if m := re.match(rf"^where (do|does|did) ({_SUBJECT}) (\w+)(.*)$", text, re.I):
        aux, who, verb, rest = m.groups()
        form = {"do": lambda v: v, "does": _third, "did": _past}[aux.lower()](verb)
        tail = rest if rest.strip() else ""
        add(
            f"In which place {aux.lower()} {who} {verb}{tail}?",
            f"What is the place where {who} {form}{tail}?",
            f"At what place {aux.lower()} {who} {verb}{tail}?",
            f"Which place is it that {who} {form}{tail} in?",
        )
    if m := re.match(r"^(?:when|what time|at what time) (.+)$", text, re.I):
        add(
            f"At what time {m[1]}?",
            f"On what day or at what time {m[1]}?",
            f"What time {m[1]}?",
            f"When exactly {m[1]}?",
        )
    if m := re.match(r"^how (many|much) (.+)$", text, re.I):
        add(f"What number of {m[2]}?", f"Exactly how {m[1]} {m[2]}?")
    if m := re.match(r"^how do (I|we) (\w+) (.+)$", text, re.I):
        add(
            f"What is the way {m[1]} {m[2]} {m[3]}?",
            f"In what way do {m[1]} {m[2]} {m[3]}?",
            f"What do {m[1]} do to {m[2]} {m[3]}?",
        )
    if m := re.match(r"^who (?!is\b|are\b|was\b|were\b)(\w+) (.+)$", text, re.I):
        add(
            f"Which person {m[1]} {m[2]}?",
            f"What is the name of the person who {m[1]} {m[2]}?",
            f"Who is it that {m[1]} {m[2]}?",
        )
    return [form for form in out if len(form) > 3]


def _keywords(question: str) -> str:
    words = re.findall(r"[\w'’-]+", _expand(question))
    kept = [w for w in words if w.lower() not in _STOP or w.lower() in ("my", "our")]
    return " ".join(kept)


def _synonyms(question: str, rng: random.Random) -> str | None:
    table = thesaurus()
    spans = []
    lowered = question.lower()
    for word, others in table.items():
        for m in re.finditer(rf"(?<![\w'’]){re.escape(word)}(?![\w'’])", lowered):
            spans.append((m.start(), m.end(), others))
    if not spans:
        return None
    start, end, others = rng.choice(spans)
    replaced = question[:start] + rng.choice(others) + question[end:]
    return _upper(replaced)


def reword(question: str, count: int, seed: int = 0) -> list[str]:
    """Up to `count` other wordings of one question, all different, in a fixed random order.

    Statements and orders are given back with synonyms only; an empty list means that no rule fits.
    """
    rng = random.Random(f"{seed}:{question}")
    forms: list[str] = []
    if len(question) > 200 or "\n" in question:
        return []
    patterns = _pattern_forms(question)
    forms += patterns
    clause = embedded(question)
    if clause is not None:
        forms += [w.format(clause) for w in rng.sample(_WRAPPERS, 4)]
        forms.append(_upper(clause) + "?")
    for base in [question, *patterns, *forms[-2:]]:
        for _ in range(2):
            other = _synonyms(base, rng)
            if other:
                forms.append(other)
    keywords = _keywords(question)
    if len(keywords.split()) >= 2:
        forms += [keywords + "?", keywords.lower()]
    unique = list(dict.fromkeys(f for f in forms if _norm(f) != _norm(question)))
    rng.shuffle(unique)
    return unique[:count]


def asks_personally(question: str) -> bool:
    """Whether this is a short question about the person who asks it."""
    text = question.strip()
    return (
        len(text) <= 200
        and text.endswith("?")
        and re.search(r"\b(I|I'm|I’m|my|mine|me|we|our|ours|us)\b", text, re.I) is not None
    )


def _norm(text: str) -> str:
    return re.sub(r"[^\w]+", " ", text.lower()).strip()
