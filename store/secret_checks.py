"""Whether what looks like a secret is one: sums of digits, randomness, the words around it.

Each function takes a match whose group "s" may be a secret, and gives how many of its characters
are, 0 for none.
"""

import base64
import binascii
import itertools
import json
import math
import re
from collections import Counter


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def card(match: re.Match[str]) -> int:
    """Luhn's sum, and a length that the issuer of these first digits has."""
    digits = _digits(match["s"])
    known = (
        (re.match(r"4", digits) and len(digits) in (13, 16, 19))
        or (re.match(r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)", digits) and len(digits) == 16)
        or (re.match(r"3[47]", digits) and len(digits) == 15)
        or (re.match(r"3(?:0[0-5]|[689])", digits) and len(digits) == 14)
        or (re.match(r"35(?:2[89]|[3-8])|6(?:011|4[4-9]|5|2)", digits) and len(digits) == 16)
        or (re.match(r"50|5[6-9]|6[37]", digits) and 16 <= len(digits) <= 19)
    )
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    luhn = sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
    return len(match["s"]) if known and luhn and len(set(digits)) > 1 else 0


_IBAN_LENGTHS = {
    country: int(length)
    for country, length in (
        pair.split(":")
        for pair in (
            "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28"
            " CZ:24 DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18"
            " GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32"
            " LI:21 LT:20 LU:20 LV:21 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24"
            " PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 TN:24 TR:26"
            " UA:29 VA:22 VG:24 XK:20"
        ).split()
    )
}


def iban(match: re.Match[str]) -> int:
    """The country's length, and ISO 13616's remainder of 1; what follows it may be another word."""
    text = match["s"]
    wanted = _IBAN_LENGTHS.get(text[:2].upper(), 0)
    number = ""
    for length, char in enumerate(text, start=1):
        if char.isalnum():
            number += char.upper()
        if wanted and len(number) == wanted:
            if text[length : length + 1].isalnum():
                return 0
            turned = number[4:] + number[:4]
            return length if int("".join(str(int(c, 36)) for c in turned)) % 97 == 1 else 0
    return 0


def jwt(match: re.Match[str]) -> int:
    """The head is JSON that names an algorithm."""
    head = match["s"].partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return 0
    return len(match["s"]) if isinstance(found, dict) and {"alg", "enc", "typ"} & set(found) else 0


_PLACEHOLDER = re.compile(
    r"[\[<{]|\$[({]|\$[a-z_]\w*$|%[(sd{]|\*{3}|\.{3}|…|x{3}|\?{2}|_{3}|-{2}|#{3}"
    r"|(?:your|my|the|some|example|sample|dummy|fake|placeholder|change[_-]?me"
    r"|redacted|todo|tbd|none|null|nil|true|false|undefined|secret|password|token)"
    r"(?:$|[_.(-]|here|me$)",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"[A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60})+|[A-Za-z_][\w.]{0,80}[\[(].*")


def _bare(match: re.Match[str]) -> str:
    """The value without what ends its sentence or its line of code."""
    return match["s"] if match.groupdict().get("q") else match["s"].rstrip(".,;:)]}>")


def _is_placeholder(value: str, quoted: bool) -> bool:
    if len(set(value)) < 3 or _PLACEHOLDER.match(value):
        return True
    return not quoted and _REFERENCE.fullmatch(value) is not None


def given(match: re.Match[str]) -> int:
    return 0 if _is_placeholder(match["s"], True) else len(match["s"])


def entropy_bits(text: str) -> float:
    """Shannon's entropy of its characters, in bits each."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def random(match: re.Match[str]) -> int:
    """As a generator makes it: letters and digits mixed, no words with a number behind them."""
    value = match["s"].rstrip(".,;:-_=") or match["s"]
    if _is_placeholder(value, False) or not re.search(r"\d", value):
        return 0
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in value if c.isalnum()]
    turns = sum(a != b for a, b in itertools.pairwise(kinds))
    mixed = turns >= len(value) / 6 and entropy_bits(value) >= 3.0 and set(kinds) != {"d"}
    return len(match["s"]) if mixed else 0


# What follows "the password is" where it is not told.
_NO_PASSWORD = frozenset(
    """
    a about above again all already also always an and another any are as ask asked at available
    be been below best between blank both bug but by can cannot case changed changing check checked
    compromised correct correctly could default different difficult disabled does due each easy
    either email empty enabled encrypted entered enough even every expired expiring field file fine
    first for forgotten found from given gone good guessable had handled hard has hash hashed have
    he her here hidden his how if ignored important in incorrect input inside int into invalid is
    it its kept known last leaked least len length less like locked long longer lost made masked
    matches maybe missing more most mandatory must my need needed never new no none nonsense not
    nothing now null of off ok okay old on one only optional or other our out over passed please
    printed private probably protected public quite random read really rejected removed required
    reset right safe salted same saved secure see sent set shared she short should shown simple
    slightly so some something stale still stored str strong string such text than that the their
    them then there they this to together too true undefined under unique unknown unsafe up updated
    used useless valid variable very visible was way weak well what when where which who why will
    with within without word wrong written yes yet you your
    ein eine falsch im in auf unter nicht noch bei der die das hier dort geheim abgelaufen neu alt
    """.split()
)
_NOT_ITSELF = re.compile(
    r"[ _-]*(?:manager|polic|reset|hint|generator|length|rule|strength|book|safe|vault|field|prompt"
    r"|protect|change|check|file|hash|less|count|min|max|requirement|expir|recovery)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[\"'`)\]]{0,3}[.,;!?)]{0,3}[ \t]*(?:$|\n|[.!?]|,|(?:and|und)\b)")


def password(match: re.Match[str]) -> int:
    """A word alone must end its sentence and be none that only speaks about passwords."""
    value = _bare(match)
    quoted = bool(match.groupdict().get("q"))
    if _NOT_ITSELF.match(match.groupdict().get("about") or ""):
        return 0
    if len(value) < 3 or value.lower() in _NO_PASSWORD or _is_placeholder(value, quoted):
        return 0
    plain = value.replace("-", "").replace("_", "")
    if not quoted and (plain.isdigit() or (plain.islower() and plain.isalpha()) or plain.istitle()):
        end = match.start("s") + len(value)
        if not _SENTENCE_END.match(match.string, end):
            return 0
    return len(value)


def certain_password(match: re.Match[str]) -> int:
    """After "pass" or "pw", which have other meanings: it has a digit or a sign besides letters."""
    value = _bare(match)
    return 0 if value.isalpha() or value.isdigit() else password(match)


_CARD_WORDS = re.compile(
    r"card|karte|visa\b|master|maestro|amex|debit|credit|kredit|bank|giro|konto|account|carte"
    r"|tarjeta|\bec\b|\bsim\b|\batm\b|revolut|monzo",
    re.IGNORECASE,
)


def pin(match: re.Match[str]) -> int:
    """Of a card or an account: the PIN of a garden gate is an ordinary fact."""
    line = match.string[max(0, match.start() - 60) : match.end() + 30]
    before, _, after = line.rpartition(match[0])
    near = before.rpartition("\n")[2] + match[0] + after.partition("\n")[0]
    return len(match["s"]) if _CARD_WORDS.search(near) else 0


def pgpass(match: re.Match[str]) -> int:
    host = match["host"]
    named = "." in host or host in ("localhost", "*") or re.search(r"[g-zG-Z]", host)
    return len(match["s"]) if named and re.match(r"[A-Za-z_*]", match["user"]) else 0


# Words that prose has and a seed phrase (BIP 39) has not.
_NO_SEED = frozenset("the and for was are not has had her his our your from but with were".split())


def seed(match: re.Match[str]) -> int:
    words = re.findall(r"[a-z]+", match["s"].lower())
    return 0 if _NO_SEED & set(words) else len(match["s"])
