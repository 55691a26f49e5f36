"""Commands about what is read: watch, add, examples, search.

Knows no store: all of it is asked of the home's operations.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.daemon.cli_common import Json, example, session
from acclimate.store.errors import SourceError

app = typer.Typer()
watch = typer.Typer(
    help="The folders that Acclimate watches.",
    no_args_is_help=True,
    epilog=example("acclimate watch add ~/notes", "acclimate watch list"),
)
app.add_typer(watch, name="watch", rich_help_panel="Sources")

_PANEL = "Sources"
_CODE_SUFFIXES = frozenset(
    {
        *(".c", ".cc", ".cpp", ".cs", ".css", ".go", ".h", ".hpp", ".html", ".java", ".js", ".jsx"),
        *(".kt", ".lua", ".php", ".pl", ".ps1", ".py", ".r", ".rb", ".rs", ".scala", ".sh", ".sql"),
        *(".swift", ".toml", ".ts", ".tsx", ".yaml", ".yml"),
    }
)


class Kind(StrEnum):
    """What a source holds."""

    NOTES = "notes"
    CHAT = "chat"
    CODE = "code"


@watch.command("add", epilog=example("acclimate watch add ~/chats --kind chat --ignore 'old/**'"))
def watch_add(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="The folder.", exists=True, file_okay=False, metavar="DIR")
    ],
    kind: Annotated[Kind, typer.Option("--kind", help="What it holds.")] = Kind.NOTES,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="GLOB", help="Leave these out (as in .gitignore)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a folder, and read what it holds."""
    s = session(ctx, as_json)
    body = {"path": str(folder.absolute()), "kind": kind.value, "ignore": ignore or []}
    with s.client() as client:
        source = client.post("/v1/sources", body)
        running = client.daemon is not None
    s.show(source, lambda data: _watched(data, folder, kind, running))


def _watched(source: Any, folder: Path, kind: Kind, running: bool) -> str:
    text = f"watching {source.get('path', folder)} ({kind})"
    return text if running else f"{text}; the daemon will read it: acclimate run"


@watch.command("list", epilog=example("acclimate watch list --json"))
def watch_list(ctx: typer.Context, as_json: Json = False) -> None:
    """The watched folders, and how much was read from each."""
    from acclimate.daemon import views

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.get("/v1/sources")
    s.show(found, views.sources)


@watch.command("remove", epilog=example("acclimate watch remove ~/notes"))
def watch_remove(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(help="The folder, or its number.", metavar="DIR|ID")],
    as_json: Json = False,
) -> None:
    """Watch a folder no longer; its passages go, examples stay until forgotten."""
    s = session(ctx, as_json)
    body = {"id": int(which)} if which.isdecimal() else {"path": str(Path(which).absolute())}
    with s.client() as client:
        removed = client.delete("/v1/sources", body)
    s.show(removed, lambda _: f"{which} is no longer watched")


@app.command(
    rich_help_panel=_PANEL,
    epilog=example("acclimate add letter.md", "acclimate add - --kind chat < log.jsonl"),
)
def add(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="A text file, or - for the input.", metavar="FILE|-")],
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="What it holds; else told by its name.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it; else its path.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put one file into the buffer now; it is read once and not watched."""
    from acclimate.daemon import config, views

    s = session(ctx, as_json)
    path = None if file == "-" else Path(file)
    most = config.load(s.home()).watch.max_file_bytes
    data = sys.stdin.buffer.read(most + 1) if path is None else _read(path, most + 1)
    if len(data) > most:
        raise SourceError(
            f"{file} is larger than {most} bytes", "split it, or raise [watch] max_file_bytes"
        )
    kind = kind or _kind_of(path)
    label = name or ("stdin" if path is None else str(path.absolute()))
    body = {"name": label, "text": _text(data, file, kind), "kind": kind.value}
    with s.client() as client:
        added = client.post("/v1/examples", body)
    s.show(added, views.added)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as e:
        raise SourceError(f"cannot read {path}: {e.strerror}") from e


def _kind_of(path: Path | None) -> Kind:
    suffix = path.suffix.lower() if path else ""
    if suffix in (".jsonl", ".ndjson"):
        return Kind.CHAT
    return Kind.CODE if suffix in _CODE_SUFFIXES else Kind.NOTES


def _text(data: bytes, file: str, kind: Kind) -> str:
    if kind is Kind.CHAT:
        # One bad line must not cost its neighbours: it goes on as a line that is no JSON.
        return "\n".join(_line(line) for line in data.split(b"\n"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SourceError(f"{file} is not UTF-8 text (byte {e.start})", "convert it") from e


def _line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return "\N{REPLACEMENT CHARACTER}"


class State(StrEnum):
    """States of an example."""

    PENDING = "pending"
    LEARNED = "learned"
    HELD_OUT = "held-out"
    QUARANTINED = "quarantined"
    FORGOTTEN = "forgotten"


class Route(StrEnum):
    """Where an example goes."""

    WEIGHTS = "weights"
    RETRIEVAL = "retrieval"
    PREFERENCE = "preference"
    DROPPED = "dropped"


@app.command(
    rich_help_panel=_PANEL, epilog=example("acclimate examples --state pending --route dropped")
)
def examples(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option("--state", help="Only those in it.")] = None,
    route: Annotated[
        Route | None, typer.Option("--route", help="Only those that go there.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """The latest examples: where each goes (weights, retrieval, …) and why."""
    from acclimate.daemon import views

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.get("/v1/examples", state=state, route=route, limit=limit)
    s.show(found, views.examples)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate search 'pitch raise' -k 3"))
def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="Words or a question.")],
    count: Annotated[
        int, typer.Option("--count", "-k", min=1, max=100, help="How many passages.")
    ] = 5,
    as_json: Json = False,
) -> None:
    """Find passages in what was read."""
    from acclimate.daemon import views

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.post("/v1/search", {"query": query, "k": count})
    s.show(found, views.hits)
