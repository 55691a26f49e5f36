"""How fast this machine multiplies: with how many threads, and in which numbers.

Measured by a worker when nothing is known yet and the machine is at rest, kept beside the anchors,
for the rounds after it.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import torch
from torch.nn import functional

from acclimate.adapters.gguf_check import read_header
from acclimate.adapters.snapshot import Pace, Snapshot
from acclimate.store.files import atomic_write

TOKENS = 768  # in a step's packed row, about
SECONDS = 0.4  # for each number of threads: a machine that rested is slow for a moment
# Beside something else that computes all numbers of threads look alike.
REST_SECONDS, BUSY_PERCENT = 0.3, 20.0
# With fewer threads that are almost as fast the rest of the machine is left alone.
ENOUGH = 0.95


def measure(width: int, inner: int, threads: int) -> Pace:
    """Times products of a decoder's sizes (TOKENS, width) · (width, inner), for a second or two.

    With all `threads`, half of them, a quarter and so on; then in bfloat16 with the best number.
    """
    before = torch.get_num_threads()
    try:
        counts = [threads]
        while counts[-1] > 1:
            counts.append(counts[-1] // 2)
        plain = {n: _seconds(width, inner, n, torch.float32) for n in counts}
        fastest = min(plain.values())
        best = min(n for n in counts if fastest >= ENOUGH * plain[n])
        short = _seconds(width, inner, best, torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    return Pace(threads=best, bfloat16_gain=round(plain[best] / short, 2))


def measured_once(folder: Path, width: int, inner: int, threads: int) -> None:
    """Leaves a file where this machine was not measured yet and little else runs on it."""
    if Pace.load(folder, threads) is not None or psutil.cpu_percent(REST_SECONDS) > BUSY_PERCENT:
        return
    found = measure(width, inner, threads)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(Pace.path(folder, threads), found.model_dump_json().encode())


def settled(snapshot: Snapshot, threads: int) -> Snapshot:
    """The round with what to train in, where that was left open; measures this machine once.

    Raises ModelError when the base's file is damaged.
    """
    cache = snapshot.anchor_cache
    if Pace.load(cache, threads) is None:
        header = read_header(snapshot.base)
        names = (
            f"{header.architecture}.{name}" for name in ("embedding_length", "feed_forward_length")
        )
        width, inner = map(header.metadata.get, names)
        if isinstance(width, int) and isinstance(inner, int):
            measured_once(cache, width, inner, threads)
    found = Pace.load(cache, threads)
    if not snapshot.by_pace or found is None:
        return snapshot
    return snapshot.model_copy(update={"precision": found.precision()})


def _seconds(width: int, inner: int, threads: int, dtype: torch.dtype) -> float:
    """The best of as many as fit, there and back, casts included."""
    torch.set_num_threads(threads)
    x = torch.ones(TOKENS, width)
    up = torch.ones(inner, width, dtype=dtype)
    down = torch.ones(width, inner, dtype=dtype)
    best = float("inf")
    until = time.perf_counter() + SECONDS
    while best == float("inf") or time.perf_counter() < until:
        began = time.perf_counter()
        hidden = functional.linear(x.to(dtype), up).float()
        functional.linear(hidden.to(dtype), down).float()
        best = min(best, time.perf_counter() - began)
    return best
