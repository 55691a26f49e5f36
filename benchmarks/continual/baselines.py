"""Lives a persona's rounds with one baseline: learn, measure, next round.

Rows have the columns that our own have, so that one table shows both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from acclimate.adapters.train import Diverged
from continual.material import RoundMaterial
from continual.probe import Base, Probe
from continual.sequential import Joint, Sequential, our_tokens

Row = dict[str, Any]


def live(
    method: Sequential,
    rounds: Sequence[RoundMaterial],
    probe: Probe,
    base: Base,
    *,
    budgets: Sequence[int] = (),
    measure_every: bool = True,
    show: Callable[[Row], None] = lambda _: None,
) -> list[Row]:
    """One row for each round; the last one only without `measure_every`.

    `budgets` are tokens of lessons, a round each; without them what our own round would take. A
    round that diverges ends the life: its row has state "failed".
    """
    out: list[Row] = []
    for number, taught in enumerate(rounds):
        part = taught.everything if isinstance(method, Joint) else taught.new
        budget = budgets[number] if budgets else our_tokens(part.lessons)
        try:
            spent = method.learn(part.lessons, part.contexts, budget)
        except Diverged as error:
            out.append({"round": taught.number, "state": "failed", "reasons": [str(error)]})
            return out
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
        out.append(row)
        show(row)
    return out


def score(row: Row) -> float:
    """What the sweep maximises: recall on reworded questions minus the rise of general NLL."""
    if row["state"] != "accepted":
        return float("-inf")
    return float(row["reworded"] - row["general_nll"])
