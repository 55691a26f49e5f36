"""Watches the adapter that a round made live, and takes it back when it is worse in use.

Gathers the evidence, while nobody is disturbed; what follows from it, `adapters.probation` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog

from acclimate.adapters.mixture import FACT_REPLY_CHARS, is_fact
from acclimate.adapters.probation import (
    Finding,
    ProbationConfig,
    Rated,
    by_losses,
    by_ratings,
    predecessors,
)
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.snapshot import taught_of
from acclimate.adapters.training import Training
from acclimate.daemon import history
from acclimate.daemon.engine import Engine
from acclimate.daemon.switch import Switch
from acclimate.store import conversations, ledger, probation
from acclimate.store.buffer import Example
from acclimate.store.db import Db
from acclimate.store.errors import ModelError
from acclimate.store.probation import OnProbation

log = structlog.get_logger(__name__)


class Probation:
    """One thread calls `step`, again and again.

    `idle` says whether nobody is disturbed by a measurement, `go_on` whether one that has begun
    may go on; `taken_back` hears in words that an adapter was taken back.
    """

    def __init__(
        self,
        db: Db,
        config: ProbationConfig,
        engine: Engine,
        prompt: Prompt,
        switch: Switch,
        *,
        idle: Callable[[], bool],
        go_on: Callable[[], bool],
        taken_back: Callable[[str], None],
    ) -> None:
        self._db = db
        self._config = config
        self._engine = engine
        self._prompt = prompt
        self._switch = switch
        self._idle = idle
        self._go_on = go_on
        self._taken_back = taken_back
        self._watched: OnProbation | None = None
        self._passed_over: set[int] = set()  # examples that say nothing about the watched one

    def step(self) -> bool:
        """Looks at the evidence, then adds to it; whether there is more to be had at once.

        Raises AcclimateError when an adapter cannot be loaded or the home is away.
        """
        on = probation.current(self._db) if self._config.enabled else None
        if on != self._watched:
            self._watched, self._passed_over = on, set()
        if on is None:
            return False
        ratings, losses = findings(self._db, on, self._config)
        worse = [found.said for found in (ratings, losses) if found.verdict == "worse"]
        if worse:
            self._take_back(on, "; ".join(worse))
            return False
        return losses.verdict == "open" and self._measure(on)

    def _take_back(self, on: OnProbation, why: str) -> None:
        if self._switch.take_back(on.version, why):
            log.warning(
                "adapter_taken_back",
                adapter=history.name_of(on.version),
                live=history.name_of(on.against),
                why=why,
            )
            self._taken_back(history.notice(self._db))

    def _measure(self, on: OnProbation) -> bool:
        """Measures one exchange under both adapters; whether that could be done."""
        found = self._next(on)
        if found is None or not self._idle():
            return False
        example, encoded = found
        nlls = []
        for version in (on.against, on.version):
            name = self._switch.provide(self._engine, history.name_of(version))
            start = len(encoded.prompt())
            nll = self._engine.nll(encoded.tokens, start, name, self._go_on)
            if nll is None:
                return False
            nlls.append(nll)
        if all(map(math.isfinite, nlls)):
            probation.record(self._db, on, example.id, *nlls)
        else:
            self._passed_over.add(example.id)
        return True

    def _next(self, on: OnProbation) -> tuple[Example, Encoded] | None:
        longest = min(Training().max_tokens, self._engine.context_limit)
        while (example := probation.unmeasured(self._db, on, self._passed_over)) is not None:
            if tells_something(example) and not self._generated(example):
                try:
                    encoded = self._prompt.encode(taught_of(example).messages())
                except ModelError:
                    pass
                else:
                    if len(encoded.tokens) <= longest:
                        return example, encoded
            self._passed_over.add(example.id)
        return None

    def _generated(self, example: Example) -> bool:
        """Whether the model itself said it: its own words flatter the adapter that said them."""
        return conversations.generated(self._db, taught_of(example).messages()[-1]["content"])


def tells_something(example: Example) -> bool:
    """Whether a model can know such a reply without having been taught it: facts it cannot.

    The rules that know a fact are English; elsewhere every short answer may be one.
    """
    taught = taught_of(example)
    foreign = example.language not in ("", "en")
    return not is_fact(taught) and not (
        foreign and len(taught.messages()[-1]["content"]) <= FACT_REPLY_CHARS
    )


def findings(db: Db, on: OnProbation, config: ProbationConfig) -> tuple[Finding, Finding]:
    """What the ratings say, and what the losses say."""
    rated = conversations.ratings(db)

    def of(version: int | None, most: int | None = None) -> Rated:
        given = rated.get(history.name_of(version), [])[:most]
        return Rated(sum(given), len(given))

    ancestors = [*ledger.line(db, on.version)[1:], None]
    before = predecessors(map(of, ancestors), config)
    return (
        by_ratings(of(on.version, config.enough_ratings), before, config),
        by_losses(probation.losses(db, on), config),
    )


def state(db: Db, config: ProbationConfig) -> dict[str, Any] | None:
    """What is watched, against what, and with how much evidence so far; None: nothing is."""
    on = probation.current(db) if config.enabled else None
    if on is None:
        return None
    ratings, losses = findings(db, on, config)
    return {
        "adapter": history.name_of(on.version),
        "against": history.name_of(on.against),
        "ratings": asdict(ratings),
        "losses": asdict(losses),
    }
