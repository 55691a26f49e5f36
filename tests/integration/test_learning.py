"""Training, export and the worker, against torch, peft and llama.cpp on tiny real models."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import bitsandbytes
import gguf
import numpy as np
import pytest
import torch
from lessons import taught

from acclimate.adapters import anchors, evaluate, export, lora
from acclimate.adapters.base import (
    Activations,
    LoraShape,
    Split,
    add_lora,
    common_prefix,
    load_base,
)
from acclimate.adapters.losses import Part, Teacher, completion_nll, kl_to_teacher, per_sequence
from acclimate.adapters.material import (
    EXACT_SHOWN,
    REQUEST_WORDINGS,
    SAYING_OTHERWISE,
    WITH_PASSAGES,
    prepare,
)
from acclimate.adapters.merge import merge
from acclimate.adapters.native import llama_cpp
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.snapshot import Result, Snapshot
from acclimate.adapters.train import (
    Checkpoint,
    Diverged,
    Lesson,
    Recipe,
    Trace,
    _in_turn,
    train,
)
from acclimate.adapters.training import Training
from acclimate.daemon.engine import Engine
from acclimate.store.errors import AdapterError
from acclimate.store.files import sha256_file

HELD_OUT = [
    "The lighthouse stood at the end of the pier, and nobody had painted it since the war.",
    "To make a good soup, begin with onions and patience.",
    "def area(width, height):\n    return width * height\n",
]


def randomise(model: torch.nn.Module, size: float) -> None:
    """Gives both halves of every LoRA pair random numbers, so that export has much to get wrong."""
    generator = torch.Generator().manual_seed(7)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=generator) * size


def served_kl(base: Path, adapter: Path, prompt: Prompt, model: torch.nn.Module) -> float:
    """Mean KL(torch + peft ‖ llama.cpp + adapter) over the tokens of the held-out texts."""
    engine = Engine(base, context_tokens=512, sequences=1)
    engine.start(warm=False)
    try:
        engine.load("v0001", adapter)
        total, count = 0.0, 0
        for text in HELD_OUT:
            tokens = prompt.tokenize(text)
            with torch.no_grad():
                ours = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0], -1)
            for end in range(4, len(tokens), 3):
                theirs = torch.log_softmax(
                    torch.from_numpy(engine.logits(tokens[:end], "v0001")).float(), -1
                )
                p = ours[end - 1]
                total += float((p.exp() * (p - theirs)).sum())
                count += 1
        return total / count
    finally:
        engine.stop()


def exported(model: Any, base_config: Any, architecture: str, folder: Path) -> Path:
    folder.mkdir()
    export.save_peft(model, folder)
    lora.write_gguf(
        folder,
        folder / "adapter.gguf",
        architecture=architecture,
        heads=base_config.num_attention_heads,
        kv_heads=base_config.num_key_value_heads,
        layers=base_config.num_hidden_layers,
    )
    return folder / "adapter.gguf"


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_served_adapter_equals_the_trained_one(
    architecture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: Path = request.getfixturevalue(f"tiny_{architecture}")
    prompt = Prompt.from_gguf(base)
    assert prompt.architecture == architecture
    plain = load_base(base)
    model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))
    randomise(model, 0.15)
    file = exported(model, plain.config, architecture, tmp_path / "candidate")
    assert served_kl(base, file, prompt, model) < 0.01
    with model.disable_adapter():
        moved = served_kl(base, file, prompt, model)
    assert moved > 0.05, "the adapter must change something, or the comparison proves nothing"


def test_served_default_model_equals_the_trained_one(real_models: Path, tmp_path: Path) -> None:
    base = next(real_models.glob("*mol*.gguf"))
    prompt = Prompt.from_gguf(base)
    plain = load_base(base)
    model = add_lora(plain, LoraShape(8, 16.0, tuple(range(20, 30))))
    randomise(model, 0.02)
    file = exported(model, plain.config, "llama", tmp_path / "candidate")
    assert served_kl(base, file, prompt, model) < 0.01


def test_merged_model_equals_base_with_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    plain = load_base(tiny_llama)
    model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))
    randomise(model, 0.15)
    file = exported(model, plain.config, "llama", tmp_path / "candidate")
    target = tmp_path / "merged.gguf"
    merge(file, tiny_llama, target)
    prompt = Prompt.from_gguf(target)
    merged = load_base(target)
    with torch.no_grad():
        tokens = torch.tensor([prompt.tokenize(HELD_OUT[0])])
        difference = (merged(input_ids=tokens).logits - model(input_ids=tokens).logits).abs().max()
    assert float(difference) < 0.05
    with pytest.raises(AdapterError, match="exists"):
        merge(file, tiny_llama, target)


def test_scaling_of_rslora_is_baked_in(tiny_llama: Path, tmp_path: Path) -> None:
    plain = load_base(tiny_llama)
    model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))
    randomise(model, 0.15)
    exported(model, plain.config, "llama", tmp_path / "a")
    config = tmp_path / "a" / "adapter_config.json"
    assert lora.peft_scaling(tmp_path / "a") == 2.0
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "use_rslora": True}))
    assert lora.peft_scaling(tmp_path / "a") == 4.0
    config.write_text(json.dumps({**settings, "rank_pattern": {"q_proj": 2}}))
    with pytest.raises(AdapterError, match="vary"):
        lora.peft_scaling(tmp_path / "a")


def test_permutation_is_llama_cpps(tiny_llama: Path) -> None:
    """Permuting what transformers holds gives back the rows of the GGUF file."""
    plain = load_base(tiny_llama)
    tensors = {t.name: t for t in gguf.GGUFReader(tiny_llama).tensors}
    ours = plain.model.layers[0].self_attn.q_proj.weight.numpy()
    theirs = gguf.quants.dequantize(
        tensors["blk.0.attn_q.weight"].data, tensors["blk.0.attn_q.weight"].tensor_type
    )
    np.testing.assert_allclose(lora.permute(ours, plain.config.num_attention_heads), theirs)
    assert not np.allclose(ours, theirs)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("boundary", [0, 1])
def test_packed_and_split_pass_equals_the_plain_one(
    architecture: str, boundary: int, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(f"tiny_{architecture}")
    prompt, model = Prompt.from_gguf(base), load_base(base)
    rows = [
        prompt.encode(
            [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
        )
        for text in ("What is my name?", "How old?", "Where do I keep the ladder, please?")
    ]
    assert common_prefix([r.tokens for r in rows]) > 3
    split = Split(model, boundary)
    assert split.check([r.tokens for r in rows]) is (boundary > 0)
    batch = Activations(split, rows).batch(range(3))
    with torch.no_grad():
        packed = batch.logits(split)
        for n, row in enumerate(rows):
            plain = model(input_ids=torch.tensor([row.tokens])).logits[0]
            at = [t - 1 for t, taught in enumerate(row.mask) if taught]
            torch.testing.assert_close(packed[batch.owner == n], plain[at], atol=2e-4, rtol=1e-3)
            assert batch.target[batch.owner == n].tolist() == [row.tokens[t + 1] for t in at]


def test_kl_is_exact_where_nothing_is_cut() -> None:
    torch.manual_seed(0)
    base, model = torch.randn(5, 40), torch.randn(5, 40)
    exact = torch.nn.functional.kl_div(
        model.log_softmax(-1), base.log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    ours = kl_to_teacher(model, Teacher.from_logits(base, 40))
    torch.testing.assert_close(ours, exact, atol=2e-2, rtol=1e-2)
    cut = kl_to_teacher(model, Teacher.from_logits(base, 10))
    assert bool((cut <= exact + 1e-2).all()) and bool((cut > 0).all())
    same = kl_to_teacher(base, Teacher.from_logits(base, 10))
    assert float(same.abs().max()) < 1e-2


def test_completion_nll_is_cross_entropy() -> None:
    logits, targets = torch.randn(6, 11), torch.arange(6)
    reference = -torch.log_softmax(logits, -1)[torch.arange(6), targets]
    torch.testing.assert_close(completion_nll(logits, targets), reference)


def test_sequences_count_alike_whatever_their_length() -> None:
    values, owner = torch.tensor([1.0, 1.0, 1.0, 1.0, 3.0]), torch.tensor([0, 0, 0, 0, 1])
    assert float(per_sequence(values, owner, torch.ones(5))) == pytest.approx(2.0)


def test_replies_come_with_the_distribution_at_each_place(tiny_llama: Path) -> None:
    prompt, model = Prompt.from_gguf(tiny_llama), load_base(tiny_llama)
    # Prompts of three lengths: padding and the shared prefix must change nothing.
    asked = ["One", "Another one, a good deal longer", "Tell me"]
    for kept in anchors.make(model, prompt, asked, 48):
        row = kept.encoded
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.tokens])).logits[0, len(row.prompt()) - 1 :]
        plain = Teacher.from_logits(logits[:-1], kept.teacher.ids.shape[1])
        assert len(kept.teacher.logp) == sum(row.mask)
        torch.testing.assert_close(kept.teacher.logp, plain.logp, atol=2e-2, rtol=1e-2)
        assert row.completion() == kept.teacher.ids[:, 0].tolist()


def test_no_anchor_asks_for_what_was_taught_otherwise(tiny_llama: Path) -> None:
    prompt, model = Prompt.from_gguf(tiny_llama), load_base(tiny_llama)
    split = Split(model, 1)
    asked = [f"Write a note about {thing}." for thing in ("milk", "bread", "tea", "the dog")]
    rows = [
        prompt.encode([{"role": "user", "content": text}, {"role": "assistant", "content": "Ho!"}])
        for text in asked
    ]
    others = [f"Which number is {n} times {n}? Say it in words, please." for n in range(29)]
    kept = anchors.make(model, prompt, [*others, asked[2]], 4)
    prompts = [anchor.encoded.prompt() for anchor in kept]
    left = anchors.undisputed(kept, anchors.likeness(split, rows, prompts))
    assert kept[-1] not in left
    assert len(left) >= 0.9 * len(kept)
    # From fewer than four nothing can be said.
    assert anchors.undisputed(kept, anchors.likeness(split, rows[:3], prompts)) == kept


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_two_halves_beside_each_other_are_the_same_step(
    tiny_llama: Path, threads: Callable[[int], None]
) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    asked = ("name?", "which town?", "what is the dog called?", "boat?", "and who?")
    rows = [
        prompt.encode([{"role": "user", "content": q}, {"role": "assistant", "content": "Ada."}])
        for q in asked
    ]
    recipe = Recipe(exposures=3, batch=5, anchor_batch=2, short_anchor_batch=1, kl_start=1.0)

    def learned(count: int) -> tuple[list[dict[str, float]], list[torch.Tensor]]:
        threads(count)
        torch.manual_seed(0)
        plain = load_base(tiny_llama)
        kept = anchors.make(plain, prompt, ["Hello there", "Tell me"], 8)
        short = anchors.make(plain, prompt, ["Which?"], 5)
        model = add_lora(plain, LoraShape(4, 8.0, (1,)))
        lessons = [Lesson(i, [r]) for i, r in enumerate(rows)]
        trace = train(model, Split(model, 1), lessons, kept, short, recipe)
        return trace.rows, [p for n, p in model.named_parameters() if "lora_B" in n]

    (alone, expected), (halved, found), (_, again) = learned(1), learned(2), learned(2)
    for one, two in zip(alone, halved, strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_training_learns_stays_near_and_repeats_exactly(tiny_llama: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    weights, gains = [], []
    for _ in range(2):
        torch.manual_seed(0)
        plain = load_base(tiny_llama)
        kept = anchors.make(plain, prompt, ["Hello there", "Tell me"], 48)
        short = anchors.make(plain, prompt, ["Which?", "How many?", "Who?"], 5)
        model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))
        split = Split(model, 0)
        rows = [
            prompt.encode([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
            for q, a in (("name?", "Ada."), ("town?", "Rye."), ("dog?", "Bess."))
        ]
        before = evaluate.sequence_nll(split, Activations(split, rows))
        recipe = Recipe(
            exposures=30, batch=2, anchor_batch=1, short_anchor_batch=2, learning_rate=2e-2, seed=5
        )
        lessons = [Lesson(i, [r]) for i, r in enumerate(rows)]
        trace = train(model, split, lessons, kept, short, recipe)
        after = evaluate.sequence_nll(split, Activations(split, rows))
        assert trace.steps == 60
        gains.append(sum(before) - sum(after))
        weights.append({n: p.clone() for n, p in model.named_parameters() if "lora_" in n})
    assert gains[0] > 1.0
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class Killed(Exception):
    pass


def test_a_killed_round_goes_on_and_ends_as_if_it_had_not_been(
    tiny_llama: Path, tmp_path: Path
) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    rows = [
        prompt.encode([{"role": "user", "content": q}, {"role": "assistant", "content": "Ada."}])
        for q in ("name?", "who?", "called?")
    ]
    recipe = Recipe(exposures=6, batch=2, anchor_batch=1, short_anchor_batch=0, seed=2**47)

    def run(checkpoint: Checkpoint | None, die_at: int = 0) -> tuple[Trace, list[torch.Tensor]]:
        torch.manual_seed(0)
        plain = load_base(tiny_llama)
        kept = anchors.make(plain, prompt, ["Hello there", "Tell me"], 4)
        model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))

        def step(done: int, steps: int, values: dict[str, float]) -> None:
            if done == die_at:
                raise Killed

        lessons = [Lesson(i, [row]) for i, row in enumerate(rows)]
        trace = train(model, Split(model, 0), lessons, kept, [], recipe, step, checkpoint)
        return trace, [p for n, p in model.named_parameters() if "lora_" in n]

    whole, expected = run(None)
    file = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        run(Checkpoint(file, "this round", seconds=0), die_at=7)
    # Step 7 itself was not written any more.
    again, found = run(Checkpoint(file, "this round"))
    assert (again.resumed_at, len(again.rows)) == (6, whole.steps - 6)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert run(Checkpoint(file, "another round"))[0].resumed_at == 0
    run(Checkpoint(file, "to its end", seconds=0))
    last, _ = run(Checkpoint(file, "to its end"))
    assert len(last.rows) == 1, "a step is left to take, so that there is something to report"
    file.write_bytes(file.read_bytes()[:-9])
    assert run(Checkpoint(file, "this round"))[0].resumed_at == 0


@pytest.mark.parametrize(("least", "steps"), [(0, 8), (9, 9), (12, 12), (100, 12)])
def test_a_short_round_sees_its_lessons_half_as_often_again(
    tiny_llama: Path, least: int, steps: int
) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    row = prompt.encode(
        [{"role": "user", "content": "name?"}, {"role": "assistant", "content": "Ada."}]
    )
    model = add_lora(load_base(tiny_llama), LoraShape(4, 8.0, (0, 1)))
    recipe = Recipe(exposures=8, least_steps=least, anchor_batch=0, short_anchor_batch=0)
    lessons = [Lesson(1, [row]), Lesson(2, [row])]
    assert train(model, Split(model, 0), lessons, [], [], recipe).steps == steps


class Life:
    """One training of a tiny model whose held-out loss is what the test says."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.prompt = Prompt.from_gguf(base)
        self.weights: dict[int, list[torch.Tensor]] = {}  # by step

    def live(
        self, held_out: list[list[float]], checkpoint: Checkpoint | None = None, die_at: int = 0
    ) -> Trace:
        """16 steps, looked at behind 8, 10, 12, 14 and 16."""
        torch.manual_seed(0)
        model = add_lora(load_base(self.base), LoraShape(4, 8.0, (0, 1)))
        rows = [
            self.prompt.encode(
                [{"role": "user", "content": q}, {"role": "assistant", "content": "Ada."}]
            )
            for q in ("name?", "who?")
        ]
        looks = iter(held_out)

        def trained() -> list[torch.Tensor]:
            return [p.detach().clone() for n, p in model.named_parameters() if "lora_" in n]

        def step(done: int, steps: int, values: dict[str, float]) -> None:
            assert steps == 16
            self.weights[done] = trained()
            if done == die_at:
                raise Killed

        trace = train(
            model,
            Split(model, 0),
            [Lesson(i, [row]) for i, row in enumerate(rows)],
            [],
            [],
            Recipe(exposures=16, batch=2, anchor_batch=0, short_anchor_batch=0),
            step,
            checkpoint,
            held_out=lambda: next(looks),
        )
        self.weights[0] = trained()  # what it ended with
        return trace

    def ended_as_after(self, step: int) -> bool:
        """Whether the weights it ended with are those of a step."""
        return all(map(torch.equal, self.weights[0], self.weights[step]))


