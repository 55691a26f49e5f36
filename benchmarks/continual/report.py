"""From what `learning.py` wrote to a table and two plots.

    python benchmarks/continual/report.py [--results benchmarks/out/learning.json …] [--out FOLDER]
        [--keep benchmarks/results/report.json]

Of several results the later ones' rows count. `--keep` puts all of them into one file, without what
was said: a table of hours is made row by row, on different days.
`recall.svg` has the matrix of each row (recall of every round's facts after every round),
`forgetting.svg` how recall and general loss go on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("ours", "joint")
ABOUT = ("persona", "rounds", "base_general")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
# What no table and no plot needs.
WORDY = frozenset(("replies", "styled", "general_replies", "general_rises", "base_general"))
CELL, GAP, TOP = 34, 46, 54

Row = Mapping[str, Any]
Rows = Sequence[Row]


def matrix(rows: Rows, key: str = "by_round") -> dict[tuple[int, int], float]:
    """Recall of reworded questions: (after round, of round) → share. "lasting" are those about
    facts that no round contradicts."""
    return {
        (row["round"], int(of)): share for row in rows for of, share in row.get(key, {}).items()
    }


def backward_transfer(rows: Rows, key: str = "by_round") -> float | None:
    """Mean change of earlier rounds' recall from just after them to the end (Lopez-Paz and Ranzato
    2017, arXiv:1706.08840); negative where it forgets. None with less than two rounds.

    A fact that is contradicted later is asked for its new answer then: of all facts together
    ("by_round") this measures, too, whether contradictions are noticed; of "lasting" ones it does
    not.
    """
    found = matrix(rows, key)
    last = max((after for after, _ in found), default=0)
    changes = [found[last, n] - found[n, n] for n in range(1, last) if (n, n) in found]
    return fmean(changes) if changes else None


def plasticity(rows: Rows) -> float | None:
    """Mean recall of each round's facts just after it."""
    own = [share for (after, of), share in matrix(rows).items() if after == of]
    return fmean(own) if own and len(rows) > 1 else None


def gain(row: Row) -> float:
    """What methods are compared by: recall of reworded questions minus general loss."""
    return float(row["reworded"]) - float(row["general_nll"])


def beaten(results: Mapping[str, Rows], ours: str = "ours") -> dict[int, tuple[float, str, float]]:
    """After each round: ours, the best other row that learns one round at a time, its figure."""
    out = {}
    for row in results.get(ours, ()):
        others = {
            name: gain(other)
            for name, rows in results.items()
            if name not in ("base", *OURS)
            for other in rows
            if other["round"] == row["round"] and "reworded" in other
        }
        if others and "reworded" in row:
            best = max(others, key=lambda name: others[name])
            out[row["round"]] = (gain(row), best, others[best])
    return out


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.0f}"


COLUMNS: tuple[tuple[str, Callable[[Row, Rows], str]], ...] = (
    ("reworded", lambda row, _: _share(row.get("reworded"))),
    ("exact", lambda row, _: _share(row.get("exact"))),
    ("roundabout", lambda row, _: _share(row.get("roundabout"))),
    ("just after", lambda _, rows: _share(plasticity(rows))),
    ("BWT", lambda _, rows: _points(backward_transfer(rows))),
    ("of lasting facts", lambda _, rows: _points(backward_transfer(rows, "lasting"))),
    ("new answers", lambda row, _: _share(row.get("changed"))),
    ("stale", lambda row, _: _share(row.get("stale"))),
    ("style", lambda row, _: _share(row.get("style"))),
    ("kept", lambda row, _: _share(row.get("kept"))),
    ("ΔNLL", lambda row, _: f"{row['general_nll']:+.3f}" if "general_nll" in row else "–"),
    ("KL", lambda row, _: f"{row['kl']:.3f}" if "kl" in row else "–"),
    ("s a round", lambda _, rows: _mean(rows, "seconds", 1, ".0f")),
    ("peak MB", lambda _, rows: _mean(rows, "peak_bytes", 1e6, ".0f")),
    ("adapter kB", lambda _, rows: _mean(rows, "adapter_bytes", 1e3, ".0f")),
)


def _mean(rows: Rows, key: str, unit: float, form: str) -> str:
    values = [row[key] / unit for row in rows if row.get(key)]
    return format(fmean(values), form) if values else "–"


