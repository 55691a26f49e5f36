"""Prompt lookup: how much faster replies are that repeat what stands in their prompt.

    python benchmarks/lookup.py [--repeats 5] [--model FILE.gguf]

Two engines, with and without, answer the same greedy requests in turn: tasks with notes in front of
them, as retrieval shows them, code to be edited, and questions that repeat nothing. Tokens a second
of the reply alone; the median of the repetitions. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual.home import BASE  # noqa: E402

from acclimate.adapters.passages import with_passages  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402
from acclimate.daemon.engine import Engine  # noqa: E402
from acclimate.daemon.stream import Request  # noqa: E402

NOTES = ROOT / "benchmarks" / "streams" / "development"
CODE = '''\
class Ledger:
    """Keeps what came in and what went out."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.entries: list[tuple[str, float]] = []

    def add(self, what: str, amount: float) -> None:
        if amount == 0:
            raise ValueError("an entry needs an amount")
        self.entries.append((what, amount))

    def balance(self) -> float:
        return sum(amount for _, amount in self.entries)
'''
EDITS = (
    "Write this class again with the name Account instead of Ledger.",
    "Write this code again and add a method that counts the entries.",
    "Repeat this code with a comment in front of every method.",
)
GENERAL = (
    "Explain why the sky is blue.",
    "Write a short story about a lighthouse.",
    "How is bread baked?",
)
TASKS = ("What do the notes say? Repeat them.", "Write down these notes as a list.")
REPLY_TOKENS = 160


def asked() -> dict[str, list[str]]:
    """The prompts of each kind."""
    notes = [f.read_text("utf-8")[:1200] for f in sorted(NOTES.glob("round-*/notes/*.md"))[:6]]
    shown = [
        with_passages([{"role": "user", "content": task}], [note])[0]["content"]
        for note in notes
        for task in TASKS
    ]
    edits = [f"{edit}\n\n```python\n{CODE}```" for edit in EDITS]
    return {"notes": shown, "code": edits, "general": list(GENERAL)}


def one(engine: Engine, tokens: list[int]) -> tuple[list[int], float]:
    """The reply's tokens and the seconds from its first one to its last."""
    said, began = [], 0.0
    for piece in engine.submit(Request(tokens, "base", REPLY_TOKENS)):
        began = began or time.perf_counter()
        if piece.token is not None:
            said.append(piece.token)
    return said, time.perf_counter() - began


@contextmanager
def both(model: Path, threads: int | None) -> Iterator[dict[str, Engine]]:
    """The engine without and with prompt lookup, running."""
    engines = {
        name: Engine(model, threads=threads, prompt_lookup=name == "with")
        for name in ("without", "with")
    }
    try:
        for engine in engines.values():
            engine.start()
        yield engines
    finally:
        for engine in engines.values():
            engine.stop()


def compare(engines: dict[str, Engine], prompts: list[list[int]], repeats: int) -> dict[str, Any]:
    """Tokens a second of both in turn, their ratio, and how many replies are the same."""
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    same = 0
    before = engines["with"].stats()
    for repeat in range(repeats):
        spent = dict.fromkeys(engines, 0.0)
        count = 0
        for tokens in prompts:
            said = {}
            for name, engine in engines.items():
                said[name], seconds = one(engine, tokens)
                spent[name] += seconds
            count += len(said["with"])
            same += not repeat and said["with"] == said["without"]
        for name in engines:
            speeds[name].append(count / spent[name])
    after = engines["with"].stats()
    guessed, held = (after[n] - before[n] for n in ("guessed_tokens", "held_tokens"))
    return {
        **{f"{name}_tokens_per_second": median(s) for name, s in speeds.items()},
        "ratio": median(a / b for a, b in zip(speeds["with"], speeds["without"], strict=True)),
        "same_text": same,
        "prompts": len(prompts),
        "guessed": guessed,
        "held": held,
    }


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / BASE)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "lookup.json")
    args = parser.parse_args()
    prompt = Prompt.from_gguf(args.model)
    rows: dict[str, Any] = {}
    with both(args.model, args.threads) as engines:
        for kind, texts in asked().items():
            prompts = [prompt.encode_prompt([{"role": "user", "content": t}]) for t in texts]
            row = rows[kind] = compare(engines, prompts, args.repeats)
            print(
                f"{kind:>8}: {row['without_tokens_per_second']:6.1f} without,"
                f" {row['with_tokens_per_second']:6.1f} with, {row['ratio']:.2f} ×;"
                f" same text {row['same_text']} of {len(prompts)};"
                f" {row['held']} of {row['guessed']} guesses held",
                flush=True,
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
