"""The engine on a tiny random Llama: swaps under load, reuse, cancellation, failures.

The known answer is always a fresh engine that serves one request with that adapter alone.
"""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.daemon import decode, tuning
from acclimate.daemon.decode import Lane, Meter, common_prefix
from acclimate.daemon.engine import Busy, Engine
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request, Stream
from acclimate.store.errors import AdapterError, EngineError, NotFound

FIRST_BYTE = 3  # the tiny vocabulary: token 3 + b is byte b


def tokens_of(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


PROMPT = tokens_of("the person keeps bees and writes about it")


# The random model likes to end early; these replies go on until a test ends them.
ENDLESS = Sampling(logit_bias={0: -1e3, 1: -1e3, 2: -1e3})


def ask(tokens: list[int], *, sampling: Sampling = ENDLESS, **options: Any) -> Request:
    return Request(tokens, sampling=sampling, **options)


def make_engine(model: Path, **options: Any) -> Engine:
    engine = Engine(model, **{"context_tokens": 1024, "threads": 1, **options})
    engine.start()
    return engine


@pytest.fixture
def engine(tiny_llama: Path) -> Iterator[Engine]:
    engine = make_engine(tiny_llama)
    yield engine
    assert engine.stop()


def reply(stream: Stream) -> list[int]:
    return [piece.token for piece in stream if piece.token is not None]


def fresh_reply(model: Path, request: Request, adapter: Path | None) -> list[int]:
    """The tokens that an engine gives that never served anything else."""
    engine = make_engine(model)
    try:
        if adapter is not None:
            engine.load("v0001", adapter)
            engine.set_live("v0001")
        return reply(engine.submit(request))
    finally:
        engine.stop()


def is_reply_of(tokens: list[int], model: Path, request: Request, adapter: Path | None) -> bool:
    """Whether a greedy reply is the one that a fresh engine gives with that adapter alone.

    Sums are rounded differently when other sequences share a step, so where a fresh engine finds
    two tokens equally likely, either may be chosen, and what follows is compared again from there.
    """
    prompt, done = list(request.tokens), 0
    while done < len(tokens):
        rest = Request(prompt, max_tokens=len(tokens) - done, sampling=request.sampling)
        expected = fresh_reply(model, rest, adapter)
        same = common_prefix(expected, tokens[done:])
        prompt, done = [*prompt, *tokens[done : done + same]], done + same
        if done == len(tokens):
            return True
        engine = make_engine(model)
        if adapter is not None:
            engine.load("v0001", adapter)
        logits = engine.logits(prompt, "base" if adapter is None else "v0001")
        engine.stop()
        if logits[expected[same]] - logits[tokens[done]] > 0.05:  # their spread is about 4
            return False
        prompt, done = [*prompt, tokens[done]], done + 1
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not happen in time")
        time.sleep(0.005)


def test_greedy_reply_is_what_transformers_gives(tiny_llama: Path, engine: Engine) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_llama.parent, gguf_file=tiny_llama.name, dtype=torch.float32
    )
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0, -1].numpy()
    # The KV cache is float16; logits here have a spread of about 4.
    assert np.abs(engine.logits(PROMPT) - expected).max() < 0.05


