"""Why a text is not worth teaching, what is mended in it, and which lines of a note are no note.

Pure: texts in, texts and reasons out. A reason never quotes the text.
"""

import re
from collections import Counter
from collections.abc import Sequence

from acclimate.store.redact import MARKER

MAX_CHARS = 20_000  # of a question or a reply; a round's own limit is far lower
_LETTER_SHARE = 0.3
_LONG = 40  # characters from which shares say something
_MANY_WORDS = 60
_DISTINCT_SHARE = 0.1
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# UTF-8 that was read as Windows-1252: the characters that its second and later bytes become.
_BYTES = {bytes([n]).decode("cp1252", "ignore") or chr(n): n for n in range(0x80, 0x100)}
_LATER = "".join(char for char, n in _BYTES.items() if n < 0xC0)
# Quotes and dashes may follow a capital Ã in earnest, at the end of a word.
_SIGNS = "“”‘’„‚–—…‹›"
_SURE = re.escape("".join(char for char in _LATER if char not in _SIGNS))
_MOJIBAKE = re.compile(
    f"(?:[ÃÂ][{_SURE}]|(?<![^\\W\\d_])Ã[{_SIGNS}](?=[^\\W\\d_])|â[{re.escape(_LATER)}]{{2}}"
    f"|ð[{re.escape(_LATER)}]{{3}})+"
)

_STOCK = re.compile(
    r"\s*(?:(?:i['’]?m|i am) sorry,? but |i apologi[sz]e,? but |unfortunately,? "
    r"|sorry,? (?:but )?)?"
    r"(?:as an? (?:ai|artificial intelligence|large language|language)\b"
    r"|i['’]?(?:m| am) (?:just |only )?an? (?:ai|artificial intelligence|large language|language)\b"
    r"|i (?:cannot|can['’]?t|am unable to|am not able to) (?:assist|help|fulfil|comply|provide|"
    r"engage|access|browse|open|create|generate|support)\b"
    r"|i (?:don['’]?t|do not) have (?:access to (?:personal|real-time|your|the internet)|"
    r"personal (?:opinions|feelings|experiences)|real-time)"
    r"|my (?:knowledge cutoff|training data))",
    re.IGNORECASE,
)
_BLOB = re.compile(r"[A-Za-z0-9+/=_-]{120,}+")


def mend(text: str) -> str:
    """Undo a wrong decoding where only one reading is possible: "cafÃ©" → "café"."""
    return _MOJIBAKE.sub(_decoded, text) if not text.isascii() else text


def _decoded(match: re.Match[str]) -> str:
    try:
        read = bytes(_BYTES.get(char, 0) for char in match[0]).decode()
    except UnicodeDecodeError:
        return match[0]
    return read if read.isprintable() or read == "\u00a0" else match[0]


def defect(question: str, reply: str) -> str:
    """Why this reply to this question is not worth teaching; "" when it is."""
    if MARKER.search(reply):
        return "the reply held a secret"
    if not any(map(str.isalnum, question)):
        return "nothing is asked"
    if not any(map(str.isalnum, reply)):
        return "the reply says nothing"
    if max(len(question), len(reply)) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    if _STOCK.match(reply):
        return "the reply is an assistant's stock phrase"
    return _broken(question + "\n" + reply) or _no_language(question) or _no_language(reply)


def _broken(text: str) -> str:
    lost = text.count(_REPLACEMENT)
    if (lost >= 3 and lost > len(text) / 200) or lost > len(text) / 50:
        return "characters were lost in another encoding"
    wrong = len(_MOJIBAKE.findall(text))
    return "read in a wrong encoding" if wrong >= 3 and wrong > len(text) / 100 else ""


def _no_language(text: str) -> str:
    if len(text) < _LONG:
        return ""
    packed = "".join(text.split())
    if sum(map(str.isalpha, packed)) < _LETTER_SHARE * len(packed):
        return "hardly any letters"
    if sum(map(len, _BLOB.findall(text))) > len(packed) / 2:
        return "not a language: data"
    words = text.casefold().split()
    if max(Counter(packed).values()) > 0.6 * len(packed):
        return "repeats itself"
    if len(words) >= _MANY_WORDS and len(set(words)) < _DISTINCT_SHARE * len(words):
        return "repeats itself"
    return ""


