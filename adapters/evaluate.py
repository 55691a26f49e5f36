"""Measurements of a model on sequences: NLL, how far it moved, how its replies behave.

Knows tensors and texts; the gate decides what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

import torch

from acclimate.adapters.base import Activations, Split
from acclimate.adapters.losses import completion_nll

_REFUSAL = re.compile(
    r"\b(I(?:'m| am) (?:sorry|not able|unable)|I can(?:'t|not)|I won't|unable to (?:help|assist))",
    re.I,
)


@torch.no_grad()
def sequence_nll(split: Split, rows: Activations, at_once: int = 12) -> list[float]:
    """Mean NLL of the completion tokens of each sequence, in nats a token, by their weights."""
    out: list[float] = []
    for start in range(0, len(rows.rows), at_once):
        part = range(start, min(start + at_once, len(rows.rows)))
        batch = rows.batch(part)
        nll = completion_nll(batch.logits(split), batch.target)
        for n in range(len(part)):
            mine = batch.owner == n
            out.append(float((nll * batch.weight)[mine].sum() / batch.weight[mine].sum()))
    return out


@torch.no_grad()
def next_logp(split: Split, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probabilities of the token after each prompt: (n, V)."""
    rows = []
    for tokens in prompts:
        out = split.model(input_ids=torch.tensor([list(tokens)]), logits_to_keep=1)
        rows.append(torch.log_softmax(out.logits[0, -1].float(), dim=-1))
    return torch.stack(rows)


def mean_kl(before: torch.Tensor, after: torch.Tensor) -> float:
    """Mean KL(before ‖ after) of (n, V) log-probabilities, in nats."""
    return float((before.exp() * (before - after)).sum(-1).mean())


def loops(text: str) -> bool:
    """Whether a reply repeats a run of five words three times, or one word six times in a row."""
    words = text.lower().split()
    runs = [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]
    if any(runs.count(run) >= 3 for run in set(runs)):
        return True
    return any(len(set(words[i : i + 6])) == 1 for i in range(len(words) - 5))


def refuses(text: str) -> bool:
    """Whether a reply opens by declining."""
    return _REFUSAL.search(text[:160]) is not None


def share(flags: Sequence[bool]) -> float:
    """The share of true ones, 0 for none."""
    return fmean(flags) if flags else 0.0
