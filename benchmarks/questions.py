"""How many facts of labelled notes become questions with short answers, in how many pairs.

    python benchmarks/questions.py [--lines FILE] [--stream DIR ...] [--models DIR]
        [--sample N] [--missed] [--out FILE]

A fact is found when a pair's answer, of at most 10 words, contains an accepted string, and its
question shares at least half of the content words of the labelled question or, with --models, comes
within a cosine of 0.6 of it. A stream is a folder with questions.json and notes. Prints a table,
writes benchmarks/out/questions.json. --sample prints pairs to be judged by reading.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from acclimate.adapters.grammar import stem
from acclimate.adapters.questions import WORTH, Asked, questions
from acclimate.adapters.questions.scene import content_words

ROOT = Path(__file__).resolve().parent.parent
LONGEST_ANSWER = 10
ENOUGH_SHARED = 0.5
ENOUGH_COSINE = 0.6
Likeness = Callable[[str, str], float]


@dataclass(frozen=True)
class Fact:
    """A fact that a note states, as a reader labelled it."""

    note: str
    question: str
    answers: tuple[str, ...]
    set: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lines", type=Path, default=ROOT / "benchmarks/note_lines.json")
    parser.add_argument("--stream", type=Path, action="append", default=None)
    parser.add_argument("--models", type=Path, help="folder with the embedder's GGUF")
    parser.add_argument("--sample", type=int, default=0, metavar="N")
    parser.add_argument("--missed", action="store_true", help="name the facts that were not found")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/out/questions.json")
    args = parser.parse_args()
    streams = args.stream
    if streams is None:
        streams = [
            f.parent for f in sorted(ROOT.glob("benchmarks/streams/development/questions.json"))
        ]
    facts = of_lines(args.lines)
    notes: dict[str, dict[str, str]] = {"lines": {fact.note: fact.note for fact in facts}}
    for folder in streams:
        read, told = of_stream(folder)
        facts += told
        notes[folder.name] = read
    like = likeness(args.models) if args.models else lambda _a, _b: 0.0
    report = measure(facts, notes, like, missed=args.missed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1))
    if args.sample:
        sample(notes, args.sample)


def of_lines(path: Path) -> list[Fact]:
    """The labelled notes of one file."""
    lines = json.loads(path.read_text("utf-8"))["lines"]
    return [Fact(x["note"], x["question"], tuple(x["answers"]), "lines") for x in lines]


def of_stream(folder: Path) -> tuple[dict[str, str], list[Fact]]:
    """All notes of a stream, and the facts and changes that stand in them."""
    labelled = json.loads((folder / "questions.json").read_text("utf-8"))
    notes = {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".md", ".txt") and "notes" in path.parts
    }
    told: list[tuple[str, str, list[str]]] = []
    for fact in labelled.get("facts", []):
        if fact["from"] == "note":
            told.append((fact["file"], fact["exact"], fact["answers"]))
        change = fact.get("change")
        if change and change["from"] == "note":
            told.append((change["file"], change["question"] or fact["exact"], change["answers"]))
    for fact in labelled.get("notes_questions", []):
        told.append((f"stream/{fact['from']}", fact["question"], fact["answers"]))
    return notes, [Fact(notes[file], q, tuple(a), folder.name) for file, q, a in told]


def likeness(models: Path) -> Likeness:
    """Cosine of two questions by the embedder."""
    from acclimate.daemon.embed import Embedder

    embedder = Embedder(next(models.glob("*minilm*.gguf")))

    def like(one: str, other: str) -> float:
        first, second = embedder.embed([one, other])
        return float(first @ second)

    return like


def finds(pair: Asked, fact: Fact, like: Likeness) -> bool:
    """Whether the pair states the fact."""
    if len(pair.answer.split()) > LONGEST_ANSWER:
        return False
    if not any(answer in pair.answer.lower() for answer in fact.answers):
        return False
    wanted = {stem(word) for word in content_words(fact.question)}
    given = {stem(word) for word in content_words(pair.question)}
    shared = len(wanted & given) / len(wanted) if wanted else 0.0
    return shared >= ENOUGH_SHARED or like(pair.question, fact.question) >= ENOUGH_COSINE


def measure(
    facts: list[Fact], notes: dict[str, dict[str, str]], like: Likeness, *, missed: bool
) -> dict[str, object]:
    """The figures of each set, shown as a table."""
    console = Console(width=160)
    table = Table("notes", "facts", "found, worth", "found, all", "pairs a note", "worth a note",
                  "words a note", "worth per 150 words", title="Questions out of notes",
                  )  # fmt: skip
    report: dict[str, object] = {}
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for fact in facts:
        hits = [pair for pair in questions(fact.note) if finds(pair, fact, like)]
        worth = any(pair.weight >= WORTH for pair in hits)
        found[fact.set].append((worth, bool(hits)))
        if missed and not worth:
            best = f"{hits[0].weight} {hits[0].question} → {hits[0].answer}" if hits else "nothing"
            console.print(
                f"[{fact.set}] {fact.question} {list(fact.answers)}: {best}", markup=False
            )
    for name, texts in notes.items():
        pairs = [questions(text) for text in texts.values()]
        words = sum(len(text.split()) for text in texts.values())
        worth_count = sum(pair.weight >= WORTH for each in pairs for pair in each)
        of_facts = found[name]
        row = {
            "facts": len(of_facts),
            "found_worth": sum(w for w, _ in of_facts) / max(len(of_facts), 1),
            "found": sum(f for _, f in of_facts) / max(len(of_facts), 1),
            "pairs_a_note": sum(map(len, pairs)) / max(len(pairs), 1),
            "worth_a_note": worth_count / max(len(pairs), 1),
            "words_a_note": words / max(len(pairs), 1),
            "worth_per_150_words": 150 * worth_count / max(words, 1),
        }
        report[name] = row
        table.add_row(name, str(row["facts"]), f"{row['found_worth']:.0%}", f"{row['found']:.0%}",
                      *(f"{row[key]:.1f}" for key in list(row)[3:]))  # fmt: skip
    console.print(table)
    return report


def sample(notes: dict[str, dict[str, str]], count: int) -> None:
    """Random pairs that are worth learning, to be judged by reading."""
    pairs = [
        pair
        for texts in notes.values()
        for text in texts.values()
        for pair in questions(text)
        if pair.weight >= WORTH
    ]
    chosen = random.Random(1).sample(pairs, min(count, len(pairs)))
    for pair in chosen:
        print(
            json.dumps({k: v for k, v in asdict(pair).items() if k != "start"}, ensure_ascii=False)
        )
        print(re.sub(r"\s+", " ", pair.sentence)[:160], end="\n\n")


if __name__ == "__main__":
    main()
