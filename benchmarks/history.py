"""What a round costs after few and after many examples were learned: time, memory, files.

    python benchmarks/history.py [--sizes 1000,10000,100000] [--exposures N] [--repeats N]

The past is made as `continual/past.py` says, once, and kept under --work: minutes for 100,000. The
round then is a real one, the second of the development persona, with its worker in a process of its
own. Prints a table and writes benchmarks/out/history.json. The last column is the greatest of a
line beside the smallest history.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from continual import past, streams  # noqa: E402
from continual.home import PersonHome  # noqa: E402

from acclimate.adapters.snapshot import SNAPSHOT_FILE  # noqa: E402
from acclimate.daemon import history  # noqa: E402
from acclimate.daemon import log as logs  # noqa: E402
from acclimate.daemon.bodies import ChatRequest  # noqa: E402
from acclimate.daemon.config import Config, LearnConfig  # noqa: E402
from acclimate.daemon.core import Core  # noqa: E402
from acclimate.daemon.study import study  # noqa: E402
from acclimate.store import ledger  # noqa: E402

PERSONA = "development"
ASKED_TIMES = 5
POLL_SECONDS = 0.02


def seed(run: Path, models: Path) -> None:
    """A home whose first round was trained; its adapter's files are those of all that follow."""
    person = PersonHome(run, models)
    try:
        person.feed(streams.load(PERSONA).rounds[0])
        lived = person.learn()
        assert lived.state == "accepted", f"the first round was {lived.state}: {lived.reasons}"
    finally:
        person.close()


def lengthen(run: Path, models: Path, first: int, last: int) -> None:
    person = PersonHome(run, models)
    try:
        past.extend(person, first, last)
    finally:
        person.close()


def measure(run: Path, models: Path, learn: LearnConfig) -> dict[str, Any]:
    """Seconds by part, bytes and answers of one more round in the home at `run`."""
    person = PersonHome(run, models, learn)
    try:
        parts: dict[str, float] = {}
        folder = streams.load(PERSONA).rounds[1]
        parts["read the files"] = _seconds(lambda: person.put(folder))
        parts["study"] = _seconds(lambda: study(person.db))
        parts["embed"] = _seconds(person.embed)
        before = _memory()
        began = time.perf_counter()
        round_id = person.rounds.start("benchmark")
        parts["choose"] = time.perf_counter() - began
        snapshot = person.home.cache / "rounds" / f"{round_id:06d}" / SNAPSHOT_FILE
        size = snapshot.stat().st_size
        phases, peak = _follow(person)
        lived = person.lived(round_id)
        return {
            "state": lived.state,
            "reasons": lived.reasons,
            "counts": lived.card.get("counts", {}),
            "seconds": {**parts, **phases, "the whole round": time.perf_counter() - began},
            "bytes": {
                "snapshot": size,
                "worker, peak": lived.card.get("peak_bytes", 0),
                "home's process, peak": peak,
                "home's process, more than before": peak - before,
                "database": person.home.db.stat().st_size,
            },
            "answers": _answers(person),
        }
    finally:
        person.close()


def _follow(person: PersonHome) -> tuple[dict[str, float], int]:
    """Seconds of each phase of the running round, and this process's peak in bytes meanwhile."""
    phases: dict[str, float] = {}
    peak, then = 0, time.perf_counter()
    while (progress := person.rounds.current()) is not None:
        peak = max(peak, _memory())
        time.sleep(POLL_SECONDS)
        now = time.perf_counter()
        phases[progress["phase"]] = phases.get(progress["phase"], 0.0) + now - then
        then = now
    return phases, peak


