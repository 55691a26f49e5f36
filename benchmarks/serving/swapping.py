"""Swaps under load: whether a reply is ever lost or mixed, whether a stream stumbles, and whether
memory grows.

A reply is held against what an engine of its own says with the adapter that the reply names, up to
where that one's likeliest two tokens are so near to each other that rounding may choose between
them: sums of several replies in one step are rounded otherwise than those of one alone.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

from acclimate.daemon.engine import Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from serving.adapters import publish
from serving.asks import Failed, Reply, now
from serving.bench import SEQUENCES, Bench
from serving.figures import Figure
from serving.footprint import MB, resident

ADAPTERS = 9  # more than a daemon keeps in memory, so that some are freed and loaded again
CLOSE = 0.25  # nats between the likeliest two tokens
WARM_SWAPS = 20
AFTER_SECONDS = 0.2  # that a swap's work goes on behind its answer: what it replaced is freed
STREAM_TOKENS = 1000
STORIES = (
    "The lighthouse keeper", "A letter from the city", "On the first day of school",
    "The old bridge", "In the baker's window", "My grandmother's clock", "The last ferry",
    "When the snow melted", "A stranger at the well", "The recipe says",
)  # fmt: skip


@dataclass
class Said:
    """What an adapter says to a prompt: all of it, and the part that rounding cannot change."""

    whole: str
    sure: str


@dataclass
class Moves:
    """Swaps while something else goes on: from when to when each took."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    def swap(self, bench: Bench, version: str) -> None:
        began = now()
        bench.ours.call("POST", "/v1/adapters/live", {"version": version})
        self.spans.append((began, now()))

    def touch(self, begin: float, end: float) -> bool:
        """Whether one was under way in between."""
        return any(a < end and begin < b + AFTER_SECONDS for a, b in self.spans)


def ready(bench: Bench) -> dict[str, Path]:
    """The home's adapters, made once, and a daemon that has done what it does at its first swap."""
    found = {p.parent.name: p for p in sorted(bench.home.adapters.glob("v*/adapter.gguf"))}
    if not found:
        bench.close()
        found = publish(bench.home, bench.base, ADAPTERS)
    for version in (*list(found)[:2], "base"):
        bench.ours.call("POST", "/v1/adapters/live", {"version": version})
    bench.ours.call("POST", "/v1/adapters/live", {"version": next(iter(found))})
    end = time.monotonic() + 600  # with an adapter live it gives general text its vectors, once
    while not list(bench.home.cache.glob("general-*.npy")):
        if time.monotonic() > end:
            raise Failed("the daemon made no vectors of general text")
        time.sleep(0.5)
    return found


def swaps(bench: Bench) -> list[Figure]:
    """Streams in flight, as many as there are sequences, while live moves between two adapters."""
    counts, found = bench.counts, ready(bench)
    names = list(found)[:2]
    expected = references(bench, {name: found[name] for name in names}, counts.swap_tokens)
    replies: list[Reply] = []
    failed: list[str] = []
    moves, prompts = Moves(), list(itertools.islice(itertools.cycle(STORIES), counts.swap_streams))

    def stream(prompt: str) -> tuple[str, Reply] | None:
        try:
            reply = bench.ours.text(prompt, counts.swap_tokens)
        except (Failed, httpx.HTTPError) as error:
            failed.append(str(error))
            return None
        replies.append(reply)
        return prompt, reply

    def move() -> None:
        for number in range(counts.swaps):
            # Spread over the streams, each a moment after one of them has ended.
            while len(replies) + len(failed) < number * len(prompts) / counts.swaps:
                time.sleep(0.005)
            moves.swap(bench, names[(number + 1) % 2])

    mover = threading.Thread(target=move)
    with ThreadPoolExecutor(SEQUENCES) as pool:
        mover.start()
        told = [pair for pair in pool.map(stream, prompts) if pair is not None]
    mover.join()
    mixed = [p for p, r in told if not r.text.startswith(expected[p, r.model].sure)]
    unclear = [p for p, r in told if not _apart(*(expected[p, name] for name in names))]
    gaps = [g for r in replies for g in _gaps(r)]
    during = [e - b for b, e in gaps if moves.touch(b, e)]
    raw = {
        "streams": len(prompts),
        "swaps": len(moves.spans),
        "streams_in_flight_at_a_swap": sum(moves.touch(r.began, r.arrived[-1]) for r in replies),
        "by_adapter": {name: sum(r.model == name for r in replies) for name in names},
        "errors": failed,
        "mixed": mixed,
        "equal_to_the_end": sum(r.text == expected[p, r.model].whole for p, r in told),
        "characters_compared": sum(len(expected[p, r.model].sure) for p, r in told),
        "characters": sum(len(r.text) for r in replies),
        "streams_whose_adapters_say_the_same": len(unclear),
        "median_gap_ms": 1000 * median(e - b for b, e in gaps),
        "longest_gap_during_a_swap_ms": 1000 * max(during, default=0.0),
        "swap_ms": [1000 * (b - a) for a, b in moves.spans],
    }
    title = f"{len(prompts)} streams under {len(moves.spans)} swaps"
    return [
        Figure(f"{title}: failed", "", len(failed), len(failed), floor=0, raw=raw),
        Figure(f"{title}: mixed", "", len(mixed), len(mixed), floor=0),
    ]


