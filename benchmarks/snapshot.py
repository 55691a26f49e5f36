"""What a snapshot and a new example cost with few and with many learned examples.

    python benchmarks/snapshot.py [--sizes 1000,100000] [--out FILE]

A database of made-up rows; 200 examples wait. Prints a table and writes
benchmarks/out/snapshot.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from acclimate.store import buffer
from acclimate.store.chats import Exchange
from acclimate.store.db import Db

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_OUT = ROOT / "benchmarks" / "out" / "snapshot.json"
TRIES = 20


def exchange(number: int) -> Exchange:
    word = hashlib.sha256(b"%d" % number).hexdigest()
    question = f"Where did I put {word[:12]} in {word[12:20]}?"
    return Exchange(1, ({"role": "user", "content": question},), f"Behind {word[20:32]}.")


def fill(db: Db, learned: int) -> None:
    """Learned examples as ingestion leaves them, but for their clusters' bands."""
    with db.write() as conn:
        conn.execute("INSERT INTO sources(id, path, kind, added_at) VALUES (1, '/s', 'chat', 0)")
        conn.execute(
            "INSERT INTO documents(id, source_id, path, state, seen_at) VALUES (1, 1, 'a', 'ok', 0)"
        )
        conn.executemany(
            "INSERT INTO examples(sha256, kind, content, prompt_sha256, source_id, document_id,"
            " state, cluster, surprise, topic, told, created_at)"
            " VALUES (?, 'exchange', ?, ?, 1, 1, 'learned', ?, ?, ?, ?, 0)",
            (
                (
                    e.sha256(),
                    json.dumps(e.content()),
                    e.prompt_sha256(),
                    n,
                    n % 7,
                    e.prompt[-1]["content"],
                    e.reply,
                )
                for n in range(1, learned + 1)
                for e in (exchange(n),)
            ),
        )


def measure(learned: int) -> dict[str, float]:
    """Median milliseconds of a snapshot, and of adding an example."""
    with tempfile.TemporaryDirectory() as folder:
        db = Db(Path(folder) / "a.db")
        fill(db, learned)
        began = time.perf_counter()
        buffer.add_document_examples(db, 1, 1, [exchange(10**9 + n) for n in range(200)])
        added = (time.perf_counter() - began) / 200
        seconds = []
        for seed in range(TRIES):
            began = time.perf_counter()
            taken = buffer.snapshot(db, limit=200, replay=48, seed=seed)
            seconds.append(time.perf_counter() - began)
            assert (len(taken.new), len(taken.replay)) == (200, min(48, learned))
        db.close()
    return {
        "learned": learned,
        "snapshot_ms": round(statistics.median(seconds) * 1000, 2),
        "add_ms": round(added * 1000, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of a snapshot by what is learned.")
    parser.add_argument("--sizes", default="1000,100000")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    measure(10)  # loads what is loaded once
    rows = [measure(int(size)) for size in options.sizes.split(",")]
    table = Table("learned", "snapshot, ms", "adding one, ms", box=None)
    for row in rows:
        table.add_row(f"{row['learned']:,}", str(row["snapshot_ms"]), str(row["add_ms"]))
    Console().print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
