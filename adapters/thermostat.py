"""How strongly a round holds the model to its base, so that drift stays within one budget.

Pure numbers. A controller over the lineage, not within a round: drift in the middle of a round, at
full rate, says little about how it ends, and every adapter has its drift measured by the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

# The default model ends its first round at just under half of a budget of 0.05 with this weight.
WEIGHT, BUDGET = 20.0, 0.05
SET_POINT = 0.5  # the share of the budget, which is a bound, at which the mean is held
PER_ROUND = 0.74  # the share of the budget that one round may use up
STEP = 2.0  # at most so much stronger or weaker from one round to the next
WEAKEST, STRONGEST = 5.0, 200.0
STRONGER_AGAIN = 1.5  # for each time that the same was rejected


@dataclass(frozen=True)
class Held:
    """How an adapter was held: λ, the rise of general NLL against the base that was measured, in
    nats a token, and the adapter's scale at which it was."""

    kl_weight: float
    rise: float
    scale: float


def kl_weight(budget: float, parent: Held | None = None, rejected: int = 0) -> float:
    """λ of the next round: more where the parent has drifted further than it should, else less, but
    never less than in a first round: what drifts adds up, and a light round is no licence.

    `budget` bounds the rise of general NLL against the base. Drift goes about with the square of
    the scale, so what the full adapter would have drifted decides.
    """
    weight = WEIGHT * (BUDGET / budget)
    if parent is not None:
        ratio = parent.rise / parent.scale**2 / (SET_POINT * budget)
        weight = max(weight, parent.kl_weight * min(STEP, max(1 / STEP, ratio)))
    return min(STRONGEST, max(WEAKEST, weight * STRONGER_AGAIN**rejected))
