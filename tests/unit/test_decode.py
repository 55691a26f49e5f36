"""The pure decisions of batching and sampling, without a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.daemon.decode import chunk_sizes, common_prefix
from acclimate.daemon.sampling import Sampling, logprobs


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_common_prefix(left: list[int], right: list[int]) -> None:
    size = common_prefix(left, right)
    assert left[:size] == right[:size]
    assert size == min(len(left), len(right)) or left[size] != right[size]


@pytest.mark.parametrize(
    ("needs", "budget", "expected"),
    [
        ([10, 1000], 100, [10, 90]),  # a short prompt is done at once, the long one goes on
        ([1000, 1000], 100, [50, 50]),
        ([1000, 1000, 1000], 100, [34, 33, 33]),
        ([5, 5], 100, [5, 5]),
        ([5, 5], 1, [1, 0]),
        ([], 100, []),
        ([7], 0, [0]),
        ([7], -3, [0]),
    ],
)
def test_a_step_is_shared_among_prompts(needs: list[int], budget: int, expected: list[int]) -> None:
    assert chunk_sizes(needs, budget) == expected


@given(st.lists(st.integers(1, 500), max_size=6), st.integers(0, 600))
def test_a_step_is_full_and_never_over(needs: list[int], budget: int) -> None:
    sizes = chunk_sizes(needs, budget)
    assert sum(sizes) == min(budget, sum(needs))
    assert all(0 <= size <= need for size, need in zip(sizes, needs, strict=True))


def test_logprobs_are_a_log_softmax() -> None:
    logits = np.array([1.0, 3.0, 2.0, -np.inf], dtype=np.float32)
    chosen, top = logprobs(logits, 2, 2)
    weights = np.exp([1.0, 3.0, 2.0])
    assert chosen == pytest.approx(np.log(weights[2] / weights.sum()))
    assert [entry.token for entry in top] == [1, 2]
    assert logprobs(logits, 1, 0)[1] == ()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"top_p": float("nan")},
        {"min_p": 1.1},
        {"top_k": 2**31},
        {"top_k": 10**400},
        {"repeat_penalty": 0.0},
        {"frequency_penalty": 1e9},
        {"presence_penalty": float("nan")},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": {1: -(10**400)}},
    ],
)
def test_absurd_parameters_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Sampling(**options)  # type: ignore[arg-type]
