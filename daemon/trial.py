"""Tries a model file in a process of its own: a hostile one can only end that.

`python -m acclimate.daemon.trial FILE` looks at the header, loads the file with llama.cpp, and
renders its chat template or embeds a word. Knows no home.
"""

import json
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from acclimate.adapters import gguf_check
from acclimate.store.errors import AcclimateError, ModelError

TRIAL_SECONDS = 120.0
ENCODERS = frozenset({"bert", "modern-bert", "nomic-bert", "jina-bert-v2"})
DIMENSIONS = 384  # of the index
_MEMORY_BYTES = 4 * 2**30  # beyond twice the file
_SAMPLE = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "How are you?"},
]


class Tried(BaseModel):
    """What a model file turned out to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["base", "embedder"]
    architecture: str


def try_model(path: Path, seconds: float = TRIAL_SECONDS) -> Tried:
    """Load `path` in a child process. Raises ModelError: damaged, hostile, or not of use."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "acclimate.daemon.trial", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{path.name} took longer than {seconds:.0f} s to load", "use another file"
        ) from None
    try:
        said = json.loads(done.stdout)
        if "error" in said:
            raise ModelError(str(said["error"]), str(said["hint"]))
        return Tried(**said)
    except (ValueError, TypeError, ValidationError):
        cause = f"exit code {done.returncode}"
        with suppress(ValueError):
            cause = signal.Signals(-done.returncode).name
        raise ModelError(
            f"llama.cpp crashed on {path.name} ({cause})", "use another file"
        ) from None


def examine(path: Path) -> Tried:
    """The trial itself, without any protection. Raises AcclimateError."""
    header = gguf_check.read_header(path)
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelError(f"{path.name} is no model but of type {kind}", "give a model's GGUF")
    # Only now is native code let near the file.
    from acclimate.adapters.prompt import Prompt
    from acclimate.daemon.embed import Embedder
    from acclimate.daemon.llama import Model

    if header.architecture in ENCODERS:
        embedder = Embedder(path)
        try:
            embedder.embed(["word"])
        finally:
            embedder.close()
        if embedder.dimensions != DIMENSIONS:
            raise ModelError(
                f"{path.name} gives vectors of {embedder.dimensions} numbers",
                f"the index takes those of {DIMENSIONS}",
            )
        return Tried(kind="embedder", architecture=header.architecture)
    Prompt.from_gguf(path).encode_prompt(_SAMPLE)
    Model(path).close()
    return Tried(kind="base", architecture=header.architecture)


def _limit(path: Path) -> None:
    """Bound what the file can make this process use."""
    room = 2 * path.stat().st_size + _MEMORY_BYTES
    seconds = int(TRIAL_SECONDS)
    for what, most in (
        (resource.RLIMIT_AS, room),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with suppress(ValueError, OSError):  # macOS knows not all of them
            resource.setrlimit(what, (most, most))


def _main(path: Path) -> dict[str, Any]:
    try:
        _limit(path)
        return examine(path).model_dump()
    except AcclimateError as e:
        return {"error": e.message, "hint": e.hint}
    except MemoryError:
        return {"error": f"{path.name} needs too much memory to load", "hint": "use another file"}


if __name__ == "__main__":
    print(json.dumps(_main(Path(sys.argv[1]))))
