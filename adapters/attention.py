"""Attention of packed rows, sequence by sequence.

Of a packed row every token sees the prefix and its own sequence, so most of the row's square of
scores is masked. Here each sequence is attended to on its own, those of like length together.
Knows layouts and tensors; no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "acclimate_packed"
FILLED = 0.6  # a group's sequences are at least this share of its longest


@dataclass(frozen=True)
class Segments:
    """Where the sequences of a packed row stand: `prefix` tokens first, then G groups.

    `groups[g]` (S, L): for each sequence of the group the places of its tokens in the row, its last
    one repeated up to the group's length. `order` (N,): where each token of the row stands in what
    the groups give, one after the other behind the prefix.
    """

    prefix: int
    groups: tuple[Tensor, ...]
    order: Tensor


def segments(prefix: int, lengths: Sequence[int]) -> Segments:
    """The layout of one prefix and sequences of `lengths` further tokens each, one at least."""
    starts = [prefix + sum(lengths[:n]) for n in range(len(lengths))]
    groups: list[list[int]] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if groups and lengths[n] >= FILLED * lengths[groups[-1][0]]:
            groups[-1].append(n)
        else:
            groups.append([n])
    order = torch.arange(prefix + sum(lengths))
    places, at = [], prefix
    for group in groups:
        longest = lengths[group[0]]
        for row, n in enumerate(group):
            first = at + row * longest
            order[starts[n] : starts[n] + lengths[n]] = torch.arange(first, first + lengths[n])
        rows = [[starts[n] + min(t, lengths[n] - 1) for t in range(longest)] for n in group]
        places.append(torch.tensor(rows))
        at += longest * len(group)
    return Segments(prefix, tuple(places), order)


def attend(query: Tensor, key: Tensor, value: Tensor, where: Segments, scale: float) -> Tensor:
    """Query (1, H, N, d), key and value (1, K, N, d), H a multiple of K → (1, N, H, d)."""
    repeats = query.shape[1] // key.shape[1]
    query, key, value = query[0], repeat_kv(key, repeats)[0], repeat_kv(value, repeats)[0]
    heads, _, width = query.shape
    prefix = where.prefix
    out = []
    if prefix:
        q, k, v = (x[None, :, :prefix] for x in (query, key, value))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        out.append(seen[0].transpose(0, 1))
    for places in where.groups:
        count, length = places.shape
        flat = places.flatten()
        q, k, v = (
            x.index_select(1, flat).view(heads, count, length, width).transpose(0, 1)
            for x in (query, key, value)
        )
        # What repeats a sequence's last token stands behind all of it, where nothing looks.
        mask = torch.ones(length, prefix + length, dtype=torch.bool).tril(prefix)
        if prefix:
            k, v = (
                torch.cat([x[None, :, :prefix].expand(count, -1, -1, -1), y], 2)
                for x, y in ((key, k), (value, v))
            )
        seen = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask[None, None], scale=scale
        )
        out.append(seen.transpose(1, 2).reshape(count * length, heads, width))
    return torch.cat(out).index_select(0, where.order)[None]


def forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packed_segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """As transformers calls it; rows without a layout go to its own attention."""
    if packed_segments is None:
        out: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, key, value, packed_segments, scale), None


AttentionInterface.register(NAME, forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
