"""Other wordings of a question, by rules of English grammar and a small thesaurus.

Pure text; knows neither models nor examples. A model memorises the exact question easily and the
reworded one badly: what helps is more true wordings of each question in training.
"""

from __future__ import annotations

import random
import re
from functools import cache

from acclimate.adapters.grammar import capitalised, is_personal, past, third
from acclimate.adapters.shipped import shipped_lines

_AUX = "am|is|are|was|were|can['’]t|can|could|will|would|should|must|may|might|have|has|had"
_PRONOUN = r"(?:I|we|you|he|she|they|it)"
_SUBJECT = (
    # "my sister", "my sister Bo", "my sister's dog", "my husband and I"
    r"(?:(?:my|our|the|your|his|her|their)\s+[\w'’-]+(?:\s+(?-i:[A-Z](?!\b))[\w'’-]*)*"
    r"(?:(?<=['’]s)\s+[\w-]+)?(?:\s+and\s+I)?"
    rf"|{_PRONOUN}|(?!my\b|our\b|the\b)[A-Z][\w'’-]+(?:\s+and\s+I)?)"
)
_WH = r"(?:what|who|whom|when|where|why|how|which)"
_ADVERB = r"(?:first|last|still|always|usually|mostly|often|never|ever|also|once|now|only|just)"
_LINKS = r"(?:as|in|on|at|for|if|when|while|before|after|during|to|with|from)"
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
# What people say before they ask, or around it; `{0}` is the question as a clause.
_SCENES = (
    "Somebody asks me {0}. What do I say?",
    "A friend wants to know {0}. What do I tell her?",
    "I have to write down {0}. What do I put?",
    "If anybody asks {0}, what is the answer?",
    "It has slipped my mind {0}. Help me.",
    "When people ask me {0}, what should they hear?",
    "I am filling in a form and need {0}. What goes there?",
    "We were talking, and I could not say {0}. Can you?",
)
# `{1}` is what it is about, `{0}` the question with "the" in place of "my".
_TOPICS = (
    "I was thinking of {1}. {0}",
    "It is about {1}. {0}",
    "Talking of {1}: {0}",
    "Here is one about {1}. {0}",
    "Let me ask about {1}. {0}",
)
# Of each kind in turn: by shape, keywords, as a clause, with a synonym, in a scene.
PER_TURN = (3, 1, 1, 5, 2)
MOST_REPLACED = 3  # words of one question
_MINE = re.compile(r"\b(?:my|our)\b(?! own\b)", re.I)
_MY_THING = re.compile(r"\b(?:my|our) (?:(?:new|old|spare|first|best|big|little) )?[\w-]+\b", re.I)
STOP = frozenset(
    "a an the is are was were am be been do does did of to in on at for with by it that this "
    "have has had will would can could should i me my mine we our us you your what which who "
    "whom when where why how 's s there".split()
)


@cache
def thesaurus() -> dict[str, tuple[str, ...]]:
    """Word or phrase → words that may stand in its place in a question, from `data/thesaurus.txt`.

    Each line of the file is one set of interchangeable words, or, behind ">", what may stand for
    those in front, but not the other way round.
    """
    table = dict(interchangeable())
    for line in shipped_lines("thesaurus"):
        heads, is_one_way, behind = line.partition(" > ")
        for head in heads.split("|") if is_one_way else ():
            others = (*table.get(head, ()), *behind.split("|"))
            table[head] = tuple(dict.fromkeys(o for o in others if o != head))
    return table


@cache
def interchangeable() -> dict[str, tuple[str, ...]]:
    """The same of words that mean one thing, whichever of them is said."""
    table: dict[str, tuple[str, ...]] = {}
    for line in shipped_lines("thesaurus"):
        words = () if " > " in line else tuple(line.split("|"))
        for word in words:
            table[word] = tuple(dict.fromkeys([*table.get(word, ()), *words]))
    return {w: tuple(o for o in others if o != w) for w, others in table.items()}


def expand(question: str) -> str:
    """Short forms in full: "What colour's my …" → "What colour is my …"."""
    text = re.sub(rf"^({_WH}|(?:what|which) \w+)['’]s\b", r"\1 is", question, flags=re.I)
    text = re.sub(rf"^({_WH})['’](?:re|ve)\b", _full_form, text, flags=re.I)
    return re.sub(r"\b(I|we|you|they)['’](?:m|re|ve)\b", _full_form, text, flags=re.I)


