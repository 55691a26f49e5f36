"""What was measured against its floor: one row each, as a table, as Markdown, as JSON.

Knows no server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any

from rich.table import Table

HEAD = ("figure", "floor", "aim", "ours", "beside it", "value", "met")


@dataclass
class Figure:
    """One row. `value` is what the floor is about: a ratio, or `ours` itself."""

    name: str
    unit: str
    ours: float
    value: float | None  # None: nothing to compare with
    floor: float | None = None
    aim: float | None = None
    more: bool = False  # whether more is better
    other: float | None = None  # what ours is held against
    beside: str = ""  # and what that is
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the floor is reached; None where there is none, or nothing to compare with."""
        if self.floor is None or self.value is None:
            return None
        return self.value >= self.floor if self.more else self.value <= self.floor

    def cells(self) -> tuple[str, ...]:
        """As HEAD has them."""
        sign = "≥" if self.more else "≤"
        unit = "×" if self.beside else self.unit
        beside = f"{self.beside}: {shown(self.other)}" if self.beside else ""
        return (
            self.name,
            "" if self.floor is None else f"{sign} {self.floor:g} {unit}".rstrip(),
            "" if self.aim is None else f"{self.aim:g} {unit}".rstrip(),
            f"{shown(self.ours)} {self.unit}".rstrip(),
            beside,
            f"{shown(self.value)} {unit}".rstrip() if self.value is not None else "–",
            {True: "yes", False: "no", None: "–"}[self.met],
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def shown(number: float | None) -> str:
    """Three digits or so."""
    if number is None:
        return "–"
    if number == int(number) and abs(number) < 1000:
        return str(int(number))
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def against(
    name: str, unit: str, ours: Sequence[float], other: Sequence[float] | None, **about: Any
) -> Figure:
    """A row of repetitions that were made in turn: medians, and the median of their ratios."""
    ratio = other and median(a / b for a, b in zip(ours, other, strict=True))
    raw = {"ours": list(ours), "other": other and list(other), **about.pop("raw", {})}
    held = median(other) if other else None
    return Figure(name, unit, median(ours), ratio or None, other=held, raw=raw, **about)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile; of a few values the greatest."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) >= 20 else max(values)


def table(rows: Sequence[Figure]) -> Table:
    """For a terminal."""
    drawn = Table(*HEAD)
    for row in rows:
        drawn.add_row(*row.cells(), style="red" if row.met is False else None)
    return drawn


def markdown(rows: Sequence[Figure]) -> str:
    """The same for docs/performance.md."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
