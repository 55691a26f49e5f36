"""How forgetting and its receipts look on a terminal.

Pure functions from JSON-like data; knows neither routes nor terminals.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from acclimate.daemon.views import age, cell, counts, facts, place, table

Data = Mapping[str, Any]

_LONGEST_LIST = 20  # of what would be forgotten: the rest is a number


def forgotten(data: Data) -> str:
    """What was taken back, and what became of the adapters that had learned it."""
    taken = _removed(data) or "nothing was left of it"
    lines = [f"forgotten: {taken}", str(data["message"])]
    if data.get("receipt"):
        lines.append(f"receipt {data['receipt']}; see: acclimate receipts {data['receipt']}")
    return escape("\n".join(lines))


def would_forget(data: Data) -> RenderableType:
    """What would be taken back, before it is."""
    parts: list[RenderableType] = [Text(f"would forget: {_removed(data) or 'nothing'}")]
    rows = [("document", path) for path in data["documents"]]
    rows += [("passage", place(passage)) for passage in data["passages"]]
    rows += [(f"example {row['id']}", row["text"]) for row in data["examples"]]
    if rows:
        made = table("what", "where")
        for what, where in rows[:_LONGEST_LIST]:
            made.add_row(cell(what), cell(where))
        if (more := len(rows) - _LONGEST_LIST) > 0:
            made.add_row("", f"[dim]and {more} more: --json[/]")
        parts.append(made)
    if retired := data["retired"]:
        again = data["relearn"]["examples"]
        parts.append(
            Text(
                f"{', '.join(retired)} learned it and would be retired; live would be"
                f" {data['live']}, and {again} other examples would be learned again"
            )
        )
    return Group(*parts)


def receipts(data: Data) -> RenderableType:
    """One row for each forgetting, newest first."""
    rows = data["receipts"]
    if not rows:
        return Text("nothing was forgotten yet", style="dim")
    made = table("receipt", "age", "forgotten", "retired", "live then", "learned again")
    for row in rows:
        made.add_row(
            cell(row["receipt"]),
            age(row["at"]),
            cell(_removed(row)),
            cell(", ".join(row["retired"])),
            cell(row["live"]),
            cell(_again(row["relearn"])),
        )
    return made


def receipt(data: Data) -> RenderableType:
    """One forgetting in full."""
    live = data["live"]
    if data["live_before"] != live:
        live = f"{data['live_before']} → {live}" + (", unpinned" if data["unpinned"] else "")
    rounds = ", ".join(map(str, data["relearn"]["rounds"]))
    return facts(
        [
            ("receipt", data["receipt"]),
            ("age", age(data["at"])),
            ("forgotten", _removed(data)),
            ("retired", ", ".join(data["retired"]) or "no adapter had learned it"),
            ("live", live),
            ("round ended", data["round_ended"] or ""),
            ("learned again", _again(data["relearn"])),
            ("in rounds", rounds),
        ]
    )


def _removed(data: Data) -> str:
    names = {"feedback": "ratings", "messages": "kept messages", "lines": "typed lines"}
    return counts({names.get(kind, kind): n for kind, n in data["removed"].items()})


def _again(relearn: Data) -> str:
    if relearn["state"] == "nothing":
        return ""
    return f"{relearn['examples'] - relearn['left']} of {relearn['examples']} examples"
