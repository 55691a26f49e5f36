"""Near-duplicates: examples that say almost the same with the same reply make a cluster.

MinHash (Broder 1997) over shingles of characters, found by bands of it (locality-sensitive
hashing) in a table: a new example costs a few look-ups, however many there are.
"""

import hashlib
import json
import re
import sqlite3
import zlib

import numpy as np
from numpy.typing import NDArray

from acclimate.store.chats import Exchange

ALIKE = 0.8  # Jaccard similarity of the shingles, as estimated
SHINGLE_CHARS = 5
MAX_CHARS = 4_000
_PERMUTATIONS = 128
# Multiply-shift hashing (Dietzfelbinger et al. 1997): an odd factor and a summand for each.
_FACTORS, _SUMMANDS = np.random.default_rng(1).integers(
    0, 2**64, (2, _PERMUTATIONS), dtype=np.uint64
) | np.array([[1], [0]], dtype=np.uint64)
Sketch = NDArray[np.uint32]  # (_PERMUTATIONS,)
# 16 bands of 4: of two texts at 0.8 one in 5,000 pairs is not compared.
_BANDS, _ROWS = 16, 4
_COMPARED = 16


def join(conn: sqlite3.Connection, example_id: int, exchange: Exchange) -> int:
    """Put a stored example into its cluster; the id of the example that the cluster began with.

    Only that first one is compared with, so a cluster cannot drift from text to text. Another
    reply is no duplicate: it may be a correction.
    """
    sketch = _sketch(exchange)
    bands = _bands(sketch, exchange)
    rows = conn.execute(
        "SELECT id, kind, content FROM examples WHERE id != ? AND id IN (SELECT example_id"
        " FROM minhash_bands WHERE hash IN (SELECT value FROM json_each(?)))"
        " ORDER BY id LIMIT ?",
        (example_id, json.dumps(bands), _COMPARED),
    ).fetchall()
    cluster, best = example_id, ALIKE
    for row in rows:
        other = Exchange.of(0, json.loads(row["content"]))
        found = float((sketch == _sketch(other)).mean())  # estimates Jaccard's similarity
        if found >= best and _plain(other.reply) == _plain(exchange.reply):
            cluster, best = row["id"], found
    if cluster == example_id:
        conn.executemany(
            "INSERT OR IGNORE INTO minhash_bands VALUES (?, ?)",
            [(band, example_id) for band in bands],
        )
    conn.execute("UPDATE examples SET cluster = ? WHERE id = ?", (cluster, example_id))
    return cluster


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _sketch(exchange: Exchange) -> Sketch:
    text = _plain(exchange.text())[:MAX_CHARS]
    last = max(1, len(text) - SHINGLE_CHARS + 1)
    shingles = {zlib.crc32(text[i : i + SHINGLE_CHARS].encode()) for i in range(last)}
    hashed = np.outer(np.fromiter(shingles, dtype=np.uint64), _FACTORS) + _SUMMANDS
    sketch: Sketch = (hashed >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return sketch


def _bands(sketch: Sketch, exchange: Exchange) -> list[int]:
    """A signed 64-bit number for each band; the reply is in it, so others share none of them."""
    reply = hashlib.sha256(_plain(exchange.reply).encode()).digest()
    numbers = []
    for band in range(_BANDS):
        rows = sketch[band * _ROWS : (band + 1) * _ROWS].astype("<u4").tobytes()
        digest = hashlib.sha256(bytes([band]) + reply + rows).digest()
        numbers.append(int.from_bytes(digest[:8], "little", signed=True))
    return numbers
