"""What a server takes: time until its first token, and memory beyond the model and its KV cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from acclimate.adapters.gguf_check import read_header
from serving.asks import at_once, now
from serving.bench import Bench
from serving.figures import Figure, against
from serving.sides import Ours, Side

MB = 1_000_000
F16_BYTES = 2
SETTLE_SECONDS = 10.0  # the daemon gives memory back in its first idle seconds
QUESTION = [{"role": "user", "content": "Hello! Who are you?"}]


def start(bench: Bench) -> list[Figure]:
    """From the process's start to the first token of what is asked as soon as /health answers.

    The files are in the system's cache: each side is started once more before it counts.
    """
    bench.close()
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(bench.counts.reps + 1):
        for new in (bench.new_ours, bench.new_peer):
            began = now()
            side = new()
            if side is None:
                continue
            with side:
                reply = side.chat(QUESTION, 1)
                if number:
                    found[side.name].append(reply.arrived[0] - began)
    row = against(
        "process start to first token", "s", found["ours"], found["peer"] or None, beside=""
    )
    row.value, row.floor, row.aim = row.ours, 1.2, 0.8
    return [row]


def memory(bench: Bench) -> list[Figure]:
    """Resident bytes of a fresh server that has just answered, without the model and the KV cache.

    Pages of GGUF files are left out as they are mapped; the KV cache is computed from the model's
    shape, since every context's cells are written when it is made.
    """
    bench.close()
    kv = kv_bytes_per_token(bench.base) * bench.engine["context_tokens"]
    found: dict[str, dict[str, int]] = {}
    for new in (bench.new_ours, bench.new_peer):
        side = new()
        if side is None:
            continue
        with side:
            _answer(bench, side)
            contexts = 1
            if isinstance(side, Ours):
                contexts = len(side.call("GET", "/v1/status")["engine"]["contexts"])
            found[side.name] = footprint(side.pid, kv * contexts)
            time.sleep(SETTLE_SECONDS)
            idle = footprint(side.pid, kv * contexts)
            found[side.name] |= {f"idle_{name}": value for name, value in idle.items()}
    ours, peer = found["ours"]["beyond"] / MB, found.get("peer")
    other = peer["beyond"] / MB if peer else None
    return [
        Figure(
            "memory beyond model and KV", "MB", ours, ours, floor=150, aim=100, other=other,
            raw=dict(found),
        )
    ]  # fmt: skip


def _answer(bench: Bench, side: Side) -> None:
    """A conversation, a long prompt, and as many texts beside each other as there are sequences."""
    side.chat(QUESTION, 16)
    side.text(bench.new_tokens(bench.counts.prefill_tokens[0]), 1)
    asks: list[Callable[[], object]] = [
        partial(side.text, bench.new_text(), 32) for _ in range(bench.engine["sequences"])
    ]
    at_once(asks)


def footprint(pid: int, kv_bytes: int) -> dict[str, int]:
    """Bytes of a process: resident, of it mapped from GGUF files, and beyond both and the KV."""
    process = psutil.Process(pid)
    rss = process.memory_info().rss
    maps = process.memory_maps() if hasattr(process, "memory_maps") else []
    mapped = sum(m.rss for m in maps if m.path.endswith(".gguf"))
    return {
        "resident": rss,
        "mapped_models": mapped,
        "kv": kv_bytes,
        "beyond": rss - mapped - kv_bytes,
        **_rollup(pid),
    }


def _rollup(pid: int) -> dict[str, int]:
    """Linux's own sums: shares of shared pages counted once (pss), and pages of no file."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    told = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {name.lower(): told[name] for name in ("Pss", "Anonymous") if name in told}


def kv_bytes_per_token(model: Path) -> int:
    """Of one cell in float16: layers × KV heads × head width × 2 (keys and values) × 2 bytes."""
    header = read_header(model)
    told = {
        key.removeprefix(f"{header.architecture}."): value for key, value in header.metadata.items()
    }
    heads = told["attention.head_count"]
    width = told.get("attention.key_length", told["embedding_length"] // heads)
    kv_heads = told.get("attention.head_count_kv", heads)
    return int(told["block_count"] * kv_heads * width * 2 * F16_BYTES)


def resident(pid: int) -> int:
    """Resident bytes; the median of a few looks."""
    looks = []
    for _ in range(5):
        looks.append(psutil.Process(pid).memory_info().rss)
        time.sleep(0.1)
    return int(median(looks))
