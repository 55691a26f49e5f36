"""Which layers are trained: gradients against torch's own, on tiny real models."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from acclimate.adapters import anchors, layers
from acclimate.adapters.base import MLP, LoraShape, Split, add_lora, load_base
from acclimate.adapters.export import save_peft
from acclimate.adapters.layers import Layer, change, choose, gradients, measure
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.shipped import shipped_lines
from acclimate.adapters.train import Anchor
from acclimate.adapters.training import Training

HELD = ["How do I boil an egg?", "Name a river.", "Why is the sky blue?"]


@pytest.fixture(scope="module")
def held(loaded: Any, prompt: Prompt) -> list[Anchor]:
    return anchors.make(loaded, prompt, HELD, 6)


@pytest.fixture
def general(held: list[Anchor]) -> list[Encoded]:
    return [anchor.encoded for anchor in held]


def test_sketches_keep_the_angles_of_the_gradients(base: Any) -> None:
    draw = torch.Generator().manual_seed(3)
    rows = [
        # They begin differently, so no part of them is left out.
        Encoded([5 + n, *torch.randint(3, 250, (8 + n,), generator=draw).tolist()], [0.0] * 9)
        for n in range(10)
    ]
    rows = [Encoded(row.tokens, [0.0] * 5 + [1.0] * (len(row.tokens) - 5)) for row in rows]
    ours = gradients(Split(base, 0), rows, MLP)
    for at, layer in enumerate(base.model.layers):
        weights = [getattr(layer.mlp, name).weight.requires_grad_() for name in MLP]
        theirs = []
        for row in rows:
            logits = base(input_ids=torch.tensor([row.tokens])).logits[0, 4:-1]
            loss = functional.cross_entropy(logits, torch.tensor(row.tokens[5:]), reduction="sum")
            found = torch.autograd.grad(loss, weights)
            # A LoRA's A is drawn the smaller, the more inputs there are.
            theirs.append(torch.cat([g.flatten() / g.shape[1] ** 0.5 for g in found]))
        angles = [
            functional.normalize(x, dim=-1) @ functional.normalize(x, dim=-1).T
            for x in (ours[:, at], torch.stack(theirs))
        ]
        torch.testing.assert_close(*angles, atol=0.06, rtol=0)
        sizes = [x.square().sum(-1) for x in (ours[:, at], torch.stack(theirs))]
        torch.testing.assert_close(*sizes, atol=0, rtol=0.25)


def test_every_layer_is_measured_the_same_way_twice(
    base: Any, prompt: Prompt, general: list[Encoded]
) -> None:
    state = torch.get_rng_state()
    found = measure(base, prompt, general, MLP)
    assert torch.equal(torch.get_rng_state(), state), "a round must not depend on it"
    assert len(found) == 2
    for layer in found:
        assert layer.fisher > 0 and 0 < layer.general < 1
        assert -1 <= layer.other < layer.same <= 1
        assert layer.score > 0
    assert measure(base, prompt, general, MLP) == found
    assert not any(p.requires_grad or p.grad is not None for p in base.parameters())


def test_a_layer_whose_mlp_says_nothing_has_no_score(
    base: Any, prompt: Prompt, general: list[Encoded]
) -> None:
    base.model.layers[0].mlp.register_forward_hook(lambda *given: given[-1] * 0)
    silent, other = measure(base, prompt, general, MLP)
    assert silent == Layer(0.0, 0.0, 0.0, 0.0)
    assert other.score > 0


@pytest.mark.parametrize(
    ("scores", "layer"),
    [
        ([0.1, 0.1, 0.5, 0.6], 2),
        ([0.5, 0.2, 0.2, 0.8, 0.8, 0.4], 3),  # up to the top, though that is below the mean
        ([0.2, 0.2, 0.2, 0.9], 3),
        ([0.6, 0.5, 0.2, 0.1], None),
        ([0.3, 0.3, 0.3], None),
        ([0.3], None),
    ],
)
def test_the_boundary_is_where_the_scores_rise(scores: list[float], layer: int | None) -> None:
    assert change(scores) == layer


def test_scores_are_measured_once_for_each_base(
    base: Any, prompt: Prompt, held: list[Anchor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (Training(), base, prompt, held, held, tmp_path / "anchors")
    first = choose(*given, "a" * 64)
    assert first.boundary == 1 and len(first.scores) == 2
    (file,) = (tmp_path / "anchors").iterdir()
    measured = []
    monkeypatch.setattr(layers, "measure", lambda *x: measured.append(1) or measure(*x))
    assert choose(*given, "a" * 64) == first and not measured
    file.write_bytes(file.read_bytes()[:-5])
    assert choose(*given, "a" * 64) == first and len(measured) == 1
    assert choose(*given, "b" * 64) == first and len(measured) == 2


def test_the_measured_boundary_counts(
    base: Any, prompt: Prompt, held: list[Anchor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*scores: float) -> Any:
        found = [Layer(score, 0.0, 0.0, 1.0) for score in scores]
        monkeypatch.setattr(layers, "measured_once", lambda *_: found)
        return choose(Training(), base, prompt, held, held, tmp_path, "a")

    assert told(0.1, 0.7) == layers.Choice(1, "measured", [0.1, 0.7])
    assert told(0.7, 0.1).how.startswith("a third")


def test_a_share_set_by_hand_is_not_measured(
    base: Any, prompt: Prompt, held: list[Anchor], tmp_path: Path
) -> None:
    for share, boundary in ((1.0, 0), (0.5, 1), (0.01, 1)):
        training = Training(top_layers=share)
        chosen = choose(training, base, prompt, held, held, tmp_path, "a" * 64)
        assert chosen == layers.Choice(boundary, "set by hand", [])
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_measured_gets_a_third(
    base: Any, prompt: Prompt, held: list[Anchor], tmp_path: Path
) -> None:
    unknown = Training(modules=("gate_up_proj",))
    chosen = choose(unknown, base, prompt, held, held, tmp_path, "a" * 64)
    assert chosen.boundary == 1 and not chosen.scores
    assert "a third" in chosen.how and "layer 0 has no gate_up_proj" in chosen.how
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight.fill_(float("nan"))
    chosen = choose(Training(), base, prompt, held, held, tmp_path, "a" * 64)
    assert chosen.boundary == 1 and "a third" in chosen.how
    assert not list(tmp_path.iterdir())


def test_an_adapter_keeps_its_parents_layers(
    base: Any, prompt: Prompt, held: list[Anchor], tmp_path: Path
) -> None:
    low, top = tmp_path / "low", tmp_path / "top"
    for folder, covered in ((low, (0, 1)), (top, (1,))):
        folder.mkdir()
        save_peft(add_lora(copy.deepcopy(base), LoraShape(4, 8.0, covered, MLP)), folder)
    given = (Training(), base, prompt, held, held, tmp_path / "anchors", "a" * 64)
    alone = choose(*given)
    assert choose(*given, top) == alone
    below = choose(*given, low)
    assert below.boundary == 0 and "as its parent" in below.how and below.scores == alone.scores
    assert json.loads((low / "adapter_config.json").read_text())["layers_to_transform"] == [0, 1]


@pytest.mark.slow
def test_the_default_model_is_trained_on_its_top_third(real_models: Path) -> None:
    path = next(real_models.glob("*mol*.gguf"))
    base, prompt = load_base(path), Prompt.from_gguf(path)
    made = anchors.make(base, prompt, shipped_lines("short_prompts")[:8], 8)
    found = measure(base, prompt, [anchor.encoded for anchor in made], MLP)
    assert len(found) == 30
    assert change([layer.score for layer in found]) in (19, 20, 21)
