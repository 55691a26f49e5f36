"""What is noticed of changes that a person mentions in passing, by `daemon/updates.py`.

    python benchmarks/changes.py

Each made-up person whom neither embedder nor reader was taught by (benchmarks/persons, HELD_OUT)
has told forty facts in a chat. Then come ten notes that change none of them, and eight that change
one each. Prints how many changes were taught under the question that they are about, and how many
other passages changed something; writes JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "persons"))

from minilm import by_person  # noqa: E402

from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.embed import Embedder  # noqa: E402
from acclimate.daemon.reader import Reader  # noqa: E402
from acclimate.daemon.study import study  # noqa: E402
from acclimate.daemon.updates import Updates  # noqa: E402
from acclimate.store.db import Db  # noqa: E402
from acclimate.store.files import Home  # noqa: E402
from acclimate.store.ingest import add_bytes  # noqa: E402

Row = dict[str, Any]


def alike(one: str, other: str) -> bool:
    """Whether all words of one are in the other."""
    words = [{*re.findall(r"\w+", text.casefold())} for text in (one, other)]
    return words[0] <= words[1] or words[1] <= words[0]


def measure(
    embedder: Embedder, reader: Reader, facts: list[Row], notes: list[Row], news: list[Row]
) -> Row:
    """One person's changes: how many there are, how many were found rightly, and what else was."""
    with tempfile.TemporaryDirectory() as root:
        db = Db(Home.create(Path(root) / "home").db)
        try:
            pairs = [{"instruction": f["plain"], "output": f["reply"]} for f in facts]
            add_bytes(db, "facts.jsonl", "\n".join(map(json.dumps, pairs)).encode())
            for n, row in enumerate([*notes, *news]):
                add_bytes(db, f"note-{n:02}.md", row["note"].encode())
            study(db)
            updates = Updates(db, embedder.embed, reader)
            while updates.find():
                pass
            rows = db.read().execute(
                "SELECT json_extract(content, '$.messages[0].content') AS question,"
                " json_extract(content, '$.messages[1].content') AS reply FROM examples"
                " WHERE about IS NOT NULL AND content != '{}'"
            )
            found = [(row["question"], row["reply"]) for row in rows]
        finally:
            db.close()
    now = {row["plain"]: row["now"] for row in news}
    right = {q for q, reply in found if q in now and alike(reply, now[q])}
    wrong = [(q, reply) for q, reply in found if q not in right]
    return {"changes": len(news), "right": len(right), "wrong": wrong}


def main() -> int:
    """Prints a line for each person and the sums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "changes.json")
    args = parser.parse_args()
    logs.set_up(level="warning")
    embedder = Embedder(args.models / "all-minilm-l6-v2.gguf")
    reader = Reader.shipped(embedder)
    facts, notes, news = (by_person(k, held_out=True) for k in ("questions", "notes", "news"))
    rows: list[Row] = []
    try:
        for (file, person), known in facts.items():
            rows.append(measure(embedder, reader, known, notes[file, person], news[file, person]))
            print(f"{file}, person {person}: {rows[-1]}", flush=True)
    finally:
        embedder.close()
    changes, right = (sum(row[key] for row in rows) for key in ("changes", "right"))
    wrong = sum(len(row["wrong"]) for row in rows)
    print(f"{changes} changes: {right} found, {wrong} other answers changed")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