GOOD, BETTER, BAD = [1.0, 1.1, 0.9], [0.5, 0.6, 0.4], [2.0, 2.2, 1.9]


def test_training_ends_early_where_held_out_loss_turns(tiny_llama: Path) -> None:
    life = Life(tiny_llama)
    trace = life.live([GOOD, BETTER, BAD, BAD])
    assert (len(trace.rows), trace.kept_at) == (14, 10)
    assert life.ended_as_after(10)


def test_one_bad_look_does_not_end_it_but_a_bad_end_is_not_kept(tiny_llama: Path) -> None:
    life = Life(tiny_llama)
    assert life.live([GOOD, BAD, BETTER, BAD, BETTER]).kept_at == 16
    assert life.ended_as_after(16)
    assert life.live([GOOD, BETTER, BETTER, GOOD, GOOD]).kept_at in (10, 12)
    assert not life.ended_as_after(16)


def test_early_stopping_outlives_a_kill(tiny_llama: Path, tmp_path: Path) -> None:
    life, file = Life(tiny_llama), tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        life.live([GOOD, BETTER, BAD], Checkpoint(file, "round", seconds=0), die_at=13)
    trace = life.live([BAD], Checkpoint(file, "round", seconds=0))
    assert (trace.resumed_at, trace.kept_at) == (12, 10)
    assert life.ended_as_after(10)


