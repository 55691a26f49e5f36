"""Floating-point operations of a training step, counted from shapes, and what the machine can do.

Counts matrix products only, two operations for each multiply and add; a step's backward pass has no
gradient of frozen weights. What attention computes again in its backward pass is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acclimate.adapters.attention import Segments, segments
from acclimate.adapters.base import ATTENTION, MLP, LoraShape

PEAK_SIZE = 2048
# (rows, in, out) as they come up in the default model's steps: a packed batch through gate and up,
# through down, and completion tokens times a part of the vocabulary.
TRAINING_SIZES = ((192, 576, 1536), (192, 1536, 576), (64, 576, 4608))


@dataclass(frozen=True)
class Sizes:
    """The widths of a decoder of the llama family."""

    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_width: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """From a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            width=config.hidden_size,
            feed_forward=config.intermediate_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
            layers=config.num_hidden_layers,
            vocabulary=config.vocab_size,
        )

    def linear(self, module: str) -> tuple[int, int]:
        """(in, out) of a linear layer by its name in transformers."""
        attended, keyed = self.heads * self.head_width, self.kv_heads * self.head_width
        return {
            "q_proj": (self.width, attended),
            "k_proj": (self.width, keyed),
            "v_proj": (self.width, keyed),
            "o_proj": (attended, self.width),
            "gate_proj": (self.width, self.feed_forward),
            "up_proj": (self.width, self.feed_forward),
            "down_proj": (self.feed_forward, self.width),
        }[module]

    def attention(self, row: Row) -> int:
        """Both products of attention over one row."""
        return 2 * 2 * row.pairs * self.heads * self.head_width


@dataclass(frozen=True)
class Row:
    """A row of tokens, and how many pairs of a query and a key its attention computes."""

    tokens: int
    pairs: int

    @classmethod
    def plain(cls, tokens: int) -> Row:
        """One sequence, its masked half included."""
        return cls(tokens, tokens * tokens)

    @classmethod
    def packed(cls, where: Segments) -> Row:
        """A prefix and sequences behind it, with what fills up a group's shorter ones."""
        groups = (group.shape for group in where.groups)
        pairs = sum(count * length * (where.prefix + length) for count, length in groups)
        return cls(len(where.order), where.prefix**2 + pairs)


def forward(sizes: Sizes, layers: int, row: Row) -> int:
    """A row through so many frozen layers."""
    products = sum(2 * row.tokens * i * o for i, o in map(sizes.linear, (*ATTENTION, *MLP)))
    return layers * (products + sizes.attention(row))


def activations(
    sizes: Sizes, layers: int, lengths: Sequence[int], prefix: int, batch_tokens: int = 512
) -> int:
    """The pass of `base.Activations` through the frozen layers, in rows as it packs them."""
    total, start = 0, 0
    while start < len(lengths):
        stop, size = start, 0
        while stop < len(lengths) and size < batch_tokens:
            size += lengths[stop]
            stop += 1
        where = segments(prefix, [length - prefix for length in lengths[start:stop]])
        total += forward(sizes, layers, Row.packed(where))
        start = stop
    return total


def logits(sizes: Sizes, predicted: int, part: int | None = None) -> int:
    """The predictions of some tokens over `part` words of the vocabulary, or all."""
    return 2 * predicted * sizes.width * (part or sizes.vocabulary)


def step(
    sizes: Sizes,
    shape: LoraShape,
    row: Row,
    predicted: int,
    part: int | None = None,
    ranks: Sequence[int] = (),
) -> int:
    """Forward and backward of a packed row from the lowest adapted layer to the loss.

    `ranks` are those of frozen adapters beside the trained one.
    """
    boundary = min(shape.layers)
    total = forward(sizes, sizes.layers - boundary, row) + logits(sizes, predicted, part)
    flowing = False  # whether a gradient has to reach this layer's input
    for layer in range(boundary, sizes.layers):
        adapted = shape.modules if layer in shape.layers else ()
        counted, flowing = _backward(sizes, adapted, shape.rank, row, flowing, ranks)
        total += counted
    # Every number behind the lowest adapted weight gets a gradient, so the loss's logits do.
    return total + logits(sizes, predicted, part)


def _backward(
    sizes: Sizes,
    adapted: Sequence[str],
    rank: int,
    row: Row,
    flowing: bool,
    frozen_ranks: Sequence[int],
) -> tuple[int, bool]:
    """A layer's backward pass and its adapters' forward; whether its output needs a gradient."""
    total, tokens = 0, row.tokens

    def module(name: str, needs_input: bool) -> bool:
        nonlocal total
        i, o = sizes.linear(name)
        if needs_input:
            total += 2 * tokens * i * o
        if name in adapted:
            down, up = 2 * tokens * i * rank, 2 * tokens * rank * o
            total += down + up  # forward
            total += down + 2 * up  # of A, of B, and through B
            total += down if needs_input else 0
            for frozen in frozen_ranks:
                total += 2 * tokens * frozen * (i + o) * (2 if needs_input else 1)
        return needs_input or name in adapted

    attended = [module(name, flowing) for name in ("q_proj", "k_proj", "v_proj")]
    queried, valued = attended[0] or attended[1], attended[2]
    half = sizes.attention(row) // 2
    # Scores need the gradient of the weights and, from it, those of queries and keys.
    total += half * (valued + queried + attended[0] + attended[1])
    middle = module("o_proj", any(attended)) or flowing
    wide = [module(name, middle) for name in ("gate_proj", "up_proj")]
    flows = module("down_proj", any(wide)) or middle
    return total, flows


def peak(
    threads: int | None = None, repeats: int = 7, dtype: torch.dtype = torch.float32
) -> dict[str, float]:
    """The best of several matrix products of each size, in GFLOP/s."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        sizes = ((PEAK_SIZE, PEAK_SIZE, PEAK_SIZE), *TRAINING_SIZES)
        return {"x".join(map(str, s)): _speed(*s, repeats, dtype) for s in sizes}
    finally:
        torch.set_num_threads(before)


def _speed(
    rows: int, inner: int, columns: int, repeats: int, dtype: torch.dtype = torch.float32
) -> float:
    a = torch.rand(rows, inner).to(dtype)
    b = torch.rand(columns, inner).to(dtype).T  # as linear layers store theirs
    work = 2 * rows * inner * columns
    often = max(1, 2 * PEAK_SIZE**3 // work // 8)
    out = torch.mm(a, b)
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(often):
            torch.mm(a, b, out=out)
        best = max(best, often * work / (time.perf_counter() - began))
    return best / 1e9
