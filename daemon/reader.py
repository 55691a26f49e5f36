"""The reader: which words of the person's own passages answer a question.

A retriever and a reader (Chen et al. 2017, arXiv:1704.00051), the reader by phrase vectors (Lee et
al. 2021, arXiv:2012.12624): each word of a passage has a vector, of the embedder with a LoRA on it,
and a question points at the first and the last word of its answer. `benchmarks/persons` has taught
it. Knows texts and vectors; knows no chunks, no index and no language model.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from acclimate.adapters.grammar import stem
from acclimate.adapters.shipped import shipped_file
from acclimate.daemon.study import sentence
from acclimate.store.index import Hit

MOST_WORDS = 8  # of an answer
MOST_TOKENS = 256  # of a passage
LOOKED_AT = 10  # beginnings of answers in a passage
NEARNESS = 20.0  # what the passage's similarity to the question counts beside the two words'
# How much likelier than none an answer must be, to any question and to one that is about the
# person's life; below, the model reads as well.
SURE, SURE_OF_PERSON = 1.0, -1.0
# The latest of the best three answers counts that is so much likelier than none, and so much less
# likely than the best at most: it may be news of the same matter.
AS_GOOD, NEWS = 3.0, 2.0
KEPT = 48  # passages whose words are remembered

WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
# No answer goes over a line, the end of a sentence ("Mr. Penn" has none) or a verb like "is".
_ENDS = re.compile(
    r"[\x00-\x1f\x7f]|[^\W\d_]{4,}[.!?;]\s|[()]|\b(?:am|are|is|was|were)\b", re.IGNORECASE
)
_BEGINS = frozenset("$£€#'\"")
_LITTLE = frozenset("the a an my our your his her their of to in on at for with and".split())
_JOINTS = frozenset("-.:/@")  # between letters or digits they make one word of two
_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve (?:thir|four|fif|six|seven"
    "|eigh|nine)teen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand half"
    " quarter first second third"
    " (?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|\\w+teen|\\w+tie)th"
)
_NUMERIC = re.compile(rf"\d|\b(?:{'|'.join(_NUMBERS.split())})\b", re.IGNORECASE)

Vector = NDArray[np.float32]


class TokenEncoder(Protocol):
    """What is needed of `embed.Embedder`."""

    def tokens(self, text: str) -> list[int]: ...

    def states(self, rows: Sequence[Sequence[int]], adapter: Path) -> list[Vector]: ...


@dataclass(frozen=True)
class Quote:
    """An answer: words of one of the texts. `score` is above 0 where it is likelier than none."""

    at: int  # which of the texts
    text: str
    score: float
    rank: float = 0.0  # its score, and what the text's similarity to the question counts beside it


@dataclass(frozen=True)
class _Words:
    """The words of a passage: where they stand, and vectors of them as first and as last word."""

    text: str
    spans: list[tuple[int, int]]
    first: NDArray[np.float16]  # (words, dimensions)
    last: NDArray[np.float16]

    def said(self, first: int, last: int) -> str:
        return self.text[self.spans[first][0] : self.spans[last][1]]

    def may_begin(self, word: int) -> bool:
        at = self.spans[word][0]
        letter, before = self.text[at], self.text[max(0, at - 2) : at]
        whole = len(before) < 2 or not (before[0].isalnum() and before[1] in _JOINTS)
        return whole and (letter.isalnum() or letter in _BEGINS)

    def whole_name(self, first: int, last: int) -> tuple[int, int]:
        """With the words of a name right before and behind, if these are of one."""
        while last + 1 < len(self.spans) and self._one_name(last, last + 1):
            last += 1
        while first and self._one_name(first - 1, first) and not self._may_open(first - 1):
            first -= 1
        return first, last

    def _one_name(self, word: int, following: int) -> bool:
        (start, stop), (begin, _) = self.spans[word], self.spans[following]
        between = self.text[stop:begin]
        both = self.text[start], self.text[begin]
        return between == " " and all(letter.isupper() for letter in both)

    def _may_open(self, word: int) -> bool:
        """Whether a sentence may begin there, which makes a capital of any word."""
        before = self.text[: self.spans[word][0]].rstrip(" \"'*_([-")
        return not before or before[-1] in ".!?:;\n"

    def may_end(self, word: int) -> bool:
        behind = self.text[self.spans[word][1] :][:2]
        return len(behind) < 2 or not (behind[0] in _JOINTS and behind[1].isalnum())


class Reader:
    """Any thread may call it. `adapter` and `heads` are files that
    `benchmarks/persons/teach_reader.py` writes."""

    def __init__(self, encoder: TokenEncoder, adapter: Path, heads: Path) -> None:
        self._encoder = encoder
        self._adapter = adapter
        self._heads = {k: v.astype(np.float32) for k, v in load_file(heads).items()}
        self._start, *_, self._end = encoder.tokens("a")
        self._lock = Lock()
        self._kept: OrderedDict[str, _Words] = OrderedDict()
        self._pieces: dict[str, list[int]] = {}

    @classmethod
    def shipped(cls, encoder: TokenEncoder) -> Reader:
        """The one that comes with the program, for the default embedder."""
        return cls(encoder, shipped_file("reader.gguf"), shipped_file("reader.safetensors"))

    def answer(
        self, question: str, vector: Vector, passages: Sequence[Hit], *, personal: bool = False
    ) -> Quote | None:
        """The best answer that these have, each with its similarity as score; None where it is not
        surely enough likelier than none.

        `personal` says that the question is about the person's life. Raises EngineError,
        AdapterError.
        """
        near = [hit.score for hit in passages]
        quotes = self.read(question, vector, [hit.text for hit in passages], near)
        if not quotes or quotes[0].score <= (SURE_OF_PERSON if personal else SURE):
            return None
        best = quotes[0]
        others = [quote for quote in quotes[1:3] if _as_good(quote, best)]
        latest = max((best, *others), key=lambda quote: passages[quote.at].chunk_id)
        return replace(latest, score=max(latest.score, best.score))

    def read(
        self, question: str, vector: Vector, texts: Sequence[str], nearness: Sequence[float]
    ) -> list[Quote]:
        """The best answer of each text to the question, whose vector this is, the best one first.

        `nearness` is how near each text is to it (a cosine). Raises EngineError, AdapterError.
        """
        if not texts:
            return []
        heads = self._heads
        inner = heads["inner.weight"] @ vector + heads["inner.bias"]
        asked = vector + heads["outer.weight"] @ _gelu(inner) + heads["outer.bias"]
        first, last = (_unit(heads[f"{name}.weight"] @ asked) for name in ("first", "last"))
        none = 2 * float(heads["none.weight"] @ vector + heads["none.bias"])
        known = frozenset(content_words(question))
        quotes: list[Quote] = []
        for at, (words, near) in enumerate(zip(self._words(texts), nearness, strict=True)):
            fits_first, fits_last = (
                vectors.astype(np.float32) @ pointing
                for vectors, pointing in ((words.first, first), (words.last, last))
            )
            if found := _best(words, fits_first, fits_last, known):
                begin, end, fits = found
                score = float(heads["scale"]) * fits - none
                quotes.append(Quote(at, words.said(begin, end), score, score + NEARNESS * near))
        return sorted(quotes, key=lambda quote: -quote.rank)

    def _words(self, texts: Sequence[str]) -> list[_Words]:
        with self._lock:
            known = {text: self._kept[text] for text in texts if text in self._kept}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known |= zip(new, self._made(new), strict=True)
        with self._lock:
            for text in texts:
                self._kept[text] = known[text]
                self._kept.move_to_end(text)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return [known[text] for text in texts]

    def _made(self, texts: Sequence[str]) -> list[_Words]:
        laid = [self._laid(text) for text in texts]
        states = self._encoder.states([tokens for tokens, _, _ in laid], self._adapter)
        return [
            _Words(
                text,
                spans,
                _unit(state[[first for first, _ in places]]).astype(np.float16),
                _unit(state[[last for _, last in places]]).astype(np.float16),
            )
            for text, (_, spans, places), state in zip(texts, laid, states, strict=True)
        ]

    def _laid(self, text: str) -> tuple[list[int], list[tuple[int, int]], list[tuple[int, int]]]:
        """Tokens, words as places in the text, and the first and last token of each."""
        tokens, spans, places = [self._start], [], []
        for match in WORD.finditer(text):
            piece = self._piece(match[0])
            if len(tokens) + len(piece) >= MOST_TOKENS:
                break
            if piece:
                spans.append(match.span())
                places.append((len(tokens), len(tokens) + len(piece) - 1))
                tokens += piece
        return [*tokens, self._end], spans, places

    def _piece(self, word: str) -> list[int]:
        if word not in self._pieces:
            if len(self._pieces) > 50_000:
                self._pieces.clear()
            self._pieces[word] = self._encoder.tokens(word)[1:-1]
        return self._pieces[word]


def quoting(words: str) -> str:
    """A grammar (GBNF) for a reply of these words alone, as a sentence."""
    said = sentence(words).replace("\\", "\\\\").replace('"', '\\"')
    return f'root ::= "{said}"'


def _as_good(quote: Quote, best: Quote) -> bool:
    """Whether an answer may be the right one instead of the best."""
    clear = quote.score >= NEWS and quote.rank >= best.rank - AS_GOOD
    return clear and is_numeric(quote.text) == is_numeric(best.text)


def is_numeric(text: str) -> bool:
    """Whether it says a number, in digits or words."""
    return _NUMERIC.search(text) is not None


def _best(
    words: _Words, first: Vector, last: Vector, known: Set[str]
) -> tuple[int, int, float] | None:
    """First and last of the words that fit best together, and how well; None where nothing may be
    an answer: what is `known` from the question is none.
    """
    found: tuple[int, int] | None = None
    most = -np.inf
    for begin in np.argsort(-first, kind="stable")[:LOOKED_AT].tolist():
        if not words.may_begin(begin):
            continue
        for end in range(begin, min(len(words.spans), begin + MOST_WORDS)):
            said = words.said(begin, end)
            if _ENDS.search(said):
                break
            if not words.may_end(end) or known >= {*content_words(said)}:
                continue
            fits = float(first[begin] + last[end])
            if fits > most:
                found, most = (begin, end), fits
    return None if found is None else (*words.whole_name(*found), most)


def content_words(text: str) -> list[str]:
    """The words of a text in one spelling, without those that say little."""
    words = (match[0] for match in WORD.finditer(text.casefold()) if match[0].isalnum())
    return [stem(word) for word in words if word not in _LITTLE]


def _unit(vectors: Vector) -> Vector:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Vector = vectors / np.maximum(norms, 1e-6)
    return unit


def _gelu(x: Vector) -> Vector:
    """GELU (its tanh form)."""
    out: Vector = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return out
