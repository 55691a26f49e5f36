"""Our serving beside llama.cpp's own server: speed, swaps, memory, each against its floor.

    python benchmarks/serving.py [--only decode,warm] [--reps 5] [--peer PYTHON] [--quick]

A real daemon on a fresh home with the default models, and the peer, a process of another
environment with xllamacpp, are asked the same over HTTP in turn. Without the peer its columns stay
empty. Prints a table, or Markdown; writes JSON with the machine, the versions and every
repetition. Ends with 1 where something could not be measured. docs/performance.md says more.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import lookup as prompt_lookup  # noqa: E402
from serving import figures, footprint, machine, speed, swapping, training  # noqa: E402
from serving.bench import QUICK, Bench, Counts  # noqa: E402
from serving.figures import Figure  # noqa: E402

from acclimate.daemon.tuning import default_threads  # noqa: E402

console = Console()


def lookup(bench: Bench) -> list[Figure]:
    """The replies to tasks with notes in front, written with and without prompt lookup."""
    texts = prompt_lookup.asked()["notes"]
    texts = texts if bench.counts != QUICK else texts[:1]
    prompts = [bench.prompt.encode_prompt([{"role": "user", "content": t}]) for t in texts]
    with prompt_lookup.both(bench.base, bench.threads) as engines:
        row = prompt_lookup.compare(engines, prompts, bench.counts.reps)
    same = f"{row['same_text']} of {row['prompts']}"
    return [
        Figure(
            f"prompt lookup on notes (same text: {same})", "tokens/s",
            row["with_tokens_per_second"], row["ratio"], floor=1.3, aim=1.6, more=True,
            other=row["without_tokens_per_second"], beside="without", raw=row,
        )
    ]  # fmt: skip


MEASURES: dict[str, Callable[[Bench], list[Figure]]] = {
    "start": footprint.start,
    "memory": footprint.memory,
    "decode": speed.decode,
    "prefill": speed.prefill,
    "warm": speed.warm,
    "lookup": lookup,
    "training": training.waiting,
    "swaps": swapping.swaps,
    "gap": swapping.gap,
    "soak": swapping.soak,
}


def main() -> int:
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that both servers end as well
    counts = QUICK if args.quick else Counts()
    given = {"reps": args.reps, "soak": args.soak}
    counts = replace(counts, **{name: n for name, n in given.items() if n is not None})
    peer = args.peer if args.peer.exists() else None
    if peer is None:
        console.print(f"no peer: {args.peer} is not there (sh .ci/peer.sh makes it)", style="red")
    about = machine.machine()
    rows: list[Figure] = []
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="acclimate-serving-") as root:
        bench = Bench(Path(root), args.models.resolve(), peer, args.threads, counts)
        try:
            for name in args.only:
                console.print(f"… {name}", style="dim")
                try:
                    found = MEASURES[name](bench)
                except Exception as error:  # the other figures can be measured all the same
                    errors[name] = f"{type(error).__name__}: {error}"
                    console.print(f"{name}: {errors[name]}", style="red", markup=False)
                    traceback.print_exc()
                    bench.close()
                    continue
                rows += found
                for row in found:
                    console.print("  " + " · ".join(filter(None, row.cells())), highlight=False)
        finally:
            bench.close()
    versions = {"ours": machine.ours(), "peer": bench.about_peer}
    report = {
        "machine": about,
        "versions": versions,
        "settings": {**bench.engine, **asdict(counts)},
        "errors": errors,
        "figures": [row.to_json() for row in rows],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if args.markdown:
        print(figures.markdown(rows))
    else:
        console.print(figures.table(rows))
    _warn(versions, about)
    return 1 if errors else 0


def _warn(versions: dict[str, Any], about: dict[str, Any]) -> None:
    """What would make the comparison unfair."""
    if versions["peer"]:
        ours, peer = (machine.instructions(versions[s]["system"]) for s in ("ours", "peer"))
        if ours != peer:
            console.print(
                f"ours is built for {', '.join(sorted(ours - peer)) or 'nothing'} besides, the peer"
                f" for {', '.join(sorted(peer - ours)) or 'nothing'}: see docs/performance.md",
                style="yellow",
            )
    if about["load_before"] > 0.5:
        console.print(f"the machine was busy: load {about['load_before']}", style="yellow")


def _arguments() -> argparse.Namespace:
    def some(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(MEASURES):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there is no such")
        return [name for name in MEASURES if name in names]

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", type=some, default=list(MEASURES), help=f"some of {','.join(MEASURES)}"
    )
    parser.add_argument("--quick", action="store_true", help="few and short, as a smoke test")
    parser.add_argument("--reps", type=int, help="repetitions; 5")
    parser.add_argument("--soak", type=int, help="swaps of the soak; 500")
    parser.add_argument("--threads", type=int, default=default_threads(), help="of both sides")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-peer" / "bin" / "python")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "serving.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
