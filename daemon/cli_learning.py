"""Commands about learning: learn, history, show, diff, rollback, pin, unpin, export, import.

Knows no weights: it asks the home's operations, and copies finished files.
"""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acclimate.daemon.cli_common import Exit, Json, example, session, version_argument
from acclimate.store.errors import RoundError

if TYPE_CHECKING:
    from acclimate.daemon.client import Client

app = typer.Typer()

_PANEL = "Learning"
_POLL_SECONDS = 0.5


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate learn --wait"))
def learn(
    ctx: typer.Context,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Follow it to its verdict; exit 3 if rejected.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a round now: train a candidate, measure it, and swap it in if the gate accepts it."""
    from acclimate.daemon import render, views_learning

    s = session(ctx, as_json)
    with s.client() as client:
        started = client.post("/v1/rounds")
        number = int(started["round"])
        if not wait:
            s.show(started, lambda _: f"round {number} has started; follow it: acclimate status")
            return
        with render.RoundProgress(number) as progress:
            try:
                ended = _follow(client, number, progress)
            except KeyboardInterrupt:
                progress.note(f"round {number} goes on; see: acclimate status")
                raise
    s.show(ended, views_learning.verdict)
    if ended["state"] != "accepted":
        raise typer.Exit(Exit.REJECTED if ended["state"] == "rejected" else Exit.FAILED)


def _follow(client: "Client", number: int, progress: Any) -> Any:
    """The ended round. Raises KeyboardInterrupt at Ctrl-C.

    An interrupt that arrives within a finaliser is swallowed by Python: it is remembered besides.
    """
    interrupted = False

    def remember(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    try:
        while not interrupted:
            now = client.get(f"/v1/rounds/{number}")
            if now["state"] != "running":
                return now
            progress.update(now.get("progress") or {})
            time.sleep(_POLL_SECONDS)
        raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate history"))
def history(ctx: typer.Context, as_json: Json = False) -> None:
    """All adapters and rejected rounds: age, parent, examples, gain, forgetting, verdict."""
    from acclimate.daemon import views_learning

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.get("/v1/adapters")
    s.show(found, views_learning.history)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate show v0003", "acclimate show live"))
def show(
    ctx: typer.Context,
    version: Annotated[str, version_argument("The adapter.", "live")],
    as_json: Json = False,
) -> None:
    """One adapter: what it learned, every measurement, where it comes from."""
    from acclimate.daemon import views_learning

    s = session(ctx, as_json)
    with s.client() as client:
        found = client.get(f"/v1/adapters/{_resolve(client, version)}")
    s.show(found, views_learning.adapter)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate diff v0002 v0003"))
def diff(
    ctx: typer.Context,
    before: Annotated[str, version_argument("The first adapter.", "live", "base")],
    after: Annotated[str, version_argument("The second adapter.", "live", "base")],
    as_json: Json = False,
) -> None:
    """What lies between two adapters: examples learned, measurements, settings."""
    from acclimate.daemon import views_learning

    s = session(ctx, as_json)
    with s.client() as client:
        names = [_resolve(client, name) for name in (before, after)]
        found = client.get(f"/v1/adapters/{names[0]}/diff/{names[1]}")
    s.show(found, views_learning.diff)


@app.command(
    rich_help_panel=_PANEL, epilog=example("acclimate rollback", "acclimate rollback v0002")
)
def rollback(
    ctx: typer.Context,
    version: Annotated[
        str | None, version_argument("Which one; else the parent of the live one.", "base")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve an earlier adapter (or base) again, without a restart."""
    s = session(ctx, as_json)
    with s.client() as client:
        moved = client.post("/v1/adapters/live", {"version": version})
    s.show(moved, lambda data: f"live is now {data.get('live') or 'base'}")


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate pin v0003"))
def pin(
    ctx: typer.Context,
    version: Annotated[str, version_argument("Which one.", "base", "live")],
    as_json: Json = False,
) -> None:
    """Serve this adapter, whatever later rounds give, until `unpin`."""
    s = session(ctx, as_json)
    with s.client() as client:
        pinned = client.post("/v1/adapters/pin", {"version": _resolve(client, version)})
    s.show(pinned, lambda data: f"{data.get('live') or 'base'} is pinned")


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate unpin"))
def unpin(ctx: typer.Context, as_json: Json = False) -> None:
    """Let accepted rounds become live again."""
    s = session(ctx, as_json)
    with s.client() as client:
        unpinned = client.delete("/v1/adapters/pin")
    s.show(unpinned, lambda data: f"unpinned; live is {data.get('live') or 'base'}")


@app.command(
    rich_help_panel=_PANEL,
    epilog=example(
        "acclimate export v0003 ./my-adapter --to peft",
        "acclimate export live ./merged.gguf --to merged",
    ),
)
def export(
    ctx: typer.Context,
    version: Annotated[str, version_argument("The adapter.", "live")],
    destination: Annotated[Path, typer.Argument(help="A new folder for peft, else a new file.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="peft|gguf|merged",
            help="A PEFT folder, a LoRA in GGUF, or the base with it merged in, in GGUF.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Copy an adapter out, for other programs; what is copied is checked against its hashes."""
    from acclimate.daemon import exporting

    if to not in exporting.FORMATS:
        raise typer.BadParameter(f"{to!r} is none of {', '.join(exporting.FORMATS)}")
    s = session(ctx, as_json)
    home = s.home()
    with s.client() as client:
        name = _resolve(client, version)
        known = client.get(f"/v1/adapters/{name}")
    if to == "merged":
        written = exporting.merge(home, name, known, destination)
    else:
        written = exporting.copy(home, name, known, destination, to)
    data = {"version": name, "to": to, "files": [str(path) for path in written]}
    s.show(data, lambda _: "\n".join(f"{name} → {path}" for path in written))


@app.command(
    "import",
    rich_help_panel=_PANEL,
    epilog=example("acclimate import ./my-adapter", "acclimate import tone.gguf --name tone"),
)
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A PEFT folder, or a LoRA in GGUF.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What `model` may call it besides its version.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take in an adapter from elsewhere, checked against the base; it is not made live."""
    s = session(ctx, as_json)
    with s.client() as client:
        found = client.post("/v1/adapters", {"path": str(path.absolute()), "name": name})
    version = found["version"]
    s.show(found, lambda _: f"{path} is {version}; serve it: acclimate rollback {version}")


def _resolve(client: "Client", name: str) -> str:
    """The version that `live` stands for; other names as they are. Raises RoundError for base."""
    if name != "live":
        return name
    live = client.get("/v1/adapters")["live"]
    if live in (None, "base"):
        raise RoundError("the base model is live: there is no adapter yet", "acclimate learn")
    return str(live)