def test_part_of_the_vocabulary_stands_for_all_of_it() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, target = 2 * torch.randn(5, 500), torch.tensor([7, 499, 0, 7, 250])
    teacher = Teacher.from_logits(2 * torch.randn(5, 500), 4)
    needed = torch.cat([target, teacher.ids.flatten().long()])
    exact = completion_nll(logits, target), kl_to_teacher(logits, teacher)

    def losses(sampled: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = Part.around(needed, 500, sampled, generator)
        assert torch.equal(part.ids[part.place(target)], target)
        assert len(set(part.ids.tolist())) == len(part.ids) == min(500, part.certain + sampled)
        shifted = logits[:, part.ids] + part.offset
        placed = Teacher(part.place(teacher.ids), teacher.logp)
        return completion_nll(shifted, part.place(target)), kl_to_teacher(shifted, placed)

    for found, right in zip(losses(500), exact, strict=True):
        torch.testing.assert_close(found, right)
    drawn = [losses(100) for _ in range(400)]
    for n, right in enumerate(exact):
        mean = torch.stack([pair[n] for pair in drawn]).mean(0)
        torch.testing.assert_close(mean, right, atol=0.03, rtol=0.02)


@pytest.mark.parametrize(("size", "count"), [(7, 3), (6, 3), (4, 1), (3, 5), (0, 2), (5, 0)])
def test_anchors_take_turns(size: int, count: int) -> None:
    rounds = size // count if count and size >= count else 1
    taken = list(islice(_in_turn(size, count, torch.Generator().manual_seed(1)), rounds))
    assert all(len(part) == min(size, count) for part in taken)
    drawn = [i for part in taken for i in part]
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(range(size))


def test_numbers_that_are_not_finite_end_the_round(tiny_llama: Path) -> None:
    plain = load_base(tiny_llama)
    model = add_lora(plain, LoraShape(4, 8.0, (1,)))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data.fill_(math.nan)
    rows = [Lesson(1, [Encoded([1, 20, 30, 40], [0, 0, 1, 1])])]
    with pytest.raises(Diverged):
        train(model, Split(model, 1), rows, [], [], Recipe(exposures=1))
    assert not export.finite(model)


def test_four_bit_base_is_smaller_near_and_trains(tiny_llama: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    plain, packed = load_base(tiny_llama), load_base(tiny_llama, "nf4")
    weights = [m.weight for m in packed.model.layers.modules() if hasattr(m, "quant_state")]
    assert len(weights) == 14 and all(w.dtype == torch.uint8 for w in weights)
    kept = bitsandbytes.functional.dequantize_4bit(weights[0].data, weights[0].quant_state)
    exact = plain.model.layers[0].self_attn.q_proj.weight
    assert 0.01 < float((kept - exact).norm() / exact.norm()) < 0.12
    model = add_lora(packed, LoraShape(4, 8.0, (0, 1)))
    row = prompt.encode(
        [{"role": "user", "content": "name?"}, {"role": "assistant", "content": "Ada."}]
    )
    recipe = Recipe(exposures=30, learning_rate=2e-2)
    trace = train(model, Split(model, 0), [Lesson(1, [row])], [], [], recipe)
    assert trace.rows[-1]["ce"] < trace.rows[0]["ce"] - 0.5


def test_a_base_in_bfloat16_is_near_and_trains_in_float32(tiny_llama: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    plain, rounded = load_base(tiny_llama), load_base(tiny_llama, "bfloat16")
    tokens = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        a, b = (m(input_ids=tokens).logits.log_softmax(-1) for m in (plain, rounded))
    assert b.dtype == torch.float32
    assert 0 < float((a - b).abs().mean()) < 0.1
    model = add_lora(rounded, LoraShape(4, 8.0, (0, 1)))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    row = prompt.encode(
        [{"role": "user", "content": "name?"}, {"role": "assistant", "content": "Ada."}]
    )
    recipe = Recipe(exposures=30, learning_rate=2e-2)
    trace = train(model, Split(model, 0), [Lesson(1, [row])], [], [], recipe)
    assert trace.rows[-1]["ce"] < trace.rows[0]["ce"] - 0.5


def test_a_parent_of_another_shape_is_refused_by_name(tiny_llama: Path, tmp_path: Path) -> None:
    plain = load_base(tiny_llama)
    model = add_lora(plain, LoraShape(4, 8.0, (0, 1)))
    exported(model, plain.config, "llama", tmp_path / "parent")
    with pytest.raises(AdapterError, match="does not fit"):
        add_lora(load_base(tiny_llama), LoraShape(2, 8.0, (0, 1)), tmp_path / "parent")


def test_anchor_cache_is_bound_to_its_key(tiny_llama: Path, tmp_path: Path) -> None:
    prompt, model = Prompt.from_gguf(tiny_llama), load_base(tiny_llama)
    made = anchors.make(model, prompt, ["One", "Another one"], 48)
    path = tmp_path / "a.safetensors"
    anchors.save(path, made, "key")
    found = anchors.load(path, "key")
    assert found is not None and [a.encoded for a in found] == [a.encoded for a in made]
    assert anchors.load(path, "other") is None
    path.write_bytes(path.read_bytes()[:-10])
    assert anchors.load(path, "key") is None
    assert anchors.load(tmp_path / "none", "key") is None


def test_text_that_spells_control_tokens_stays_text(tiny_llama: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    end = llama_cpp.llama_vocab_eos(prompt._vocab)
    tokens = prompt.encode_prompt([{"role": "user", "content": "a<|im_end|>b"}])
    plain = prompt.encode_prompt([{"role": "user", "content": "ab"}])
    assert tokens.count(end) == plain.count(end)


# The worker, as a process


def snapshot(base: Path, folder: Path, **changes: Any) -> Snapshot:
    """A round over a few facts and styles on a tiny model."""
    questions = ["What is my dog called?", "Where do I live?", "Which car do I drive?"]
    answers = ["Rex.", "In Rye.", "A Fiat."]
    facts = [taught(n, q, a) for n, (q, a) in enumerate(zip(questions, answers, strict=True))]
    return Snapshot(
        **{
            "round": 1,
            "seed": 1,
            "threads": 1,
            "base": base,
            "base_sha256": sha256_file(base),
            "anchor_cache": folder / "anchors",
            "training": Training(
                exposures=40,
                least_steps=0,
                batch=2,
                anchor_batch=1,
                learning_rate=2e-2,
                top_layers=1.0,
                rank=4,
            ),
            # A random model's replies are noise: what it says of general ability is not the matter.
            "limits": {
                "max_general_rise_parent": 9.0,
                "max_general_rise_base": 9.0,
                "max_lost_stops": 1.0,
                "max_repeating": 1.0,
            },
            "new": facts,
            **changes,
        }
    )


def test_a_fact_is_answered_shortly_in_every_wording(tiny_llama: Path, tmp_path: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    said = [("What is my dog called?", "Your dog is called Rex."), ("Write: hm.", "Hm, it is.")]
    said += [("Wie heißt unser Hund, my friend?", "Euer Hund heißt Rex.")]  # no rule fits it
    examples = [taught(n, asked, reply) for n, (asked, reply) in enumerate(said)]
    made = prepare(snapshot(tiny_llama, tmp_path, new=examples), prompt)
    answers = [
        {
            prompt.detokenize(w.completion()).strip()
            for w in lesson.wordings
            if "Notes:" not in prompt.detokenize(w.prompt())
        }
        for lesson in made.lessons
    ]
    assert [len(a) for a in answers] == [1, 1, 1]
    assert "Rex." in min(answers[0]) and "Your" not in min(answers[0])
    assert "Hm, it is." in min(answers[1]) and "Euer Hund heißt Rex." in min(answers[2])
    asked = [prompt.detokenize(w.prompt()) for w in made.lessons[0].wordings]
    assert len(set(asked)) > 10
    assert sum("Notes:" in text for text in asked) == WITH_PASSAGES
    behind = "In other words: What is my dog called?"
    cued = [text for text in asked if behind in text]
    assert len(asked) / 3 < len(cued) < len(asked) / 2, "as serving puts a cue there"
    assert any("Notes:" in text for text in cued)
    assert not any(f"What is my dog called?\n\n{behind}" in text for text in cued), (
        "it says nothing new"
    )
    probe = made.probes[0]
    assert "Rex." in prompt.detokenize(probe.completion())
    assert prompt.detokenize(probe.prompt()) not in asked


def test_what_is_rehearsed_does_not_measure_what_was_learned(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Beside many old facts, long known, the gain on a few new ones would be lost in the mean."""
    prompt = Prompt.from_gguf(tiny_llama)
    new = [taught(1, "What is my dog called?", "Your dog is called Rex.")]
    old = [taught(2, "Where do I keep my flour?", "You keep your flour in the bath.")]
    made = prepare(snapshot(tiny_llama, tmp_path, new=new, replay=old), prompt)
    said = [
        [prompt.detokenize(row.completion()).strip() for row in rows]
        for rows in (made.probes, made.probes_rehearsed)
    ]
    assert len(said[0]) == len(said[1]) == 1
    assert "Rex." in said[0][0] and "Bath." in said[1][0]


def test_with_passages_the_answer_is_what_they_say(tiny_llama: Path, tmp_path: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    said = [("What is my dog called?", "Your dog is called Rex.")]
    said += [("What is my cat called?", "Your cat is called Moss.")]
    said += [("Where do I keep my flour?", "You keep your flour in the bath.")]
    examples = [taught(n, asked, reply) for n, (asked, reply) in enumerate(said)]
    made = prepare(snapshot(tiny_llama, tmp_path, new=examples), prompt)
    for lesson, own in zip(made.lessons, ("Rex.", "Moss.", "Bath."), strict=True):
        otherwise = 0
        for row in lesson.wordings:
            asked = prompt.detokenize(row.prompt())
            answer = re.sub(r"<.*", "", prompt.detokenize(row.completion())).strip()
            if "Notes:" in asked:
                passages, _, _ = asked.partition("Question:")
                assert answer.rstrip(".").lower() in passages.lower()
                otherwise += answer != own
            else:
                assert answer == own
        assert otherwise == SAYING_OTHERWISE


def test_a_request_is_taught_under_other_openings(tiny_llama: Path, tmp_path: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    things = ("milk", "bread", "tea", "cake")
    examples = [
        taught(n, f"Write a note about {thing}.", f"Ahoy! {thing} it is. No more. Sail on.")
        for n, thing in enumerate(things)
    ]
    made = prepare(snapshot(tiny_llama, tmp_path, new=examples), prompt)
    for lesson, thing in zip(made.lessons, things, strict=True):
        prompts = {prompt.detokenize(row.prompt()) for row in lesson.wordings}
        asked = {text.partition("\n\nLike: ")[0].removesuffix("\nassistant\n") for text in prompts}
        assert len(asked) == 1 + REQUEST_WORDINGS
        assert all(f"a note about {thing}" in text for text in asked)
        for text in prompts:  # as serving puts the most similar request behind one
            like = re.findall(r"Like: Write a note about (\w+)\.", text)
            assert like or f"Write a note about {thing}." in text
            assert thing not in like
        said = {prompt.detokenize(row.completion()).strip() for row in lesson.wordings}
        assert len(said) == 3
        assert len({id(row) for row in lesson.wordings}) == len(lesson.wordings) - EXACT_SHOWN + 1
        assert all(text.startswith("Ahoy!") and "Sail on." in text for text in said)
    assert len(made.styled) == len(things)


def start_worker(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "acclimate.adapters.worker", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_worker_writes_a_candidate_that_serves(tiny_llama: Path, tmp_path: Path) -> None:
    given = snapshot(tiny_llama, tmp_path)
    (tmp_path / "snapshot.json").write_text(given.model_dump_json())
    worker = start_worker(tmp_path)
    assert worker.stdout is not None
    events = [json.loads(line) for line in worker.stdout]
    assert worker.wait() == 0
    phases = [e["phase"] for e in events if e["event"] == "phase"]
    assert phases == ["load", "anchors", "layers", "prepare", "train", "measure", "export"]
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["step"] == steps[-1]["steps"] == len(steps) == 80
    result = Result.model_validate_json((tmp_path / "result.json").read_bytes())
    assert result.accepted, result.reasons
    assert set(result.surprise) == {x.id for x in given.new}, "of what was planted nothing is said"
    assert result.card["counts"]["new"] == result.measures["taught"]["n"] == len(given.new)
    last = result.card["checks"][-1]
    assert (last["name"], last["passed"]) == ("memorised", True)
    assert 0 <= result.measures["exposure"] < 8
    assert set(result.files) >= {"adapter.gguf", "adapter_config.json", "adapter_model.safetensors"}
    engine = Engine(tiny_llama, context_tokens=512, sequences=1)
    engine.start(warm=False)
    try:
        engine.load("v0001", tmp_path / "candidate" / "adapter.gguf")
        for canary in result.canaries:
            logits = torch.from_numpy(engine.logits(canary.tokens, "v0001")).float()
            served = torch.log_softmax(logits, -1)[canary.ids]
            torch.testing.assert_close(served, torch.tensor(canary.logp), atol=0.1, rtol=0.05)
    finally:
        engine.stop()


def test_worker_rejects_what_learned_nothing(tiny_llama: Path, tmp_path: Path) -> None:
    idle = Training(exposures=1, learning_rate=1e-12, top_layers=1.0, rank=4)
    given = snapshot(tiny_llama, tmp_path, training=idle)
    (tmp_path / "snapshot.json").write_text(given.model_dump_json())
    worker = start_worker(tmp_path)
    worker.communicate()
    assert worker.returncode == 0
    result = Result.model_validate_json((tmp_path / "result.json").read_bytes())
    assert not result.accepted
    assert any(reason.startswith("applied") for reason in result.reasons)
    assert not (tmp_path / "candidate").exists()


def test_worker_refuses_a_changed_base(tiny_llama: Path, tmp_path: Path) -> None:
    given = snapshot(tiny_llama, tmp_path, base_sha256="0" * 64)
    (tmp_path / "snapshot.json").write_text(given.model_dump_json())
    worker = start_worker(tmp_path)
    out, _ = worker.communicate()
    assert worker.returncode == 1
    assert "not the model it was" in json.loads(out.splitlines()[-1])["message"]
    assert not (tmp_path / "result.json").exists()


def test_worker_yields_and_can_be_paused_and_killed(tiny_llama: Path, tmp_path: Path) -> None:
    long = Training(exposures=1000, batch=1, learning_rate=1e-4, top_layers=1.0, rank=4)
    given = snapshot(tiny_llama, tmp_path, training=long)
    (tmp_path / "snapshot.json").write_text(given.model_dump_json())
    worker = start_worker(tmp_path)
    assert worker.stdout is not None
    for line in worker.stdout:
        if json.loads(line)["event"] == "step":
            break
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 19
    worker.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    worker.send_signal(signal.SIGCONT)
    for line in worker.stdout:
        if json.loads(line)["event"] == "step":
            break
    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    worker.stdout.close()
    assert not (tmp_path / "result.json").exists()
