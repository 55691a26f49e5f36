"""Words of English: forms of verbs, and classes of words.

Pure text; knows neither questions nor notes. The word lists stand in `data/`.
"""

from __future__ import annotations

import re
from functools import cache

from acclimate.adapters.shipped import shipped_lines

# Irregular past forms of common verbs; the rest takes -ed.
PAST = dict(
    pair.split(":")
    for pair in (
        "be:was bear:bore beat:beat become:became begin:began bend:bent bet:bet bind:bound "
        "bite:bit bleed:bled blow:blew break:broke breed:bred bring:brought build:built "
        "burn:burnt buy:bought "
        "cast:cast catch:caught choose:chose come:came cost:cost cut:cut deal:dealt dig:dug "
        "do:did draw:drew dream:dreamt drink:drank drive:drove "
        "eat:ate fall:fell feed:fed feel:felt fight:fought find:found fit:fitted fly:flew "
        "forbid:forbade forget:forgot forgive:forgave freeze:froze get:got give:gave go:went "
        "grind:ground grow:grew hang:hung have:had hear:heard hide:hid hit:hit hold:held "
        "hurt:hurt keep:kept kneel:knelt knit:knitted know:knew lay:laid lead:led lean:leant "
        "learn:learnt leave:left "
        "lend:lent let:let lie:lay light:lit lose:lost make:made mean:meant meet:met "
        "overhear:overheard pay:paid put:put "
        "quit:quit read:read ride:rode ring:rang rise:rose run:ran say:said see:saw sell:sold "
        "send:sent set:set sew:sewed shake:shook shine:shone shoot:shot show:showed shrink:shrank "
        "shut:shut sing:sang sink:sank sit:sat sleep:slept slide:slid smell:smelt sow:sowed "
        "speak:spoke spell:spelt spend:spent spill:spilt spin:spun split:split spoil:spoilt "
        "spread:spread stand:stood steal:stole stick:stuck strike:struck string:strung "
        "swear:swore sweep:swept swell:swelled swim:swam swing:swung "
        "take:took teach:taught tear:tore tell:told think:thought throw:threw "
        "understand:understood undo:undid upset:upset "
        "wake:woke wear:wore weave:wove weep:wept win:won wind:wound write:wrote"
    ).split()
)
_PARTICIPLE = dict(
    pair.split(":")
    for pair in (
        "be:been bear:born beat:beaten become:become begin:begun bite:bitten blow:blown "
        "break:broken choose:chosen come:come do:done draw:drawn drink:drunk drive:driven "
        "eat:eaten fall:fallen fly:flown forbid:forbidden forget:forgotten forgive:forgiven "
        "freeze:frozen give:given go:gone grow:grown hide:hidden know:known lie:lain ride:ridden "
        "ring:rung rise:risen run:run see:seen sew:sewn shake:shaken show:shown shrink:shrunk "
        "sing:sung sink:sunk sow:sown speak:spoken steal:stolen swear:sworn swim:swum take:taken "
        "tear:torn throw:thrown undo:undone wake:woken wear:worn weave:woven write:written"
    ).split()
)
# Verbs of several syllables that double their last consonant all the same.
_DOUBLING = frozenset("admit commit forbid occur permit prefer refer regret".split())
_PRESENT = {past: verb for verb, past in PAST.items()}
_PERSONAL = re.compile(r"\b(?:I|my|mine|myself|me|we|our|ours|us)\b", re.I)
Form = tuple[str, str]  # plain form; one of base, third, past, participle, ing


@cache
def classes() -> dict[str, frozenset[str]]:
    """Name of a class of words → its words in lower case, from `data/words.txt`."""
    pairs = (line.partition(":") for line in shipped_lines("words"))
    return {name: frozenset(words.split()) for name, _, words in pairs}


def belongs(word: str, *names: str) -> bool:
    """Whether the word is in one of the classes."""
    return any(word.lower() in classes()[name] for name in names)


@cache
def verb_forms() -> dict[str, tuple[Form, ...]]:
    """Form of a common verb → what it may be, as "cut" → base, past and participle of "cut"."""
    table: dict[str, list[Form]] = {}
    for verb in {*" ".join(shipped_lines("verbs")).split(), *PAST}:
        if verb == "be":
            continue
        forms = {
            "base": {verb},
            "third": {third(verb)},
            "past": {past(verb)},
            "participle": {participle(verb)},
            "ing": {gerund(verb)},
        }
        if verb in ("burn", "dream", "lean", "learn", "smell", "spell", "spill", "spoil", "fit"):
            regular = "fit" if verb == "fit" else verb + "ed"
            forms["past"].add(regular)
            forms["participle"].add(regular)
        for kind, spellings in forms.items():
            for spelling in spellings:
                table.setdefault(spelling, []).append((verb, kind))
    return {form: tuple(found) for form, found in table.items()}


def past(verb: str) -> str:
    """ "keep" → "kept", "stop" → "stopped"."""
    if verb in PAST:
        return PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    if _doubles(verb):
        return verb + verb[-1] + "ed"
    return verb + "ed"


def participle(verb: str) -> str:
    """ "keep" → "kept", "write" → "written"."""
    return _PARTICIPLE.get(verb) or past(verb)


def gerund(verb: str) -> str:
    """ "keep" → "keeping", "lie" → "lying"."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if re.search(r"[^eoy]e$", verb) and verb != "be":
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _doubles(verb) else "") + "ing"


def third(verb: str) -> str:
    """ "keep" → "keeps", "go" → "goes"."""
    if verb in ("have", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ies"
    return verb + "s"


def _doubles(verb: str) -> bool:
    one = re.fullmatch(r"(?:[^aeiou]*|[^aeiou]*qu)[aeiou][^aeiouwxy]", verb)
    travelling = re.fullmatch(r".*[^aeiou][aeiou]l", verb) and verb not in ("sail", "mail")
    return bool(one or travelling) or verb in _DOUBLING


def stem(word: str) -> str:
    """What the forms of a verb share, roughly: "goes", "going" → "go", "met" → "meet"."""
    word = _PRESENT.get(word, word)
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 2:
            return word[: -len(ending)]
    return word


def capitalised(text: str) -> str:
    """With a capital at its beginning, the rest as it is."""
    return text[:1].upper() + text[1:]


def is_personal(text: str) -> bool:
    """Whether a word speaks of the person: "my", "I", "our" …"""
    return _PERSONAL.search(text) is not None
