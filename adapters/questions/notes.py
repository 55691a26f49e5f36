"""A note's structure: headings, list items, table rows and sentences, each with its place.

Pure text; knows markdown and punctuation, not grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DEEPEST = 4  # headings and list items above a line that say what it is about
LONGEST = 600  # characters of a sentence that is looked at; longer ones are no prose

_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+•–]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_QUOTED = re.compile(r"[\s>]*>\s?")
_RULE = re.compile(r"\s*[-=*_~|:+ ]{3,}$")
_KEYED = re.compile(
    r"(?:\*\*|__)?(?P<key>[^\W_][^:=|.?!;*\n]{0,58}?)(?:\*\*|__)?"
    r"(?:\s*:(?:\*\*|__)?(?=\s)|\s+(?:[-–—]|->|→|\.{3,}|=)(?=\s)|\s*\.{4,}|\t)"
    r"\s*(?:\*\*|__)?(?P<value>\S[\s\S]*)$"
)
_LABELLED = re.compile(
    r"(?:\*\*|__)(?P<key>[^*_\n]{2,60}?)[:.,]?(?:\*\*|__)[:.,]?\s+(?P<value>\S[\s\S]*)$"
)
_STOP = re.compile(r"(?<=[^\s.])[.!?…]+[\"'”’)*_]*(?=\s|$)")
_SHORT = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Rev|No|Nr|vs|approx|ca|e\.g|i\.e|a\.m|p\.m|etc|tel|Tel|[A-Z])"
    r"|^\s*\d{1,3})\.$"
)
_GREETING = re.compile(
    r"\s*(?:Dear|Dearest|Hello|Hi|Hey)\s+(?:\w+\s+)?([A-Z][\w'’-]+)\s*[,!:]?\s*$"
)


_COUNTS = ("", "no", "nr", "number", "n")


@dataclass(frozen=True)
class Line:
    """A sentence, a keyed value or a table's cell, with what stands above it."""

    text: str
    start: int  # its offset in the note
    headings: tuple[str, ...] = ()  # the outermost first; bullets above count
    key: str = ""  # of "key: value"; `text` is the value then
    whole: str = ""  # all of the line, where `text` is a part of it
    item: bool = False  # stands in a list
    column: str = ""  # the header above a table's cell
    letter: str = ""  # to whom, where the note is a letter
    leads: bool = False  # ends in a colon and says what the lines below it are about

    @property
    def asks(self) -> bool:
        """Whether it ends in a question mark: it is asked, not told."""
        return self.text.rstrip(')*_"” ').endswith("?")


