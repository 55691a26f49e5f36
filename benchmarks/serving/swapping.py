"""Swaps under load: whether a reply is ever lost or mixed, whether a stream stumbles, and whether
memory grows.

Each token of a reply has to be the likeliest to an engine of its own, which has the adapter that
the reply names and nothing else to do; or as likely as that one but for rounding, since sums of
several replies in one step are rounded otherwise than those of one alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.engine import Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from serving.adapters import publish
from serving.asks import Failed, Reply, now
from serving.bench import SEQUENCES, Bench
from serving.figures import Figure
from serving.footprint import MB, resident

ADAPTERS = 9  # more than a daemon keeps in memory, so that some are freed and loaded again
# Nats by which rounding may move two tokens against each other: the likeliest one alone moved by up
# to 0.27 between one token and several in a step (docs/design.md, Prompt lookup). The other
# adapter's replies must not pass with it.
CLOSE = 0.6
WARM_SWAPS = 20
AFTER_SECONDS = 0.2  # that a swap's work goes on behind its answer: what it replaced is freed
STREAM_TOKENS = 1000
PAUSE_SECONDS = 1.0  # between two swaps of one stream
STORIES = (
    "The lighthouse keeper", "A letter from the city", "On the first day of school",
    "The old bridge", "In the baker's window", "My grandmother's clock", "The last ferry",
    "When the snow melted", "A stranger at the well", "The recipe says",
)  # fmt: skip


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
    replies: list[Reply] = []
    failed: list[str] = []
    moves, prompts = Moves(), list(itertools.islice(itertools.cycle(STORIES), counts.swap_streams))

    def stream(prompt: str) -> tuple[str, Reply] | None:
        try:
            reply = bench.ours.text(prompt, counts.swap_tokens, logprobs=0)
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

    with ThreadPoolExecutor(SEQUENCES) as pool, ThreadPoolExecutor(1) as mover:
        moving = mover.submit(move)
        told = [pair for pair in pool.map(stream, prompts) if pair is not None]
        moving.result()
    asked = {name: found[name] for name in names}
    with Judge(bench.base, bench.prompt, asked, bench.threads) as judge:
        mixed = [p for p, r in told if not judge.said(r.model, p, r.pieces)]
        either = [p for p, r in told if judge.said(names[r.model == names[0]], p, r.pieces)]
    gaps = [g for r in replies for g in _gaps(r)]
    during = [e - b for b, e in gaps if moves.touch(b, e)]
    raw = {
        "streams": len(prompts),
        "swaps": len(moves.spans),
        "streams_in_flight_at_a_swap": sum(moves.touch(r.began, r.arrived[-1]) for r in replies),
        "by_adapter": {name: sum(r.model == name for r in replies) for name in names},
        "errors": failed,
        "mixed": mixed,
        "tokens_compared": sum(len(r.pieces) for _, r in told),
        "as_the_other_would_say": either,
        "replies_that_differ": len({(p, r.text) for p, r in told}),
        "median_gap_ms": 1000 * median(e - b for b, e in gaps),
        "longest_gap_during_a_swap_ms": 1000 * max(during, default=0.0),
        "swap_ms": [1000 * (b - a) for a, b in moves.spans],
    }
    title = f"{len(prompts)} streams under {len(moves.spans)} swaps"
    return [
        Figure(f"{title}: failed", "", len(failed), len(failed), floor=0, raw=raw),
        Figure(f"{title}: mixed", "", len(mixed), len(mixed), floor=0),
    ]


class Judge:
    """An engine that nobody else asks, with some adapters: whether one of them said something."""

    def __init__(self, base: Path, prompt: Prompt, found: dict[str, Path], threads: int) -> None:
        self._prompt = prompt
        self._ends = prompt.end_ids
        self._sampling = Sampling(logit_bias=dict.fromkeys(self._ends, -100.0))
        self._known: dict[tuple[str, str, tuple[str, ...]], bool] = {}
        self._engine = Engine(base, sequences=1, threads=threads, prompt_lookup=False)
        self._engine.start()
        for name, path in found.items():
            self._engine.load(name, path)

    def said(self, adapter: str, prompt: str, pieces: Sequence[str]) -> bool:
        """Whether the adapter goes on from the prompt with just these tokens."""
        key = adapter, prompt, tuple(pieces)
        if key not in self._known:
            self._known[key] = self._said(adapter, self._prompt.tokenize(prompt), pieces)
        return self._known[key]

    def _said(self, adapter: str, tokens: list[int], pieces: Sequence[str]) -> bool:
        left = list(pieces)
        while left:
            request = Request(
                tokens, adapter, len(left), sampling=self._sampling, logprobs=len(self._ends) + 4
            )
            with self._engine.submit(request) as stream:
                for piece in stream:
                    likely = [t for t in piece.top if t.token not in self._ends]
                    near = [t.token for t in likely if likely[0].logprob - t.logprob < CLOSE]
                    took = [t for t in near if self._prompt.detokenize([t]) == left[0]]
                    if not took:
                        return False
                    tokens = [*tokens, took[0]]
                    del left[0]
                    if took[0] != piece.token or not left:
                        break  # from here on as the reply went on
        return True

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()


def gap(bench: Bench) -> list[Figure]:
    """One long stream, sampled, so that nothing is guessed, and one swap after the other."""
    ratios, raw = [], []
    names = list(ready(bench))[:2]
    for number in range(bench.counts.reps):
        pairs: list[tuple[float, float]] = []
        moves = Moves()

        def move(moves: Moves = moves) -> None:
            for turn in range(bench.counts.swaps):
                time.sleep(PAUSE_SECONDS)
                moves.swap(bench, names[turn % 2])

        with ThreadPoolExecutor(1) as mover:
            moving = mover.submit(move)
            while not moving.done():
                more = {"temperature": 0.8, "seed": number}
                pairs += _gaps(bench.ours.text("A long story.", STREAM_TOKENS, **more))
            moving.result()
        during = [e - b for b, e in pairs if moves.touch(b, e)]
        usual = median(e - b for b, e in pairs)
        ratios.append(max(during) / usual)
        without = [e - b for b, e in pairs if not moves.touch(b, e)]
        raw.append(
            {
                "longest_ms": 1000 * max(during),
                "median_ms": 1000 * usual,
                "longest_without_ms": 1000 * max(without, default=0.0),
                "swap_ms": [1000 * (b - a) for a, b in moves.spans],
            }
        )
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