def _full_form(match: re.Match[str]) -> str:
    verb = {"m": "am", "re": "are", "ve": "have"}[re.split("['’]", match[0])[1].lower()]
    return f"{match[1]} {verb}"


def _straight(question: str) -> str:
    """The question in its usual order: "As a boy, what did I …?" → "What did I … as a boy?"."""
    match = re.fullmatch(rf"([^,?.!]+),\s+({_WH}\b[^,]*?)\s*\?", question.strip(), re.I)
    if match is None:
        return question
    front, rest = match.groups()
    about = re.fullmatch(r"(.*\b(?:is|are|was|were)) (?:it|they|that|he|she)", rest, re.I)
    if about is not None:  # "My locker, which number is it?"
        return f"{capitalised(about[1])} {_lower(front)}?"
    if re.match(rf"{_LINKS}\b", front, re.I):
        return f"{capitalised(rest)} {_lower(front)}?"
    return question


_NOW = re.compile(
    r",? (?<!right )(?<!just )(?<!by )(?<!until )(?<!till )(?<!from )(?<!before )"
    r"(?:right now|now|nowadays|these days|currently|presently|at present|at the moment)"
    r"(?! (?:that|on)\b)(?=[ ?.!,]|$)",
    re.I,
)
_NEW = re.compile(r"\b(my|our) new (?=\w)", re.I)


def timeless(question: str) -> str:
    """Without words that only say that the answer has changed: "Who's my dentist these days?"

    What was taught under the plain question has to be answered anew.
    """
    return _NEW.sub(r"\1 ", _NOW.sub("", question))


def embedded(question: str) -> str | None:
    """The question as a clause: "Where do I live?" → "where I live"; None where it is unclear."""
    text = expand(question).strip().rstrip("?.! ")
    match = re.match(r"^(what|how) (is|was|are) (.+) called$", text, re.I)
    if match:
        return f"{_lower(match[1])} {match[3]} {match[2]} called"
    match = re.match(rf"^({_WH}\b.*?)\s+(do|does|did)\s+({_SUBJECT})\s+([a-z].*)$", text, re.I)
    if match:
        lead, aux, subject, rest = match.groups()
        return f"{_lower(lead)} {subject} {_stated(aux, rest)}"
    match = re.match(rf"^({_WH}\b.*?)\s+({_AUX})\s+({_SUBJECT})\b(.*)$", text, re.I)
    if match and not re.search(rf"\b{_PRONOUN}$", match[1], re.I) and not _has_it(match):
        lead, aux, subject, rest = match.groups()
        named = not re.fullmatch(_PRONOUN, subject, re.I)
        if re.fullmatch(_WH, lead, re.I) and named and aux.lower() in ("is", "are", "was", "were"):
            # "What is my dog's name" → "what my dog's name is"
            if not rest.strip() or not re.search(r"\b(ing|ed)\b|\w+(ing|ed)\b", rest):
                return f"{_lower(lead)} {subject}{rest} {aux}"
            return f"{_lower(lead)} {subject} {aux}{rest}"
        return f"{_lower(lead)} {subject} {aux}{rest}"
    if re.match(rf"^{_WH}\b", text, re.I):  # "Who cuts my hair" is its own clause
        return _lower(text)
    return None


def _has_it(match: re.Match[str]) -> bool:
    """Whether somebody has what follows: "Which church has the organ I dread?"."""
    has = (
        match[2].lower() in ("has", "have", "had")
        and re.match(r"(?:the|my|our)\b", match[3], re.I) is not None
    )
    return has and not re.match(r"\s+(?:been|got|had|made|left|\w+e[dn])\b", match[4])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if not text.startswith("I ") else text


