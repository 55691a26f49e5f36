"""How well passages are read by what never learned them: the reader, the base, other adapters.

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
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import streams  # noqa: E402
from continual.home import BASE, Passages, PersonHome, precision  # noqa: E402
from continual.probe import Probe, questions  # noqa: E402

from acclimate.adapters import evaluate  # noqa: E402
from acclimate.adapters.base import load_base, load_lora  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402


class Home:
    """All of a person's stream, read, and what retrieval finds for a question."""

    def __init__(self, person: streams.Stream, models: Path, root: Path) -> None:
        self.home, self.person = PersonHome(root, models), person
        for folder in person.rounds:
            self.home.put(folder)
        self.home.embed()
        self.found: dict[str, Passages] = {}

    def read(self, question: str) -> Passages:
        """Looked for once, however many models are asked."""
        if question not in self.found:
            self.found[question] = self.home.read(question)
        return self.found[question]

    def passages(self, question: str) -> Passages:
        """The same without what the reader says."""
        return replace(self.read(question), quote=None)

    def share(self, texts: Callable[[Passages], Sequence[str]], last: int) -> dict[str, float]:
        """Of each kind of question, the share where one of the texts has the answer."""
        flags: dict[str, list[bool]] = defaultdict(list)
        for fact in self.person.facts:
            for kind, question in questions(fact):
                said = texts(self.read(question))
                flags[kind].append(any(streams.right(t, fact.answers_after(last)) for t in said))
        return {kind: evaluate.share(found) for kind, found in flags.items()}


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
    probe = Probe(Prompt.from_gguf(args.models / BASE), person)
    base = load_base(args.models / BASE, precision(args.models))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        home = Home(person, args.models, Path(root))

        def row(name: str, found: Mapping[str, Any]) -> None:
            shares = {kind: found[kind] for kind in ("exact", "reworded", "roundabout")}
            rows.append({"reader": name, **shares})
            told = "  ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
            print(f"{name:40} {told}", flush=True)

        try:
            row("shown", home.share(lambda found: found.near, last))
            row(
                "the reader",
                home.share(lambda found: [found.quote.text] if found.quote else [], last),
            )
            row("base", probe.facts(base, last, home.passages))
            for folder in args.adapters:
                model = load_lora(base, folder)
                row(str(folder), probe.facts(model, last, home.passages))
                model.unload()
        finally:
            home.home.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"persona": args.persona, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
