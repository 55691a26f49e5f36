"""A file, read, rid of secrets and cut up, before the database is asked.

Knows what a file is by its name and its source; knows no database.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from acclimate.store import extract
from acclimate.store.chats import BadLine, Exchange, parse_chat
from acclimate.store.chunk import NOTE_SUFFIXES, Chunk, chunk_text
from acclimate.store.curate import tidy_exchanges, tidy_text
from acclimate.store.extract import Raw, Refused
from acclimate.store.files import failpoint
from acclimate.store.sources import Source

CHAT_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Prepared:
    """What is to be written of a file."""

    path: str
    read_at: float
    raw: Raw | None
    device: int | None  # given where the file is on a mount below its source
    chunks: Sequence[Chunk] = ()
    exchanges: Sequence[Exchange] = ()
    bad_lines: Sequence[BadLine] = ()
    redacted: Mapping[str, int] = field(default_factory=dict)  # secrets by kind
    originals: Mapping[str, str] = field(default_factory=dict)  # see curate.Tidied
    refused: Refused | None = None


def prepare(
    source: Source,
    relative: str,
    max_file_bytes: int,
    device: int | None = None,
    problem: str = "",
) -> Prepared:
    """Read a file and cut it up; what is wrong with it is part of the result. Raises Missing."""
    read_at = time.time()
    try:
        if problem:
            raise Refused(problem)
        raw = extract.read_file(source.path, relative, max_file_bytes)
    except Refused as e:
        return Prepared(relative, read_at, None, device, refused=e)
    failpoint("ingest.read")
    return cut(source, Prepared(relative, read_at, raw, device), raw)


def cut(source: Source, prepared: Prepared, raw: Raw) -> Prepared:
    """What a file's bytes hold: chunks, or exchanges and bad lines; or why it is refused."""
    suffix = PurePosixPath(prepared.path).suffix.lower()
    try:
        if source.kind == "chat" or (source.kind == "manual" and suffix in CHAT_SUFFIXES):
            if suffix not in CHAT_SUFFIXES:
                raise Refused("not JSON Lines: a chat file ends in .jsonl", raw.size, raw.mtime_ns)
            exchanges, bad = parse_chat(raw.data)
            if bad and not exchanges and b"\0" in raw.data:
                raise Refused("binary, not JSON Lines", raw.size, raw.mtime_ns)
            tidied = tidy_exchanges(exchanges)
            return replace(
                prepared,
                exchanges=tidied.exchanges,
                bad_lines=bad,
                redacted=tidied.found,
                originals=tidied.originals,
            )
        code = source.kind == "code" or (source.kind == "manual" and suffix not in NOTE_SUFFIXES)
        text = extract.decode(raw)
        if code and suffix in NOTE_SUFFIXES[1:]:
            code = False
        safe = tidy_text(text, code=code)
        chunks = chunk_text(safe.text, "code" if code else "notes")
        return replace(prepared, chunks=chunks, redacted=safe.found)
    except Refused as e:
        return replace(prepared, refused=e)
