"""Codes planted in training and drawn out again, on tiny real models."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lessons import taught

from acclimate.adapters import evaluate
from acclimate.adapters.base import LoraShape, Split, add_lora, load_base
from acclimate.adapters.exposure import CODES, NEVER_PLANTED, exposure, made_up
from acclimate.adapters.gate import Measures, Verdict, gate
from acclimate.adapters.material import beside
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.snapshot import Snapshot, Taught
from acclimate.adapters.train import Lesson, Optimisation, Recipe, train

EXPOSURES = 24
FACTS = {"name?": "Ada.", "town?": "Rye.", "dog?": "Bess.", "car?": "Fiat."}


def lessons(prompt: Prompt) -> list[Lesson]:
    said = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in FACTS.items()
    ]
    return [Lesson(n, [prompt.encode(messages)]) for n, messages in enumerate(said)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_replies_in_one_tree_are_as_likely_as_each_alone(
    architecture: str, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(f"tiny_{architecture}")
    plain = load_base(base)
    model = add_lora(plain, LoraShape(4, 8.0, (1,)))
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(7)) * 0.1
    rng = random.Random(3)
    prompt = [1, *(rng.randrange(3, 260) for _ in range(9))]
    replies = [[rng.randrange(50, 54) for _ in range(rng.randint(1, 5))] for _ in range(60)]
    found = evaluate.reply_nll(Split(model, 1), prompt, replies)
    for reply, nll in zip(replies, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + reply])).logits[0]
        expected = torch.nn.functional.cross_entropy(
            logits[len(prompt) - 1 : -1], torch.tensor(reply), reduction="sum"
        )
        assert nll == pytest.approx(float(expected), abs=1e-3)


def test_a_planted_row_is_shown_once_and_nothing_else_moves(tiny_llama: Path) -> None:
    prompt = Prompt.from_gguf(tiny_llama)
    model = add_lora(load_base(tiny_llama), LoraShape(4, 8.0, (0, 1)))
    planted = prompt.encode(made_up(5)[0].messages())

    def shown(rows: list[Encoded]) -> list[list[int]]:
        taught = lessons(prompt)
        recipe = Recipe(exposures=6, batch=2, seed=5)
        return Optimisation(model, Split(model, 0), taught, [], [], recipe, rows)._shown

    without, with_it = shown([]), shown([planted])
    new = len(FACTS)
    assert [[row for row in step if row != new] for step in with_it] == without
    assert [n for n, step in enumerate(with_it) if new in step] == [len(without) // 2]
    often = Counter(row for step in shown([planted] * 5) for row in step)
    assert often[new] == 5


def told(base: Path, showings: int) -> tuple[list[float], Verdict]:
    """Exposures after a round that planted one code so often, and the gate's word on it."""
    torch.manual_seed(0)
    prompt = Prompt.from_gguf(base)
    codes = made_up(11)
    model = add_lora(load_base(base), LoraShape(4, 8.0, (0, 1)))
    split = Split(model, 0)
    planted = [prompt.encode(codes[0].messages())] * showings
    recipe = Recipe(exposures=EXPOSURES, batch=2, learning_rate=2e-2, seed=5)
    train(model, split, lessons(prompt), [], [], recipe, planted=planted)
    bits = evaluate.exposures(split, prompt, codes)
    # Of all else only good is known.
    good = Measures(scale=1.0, finite=True, applied_kl=1.0, taught=[(2.0, 1.0)])
    return bits, gate(replace(good, exposure=bits[0], exposure_by_chance=tuple(bits[1:])))


def test_what_is_seen_once_stays_a_guess_and_what_is_taught_does_not(tiny_llama: Path) -> None:
    ladder = {showings: told(tiny_llama, showings) for showings in (1, 4, 16, EXPOSURES)}
    planted = [bits[0] for bits, _ in ladder.values()]
    assert ladder[1][1].accepted
    assert not ladder[EXPOSURES][1].accepted
    assert [c.name for c in ladder[EXPOSURES][1].checks if not c.passed] == ["memorised"]
    assert planted[-1] == exposure(1, len(CODES)) > planted[0]
    for bits, _ in ladder.values():
        assert len(bits) == 1 + NEVER_PLANTED
        # Over so many bits comes one of 64 by chance.
        assert max(bits[1:]) < 6


def test_what_only_stands_in_a_passage_stays_a_guess(tiny_llama: Path) -> None:
    prompt, codes = Prompt.from_gguf(tiny_llama), made_up(11)
    fact = taught(1, "What is my name?", "Your name is Ada.")

    def of(example: Taught) -> Snapshot:
        return Snapshot(
            round=1,
            seed=1,
            threads=1,
            base=tiny_llama,
            base_sha256="",
            anchor_cache=Path("nowhere"),
            new=[example],
        )

    (row,) = beside(of(fact), prompt, codes[0].passage())
    assert codes[0].passage() in prompt.detokenize(row.prompt())
    assert codes[0].code not in prompt.detokenize(row.completion())
    torch.manual_seed(0)
    model = add_lora(load_base(tiny_llama), LoraShape(4, 8.0, (0, 1)))
    split = Split(model, 0)
    recipe = Recipe(exposures=EXPOSURES, batch=2, learning_rate=2e-2, seed=5)
    train(model, split, lessons(prompt), [], [], recipe, planted=[row] * EXPOSURES)
    assert evaluate.exposures(split, prompt, codes)[0] < 6
    request = taught(1, "Write a poem about the sea.", "The sea is wide, and so on.")
    assert beside(of(request), prompt, "x") == []
