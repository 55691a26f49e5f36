"""From what servers say to the rows of benchmarks/serving.py; no server."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from serving.asks import Failed, rate, read
from serving.figures import Figure, against, markdown, p95
from serving.machine import instructions


def sse(*events: dict[str, Any], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, *(["data: [DONE]\n\n"] if done else [])]).encode()


USAGE = {"completion_tokens": 2, "prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
TEXT = sse(
    {"model": "v0001", "choices": [{"text": "One", "logprobs": {"tokens": ["One"]}}]},
    {"model": "v0001", "choices": [{"text": " two", "logprobs": {"tokens": [" two"]}}]},
    {"model": "v0001", "choices": [{"text": "", "finish_reason": "length"}], "usage": USAGE},
)


def test_a_piece_came_with_the_bytes_that_end_it() -> None:
    cut = TEXT.index(b" two")
    reply = read(1.0, [(1.5, TEXT[:cut]), (1.7, TEXT[cut:])])
    assert reply.arrived == [1.5, 1.7] and reply.first_seconds == 0.5
    assert (reply.text, reply.pieces, reply.model) == ("One two", ["One", " two"], "v0001")
    assert (reply.tokens, reply.prompt_tokens, reply.cached_tokens) == (2, 9, 4)


def test_a_reply_that_broke_off_or_failed_is_none() -> None:
    with pytest.raises(Failed, match="broke off"):
        read(1.0, [(2.0, TEXT.removesuffix(b"data: [DONE]\n\n"))])
    with pytest.raises(Failed, match="engine"):
        read(1.0, [(2.0, sse({"error": {"message": "the engine has stopped"}}))])


def test_the_rate_of_streams_is_that_of_all_together() -> None:
    first, second = (read(0.0, [(t, TEXT)]) for t in (1.0, 3.0))
    assert rate([first, second]) == (4 - 1) / 2.0


def test_floors() -> None:
    more = against("a", "tokens/s", [110, 90], [100, 100], beside="peer", floor=1.0, more=True)
    assert more.value == 1.0 and more.met is True and more.ours == 100
    assert against("a", "s", [1.3], [1.0], beside="peer", floor=1.1).met is False
    assert against("a", "s", [1.3], None, beside="peer", floor=1.1).met is None
    assert Figure("a", "s", 1.3, 1.3, floor=1.2).met is False
    assert Figure("a", "", 0, 0, floor=0).met is True


def test_the_table_says_what_is_missing() -> None:
    rows = [
        against("decode", "tokens/s", [110.0], None, beside="peer", floor=1.0, more=True),
        Figure("start", "s", 0.91, 0.91, floor=1.2, aim=0.8),
    ]
    lines = markdown(rows).splitlines()
    assert lines[2] == "| decode | ≥ 1 × |  | 110 tokens/s | peer: – | – | – |"
    assert lines[3] == "| start | ≤ 1.2 s | 0.8 s | 0.91 s |  | 0.91 s | yes |"


def test_p95_of_few_is_the_greatest() -> None:
    assert p95([1, 5, 2]) == 5
    assert p95([*range(101)]) == 95


def test_instruction_sets_are_read_from_what_llama_cpp_says() -> None:
    assert instructions("CPU : AVX2 = 1 | AVX512 = 0 | FMA = 1 | ") == {"AVX2", "FMA"}
