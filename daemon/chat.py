"""A conversation in the terminal: reads lines, streams replies, takes ratings and corrections.

Knows no server: it speaks through a client; without a terminal it reads plain lines.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from acclimate.daemon import render, views
from acclimate.daemon.client import Client, NotRunning, Reply, TooLong
from acclimate.store.errors import AcclimateError
from acclimate.store.redact import redact

HELP = """\
/adapter NAME  answer with live, base or a version such as v0003
/rag on|off    use passages from your files, or the weights alone
/why           which adapter answered, from which passages
/good  /bad    rate the last reply
/edit [TEXT]   correct the last reply, in $EDITOR without TEXT
/new           begin a new conversation
/help  /quit   Ctrl-C stops a reply, Ctrl-D leaves"""

Lines = Callable[[], str]


@dataclass
class Chat:
    """One conversation after another. `run` ends at /quit or the end of the input."""

    client: Client
    out: Console
    adapter: str = "live"
    retrieval: bool | None = None  # None: as config.toml says
    max_tokens: int | None = None
    scratch: Path | None = None  # where a reply lies while it is edited
    messages: list[dict[str, str]] = field(default_factory=list)
    conversation: str | None = None
    last: Reply | None = None

    def run(self, read: Lines) -> None:
        """Read lines until there are no more. Raises NotRunning when the daemon goes."""
        if self.out.is_terminal:
            self._note(f"{self.adapter} answers · /help says what else there is")
        while True:
            try:
                line = read().strip()
            except KeyboardInterrupt:
                continue  # an unfinished line is dropped, as in a shell
            except EOFError:
                return
            try:
                if not self.take(line):
                    return
            except NotRunning:
                raise
            except AcclimateError as e:
                self._note(e.message + (f" ({e.hint})" if e.hint else ""), "red")

    def take(self, line: str) -> bool:
        """Act on one line; False to end. Raises AcclimateError."""
        if line.startswith("/"):
            word, _, rest = line[1:].partition(" ")
            return self._command(word.lower(), rest.strip())
        if line:
            self.say(line)
        return True

    def say(self, text: str) -> None:
        """Send a message and stream the reply; Ctrl-C keeps what has come so far."""
        self.messages.append({"role": "user", "content": text})
        try:
            reply, stopped = self._stream()
        except BaseException:
            self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": reply.text})
        self.conversation = reply.conversation_id or self.conversation
        self.last = reply
        self.out.print()
        if stopped:
            self._note("stopped")
        elif self.out.is_terminal:
            self.out.print(views.made_of(reply))

    def _stream(self) -> tuple[Reply, bool]:
        while True:
            reply = self.client.chat(
                self.messages,
                model=self.adapter,
                retrieval=self.retrieval,
                max_tokens=self.max_tokens,
                conversation=self.conversation,
            )
            try:
                with contextlib.closing(reply.pieces()) as pieces:
                    for piece in pieces:
                        render.write(self.out, piece)
            except KeyboardInterrupt:
                return reply, True
            except TooLong:
                if len(self.messages) < 3:
                    raise
                # What was said first is what a person misses least.
                del self.messages[:2]
                self.conversation = None
                continue
            return reply, False

    def _command(self, word: str, rest: str) -> bool:
        match word:
            case "quit" | "exit" | "q":
                return False
            case "help" | "?":
                self.out.print(HELP, markup=False)
            case "new":
                self.messages, self.conversation, self.last = [], None, None
                self._note("a new conversation")
            case "adapter":
                self._choose(rest)
            case "rag" if rest in ("on", "off"):
                self.retrieval = rest == "on"
                self._note(f"passages are {rest}")
            case "rag":
                self._note("/rag on or /rag off", "yellow")
            case "why":
                self.out.print(views.why(self._reply()))
            case "good" | "bad":
                self._rate(word)
                self._note("noted")
            case "edit":
                self._edit(rest)
            case _:
                self._note(f"there is no /{word}; see /help", "yellow")
        return True

    def _choose(self, name: str) -> None:
        known = [model["id"] for model in self.client.get("/v1/models")["data"]]
        if name not in known:
            self._note(f"/adapter is one of {', '.join(known)}", "yellow")
            return
        self.adapter = name
        self._note(f"{name} answers")

    def _reply(self) -> Reply:
        if self.last is None:
            raise AcclimateError("there is no reply yet", "ask something first")
        return self.last

    def _rate(self, rating: str, edit: str | None = None) -> None:
        reply = self._reply()
        if reply.message_id is None:
            raise AcclimateError("a stopped reply was not kept", "ask again, then rate it")
        body = {"message_id": reply.message_id, "rating": rating}
        self.client.post("/v1/feedback", body if edit is None else {**body, "edit": edit})

    def _edit(self, text: str) -> None:
        reply = self._reply()
        if not text:
            if not self.out.is_terminal:
                raise AcclimateError("/edit needs a text here", "/edit It was Tuesday.")
            text = edited(reply.text, self.scratch)
        if not text or text == reply.text.strip():
            self._note("unchanged")
            return
        self._rate("edit", text)
        # The server's record keeps the reply as it was; from here on this one counts.
        self.messages[-1]["content"], self.conversation = text, None
        self._note("noted; the conversation goes on with your words")

    def _note(self, text: str, style: str = "dim") -> None:
        self.out.print(text, style=style, markup=False)


def edited(text: str, scratch: Path | None = None) -> str:
    """The text as the person left it in $VISUAL or $EDITOR. Raises AcclimateError."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    # mkstemp's files are for their owner only.
    fd, name = tempfile.mkstemp(suffix=".md", prefix="reply-", dir=scratch)
    path = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            subprocess.run([*shlex.split(command), name], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as e:
            raise AcclimateError(
                f"the editor {command!r} did not end well", "set EDITOR, or /edit TEXT"
            ) from e
        return path.read_text(encoding="utf-8").strip()
    finally:
        path.unlink(missing_ok=True)


def lines(history: Path) -> Lines:
    """Reads the person's lines: with editing and history on a terminal, plainly without one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _plain(iter(sys.stdin))
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    # Made here, because what was typed is for its owner only.
    os.close(os.open(history, os.O_WRONLY | os.O_CREAT, 0o600))
    commands = ["/adapter", "/rag", "/why", "/good", "/bad", "/edit", "/new", "/help", "/quit"]

    class SafeHistory(FileHistory):
        """What was typed, without the secrets in it."""

        def store_string(self, string: str) -> None:
            super().store_string(redact(string).text)

    prompt: PromptSession[str] = PromptSession(
        history=SafeHistory(str(history)),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        reserve_space_for_menu=0,  # or every prompt pushes the reply eight lines up
    )
    return lambda: prompt.prompt("› ")


def _plain(stream: Iterator[str]) -> Lines:
    def read() -> str:
        try:
            return next(stream)
        except StopIteration:
            raise EOFError from None

    return read
