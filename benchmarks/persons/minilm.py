"""What both trainings share: the encoder, its layers, the made-up persons, and how a change of a
matrix is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

WIDTH = 384
HELD_OUT = ("29", "30")  # files of persons that nothing is taught by


def encoder(weights: Mapping[str, Tensor]) -> BertModel:
    """MiniLM-L6 with these weights, frozen."""
    config = BertConfig(
        vocab_size=30522,
        hidden_size=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        attn_implementation="eager",  # in bfloat16 the other one's way back is slow
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.load_state_dict(weights, strict=False)
    return model.requires_grad_(False)


def through(layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Tensor:
    """Hidden states (B, T, WIDTH) after these layers; `mask` (B, T) is added to the attention."""
    for layer in layers:
        out: Any = layer(hidden, mask[:, None, None, :])
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden


def by_person(kind: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The lines of the files KIND-NN.jsonl, by (NN, person), without those that are held out."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(Path(__file__).parent.glob(f"{kind}-*.jsonl")):
        if path.stem.endswith(HELD_OUT):
            continue
        for line in path.read_text("utf-8").splitlines():
            each = json.loads(line)
            found.setdefault((path.stem[-2:], each["person"]), []).append(each)
    return found


def halves(moved: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A change of a matrix as up (out, rank) · down (rank, in), its largest parts; in float16."""
    u, s, v = torch.linalg.svd(moved, full_matrices=False)
    root = s[:rank].sqrt()
    up, down = u[:, :rank] * root, root[:, None] * v[:rank]
    return up.half().contiguous(), down.half().contiguous()
