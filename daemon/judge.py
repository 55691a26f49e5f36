"""The judge: whether words of a passage answer a question, read together.

A re-ranker (Nogueira and Cho 2019, arXiv:1901.04085) for the few best answers that the reader
finds: a LoRA on the embedder sees the question, the words and what stands around them at once.
`benchmarks/persons/teach_judge.py` has taught it. Knows texts; knows no index and no language
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from acclimate.adapters.shipped import shipped_file

# Words around an answer that are seen, and tokens of a question.
BEFORE, AFTER = 14, 10
MOST_ASKED = 48

Vector = NDArray[np.float32]


class Encoder(Protocol):
    """What is needed of `embed.Embedder`."""

    def tokens(self, text: str) -> list[int]: ...

    def states(self, rows: Sequence[Sequence[int]], adapter: Path) -> list[Vector]: ...


class Judge:
    """Any thread may call it. `adapter` and `head` are files that
    `benchmarks/persons/teach_judge.py` writes."""

    def __init__(self, encoder: Encoder, adapter: Path, head: Path) -> None:
        self._encoder = encoder
        self._adapter = adapter
        found = load_file(head)
        self._weight = found["weight"].astype(np.float32)
        self._bias = float(found["bias"][0])
        self._end = encoder.tokens("a")[-1]

    @classmethod
    def shipped(cls, encoder: Encoder) -> Judge:
        """The one that comes with the program, for the default embedder."""
        return cls(encoder, shipped_file("judge.gguf"), shipped_file("judge.safetensors"))

    def scores(self, question: str, answers: Sequence[tuple[str, str]]) -> list[float]:
        """Of answers, each with the text around it that has it: how much likelier it is that this
        one answers the question than that none does (log-odds). Raises EngineError, AdapterError.
        """
        if not answers:
            return []
        asked = [*self._encoder.tokens(question)[:-1][: MOST_ASKED - 1], self._end]
        rows = [
            [*asked, *self._inner(words), self._end, *self._inner(around), self._end]
            for words, around in answers
        ]
        states = self._encoder.states(rows, self._adapter)
        return [float(self._weight @ state[0]) + self._bias for state in states]

    def _inner(self, text: str) -> list[int]:
        return self._encoder.tokens(text)[1:-1]
