"""Six rounds of one person's life: what each way of learning keeps, and at what price.

    python benchmarks/learning.py [--persona development] [--rows ours,naive] [--rounds 3] [--full]

Without `--full` a quick form: the base, naive sequential LoRA and ours, for three rounds. Prints a
line after every round and a table at the end; writes JSON, with whole replies, as it goes, and two
plots. Rows that the JSON has of the same persona and number of rounds are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import baselines, report, streams  # noqa: E402
from continual.home import BASE, PersonHome, precision  # noqa: E402
from continual.probe import Base, Probe  # noqa: E402

from acclimate.adapters.base import load_base, load_lora  # noqa: E402
from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.config import LearnConfig  # noqa: E402


class Bench:
    """The base, its measures, and one model that adapters are put on."""

    def __init__(self, persona: str, models: Path, rounds: int) -> None:
        from acclimate.adapters.prompt import Prompt

        self.models = models
        self.stream = streams.load(persona)
        self.rounds = rounds
        self.probe = Probe(Prompt.from_gguf(models / BASE), self.stream)
        self.plain = load_base(models / BASE, precision(models))
        self.base: Base = self.probe.base(self.plain, streams.general(), streams.general_prompts())

    def adapted(self, folder: Path | None) -> torch.nn.Module:
        """The base with the adapter of a PEFT folder."""
        if folder is None:
            return self.plain
        return load_lora(self.plain, folder)

    def baseline(self, name: str) -> Iterator[dict[str, Any]]:
        """A row of continual/settings.json."""
        folders, path = self.stream.rounds[: self.rounds], self.models / BASE
        yield from baselines.run(name, self.plain, self.probe, self.base, path, folders)

    def untaught(self) -> Iterator[dict[str, Any]]:
        """The base itself, asked after every round; at the end with retrieval, too."""
        with tempfile.TemporaryDirectory() as root:
            person = PersonHome(Path(root), self.models)
            try:
                for number, folder in enumerate(self.stream.rounds[: self.rounds], start=1):
                    person.feed(folder)
                    yield self._measured(self.plain, person, number)
            finally:
                person.close()

    def ours(self, joint: bool = False, **learn: Any) -> Iterator[dict[str, Any]]:
        """Our rounds; `joint` teaches all of them at once, as the ceiling."""
        config = LearnConfig(**learn)
        if joint:  # what that many rounds take
            every = config.max_from_notes * self.rounds
            config = config.model_copy(update={"max_from_notes": every})
        with tempfile.TemporaryDirectory() as root:
            person = PersonHome(Path(root), self.models, config)
            try:
                for number, folder in enumerate(self.stream.rounds[: self.rounds], start=1):
                    person.feed(folder)
                    if joint and number < self.rounds:
                        continue
                    lived = person.learn()
                    model = self.adapted(lived.folder)
                    self.probe.inside, self.probe.cues = person.inside, person.cues
                    row = self._measured(model, person, number)
                    if model is not self.plain:
                        model.unload()
                    kept = ("scale", "train_seconds", "steps", "tokens", "peak_bytes", "counts")
                    row |= {key: lived.card.get(key) for key in kept}
                    row |= {"state": lived.state, "reasons": lived.reasons}
                    yield row | {"seconds": lived.seconds}
            finally:
                self.probe.inside = self.probe.cues = None
                person.close()

    def _measured(self, model: torch.nn.Module, person: PersonHome, number: int) -> dict[str, Any]:
        """All columns after a round; with retrieval, too, after the last one."""
        row = self.probe.measure(model, number, self.base)
        if number == self.rounds:
            shown = person.passages if model is self.plain else person.read
            row["retrieval"] = self.probe.facts(model, number, shown)
            if "alone" in row:
                row["alone"] |= self.probe.alone(model, number)
        return row | {"round": number}


def show(row: dict[str, Any]) -> None:
    """One line a round."""
    if "exact" not in row:
        print(f"round {row['round']}: {row['state']}: {'; '.join(row['reasons'])}", flush=True)
        return
    by_round = " ".join(f"{share:.0%}" for share in row["by_round"].values())
    parts = [
        f"round {row['round']}: {row.get('state', '')}",
        f"exact {row['exact']:.0%}",
        f"reworded {row['reworded']:.0%} (by round {by_round})",
        f"roundabout {row['roundabout']:.0%}",
        f"stale {row['stale']:.0%}",
        f"style {row['style']:.0%}",
        f"general kept {row['kept']:.0%}, NLL {row['general_nll']:+.4f}, KL {row['kl']:.4f}",
    ]
    if alone := row.get("alone"):
        parts.append(
            f"{row['inside']:.0%} of it inside; the adapter alone kept {alone['kept']:.0%},"
            f" NLL {alone['general_nll']:+.4f}, KL {alone['kl']:.4f}"
        )
        if "exact" in alone:
            shares = (f"{kind} {alone[kind]:.0%}" for kind in ("exact", "reworded", "roundabout"))
            parts.append(f"without cues {', '.join(shares)}")
    if row.get("train_seconds"):
        parts.append(f"scale {row['scale']}, {row['steps']} steps in {row['train_seconds']:.0f} s")
    if "retrieval" in row:
        found = row["retrieval"]
        parts.append(
            f"with retrieval exact {found['exact']:.0%}, reworded {found['reworded']:.0%},"
            f" roundabout {found['roundabout']:.0%}"
        )
    print("; ".join(parts), flush=True)
    for reason in row.get("reasons", ()) if row.get("state") == "rejected" else ():
        print("   ", reason, flush=True)


BASELINES = (
    "naive",
    "naive-low",
    "ce-replay",
    "ewc",
    "o-lora",
    "context-distillation",
    "joint-lora",
)
QUICK = ("base", "naive", "ours")
FULL = ("base", *BASELINES, "ours", "joint")


def main() -> int:
    """Runs the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--persona", default="report", help="a folder of benchmarks/streams")
    parser.add_argument("--rows", help=f"some of {', '.join(FULL)}; or a row of settings.json")
    parser.add_argument("--rounds", type=int, help="how many; 3, with --full 6")
    parser.add_argument("--full", action="store_true", help="every row, all rounds: hours")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--learn", type=json.loads, default={}, help="[learn] settings, as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "learning.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logs.set_up(level="warning")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.persona, args.models, args.rounds or (6 if args.full else 3))
    known = sum(bench.base.known)
    print(f"the base answers {known} of {len(bench.base.known)} general questions", flush=True)
    said = (args.persona, bench.rounds, bench.base.said)
    about: dict[str, Any] = dict(zip(report.ABOUT, said, strict=True))
    results: dict[str, Any] = _done(args.out, about) or dict(about)
    for name in args.rows.split(",") if args.rows else FULL if args.full else QUICK:
        print(f"== {name}", flush=True)
        if name in results and _ended(results[name], bench.rounds):
            print("done before", flush=True)
            continue
        if name == "base":
            rows = bench.untaught()
        elif name in ("ours", "joint"):
            rows = bench.ours(joint=name == "joint", **args.learn)
        else:
            rows = bench.baseline(name)
        results[name] = []
        for row in rows:
            results[name].append(row)
            show(row)
            args.out.write_text(json.dumps(results))
    report.write(results, args.out.parent)
    return 0


def _done(out: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier run of the same kind wrote, None where there is none."""
    try:
        found = json.loads(out.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    same = isinstance(found, dict) and all(found.get(k) == v for k, v in about.items())
    return found if same else None


def _ended(rows: list[dict[str, Any]], rounds: int) -> bool:
    return bool(rows) and (rows[-1]["round"] == rounds or rows[-1].get("state") == "failed")


if __name__ == "__main__":
    sys.exit(main())