# A question's shape, and other ways to ask the same. `{0}` … are the pattern's groups; a form
# with an empty group is left out. Order: the likeliest ways first.
_SHAPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (  # a name
        r"what (?:is|was|are) (?P<owner>.+?)['’]s? (?:first |full )?names?",
        _NAMES := (
            "What is {owner} called?",
            "What is the name of {owner}?",
            "How is {owner} called?",
            "Tell me the name of {owner}.",
            "What name does {owner} have?",
            "Which name did I give {owner}?",
            "What do I call {owner}?",
            "Name {owner}.",
            "What is {owner}'s name?",
        ),
    ),
    (r"what (?:is|was|are) the names? of (?P<owner>.+)", _NAMES),
    (r"(?:what|how) (?:is|was|are) (?P<owner>.+?) called", _NAMES),
    (r"(?:what|how) do (?:I|we) call (?P<owner>.+)", _NAMES),
    (r"what did (?:I|we) (?:call|name) (?P<owner>.+)", _NAMES),
    (  # somebody who is described
        r"(?:what|how) (?:is|was) (?:the|my|our) (?P<thing>[\w -]+?) who (?P<rest>.+) called",
        (
            "Who {rest}?",
            "Which {thing} {rest}?",
            "Name the {thing} who {rest}.",
            "What is the name of the {thing} who {rest}?",
        ),
    ),
    (r"what (?:is|was) my (?P<thing>[\w -]+?) called", ("What's the name of the {thing} I own?",)),
    (  # a person with a role
        r"who (?P<be>is|was) (?P<whose>my|our) (?P<role>.+)",
        (
            "What is the name of {whose} {role}?",
            "What is {whose} {role} called?",
            "Which {role} do I go to?",
            "Which {role} do I have?",
            "Tell me who {whose} {role} is.",
            "Name {whose} {role}.",
            "{whose} {role} {be} who?",
        ),
    ),
    (  # a favourite
        r"(?:what|which|who) (?:is|are) (?:my|our) favou?rite (?P<thing>.+)",
        _FAVOURITES := (
            "Which {thing} do I like best?",
            "What {thing} do I love most?",
            "Which {thing} do I prefer?",
            "What kind of {thing} do I like the most?",
            "Which {thing} is my favourite?",
            "What is my favourite {thing}?",
            "The {thing} that I enjoy most, which one is it?",
            "What {thing} do I like better than all others?",
        ),
    ),
    (r"(?:what|which) (?P<thing>.+?) do I (?:like best|love most|prefer|like most)", _FAVOURITES),
    (  # work
        r"what (?P<do>do|does) (?P<who>I|my [\w -]+?) do for (?:a living|work)",
        (
            "What is {whose} job?",
            "What is {whose} profession?",
            "What work {do} {who} do?",
            "What kind of work {do} {who} do?",
            "What is {whose} occupation?",
            "What {do} {who} work as?",
            "Which job {do} {who} have?",
        ),
    ),
    (
        r"what (?:is|was) (?P<whose>my(?: [\w-]+['’]s)?) (?:job|profession|occupation|work)",
        (
            "What is {whose} occupation?",
            "What is {whose} profession?",
            "What is {whose} job?",
            "Tell me {whose} job.",
            "Which profession is {whose} own?",
        ),
    ),
    (  # a birthday
        r"when (?:is|was) my birthday",
        _BORN := (
            "When was I born?",
            "On what date was I born?",
            "What is my date of birth?",
            "Which day is my birthday?",
            "On which day do I celebrate my birthday?",
            "When do I have my birthday?",
        ),
    ),
    (r"when was I born", _BORN),
    (  # a colour, a number, a size of something
        r"(?:what|which) (?P<noun>[\w-]+) (?P<be>is|are|was|were) (?P<thing>(?:my|our|the) .+)",
        (
            "Which {noun} {be} {thing}?",
            "What is the {noun} of {thing}?",
            "What {noun} {be} {thing}?",
            "{thing} {be} which {noun}?",
            "Which {noun} does {thing} have?",
            "{thing}: what {noun} {be} it?",
            "Tell me the {noun} of {thing}.",
            "What {noun} has {thing} got?",
        ),
    ),
    (  # a date or time
        r"(?:when|on what day|on which day|on what date) (?P<be>is|was|are) (?P<thing>.+)",
        (
            "On which day {be} {thing}?",
            "What date {be} {thing}?",
            "What day {be} {thing} on?",
            "At what time {be} {thing}?",
            "Which day {be} it that we have {thing}?",
            "Tell me the date of {thing}.",
            "For which day {be} {thing} planned?",
        ),
    ),
    (
        r"(?:when|what time|at what time) (?P<do>do|does|did) (?P<who>SUBJECTS) (?P<rest>.+)",
        (
            "At what time {do} {who} {rest}?",
            "What time {do} {who} {rest}?",
            "On which day {do} {who} {rest}?",
            "From when on {do} {who} {rest}?",
            "At which hour {do} {who} {rest}?",
            "What is the time when {who} {form}?",
            "On what date {do} {who} {rest}?",
            "What is the date on which {who} {form}?",
            "Which date is it when {who} {form}?",
        ),
    ),
    (r"when does my (?P<thing>.+?) (?:start|begin)", ("At what time do I start my {thing}?",)),
    (  # a place
        r"where (?P<do>do|does|did) (?P<who>SUBJECTS) (?P<rest>.+)",
        (
            "In which place {do} {who} {rest}?",
            "What is the place where {who} {form}?",
            "At what place {do} {who} {rest}?",
            "Whereabouts {do} {who} {rest}?",
            "Which place is it where {who} {form}?",
            "Where is it that {who} {form}?",
            "Name the place where {who} {form}.",
            "{who} {form} where?",
        ),
    ),
    (
        r"where (?P<be>is|are|was|were) (?P<thing>(?:my|our|the) .+)",
        (
            "In which place {be} {thing}?",
            "What is the place of {thing}?",
            "Where can I find {thing}?",
            "At what place {be} {thing}?",
            "Whereabouts {be} {thing}?",
            "In what should I look for {thing}?",
            "I am looking for {thing}. Where can I find that?",
        ),
    ),
    (
        r"where (?P<be>was|were|am|are) (?P<who>I|we) (?P<rest>.+)",
        (
            "In which place {be} {who} {rest}?",
            "At what place {be} {who} {rest}?",
            "Whereabouts {be} {who} {rest}?",
            "Which place {be} {who} at {rest}?",
            "Where did it happen {rest}?",
            "What is the name of the place where {who} {be} {rest}?",
        ),
    ),
    (
        r"(?:where|in which town|in what town|which town) do I live(?: in)?",
        (
            "Which town is my home in?",
            "In what place is my home?",
            "Where is my home?",
            "What is the name of the place where I live?",
            "What town do I live in?",
        ),
    ),
    (
        r"where did (?P<who>my [\w-]+) and I meet",
        (
            "Where did I meet {who}?",
            "Where did I first meet {who}?",
            "At what place did I get to know {who}?",
        ),
    ),
    (  # something that somebody else has
        r"(?:which|what) (?P<noun>[\w -]+?) does (?P<who>my [\w-]+) (?P<rest>.+)",
        (
            "What is the name of {who}'s {noun}?",
            "What is {who}'s {noun} called?",
            "What is {who}'s {noun}?",
            "Which is the {noun} that {who} {form}?",
            "Tell me {who}'s {noun}.",
        ),
    ),
    (  # something that I do something with
        r"(?:which|what) (?P<noun>.+?) (?P<do>do|did) (?P<who>I|we) (?P<rest>.+)",
        (
            "What is the {noun} that {who} {form}?",
            "Which is the {noun} {who} {form}?",
            "What is {whose} {noun}?",
            "Which {noun} is {own}?",
            "Tell me which {noun} {who} {form}.",
            "Name the {noun} {who} {form}.",
            "What is the name of the {noun} {who} {form}?",
            "What {noun} is it that {who} {form}?",
            "What kind of {noun} {do} {who} {rest}?",
        ),
    ),
    (
        r"(?:which|what) (?P<noun>.+?) am I (?P<verb>\w+)ing(?P<rest>.*)",
        (
            "What {noun} is it that I am {verb}ing{rest}?",
            "Which is the {noun} I am {verb}ing{rest}?",
            "What is the {noun} that I'm {verb}ing{rest}?",
            "Name the {noun} I am {verb}ing{rest}.",
        ),
    ),
    (  # being something
        r"what am I allergic to",
        (
            "What is my allergy?",
            "Which thing gives me an allergic reaction?",
            "Which food am I allergic to?",
            "What must I not eat because of my allergy?",
        ),
    ),
    (
        r"what am I (?P<how>afraid of|scared of)",
        ("What is my fear?", "What scares me?", "Which thing frightens me?"),
    ),
    (
        r"what am I (?P<rest>.+)",
        ("What is it that I am {rest}?", "Which thing am I {rest}?", "Tell me what I'm {rest}."),
    ),
    (r"how tall am I", ("What is my height?", "What height am I?", "How high do I stand?")),
    (r"how old am I", ("What is my age?", "Which age am I?", "What age have I reached?")),
    (
        r"how many (?P<things>.+?) (?P<do>do|did|does) (?P<who>SUBJECTS) (?P<rest>.+)",
        (
            "What number of {things} {do} {who} {rest}?",
            "Exactly how many {things} {do} {who} {rest}?",
            "What is the number of {things} that {who} {form}?",
            "{who} {form} how many {things}?",
        ),
    ),
    (
        r"how many (?P<things>.+?) (?P<be>are|were) (?:there )?(?P<rest>.+)",
        (
            "What is the number of {things} {rest}?",
            "Exactly how many {things} {be} there {rest}?",
            "There {be} how many {things} {rest}?",
            "What number of {things} {be} there {rest}?",
            "Count the {things} {rest}: how many {be} there?",
        ),
    ),
    (
        r"how (?P<do>do|did) (?P<who>I|we) (?P<rest>.+)",
        (
            "In what way {do} {who} {rest}?",
            "What is the way in which {who} {form}?",
            "How is it that {who} {form}?",
            "What way {do} {who} {rest}?",
        ),
    ),
    (
        r"who (?P<rest>(?!is\b|are\b|was\b|were\b|do\b|does\b|did\b|am\b).+)",
        (
            "Which person {rest}?",
            "What is the name of the person who {rest}?",
            "Who is it that {rest}?",
            "Name the person who {rest}.",
            "Tell me the name of the one who {rest}.",
            "Whose name is it: who {rest}?",
        ),
    ),
    (
        r"what (?P<be>is|was) (?P<whose>my|our) first (?P<thing>.+)",
        (
            "Which {thing} did I have first?",
            "What {thing} {be} {whose} first?",
            "What {thing} did I own before all others?",
        ),
    ),
    (  # anything that is mine
        r"(?:what|which) (?P<be>is|are|was|were) (?P<thing>(?:my|our|the) .+)",
        (
            "Tell me {thing}.",
            "Which one {be} {thing}?",
            "What {be} {thing} again?",
            "Name {thing}.",
            "{thing}: which one {be} it?",
            "Which {be} {thing}?",
        ),
    ),
    (
        r"what (?P<do>do|does|did) (?P<who>SUBJECTS) (?P<rest>.+)",
        (
            "Which thing {do} {who} {rest}?",
            "What is it that {who} {form}?",
            "What is the thing that {who} {form}?",
            "Name the thing that {who} {form}.",
            "{who} {form} what?",
            "Say what {who} {form}.",
        ),
    ),
)