def test_swaps_under_eight_streams_fail_none_and_mix_none(
    tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    paths = {"base": None, "v0001": tiny_adapter(1), "v0002": tiny_adapter(2)}
    requests = [ask(tokens_of(f"question number {i} about bees"), max_tokens=150) for i in range(8)]
    alone = [fresh_reply(tiny_llama, requests[0], path) for path in paths.values()]
    assert alone[0] != alone[1] != alone[2]
    engine = make_engine(tiny_llama, sequences=8, context_tokens=2048)
    results: list[tuple[str, int, list[int]]] = []

    def client(number: int) -> None:
        for _ in range(4):
            stream = engine.submit(requests[number])
            tokens = reply(stream)
            results.append((stream.adapter, number, tokens))

    clients = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    try:
        for thread in clients:
            thread.start()
        for name in ("v0001", "v0002", None, "v0002", "v0001", None, "v0001"):
            if name is not None and name not in engine.adapters:
                path = paths[name]
                assert path is not None
                engine.load(name, path)
            engine.set_live(name)
            time.sleep(0.05)
        for thread in clients:
            thread.join(60)
        assert len(results) == 32
        assert len({adapter for adapter, _, _ in results}) > 1, "the swaps came too late"
        mixed = [
            (adapter, i)
            for adapter, i, tokens in results
            if not is_reply_of(tokens, tiny_llama, requests[i], paths[adapter])
        ]
        assert mixed == []
        assert engine.stats()["failed"] == 0
    finally:
        engine.stop()


def test_after_a_swap_the_answer_is_that_of_a_fresh_engine(
    tiny_llama: Path, tiny_adapter: Callable[..., Path], engine: Engine
) -> None:
    request = ask(PROMPT, max_tokens=40)
    before = reply(engine.submit(request))
    engine.load("v0001", tiny_adapter(1))
    engine.set_live("v0001")
    stream = engine.submit(request)
    assert reply(stream) == fresh_reply(tiny_llama, request, tiny_adapter(1)) != before
    assert (stream.adapter, stream.cached_tokens) == ("v0001", 0)
    engine.set_live(None)
    assert reply(engine.submit(request)) == before


def test_a_running_reply_ends_on_the_adapter_it_began_on(
    tiny_llama: Path, tiny_adapter: Callable[..., Path], engine: Engine
) -> None:
    request = ask(PROMPT, max_tokens=400)
    stream = engine.submit(request)
    pieces = iter(stream)
    got = [next(pieces).token]
    engine.load("v0001", tiny_adapter(1))
    engine.set_live("v0001")
    got += [piece.token for piece in pieces if piece.token is not None]
    assert stream.adapter == "base"
    assert is_reply_of(got, tiny_llama, request, None)
    wait_until(lambda: engine.stats()["contexts"] == ["v0001"])


def test_scale_zero_is_the_base_and_scale_counts(
    tiny_adapter: Callable[..., Path], engine: Engine
) -> None:
    base = engine.logits(PROMPT)
    for name, scale in (("v0001", 0.0), ("v0002", 0.5), ("v0003", 1.0)):
        engine.load(name, tiny_adapter(1), scale)
    np.testing.assert_allclose(engine.logits(PROMPT, "v0001"), base, atol=1e-4)
    half, full = engine.logits(PROMPT, "v0002"), engine.logits(PROMPT, "v0003")
    assert np.abs(half - base).max() > 0.1
    assert np.abs(full - half).max() > 0.1


def test_a_reused_prefix_gives_the_same_tokens(tiny_llama: Path, engine: Engine) -> None:
    first = ask(PROMPT, max_tokens=30)
    longer = ask([*PROMPT, *reply(engine.submit(first)), *tokens_of("!")], max_tokens=30)
    stream = engine.submit(longer)
    tokens = reply(stream)
    assert stream.cached_tokens >= len(PROMPT) + 29
    assert is_reply_of(tokens, tiny_llama, longer, None)


def test_a_prefix_is_shared_with_a_reply_that_still_runs(tiny_llama: Path, engine: Engine) -> None:
    running = engine.submit(ask(PROMPT, max_tokens=600))
    next(iter(running))
    request = ask([*PROMPT, *tokens_of("!")], max_tokens=30)
    stream = engine.submit(request)
    tokens = reply(stream)
    assert stream.cached_tokens == len(PROMPT)
    assert is_reply_of(tokens, tiny_llama, request, None)


def test_a_full_pool_pushes_a_request_out_and_back_in(tiny_llama: Path) -> None:
    engine = make_engine(tiny_llama, context_tokens=256, sequences=4)
    requests = [ask(tokens_of(f"bee {i}"), max_tokens=150) for i in range(4)]
    try:
        streams = [engine.submit(request) for request in requests]
        results = [reply(stream) for stream in streams]
        assert engine.stats()["preempted"] > 0
    finally:
        engine.stop()
    for request, tokens in zip(requests, results, strict=True):
        assert len(tokens) == 150
        assert is_reply_of(tokens, tiny_llama, request, None)


def test_one_long_reply_ends_with_the_context(tiny_llama: Path) -> None:
    engine = make_engine(tiny_llama, context_tokens=256)
    try:
        stream = engine.submit(ask(PROMPT, max_tokens=10_000))
        assert len(reply(stream)) + len(PROMPT) == 256
        assert stream.finish_reason == "length"
        with pytest.raises(EngineError, match="256"):
            engine.submit(ask(PROMPT * 10))
    finally:
        engine.stop()


def test_a_long_prompt_does_not_stop_a_running_reply(engine: Engine) -> None:
    running = engine.submit(ask(PROMPT, max_tokens=300))
    pieces = iter(running)
    next(pieces)
    long = engine.submit(ask(tokens_of("x" * 900), max_tokens=2))
    between = 0
    while not long._job.started and not running.finished:
        next(pieces)
        between += 1
    assert between >= 3  # the prompt came in chunks, with tokens of the other between them
    running.cancel()


def test_cancel_frees_the_sequence(engine: Engine) -> None:
    stream = engine.submit(ask(PROMPT, max_tokens=900))
    next(iter(stream))
    stream.cancel()
    wait_until(lambda: not engine.busy)
    assert list(stream)[-1].finish_reason == "cancelled"
    assert engine.stats()["cancelled"] == 1


def test_a_stream_that_nobody_holds_is_cancelled(engine: Engine) -> None:
    stream = engine.submit(ask(PROMPT, max_tokens=900))
    next(iter(stream))
    del stream
    gc.collect()
    wait_until(lambda: not engine.busy)
    assert engine.stats()["generated_tokens"] < 900


def test_what_is_in_the_background_gives_way(engine: Engine) -> None:
    behind = engine.submit(ask(PROMPT, max_tokens=900, background=True))
    next(iter(behind))
    assert not engine.busy and engine.idle_seconds > 0, "nobody waits for it"
    asked = engine.submit(ask(PROMPT, max_tokens=900))
    assert list(behind)[-1].finish_reason == "cancelled"
    assert engine.busy and not asked.finished
    with pytest.raises(Busy):
        engine.submit(ask(PROMPT, background=True))
    asked.cancel()
    wait_until(lambda: not engine.busy)
    assert engine.submit(ask(PROMPT, max_tokens=3, background=True)).text()


def test_a_long_prompt_in_the_background_comes_in_pieces(engine: Engine) -> None:
    steps = []
    lane = engine._contexts._lanes["base"]
    plan = lane._plan
    lane._plan = lambda *given: steps.append(plan(*given)) or steps[-1]  # type: ignore[method-assign, func-returns-value]
    lane._meter.seconds_per_token = 0.01
    engine.submit(ask(tokens_of("x" * 100), max_tokens=1, background=True)).text()
    assert len(steps) > 3 and max(map(sum, steps)) < 100


def test_nothing_is_guessed_where_it_would_be_rounded_otherwise(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "guesses_pay", lambda *_: True)
    guessed = {}
    for threads in (1, 2):
        engine = make_engine(tiny_llama, threads=threads)
        reply(engine.submit(ask([40, 41, 42] * 30, max_tokens=60)))
        guessed[threads] = engine.stats()["guessed_tokens"]
        engine.stop()
    assert guessed[1] > 0 == guessed[2]


def test_idle_sequences_make_room_but_for_the_latest(engine: Engine) -> None:
    """Of 512 tokens they may hold 128, or the one that was used last."""

    def read_anew(prompt: list[int]) -> int:
        stream = engine.submit(ask(prompt, max_tokens=1))
        reply(stream)
        return len(prompt) - stream.cached_tokens

    def prompt(first: int, length: int) -> list[int]:
        return [first, *(40 + n % 100 for n in range(length - 1))]

    long, short = prompt(10, 300), [prompt(11 + n, 50) for n in range(3)]
    assert read_anew(long) == 300
    assert read_anew(short[0]) == 50
    assert read_anew(long) == 1  # the latest one, whatever its length
    assert [read_anew(one) for one in short] == [1, 50, 50]  # long goes when there is another
    assert [read_anew(one) for one in short] == [1, 1, 1]
    assert read_anew(long) == 300


def test_stop_strings_end_a_reply(tiny_llama: Path, engine: Engine) -> None:
    whole = engine.submit(ask(PROMPT, max_tokens=60)).text()
    stop = whole[20:23]  # random text: characters from several tokens
    stream = engine.submit(ask(PROMPT, max_tokens=60, stop=[stop]))
    assert stream.text() == whole[: whole.index(stop)]
    assert stream.finish_reason == "stop"


@pytest.mark.parametrize("close", [0.05, 1e9])
def test_guessed_tokens_change_no_reply(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, close: float
) -> None:
    monkeypatch.setattr(Meter, "guesses_pay", lambda *_: True)
    monkeypatch.setattr(decode, "CLOSE", close)
    plain, guessing = make_engine(tiny_llama, prompt_lookup=False), make_engine(tiny_llama)
    loops = Sampling(logit_bias={0: -100, 1: -100, 2: -100})
    try:
        for prompt in (PROMPT, [*PROMPT, *PROMPT, *PROMPT[:-2]], [40, 41, 42] * 30):
            for sampling in (loops, Sampling(presence_penalty=0.5)):
                asked = Request(prompt, max_tokens=120, sampling=sampling, logprobs=1)
                pieces = list(guessing.submit(asked))
                expected = list(plain.submit(asked))
                assert [p.token for p in pieces] == [p.token for p in expected]
                assert [p.logprob for p in pieces] == pytest.approx(
                    [p.logprob for p in expected], abs=3e-3
                )
                assert pieces[-1].finish_reason == expected[-1].finish_reason
            # The next turn goes on from what was kept.
            longer = [*prompt, *(p.token for p in pieces if p.token is not None), 50, 51]
            after = guessing.submit(Request(longer, max_tokens=20, sampling=loops))
            assert reply(after) == reply(
                plain.submit(Request(longer, max_tokens=20, sampling=loops))
            )
            assert after.cached_tokens >= len(longer) - 4
        assert plain.stats()["guessed_tokens"] == 0
        found = guessing.stats()
        assert found["guessed_tokens"] > 100
        assert (found["held_tokens"] > 50) == (close < 1)
        drawn = Sampling(temperature=1.0, seed=3)
        assert reply(guessing.submit(ask(PROMPT, max_tokens=60, sampling=drawn))) == reply(
            plain.submit(ask(PROMPT, max_tokens=60, sampling=drawn))
        )
        assert guessing.stats()["guessed_tokens"] == found["guessed_tokens"]
    finally:
        plain.stop()
        guessing.stop()


def test_the_same_seed_gives_the_same_text(engine: Engine) -> None:
    def text(seed: int) -> str:
        sampling = Sampling(temperature=1.5, seed=seed, top_k=40, top_p=0.95, min_p=0.01)
        return engine.submit(ask(PROMPT, max_tokens=30, sampling=sampling)).text()

    assert text(1) == text(1) != text(2)


def test_a_grammar_is_kept_to(engine: Engine) -> None:
    grammar = 'root ::= "yes" | "no, " [a-z]{3}'
    for seed in range(6):
        sampling = Sampling(temperature=2.0, seed=seed, grammar=grammar)
        text = engine.submit(ask(PROMPT, max_tokens=30, sampling=sampling)).text()
        assert text == "yes" or (text.startswith("no, ") and len(text) == 7)
    with pytest.raises(EngineError, match="grammar"):
        engine.submit(ask(PROMPT, sampling=Sampling(grammar="root ::= (")))


def test_logit_bias_and_penalties_change_the_choice(engine: Engine) -> None:
    plain = reply(engine.submit(ask(PROMPT, max_tokens=1)))
    banned = Sampling(logit_bias={plain[0]: -1000.0})
    assert reply(engine.submit(ask(PROMPT, max_tokens=1, sampling=banned))) != plain
    strong = Sampling(presence_penalty=100.0)
    tokens = reply(engine.submit(ask(PROMPT, max_tokens=40, sampling=strong)))
    assert len(set(tokens)) == len(tokens)


def test_logprobs_are_those_of_the_model(engine: Engine) -> None:
    logits = engine.logits(PROMPT).astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    piece = next(iter(engine.submit(ask(PROMPT, max_tokens=1, logprobs=3))))
    assert piece.logprob == pytest.approx(expected.max(), abs=0.01)
    assert [entry.token for entry in piece.top] == list(np.argsort(-expected)[:3])


def test_streams_are_read_from_an_event_loop(engine: Engine) -> None:
    request = ask(PROMPT, max_tokens=50)
    expected = engine.submit(request).text()

    async def read() -> str:
        return "".join([piece.text async for piece in engine.submit(request)])

    async def both() -> list[str]:
        return await asyncio.gather(*(read() for _ in range(6)))

    assert asyncio.run(both()) == [expected] * 6


def test_a_failure_costs_only_its_own_requests(
    tiny_adapter: Callable[..., Path], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load("v0001", tiny_adapter(1))
    good = engine.submit(ask(PROMPT, max_tokens=200, adapter="base"))
    step = Lane.step

    def broken(lane: Lane, *, crowded: bool) -> None:
        if lane.name == "v0001":
            raise RuntimeError("made to fail")
        step(lane, crowded=crowded)

    monkeypatch.setattr(Lane, "step", broken)
    bad = engine.submit(ask(PROMPT, adapter="v0001"))
    with pytest.raises(EngineError, match="made to fail"):
        bad.text()
    assert len(reply(good)) == 200
    monkeypatch.undo()
    assert len(reply(engine.submit(ask(PROMPT, max_tokens=5, adapter="v0001")))) == 5
    assert engine.alive()


def test_contexts_are_made_again_when_needed_and_let_go_when_not(
    tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    engine = make_engine(tiny_llama, max_contexts=2)
    try:
        for seed in (1, 2, 3):
            engine.load(f"v000{seed}", tiny_adapter(seed))
        wait_until(lambda: len(engine.stats()["contexts"]) == 2)
        for name in ("v0001", "v0002", "v0003", "base"):
            assert len(reply(engine.submit(ask(PROMPT, max_tokens=3, adapter=name)))) == 3
        wait_until(lambda: len(engine.stats()["contexts"]) == 2)
    finally:
        engine.stop()


def test_the_live_context_is_let_go_after_long_rest_and_made_again(tiny_llama: Path) -> None:
    engine = make_engine(tiny_llama, idle_unload_seconds=0.2)
    try:
        first = reply(engine.submit(ask(PROMPT, max_tokens=5)))
        wait_until(lambda: engine.stats()["contexts"] == [])
        assert reply(engine.submit(ask(PROMPT, max_tokens=5))) == first
        assert engine.stats()["contexts"] == ["base"]
    finally:
        engine.stop()


def test_the_engine_is_measured_in_a_process_of_its_own(tiny_llama: Path, tmp_path: Path) -> None:
    found = tuning.measure(tiny_llama, tmp_path / "engine.json")
    assert found is not None
    assert found == tuning.read(tmp_path / "engine.json")
    assert min(found.prompt_speed, found.reply_speed) > 0
    tuned = make_engine(tiny_llama, threads=None, tuning=replace(found, batch_tokens=64))
    plain = make_engine(tiny_llama)
    try:
        assert tuned.stats()["threads"] == found.threads
        long = PROMPT * 20
        replies = [reply(e.submit(ask(long, max_tokens=8))) for e in (tuned, plain)]
        assert replies[0] == replies[1]
    finally:
        tuned.stop()
        plain.stop()


def test_durations_are_counted_of_what_somebody_waited_for(engine: Engine) -> None:
    reply(engine.submit(ask(PROMPT, max_tokens=3)))
    reply(engine.submit(ask(PROMPT, max_tokens=3, background=True)))
    stats = engine.stats()
    for name in ("first_token", "reply"):
        assert sum(stats[name]["counts"]) == 1
        assert stats[name]["seconds"] > 0
    assert stats["first_token"]["seconds"] <= stats["reply"]["seconds"]


def test_unload_waits_for_running_replies(
    tiny_llama: Path, tiny_adapter: Callable[..., Path], engine: Engine
) -> None:
    engine.load("v0001", tiny_adapter(1))
    request = ask(PROMPT, max_tokens=200, adapter="v0001")
    stream = engine.submit(request)
    engine.unload("v0001")
    with pytest.raises(NotFound):
        engine.submit(request)
    live = ask(PROMPT, max_tokens=200)
    assert reply(stream) == fresh_reply(tiny_llama, live, tiny_adapter(1))
    wait_until(lambda: engine.stats()["adapters"] == 0)
    engine.load("v0001", tiny_adapter(1))  # the name is free again


def test_bad_requests_are_refused(tiny_llama: Path, engine: Engine) -> None:
    with pytest.raises(NotFound):
        engine.submit(ask(PROMPT, adapter="v0009"))
    with pytest.raises(EngineError, match="token"):
        engine.submit(ask([10**9]))
    for options in ({"max_tokens": 0}, {"tokens": []}, {"logprobs": 1000}, {"stop": ["x"] * 99}):
        with pytest.raises(ValueError, match=r"at least|at most|between"):
            Request(**{"tokens": PROMPT, **options})  # type: ignore[arg-type]
    for sampling in ({"temperature": float("nan")}, {"top_p": 2.0}, {"top_k": -1}):
        with pytest.raises(ValueError, match="must be between"):
            Sampling(**sampling)  # type: ignore[arg-type]
    with pytest.raises(AdapterError):
        engine.load("v0001", tiny_llama)


def test_damaged_adapters_never_reach_native_code_unchecked(
    tmp_path: Path, tiny_adapter: Callable[..., Path], engine: Engine
) -> None:
    """What the check lets through, llama.cpp must survive; what it serves stays finite."""
    original = tiny_adapter(1).read_bytes()
    dice = np.random.default_rng(11)
    path = tmp_path / "damaged.gguf"
    refused = 0
    for number in range(150):
        data = bytearray(original)
        for place in dice.integers(len(data) if number % 3 == 0 else 2600, size=2):
            data[int(place)] = int(dice.integers(256))
        path.write_bytes(data)
        try:
            engine.load("v0001", path)
        except (AdapterError, EngineError):
            refused += 1
            continue
        assert engine.logits(PROMPT, "v0001").shape == engine.logits(PROMPT).shape
        engine.unload("v0001")
        wait_until(lambda: engine.stats()["adapters"] == 0)
    assert 0 < refused < 150
    assert len(reply(engine.submit(ask(PROMPT, max_tokens=3)))) == 3


def test_a_full_queue_is_told_so(tiny_llama: Path) -> None:
    engine = make_engine(tiny_llama, sequences=1, queue_limit=2)
    try:
        running = iter(engine.submit(ask(PROMPT, max_tokens=900)))  # let go of, it is cancelled
        next(running)
        waiting = [engine.submit(ask(PROMPT)) for _ in range(2)]
        with pytest.raises(Busy):
            engine.submit(ask(PROMPT))
        assert len(waiting) == 2
    finally:
        engine.stop()


def test_stop_ends_every_stream_with_an_error(tiny_llama: Path) -> None:
    engine = make_engine(tiny_llama)
    streams = [engine.submit(ask(PROMPT, max_tokens=900)) for _ in range(6)]
    assert engine.stop()
    for stream in streams:
        with pytest.raises(EngineError, match="stopped"):
            stream.text()
    with pytest.raises(EngineError):
        engine.submit(ask(PROMPT))
    assert not engine.alive()


def test_nothing_is_written_to_stdout_or_stderr(
    tiny_llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = make_engine(tiny_llama)
    engine.submit(ask(PROMPT, max_tokens=3)).text()
    engine.stop()
    assert capfd.readouterr() == ("", "")


def test_memory_does_not_grow_with_swaps(
    tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process(os.getpid())
    engine = make_engine(tiny_llama)

    def swap(times: int) -> int:
        for _ in range(times):
            engine.load("v0001", tiny_adapter(1))
            engine.set_live("v0001")
            engine.submit(ask(PROMPT, max_tokens=2)).text()
            engine.set_live(None)
            engine.unload("v0001")
            wait_until(lambda: engine.stats()["adapters"] == 0)
        return int(process.memory_info().rss)

    try:
        first = swap(20)
        assert swap(40) < first * 1.05
    finally:
        engine.stop()
