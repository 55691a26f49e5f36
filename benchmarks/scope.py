"""Who answers what: how much of a person's questions and of general text lies in a scope.

    python benchmarks/scope.py [--personas development,development-2]

Everything that a persona says in six rounds is taught; asked are the questions of the benchmark,
general ones, and the held-out general prompts of the gate. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import streams  # noqa: E402
from continual.home import PersonHome  # noqa: E402

from acclimate.adapters.evaluate import share  # noqa: E402
from acclimate.adapters.shipped import shipped_lines  # noqa: E402
from acclimate.daemon.retrieve import question_of  # noqa: E402


def measure(persona: str, models: Path, rounds: int) -> dict[str, float]:
    """Shares inside, by kind of text, after so many rounds."""
    stream = streams.load(persona)
    facts = [fact for fact in stream.facts if fact.round <= rounds]
    asked = {
        "exact": [fact.exact for fact in facts],
        "reworded": [text for fact in facts for text in fact.reworded],
        "roundabout": [fact.roundabout for fact in facts],
        "style": stream.style.prompts,
        "general questions": [q.question for q in streams.general()],
        "general prompts": streams.general_prompts(),
        "the gate's general text": shipped_lines("general_held_out"),
    }
    with tempfile.TemporaryDirectory() as root:
        person = PersonHome(Path(root), models)
        try:
            for folder in stream.rounds[:rounds]:
                person.feed(folder)
            taught = [question_of(e.messages()[:-1]) for e in person.waiting()]
            scope = person.scoping.fit(taught)
            assert scope is not None
            found = {
                kind: share([scope.covers(v) for v in person.embedder.embed(texts)])
                for kind, texts in asked.items()
            }
        finally:
            person.close()
    return {"taught": len(taught), **found, "anchors, left out": scope.general}


def main() -> int:
    """Every persona after its first and after its last round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", default="development,development-2")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "scope.json")
    args = parser.parse_args()
    rows = {
        f"{persona}, {rounds} rounds" if rounds > 1 else f"{persona}, 1 round": measure(
            persona, args.models, rounds
        )
        for persona in args.personas.split(",")
        for rounds in (1, 6)
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1), "utf-8")
    table = Table("inside", *rows)
    for kind in next(iter(rows.values())):
        cells = [row[kind] for row in rows.values()]
        table.add_row(kind, *(f"{c:.0f}" if kind == "taught" else f"{c:.0%}" for c in cells))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
