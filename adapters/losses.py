"""The two terms of the loss: cross-entropy on completions, KL to the base on anchors.

Pure functions on tensors; know neither models nor files. Both need only the logits of some tokens
and the normaliser, so a `Part` of the vocabulary will do for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Teacher:
    """The base's next-token distribution at N positions, cut to its k most likely tokens.

    `ids` (N, k) int32, `logp` (N, k) float16; the rest of the mass stands in one tail bin.
    """

    ids: Tensor
    logp: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, k: int) -> Teacher:
        """Keeps the top k of (N, V) logits."""
        logp, ids = torch.log_softmax(logits, dim=-1).topk(min(k, logits.shape[-1]), dim=-1)
        return cls(ids.to(torch.int32), logp.to(torch.float16))

    @classmethod
    def joined(cls, several: Sequence[Teacher]) -> Teacher:
        """One after the other; of none, no positions."""
        none = [cls(torch.empty(0, 1, dtype=torch.int32), torch.empty(0, 1, dtype=torch.float16))]
        parts = several or none
        return cls(torch.cat([t.ids for t in parts]), torch.cat([t.logp for t in parts]))


@dataclass(frozen=True)
class Part:
    """C tokens of a vocabulary that stand for all of it in a softmax.

    `ids` (C,): in front, in order, the `certain` ones that are asked for; behind them a uniform
    sample of the others, each counted `exp(offset)` times, so that the normaliser is right on
    average (sampled softmax: Jean et al. 2015, arXiv:1412.2007). Logits plus `offset` (C,) go into
    the losses below, with `place` instead of token ids. `weight` (C, D): the output projection's
    rows of these tokens, where they were gathered beforehand.
    """

    ids: Tensor
    certain: int
    offset: Tensor
    weight: Tensor | None = None

    @classmethod
    def around(cls, needed: Tensor, size: int, sampled: int, generator: torch.Generator) -> Part:
        """All of `needed` and `sampled` others of a vocabulary of `size`."""
        certain = torch.unique(needed.long())
        others = torch.ones(size, dtype=torch.bool)
        others[certain] = False
        rest = others.nonzero()[:, 0]
        drawn = rest[torch.randperm(len(rest), generator=generator)[:sampled]]
        offset = torch.zeros(len(certain) + len(drawn))
        if len(drawn):
            offset[len(certain) :] = math.log(len(rest) / len(drawn))
        return cls(torch.cat([certain, drawn]), len(certain), offset)

    def place(self, ids: Tensor) -> Tensor:
        """Where these tokens stand in the part; all of them must be certain."""
        return torch.searchsorted(self.ids[: self.certain], ids.long())


def completion_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target token: (N, V), (N,) → (N,), in nats."""
    return functional.cross_entropy(logits, targets, reduction="none")


def kl_to_teacher(logits: Tensor, teacher: Teacher) -> Tensor:
    """KL(base ‖ model) at each position: (N, V) → (N,), in nats; exact but for the merged tail.

    Merging the tail into one bin can only lower KL (data processing inequality), by < 0.5 % at
    k = 64 on the default model.
    """
    logq = torch.log_softmax(logits, dim=-1).gather(1, teacher.ids.long())  # (N, k)
    logp = teacher.logp.float()
    p = logp.exp()
    tail_p = (1 - p.sum(-1)).clamp_min(1e-6)
    tail_q = (1 - logq.exp().sum(-1)).clamp_min(1e-6)
    return (p * (logp - logq)).sum(-1) + tail_p * (tail_p.log() - tail_q.log())


def per_sequence(values: Tensor, owner: Tensor, weight: Tensor) -> Tensor:
    """The mean over sequences of each one's weighted mean: (N,) → ().

    `owner` (N,) is each value's sequence, `weight` (N,) how much it counts there. So a fact of
    five tokens counts as much as a reply of fifty.
    """
    total = torch.zeros(int(owner.max()) + 1).index_add(0, owner, weight)
    return (values * weight / total[owner]).sum() / (total > 0).sum()
