"""Anchors: general text by the base itself, the fixed point against forgetting.

Made once for each base model and kept in a cache that is bound to the model's hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.adapters.base import Activations, Split, common_prefix
from acclimate.adapters.losses import Teacher
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import Anchor
from acclimate.store.files import fsync_dir

FORMAT = 3
TOP_K = 64
REPLY_TOKENS = 48
SHORT_REPLY_TOKENS = 16
# From how many exchanges in one form it can be said how close to each other they are.
FORM_FROM = 4
MOST_DISPUTED = 0.1  # of the anchors


@dataclass
class Reply:
    """What a model said: its tokens (the end token too, where one came) and what it expected."""

    tokens: list[int]
    teacher: Teacher


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    end_ids: frozenset[int],
    top_k: int = 1,
    batch: int = 160,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Reply]:
    """Greedy replies to prompts of token ids, each with the `top_k` likeliest at every place.

    What all prompts begin with is computed once; the rest of a batch's prompts is padded on the
    left.
    """
    replies: dict[int, Reply] = {}
    prefix = common_prefix(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        rest = [list(prompts[i][prefix:]) for i in part]
        width = max(map(len, rest))
        tokens = torch.tensor([[0] * (width - len(row)) + row for row in rest])
        seen = torch.tensor(
            [[1] * prefix + [0] * (width - len(row)) + [1] * len(row) for row in rest]
        )
        position = (seen.cumsum(-1) - 1)[:, prefix:]
        past = None
        if prefix:
            shared = torch.tensor([list(prompts[part[0]][:prefix])])
            past = model(input_ids=shared, use_cache=True, logits_to_keep=1).past_key_values
            past.batch_repeat_interleave(len(part))
        alive = [True] * len(part)
        said: list[list[int]] = [[] for _ in part]
        expected: list[Teacher] = []
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
            step = Teacher.from_logits(out.logits[:, -1], top_k)
            expected.append(step)
            tokens = step.ids[:, :1].long()
            for b, token in enumerate(tokens[:, 0].tolist()):
                if alive[b]:
                    said[b].append(token)
                    alive[b] = token not in end_ids
            if not any(alive):
                break
            seen = torch.cat([seen, seen.new_ones(len(part), 1)], dim=1)
            position = position[:, -1:] + 1
        ids = torch.stack([step.ids for step in expected])
        logp = torch.stack([step.logp for step in expected])
        for b, i in enumerate(part):
            length = len(said[b])
            teacher = Teacher(ids[:length, b].clone(), logp[:length, b].clone())
            replies[i] = Reply(said[b], teacher)
        report(start + len(part), len(order))
    return [replies[i] for i in range(len(prompts))]


def make(
    model: torch.nn.Module,
    prompt: Prompt,
    prompts: Sequence[str],
    max_tokens: int,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Anchor]:
    """The base's own replies to the prompts, each with its teacher distribution."""
    asked = [prompt.encode_prompt([{"role": "user", "content": text}]) for text in prompts]
    replies = generate(
        model,
        asked,
        max_tokens=max_tokens,
        end_ids=prompt.end_ids,
        top_k=TOP_K,
        report=report,
    )
    return [
        Anchor(Encoded(a + r.tokens, [0.0] * len(a) + [1.0] * len(r.tokens)), r.teacher)
        for a, r in zip(asked, replies, strict=True)
    ]


def undisputed(anchors: Sequence[Anchor], near: Sequence[float]) -> list[Anchor]:
    """The anchors without those that ask for what the person has taught another way to answer.

    `near` has the `likeness` of each: one as close to a taught request as these are to each other
    would teach the base's form back for the very requests that the person's form is meant for. At
    most a tenth is left out.
    """
    most = sorted(near, reverse=True)[int(len(anchors) * MOST_DISPUTED)] if anchors else 0.0
    return [a for a, value in zip(anchors, near, strict=True) if value < 0 or value <= most]


def likeness(
    split: Split, taught: Sequence[Encoded], prompts: Sequence[Sequence[int]]
) -> list[float]:
    """How close each prompt is to the nearest of the taught exchanges' prompts, from where on it is
    as close as these are to each other: (cosine) − (median of their nearest), by mean boundary
    activations, centred on all. −1 throughout where too few are taught.
    """
    if len(taught) < FORM_FROM or not prompts:
        return [-1.0] * len(prompts)
    asked = [*(row.prompt() for row in taught), *map(list, prompts)]
    known = Activations(split, [Encoded(tokens, [0.0] * len(tokens)) for tokens in asked])
    pooled = torch.stack([hidden.mean(0) for hidden in known.hidden])
    others = pooled[len(taught) :]
    pooled = torch.nn.functional.normalize((pooled - others.mean(0)) / others.std(0), dim=-1)
    mine, theirs = pooled[: len(taught)], pooled[len(taught) :]
    alike = (mine @ mine.T).fill_diagonal_(-1.0).max(1).values.median()
    return [float(x) for x in (theirs @ mine.T).max(1).values - alike]


def made_once(
    model: torch.nn.Module,
    prompt: Prompt,
    prompts: Sequence[str],
    max_tokens: int,
    cache: Path,
    base_sha256: str,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[Anchor]:
    """As `make`, from the folder `cache` where these are there already."""
    key = cache_key(base_sha256, prompts, max_tokens)
    path = cache / f"anchors-{key[:16]}.safetensors"
    found = load(path, key)
    if found is None:
        found = make(model, prompt, prompts, max_tokens, report)
        save(path, found, key)
    return found


def cache_key(base_sha256: str, prompts: Sequence[str], max_tokens: int) -> str:
    """Names everything that the cached anchors depend on."""
    what = [FORMAT, TOP_K, max_tokens, base_sha256, list(prompts)]
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
        tokens, mask = tensors["tokens"].tolist(), tensors["mask"].float().tolist()
        anchors, at, taught_at = [], 0, 0
        for length in tensors["lengths"].tolist():
            row = Encoded(tokens[at : at + length], mask[at : at + length])
            n = len(row.completion())
            part = slice(taught_at, taught_at + n)
            anchors.append(Anchor(row, Teacher(tensors["ids"][part], tensors["logp"][part])))
            at, taught_at = at + length, taught_at + n
    except (OSError, KeyError, SafetensorError):
        return None
    return anchors
