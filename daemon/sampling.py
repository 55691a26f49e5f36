"""How the next token is chosen: parameters, and llama.cpp's sampler chain built from them.

All work over the vocabulary happens in C; knows no sequences and no text.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acclimate.adapters import native
from acclimate.adapters.native import llama_cpp
from acclimate.daemon.llama import Context, Vocabulary
from acclimate.store.errors import EngineError

RANDOM_SEED = 0xFFFFFFFF  # llama.cpp's own sign for "choose one"
BIAS_LIMIT = 10_000.0
PENALTY_WINDOW = 64  # tokens that repeat_penalty looks back, prompt included

# llama_token_data as numpy sees it, so that a whole vocabulary is filled in one step.
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


@dataclass(frozen=True)
class Sampling:
    """The choices of one request. temperature 0 is greedy; 0, 1 and 0 switch k, p and min-p off.

    Raises ValueError for values out of range, so a request that exists can be served.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    grammar: str | None = None  # GBNF with a rule named root

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0.0, 100.0),
            "top_k": (0, 2**31 - 1),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "repeat_penalty": (0.01, 100.0),
            "frequency_penalty": (-100.0, 100.0),
            "presence_penalty": (-100.0, 100.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:  # false for what is not a number, too
                raise ValueError(f"{name} must be between {low} and {high}, not {value}")
        if not all(-BIAS_LIMIT <= bias <= BIAS_LIMIT for bias in self.logit_bias.values()):
            raise ValueError(f"a logit_bias must be between {-BIAS_LIMIT} and {BIAS_LIMIT}")


class Sampler:
    """One request's chain of llama.cpp samplers, with their state (penalties, random numbers)."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, prompt: Sequence[int]) -> None:
        self._grammar: Any = None
        self._chain: Any = None
        self._size = vocabulary.size
        if any(not 0 <= token < self._size for token in sampling.logit_bias):
            raise EngineError("logit_bias names a token that the model does not have")
        if sampling.grammar is not None:
            # llama.cpp takes C strings: a NUL would silently cut the grammar short.
            if "\0" in sampling.grammar:
                raise EngineError("the grammar holds a NUL character")
            self._grammar = llama_cpp.llama_sampler_init_grammar(
                vocabulary.pointer, sampling.grammar.encode(), b"root"
            )
            if not self._grammar:
                raise EngineError(
                    f"the grammar does not parse: {native.complaint()}",
                    "GBNF with a rule named root is expected",
                )
        params = llama_cpp.llama_sampler_chain_default_params()
        params.no_perf = True
        self._chain = llama_cpp.llama_sampler_chain_init(params)
        self._build(sampling, prompt)

    def _build(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        add, chain, size = llama_cpp.llama_sampler_chain_add, self._chain, self._size
        if sampling.logit_bias:
            items = sampling.logit_bias.items()
            biases = (llama_cpp.llama_logit_bias * len(items))(*items)
            add(chain, llama_cpp.llama_sampler_init_logit_bias(size, len(items), biases))
        if sampling.repeat_penalty != 1.0:
            repeats = llama_cpp.llama_sampler_init_penalties(
                size, PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0
            )
            for token in prompt[-PENALTY_WINDOW:]:
                llama_cpp.llama_sampler_accept(repeats, token)
            add(chain, repeats)
        if sampling.frequency_penalty or sampling.presence_penalty:
            # OpenAI's penalties count what was generated, however long ago; never the prompt.
            counts = (sampling.frequency_penalty, sampling.presence_penalty)
            add(chain, llama_cpp.llama_sampler_init_penalties(size, 2**16, 1.0, *counts))
        if sampling.temperature == 0.0:
            add(chain, llama_cpp.llama_sampler_init_greedy())
            return
        if sampling.top_k > 0:
            add(chain, llama_cpp.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1.0:
            add(chain, llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0.0:
            add(chain, llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
        add(chain, llama_cpp.llama_sampler_init_temp(sampling.temperature))
        seed = RANDOM_SEED if sampling.seed is None else sampling.seed % RANDOM_SEED
        add(chain, llama_cpp.llama_sampler_init_dist(seed))

    def sample(self, context: Context, index: int) -> int | None:
        """The next token from output `index`; None when the grammar allows nothing more."""
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context.pointer, index))
        return self._sample_within_grammar(context.logits(index))

    def _sample_within_grammar(self, logits: np.ndarray) -> int | None:
        """Draw freely first; only a token that the grammar refuses costs a look at all tokens."""
        # llama.cpp ends the process when a refused token is accepted: never do that.
        token = self._draw(logits, np.arange(self._size))
        if not self._allowed(token):
            candidates, array = self._candidates(logits, np.arange(self._size))
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
            allowed = candidates["id"][np.isfinite(candidates["logit"])]
            if not allowed.size:
                return None
            token = self._draw(logits, allowed)
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _draw(self, logits: np.ndarray, tokens: np.ndarray) -> int:
        _candidates, array = self._candidates(logits, tokens)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def _allowed(self, token: int) -> bool:
        _candidates, array = self._candidates(np.zeros(self._size), np.array([token]))
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return math.isfinite(array.data[0].logit)

    @staticmethod
    def _candidates(logits: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, Any]:
        """llama.cpp's candidate array and the numpy array that owns its memory."""
        candidates = np.zeros(len(tokens), dtype=CANDIDATE)
        candidates["id"] = tokens
        candidates["logit"] = logits[tokens]
        pointer = ctypes.cast(candidates.ctypes.data, llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(
            data=pointer, size=len(tokens), selected=-1, sorted=False
        )
        return candidates, array

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token's natural-log probability under the model itself, before any sampler."""

    token: int
    logprob: float


def logprobs(logits: np.ndarray, token: int, top: int) -> tuple[float, tuple[TokenLogprob, ...]]:
    """The chosen token's log-probability and the `top` most likely tokens, best first."""
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    best = np.argpartition(-values, top - 1)[:top] if 0 < top < len(values) else np.arange(0)
    best = best[np.argsort(-values[best], kind="stable")]
    return float(values[token]), tuple(TokenLogprob(int(i), float(values[i])) for i in best)
