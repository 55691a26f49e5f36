"""Which questions are like what an adapter was taught; all others are the base's to answer.

A scope classifier beside the adapter, as in SERAC (Mitchell et al. 2022, "Memory-Based Model
Editing at Scale"): what nobody taught cannot be forgotten where the base itself answers it. Linear
on sentence vectors. Knows vectors; knows no text, no embedder and no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Of what was taught, so much may lie outside, each one judged without itself: to miss what the
# person said is worse than to ask the adapter for what the base knows.
MISSED = 0.03
RIDGE = 3e-3


@dataclass(frozen=True)
class Scope:
    """A half-space of sentence vectors: `weights` @ vector + `offset` > 0 lies inside.

    `embedder` names the model of the vectors. `general` is the share of general texts inside, each
    judged by a fit without it.
    """

    embedder: str
    weights: list[float]
    offset: float
    general: float

    @classmethod
    def fit(
        cls,
        taught: NDArray[np.float32],
        general: NDArray[np.float32],
        embedder: str,
        leaning: NDArray[np.int8] | None = None,
    ) -> Self:
        """From vectors of unit length, (texts, dimensions) each; both need one or more rows.

        `leaning`, (general texts,), is 1 or -1 where something else decides that one lies inside or
        outside, 0 where this does.

        Ridge regression on +1 and -1, both sides weighing the same; its leave-one-out predictions
        come in closed form (Allen 1974).
        """
        x = np.vstack([taught, general]).astype(np.float64)
        x = np.hstack([x, np.ones((len(x), 1))])
        side = np.r_[np.ones(len(taught)), -np.ones(len(general))]
        weight = np.r_[
            np.full(len(taught), 0.5 / len(taught)), np.full(len(general), 0.5 / len(general))
        ]
        penalty = np.full(x.shape[1], RIDGE)
        penalty[-1] = 1e-9  # the offset is free
        inverse = np.linalg.inv(x.T @ (x * weight[:, None]) + np.diag(penalty))
        theta = inverse @ (x.T @ (weight * side))
        leverage = ((x @ inverse) * x).sum(1) * weight
        without = (x @ theta - leverage * side) / np.maximum(1 - leverage, 1e-6)
        threshold = min(0.0, float(np.quantile(without[: len(taught)], MISSED)))
        inside = without[len(taught) :] > threshold
        if leaning is not None:
            inside = np.where(leaning == 0, inside, leaning > 0)
        return cls(
            embedder=embedder,
            weights=theta[:-1].astype(np.float32).tolist(),
            offset=float(theta[-1]) - threshold,
            general=float(inside.mean()),
        )

    def covers(self, vector: NDArray[np.float32]) -> bool:
        """Whether a text with this vector, (dimensions,), lies inside."""
        return float(np.asarray(self.weights) @ vector) + self.offset > 0

    def to_json(self) -> bytes:
        """What `from_json` reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Raises ValueError for anything that `to_json` does not give."""
        try:
            scope = cls(**json.loads(data))
            finite = np.isfinite([*scope.weights, scope.offset, scope.general]).all()
        except TypeError as error:
            raise ValueError(f"no scope: {error}") from None
        if not (finite and scope.weights):
            raise ValueError("a scope's numbers must be finite")
        return scope
