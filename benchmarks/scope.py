"""Who answers what, and with which cue: a person's questions and general text before an adapter.

    python benchmarks/scope.py [--personas development,development-2] [--after 1 6]

Everything that a persona says in so many rounds counts as taught; asked are the questions of the
benchmark, general ones, and the held-out general prompts of the gate. Trains nothing: the ledger
gets an adapter without weights. Prints a table and writes JSON. After all of 1 to 6 it is what
cues alone make of backward transfer.
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
from continual.streams import right  # noqa: E402

from acclimate.adapters.evaluate import share  # noqa: E402
from acclimate.adapters.shipped import shipped_lines  # noqa: E402
from acclimate.adapters.snapshot import Taught  # noqa: E402
from acclimate.daemon.cueing import agreeing, surer  # noqa: E402
from acclimate.daemon.scoping import SCOPE_FILE  # noqa: E402
from acclimate.store import ledger  # noqa: E402

ADAPTER, VERSION = "v0001", 1


def publish(person: PersonHome, taught: list[Taught]) -> float:
    """An adapter of these in the ledger, with scope and cues; the scope's share of general text."""
    scope = person.scoping.fit(taught)
    assert scope is not None
    person.cueing.take_up(taught)
    numbers = [example.id for example in taught]
    round_id = ledger.start_round(person.db, None, 1, numbers)
    folder = person.home.adapter_dir(VERSION)
    folder.mkdir()
    (folder / SCOPE_FILE).write_bytes(scope.to_json())
    ledger.publish(person.db, round_id, VERSION, None, "", 1.0, {}, numbers)
    return scope.general


def measure(persona: str, models: Path, rounds: int) -> dict[str, float]:
    """Shares inside, by kind of text, after so many rounds, and of cues that lead to the answer."""
    stream = streams.load(persona)
    facts = [fact for fact in stream.facts if fact.round <= rounds]
    about = {
        "exact": [(fact.exact, fact) for fact in facts],
        "reworded": [(text, fact) for fact in facts for text in fact.reworded],
        "roundabout": [(fact.roundabout, fact) for fact in facts],
    }
    others = {
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
            taught = person.waiting()
            found: dict[str, float] = {"taught": len(taught)}
            found["anchors, left out"] = publish(person, taught)
            replies = {
                e.messages()[-2]["content"].strip(): e.messages()[-1]["content"] for e in taught
            }

            def inside(text: str) -> bool:
                return person.scoping.covers(ADAPTER, [{"role": "user", "content": text}])

            def cue(text: str) -> str | None:
                asked = [{"role": "user", "content": text}]
                found = person.cueing.of(ADAPTER, asked) if inside(text) else None
                return None if found is None else found.question

            def said(text: str) -> str:
                """The cue's answer, or what is quoted."""
                asked = [{"role": "user", "content": text}]
                read = person.read(text, personal=inside(text))
                cues = person.cueing.several(ADAPTER, asked) if inside(text) else []
                shown, best = agreeing(cues, read.near, read.wider, read.wider)
                if quote := surer(lambda: read.quote, best, borne_out=bool(shown)):
                    return quote.text
                return "" if best is None else best.answer

            led = {
                text: right(replies.get(cue(text) or text, ""), fact.answers_after(rounds))
                for asked in about.values()
                for text, fact in asked
            }
            for kind, asked in about.items():
                found[kind] = share([inside(text) for text, _ in asked])
                found[f"{kind}: led to the answer"] = share([led[text] for text, _ in asked])
                found[f"{kind}: … with retrieval"] = share(
                    [right(said(text), fact.answers_after(rounds)) for text, fact in asked]
                )
            for number in range(1, rounds + 1):
                lasting = [f for f in facts if f.round == number and f.change is None]
                kind = f"reworded, lasting, of round {number}: led to the answer"
                found[kind] = share([led[text] for fact in lasting for text in fact.reworded])
            for kind, texts in others.items():
                found[kind] = share([inside(text) for text in texts])
                found[f"{kind}: with a cue"] = share([cue(text) is not None for text in texts])
        finally:
            person.close()
    return found


def main() -> int:
    """Every persona, by default after its first and after its last round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--personas", default="development,development-2")
    parser.add_argument("--after", type=int, nargs="+", default=[1, 6], help="how many rounds")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "scope.json")
    args = parser.parse_args()
    rows = {
        f"{persona}, {rounds} rounds" if rounds > 1 else f"{persona}, 1 round": measure(
            persona, args.models, rounds
        )
        for persona in args.personas.split(",")
        for rounds in args.after
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1), "utf-8")
    table = Table("inside", *rows)
    for kind in dict.fromkeys(kind for row in rows.values() for kind in row):
        cells = [row.get(kind) for row in rows.values()]
        form = ".0f" if kind == "taught" else ".0%"
        table.add_row(kind, *("" if cell is None else format(cell, form) for cell in cells))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
