"""Measures how llama.cpp is best used with one model on this machine, for `tuning`.

`python -m acclimate.daemon.tune MODEL` prints it as JSON. Knows no home and no requests.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from acclimate.daemon.llama import Context, Model
from acclimate.daemon.tuning import BATCHES, Tuning, allowed_processors, default_threads
from acclimate.store.errors import AcclimateError, EngineError

SECONDS = 10.0  # no further setting is tried after that
WORTH_IT = 0.9  # another setting has to take less than this share of the time
PROMPT_TOKENS, REPLY_TOKENS = 256, 24
TIMES = 2


def measured(model: Path) -> Tuning:
    """Try one setting after the other, from the best so far on. Raises AcclimateError."""
    loaded = Model(model)
    tokens = [number % loaded.vocabulary.size for number in range(PROMPT_TOKENS)]

    def seconds(tried: Tuning) -> tuple[float, float]:
        """A prompt, and a reply behind it; the fastest of a few times each."""
        with Context(
            loaded,
            tokens=PROMPT_TOKENS + REPLY_TOKENS,
            batch=tried.batch_tokens,
            threads=tried.threads,
            flash_attention=tried.flash_attention,
        ) as context:
            context.warm(0)
            best = [float("inf"), float("inf")]
            for _ in range(TIMES):
                context.clear()
                best[0] = min(best[0], _timed(lambda: _prompt(context, tokens)))
                best[1] = min(best[1], _timed(lambda: _reply(context)))
        return best[0], best[1]

    try:
        return _best(Tuning(threads=default_threads()), seconds)
    finally:
        loaded.close()


def _best(start: Tuning, seconds: Callable[[Tuning], tuple[float, float]]) -> Tuning:
    began = time.monotonic()
    best, (prompt, reply) = start, seconds(start)
    for matters, change in _changes(start):
        if time.monotonic() - began > SECONDS:
            break
        tried = change(best)
        with suppress(AcclimateError):  # llama.cpp refuses some settings for some models
            new = seconds(tried)
            before, after = (prompt, new[0]) if matters == "prompt" else (reply, new[1])
            if after < WORTH_IT * before:
                best, (prompt, reply) = tried, new
    return replace(best, prompt_speed=PROMPT_TOKENS / prompt, reply_speed=REPLY_TOKENS / reply)


def _changes(start: Tuning) -> Iterator[tuple[str, Callable[[Tuning], Tuning]]]:
    """What is tried, and whether the prompt or the reply has to be faster by it."""
    for threads in sorted({max(1, start.threads // 2), allowed_processors()} - {start.threads}):
        yield "reply", partial(replace, threads=threads)
    for batch in BATCHES:
        if batch != start.batch_tokens:
            yield "prompt", partial(replace, batch_tokens=batch)
    for flash in (True, False):
        yield "reply", partial(replace, flash_attention=flash)


def _prompt(context: Context, tokens: Sequence[int]) -> None:
    for start in range(0, len(tokens), context.batch.size):
        context.batch.clear()
        part = tokens[start : start + context.batch.size]
        context.batch.add(0, part, start, want=1 if start + len(part) == len(tokens) else 0)
        _decode(context)


def _reply(context: Context) -> None:
    for place in range(PROMPT_TOKENS, PROMPT_TOKENS + REPLY_TOKENS):
        context.batch.clear()
        context.batch.add(0, [place % context.vocabulary_size], place, want=1)
        _decode(context)


def _decode(context: Context) -> None:
    if context.decode() != 0:
        raise EngineError("llama.cpp cannot decode with these settings")


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(asdict(measured(Path(sys.argv[1])))))
