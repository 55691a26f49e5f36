"""What all commands share: the home they work on, `--json`, errors and exit codes.

Knows no command.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home, parse_version

if TYPE_CHECKING:
    from rich.console import RenderableType

    from acclimate.daemon.client import Client

# The root of typer's usage errors has no public name.
_UsageError: type[Any] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


class Exit(IntEnum):
    """Exit codes, as documented in `acclimate --help`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    NOT_RUNNING = 4


@dataclass
class Session:
    """What the options before the command said."""

    root: Path
    json: bool = False

    def home(self) -> Home:
        """The home. Raises HomeError when there is none."""
        from acclimate.daemon import log

        # What happens in this process is the command's to print: stdout is for data.
        log.set_up(level="warning")
        return Home.open(self.root)

    def client(self) -> "AbstractContextManager[Client]":
        """Speaks to the home's operations, whether the daemon runs or not."""
        from acclimate.daemon.client import connect

        return connect(self.home().root)

    def show(self, data: Any, view: "Callable[[Any], RenderableType]") -> None:
        """Print data: as JSON if asked, else as `view` draws it."""
        if self.json:
            typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))
            return
        from acclimate.daemon import render

        render.stdout().print(view(data))


def session(ctx: typer.Context, as_json: bool = False) -> Session:
    """The session of a command; `--json` may stand before the command or after it."""
    found = ctx.find_root().obj
    if not isinstance(found, Session):
        raise TypeError("the command was called without the application")
    found.json = found.json or as_json
    return found


def default_root() -> Path:
    """Where the home is when nothing else is said: the platform's data folder."""
    from platformdirs import user_data_path

    return user_data_path("acclimate", appauthor=False)


def example(*lines: str) -> str:
    """The end of a command's help."""
    return "\n".join(("Example:", *(f"$ {line}" for line in lines)))


class Commands(TyperGroup):
    """Turns errors into two lines on stderr and an exit code; never a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        parse = partial(super().main, args, prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return parse(**extra)
        try:
            code = parse(**extra)
        except typer.Abort:
            code = Exit.FAILED
        except _UsageError as e:
            code = Exit.USAGE
            if type(e).__name__ != "NoArgsIsHelpError":  # the help is printed already
                where = e.ctx.command_path if getattr(e, "ctx", None) else "acclimate"
                _say(e.format_message(), f"see: {where} --help")
        sys.exit(code or Exit.DONE)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AcclimateError as e:
            raise _report(e, e.message, e.hint) from e
        except (BrokenPipeError, typer.Exit, typer.Abort, _UsageError):
            raise
        except OSError as e:
            where = f"{e.filename}: " if e.filename else ""
            raise _report(e, f"{where}{e.strerror or e}", "") from e
        except Exception as e:
            hint = "this is a mistake in Acclimate; ACCLIMATE_DEBUG=1 shows where"
            raise _report(e, f"{type(e).__name__}: {e}", hint) from e


@contextmanager
def wrong_usage(*kinds: type[AcclimateError]) -> Iterator[None]:
    """Errors of these kinds end with the code of wrong usage: trying again does not mend them."""
    try:
        yield
    except kinds as e:
        raise _report(e, e.message, e.hint, Exit.USAGE) from e


def _report(error: Exception, message: str, hint: str, code: Exit | None = None) -> BaseException:
    """Say what happened on stderr; what to raise after it."""
    if os.environ.get("ACCLIMATE_DEBUG") == "1":
        return error
    _say(message, hint)
    return typer.Exit(_code(error) if code is None else code)


def _say(message: str, hint: str) -> None:
    print(f"acclimate: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _code(error: Exception) -> Exit:
    # By name, not by class: to say so must not cost the import of an HTTP client.
    return Exit.NOT_RUNNING if type(error).__name__ == "NotRunning" else Exit.FAILED


def _version_or(*words: str) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is None or value in words:
            return value
        try:
            parse_version(value)
        except ValueError as e:
            also = f" (or {', '.join(words)})" if words else ""
            raise typer.BadParameter(f"{e}{also}") from e
        return value

    return check


def _complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    root = (ctx.find_root().params or {}).get("home") or default_root()
    names = [p.name for p in (Path(root) / "adapters").glob("v*")]
    return sorted(name for name in (*names, "base", "live") if name.startswith(incomplete))


def version_argument(help_text: str, *words: str) -> Any:
    """An argument that names an adapter version, or one of `words`."""
    return typer.Argument(
        help=help_text,
        metavar="VERSION",
        callback=_version_or(*words),
        autocompletion=_complete_version,
        show_default=False,
    )


Json = Annotated[bool, typer.Option("--json", help="Print the data as JSON.")]
AdapterOption = Annotated[
    str,
    typer.Option(
        "--adapter",
        "-a",
        metavar="NAME",
        help="Who answers: live, base or a version such as v0003.",
        callback=_version_or("live", "base"),
        autocompletion=_complete_version,
    ),
]
NoRag = Annotated[
    bool, typer.Option("--no-rag", help="Answer from the weights alone, without passages.")
]
