"""Finds each baseline's best learning rate and coefficient on the development persona.

    python benchmarks/continual/sweep.py [--rounds 3] [--methods naive,ewc] [--shapes top,all]

Writes `settings.json` after every try and takes up where it stopped. The report persona is never
used here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from acclimate.adapters.base import load_base  # noqa: E402
from acclimate.adapters.prompt import Prompt  # noqa: E402
from acclimate.daemon.config import LearnConfig  # noqa: E402
from acclimate.store.files import atomic_write  # noqa: E402
from continual import streams  # noqa: E402
from continual.baselines import live, score  # noqa: E402
from continual.home import BASE, precision  # noqa: E402
from continual.material import rounds  # noqa: E402
from continual.methods import METHODS, SETTINGS, Setting, build  # noqa: E402
from continual.probe import Probe  # noqa: E402

RATES = (2e-4, 6e-4, 2e-3, 6e-3)
SHAPES = ("top", "all")
# Each method's own coefficient: the first value goes with the sweep of the rates.
OWN: dict[str, tuple[str, tuple[Any, ...]]] = {
    "ce-replay": ("share", (0.33, 0.2, 0.5)),
    "ewc": ("weight", (1e2, 1.0, 1e4)),
    "o-lora": ("weight", (0.5, 0.05, 0.005)),
    "context-distillation": ("targets", ("reply", "taught")),
}
COLUMNS = ("reworded", "exact", "general_nll", "kl", "kept", "style", "stale", "seconds", "reasons")

Try = dict[str, Any]


def first_tries(method: str, shape: str, rates: Sequence[float] = RATES) -> list[Setting]:
    """Every rate, with the coefficient's first value."""
    own = {OWN[method][0]: OWN[method][1][0]} if method in OWN else {}
    return [Setting(method, shape, rate, own) for rate in rates]


def second_tries(method: str, best: Setting) -> list[Setting]:
    """The coefficient's other values, at the best rate."""
    if method not in OWN:
        return []
    key, values = OWN[method]
    others = values[1:]
    return [Setting(method, best.shape, best.learning_rate, {key: value}) for value in others]


def best_rows(tries: Sequence[Try]) -> dict[str, Try]:
    """The rows of the benchmark: the best try of each method and shape by its score.

    Plain sequential LoRA has two: "naive" at the rate that recalls most, whatever it forgets, and
    "naive-low" at the lower rate with the best score (the same one where it is the lowest).
    """
    rows: dict[str, Try] = {}
    for method, shape in dict.fromkeys((t["method"], t["shape"]) for t in tries):
        own = [t for t in tries if (t["method"], t["shape"]) == (method, shape)]
        own = [t for t in own if t["score"] is not None]
        if not own:
            continue
        end = "" if shape == "top" else f"-{shape}"
        if method != "naive":
            rows[method + end] = max(own, key=lambda t: t["score"])
            continue
        most = max(own, key=lambda t: (t["reworded"], t["score"]))
        lower = [t for t in own if t["learning_rate"] < most["learning_rate"]] or [most]
        rows[method + end] = most
        rows[f"{method}-low{end}"] = max(lower, key=lambda t: t["score"])
    return rows


class Sweep:
    """Tries settings one after the other and keeps what came out."""

    def __init__(self, models: Path, count: int, out: Path, seed: int) -> None:
        self.base_path = models / BASE
        self.out = out
        self.seed = seed
        self.prompt = Prompt.from_gguf(self.base_path)
        stream = streams.load("development")
        self.probe = Probe(self.prompt, stream)
        self.model = load_base(self.base_path, precision(models))
        self.base = self.probe.base(self.model, streams.general(), streams.general_prompts())
        self.rounds = rounds(stream.rounds[:count], self.prompt, LearnConfig())
        self.about = {"persona": stream.name, "rounds": count, "seed": seed}
        self.tries: list[Try] = []
        self.rows: dict[str, Any] = {}  # what stands for methods that are not swept yet
        if out.exists():
            kept = json.loads(out.read_text("utf-8"))
            self.rows = kept["rows"]
            if all(kept.get(key) == value for key, value in self.about.items()):
                self.tries = kept["tries"]

    def attempt(self, setting: Setting) -> Try:
        """What a setting comes to, from the file where it was tried before."""
        what = json.loads(json.dumps(asdict(setting)))
        for old in self.tries:
            if all(old[key] == value for key, value in what.items()):
                return old
        began = time.monotonic()
        method = build(setting, self.model, self.prompt, self.base_path, self.seed)
        try:
            *_, row = live(method, self.rounds, self.probe, self.base, measure_every=False)
        finally:
            method.close()
        value = score(row)
        done = {
            **what,
            "score": value if row["state"] == "accepted" else None,
            **{key: row[key] for key in COLUMNS if key in row},
        }
        self.tries.append(done)
        self._save()
        print(
            f"{setting.method:21s} {setting.shape:4s} {setting.learning_rate:.0e}"
            f" {dict(setting.own)} score {value:+.3f}"
            + (
                f" reworded {row['reworded']:.2f} exact {row['exact']:.2f}"
                f" dNLL {row['general_nll']:+.4f} kept {row['kept']:.2f}"
                if row["state"] == "accepted"
                else f" {row['reasons']}"
            )
            + f" {time.monotonic() - began:.0f} s",
            flush=True,
        )
        return done

    def _save(self) -> None:
        for name, tried in best_rows(self.tries).items():
            self.rows[name] = {**asdict(_setting(tried)), "score": tried["score"]}
        kept = {**self.about, "rows": self.rows, "tries": self.tries}
        atomic_write(self.out, (json.dumps(kept, indent=1) + "\n").encode())


def _setting(tried: Try) -> Setting:
    return Setting(tried["method"], tried["shape"], tried["learning_rate"], tried["own"])


def main() -> int:
    """Sweeps the methods that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SETTINGS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sweep = Sweep(args.models, args.rounds, args.out, args.seed)
    for method in args.methods.split(","):
        for shape in args.shapes.split(","):
            tries = [sweep.attempt(setting) for setting in first_tries(method, shape, args.rates)]
            finished = [t for t in tries if t["score"] is not None]
            if finished:
                best = _setting(max(finished, key=lambda t: t["score"]))
                for setting in second_tries(method, best):
                    sweep.attempt(setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
