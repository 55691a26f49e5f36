"""The stages that everything passes before it is stored: mending, redacting, routing.

Puts `clean`, `redact` and `route` in their order; knows no database.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from acclimate.store.chats import Exchange
from acclimate.store.clean import language, mend, without_boilerplate
from acclimate.store.redact import Redacted, redact, redact_messages, redact_reply
from acclimate.store.route import Decision, decide

# Raised when any stage finds something else than before: what was read under an older number is
# read again, and what is stored is gone through once more.
RULES = 1


@dataclass(frozen=True)
class Tidied:
    """Exchanges as they may be stored. `originals` has the hash of each changed one as it was."""

    exchanges: list[Exchange]
    found: dict[str, int] = field(default_factory=dict)  # secrets by kind
    originals: Mapping[str, str] = field(default_factory=dict)  # new hash → old hash


def tidy_text(text: str, *, code: bool) -> Redacted:
    """A document's text without secrets; a note's also mended and without boilerplate."""
    return redact(text if code else without_boilerplate(mend(text)))


def tidy_exchanges(exchanges: Sequence[Exchange]) -> Tidied:
    """All of a document's exchanges; a message that many of them show is looked at once."""
    memo: dict[tuple[str, str], Redacted] = {}
    tidied = []
    originals = {}
    for exchange in exchanges:
        done = _tidy(exchange, memo)
        if done != exchange:
            originals[done.sha256()] = exchange.sha256()
        tidied.append(done)
    found: Counter[str] = Counter()
    for redacted in memo.values():
        found.update(redacted.found)
    return Tidied(tidied, dict(found), originals)


def _tidy(exchange: Exchange, memo: dict[tuple[str, str], Redacted]) -> Exchange:
    mended = [{**m, "content": mend(m["content"])} for m in exchange.prompt]
    asked = mended[-1]["content"]

    def reply(text: str) -> str:
        key = (asked, mend(text))
        if key not in memo:
            memo[key] = redact_reply(*key)
        return memo[key].text

    return replace(
        exchange,
        prompt=tuple(redact_messages(mended, memo)),
        reply=reply(exchange.reply),
        rejected=None if exchange.rejected is None else reply(exchange.rejected),
    )


@dataclass(frozen=True)
class Judged:
    """What is recorded of an example beside its content."""

    decision: Decision
    language: str


def judge(exchange: Exchange) -> Judged:
    """Of a tidied exchange."""
    return Judged(decide(exchange), language(exchange.text()))