def _answers(person: PersonHome) -> dict[str, float]:
    """Milliseconds of what is asked of a home; the median of a few times."""
    core = Core(
        person.home,
        Config(),
        person.db,
        person.index,
        engine=person.engine,
        prompt=person.prompt,
        retriever=person.retriever,
        rounds=person.rounds,
        switch=person.switch,
    )
    newest = history.name_of(ledger.adapters(person.db, limit=1)[0].version)
    questions = iter(past.exchange(n)["messages"][0]["content"] for n in range(ASKED_TIMES))

    def first_token() -> None:
        said = [{"role": "user", "content": next(questions)}]
        reply = core.chat(ChatRequest.model_validate({"messages": said, "max_tokens": 2}))
        with reply.stream as pieces:
            next(iter(pieces))

    asked: dict[str, Callable[[], object]] = {
        "status": core.status,
        "history": lambda: history.history(person.db),
        "show": lambda: history.show(person.db, newest),
        "examples": lambda: core.examples("pending", 50, None),
        "search": lambda: core.search("Where do I keep the copper kettle?", 5),
        "chat, first token": first_token,
    }
    return {
        name: 1000 * statistics.median(_seconds(ask) for _ in range(ASKED_TIMES))
        for name, ask in asked.items()
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


def copy(source: Path, target: Path) -> None:
    """A home as it is; the files of its adapters, which never change, are shared."""
    shutil.rmtree(target, ignore_errors=True)

    def share(a: str, b: str) -> None:
        os.link(a, b) if "/adapters/" in a else shutil.copy2(a, b)

    shutil.copytree(source, target, symlinks=True, copy_function=share)


def child(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a process of its own, so that the peak of its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_quietly, work, *arguments).result()


def _quietly(work: Callable[..., Any], *arguments: Any) -> Any:
    logs.set_up(level="error")
    return work(*arguments)


def build(work: Path, models: Path, sizes: list[int]) -> None:
    """The home of each size that is not there yet, each from the one before."""
    run = work / "run"  # what the sources' paths name, so each is made and lived in here
    steps = [("seed", lambda _before, _size: child(seed, run, models))]
    steps += [(str(n), lambda before, n: child(lengthen, run, models, before, n)) for n in sizes]
    last, before = None, 0
    for name, grow in steps:
        kept, size = work / name, int(name) if name.isdecimal() else 0
        if not kept.exists():
            if last is None:
                shutil.rmtree(run, ignore_errors=True)
            else:
                copy(last, run)
            began = time.perf_counter()
            grow(before, size)
            copy(run, kept)
            print(f"made {name} in {time.perf_counter() - began:.0f} s", flush=True)
        last, before = kept, size


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number of some equal rounds."""

    def of(values: list[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {k: of([v[k] for v in values if k in v]) for k in values[0]}
        return statistics.median(values) if isinstance(values[0], int | float) else values[0]

    found: dict[str, Any] = of(runs)
    return found


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(box=None)
    for title in ("", *(f"{row['learned']:,}" for row in rows), "ratio"):
        table.add_column(title, justify="right" if title else "left")
    units = (("seconds", "s", 1.0), ("bytes", "MB", 1e6), ("answers", "ms", 1.0))
    for group, unit, scale in units:
        for name in rows[0][group]:
            values = [row[group].get(name, 0.0) / scale for row in rows]
            shown = (f"{value:.3f}" if value < 10 else f"{value:.1f}" for value in values)
            table.add_row(f"{name}, {unit}", *shown, f"{max(values) / max(values[0], 1e-9):.2f}")
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of a round by what is learned.")
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--exposures", type=int, default=LearnConfig().exposures)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "models")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "history")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out" / "history.json")
    options = parser.parse_args()
    work, models = options.work.resolve(), options.models.resolve()
    sizes = sorted(int(size) for size in options.sizes.split(","))
    build(work, models, sizes)
    learn = LearnConfig(exposures=options.exposures)
    rows = []
    for size in sizes:
        runs = []
        for _ in range(options.repeats):
            copy(work / str(size), work / "run")
            runs.append(child(measure, work / "run", models, learn))
        rows.append({"learned": size, **middle(runs)})
        print(f"{size:,}: {rows[-1]['state']}", flush=True)
    show(rows)
    whole = [row["seconds"]["the whole round"] for row in rows]
    found = {"rows": rows, "ratio": max(whole) / whole[0], "exposures": options.exposures}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
