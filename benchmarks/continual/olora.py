"""O-LoRA: a new adapter each round in a subspace orthogonal to the earlier ones.

Wang et al. 2023 (arXiv:2310.14152). The penalty is that of the authors' released code, the sum of
absolute values of A_before · Aᵀ over all adapted layers; the paper writes squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

from acclimate.adapters.train import Lesson
from continual.sequential import Sequential, reset

TRAINED, FROZEN = "default", "before"


class OLora(Sequential):
    """Earlier rounds' adapters are kept as one of their summed rank, applied and not trained."""

    name = "o-lora"

    def __init__(self, *args: Any, weight: float = 0.5, **own: Any) -> None:
        super().__init__(*args, **own)
        self.weight = weight

    def begin(self, lessons: Sequence[Lesson], contexts: Sequence[str]) -> list[Lesson]:
        """Freezes what the last round trained and starts a new adapter."""
        if self.rounds:
            self._freeze()
            reset(self.model, self.seed + self.rounds)
        return super().begin(lessons, contexts)

    def penalty(self) -> Tensor | None:
        """How far the new adapter's inputs overlap with those of the earlier ones."""
        if not self.rounds:
            return None
        return self.weight * overlap(self.model)

    def frozen_ranks(self) -> Sequence[int]:
        """One adapter, as wide as there were rounds before."""
        return (self.shape.rank * self.rounds,) if self.rounds else ()

    def _freeze(self) -> None:
        """Joins the trained adapter to the frozen one: A side by side, B likewise."""
        joined = {name: _joined(layer) for name, layer in _layers(self.model)}
        if self.rounds > 1:
            self.model.delete_adapter(FROZEN)
        rank = self.shape.rank * self.rounds
        config = LoraConfig(
            r=rank,
            lora_alpha=self.shape.alpha * self.rounds,  # the same scaling, alpha / r
            lora_dropout=0.0,
            target_modules=list(self.shape.modules),
            layers_to_transform=list(self.shape.layers),
            task_type="CAUSAL_LM",
        )
        self.model.add_adapter(FROZEN, config)
        self.model.base_model.set_adapter([FROZEN, TRAINED])
        self.model.eval()
        with torch.no_grad():
            for name, layer in _layers(self.model):
                a, b = joined[name]
                layer.lora_A[FROZEN].weight.copy_(a)
                layer.lora_B[FROZEN].weight.copy_(b)
        for name, p in self.model.named_parameters():
            if f".{FROZEN}." in name:
                p.requires_grad_(False)


def overlap(model: torch.nn.Module) -> Tensor:
    """Σ |A_before · Aᵀ| over all layers; 0 where every row is orthogonal to every earlier one."""
    parts = [
        (layer.lora_A[FROZEN].weight @ layer.lora_A[TRAINED].weight.T).abs().sum()
        for _, layer in _layers(model)
    ]
    return torch.stack(parts).sum()


def _layers(model: torch.nn.Module) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, LoraLayer)]


def _joined(layer: Any) -> tuple[Tensor, Tensor]:
    """(A, B) of all adapters of one layer so far: (rank · rounds, in), (out, rank · rounds)."""
    order = [name for name in (FROZEN, TRAINED) if name in layer.lora_A]
    return (
        torch.cat([layer.lora_A[name].weight.detach() for name in order], dim=0),
        torch.cat([layer.lora_B[name].weight.detach() for name in order], dim=1),
    )
