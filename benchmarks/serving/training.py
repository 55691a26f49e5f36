"""How long somebody waits for a first token while a round trains, beside an idle machine."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

from serving.asks import Failed
from serving.bench import Bench
from serving.figures import Figure, p95

CHATS = Path(__file__).resolve().parents[1] / "streams" / "development" / "round-1" / "chats"
PHASE_SECONDS = 1800.0
QUESTIONS = (
    "Why is the sky blue?", "How do I boil an egg?", "What does a notary do?",
    "Which planet is the largest?", "How is paper made?", "What is a sonnet?",
    "Why do leaves fall in autumn?", "How deep is the sea?", "What is a trade wind?",
    "How do bees find flowers?",
)  # fmt: skip


def waiting(bench: Bench) -> list[Figure]:
    """A question every few seconds, as somebody asks who reads the replies.

    A round pauses while somebody is answered and goes on two seconds later, so that between two
    questions it trains for some seconds; retrieval is on, as it is by default.
    """
    ours = bench.ours
    ours.call("POST", "/v1/adapters/live", {"version": "base"})
    for path in sorted(CHATS.glob("*.jsonl")):
        body = {"name": path.name, "text": path.read_text("utf-8"), "kind": "chat"}
        ours.call("POST", "/v1/examples", body)
    _until_embedded(bench)
    ours.chat([{"role": "user", "content": QUESTIONS[0]}], 16, retrieval=True)  # all is loaded
    rng = random.Random(3)
    idle, _ = _asked(bench, rng, None)
    round_id = ours.call("POST", "/v1/rounds", {})["round"]
    try:
        _until_under_way(bench, round_id)
        busy, phases = _asked(bench, rng, round_id)
    finally:
        with contextlib.suppress(Failed):  # it may have ended by itself
            ours.call("POST", f"/v1/rounds/{round_id}/cancel", {})
    if not busy:
        raise Failed("the round trained at no question")
    raw = {"idle": idle, "training": busy, "phases": phases}
    rows = []
    for title, take, floor, aim in (("median", median, None, None), ("p95", p95, 1.5, 1.2)):
        own, other = take(busy), take(idle)
        rows.append(
            Figure(
                f"first token while a round trains, {title}", "ms", own, own / other,
                floor=floor, aim=aim, other=other, beside="idle", raw=raw,
            )
        )  # fmt: skip
    return rows


def _asked(bench: Bench, rng: random.Random, round_id: int | None) -> tuple[list[float], list[Any]]:
    """Milliseconds to the first token of each question; of a round only those that it trained at.

    Besides, what the round was doing just before each.
    """
    waits, seen = [], []
    for number in range(bench.counts.train_asks):
        time.sleep(bench.counts.pause_seconds * rng.uniform(0.8, 1.2))
        if round_id is not None:
            progress = bench.ours.call("GET", f"/v1/rounds/{round_id}")["progress"]
            if progress is None:
                break
            seen.append({name: progress[name] for name in ("phase", "paused", "step")})
            if progress["paused"] or progress["phase"] not in bench.counts.phases:
                continue
        asked = f"({rng.randint(100, 999)}) {QUESTIONS[number % len(QUESTIONS)]}"
        messages = [{"role": "user", "content": asked}]
        reply = bench.ours.chat(messages, 16, retrieval=True)
        waits.append(1000 * reply.first_seconds)
    return waits, seen


def _until_embedded(bench: Bench) -> None:
    """Waits until what was handed over has its vectors, and somebody idle would be answered."""
    end = time.monotonic() + PHASE_SECONDS
    while bench.ours.call("GET", "/v1/status")["index"]["pending"]:
        if time.monotonic() > end:
            raise Failed("the examples were not embedded")
        time.sleep(0.5)


def _until_under_way(bench: Bench, round_id: int) -> None:
    """Waits out what comes before: imports, and the anchors where this machine has none yet."""
    end = time.monotonic() + PHASE_SECONDS
    while time.monotonic() < end:
        found = bench.ours.call("GET", f"/v1/rounds/{round_id}")
        if found["state"] != "running":
            raise Failed(f"the round was {found['state']}: {found['error'] or found['reasons']}")
        if (found["progress"] or {}).get("phase") in bench.counts.phases:
            return
        time.sleep(0.5)
    raise Failed("the round did not get under way")