_TAIL = re.compile(
    rf"({_WH}\b.{{8,}}?) "
    r"((?:in|on|at|for|before|after|when|while|during|from|with|under|behind|near|by) [^,?]+)\?",
    re.I,
)


def _fronted(question: str) -> list[str]:
    """The end of a question in front of it: "In the van, what do I listen to?"."""
    match = _TAIL.fullmatch(expand(question).strip())
    if match and match[2].endswith(" called"):
        return []
    return [f"{capitalised(match[2])}, {_lower(match[1])}?"] if match else []


_APPOSED = re.compile(r"\b((?:my|our) [a-z][\w-]*) ([A-Z][\w-]+)((?:['’]s)?)")


def _shorter(question: str) -> list[str]:
    """Of "my husband Tom" either alone."""
    forms = [_APPOSED.sub(kept, question) for kept in (r"\1\3", r"\2\3")]
    return [form for form in forms if form != question]


def _pattern_forms(question: str) -> list[str]:
    """True rewordings of the commonest question types, the likeliest first."""
    text = expand(question).strip().rstrip("?.! ")
    out: list[str] = []
    for shape, forms in _SHAPES:
        match = re.fullmatch(shape.replace("SUBJECTS", _SUBJECT), text, re.I)
        if match is None:
            continue
        groups = match.groupdict()
        who = groups.get("who")
        if who is not None:
            mine = {"I": "my", "we": "our"}.get(who, f"{who}'s")
            groups.setdefault("whose", mine)
            groups["own"] = {"I": "mine", "we": "ours"}.get(who, f"{who}'s")
            groups["form"] = _stated(groups.get("do", "do"), groups.get("rest") or "")
        out += [capitalised(re.sub(r"\s+", " ", form.format(**groups))) for form in forms]
    return out


