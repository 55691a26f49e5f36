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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import past, streams  # noqa: E402
from continual.home import BASE, PersonHome, precision  # noqa: E402
from continual.probe import REPLY_TOKENS, Probe  # noqa: E402

from acclimate.adapters import evaluate  # noqa: E402
from acclimate.adapters.base import load_base, load_lora  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402
from acclimate.adapters.study import short_reply  # noqa: E402
from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.config import LearnConfig  # noqa: E402
from acclimate.store import ledger  # noqa: E402

STREAM = "development"  # for its general questions and prompts alone


class Measured:
    """The base, and what an adapter on it has kept."""

    def __init__(self, models: Path) -> None:
        self.probe = Probe(Prompt.from_gguf(models / BASE), streams.load(STREAM))
        self.plain = load_base(models / BASE, precision(models))
        self.base = self.probe.base(self.plain, streams.general(), streams.general_prompts())

    def of(self, folder: Path, taught: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Shares and nats; `taught` has every fact's question and answer, in their order."""
        model = load_lora(self.plain, folder)
        try:
            found = self.probe.general(model, self.base)
            replies = self.probe.say(model, [asked for asked, _ in taught], REPLY_TOKENS, None)
        finally:
            model.unload()
        recalled = [
            streams.right(reply, [answer])
            for reply, (_, answer) in zip(replies, taught, strict=True)
        ]
        return {
            **{key: found[key] for key in ("general_nll", "kl", "kept", "inside", "alone")},
            "exact": evaluate.share(recalled),
            "exact_last_ten": evaluate.share(recalled[-10:]),
        }


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
    measured.probe.inside, measured.probe.cues = person.inside, person.cues
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
                row |= measured.of(lived.folder, [told(n) for n in range(new.stop)])
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
            f"general ΔNLL {row['general_nll']:+.4f}, KL {row['kl']:.4f}, kept {row['kept']:.0%},"
            f" the adapter alone {row['alone']['general_nll']:+.4f};"
            f" taught, exact {row['exact']:.0%}, the last ten {row['exact_last_ten']:.0%}"
        )
    return "; ".join([*parts, *row["reasons"]])


if __name__ == "__main__":
    raise SystemExit(main())
