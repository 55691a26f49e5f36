"""The optimisation of one round: cross-entropy on examples plus KL to the base on anchors.

Knows tensors and a recipe; reads no files and decides nothing about acceptance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from peft import PeftModel

from acclimate.adapters.base import Activations, Split, head
from acclimate.adapters.losses import (
    Part,
    Teacher,
    completion_nll,
    kl_to_teacher,
    per_sequence,
)
from acclimate.adapters.prompt import Encoded

KL_START = 0.125  # the first step's share of the full weight of KL
# Of the tokens that a step does not ask for, how many stand for all of them in its softmax.
SAMPLED_TOKENS = 4096


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a round; `docs/learning.md` has the measurements behind them.

    `exposures`: how often each example is seen, in one of its wordings. `batch`, `anchor_batch`
    and `short_anchor_batch` count sequences per step. λ rises to `kl_weight`: first the new is
    learned, then the rest is put back in its place. Rates are AdamW's.
    """

    exposures: int = 24
    batch: int = 8
    anchor_batch: int = 5
    short_anchor_batch: int = 4
    learning_rate: float = 5e-3
    kl_weight: float = 20.0
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0


@dataclass
class Lesson:
    """One example as training sees it: the same answer under several wordings of its question.

    It is seen in every `every`-th epoch only: what is rehearsed needs less than what is new.
    """

    example_id: int
    wordings: list[Encoded]
    every: int = 1


@dataclass
class Anchor:
    """General text by the base itself, with the base's own distribution on its completion."""

    encoded: Encoded
    teacher: Teacher


@dataclass
class Trace:
    """What happened: one row a logging interval, and totals."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


class Diverged(ValueError):
    """The loss or a gradient is no longer finite."""


def train(
    model: PeftModel,
    split: Split,
    lessons: Sequence[Lesson],
    anchors: Sequence[Anchor],
    short_anchors: Sequence[Anchor],
    recipe: Recipe,
    report: Callable[[int, int, dict[str, float]], None] = lambda *_: None,
) -> Trace:
    """Trains the adapter on `model` in place.

    `report(step, steps, {"loss", "ce", "kl"})` is called after every step. Raises Diverged when a
    loss or gradient is not finite; the caller then drops the round.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    began = time.monotonic()
    # The exact wording stands several times among a fact's; it is computed once.
    rows = list({id(w): w for lesson in lessons for w in lesson.wordings}.values())
    place = {id(row): n for n, row in enumerate(rows)}
    cache = Activations(split, rows)
    all_anchors = [*anchors, *short_anchors]
    anchor_cache = Activations(split, [a.encoded for a in all_anchors])
    vocabulary = head(model).out_features
    long_turns = _in_turn(len(anchors), recipe.anchor_batch, generator)
    short_turns = _in_turn(len(short_anchors), recipe.short_anchor_batch, generator)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trainable, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    every = [min(lesson.every, recipe.exposures) for lesson in lessons]
    epochs = [
        [i for i in range(len(lessons)) if (epoch + i) % every[i] == 0]
        for epoch in range(recipe.exposures)
    ]
    # Each lesson walks through its own wordings in a shuffled order, so all are seen equally often.
    turns = [torch.randperm(len(x.wordings), generator=generator).tolist() for x in lessons]
    schedule = [
        (epoch, part)
        for epoch, members in enumerate(epochs)
        for part in _batches(members, recipe.batch, generator)
    ]
    steps = len(schedule)
    trace = Trace(steps=steps)
    for step, (epoch, picked) in enumerate(schedule):
        shown = [lessons[i].wordings[turns[i][epoch // every[i] % len(turns[i])]] for i in picked]
        indices = [place[id(w)] for w in shown]
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, steps, recipe.warmup)
        batch = cache.batch(indices)
        chosen = next(long_turns) + [len(anchors) + i for i in next(short_turns)]
        teacher = Teacher.joined([all_anchors[i].teacher for i in chosen])
        needed = torch.cat([batch.target, teacher.ids.flatten().long()])
        part = Part.around(needed, vocabulary, SAMPLED_TOKENS, generator)
        nll = completion_nll(batch.logits(split, part), part.place(batch.target))
        ce = per_sequence(nll, batch.owner)
        ce.backward()
        kl_value = 0.0
        kl_weight = recipe.kl_weight * (KL_START + (1 - KL_START) * step / steps)
        if chosen and kl_weight > 0:
            logits = anchor_cache.batch(chosen).logits(split, part)
            kl = kl_to_teacher(logits, replace(teacher, ids=part.place(teacher.ids))).mean()
            (kl_weight * kl).backward()
            kl_value = float(kl.detach())
        norm = torch.nn.utils.clip_grad_norm_(trainable, recipe.clip)
        ce_value = float(ce.detach())
        loss = ce_value + kl_weight * kl_value
        if not (math.isfinite(loss) and bool(torch.isfinite(norm))):
            raise Diverged(f"loss {loss} at step {step + 1} of {steps}")
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        trace.tokens += sum(len(w.tokens) for w in shown)
        values = {"loss": loss, "ce": ce_value, "kl": kl_value}
        trace.rows.append(values)
        report(step + 1, steps, values)
    trace.seconds = time.monotonic() - began
    return trace


def _batches(members: list[int], size: int, generator: torch.Generator) -> list[list[int]]:
    """Shuffled members in batches of nearly equal size, none larger than `size`."""
    order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
    count = math.ceil(len(order) / size)
    return [order[n * len(order) // count : (n + 1) * len(order) // count] for n in range(count)]


def _in_turn(size: int, count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """`count` of `size` indices at a time, in an order that changes when all had their turn."""
    while True:
        order = torch.randperm(size, generator=generator).tolist()
        yield from (order[n : n + count] for n in range(0, max(1, size - count + 1), count or 1))


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to zero; a factor of the peak rate."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
