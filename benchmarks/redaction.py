"""How many of the seeded secrets are found, by kind, and how many ordinary facts are eaten.

    python benchmarks/redaction.py [--secrets 500] [--facts 1000] [--seed N] [--out FILE]

The set is the tests' own (tests/secrets_seed.py), made from what issuers publish of their formats.
Beside it stand a few secrets in plain words, as people say them: of those most stay. Prints a
table and writes benchmarks/out/redaction.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from secrets_seed import OTHER_PLACES, PLAIN_WORDS, ordinary, pieces, secrets  # noqa: E402

from acclimate.store.redact import redact  # noqa: E402

DEFAULT_OUT = ROOT / "benchmarks" / "out" / "redaction.json"
console = Console()


def measure(count: int, facts: int, seed: int) -> dict[str, object]:
    """Found and seeded by kind, the facts that were changed, and seconds for each megabyte."""
    seeded, found = Counter[str](), Counter[str]()
    for one in secrets(count, seed):
        text = redact(one.text).text
        seeded[one.kind] += 1
        found[one.kind] += not any(piece in text for piece in pieces(one.secret))
    other, plain = (
        {"seeded": len(some), "found": sum(s not in redact(text).text for s, text in some)}
        for some in (OTHER_PLACES, PLAIN_WORDS)
    )
    texts = [text for _, text in ordinary(facts)]
    eaten = sum(redact(text).text != text for text in texts)
    prose = "\n".join(texts) * (1_000_000 // sum(map(len, texts)) + 1)
    began = time.perf_counter()
    redact(prose)
    return {
        "kinds": {kind: {"seeded": n, "found": found[kind]} for kind, n in sorted(seeded.items())},
        "seeded": count,
        "found": found.total(),
        "other_places": other,
        "plain_words": plain,
        "facts": facts,
        "eaten": eaten,
        "seconds_per_megabyte": round((time.perf_counter() - began) / (len(prose) / 1e6), 3),
    }


def show(result: dict[str, object]) -> None:
    """The table, and what it comes to."""
    table = Table("kind", "seeded", "found", "recall", box=None)
    kinds: dict[str, dict[str, int]] = result["kinds"]  # type: ignore[assignment]
    rows = [
        *kinds.items(),
        ("in other places", result["other_places"]),
        ("in plain words (no form)", result["plain_words"]),
    ]
    for kind, n in rows:
        table.add_row(kind, str(n["seeded"]), str(n["found"]), f"{n['found'] / n['seeded']:.0%}")
    console.print(table)
    console.print(f"{result['found']} of {result['seeded']} with a form found,", end=" ")
    console.print(f"{result['eaten']} of {result['facts']} ordinary facts changed,", end=" ")
    console.print(f"{result['seconds_per_megabyte']} s for a megabyte of such facts")


def main() -> int:
    parser = argparse.ArgumentParser(description="Recall of redaction on a seeded set.")
    parser.add_argument("--secrets", type=int, default=500)
    parser.add_argument("--facts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20_261_122)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    options = parser.parse_args()
    result = measure(options.secrets, options.facts, options.seed)
    show(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
