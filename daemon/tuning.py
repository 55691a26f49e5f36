"""How llama.cpp is best used with one model on one machine: threads, batch, flash attention.

Measured once (`tune`), in a process of its own, and kept in the home's cache. Loads no llama.cpp.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from acclimate.store.files import atomic_write

BATCHES = (64, 128, 256, 512)
MEASURE_SECONDS = 120.0


@dataclass(frozen=True)
class Tuning:
    """`batch_tokens` of prompts go into one step; `flash_attention` None: llama.cpp chooses.

    A prompt's and a reply's tokens a second are 0 where nothing was measured.
    """

    threads: int
    batch_tokens: int = 256  # a larger batch costs memory
    flash_attention: bool | None = None
    prompt_speed: float = 0.0
    reply_speed: float = 0.0


def default_threads() -> int:
    """Physical cores that this process may use: a second thread a core slows decoding down."""
    allowed = allowed_processors()
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def allowed_processors() -> int:
    """Processors, as the system counts them, that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def file_for(cache: Path, model_sha256: str) -> Path:
    """Where the tuning of a model on this machine is kept: a home may be carried to another."""
    machine = f"{platform.machine()}-{allowed_processors()}-{platform.node()}"
    tag = "".join(c if c.isalnum() else "-" for c in machine)
    return cache / f"engine-{model_sha256[:12]}-{tag}.json"


def read(file: Path) -> Tuning | None:
    """What was measured; None where nothing was, or it cannot be read."""
    with suppress(OSError, ValueError, TypeError):
        found = Tuning(**json.loads(file.read_bytes()))
        if 1 <= found.threads <= 4096 and found.batch_tokens in BATCHES:
            return found
    return None


def measure(model: Path, file: Path, go_on: Callable[[], bool] = lambda: True) -> Tuning | None:
    """Measure in a child process and keep it; None where the child failed, or `go_on` said no.

    Raises OSError.
    """
    command = [sys.executable, "-P", "-m", "acclimate.daemon.tune", str(model)]
    end = time.monotonic() + MEASURE_SECONDS
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        while child.poll() is None:
            if time.monotonic() > end or not go_on():
                child.kill()
                return None
            time.sleep(0.05)
        said = child.communicate()[0]  # one line, which a pipe holds
    try:
        found = Tuning(**json.loads(said))
    except (ValueError, TypeError):
        return None
    atomic_write(file, json.dumps(asdict(found)).encode())
    return found
