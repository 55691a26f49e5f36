"""Many rounds in a row: what is left of general ability, and of what was taught, after each.

    python benchmarks/many_rounds.py [--rounds 40] [--facts 3] [--every 5]

A real home, worker and gate; in each round a few made-up facts, as chats tell them. Goes on where
it stopped (its home stays under --work), prints a line a round, writes JSON as it goes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import past, streams  # noqa: E402
from continual.home import BASE, PersonHome, precision  # noqa: E402
from continual.probe import DRIFT_TOKENS, GENERAL_TOKENS, REPLY_TOKENS, Probe, drift  # noqa: E402

from acclimate.adapters import anchors, evaluate  # noqa: E402
from acclimate.adapters.base import Split, load_base, load_lora  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402
from acclimate.adapters.study import short_reply  # noqa: E402
from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.rounds import LearnConfig  # noqa: E402
from acclimate.store import ledger  # noqa: E402

STREAM = "development"  # for its general questions and prompts alone


class Measured:
    """The base, and what an adapter on it has kept."""

    def __init__(self, models: Path) -> None:
        self.probe = Probe(Prompt.from_gguf(models / BASE), streams.load(STREAM))
        self.base = load_base(models / BASE, precision(models))
        questions = streams.general()
        said = self._say(self.base, [q.question for q in questions], GENERAL_TOKENS)
        answered = zip(said, questions, strict=True)
        self.known = [q for reply, q in answered if streams.right(reply, q.answers)]
        prompts = streams.general_prompts()
        self.replies = anchors.make(self.base, self.probe.prompt, prompts, DRIFT_TOKENS)
        self.nll, _ = drift(Split(self.base, 0), self.replies)

    def of(self, folder: Path, taught: dict[int, tuple[str, str]]) -> dict[str, float]:
        """Shares and nats; `taught` has every fact's question and answer, by its number."""
        model = load_lora(self.base, folder)
        try:
            nll, kl = drift(Split(model, 0), self.replies)
            kept = self._say(model, [q.question for q in self.known], GENERAL_TOKENS)
            told = self._say(model, [asked for asked, _ in taught.values()], REPLY_TOKENS)
        finally:
            model.unload()
        recalled = [
            streams.right(reply, [answer])
            for reply, (_, answer) in zip(told, taught.values(), strict=True)
        ]
        return {
            "general_nll": fmean(a - b for a, b in zip(nll, self.nll, strict=True)),
            "kl": kl,
            "kept": evaluate.share(
                [streams.right(r, q.answers) for r, q in zip(kept, self.known, strict=True)]
            ),
            "exact": evaluate.share(recalled),
            "exact_last_ten": evaluate.share(recalled[-10:]),
        }

    def _say(self, model: torch.nn.Module, asked: list[str], tokens: int) -> list[str]:
        return self.probe.say(model, asked, tokens, None)


def told(number: int) -> tuple[str, str]:
    """A made-up fact's question, and what its reply adds to it."""
    asked, reply = (message["content"] for message in past.exchange(number)["messages"])  # type: ignore[attr-defined]
    return asked, short_reply(asked, reply).rstrip(".")


def main() -> int:
    """Lives the rounds that are not lived yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--facts", type=int, default=3, help="new ones in each round")
    parser.add_argument("--every", type=int, default=5, help="rounds from one measurement on")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "many-rounds")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "out" / "many_rounds.json"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logs.set_up(level="error")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    person = PersonHome(args.work.resolve(), args.models, LearnConfig(threads=args.threads))
    if ledger.live(person.db) is not None and args.out.exists():
        rows = json.loads(args.out.read_text("utf-8"))
    measured = Measured(args.models)
    try:
        for number in range(len(rows) + 1, args.rounds + 1):
            new = range((number - 1) * args.facts, number * args.facts)
            lines = [json.dumps(past.exchange(n)) for n in new]
            (person.streams["chat"] / f"round-{number:03d}.jsonl").write_text("\n".join(lines))
            person.take_up()
            lived = person.learn()
            row: dict[str, Any] = {"round": number, "state": lived.state, "seconds": lived.seconds}
            row |= {key: lived.card.get(key) for key in ("scale", "steps", "peak_bytes")}
            row["kl_weight"] = lived.card.get("training", {}).get("kl_weight")
            row["reasons"] = lived.reasons if lived.state != "accepted" else []
            if lived.folder is not None and (number % args.every == 0 or number == args.rounds):
                row |= measured.of(lived.folder, {n: told(n) for n in range(new.stop)})
            rows.append(row)
            args.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
            print(_line(row), flush=True)
    finally:
        person.close()
    return 0


def _line(row: dict[str, Any]) -> str:
    parts = [f"round {row['round']}: {row['state']} in {row['seconds']:.0f} s"]
    parts += [f"scale {row['scale']}, λ {row['kl_weight'] or 0:.0f}"]
    if "general_nll" in row:
        parts.append(
            f"general ΔNLL {row['general_nll']:+.4f}, KL {row['kl']:.4f}, kept {row['kept']:.0%};"
            f" taught, exact {row['exact']:.0%}, the last ten {row['exact_last_ten']:.0%}"
        )
    return "; ".join([*parts, *row["reasons"]])


if __name__ == "__main__":
    raise SystemExit(main())
