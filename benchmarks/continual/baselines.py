"""Lives a persona's rounds with one baseline: learn, measure, next round.

Rows have the columns that our own have, so that one table shows both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import transformers

from acclimate.adapters.train import Diverged
from acclimate.daemon.config import LearnConfig
from continual.material import RoundMaterial, rounds
from continual.methods import build
from continual.probe import Base, Probe
from continual.sequential import Joint, Sequential

Row = dict[str, Any]


def live(
    method: Sequential,
    rounds: Sequence[RoundMaterial],
    probe: Probe,
    base: Base,
    *,
    budgets: Sequence[int] = (),
    measure_every: bool = True,
) -> Iterator[Row]:
    """One row for each round, as it is done; the last one only without `measure_every`.

    `budgets` are tokens of lessons, a round each; without them what our own round would take. A
    round that diverges ends the life: its row has state "failed".
    """
    for number, taught in enumerate(rounds):
        part = taught.everything if isinstance(method, Joint) else taught.new
        budget = budgets[number] if budgets else part.tokens
        try:
            spent = method.learn(part.lessons, part.contexts, budget)
        except Diverged as error:
            yield {"round": taught.number, "state": "failed", "reasons": [str(error)]}
            return
        if not measure_every and number < len(rounds) - 1:
            continue
        row = probe.measure(method.model, taught.number, base)
        row |= {
            "round": taught.number,
            "state": "accepted",
            "reasons": [],
            "scale": 1.0,
            "seconds": spent.seconds,
            "train_seconds": round(spent.seconds, 2),
            "steps": spent.steps,
            "tokens": spent.tokens,
            "flops": spent.flops,
            "adapter_bytes": method.adapter_bytes(),
        }
        yield row


def run(
    name: str,
    model: transformers.PreTrainedModel,
    probe: Probe,
    base: Base,
    base_path: Path,
    folders: Sequence[Path],
    *,
    budgets: Sequence[int] = (),
) -> Iterator[Row]:
    """One row of the settings from the first round on; `model` is afterwards as it was."""
    taught = rounds(folders, probe.prompt, LearnConfig())
    method = build(name, model, probe.prompt, base_path)
    try:
        yield from live(method, taught, probe, base, budgets=budgets)
    finally:
        method.close()


def score(row: Row) -> float:
    """What the sweep maximises: recall on reworded questions minus the rise of general NLL."""
    if row["state"] != "accepted":
        return float("-inf")
    return float(row["reworded"] - row["general_nll"])
