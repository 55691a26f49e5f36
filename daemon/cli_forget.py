"""Commands that take things back: forget, and the receipts of it.

Knows no store: all of it is asked of the home's operations.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.daemon.cli_common import Json, example, session
from acclimate.store.errors import NotFound

if TYPE_CHECKING:
    from acclimate.daemon.client import Client

app = typer.Typer()

_PANEL = "Sources"


@app.command(
    rich_help_panel=_PANEL,
    epilog=example("acclimate forget ~/notes/old.md", "acclimate forget --matching 'locker code'"),
)
def forget(
    ctx: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Files, or numbers of examples.", metavar="[PATH|ID]..."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="DIR|ID",
            help="All that was read from this folder; `manual`: all that was handed over.",
        ),
    ] = None,
    matching: Annotated[
        str | None,
        typer.Option(
            "--matching",
            metavar="TEXT",
            help="Every passage, example and kept message that holds it; - reads the input.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be forgotten.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before --matching is done.")
    ] = False,
    no_relearn: Annotated[
        bool,
        typer.Option("--no-relearn", help="Leave what went with the adapters to the schedule."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take files or examples back: out of buffer, index, conversations and every adapter.

    Adapters that learned any of it are retired with all that descend from them; what else they
    had learned is learned again.
    """
    from acclimate.daemon import views_forget

    if sum(map(bool, (targets, source, matching))) != 1:
        raise typer.BadParameter("name files or examples, or give --source or --matching")
    s = session(ctx, as_json)
    ask = matching is not None and matching != "-" and not yes and _on_a_terminal()
    with s.client() as client:
        body = _body(client, targets or [], source, matching)
        if dry_run or ask:
            would = client.post("/v1/forget", {**body, "dry_run": True})
            if dry_run:
                s.show(would, views_forget.would_forget)
                return
            _show_on_stderr(views_forget.would_forget(would))
            typer.confirm("Forget all of this?", abort=True, err=True)
        done = client.post("/v1/forget", {**body, "relearn": False} if no_relearn else body)
    s.show(done, views_forget.forgotten)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate receipts", "acclimate receipts 3"))
def receipts(
    ctx: typer.Context,
    number: Annotated[
        int | None, typer.Argument(help="Which one; else all.", metavar="[NUMBER]", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """What was forgotten, which adapters went with it, and what is learned again."""
    from acclimate.daemon import views_forget

    s = session(ctx, as_json)
    with s.client() as client:
        if number is None:
            s.show(client.get("/v1/receipts"), views_forget.receipts)
        else:
            s.show(client.get(f"/v1/receipts/{number}"), views_forget.receipt)


def _body(
    client: "Client", targets: list[str], source: str | None, matching: str | None
) -> dict[str, Any]:
    if source is not None:
        number = source.isdecimal() or source == "manual"
        return {"source": source if number else str(Path(source).expanduser().absolute())}
    if matching is not None:
        return {"matching": sys.stdin.read().strip() if matching == "-" else matching}
    return {"targets": [_target(client, target) for target in targets]}


def _target(client: "Client", target: str) -> str | int:
    """An example's number, a path, or the name under which something was handed over."""
    number = target.removeprefix("#")
    if number.isdecimal():
        return int(number)
    path = Path(target).expanduser()
    if path.is_absolute():
        return str(path)
    try:
        client.post("/v1/forget", {"targets": [str(path.absolute())], "dry_run": True})
    except NotFound:
        # What was piped in, or was named with --name, has a name that is no path.
        return target
    return str(path.absolute())


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()


def _show_on_stderr(what: Any) -> None:
    from rich.console import Console

    Console(stderr=True).print(what)