def _stated(aux: str, rest: str) -> str:
    """ "does", "start at six" → "starts at six"; "did", "first meet Jo" → "first met Jo"."""
    match = re.match(rf"((?:{_ADVERB} )*)([\w'’-]+)(.*)", rest, re.I)
    if match is None or aux.lower() == "do":
        return rest
    adverbs, verb, tail = match.groups()
    return adverbs + (third(verb) if aux.lower() == "does" else past(verb)) + tail


def _keywords(question: str) -> str:
    words = re.findall(r"[\w'’-]+", expand(question))
    kept = [w for w in words if w.lower() not in STOP or w.lower() in ("my", "our")]
    return " ".join(kept)


@cache
def _longest_phrase() -> int:
    """How many words the longest phrase of the thesaurus has."""
    return max(len(phrase.split(" ")) for phrase in thesaurus())


def _replaceable(question: str) -> list[tuple[int, int]]:
    """Where a phrase of the thesaurus stands: the longest that begins at each word."""
    table, text = thesaurus(), question.lower()
    if len(text) != len(question):  # "İ" has two letters in lower case
        return []
    words = [match.span() for match in re.finditer(r"[\w'’-]+", text)]
    found = []
    for i, (start, _) in enumerate(words):
        ends = [end for _, end in words[i : i + _longest_phrase()] if text[start:end] in table]
        if ends:
            found.append((start, ends[-1]))
    return found


