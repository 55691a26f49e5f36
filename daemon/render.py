"""The terminal: consoles, streamed text and progress; plain lines where there is no terminal.

Knows nothing of the data; tables are in views.py.
"""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_PLAIN_COLUMNS = 160  # a pipe has no width: wide enough that no cell is cut


def stdout() -> Console:
    """For data."""
    return _console(stderr=False)


def stderr() -> Console:
    """For progress and notes, so that data can be piped on."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PLAIN_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=width is not None)


def write(out: Console, piece: str) -> None:
    """A piece of a reply as it comes: no wrapping, no markup, control characters taken out."""
    # A model must not be able to move the cursor or set the title of the person's terminal.
    clean = (
        "".join(c for c in piece if c in "\n\t" or c.isprintable()) if out.is_terminal else piece
    )
    out.file.write(clean)
    out.file.flush()


class _Shown:
    """A progress bar that is drawn inside a `with` block."""

    _bar: Progress

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()


class RoundProgress(_Shown):
    """A round's phase, steps, loss and seconds: a bar, or a line a phase without a terminal."""

    def __init__(self, number: int) -> None:
        self._console = stderr()
        self._phase = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn(f"round {number} · {{task.description}}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("start", total=None, said="")

    def update(self, now: Mapping[str, Any]) -> None:
        """Show the progress of GET /v1/rounds/{id}."""
        phase = str(now.get("phase") or "start")
        done, total = int(now.get("step") or 0), int(now.get("steps") or 0)
        if phase != "train":
            done, total = int(now.get("done") or 0), int(now.get("total") or 0)
        said = f"{done}/{total}" if total else ""
        loss = now.get("loss", now.get("ce"))
        if phase == "train" and loss is not None:
            said += f" · loss {loss:.3f}"
        if now.get("paused"):
            said += " · paused while you are answered"
        self._bar.update(
            self._task, description=phase, completed=done, total=total or None, said=said
        )
        if phase != self._phase and not self._console.is_terminal:
            self._console.print(f"{phase} ({now.get('seconds', 0):.0f} s)", markup=False)
        self._phase = phase

    def note(self, text: str) -> None:
        self._bar.stop()
        self._console.print(text, markup=False)


class BytesProgress(_Shown):
    """Bytes of each of several stages; a line a stage without a terminal."""

    def __init__(self) -> None:
        self._console = stderr()
        self._tasks: dict[str, Any] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[size]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def update(self, stage: str, done: int, total: int) -> None:
        """`total` 0: not known; 1: a step that has no bytes to count."""
        size = "" if total == 1 else f"{done / 1e6:.0f} MB"
        if total > 1:
            size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total or None, size=size)
            if not self._console.is_terminal:
                self._console.print(stage, markup=False)
        self._bar.update(self._tasks[stage], completed=done, total=total or None, size=size)
