"""Passages that were forgotten for what they say: later scans leave them out.

Keeps keyed hashes of words, never the words. The key lies in the same home: it keeps the hashes of
one home from being compared with another's, and hides nothing from whoever has the home itself.
"""

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Iterable, Sequence

from acclimate.store.chunk import Chunk
from acclimate.store.conversations import plain

_KEY = "hidden_key"
_WORD = re.compile(r"\w+")


def hide(conn: sqlite3.Connection, document_id: int, passages: Sequence[str], text: str) -> None:
    """Keep `passages` out of every file, and what says `text` as they do out of this document.

    A file that is edited is cut up in other places, so the hash of a passage alone would bring
    back what it held. `passages` hold `text` together; it is widened to whole words.
    """
    key = _key(conn) or _new_key(conn)
    rows: set[tuple[int | None, int, str]] = {
        (None, *_digest(key, _words(passage))) for passage in passages
    }
    rows |= {(document_id, *_digest(key, said)) for said in _around(" ".join(passages), text)}
    conn.executemany(
        "INSERT INTO hidden_passages(document_id, words, digest) SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
        " (SELECT 1 FROM hidden_passages WHERE document_id IS ?1 AND digest = ?3)",
        rows,
    )


def visible(conn: sqlite3.Connection, document_id: int, chunks: Sequence[Chunk]) -> list[Chunk]:
    """The chunks of a document that were not forgotten, nor have a part in what was."""
    key = _key(conn)
    if key is None:
        return list(chunks)
    cut = [_words(chunk.text) for chunk in chunks]
    whole = [_digest(key, words)[1] for words in cut]
    known = conn.execute(
        "SELECT digest FROM hidden_passages WHERE document_id IS NULL"
        " AND digest IN (SELECT value FROM json_each(?))",
        (json.dumps(whole),),
    )
    everywhere = {row["digest"] for row in known.fetchall()}
    own: dict[int, set[str]] = {}  # by the length in words
    for row in conn.execute(
        "SELECT words, digest FROM hidden_passages WHERE document_id = ?", (document_id,)
    ).fetchall():
        own.setdefault(row["words"], set()).add(row["digest"])
    gone = {n for n, digest in enumerate(whole) if digest in everywhere}
    said = [(word, n) for n, words in enumerate(cut) for word in words]
    for length, digests in own.items():
        for at in range(len(said) - length + 1):
            part = said[at : at + length]
            if _digest(key, [word for word, _ in part])[1] in digests:
                gone |= {n for _, n in part}
    return [chunk for n, chunk in enumerate(chunks) if n not in gone]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _around(passage: str, text: str) -> Iterable[list[str]]:
    """The words of each place where the passage holds the text, the first and last one whole."""
    flat, wanted = plain(passage), plain(text)
    for match in re.finditer(re.escape(wanted), flat):
        start, end = match.span()
        while start and _WORD.match(flat[start - 1]):
            start -= 1
        while end < len(flat) and _WORD.match(flat[end]):
            end += 1
        if words := _words(flat[start:end]):
            yield words


def _digest(key: str, words: Sequence[str]) -> tuple[int, str]:
    said = " ".join(words).encode()
    return len(words), hmac.new(bytes.fromhex(key), said, hashlib.sha256).hexdigest()


def _key(conn: sqlite3.Connection) -> str | None:
    row = conn.execute("SELECT value FROM settings WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else str(json.loads(row["value"]))


def _new_key(conn: sqlite3.Connection) -> str:
    key = secrets.token_hex(32)
    conn.execute("INSERT INTO settings VALUES (?, ?)", (_KEY, json.dumps(key)))
    return key