def table(results: Mapping[str, Rows]) -> str:
    """Markdown: every row after its last round; with retrieval as a row of its own."""
    lines = ["| row | " + " | ".join(name for name, _ in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for name, rows in results.items():
        done = [row for row in rows if "reworded" in row]
        if not done:
            lines.append(f"| {name} | {rows[-1].get('state', '') if rows else ''} |")
            continue
        last = done[-1]
        failed = rows[-1] is not last or last["round"] < max(r["round"] for r in rows)
        lines.append(_line(name + (" (then failed)" if failed else ""), last, done))
        if "retrieval" in last:
            lines.append(_line(f"{name} + retrieval", last["retrieval"], ()))
        if "alone" in last:  # the same adapter, were it to answer what lies outside its scope
            lines.append(_line(f"{name}, without a scope", last["alone"], ()))
    return "\n".join(lines)


def _line(name: str, row: Row, rows: Rows) -> str:
    return f"| {name} | " + " | ".join(show(row, rows) for _, show in COLUMNS) + " |"


def recall_plot(results: Mapping[str, Rows]) -> str:
    """An SVG with the matrix of each row that learned more than once."""
    shown = {n: matrix(rows) for n, rows in results.items() if len(rows) > 1 and n != "base"}
    size = max((after for m in shown.values() for after, _ in m), default=1)
    across = min(4, max(1, len(shown)))
    step, high = size * CELL + GAP, size * CELL + TOP + 10
    parts: list[str] = []
    for n, (name, cells) in enumerate(shown.items()):
        x0, y0 = GAP + (n % across) * step, TOP + (n // across) * high
        parts.append(_text(x0, y0 - 22, name, 13, anchor="start"))
        for k in range(1, size + 1):
            parts.append(_text(x0 + (k - 0.5) * CELL, y0 - 5, f"of {k}", 9))
            parts.append(_text(x0 - 5, y0 + (k - 0.4) * CELL, f"after {k}", 9, anchor="end"))
        for (after, of), share in cells.items():
            x, y = x0 + (of - 1) * CELL, y0 + (after - 1) * CELL
            light = 95 - 55 * share
            parts.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}"'
                f' fill="hsl(210 70% {light:.0f}%)"/>'
            )
            shade = "#fff" if share > 0.55 else "#222"
            parts.append(
                _text(x + CELL / 2, y + CELL / 2 + 4, f"{100 * share:.0f}", 11, fill=shade)
            )
    height = TOP + -(-len(shown) // across) * high
    return _svg(GAP + across * step, height, parts)


def forgetting_plot(results: Mapping[str, Rows]) -> str:
    """An SVG with recall of all facts so far, and general loss, after every round."""
    lines = {
        n: [r for r in rows if "reworded" in r] for n, rows in results.items() if len(rows) > 1
    }
    rounds = max((row["round"] for rows in lines.values() for row in rows), default=1)
    parts: list[str] = []
    wide, high = 330, 230
    for panel, (key, title) in enumerate(
        (
            ("reworded", "recall of reworded questions, all facts so far"),
            ("general_nll", "general ΔNLL, nats"),
        )
    ):
        x0, y0 = 50 + panel * (wide + 70), 40
        values = [row[key] for rows in lines.values() for row in rows if key in row]
        top = 1.0 if key == "reworded" else min(0.5, max([0.05, *values]) * 1.05)
        parts.append(_text(x0, y0 - 14, title, 12, anchor="start"))
        for part in range(5):
            y = y0 + high * (1 - part / 4)
            parts.append(f'<path d="M{x0} {y}h{wide}" stroke="#ddd"/>')
            parts.append(_text(x0 - 6, y + 4, f"{top * part / 4:.2g}", 10, anchor="end"))
        for k in range(1, rounds + 1):
            parts.append(_text(_across(x0, wide, k, rounds), y0 + high + 15, str(k), 10))
        for n, rows in enumerate(lines.values()):
            dots = [
                (
                    _across(x0, wide, r["round"], rounds),
                    y0 + high * (1 - min(top, max(0, r[key])) / top),
                )
                for r in rows
                if key in r
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{COLOURS[n % len(COLOURS)]}"'
                f' stroke-width="2"/>'
            )
    for n, name in enumerate(lines):
        x, y = 50 + (n % 4) * 190, 40 + high + 40 + (n // 4) * 18
        colour = COLOURS[n % len(COLOURS)]
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colour}" stroke-width="3"/>')
        parts.append(_text(x + 24, y, name, 11, anchor="start"))
    return _svg(50 + 2 * (wide + 70), 40 + high + 50 + -(-len(lines) // 4) * 18, parts)


def _across(x0: int, wide: int, number: int, rounds: int) -> float:
    return x0 + wide * (number - 1) / max(1, rounds - 1)


def _text(
    x: float, y: float, text: str, size: int, anchor: str = "middle", fill: str = "#222"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' fill="{fill}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif">'
        '<rect width="100%" height="100%" fill="#fff"/>' + "".join(parts) + "</svg>\n"
    )


def kept(results: Any) -> Any:
    """The results without replies, and with the figures that anybody looks at."""
    if isinstance(results, dict):
        return {key: kept(value) for key, value in results.items() if key not in WORDY}
    if isinstance(results, list):
        return [kept(value) for value in results]
    return round(results, 4) if isinstance(results, float) else results


def write(results: Mapping[str, Rows], folder: Path) -> None:
    """Prints the table and what ours is compared with; puts the plots into the folder.

    `results` as `learning.py` keeps them: what they are ABOUT stands beside the rows.
    """
    results = {name: rows for name, rows in results.items() if name not in ABOUT}
    print(table(results))
    for number, (own, best, value) in beaten(results).items():
        print(f"round {number}: recall − general loss {own:+.3f}, best other {best} {value:+.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recall.svg").write_text(recall_plot(results), "utf-8")
    (folder / "forgetting.svg").write_text(forgetting_plot(results), "utf-8")


def main() -> int:
    """The table and the plots of one or several files of results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out = ROOT / "benchmarks" / "out"
    parser.add_argument("--results", type=Path, nargs="+", default=[out / "learning.json"])
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--keep", type=Path, help="a file for all of it, without replies")
    args = parser.parse_args()
    results: dict[str, Rows] = {}
    for path in args.results:
        found = json.loads(path.read_text("utf-8"))
        if results and any(results.get(key) != found.get(key) for key in ("persona", "rounds")):
            parser.error(f"{path} is of another persona or of another number of rounds")
        results |= found
    if args.keep:
        args.keep.parent.mkdir(parents=True, exist_ok=True)
        args.keep.write_text(json.dumps(kept(results), indent=1) + "\n", "utf-8")
    write(results, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
