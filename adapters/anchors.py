"""Anchors: general text by the base itself, the fixed point against forgetting.

Made once for each base model and kept in a cache that is bound to the model's hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.adapters.base import Activations, Split
from acclimate.adapters.losses import Teacher
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import Anchor
from acclimate.store.files import fsync_dir

FORMAT = 1
TOP_K = 64
REPLY_TOKENS = 48


def shipped_prompts(name: str) -> list[str]:
    """The prompts of `adapters/data/<name>.txt`, one a line."""
    text = resources.files("acclimate.adapters").joinpath(f"data/{name}.txt").read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end_ids: frozenset[int],
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 80,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[list[int]]:
    """Replies (tokens, with the end token where one came) to prompts of token ids.

    Prompts of a batch are padded on the left. `temperature` 0 is greedy.
    """
    generator = torch.Generator().manual_seed(seed)
    replies: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(prompts[i]) for i in part)
        tokens = torch.tensor([[0] * (width - len(prompts[i])) + list(prompts[i]) for i in part])
        seen = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in part])
        position = (seen.cumsum(-1) - 1).clamp_min(0)
        past = None
        alive = [True] * len(part)
        for _ in range(max_tokens):
            out = model(
                input_ids=tokens,
                attention_mask=seen,
                position_ids=position,
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
            past = out.past_key_values
            logits = out.logits[:, -1]
            if temperature > 0:
                odds = torch.softmax(logits / temperature, dim=-1)
                tokens = torch.multinomial(odds, 1, generator=generator)
            else:
                tokens = logits.argmax(-1, keepdim=True)
            for b, token in enumerate(tokens[:, 0].tolist()):
                if alive[b]:
                    replies[part[b]].append(token)
                    alive[b] = token not in end_ids
            if not any(alive):
                break
            seen = torch.cat([seen, seen.new_ones(len(part), 1)], dim=1)
            position = position[:, -1:] + 1
        report(start + len(part), len(order))
    return replies


def make(
    model: torch.nn.Module,
    prompt: Prompt,
    prompts: Sequence[str],
    *,
    temperature: float,
    seed: int,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Anchor]:
    """The base's own replies to the prompts, each with its teacher distribution."""
    asked = [prompt.encode_prompt([{"role": "user", "content": text}]) for text in prompts]
    replies = generate(
        model,
        asked,
        max_tokens=REPLY_TOKENS,
        end_ids=prompt.end_ids,
        temperature=temperature,
        seed=seed,
        report=report,
    )
    rows = [
        Encoded(a + r, [0] * len(a) + [1] * len(r)) for a, r in zip(asked, replies, strict=True)
    ]
    split = Split(model, 0)
    cache = Activations(split, rows)
    anchors: list[Anchor] = []
    with torch.no_grad():
        for start in range(0, len(rows), 8):
            part = range(start, min(start + 8, len(rows)))
            batch = cache.batch(part)
            logits = batch.logits(split)
            for n, i in enumerate(part):
                teacher = Teacher.from_logits(logits[batch.owner == n], TOP_K)
                anchors.append(Anchor(rows[i], teacher))
    return anchors


def cache_key(base_sha256: str, prompts: Sequence[str], temperature: float, seed: int) -> str:
    """Names everything that the cached anchors depend on."""
    what = [FORMAT, TOP_K, REPLY_TOKENS, base_sha256, list(prompts), temperature, seed]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def save(path: Path, anchors: Sequence[Anchor], key: str) -> None:
    """Writes the cache through a temporary file; a torn one is never read."""
    tensors: dict[str, Tensor] = {
        "tokens": torch.tensor([t for a in anchors for t in a.encoded.tokens], dtype=torch.int32),
        "mask": torch.tensor([m for a in anchors for m in a.encoded.mask], dtype=torch.uint8),
        "lengths": torch.tensor([len(a.encoded.tokens) for a in anchors], dtype=torch.int32),
        "ids": torch.cat([a.teacher.ids for a in anchors]),
        "logp": torch.cat([a.teacher.logp for a in anchors]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, str(temporary), metadata={"key": key})
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_dir(path.parent)


def load(path: Path, key: str) -> list[Anchor] | None:
    """The cached anchors, or None when there are none for exactly this key."""
    try:
        with safe_open(str(path), "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
        tensors = load_file(str(path))
        tokens, mask = tensors["tokens"].tolist(), tensors["mask"].tolist()
        anchors, at, taught_at = [], 0, 0
        for length in tensors["lengths"].tolist():
            row = Encoded(tokens[at : at + length], mask[at : at + length])
            n = sum(row.mask)
            part = slice(taught_at, taught_at + n)
            anchors.append(Anchor(row, Teacher(tensors["ids"][part], tensors["logp"][part])))
            at, taught_at = at + length, taught_at + n
    except (OSError, KeyError, SafetensorError):
        return None
    return anchors
