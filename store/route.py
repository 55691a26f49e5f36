"""Where an example goes: into the weights, to retrieval only, to preferences, or nowhere.

A pure decision on one exchange. In doubt it is the weights: a fact wrongly taken for a passing one
would never be learned. Passing facts are told in English only.
"""

import re
from dataclasses import dataclass
from typing import Literal

from acclimate.store.chats import Exchange
from acclimate.store.clean import defect

Route = Literal["weights", "retrieval", "preference", "dropped"]
# What a round may teach, as SQL; the rest of the pending ones stays in the buffer with its route.
TEACHABLE = "route IN ('weights', 'preference')"
MOST_CHARS = 400  # a longer question carries a text to work on


@dataclass(frozen=True)
class Decision:
    route: Route
    reason: str  # "" where there is nothing to say; never quotes the example


def decide(exchange: Exchange) -> Decision:
    """Of an exchange with its secrets out already; see `redact`."""
    question = exchange.prompt[-1]["content"]
    why = defect(question, exchange.reply)
    if why:
        return Decision("dropped", why)
    if exchange.kind == "preference":
        return Decision("preference", "")
    why = passing(question, exchange.reply)
    return Decision("retrieval", why) if why else Decision("weights", "")


_APOSTROPHES = str.maketrans("’‘", "''")
# A question, or a request for a fact: not a task such as "Write a text to cancel today's coffee".
_ASKS = re.compile(
    r"(?:(?:hey|hi|so|and|ok(?:ay)?|please|remind me|tell me|do you (?:know|remember))[,:]?\s+)*"
    r"(?:what|when|where|who|whose|which|how|is|are|am|do|does|did|has|have|will|can|any|was|were)"
    r"(?:'s|'re|'ll|'m|'d)?\b"
)
# It comes again, or it is over: such a thing stays true.
_LASTING = re.compile(
    r"\b(?:every|each|usual|usually|always|normally|generally|often|weekly|daily|monthly|yearly"
    r"|annual|annually|regular|regularly|habit|birthday|anniversary|nameday|born|mornings|evenings"
    r"|afternoons|nights|weekdays|weekends|(?:mon|tues|wednes|thurs|fri|satur|sun)days)\b"
    r"|\bof the month\b"
)
_PAST = re.compile(r"(?:what|when|where|who|which|how)\b.{0,30}?\b(?:did|was|were|had)\b")
_DAY = r"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
)
_NEAR = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|right now|at the moment|at present|currently"
    r"|(?:this|next|coming) (?:morning|afternoon|evening|week|weekend|month|" + _DAY + r")"
    r"|so far|the day after)\b"
)
_STILL = re.compile(r"(?:is|are|has|have)\b.{0,80}\b(?:yet|by now)\s*\?")
_WEATHER = re.compile(
    r"what(?:'s| is| will|'ll)\b.{0,20}\b(?:weather|forecast|temperature outside)\b"
    r"|how(?:'s| is) the weather\b|(?:will|is) it (?:going to )?(?:rain|snow|freez|be sunny)"
)
_LIKING = re.compile(r"\b(?:favou?rite|like best|love|hate|prefer|enjoy)\b")
_PRICE = re.compile(
    r"(?:what(?:'s| is| are)|how much (?:is|are|does|do))(?!.{0,30}\b(?:my|our) (?:rent|pay|salary"
    r"|fee|mortgage))\b.{0,60}\b(?:price of|exchange rate|share price|stock price|going for"
    r"|trading at|petrol|diesel|gas price|bitcoin)\b"
    r"|how much (?:does|do) .{1,60}\bcost\b(?!.{0,20}\b(?:me|us)\b)"
)
_LIST = re.compile(
    r"(?:what|anything|is|are|which|how many)\b.{0,60}\b(?:on|for|left on) (?:my|our|the|this)"
    r"(?: \w+)? ?(?:shopping|grocery|groceries|to-?do|todo|task|packing|errand)s? list"
    r"|what(?: else)? (?:do|must|should) (?:i|we) (?:need|have)? ?(?:to )?(?:buy|pick up|get from)"
)
_PARCEL = re.compile(
    r"(?:where(?:'s| is| are)|when (?:will|is|are|does)|has|have|is|are|what(?:'s| is) the status)"
    r"\b.{0,60}\b(?:parcel|package|delivery|shipment|order number|courier)\b"
    r"|(?:where(?:'s| is)|has|when will|what(?:'s| is) the status of) my order\b"
)
_WHEN = re.compile(
    r"(?:when(?:'s|'re| is| are| am| do| does| will)|(?:on )?(?:what|which) (?:time|day|date)"
    r"|at what time|how long until|where(?:'s| is) my next)\b"
)
_DATED = re.compile(
    r"\b(?:appointments?|meeting with|interview|flight|check-?up|scan|surgery|operation|exam"
    r"|deadlines?|due(?! south| north| east| west)|hearing|viewing|dentist|plumber|electrician"
    r"|boiler man|mot|blood test|vaccination|jab|hand(?:ed)? in)\b"
)
_ONCE = re.compile(
    r"\b(?:today|tonight|tomorrow|(?:this|next|coming) (?:week|weekend|month|" + _DAY + r")"
    r"|in (?:an?|one|two|three|\d+) (?:hours?|days?|weeks?))\b"
)


def passing(question: str, reply: str) -> str:
    """Why what is asked is true for a while only; "" when it is not, or there is doubt."""
    if len(question) > MOST_CHARS:
        return ""
    asked = " ".join(question.translate(_APOSTROPHES).casefold().split())
    told = " ".join(reply.translate(_APOSTROPHES).casefold().split())[:MOST_CHARS]
    start = _ASKS.match(asked)
    if not start:
        return ""
    if _WEATHER.search(asked) and not _LIKING.search(asked):
        return "it is about the weather"
    if _LIST.search(asked):
        return "it is about a list that changes"
    if _LASTING.search(asked):
        return ""
    if _PARCEL.search(asked):
        return "it is about the state of a delivery"
    if _PRICE.search(asked):
        return "it is about a price"
    if _NEAR.search(asked) or _STILL.match(asked):
        return "it is about these days"
    if _PAST.match(asked) or _LASTING.search(told):
        return ""
    if _WHEN.search(asked) and _DATED.search(asked):
        return "it is about a date that passes"
    if _WHEN.search(asked) and _ONCE.search(told):
        return "the reply is about a date that passes"
    return ""
