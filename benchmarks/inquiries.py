"""What a base model writes about notes, and what the checks leave of it.

    python benchmarks/inquiries.py --base GGUF [--notes DIR] [--out FILE]

Every passage of the notes is put to the base as the daemon does it, whatever its size. Prints each
pair with what became of it, then a table of counts; whether a kept one is true is for a reader to
say. Writes benchmarks/out/inquiries.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from acclimate.adapters.gguf_check import read_header
from acclimate.adapters.inquiry import Pair
from acclimate.adapters.prompt import Prompt
from acclimate.daemon.engine import Engine
from acclimate.daemon.inquire import Inquirer
from acclimate.daemon.study import study
from acclimate.store import inquiries
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file
from acclimate.store.ingest import add_bytes
from acclimate.store.studied import Unstudied

ROOT = Path(__file__).resolve().parent.parent


class Listening(Inquirer):
    """Remembers every pair that was written, and why it was dropped."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        self.judged: list[dict[str, str]] = []

    def _fault(self, pair: Pair, part: Unstudied) -> str:
        why = super()._fault(pair, part)
        self.judged.append({**asdict(pair), "dropped": why})
        return why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument(
        "--notes", type=Path, default=ROOT / "benchmarks/streams/development/round-1/notes"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/out/inquiries.json")
    args = parser.parse_args()

    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        db = Db(Home.create(Path(folder) / "home").db)
        for note in sorted(args.notes.iterdir()):
            add_bytes(db, note.name, note.read_bytes())
        by_rules = study(db).pairs
        engine = Engine(args.base)
        engine.start()
        asking = Listening(db, engine, Prompt.from_gguf(args.base), sha256_file(args.base))
        while asking.step():
            for each in asking.judged:
                console.print(
                    f"{each['dropped'] or 'KEPT':28} {each['question']} → {each['answer']}"
                )
            asking.judged.clear()
        engine.stop()
        found = inquiries.total(db)
        db.close()
    made = Table("base", "passages", "written", "kept", "by the rules")
    size = f"{read_header(args.base).parameters / 1e9:.2f} billion parameters"
    made.add_row(size, *map(str, (found.passages, found.asked, found.kept, by_rules)))
    console.print(made)
    for why, count in sorted(found.dropped.items(), key=lambda item: -item[1]):
        console.print(f"{count:4} {why}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(asdict(found) | {"by_rules": by_rules}, indent=1))


if __name__ == "__main__":
    main()
