"""The command `acclimate`: options that stand before a command, and all commands put together.

Knows no operation: each command is in a module of its group.
"""

from pathlib import Path
from typing import Annotated

import typer

from acclimate.daemon import cli_forget, cli_learning, cli_setup, cli_sources, cli_talk
from acclimate.daemon.cli_common import Commands, Json, Session, default_root

_CODES = "\n".join(
    (
        "Exit codes:",
        "  0 done · 1 failed · 2 wrong usage (run: also no home, a wrong setting)",
        "  3 the gate rejected the round (learn --wait)",
        "  4 the command needs the daemon, which is not running",
        "",
        "The home is --home, else $ACCLIMATE_HOME, else the platform's data folder.",
        "",
        "Example:",
        "$ acclimate init && acclimate run",
    )
)

app = typer.Typer(
    name="acclimate",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for group in (cli_setup, cli_sources, cli_forget, cli_learning, cli_talk):
    app.add_typer(group.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"acclimate {version('acclimate')}")
        raise typer.Exit


@app.callback(epilog=_CODES)
def _root(
    ctx: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            envvar="ACCLIMATE_HOME",
            show_envvar=False,
            help="The folder that holds everything Acclimate keeps.",
        ),
    ] = None,
    as_json: Json = False,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it, leave."),
    ] = False,
) -> None:
    """A small local language model that gets used to you, on your own machine."""
    ctx.obj = Session((home or default_root()).expanduser(), as_json)


def main() -> None:
    """The console script. Ends with SystemExit and a documented exit code."""
    app(prog_name="acclimate")