def lines(text: str) -> Iterator[Line]:
    """The note's sentences and lines in their order; code blocks are left out."""
    headings: list[tuple[int, str]] = []  # level, text; items count from 10 on
    paragraph: list[tuple[int, str]] = []  # offset, line
    header: list[str] | None = None
    letter, fenced, offset = "", False, 0

    def above() -> tuple[str, ...]:
        return tuple(h for _, h in headings[-DEEPEST:])

    def flush() -> Iterator[Line]:
        nonlocal letter
        greeting = _GREETING.match(paragraph[0][1]) if paragraph else None
        if greeting:
            letter = greeting[1]
            paragraph.pop(0)
        for start, sentence in _sentences(text, paragraph):
            yield from _keyed(sentence, start, above(), False, letter)
        paragraph.clear()

    for raw in text.splitlines(keepends=True):
        line, here = raw.rstrip("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), offset
        offset += len(raw)
        if _FENCE.match(line):
            yield from flush()
            fenced = not fenced
            continue
        if fenced:
            continue
        quoted = _QUOTED.match(line)
        if quoted:
            line, here = line[quoted.end() :], here + quoted.end()
        heading, item = _HEADING.match(line[:LONGEST]), _ITEM.match(line)
        row = line.strip().startswith("|") and line.count("|") > 2
        if not row:
            header = None
        if not line.strip() or (_RULE.match(line[:200]) and not row):
            yield from flush()
            if line.strip() == "" and headings and headings[-1][0] >= 10:
                headings = [h for h in headings if h[0] < 10]
        elif heading:
            yield from flush()
            level = len(line) - len(line.lstrip("# \t"))
            headings = [
                *((n, h) for n, h in headings if n < min(level, 9)),
                (min(level, 9), heading[1]),
            ]
        elif row:
            yield from flush()
            cells = [c.strip() for c in line.strip().strip("|").split("|")]
            if header is None:
                header = cells
            elif not all(re.fullmatch(r":?-*:?", c) for c in cells):
                yield from _cells(line, here, header, cells, above())
        elif item:
            yield from flush()
            level = 10 + min(len(item[1].expandtabs(4)), 80)
            headings = [(n, h) for n, h in headings if n < level]
            body = line[item.end() :]
            if re.fullmatch(r"[^:]{2,60}:\s*", body):
                headings.append((level, _bare(body)))
            else:
                for start, sentence in _sentences(text, [(here + item.end(), body)]):
                    yield from _keyed(sentence, start, above(), True, letter)
                label = _LABELLED.match(body) or _KEYED.match(body[:LONGEST])
                headings.append((level, _bare(label["key"] if label else body[:80])))
        elif re.fullmatch(r"[^:.?!]{2,60}:\s*", line) and not paragraph:
            headings = [h for h in headings if h[0] < 9]
            yield Line(line.rstrip(), here, above(), leads=True, letter=letter)
            headings.append((9, _bare(line)))
        elif here == 0 and not headings and _titled(text, line):
            headings.append((0, _bare(line)))
        else:
            if paragraph and paragraph[-1][1][:1] in " \t" and line[:1] not in " \t":
                yield from flush()
            paragraph.append((here, line))
    yield from flush()


def _titled(text: str, line: str) -> bool:
    """Whether the first line is a title: no full stop, and an empty line or all capitals after."""
    after = text[len(line) :].lstrip("\r")[1:2]
    return (
        len(line) < 80
        and line.rstrip()[-1:] not in ".?!,;:"
        and (after in ("\n", "\r") or line.isupper())
        and ":" not in line
    )


def _bare(text: str) -> str:
    return text.strip().strip("*_`").rstrip(":. ").strip()


def _keyed(
    sentence: str, start: int, headings: tuple[str, ...], item: bool, letter: str
) -> Iterator[Line]:
    found = _LABELLED.match(sentence) or _KEYED.match(sentence)
    if found is None:
        yield Line(sentence, start, headings, item=item, letter=letter)
        return
    yield Line(
        found["value"],
        start + found.start("value"),
        headings,
        _bare(found["key"]),
        sentence,
        item,
        letter=letter,
    )


def _cells(
    line: str, here: int, header: list[str], cells: list[str], headings: tuple[str, ...]
) -> Iterator[Line]:
    at = line.find(cells[0]) + len(cells[0])
    key = f"{header[0]} {cells[0]}" if cells[0].isdigit() else cells[0]
    if cells[0].isdigit() and len(cells) > 2 and header[0].lower().strip(".# ") in _COUNTS:
        key, header, cells = cells[1], header[1:], cells[1:]
        at = line.find(key, at) + len(key)
    for name, cell in zip(header[1:], cells[1:], strict=False):
        found = line.find(cell, at) if cell else -1
        if found >= 0 and len(cell) < 80:
            yield Line(cell, here + found, headings, key, line.strip(), True, name)
            at = found + len(cell)


def _sentences(text: str, paragraph: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Offset and text of each sentence in these lines, which follow each other."""
    if not paragraph:
        return
    blocks: list[tuple[int, int]] = []  # lines that run on are one block
    for n, (start, line) in enumerate(paragraph):
        end = start + len(line)
        previous = paragraph[n - 1][1] if n else ""
        joined = n and (len(previous) >= 60 or not re.match(r"\s*[A-Z\d*_\"“]", line))
        if joined and not _KEYED.match(line[:LONGEST]):
            blocks[-1] = (blocks[-1][0], end)
        else:
            blocks.append((start, end))
    for start, end in blocks:
        at = start
        for stop in _STOP.finditer(text, start, end):
            head = text[max(at, stop.end() - 12) : stop.end()]
            following = text[stop.end() : stop.end() + 3].lstrip()
            if following[:1].islower() or (_SHORT.search(head) and stop.end() < end):
                continue
            yield from _trimmed(text, at, stop.end())
            at = stop.end()
        yield from _trimmed(text, at, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, str]]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    if piece.strip() and len(piece) <= LONGEST:
        yield start, piece.strip()