def _synonyms(question: str, rng: random.Random, most: int) -> str | None:
    """The question with up to `most` of its words replaced; None where the thesaurus has none."""
    spans = _replaceable(question)
    if not spans:
        return None
    text, rest = question, len(question)
    for start, end in sorted(rng.sample(spans, min(most, len(spans))), reverse=True):
        if end <= rest:  # the phrases may overlap
            others = thesaurus()[question[start:end].lower()]
            text, rest = text[:start] + rng.choice(others) + text[end:], start
    return capitalised(text)


_TWICE = re.compile(r"\b(\w+) \1\b", re.I)  # a word that a phrase brought along


def _impersonal(question: str) -> str:
    """With "the" in place of "my", as people go on about what is theirs."""
    return _MINE.sub(lambda m: "The" if m[0][0].isupper() else "the", question)


def _staged(question: str, clause: str | None, rng: random.Random) -> list[str]:
    """The question in a small scene, or after what it is about: what comes first is beside it."""
    out = [] if clause is None else [scene.format(clause) for scene in rng.sample(_SCENES, 4)]
    thing = _MY_THING.search(question)
    if thing is not None:
        plain = _impersonal(question)
        out += [topic.format(plain, _lower(thing[0])) for topic in rng.sample(_TOPICS, 2)]
        if clause is not None:
            wrapper = rng.choice([w for w in _WRAPPERS if is_personal(w)])
            out.append(wrapper.format(_impersonal(clause)))
        if is_personal(plain):
            out.append(plain)
    rng.shuffle(out)
    return out


def reword(question: str, count: int, seed: int = 0) -> list[str]:
    """Up to `count` other wordings of one question, all different, the same for the same seed.

    Mostly true rewordings by the question's shape, then its keywords alone, a few as part of a
    sentence or behind one, and some with a synonym. An empty list means that no rule fits.
    """
    if len(question) > 200 or "\n" in question:
        return []
    rng = random.Random(f"{seed}:{question}")
    asked, question = question, timeless(_straight(question))
    shaped = [question, *_shorter(question), *_fronted(question), *_pattern_forms(question)]
    clause = embedded(question)
    told = [] if clause is None else [w.format(clause) for w in rng.sample(_WRAPPERS, 4)]
    keywords = _keywords(question)
    short = [keywords + "?", keywords.lower()] if len(keywords.split()) >= 2 else []
    bases = [question, *shaped, *told] * 2
    varied = [_synonyms(base, rng, rng.randint(1, MOST_REPLACED)) for base in bases]
    rng.shuffle(varied)
    staged = _staged(question, clause, rng)
    # Rounds of every kind, so that a small count has some of each and mostly true rewordings.
    kinds = [shaped, short, told, [v for v in varied if v], staged]
    order: list[str] = []
    while any(kinds):
        for kind, several in zip(kinds, PER_TURN, strict=True):
            order += kind[:several]
            del kind[:several]
    seen = {_norm(asked)}
    unique: list[str] = []
    for form in order:
        if _norm(form) not in seen and _TWICE.search(form) is None:
            seen.add(_norm(form))
            unique.append(form)
    chosen = unique[:count]
    rng.shuffle(chosen)
    return chosen


# "How do I remove the rust?" asks for advice; with "my" in it, it is about the person.
_ADVICE = re.compile(
    r"(?!.*\b(?:my|our)\b)(?:.*[.!?] )?"
    r"(?:how do (?:I|we) (?=.*\b(?:a|an|the|some|from|better|faster|more)\b)"
    r"|(?:(?:how|what|where|when|which \w+) )?(?:can|could|should|would|might) (?:I|we|you)\b)",
    re.I,
)


def asks_personally(question: str) -> bool:
    """Whether this is a short question about the person who asks it."""
    text = question.strip()
    return (
        len(text) <= 200
        and text.endswith("?")
        and _ADVICE.match(text) is None
        and is_personal(text)
    )


def _norm(text: str) -> str:
    return re.sub(r"[^\w]+", " ", text.lower()).strip()
