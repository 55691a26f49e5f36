"""Measurements of a model on sequences: NLL, how far it moved, how its replies behave.

Knows tensors and texts; the gate decides what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

import torch

from acclimate.adapters.base import Activations, Split, common_prefix, pack_tree
from acclimate.adapters.exposure import CODES, Planted, exposure, rank
from acclimate.adapters.losses import completion_nll
from acclimate.adapters.prompt import Prompt

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
def reply_nll(split: Split, prompt: Sequence[int], replies: Sequence[Sequence[int]]) -> list[float]:
    """NLL of each whole reply to one prompt, in nats; what replies begin with alike runs once."""
    tokens, parents = list(prompt), list(range(-1, len(prompt) - 1))
    first = len(prompt) - 1  # the node that predicts a reply's first token
    place: dict[tuple[int, int], int] = {}
    at, target, owner = [], [], []
    for n, reply in enumerate(replies):
        node = first
        for i, token in enumerate(reply):
            if i > 0:
                step = (node, reply[i - 1])
                if step not in place:
                    place[step] = len(tokens)
                    tokens.append(reply[i - 1])
                    parents.append(node)
                node = place[step]
            at.append(node - first)
            target.append(token)
            owner.append(n)
    packed = pack_tree(parents)
    hidden = split.upper(split.lower(torch.tensor([tokens]), packed), packed)[0, first:]
    logp = torch.log_softmax(split.logits(hidden), dim=-1)
    nll = torch.zeros(len(replies)).index_add(0, torch.tensor(owner), -logp[at, target])
    return [float(value) for value in nll]


def exposures(split: Split, prompt: Prompt, codes: Sequence[Planted]) -> list[float]:
    """The exposure of each one's code among all that there are, in bits."""
    replies = [prompt.encode(codes[0].messages(code)).completion() for code in CODES]
    # Without what follows the digits: it is the same behind all of them.
    tail = common_prefix([reply[::-1] for reply in replies])
    replies = [reply[: len(reply) - tail] for reply in replies]
    out = []
    for one in codes:
        nll = reply_nll(split, prompt.encode_prompt(one.messages()[:-1]), replies)
        out.append(exposure(rank(nll[CODES.index(one.code)], nll), len(CODES)))
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
