"""The conversation in the terminal: commands, corrections, stopping, long conversations."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from acclimate.daemon import chat as talk
from acclimate.daemon import views
from acclimate.daemon.client import Client, NotRunning, Reply, TooLong
from acclimate.store.errors import AcclimateError

PASSAGE = {"path": "week.md", "start_line": 3, "end_line": 4, "score": 0.5, "text": "It rained."}


class Speaking(Client):
    """Answers every message with the next of `replies`; exceptions are raised in mid-reply."""

    def __init__(self, *replies: Any) -> None:
        self.replies = iter(replies)
        self.bodies: list[dict[str, Any]] = []
        self.posted: list[Any] = []

    def chat(self, messages: Any, **options: Any) -> Reply:
        self.bodies.append({"messages": [dict(m) for m in messages], **options})
        return Spoken(self, {}, parts=next(self.replies))

    def get(self, path: str, **params: Any) -> Any:
        return {"data": [{"id": "live"}, {"id": "base"}, {"id": "v0001"}]}

    def post(self, path: str, body: Any = None) -> Any:
        self.posted.append((path, body))


class Spoken(Reply):
    def __init__(self, client: Client, body: dict[str, Any], parts: Any) -> None:
        super().__init__(client, body)
        self.parts = parts

    def pieces(self) -> Any:
        for part in self.parts if isinstance(self.parts, tuple) else (self.parts,):
            if isinstance(part, BaseException):
                raise part
            self.text += part
            yield part
        self.adapter, self.message_id, self.conversation_id = "v0001", "m1", "c1"
        self.passages, self.finish_reason = [PASSAGE], "stop"


def conversation(*replies: Any, terminal: bool = False, **options: Any) -> Any:
    out = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
    return talk.Chat(Speaking(*replies), out, **options)


def run(chat: Any, *lines: Any) -> str:
    given: Iterator[Any] = iter(lines)

    def read() -> str:
        line = next(given, EOFError())
        if isinstance(line, BaseException):
            raise line
        return str(line)

    chat.run(read)
    text: str = chat.out.file.getvalue()
    return text


def test_piped_conversation_prints_the_replies_alone() -> None:
    chat = conversation("Hello.", "Again.", adapter="base", retrieval=False)
    assert run(chat, "hi", "", "  more ") == "Hello.\nAgain.\n"
    second = chat.client.bodies[1]
    assert [m["content"] for m in second["messages"]] == ["hi", "Hello.", "more"]
    assert second["conversation"] == "c1" and second["model"] == "base"
    assert second["retrieval"] is False


def test_terminal_names_adapter_and_passages() -> None:
    chat = conversation("Yes.", terminal=True)
    text = run(chat, "did it rain?", "/why", "/quit", "never read")
    assert "v0001 · week.md:3-4" in text
    assert "answered by v0001" in text and "It rained." in text


def test_why_says_that_the_base_answered_instead() -> None:
    reply = Spoken(Speaking(), {}, parts="Paris.")
    assert list(reply) == ["Paris."]
    reply.adapter, reply.instead_of = "base", "v0003"
    out = Console(file=io.StringIO(), width=100)
    out.print(views.why(reply))
    assert "answered by base: this is nothing like what v0003 was taught" in out.file.getvalue()  # type: ignore[attr-defined]


def test_why_says_which_taught_question_was_put_behind_it() -> None:
    reply = Spoken(Speaking(), {}, parts="Merganser.")
    assert list(reply) == ["Merganser."]
    reply.cue = "What do I call [my] canoe?"
    out = Console(file=io.StringIO(), width=100)
    out.print(views.why(reply))
    assert "What do I call [my] canoe?" in out.file.getvalue()  # type: ignore[attr-defined]


def test_ratings_go_to_the_last_reply() -> None:
    chat = conversation("Yes.")
    text = run(chat, "/good", "did it rain?", "/good", "/bad", "/edit It did not.", "/edit")
    assert "there is no reply yet" in text
    ratings = [body for _, body in chat.client.posted]
    assert ratings == [
        {"message_id": "m1", "rating": "good"},
        {"message_id": "m1", "rating": "bad"},
        {"message_id": "m1", "rating": "edit", "edit": "It did not."},
    ]
    assert chat.messages[-1]["content"] == "It did not." and chat.conversation is None
    assert "/edit needs a text here" in text


def test_commands() -> None:
    chat = conversation("One.", "Two.")
    text = run(
        chat,
        "/adapter v0001",
        "/adapter v9",
        "/rag off",
        "/rag",
        "/HELP",
        "/nope",
        "a",
        "/new",
        "b",
    )
    assert chat.adapter == "v0001" and chat.retrieval is False
    for word in ("one of live, base, v0001", "/rag on or /rag off", "Ctrl-D", "there is no /nope"):
        assert word in text
    assert [len(body["messages"]) for body in chat.client.bodies] == [1, 1]


def test_ctrl_c_stops_the_reply_and_keeps_what_came() -> None:
    chat = conversation(("Half", KeyboardInterrupt()), "Whole.")
    text = run(chat, "long?", KeyboardInterrupt(), "/good", "/why", "next")
    assert "stopped" in text and "was not kept" in text and "before it said" in text
    assert [m["content"] for m in chat.messages] == ["long?", "Half", "next", "Whole."]


def test_an_error_costs_one_message() -> None:
    chat = conversation(AcclimateError("too busy", "try again"), "Fine.")
    text = run(chat, "one", "two")
    assert "too busy (try again)" in text
    assert [m["content"] for m in chat.messages] == ["two", "Fine."]


def test_the_end_of_the_daemon_ends_it() -> None:
    with pytest.raises(NotRunning):
        run(conversation(NotRunning()), "hi")


def test_a_long_conversation_loses_its_beginning() -> None:
    chat = conversation("A.", "B.", TooLong("too long"), "C.")
    run(chat, "a", "b", "c")
    assert [m["content"] for m in chat.messages] == ["b", "B.", "c", "C."]
    assert chat.client.bodies[-1]["conversation"] is None
    alone = conversation(TooLong("too long", "shorten it"))
    assert "too long (shorten it)" in run(alone, "x" * 9)


def test_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    script = tmp_path / "editor.py"
    script.write_text(
        "import os, pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "assert oct(os.stat(path).st_mode)[-3:] == '600'\n"
        "path.write_text(path.read_text().replace('was', 'is') + '\\n')\n"
    )
    scratch = tmp_path / "cache"
    scratch.mkdir()
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    assert talk.edited("it was so", scratch) == "it is so"
    assert not list(scratch.iterdir())
    chat = conversation("it was so", terminal=True, scratch=scratch)
    run(chat, "how was it?", "/edit")
    assert chat.client.posted[-1][1]["edit"] == "it is so"
    monkeypatch.setenv("EDITOR", "false")
    with pytest.raises(AcclimateError, match="false"):
        talk.edited("x", scratch)
    assert not list(scratch.iterdir())


def test_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    read = talk.lines(tmp_path / "history")
    assert [read(), read()] == ["one\n", "two\n"]
    with pytest.raises(EOFError):
        read()
    assert not (tmp_path / "history").exists()


def test_history_is_private_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    history = tmp_path / "history"
    old = os.umask(0)
    try:
        with (
            create_pipe_input() as keys,
            create_app_session(input=keys, output=DummyOutput()),
        ):
            read = talk.lines(history)
            keys.send_text("first line\r")
            assert read() == "first line"
            keys.send_text("\x1b[A\r")  # arrow up
            assert read() == "first line"
            keys.send_text("my password is x9-Tulip\r")
            assert read() == "my password is x9-Tulip"
            keys.send_text("\x04")  # Ctrl-D
            with pytest.raises(EOFError):
                read()
    finally:
        os.umask(old)
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert b"first line" in history.read_bytes()
    assert b"x9-Tulip" not in history.read_bytes()
