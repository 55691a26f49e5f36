"""Secrets in a text → markers that say what stood there. Finds much and promises nothing.

Pure; what a secret looks like is in `secret_kinds`.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from acclimate.store.secret_kinds import KINDS, Kind

_BEGUN = "[redacted: "
MARKER = re.compile(r"\[redacted: [a-z ]{2,30}\]")
# A question whose bare answer is a secret: nothing in "It's tulip42." would tell.
_ASKED = re.compile(
    r"\b(?:pass(?:word|phrase|code|wort)|kennwort|wi-?fi (?:key|code)|pin of my [a-z ]{0,20}card"
    r"|card'?s? pin)\b[^?\n]{0,60}\?\s*$",
    re.IGNORECASE,
)
_BARE = re.compile(
    r"\s*(?:(?:it|that)(?:['’]s| is)|the \w+ is|your \w+ is|es ist)?[\s:]*[\"'`]?(?P<s>\S{4,64}?)"
    r"[\"'`]?[.!]?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Redacted:
    """A text without the secrets that were found in it, and how many there were of each kind."""

    text: str
    found: dict[str, int] = field(default_factory=dict)


def redact(text: str) -> Redacted:
    """Replace every secret that is recognised by a marker such as "[redacted: aws key]".

    Lines keep their numbers. Takes time in proportion to the text's length, whatever it holds.
    """
    found: Counter[str] = Counter()
    lowered = text.lower()
    for kind in KINDS:
        if not kind.needles or any(needle in lowered for needle in kind.needles):
            text = _replace(text, kind, found)
    return Redacted(text, dict(found))


def redact_reply(question: str, reply: str) -> Redacted:
    """The same for a reply: to a question for a password, a word alone is one."""
    done = redact(reply)
    if done.found or not _ASKED.search(question[-200:]):
        return done
    bare = _BARE.fullmatch(reply[:200]) if len(reply) <= 200 else None
    if bare is None or MARKER.search(reply):
        return done
    return Redacted(reply[: bare.start("s")] + marker("password") + reply[bare.end("s") :],
                    {"password": 1})  # fmt: skip


def redact_messages(
    messages: Sequence[Mapping[str, str]], memo: dict[tuple[str, str], Redacted] | None = None
) -> list[dict[str, str]]:
    """A conversation without secrets. `memo` keeps what was found, by question and message."""
    memo = {} if memo is None else memo
    done = []
    asked = ""
    for message in messages:
        text = message["content"]
        key = (asked if message["role"] == "assistant" else "", text)
        if key not in memo:
            memo[key] = redact_reply(*key)
        done.append({"role": message["role"], "content": memo[key].text})
        asked = text if message["role"] == "user" else ""
    return done


def marker(kind: str) -> str:
    """What stands in a secret's place."""
    return f"{_BEGUN}{kind}]"


def _replace(text: str, kind: Kind, found: Counter[str]) -> str:
    parts = []
    done = 0
    for match in kind.pattern.finditer(text):
        start = match.start("s")
        if start < done or text.startswith(_BEGUN, start):
            continue
        length = kind.check(match)
        if not length:
            continue
        parts += [text[done:start], marker(kind.name)]
        done = start + length
        parts.append("\n" * text.count("\n", start, done))
        found[kind.name] += 1
    return "".join([*parts, text[done:]]) if parts else text
