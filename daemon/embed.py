"""Sentence vectors from the embedder GGUF, by llama.cpp.

Knows texts and vectors; does not know chunks, the index or who asks.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from acclimate.adapters import native
from acclimate.adapters.native import llama_cpp
from acclimate.daemon.llama import Adapter, Context, Model
from acclimate.store.errors import EngineError

# What all-MiniLM-L6-v2 was trained and measured with; chunks are about that long.
MAX_TOKENS = 256
# Single texts whose vectors are remembered: more than one part asks about a question.
RECENT = 32


class Embedder:
    """Mean-pooled, normalised sentence vectors. Any thread may call it, several at a time.

    One text at a time: a batch of several is no faster on a processor, and one large enough for
    many was ten times slower. One compute thread by default, see `Context.warm`: indexing must
    not slow down a chat.
    """

    def __init__(self, path: Path, *, mmap: bool = True, threads: int = 1) -> None:
        self._threads = threads
        self._model: Model | None = Model(path, mmap=mmap)
        self._users = 0
        self._adapters: dict[Path, Adapter] = {}
        self._changed = threading.Condition()
        self.dimensions = self._model.width
        self._recent = lru_cache(RECENT)(lambda text: self._vectors([text]))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of unit length, (texts, dimensions) float32; a long text is cut at 256 tokens.

        Raises EngineError when the embedder is closed or fails.
        """
        return self._recent(texts[0]).copy() if len(texts) == 1 else self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        with self._use() as model:
            prompts = [model.vocabulary.tokenize(text, limit=MAX_TOKENS) for text in texts]
            size = max((len(tokens) for tokens in prompts), default=1)
            # Made for each call: that takes 2 ms, and one kept for the longest text costs 35 MB.
            with Context(
                model, tokens=size, batch=size, threads=self._threads, embeddings=True
            ) as context:
                for row, tokens in enumerate(prompts):
                    if self._model is not model:
                        raise EngineError("the embedder is closed")
                    vectors[row] = self._embed(context, tokens)
        return vectors

    def states(self, rows: Sequence[Sequence[int]], adapter: Path) -> list[np.ndarray]:
        """Of each row of tokens, start and end included, their last vectors with a LoRA on the
        model, (tokens, dimensions) float32. Raises EngineError, AdapterError.
        """
        found: list[np.ndarray] = []
        size = max(map(len, rows), default=1)
        with (
            self._use() as model,
            Context(
                model,
                self._adapter(model, adapter),
                tokens=size,
                batch=size,
                threads=self._threads,
                embeddings=True,
                pooled=False,
            ) as context,
        ):
            for tokens in rows:
                if self._model is not model:
                    raise EngineError("the embedder is closed")
                if context.encode(tokens) != 0:
                    raise EngineError(f"a text cannot be read: {native.complaint()}")
                found.append(context.states(len(tokens)).copy())
        return found

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, start and end included. Raises EngineError."""
        with self._use() as model:
            return model.vocabulary.tokenize(text)

    def _adapter(self, model: Model, path: Path) -> Adapter:
        with self._changed:  # once; the model frees it
            if path not in self._adapters:
                self._adapters[path] = Adapter(model, path, 1.0)
            return self._adapters[path]

    def _embed(self, context: Context, tokens: list[int]) -> np.ndarray:
        if not tokens or context.encode(tokens) != 0:
            raise EngineError(f"a text cannot be embedded: {native.complaint()}")
        pointer = llama_cpp.llama_get_embeddings_seq(context.pointer, 0)
        vector = np.ctypeslib.as_array(pointer, shape=(self.dimensions,))
        norm = float(np.linalg.norm(vector))
        if not np.isfinite(norm) or norm == 0.0:
            raise EngineError("the embedder gave a vector that is not finite")
        return np.asarray(vector / norm, dtype=np.float32)

    @contextmanager
    def _use(self) -> Iterator[Model]:
        """The model, which cannot be freed meanwhile."""
        with self._changed:
            if self._model is None:
                raise EngineError("the embedder is closed")
            model = self._model
            self._users += 1
        try:
            yield model
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Ends running calls at their next text, then frees the model; twice does no harm."""
        with self._changed:
            model, self._model = self._model, None
            self._changed.wait_for(lambda: not self._users)
        self._recent.cache_clear()
        if model is not None:
            model.close()
