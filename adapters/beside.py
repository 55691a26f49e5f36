"""Two pieces of work beside each other, each with half of torch's threads.

Half of a training step is small operations, and torch's own threads are woken for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def halves() -> int:
    """Into how many pieces work is best cut: 2, or 1 where torch has one thread."""
    return min(2, torch.get_num_threads())


def beside(work: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """What `work` gives for each piece, in their order; two are at work at a time."""
    if halves() == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    return list(_pool(torch.get_num_threads() // 2).map(work, pieces))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # The number of threads is each thread's own; what others have stays.
    return ThreadPoolExecutor(2, "beside", initializer=torch.set_num_threads, initargs=(threads,))
