"""Six rounds of one person's life: what each way of learning keeps, and at what price.

    python benchmarks/learning.py [--persona report] [--rows base,ours,…] [--rounds 6] [--out FILE]

Prints a table for each row after every round, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import baselines, streams  # noqa: E402
from continual.home import BASE, PersonHome  # noqa: E402
from continual.methods import settings  # noqa: E402
from continual.probe import Base, Probe  # noqa: E402

from acclimate.adapters.base import LoraShape, add_lora, load_base  # noqa: E402
from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.rounds import LearnConfig  # noqa: E402


class Bench:
    """The base, its measures, and one model that adapters are put on."""

    def __init__(self, persona: str, models: Path, rounds: int) -> None:
        from acclimate.adapters.prompt import Prompt

        self.models = models
        self.stream = streams.load(persona)
        self.rounds = rounds
        self.probe = Probe(Prompt.from_gguf(models / BASE), self.stream)
        self.plain = load_base(models / BASE)
        self.base: Base = self.probe.base(self.plain, streams.general(), streams.general_prompts())

    def adapted(self, folder: Path | None) -> torch.nn.Module:
        """The base with the adapter of a PEFT folder."""
        if folder is None:
            return self.plain
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        shape = LoraShape(
            config["r"],
            config["lora_alpha"],
            tuple(config["layers_to_transform"]),
            tuple(config["target_modules"]),
        )
        return add_lora(self.plain, shape, folder)

    def baseline(self, name: str) -> list[dict[str, Any]]:
        """A row of continual/settings.json."""
        folders, path = self.stream.rounds[: self.rounds], self.models / BASE
        return baselines.run(name, self.plain, self.probe, self.base, path, folders, show=show)

    def ours(self, joint: bool = False, retrieval: bool = False, **learn: Any) -> list[dict]:
        """Our rounds; `joint` teaches all rounds at once, as the ceiling."""
        out = []
        with tempfile.TemporaryDirectory() as root:
            person = PersonHome(Path(root), self.models, LearnConfig(**learn))
            try:
                for number, folder in enumerate(self.stream.rounds[: self.rounds], start=1):
                    person.feed(folder)
                    if joint and number < self.rounds:
                        continue
                    lived = person.learn()
                    model = self.adapted(lived.folder)
                    began = time.monotonic()
                    row = self.probe.measure(model, number, self.base)
                    print(f"  measured in {time.monotonic() - began:.0f} s")
                    if retrieval or number == self.rounds:
                        row["retrieval"] = self.probe.measure(
                            model, number, self.base, person.passages
                        )
                    if model is not self.plain:
                        model.unload()
                    row |= {
                        "round": number,
                        "state": lived.state,
                        "reasons": lived.reasons,
                        "seconds": lived.seconds,
                        "scale": lived.card.get("scale"),
                        "train_seconds": lived.card.get("train_seconds"),
                        "steps": lived.card.get("steps"),
                        "peak_bytes": lived.card.get("peak_bytes"),
                        "counts": lived.card.get("counts"),
                    }
                    out.append(row)
                    show(row)
            finally:
                person.close()
        return out


def show(row: dict[str, Any]) -> None:
    """One line a round."""
    r = row.get("retrieval", {})
    print(
        f"round {row['round']} {row['state']:8s} scale {row['scale']}"
        f" exact {row['exact']:.2f} reworded {row['reworded']:.2f}"
        f" [{' '.join(f'{v:.2f}' for v in row['by_round'].values())}]"
        f" { ({k: round(v, 2) for k, v in row['by_origin'].items()}) }"
        f" roundabout {row['roundabout']:.2f} stale {row['stale']:.2f} style {row['style']:.2f}"
        f" kept {row['kept']:.2f} dNLL {row['general_nll']:+.4f} KL {row['kl']:.4f}"
        f" steps {row['steps']} train {row['train_seconds']} s round {row['seconds']:.0f} s"
        + (
            f" | rag exact {r['exact']:.2f} reworded {r['reworded']:.2f}"
            f" { ({k: round(v, 2) for k, v in r['by_origin'].items()}) }"
            f" roundabout {r['roundabout']:.2f}"
            if r
            else ""
        ),
        flush=True,
    )
    if row["state"] != "accepted":
        print("   ", row["reasons"], flush=True)


def main() -> int:
    """Runs the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persona", default="development")
    parser.add_argument("--rows", default="ours")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--models", type=Path, default=Path("/work/main/.cache/models"))
    parser.add_argument("--learn", type=json.loads, default={})
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "learning.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logs.set_up(level="warning")
    bench = Bench(args.persona, args.models, args.rounds)
    print(f"base answers {sum(bench.base.known)} of {len(bench.base.known)} general questions")
    results: dict[str, Any] = {"base_general": bench.base.said}
    for name in args.rows.split(","):
        began = time.monotonic()
        print(f"== {name}", flush=True)
        results[name] = (
            bench.baseline(name)
            if name in settings()
            else bench.ours(joint=name == "joint", **args.learn)
        )
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
