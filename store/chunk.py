"""A document's text → chunks, the units of retrieval, each with its lines.

Knows no files and no database.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from acclimate.store.chats import Exchange

NOTE_SUFFIXES = ("", ".md", ".markdown", ".mdx", ".txt", ".text", ".rst", ".org", ".adoc")
MAX_CHARS = 500
# The splitter's time grows with the square of its input: it gets this much at once.
_BLOCK_CHARS = 16_000
MOST_SENTENCES = 24
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")


@dataclass(frozen=True)
class Chunk:
    ordinal: int
    text: str
    start_line: int  # 1-based, both ends included
    end_line: int


def chunk_text(
    text: str, kind: Literal["notes", "code"] = "notes", max_chars: int = MAX_CHARS
) -> list[Chunk]:
    """Cut at headings, paragraphs and sentences (notes) or at blank and whole lines (code)."""
    splitter = (
        TextSplitter(max_chars, trim=False) if kind == "code" else MarkdownSplitter(max_chars)
    )
    line_starts = [0, *(i + 1 for i, char in enumerate(text) if char == "\n")]
    chunks: list[Chunk] = []
    for start, block in _blocks(text):
        for offset, piece in splitter.chunk_indices(block):
            body = piece.strip("\n")
            if not body.strip():
                continue
            first = start + offset + len(piece) - len(piece.lstrip("\n"))
            chunks.append(
                Chunk(
                    len(chunks),
                    body,
                    bisect_right(line_starts, first),
                    bisect_right(line_starts, first + len(body) - 1),
                )
            )
    return chunks


def sentences(text: str) -> list[str]:
    """The sentences and lines of a chunk, each to be found by itself; none where it is only one."""
    found = []
    for line in text.splitlines():
        bare = line.strip(" \t-*#>")
        parts = [part for part in _SENTENCE_END.split(bare) if len(part.split()) > 2]
        found += parts or ([bare] if bare else [])
    return found[:MOST_SENTENCES] if len(found) > 1 else []


def chunk_exchanges(exchanges: Sequence[Exchange]) -> list[Chunk]:
    """One chunk for each exchange, more only where it is longer than MAX_CHARS."""
    pairs = [(exchange.line, text) for exchange in exchanges for text in exchange_texts(exchange)]
    return [Chunk(i, text, line, line) for i, (line, text) in enumerate(pairs)]


def exchange_texts(exchange: Exchange) -> list[str]:
    """The texts of the chunks that an exchange becomes."""
    text = exchange.text()
    if len(text) <= MAX_CHARS:
        return [text]
    splitter = TextSplitter(MAX_CHARS)
    return [
        piece for _, block in _blocks(text) for piece in splitter.chunks(block) if piece.strip()
    ]


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    while start < len(text):
        end = start + _BLOCK_CHARS
        if end < len(text):
            for boundary in ("\n#", "\n\n", "\n", " "):
                cut = text.rfind(boundary, start + _BLOCK_CHARS // 2, end)
                if cut >= 0:
                    end = cut + 1
                    break
        yield start, text[start:end]
        start = end
