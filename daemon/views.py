"""How data looks on a terminal: every answer of the routes as a table or a few lines.

Pure functions from JSON-like data; knows neither routes nor terminals.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from acclimate.daemon.client import Reply

Data = Any
_EXCERPT = 160


def age(at: float | None, now: float | None = None) -> str:
    """How long ago, in one unit: "12 s", "3 min", "5 h", "2 d"; never negative."""
    if at is None:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without frames, so that it reads well in a pipe too."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    return made


def cell(value: Any) -> str:
    """Text of the person or of a file: never markup."""
    return "" if value is None else escape(str(value))


def facts(rows: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one a line; rows without a value are left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="dim")
    made.add_column()
    for name, value in rows:
        if value not in (None, "", [], {}):
            made.add_row(name, value if isinstance(value, Text) else cell(value))
    return made


def counts(numbers: Mapping[str, int]) -> str:
    """ "3 pending, 40 learned"; zeros are left out."""
    return ", ".join(f"{n} {name}" for name, n in numbers.items() if n)


def place(passage: Mapping[str, Any]) -> str:
    """ "notes/week.md:3-9"."""
    first, last = passage.get("start_line"), passage.get("end_line")
    if first is None:
        return str(passage["path"])
    return f"{passage['path']}:{first}" + (f"-{last}" if last not in (None, first) else "")


def excerpt(text: str, limit: int = _EXCERPT) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def made_of(reply: "Reply") -> Text:
    """The dim line under a reply: which adapter, which passages."""
    places = list(dict.fromkeys(place(p) for p in reply.passages))
    return Text(" · ".join([reply.adapter or "?", *places]), style="dim")


def why(reply: "Reply") -> RenderableType:
    """Which adapter answered, and each passage that it was given."""
    head = Text(f"answered by {reply.adapter or '?'}")
    if reply.instead_of:
        head.append(f": this is nothing like what {reply.instead_of} was taught")
    if reply.cue:
        head.append(f"\nwith the question that it was taught: {reply.cue}")
    if reply.quote:
        head.append("\nin the words of the passage, which were found to answer the question")
    if reply.finish_reason is None:
        return Group(head, Text("stopped before it said which passages it used", style="dim"))
    if not reply.passages:
        return Group(head, Text("no passages: from the weights and the conversation", "dim"))
    return Group(head, hits({"hits": reply.passages}))


def hits(data: Data) -> RenderableType:
    """Passages, best first."""
    found = data["hits"]
    if not found:
        return Text("nothing was found", style="dim")
    made = table("score", "where", "text", right=["score"])
    for hit in found:
        made.add_row(f"{hit['score']:.3f}", cell(place(hit)), cell(excerpt(hit["text"])))
    return made


def added(data: Data) -> str:
    """What a file gave, and which of its lines could not be used."""
    taken = counts({name: data.get(name, 0) for name in ("examples", "chunks")})
    lines = [f"{data['path']}: {taken or data['outcome']}"]
    if data.get("redacted"):
        lines.append(f"  secrets taken out: {data['redacted']}")
    lines += [f"  line {bad['line']}: {bad['reason']}" for bad in data.get("quarantined") or []]
    return escape("\n".join(lines))


def sources(data: Data) -> RenderableType:
    """The watched folders."""
    rows = data["sources"]
    if not rows:
        return Text("nothing is watched; begin with: acclimate watch add DIR", style="dim")
    made = table(
        "id", "kind", "files", "refused", "state", "path", right=["id", "files", "refused"]
    )
    for row in rows:
        documents = row.get("documents") or {}
        made.add_row(
            cell(row["id"]),
            cell(row["kind"]),
            cell(documents.get("ok", 0)),
            cell(documents.get("refused") or ""),
            cell(row.get("state")),
            cell(row["path"]),
        )
    return made


def examples(data: Data) -> RenderableType:
    """Examples, newest first: where each goes, and why."""
    rows = data["examples"]
    if not rows:
        return Text("there are none", style="dim")
    made = table("id", "state", "route", "why", "question", right=["id"])
    for row in rows:
        made.add_row(
            cell(row["id"]),
            cell(row["state"]),
            cell(row["route"]),
            cell("; ".join(filter(None, (row["route_reason"], row["reason"])))),
            cell(excerpt(row["text"], 60)),
        )
    return made


def feedback(data: Data) -> RenderableType:
    """Ratings and corrections."""
    rows = data["feedback"]
    if not rows:
        return Text("nothing was rated yet", style="dim")
    made = table("age", "rating", "reply", "correction")
    for row in rows:
        made.add_row(
            age(row.get("created_at")),
            cell(row["rating"]),
            cell(excerpt(row["reply"], 60)),
            cell(excerpt(row.get("edit") or "", 60)),
        )
    return made


def models(data: Data) -> RenderableType:
    made = table("", "model", "kind", "size", "file", "licence", right=["size"])
    for row in data:
        size = row.get("bytes") or row.get("size")
        made.add_row(
            "●" if row.get("used") else "",
            cell(row.get("name")),
            cell(row.get("kind")),
            f"{size / 1e6:.0f} MB" if size else "",
            cell(row.get("path") or "not pulled"),
            cell(row.get("licence")),
        )
    return made


def findings(data: Data) -> RenderableType:
    marks = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "error": "[red]✗[/]"}
    made = table("", "what", "found")
    for row in data:
        said = cell(row.get("message"))
        if row.get("hint"):
            said += f"\n[dim]{cell(row['hint'])}[/]"
        made.add_row(marks.get(row["level"], "?"), cell(row.get("name")), said)
    return made


def portable(data: Data) -> str:
    size = data["bytes_copied"] / 1e6
    lines = [f"{data['folder']}: {data['files_copied']} files, {size:.0f} MB"]
    lines += [f"left behind: {path}" for path in data["missing"]]
    lines += [str(note) for note in data["notes"]]
    return escape("\n".join([*lines, f"start it with: {Path(data['folder']) / 'acclimate'} run"]))


def welcome(root: Path, command: str) -> RenderableType:
    """What to do after `init`."""
    steps = table("next", "")
    for words, what in (
        ("watch add ~/notes", "what to read"),
        ("watch add ~/chats --kind chat", "what to learn from"),
        ("run", "start it; or for good: service install"),
        ("chat", "talk"),
    ):
        steps.add_row(f"  {cell(command)} {words}", f"[dim]{what}[/]")
    return Group(Text(f"your home is {root}"), steps)