_COOKIES = (
    r"(?:we|this (?:web)?site) uses? cookies (?:to|and|for|on)\b|accept (?:all )?cookies"
    r"|cookie (?:policy|settings|preferences|consent)|wir verwenden cookies"
    r"|by continuing to (?:use|browse) (?:this|our) (?:web)?site"
)
_FOOTER = (
    r"^\W*unsubscribe\W*$|unsubscribe (?:here|from this|at any time|by clicking)"
    r"|click (?:here )?to unsubscribe|you (?:are receiving|received) this (?:e-?mail|newsletter)"
    r"|view (?:this (?:e-?mail )?)?in your browser|(?:update|manage) your (?:e-?mail )?preferences"
    r"|^\W*(?:©|copyright).{0,80}all rights reserved|newsletter abbestellen"
    r"|^\W*sent from my (?:iphone|ipad|android|galaxy|phone|mobile)"
    r"|^\W*von meinem (?:iphone|ipad|smartphone|handy) gesendet|^\W*get outlook for\b"
)
_QUOTE = (
    r"^[> ]*on .{6,120} wrote:\s*$|^[> ]*am .{6,120} schrieb .{1,80}:\s*$"
    r"|^[> ]*le .{6,120} a écrit\s?:\s*$"
    r"|^[> ]*-{2,} ?(?:original message|forwarded message|ursprüngliche nachricht) ?-{2,}\s*$"
)
_BOILERPLATE = re.compile(f"{_COOKIES}|{_FOOTER}|{_QUOTE}", re.IGNORECASE)
_MAX_LINE = 400  # a longer line is a paragraph, and has something else to say too
_HEADER = re.compile(
    r"[> *]*(?:from|sent|date|to|cc|subject|von|gesendet|datum|an|betreff)\*?:", re.IGNORECASE
)
_SIGNATURE_LINES = 8


def without_boilerplate(text: str) -> str:
    """A note without cookie banners, newsletter footers, signatures and headers of quoted mail.

    A line that goes leaves an empty one, so that all others keep their numbers.
    """
    lines = text.split("\n")
    signature = 0  # how many lines may still belong to one
    for i, line in enumerate(lines):
        if line == "-- ":  # RFC 3676
            signature = _SIGNATURE_LINES + 1
        signature = signature - 1 if signature and line.strip() else 0
        if signature or (len(line) <= _MAX_LINE and _BOILERPLATE.search(line)):
            lines[i] = ""
    start = 0
    for i, line in enumerate([*lines, ""]):
        if _HEADER.match(line):
            continue
        if start and i - start >= 3:  # one at the very top is the mail's own
            lines[start:i] = [""] * (i - start)
        start = i + 1
    return "\n".join(lines)


_STOP_WORDS = {
    "en": "the a an and is are was of to in what who where when which how my our your i you it do"
    " does did for with on that this have has not be",
    "de": "der die das ein eine und ist sind war von zu in was wer wo wann welche wie mein meine"
    " unser dein ich du es für mit auf dass nicht den dem heißt",
    "fr": "le la les un une et est sont de des du que qui où quand quel quelle comment mon ma mes"
    " notre votre je tu il elle pour avec sur dans pas",
    "es": "el la los las un una y es son de del que quién dónde cuándo cuál cómo mi mis nuestro"
    " tu yo para con en no se por está",
    "it": "il lo la gli un una e è sono di del della che chi dove quando quale come mio mia nostro"
    " tuo io per con nel non si",
    "pt": "o a os as um uma e é são de do da que quem onde quando qual como meu minha nosso seu eu"
    " para com em não se por está",
    "nl": "de het een en is zijn was van te in wat wie waar wanneer welke hoe mijn ons jouw ik je"
    " voor met op dat niet",
    "sv": "en ett och är var av till i vad vem när vilken hur min mitt vår din jag du det för med"
    " på att inte den",
    "da": "en et og er var af til i hvad hvem hvor hvornår hvilken hvordan min mit vores din jeg"
    " du det for med på at ikke den",
    "pl": "i jest są był w na do co kto gdzie kiedy który jak mój moja nasz twój ja ty to dla z"
    " nie się że",
    "cs": "a je jsou byl v na do co kdo kde kdy který jak můj moje náš tvůj já ty to pro s ne se"
    " že",
    "tr": "ve bir bu da de mi ne kim nerede nasıl hangi benim bizim senin ben sen için ile değil"
    " var çok",
}
_LANGUAGES = {name: frozenset(words.split()) for name, words in _STOP_WORDS.items()}
_SCRIPTS = (
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
)
_MOST_WORDS = 400


def language(text: str) -> str:
    """A guess by its commonest words or its script, as "en"; "" when nothing speaks for one."""
    sample = text[: 20 * _MOST_WORDS]
    for name, letters in _SCRIPTS:
        if len(letters.findall(sample)) > len(sample) / 5:
            return name
    words = re.findall(r"[^\W\d_]+", sample.casefold())[:_MOST_WORDS]
    hits = {name: sum(word in known for word in words) for name, known in _LANGUAGES.items()}
    best = max(hits, key=lambda name: hits[name])
    rival = max(n for name, n in hits.items() if name != best)
    return best if hits[best] >= 2 and hits[best] > rival and hits[best] > len(words) / 8 else ""


def telling(words: Sequence[str]) -> list[str]:
    """Those that are not among the commonest of their language; all, where nothing would be left
    or the language cannot be told."""
    common = _LANGUAGES.get(language(" ".join(words)), frozenset())
    return [word for word in words if word not in common] or list(words)
