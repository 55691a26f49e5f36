"""A model's vocabulary: what ends a reply, and who keeps it in memory."""

import gc
from pathlib import Path

from acclimate.adapters.native import llama_cpp
from acclimate.adapters.prompt import Prompt
from acclimate.daemon.engine import Engine
from acclimate.daemon.loading import opening


def every_end(prompt: Prompt) -> set[int]:
    return {i for i in range(prompt.size) if llama_cpp.llama_vocab_is_eog(prompt._vocab, i)}


def test_no_end_token_is_missed(tiny_llama: Path, tiny_qwen2: Path, real_models: Path) -> None:
    for path in (tiny_llama, tiny_qwen2, real_models / "smollm2-135m-instruct.gguf"):
        prompt = Prompt.from_gguf(path)
        assert prompt.end_ids == every_end(prompt) != set()


def test_the_vocabulary_outlives_the_engine_that_loaded_it(tiny_llama: Path) -> None:
    engine = Engine(tiny_llama, context_tokens=64, threads=1)
    engine.start()
    prompt = Prompt.from_model(engine.base)
    engine.stop()
    del engine
    gc.collect()
    alone = Prompt.from_gguf(tiny_llama)
    assert prompt.tokenize("Hello there") == alone.tokenize("Hello there")
    assert prompt.end_ids == alone.end_ids


def test_the_opening_is_what_any_two_conversations_share(real_models: Path) -> None:
    prompt = Prompt.from_gguf(real_models / "smollm2-135m-instruct.gguf")
    begun = opening(prompt)
    asked = [
        prompt.encode_prompt([{"role": "user", "content": text}]) for text in ("What?", "Say it.")
    ]
    assert begun and all(tokens[: len(begun)] == begun for tokens in asked)
