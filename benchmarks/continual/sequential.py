"""Plain sequential LoRA: the loop that every baseline of the benchmark shares.

Batches, packing, schedule, clipping and warm-up are our own round's; what a method adds stands in
its hooks. Knows neither persons nor measurements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import transformers
from peft.tuners.lora import LoraLayer
from torch import Tensor

from acclimate.adapters.base import Activations, Batch, LoraShape, Split, add_lora, head
from acclimate.adapters.losses import Part, completion_nll, per_sequence
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.train import (
    SAMPLED_TOKENS,
    Diverged,
    Lesson,
    Recipe,
    _batches,
    _rate,
    _schedule,
    rows_of,
)
from acclimate.adapters.training import Training
from continual import flops

RECIPE = Recipe(least_steps=Training().least_steps)  # ours


@dataclass(frozen=True)
class Spent:
    """What one round cost. `tokens` are all that were trained, replayed ones included."""

    seconds: float
    steps: int
    tokens: int
    flops: float | None


class Sequential:
    """One adapter, trained on each round's lessons in turn, starting from where it was.

    `base` is changed in place until `close`. `sampled_tokens` stand for the rest of the vocabulary
    in a softmax, as in our rounds; None takes all of it.
    """

    name = "naive"

    def __init__(
        self,
        base: transformers.PreTrainedModel,
        prompt: Prompt,
        shape: LoraShape,
        seed: int,
        learning_rate: float,
        *,
        batch: int = RECIPE.batch,
        sampled_tokens: int | None = SAMPLED_TOKENS,
    ) -> None:
        self.prompt = prompt
        self.shape = shape
        self.seed = seed
        self.learning_rate = learning_rate
        self.batch = batch
        self.sampled_tokens = sampled_tokens
        self.rounds = 0
        self.losses: list[float] = []  # of each step of the last round, without penalties
        with seeded(seed):
            self.model = add_lora(base, shape)
        self.split = Split(self.model, min(shape.layers))
        self.sizes = flops.Sizes.of(base.config)
        self.generator = torch.Generator().manual_seed(seed)
        self._counted = 0.0

    # What methods change

    def begin(self, lessons: Sequence[Lesson], contexts: Sequence[str]) -> list[Lesson]:
        """Prepares a round; gives the lessons as this method trains them."""
        del contexts
        return list(lessons)

    def beside(self) -> list[Encoded]:
        """Sequences that are trained in this step beside the lessons."""
        return []

    def distance(self, logits: Tensor, batch: Batch, rows: Sequence[Encoded], part: Part) -> Tensor:
        """The loss of each taught token: (M, C) → (M,)."""
        del rows
        return completion_nll(logits, part.place(batch.target))

    def needed(self, rows: Sequence[Encoded]) -> Tensor:
        """Tokens beside the taught ones that the loss asks for."""
        del rows
        return torch.empty(0, dtype=torch.long)

    def penalty(self) -> Tensor | None:
        """What is added to the loss whatever the batch is."""
        return None

    def end(self, lessons: Sequence[Lesson]) -> None:
        """After the last step of a round."""

    # What they share

    def learn(
        self, lessons: Sequence[Lesson], contexts: Sequence[str], budget_tokens: int
    ) -> Spent:
        """One round: lessons in turn until `budget_tokens` of them were trained.

        `contexts[i]` is a text that says what `lessons[i]` teaches. Raises Diverged when a loss or
        gradient is not finite.
        """
        if len(contexts) != len(lessons):
            raise ValueError(f"{len(lessons)} lessons, {len(contexts)} contexts")
        began = time.monotonic()
        self._counted, self.losses = 0.0, []
        if lessons and not self.rounds:
            self.split.check([lesson.wordings[0].tokens for lesson in lessons[:3]])
        taught = self.begin(lessons, contexts)
        steps = plan(taught, budget_tokens, self.batch, self.generator)
        shown = [step + self.beside() for step in steps]
        tokens = self._fit(shown)
        self.end(taught)
        self.rounds += 1
        return Spent(time.monotonic() - began, len(shown), tokens, self._counted)

    def _fit(self, shown: Sequence[Sequence[Encoded]]) -> int:
        """Trains on the batches; the number of tokens in them."""
        rows = list({id(row): row for step in shown for row in step}.values())
        place = {id(row): n for n, row in enumerate(rows)}
        cache = Activations(self.split, rows)
        self.count_forward(self.split.boundary, cache)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            trainable, lr=self.learning_rate, weight_decay=0.0, betas=(0.9, 0.98)
        )
        for step, picked in enumerate(shown):
            rate = self.learning_rate * _rate(step, len(shown), RECIPE.warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = cache.batch([place[id(row)] for row in picked])
            loss = self._loss(batch, picked)
            penalty = self.penalty()
            (loss if penalty is None else loss + penalty).backward()
            norm = torch.nn.utils.clip_grad_norm_(trainable, RECIPE.clip)
            self.losses.append(float(loss.detach()))
            if not (math.isfinite(self.losses[-1]) and bool(torch.isfinite(norm))):
                raise Diverged(f"loss {self.losses[-1]} at step {step + 1} of {len(shown)}")
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return sum(len(row.tokens) for step in shown for row in step)

    def _loss(self, batch: Batch, rows: Sequence[Encoded]) -> Tensor:
        """The mean over sequences of each one's mean, as in our rounds."""
        vocabulary = head(self.model).out_features
        part = Part.around(
            torch.cat([batch.target, self.needed(rows)]),
            vocabulary,
            vocabulary if self.sampled_tokens is None else self.sampled_tokens,
            self.generator,
        )
        self._counted += flops.step(
            self.sizes,
            self.shape,
            flops.Row.packed(batch.segments),
            len(batch.target),
            len(part.ids),
            self.frozen_ranks(),
        )
        values = self.distance(batch.logits(self.split, part), batch, rows, part)
        return per_sequence(values, batch.owner, batch.weight)

    def frozen_ranks(self) -> Sequence[int]:
        """Ranks of adapters that are applied and not trained."""
        return ()

    def count_forward(self, layers: int, cache: Activations) -> None:
        """Counts the pass that made these activations."""
        lengths = [len(row.tokens) for row in cache.rows]
        self._counted += flops.activations(self.sizes, layers, lengths, cache.prefix)

    def adapter_bytes(self) -> int:
        """What has to be kept to answer: the numbers of the adapter, trained and frozen."""
        named = self.model.named_parameters()
        return sum(p.numel() * p.element_size() for name, p in named if "lora_" in name)

    def close(self) -> None:
        """Gives the base back as it was."""
        self.model.unload()