def references(bench: Bench, found: dict[str, Path], tokens: int) -> dict[tuple[str, str], Said]:
    """What each adapter says to each prompt, one after the other in an engine of their own.

    Raises Failed where two adapters could not be told apart.
    """
    ends = bench.prompt.end_ids
    sampling = Sampling(logit_bias=dict.fromkeys(ends, -100.0))
    said: dict[tuple[str, str], Said] = {}
    engine = Engine(bench.base, **bench.engine, prompt_lookup=False)
    engine.start()
    try:
        for name, path in found.items():
            engine.load(name, path)
            for prompt in STORIES:
                request = Request(
                    bench.prompt.tokenize(prompt), name, tokens, sampling=sampling,
                    logprobs=len(ends) + 2,
                )  # fmt: skip
                whole, sure = "", None
                for piece in engine.submit(request):
                    likely = [t.logprob for t in piece.top if t.token not in ends]
                    if sure is None and likely and likely[0] - likely[1] < CLOSE:
                        sure = whole
                    whole += piece.text
                said[prompt, name] = Said(whole, whole if sure is None else sure)
    finally:
        engine.stop()
    first, second = found
    if not any(_apart(said[p, first], said[p, second]) for p in STORIES):
        raise Failed("the adapters say the same")
    return said


def _apart(a: Said, b: Said) -> bool:
    return not (a.whole.startswith(b.sure) or b.whole.startswith(a.sure))


def gap(bench: Bench) -> list[Figure]:
    """One long stream, sampled, so that nothing is guessed, and one swap after the other."""
    ratios, raw = [], []
    names = list(ready(bench))[:2]
    for number in range(bench.counts.reps):
        pairs: list[tuple[float, float]] = []
        moves, ended = Moves(), threading.Event()

        def move(moves: Moves = moves, ended: threading.Event = ended) -> None:
            for turn in range(bench.counts.swaps):
                time.sleep(0.3)
                moves.swap(bench, names[turn % 2])
            ended.set()

        mover = threading.Thread(target=move)
        mover.start()
        while not ended.is_set():
            more = {"temperature": 0.8, "seed": number, "model": "base"}
            pairs += _gaps(bench.ours.text("A long story.", STREAM_TOKENS, **more))
        mover.join()
        during = [e - b for b, e in pairs if moves.touch(b, e)]
        usual = median(e - b for b, e in pairs)
        ratios.append(max(during) / usual)
        raw.append({"longest_ms": 1000 * max(during), "median_ms": 1000 * usual,
                    "longest_without_ms": 1000 * max(
                        (e - b for b, e in pairs if not moves.touch(b, e)), default=0.0),
                    "swap_ms": [1000 * (b - a) for a, b in moves.spans]})  # fmt: skip
    longest, usual = (median(r[n] for r in raw) for n in ("longest_ms", "median_ms"))
    return [
        Figure(
            "longest gap during a swap", "ms", longest, median(ratios), floor=3.0, aim=2.0,
            other=usual, beside="median gap", raw={"repetitions": raw},
        )
    ]  # fmt: skip


def _gaps(reply: Reply) -> list[tuple[float, float]]:
    """From when to when nothing came."""
    return list(itertools.pairwise(reply.arrived))


def soak(bench: Bench) -> list[Figure]:
    """Swap after swap through more adapters than are kept, each asked once."""
    names: Sequence[str] = list(ready(bench))
    turns = itertools.cycle(names)

    def go(swaps: int) -> None:
        for version in itertools.islice(turns, swaps):
            bench.ours.call("POST", "/v1/adapters/live", {"version": version})
            if bench.ours.text(STORIES[0], 4).model != version:
                raise Failed(f"{version} was live and did not answer")

    go(WARM_SWAPS)
    before = resident(bench.ours.pid)
    looks = []
    for part in _parts(bench.counts.soak, 10):
        go(part)
        looks.append(resident(bench.ours.pid))
    growth = 100 * (looks[-1] / before - 1)
    raw = {"before_bytes": before, "after_bytes": looks, "before_mb": before / MB}
    title = f"memory after {bench.counts.soak} swaps"
    return [Figure(title, "% more", growth, growth, floor=5.0, raw=raw)]


def _parts(whole: int, parts: int) -> list[int]:
    return [whole // parts + (n < whole % parts) for n in range(min(parts, whole))]
