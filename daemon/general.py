"""What general text is, as vectors: the prompts of the anchors.

Knows texts that come with the program; nothing of a person.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from acclimate.adapters.shipped import shipped_lines
from acclimate.store.errors import EngineError
from acclimate.store.files import atomic_write

log = structlog.get_logger(__name__)

LISTS = ("anchor_prompts", "short_prompts", "everyday_prompts")
BATCH = 16

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class General:
    """Made when they are asked for first, and kept in a file of `folder`.

    `embed` gives vectors of unit length, (texts, dimensions); `embedder` names the model that does.
    """

    def __init__(self, folder: Path, embed: Embed, embedder: str) -> None:
        self._texts = [text for name in LISTS for text in shipped_lines(name)]
        named = "\n".join([embedder, *self._texts]).encode()
        self._path = folder / f"general-{hashlib.sha256(named).hexdigest()[:12]}.npy"
        self._embed = embed
        self._lock = threading.Lock()
        self._vectors: NDArray[np.float32] | None = None

    def texts(self) -> list[str]:
        """The texts."""
        return list(self._texts)

    def vectors(self, stopped: Callable[[], bool] = lambda: False) -> NDArray[np.float32]:
        """One of each text, (texts, dimensions); takes seconds the first time in a home.

        Raises AcclimateError when the embedder fails, or as soon as `stopped` says so.
        """
        with self._lock:
            if self._vectors is None:
                self._vectors = self._read()
            if self._vectors is None:
                self._vectors = self._made(stopped)
                self._write(self._vectors)
            return self._vectors

    def _made(self, stopped: Callable[[], bool]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(self._texts), BATCH):
            if stopped():
                raise EngineError("general text is embedded later")
            parts.append(self._embed(self._texts[start : start + BATCH]))
        return np.concatenate(parts)

    def _read(self) -> NDArray[np.float32] | None:
        try:
            found = np.load(io.BytesIO(self._path.read_bytes()), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = found.ndim == 2 and len(found) == len(self._texts) and found.dtype == np.float16
        return found.astype(np.float32) if whole and np.isfinite(found).all() else None

    def _write(self, vectors: NDArray[np.float32]) -> None:
        data = io.BytesIO()
        np.save(data, vectors.astype(np.float16), allow_pickle=False)
        try:
            self._path.parent.mkdir(exist_ok=True)
            atomic_write(self._path, data.getvalue())
        except OSError as error:  # they are made again at the next start
            log.warning("general_not_kept", error=str(error))
