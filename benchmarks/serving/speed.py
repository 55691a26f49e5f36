"""How fast: tokens a second while replies are written and while prompts are read, and how long
somebody waits for the first token of the next reply in a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import psutil

from acclimate.daemon.engine import Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from serving.asks import Failed, Reply, at_once, now, rate
from serving.bench import Bench
from serving.figures import Figure, against, p95
from serving.sides import Side

PER_SECOND = "tokens/s"
TOLD = (
    ("What should I look at first in an old clarinet?", "Look at the cork joints and at the pads."),
    ("How do I tell that a pad leaks?", "Close the hole and blow: if air comes out, it leaks."),
    ("And what do I do about a leaking pad?", "Warm it, press it down evenly and let it cool."),
)  # fmt: skip
SYSTEM = (
    "You help in a small workshop that mends clarinets and flutes. You answer in one or two short"
    " sentences, you say so when you do not know, and you never name a price."
)
NEXT = (
    "How long does it take to cool?", "Which glue is best for that?", "What if it leaks again?",
    "Is that the same for a flute?", "Which tool do I need?", "How often must I do it?",
)  # fmt: skip


def decode(bench: Bench) -> list[Figure]:
    """Streams that are written beside each other, from their first token to the last."""
    rows = []
    tokens = bench.counts.decode_tokens
    with Inside(bench) as inside:
        for streams in bench.counts.streams:

            def prepare(streams: int = streams) -> list[list[int]]:
                return [bench.new_text() for _ in range(streams)]

            spent: dict[str, list[float]] = {"ours": [], "peer": []}

            def measure(
                side: Side,
                prompts: list[list[int]],
                spent: dict[str, list[float]] = spent,
            ) -> float:
                before = _cpu_seconds(side.pid)
                found = rate(at_once([partial(side.text, p, tokens) for p in prompts]))
                used = _cpu_seconds(side.pid) - before
                spent[side.name].append(1000 * used / (len(prompts) * tokens))
                return found

            before = _guesses(bench)
            ours, peer = bench.in_turn(prepare, measure)
            guesses = [a - b for a, b in zip(_guesses(bench), before, strict=True)]
            alone = [inside.decode(prepare(), tokens) for _ in ours]
            raw = {
                "tokens_each": tokens,
                "engine_alone": alone,
                "cpu_ms_per_token": spent,
                "guessed": guesses[0],
                "guesses_that_held": guesses[1],
            }
            rows.append(
                against(
                    f"decode, {streams} stream{'s' * (streams > 1)}", PER_SECOND, ours, peer,
                    beside="peer", floor=1.0, aim=1.1, more=True, raw=raw,
                )
            )  # fmt: skip
    return rows


def _cpu_seconds(pid: int) -> float:
    """What a process has used of all cores."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def _guesses(bench: Bench) -> list[int]:
    """Tokens that prompt lookup guessed so far, and how many of them held."""
    stats = bench.ours.call("GET", "/v1/status")["engine"]
    return [stats["guessed_tokens"], stats["held_tokens"]]


def prefill(bench: Bench) -> list[Figure]:
    """Prompts that nothing is known of, by the time to the first token."""
    rows = []
    with Inside(bench) as inside:
        for size in bench.counts.prefill_tokens:

            def measure(side: Side, prompt: list[int], size: int = size) -> float:
                reply = side.text(prompt, 1)
                if (reply.prompt_tokens, reply.cached_tokens) != (size, 0):
                    raise Failed(f"{side.name} read {reply.prompt_tokens} tokens of {size} anew")
                return size / reply.first_seconds

            ours, peer = bench.in_turn(partial(bench.new_tokens, size), measure)
            alone = [inside.prefill(bench.new_tokens(size)) for _ in ours]
            rows.append(
                against(
                    f"prefill, {size} tokens", PER_SECOND, ours, peer,
                    beside="peer", floor=1.0, more=True, raw={"engine_alone": alone},
                )
            )  # fmt: skip
    return rows


def warm(bench: Bench) -> list[Figure]:
    """A conversation that was read before and one new short question."""
    head = [{"role": "system", "content": SYSTEM}]
    for asked, said in TOLD:
        head += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    number = 0

    def prepare() -> list[dict[str, str]]:
        nonlocal number
        number += 1
        return [*head, {"role": "user", "content": f"({number}) {NEXT[number % len(NEXT)]}"}]

    def measure(side: Side, messages: list[dict[str, str]]) -> Reply:
        return side.chat(messages, 4)

    bench.in_turn(prepare, measure, times=2)
    asks = bench.counts.reps * bench.counts.warm_asks
    ours, peer = bench.in_turn(prepare, measure, times=asks)
    sizes = {name: _sizes(replies) for name, replies in (("ours", ours), ("peer", peer or []))}
    if peer and sizes["ours"]["prompt_tokens"] != sizes["peer"]["prompt_tokens"]:
        raise Failed(f"the two sides were asked different things: {sizes}")
    rows = []
    for title, take, floor, aim in (("median", median, 1.1, 1.0), ("p95", p95, None, None)):
        own = [1000 * r.first_seconds for r in ours]
        other = [1000 * r.first_seconds for r in peer or ()]
        held = take(other) if other else None
        rows.append(
            Figure(
                f"first token, warm prefix, {title}", "ms", take(own),
                take(own) / held if held else None,
                floor=floor, aim=aim, other=held, beside="peer",
                raw={"ours": own, "other": other, "read": sizes},
            )
        )  # fmt: skip
    return rows


def _sizes(replies: Sequence[Reply]) -> dict[str, Any]:
    return {
        "prompt_tokens": [r.prompt_tokens for r in replies[:3]],
        "cached_tokens": [r.cached_tokens for r in replies[:3]],
    }


class Inside:
    """Our engine in this process, without HTTP: what of a difference is not the engine's."""

    def __init__(self, bench: Bench) -> None:
        self._engine = Engine(bench.base, **bench.engine)
        self._sampling = Sampling(logit_bias=dict.fromkeys(bench.prompt.end_ids, -100.0))
        self._engine.start()

    def decode(self, prompts: Sequence[list[int]], tokens: int) -> float:
        """Tokens a second of all replies."""
        return rate(at_once([partial(self._text, p, tokens) for p in prompts]))

    def prefill(self, prompt: list[int]) -> float:
        """Tokens a second up to the first token."""
        return len(prompt) / self._text(prompt, 1).first_seconds

    def _text(self, prompt: list[int], tokens: int) -> Reply:
        reply = Reply(now())
        for piece in self._engine.submit(Request(prompt, "base", tokens, sampling=self._sampling)):
            if piece.token is not None:
                reply.arrived.append(now())
        reply.usage = {"completion_tokens": len(reply.arrived)}
        return reply

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()