class Joint(Sequential):
    """A new adapter each round, from everything so far: what training once would give.

    The caller passes all lessons that still hold, not only the new ones.
    """

    name = "joint-lora"

    def begin(self, lessons: Sequence[Lesson], contexts: Sequence[str]) -> list[Lesson]:
        """Starts over."""
        reset(self.model, self.seed)
        return super().begin(lessons, contexts)


def plan(
    lessons: Sequence[Lesson], budget_tokens: int, size: int, generator: torch.Generator
) -> list[list[Encoded]]:
    """Batches of wordings as our rounds show them, until so many tokens are in them.

    Every lesson once in an epoch, each time in another of its wordings.
    """
    members = [i for i, lesson in enumerate(lessons) if lesson.wordings]
    if not members:
        return []
    turns = [torch.randperm(len(x.wordings), generator=generator).tolist() for x in lessons]
    steps: list[list[Encoded]] = []
    epoch = tokens = 0
    while tokens < budget_tokens:
        for picked in _batches(members, size, generator):
            if tokens >= budget_tokens:
                break
            rows = [lessons[i].wordings[turns[i][epoch % len(turns[i])]] for i in picked]
            steps.append(rows)
            tokens += sum(len(row.tokens) for row in rows)
        epoch += 1
    return steps


def our_tokens(lessons: Sequence[Lesson], recipe: Recipe = RECIPE) -> int:
    """How many tokens our own round trains of these lessons, the rehearsed ones among them."""
    rows = rows_of(lessons)
    generator = torch.Generator().manual_seed(recipe.seed)
    shown = _schedule(lessons, rows, recipe, generator)
    return sum(len(rows[i].tokens) for step in shown for i in step)


def reset(model: torch.nn.Module, seed: int) -> None:
    """Makes the trained adapter a new one that changes nothing yet."""
    with seeded(seed):
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters("default", True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's own generator from this seed, for libraries that draw from nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
