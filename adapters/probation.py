"""Probation: whether an adapter that a round made live is worse in use than the one before it.

Pure decisions on numbers; knows neither models nor the database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from acclimate.adapters.gate import lower_bound, upper_bound


class ProbationConfig(BaseModel):
    """`[probation]` of config.toml. Losses in nats a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    confidence: float = Field(default=0.99, gt=0.5, lt=1)
    min_ratings: int = Field(default=8, ge=1, le=1000)
    enough_ratings: int = Field(default=30, ge=1, le=10_000)
    min_exchanges: int = Field(default=8, ge=2, le=1000)
    max_loss_rise: float = Field(default=0.05, ge=0, le=10)


@dataclass(frozen=True)
class Rated:
    """How many replies were rated, and how many of them badly."""

    bad: int = 0
    rated: int = 0


@dataclass(frozen=True)
class Finding:
    """What one kind of evidence says: nothing yet, that all is well, or that it is worse."""

    verdict: Literal["open", "fine", "worse"]
    said: str


def fisher(live: Rated, before: Rated) -> float:
    """How likely so many bad ones are among `live` by chance, were all alike (Fisher's exact test).

    One-sided: the upper tail of the hypergeometric distribution.
    """
    bad, others = live.bad + before.bad, live.rated + before.rated - live.bad - before.bad
    most = min(live.rated, bad)
    ways = sum(
        math.comb(bad, k) * math.comb(others, live.rated - k) for k in range(live.bad, most + 1)
    )
    return ways / math.comb(bad + others, live.rated)


def predecessors(nearest_first: Iterable[Rated], config: ProbationConfig) -> Rated:
    """The ratings to compare with: of as many predecessors as it takes to have `min_ratings`."""
    total = Rated()
    for one in nearest_first:
        if total.rated >= config.min_ratings:
            break
        total = Rated(total.bad + one.bad, total.rated + one.rated)
    return total


def by_ratings(live: Rated, before: Rated, config: ProbationConfig) -> Finding:
    """Whether the share of bad ratings has surely risen."""
    said = (
        f"{live.bad} of {live.rated} rated replies were bad, {before.bad} of {before.rated} before"
    )
    if live.rated >= config.min_ratings and fisher(live, before) <= 1 - config.confidence:
        return Finding("worse", said)
    return Finding("fine" if live.rated >= config.enough_ratings else "open", said)


def by_losses(pairs: Sequence[tuple[float, float]], config: ProbationConfig) -> Finding:
    """Whether the loss of exchanges that it was not taught has surely risen over the limit.

    Pairs are (before, live): the NLL of a reply, in nats a token.
    """
    if len(pairs) < config.min_exchanges:
        return Finding(
            "open", f"{len(pairs)} of at least {config.min_exchanges} exchanges measured"
        )
    rise = [live - before for before, live in pairs]
    least = lower_bound(rise, config.confidence)
    most = upper_bound(rise, config.confidence)
    said = (
        f"the loss of {len(rise)} exchanges that it was not taught moved by {fmean(rise):+.3f} nats"
        f" a token ({least:+.3f} to {most:+.3f}; limit {config.max_loss_rise:+.3f})"
    )
    if least > config.max_loss_rise:
        return Finding("worse", said)
    return Finding("fine" if most < config.max_loss_rise else "open", said)
