"""What both trainings share: the encoder, its layers, the made-up persons, and how a change of a
matrix is kept."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

WIDTH = 384
WARM_UP = 15  # steps
REPORTED = 60.0  # seconds from one line to the next
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


def by_person(kind: str, *, held_out: bool = False) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The lines of the files KIND-NN.jsonl, by (NN, person): of those to teach by, or of the
    others."""
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for path in sorted(Path(__file__).parent.glob(f"{kind}-*.jsonl")):
        if path.stem.endswith(HELD_OUT) != held_out:
            continue
        for line in path.read_text("utf-8").splitlines():
            each = json.loads(line)
            found.setdefault((path.stem[-2:], each["person"]), []).append(each)
    return found


def steps(optimizer: torch.optim.Optimizer, minutes: float) -> Iterator[dict[str, float]]:
    """A step of training each, until the time is over: rates warm up and fall as a cosine does.

    Prints the means of what each step puts into its dictionary as it goes.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    began, said, step = time.monotonic(), 0.0, 0
    told: list[dict[str, float]] = []
    while (spent := time.monotonic() - began) < 60 * minutes:
        step += 1
        part = spent / (60 * minutes)
        share = min(1, step / WARM_UP) * (1 + math.cos(math.pi * part)) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        told.append({})
        yield told[-1]
        if spent - said > REPORTED:
            means = (f"{name} {sum(t[name] for t in told) / len(told):.4f}" for name in told[0])
            print(f"{spent:.0f} s, step {step}: {', '.join(means)}", flush=True)
            said, told = spent, []


def halves(moved: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A change of a matrix as up (out, rank) · down (rank, in), its largest parts; in float16."""
    u, s, v = torch.linalg.svd(moved, full_matrices=False)
    root = s[:rank].sqrt()
    up, down = u[:, :rank] * root, root[:, None] * v[:rank]
    return up.half().contiguous(), down.half().contiguous()
