"""Elastic weight consolidation on the adapter.

Kirkpatrick et al. 2017 (arXiv:1612.00796), online as in Schwarz et al. 2018 (arXiv:1805.06370):
one Fisher matrix and one anchor point, however many rounds there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acclimate.adapters.base import Activations
from acclimate.adapters.losses import completion_nll
from acclimate.adapters.prompt import Encoded
from acclimate.adapters.train import Lesson
from continual import flops
from continual.sequential import Sequential

FISHER_WORDINGS = 4  # of each lesson; each costs a backward pass of its own


class Ewc(Sequential):
    """Loss + weight / 2 · Σ F (θ − θ*)², F ← decay · F + the last round's Fisher.

    F is the empirical diagonal one: the mean over sequences of the squared gradient of the taught
    completion's log-likelihood.
    """

    name = "ewc"

    def __init__(self, *args: Any, weight: float = 1e2, decay: float = 0.95, **own: Any) -> None:
        super().__init__(*args, **own)
        self.weight = weight
        self.decay = decay
        self.fisher: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}  # θ*

    def penalty(self) -> Tensor | None:
        """How far what mattered has moved."""
        if not self.fisher:
            return None
        moved = [
            (self.fisher[name] * (p - self.before[name]).square()).sum()
            for name, p in trained(self.model).items()
        ]
        return self.weight / 2 * torch.stack(moved).sum()

    def end(self, lessons: Sequence[Lesson]) -> None:
        """Adds this round's Fisher and takes its end as the point to stay near."""
        rows = []
        for lesson in lessons:
            each = list({id(w): w for w in lesson.wordings}.values())
            order = torch.randperm(len(each), generator=self.generator).tolist()
            rows += [each[i] for i in order[:FISHER_WORDINGS]]
        if not rows:
            return
        new = self.diagonal(rows)
        self.fisher = {
            name: self.decay * self.fisher[name] + value if self.fisher else value
            for name, value in new.items()
        }
        self.before = {name: p.detach().clone() for name, p in trained(self.model).items()}

    def diagonal(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """The diagonal of the empirical Fisher matrix over these sequences, by parameter."""
        parameters = trained(self.model)
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        cache = Activations(self.split, rows)
        self.count_forward(self.split.boundary, cache)
        for n in range(len(rows)):
            batch = cache.batch([n])
            nll = completion_nll(batch.logits(self.split), batch.target)
            loss = (nll * batch.weight).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += gradient.square() / len(rows)
            self._counted += flops.step(
                self.sizes, self.shape, flops.Row.packed(batch.segments), len(batch.target)
            )
        return total


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
