"""What our own first round costs in operations, beside what the machine can do.

    python benchmarks/continual/cost.py [--persona development] [--threads 2] [--measured SECONDS]

Counts real batches of real lessons and anchors; trains nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from acclimate.adapters.attention import segments  # noqa: E402
from acclimate.adapters.base import LoraShape, common_prefix, load_base  # noqa: E402
from acclimate.adapters.prompt import Encoded, Prompt  # noqa: E402
from acclimate.adapters.train import (  # noqa: E402
    SAMPLED_TOKENS,
    Anchor,
    Lesson,
    Recipe,
    _in_turn,
    _schedule,
    rows_of,
)
from acclimate.daemon.config import LearnConfig  # noqa: E402
from continual import flops, streams  # noqa: E402
from continual.home import BASE  # noqa: E402
from continual.material import rounds  # noqa: E402
from continual.methods import general_anchors, lora_shape, our_boundary  # noqa: E402
from continual.sequential import RECIPE  # noqa: E402


@dataclass(frozen=True)
class Cost:
    """Operations of a round: the frozen layers once a text, then the steps, together and a step."""

    lower: int
    steps: int
    lessons: int
    anchors: int
    step: float


def our_round(
    sizes: flops.Sizes,
    shape: LoraShape,
    lessons: Sequence[Lesson],
    long: Sequence[Anchor],
    short: Sequence[Anchor],
    recipe: Recipe,
) -> Cost:
    """Counts a round of `train.train` without training it."""
    generator = torch.Generator().manual_seed(recipe.seed)
    general = [*long, *short]
    every = rows_of(lessons)
    taught_prefix = common_prefix([row.tokens for row in every])
    general_prefix = common_prefix([a.encoded.tokens for a in general])
    boundary = min(shape.layers)
    lower = sum(
        flops.activations(sizes, boundary, [len(row.tokens) for row in rows], prefix)
        for rows, prefix in (
            (every, taught_prefix),
            ([a.encoded for a in general], general_prefix),
        )
    )
    steps = _schedule(lessons, every, recipe, generator)
    # In the order in which a round draws them, so that the batches are the same.
    longs = islice(_in_turn(len(long), recipe.anchor_batch, generator), len(steps))
    shorts = islice(_in_turn(len(short), recipe.short_anchor_batch, generator), len(steps))
    held = [
        [*(long[i] for i in a), *(short[i] for i in b)] for a, b in zip(longs, shorts, strict=True)
    ]
    spent = [0, 0]
    for picked, chosen in zip(steps, held, strict=True):
        shown = [every[i] for i in picked]
        ids = [a.teacher.ids.flatten().long() for a in chosen]
        taught = [t for row in shown for t, m in zip(row.tokens, row.mask, strict=True) if m]
        certain = len(torch.unique(torch.cat([torch.tensor(taught), *ids])))
        part = min(sizes.vocabulary, certain + SAMPLED_TOKENS)
        for n, (rows, prefix) in enumerate(
            ((shown, taught_prefix), ([a.encoded for a in chosen], general_prefix))
        ):
            row = flops.Row.packed(segments(prefix, [len(x.tokens) - prefix for x in rows]))
            spent[n] += flops.step(sizes, shape, row, _predicted(rows), part)
    return Cost(lower, len(steps), spent[0], spent[1], sum(spent) / max(1, len(steps)))


def _predicted(rows: Sequence[Encoded]) -> int:
    return sum(bool(weight) for row in rows for weight in row.mask)


def main() -> int:
    """Prints and keeps the machine's peak, a step's and a round's operations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persona", default="development")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measured", type=float, help="seconds that such a round trained")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "cost.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peaks = {
        name: flops.peak(args.threads, dtype=dtype)
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    for size in peaks["float32"]:
        speeds = ", ".join(f"{name} {speed[size]:7.1f}" for name, speed in peaks.items())
        print(f"{size:>18s}  {speeds} GFLOP/s")
    path = args.models / BASE
    prompt = Prompt.from_gguf(path)
    base: transformers.PreTrainedModel = load_base(path)
    long, short = general_anchors(base, prompt, path)
    lessons = rounds(streams.load(args.persona).rounds[:1], prompt, LearnConfig())[0].new.lessons
    sizes = flops.Sizes.of(base.config)
    shape = lora_shape("top", sizes.layers, our_boundary(base, prompt, path))
    cost = our_round(sizes, shape, lessons, long, short, RECIPE)
    whole = cost.lower + cost.lessons + cost.anchors
    best = {name: max(speed.values()) * 1e9 for name, speed in peaks.items()}
    print(
        f"a step {cost.step / 1e9:.1f} GFLOP, {cost.steps} steps"
        f" (lessons {cost.lessons / 1e12:.2f}, anchors {cost.anchors / 1e12:.2f} TFLOP),"
        f" frozen layers once {cost.lower / 1e12:.2f} TFLOP:"
        f" {whole / best['float32']:.0f} s at the peak of float32"
    )
    seconds = {name: whole / speed for name, speed in best.items()}
    out = {"threads": args.threads, "gflops": peaks, **asdict(cost), "seconds_at_peak": seconds}
    if args.measured:
        out["gflops_reached"] = whole / args.measured / 1e9
        out["used"] = used = {name: at / args.measured for name, at in seconds.items()}
        shares = ", ".join(f"{share:.0%} of the {name} peak" for name, share in used.items())
        print(f"{out['gflops_reached']:.0f} GFLOP/s in {args.measured:.0f} s: {shares}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
