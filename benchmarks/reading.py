"""How well an adapter reads what it was never taught: another person's questions, with passages.

    python benchmarks/reading.py ADAPTER_FOLDER … [--persona development-2]

An adapter that knows all answers of its training need not read the passages beside them. So the
persona must be one that it was not taught. The base stands beside it, and how often a passage that
was shown has the answer. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import streams  # noqa: E402
from continual.home import BASE, PersonHome, precision  # noqa: E402
from continual.probe import REPLY_TOKENS, Probe  # noqa: E402

from acclimate.adapters.base import load_base, load_lora  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402

Asked = tuple[str, str, tuple[str, ...]]  # kind, question, what counts as right


def passages_of(person: streams.Stream, models: Path, asked: list[Asked]) -> list[list[str]]:
    """What retrieval shows beside each question when all of the person's stream was read."""
    with tempfile.TemporaryDirectory() as root:
        home = PersonHome(Path(root), models)
        try:
            for folder in person.rounds:
                home.feed(folder)
            return [home.passages(question) for _, question, _ in asked]
        finally:
            home.close()


def share(
    asked: list[Asked], kind: str, right: Callable[[int, Sequence[str]], bool]
) -> tuple[int, int]:
    """Of the questions of a kind, how many are right, and how many there are."""
    found = [right(n, answers) for n, (of, _, answers) in enumerate(asked) if of == kind]
    return sum(found), len(found)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("adapters", nargs="*", type=Path, help="folders as PEFT writes them")
    parser.add_argument("--persona", default="development-2", help="one they were not taught")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "reading.json")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    person = streams.load(args.persona)
    last = len(person.rounds)
    asked: list[Asked] = []
    for fact in person.facts:
        answers = fact.answers_after(last)
        asked.append(("exact", fact.exact, answers))
        asked += [("reworded", question, answers) for question in fact.reworded]
    shown = passages_of(person, args.models, asked)
    by_question = {question: texts for (_, question, _), texts in zip(asked, shown, strict=True)}
    probe = Probe(Prompt.from_gguf(args.models / BASE), person)
    base = load_base(args.models / BASE, precision(args.models))
    rows: list[dict[str, Any]] = []

    def row(name: str, right: Callable[[int, Sequence[str]], bool]) -> None:
        found = {kind: share(asked, kind, right) for kind in ("exact", "reworded")}
        rows.append({"reader": name} | {kind: n for kind, (n, _) in found.items()})
        counts = (f"{kind} {n} of {of}" for kind, (n, of) in found.items())
        print(f"{name:40} {'  '.join(counts)}", flush=True)

    def read(name: str, model: torch.nn.Module) -> None:
        questions = [question for _, question, _ in asked]
        said = probe.say(model, questions, REPLY_TOKENS, by_question.__getitem__)
        row(name, lambda n, answers: streams.right(said[n], answers))

    row("shown", lambda n, answers: any(streams.right(text, answers) for text in shown[n]))
    read("base", base)
    for folder in args.adapters:
        model = load_lora(base, folder)
        read(str(folder), model)
        model.unload()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"persona": args.persona, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
