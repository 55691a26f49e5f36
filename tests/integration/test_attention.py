"""Attention by sequence and our LoRA layer, against the masked square and peft's own."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.lora.layer import Linear
from torch.nn import functional

from acclimate.adapters.attention import FILLED, attend, segments
from acclimate.adapters.base import (
    LoraShape,
    Split,
    _Lora,
    add_lora,
    load_base,
    load_lora,
    pack,
)
from acclimate.adapters.export import save_peft


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor):  # type: ignore[no-untyped-def]
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
    return seen.transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.lists(st.integers(1, 40), min_size=1, max_size=9),
    st.sampled_from([(4, 4), (6, 2), (3, 1)]),
)
def test_each_sequence_sees_the_prefix_and_itself(
    prefix: int, lengths: list[int], heads: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(1)
    size = prefix + sum(lengths)
    query, key, value = (
        torch.randn(1, n, size, 8, generator=generator).requires_grad_()
        for n in (heads[0], heads[1], heads[1])
    )
    packed = pack(prefix, lengths)
    assert packed.segments is not None
    ours = attend(query, key, value, packed.segments, 0.3)
    theirs = masked(query, key, value, packed.mask)
    assert torch.allclose(ours, theirs, atol=1e-5)
    weight = torch.randn(ours.shape, generator=generator)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), (query, key, value)),
        torch.autograd.grad((theirs * weight).sum(), (query, key, value)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


@given(st.integers(0, 5), st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_groups_hold_every_token_once_and_waste_little(prefix: int, lengths: list[int]) -> None:
    where = segments(prefix, lengths)
    places = torch.cat([torch.arange(prefix), *(group.flatten() for group in where.groups)])
    assert places[where.order].tolist() == list(range(prefix + sum(lengths)))
    for group in where.groups:
        own = [len(set(row)) for row in group.tolist()]
        assert min(own) >= FILLED * max(own)


def _randomised(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=generator) * 0.1


def test_our_layer_gives_what_pefts_gives_and_heeds_its_switches(tiny_llama: Path) -> None:
    model = add_lora(load_base(tiny_llama), LoraShape(4, 12.0, (0, 1)))
    _randomised(model)
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    assert layers and all(type(layer) is _Lora for layer in layers)
    tokens = torch.tensor([[1, 20, 30, 40]])

    def outcome() -> tuple[torch.Tensor, list[torch.Tensor]]:
        out = model(input_ids=tokens).logits
        parameters = [p for p in model.parameters() if p.requires_grad]
        return out.detach(), list(torch.autograd.grad(out.square().sum(), parameters))

    ours, our_gradients = outcome()
    with model.disable_adapter(), torch.no_grad():
        without = model(input_ids=tokens).logits
    for layer in layers:
        layer.__class__ = Linear
    theirs, their_gradients = outcome()
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert float((ours - without).abs().max()) > 1e-3
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert float((a - b).norm()) <= 1e-4 * float(b.norm())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_packed_and_split_equal_the_whole_in_both_precisions(
    tiny_llama: Path, precision: str
) -> None:
    model = add_lora(load_base(tiny_llama, precision), LoraShape(4, 8.0, (1,)))  # type: ignore[arg-type]
    _randomised(model)
    split = Split(model, 1)
    rows = [[1, 20, 30, 40, 50], [1, 20, 31], [1, 20, 30, 41, 42, 43, 44, 45]]
    assert split.check(rows)
    assert split.boundary == 1


def test_an_adapter_is_loaded_as_it_was_saved(tiny_llama: Path, tmp_path: Path) -> None:
    base = load_base(tiny_llama)
    model = add_lora(base, LoraShape(4, 8.0, (1,), ("gate_proj", "down_proj")))
    _randomised(model)
    tokens = torch.tensor([[1, 20, 30, 40]])
    with torch.no_grad():
        before = model(input_ids=tokens).logits
    save_peft(model, tmp_path)
    model.unload()
    with torch.no_grad():
        after = load_lora(base, tmp_path)(input_ids=tokens).logits
    assert torch.allclose(before, after, atol=1e-6)
