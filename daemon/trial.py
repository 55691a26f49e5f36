"""Tries a model's or an adapter's file in a process of its own: a hostile one can only end that.

`python -m acclimate.daemon.trial MODEL` looks at the header, loads the file with llama.cpp, and
renders its chat template or embeds a word. `… ADAPTER BASE SHA256 FOLDER` writes the adapter anew
into the folder and asks the base with it. Knows no home.
"""

import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from acclimate.adapters import gguf_check
from acclimate.store.errors import AcclimateError, AdapterError, ModelError

if TYPE_CHECKING:
    from acclimate.daemon.llama import Adapter, Model

TRIAL_SECONDS = 120.0
ENCODERS = frozenset({"bert", "modern-bert", "nomic-bert", "jina-bert-v2"})
DIMENSIONS = 384  # of the index
LEAST_MOVED = 1e-5  # KL from the base's predictions, in nats a token, as of our own adapters
_MEMORY_BYTES = 4 * 2**30  # beyond twice the model and eight times the adapter
_SAMPLE = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "How are you?"},
]
Result = TypeVar("Result", bound=BaseModel)


class Tried(BaseModel):
    """What a model file turned out to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["base", "embedder"]
    architecture: str


class Fitted(BaseModel):
    """What an adapter turned out to be. `scaling` is what its B was multiplied by; `moved` the
    mean KL of the base's predictions from those with it, in nats a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    scaling: float
    layers: list[int]
    modules: list[str]
    moved: float


def try_model(path: Path, seconds: float = TRIAL_SECONDS) -> Tried:
    """Load `path` in a child process. Raises ModelError: damaged, hostile, or not of use."""
    return _in_child([path], Tried, ModelError, seconds)


def try_adapter(
    source: Path, base: Path, base_sha256: str, folder: Path, seconds: float = TRIAL_SECONDS
) -> Fitted:
    """Write the adapter at `source` anew into `folder`, and ask the base with it, in a child.

    Raises AdapterError: damaged, hostile, not for this base, or without effect on it.
    """
    return _in_child([source, base, base_sha256, folder], Fitted, AdapterError, seconds)


def _in_child(
    arguments: Sequence[Path | str],
    result: type[Result],
    failure: type[AcclimateError],
    seconds: float,
) -> Result:
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "acclimate.daemon.trial", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise failure(f"{name} took longer than {seconds:.0f} s to load", "use another file") from (
            None
        )
    try:
        said = json.loads(done.stdout)
        if "error" in said:
            raise failure(str(said["error"]), str(said["hint"]))
        return result(**said)
    except (ValueError, TypeError, ValidationError):
        cause = f"exit code {done.returncode}"
        with suppress(ValueError):
            cause = signal.Signals(-done.returncode).name
        raise failure(f"llama.cpp crashed on {name} ({cause})", "use another file") from None


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


def fit(source: Path, base: Path, base_sha256: str, folder: Path) -> Fitted:
    """The adapter's trial itself, without any protection. Raises AcclimateError."""
    from acclimate.adapters import foreign
    from acclimate.adapters.lora import SERVED

    found = foreign.rewrite(source, base, base_sha256, folder)
    moved = _moved(base, folder / SERVED)
    if not math.isfinite(moved):
        raise AdapterError("with it the base predicts no numbers", "use another adapter")
    if moved < LEAST_MOVED:
        raise AdapterError(
            f"it changes nothing: the base's predictions moved by {moved:.1g} nats",
            "give an adapter that was trained on this base",
        )
    return Fitted(
        rank=found.rank,
        scaling=found.scaling,
        layers=found.layers(),
        modules=found.modules(),
        moved=moved,
    )


def _moved(base: Path, adapter: Path) -> float:
    """Mean KL of the base's predictions from those with the adapter, in nats a token."""
    from acclimate.adapters.prompt import Prompt
    from acclimate.daemon.llama import Adapter, Model

    tokens = Prompt.from_gguf(base).encode_prompt(_SAMPLE)
    model = Model(base)
    before, after = (
        _predictions(model, tokens, used) for used in (None, Adapter(model, adapter, 1.0))
    )
    model.close()
    return float((np.exp(before) * (before - after)).sum(-1).mean())


def _predictions(
    model: "Model", tokens: Sequence[int], adapter: "Adapter | None"
) -> NDArray[np.float64]:
    """Log-probabilities after each token, (tokens, vocabulary)."""
    from acclimate.daemon.llama import Context

    count = len(tokens)
    with Context(model, adapter, tokens=count, batch=count, outputs=count) as context:
        context.batch.add(0, tokens, 0, want=count)
        if context.decode() != 0:
            raise AdapterError("the base cannot decode with it", "use another adapter")
        logits = np.array([context.logits(at) for at in range(count)], np.float64)
    logits -= logits.max(-1, keepdims=True)
    found: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return found


def _limit(room: int, written: int = 0) -> None:
    """Bound what files can make this process use, and how long a file it may write; bytes."""
    seconds = int(TRIAL_SECONDS)
    for what, most in (
        (resource.RLIMIT_AS, room + _MEMORY_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, written),
    ):
        with suppress(ValueError, OSError):  # macOS knows not all of them
            resource.setrlimit(what, (most, most))


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in ([*path.iterdir()] if path.is_dir() else [path]))


def _main(path: Path, *more: str) -> dict[str, Any]:
    try:
        size = _size(path)
        if not more:
            _limit(2 * size)
            return examine(path).model_dump()
        base, sha256, folder = Path(more[0]), more[1], Path(more[2])
        # Numbers of two bytes become such of four, in two files.
        _limit(2 * _size(base) + 8 * size, 2 * size + 2**20)
        return fit(path, base, sha256, folder).model_dump()
    except AcclimateError as e:
        return {"error": e.message, "hint": e.hint}
    except MemoryError:
        return {"error": f"{path.name} needs too much memory to load", "hint": "use another file"}


if __name__ == "__main__":
    print(json.dumps(_main(Path(sys.argv[1]), *sys.argv[2:])))
