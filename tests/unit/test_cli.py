"""The command line without a home: help, documentation, errors, exit codes, how data is shown."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from acclimate.daemon import cli, cli_forget
from acclimate.daemon.cli_common import Exit, Session
from acclimate.daemon.client import Client, NotRunning
from acclimate.store.errors import NotFound, RoundError
from acclimate.store.files import Home

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
CONTRACT = """
    init run status add examples learn ask chat search history show diff rollback pin unpin forget
    export import receipts portable doctor watch.add watch.list watch.remove feedback.good
    feedback.bad feedback.edit feedback.list models.list models.pull models.use service.install
    service.uninstall service.status
"""


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    command = command or typer.main.get_command(cli.app)
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, sub in command.commands.items():
        yield from commands(sub, f"{name} {word}".strip())


class Answers(Client):
    """A client that gives what a test puts in, and notes what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Any]] = []

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        self.asked.append((method, path, content.get("json")))
        answer = self.answers[f"{method} {path}"]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Answers:
    monkeypatch.setenv("ACCLIMATE_HOME", str(Home.create(tmp_path / "home").root))
    client = Answers({})

    @contextmanager
    def fake(self: Session) -> Iterator[Client]:
        yield client

    monkeypatch.setattr(Session, "client", fake)
    monkeypatch.delenv("ACCLIMATE_DEBUG", raising=False)
    return client


def call(*words: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(cli.app, list(words), input=stdin, prog_name="acclimate")


def test_contract_is_complete() -> None:
    assert {name for name, _ in commands()} == {w.replace(".", " ") for w in CONTRACT.split()}


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda v: str(v))
def test_every_command_is_documented(name: str, command: Any) -> None:
    row = re.search(rf"^\| `{name}` \|.*$", DOCUMENTED, re.MULTILINE)
    assert row, f"docs/cli.md has no row for `{name}`"
    for parameter in command.params:
        for option in parameter.opts + parameter.secondary_opts:
            if option.startswith("-") and option not in ("--help", "-h"):
                assert option in row[0], f"docs/cli.md says nothing of {name} {option}"
    result = call(*name.split(), "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert command.help


def test_help_documents_exit_codes() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for code in Exit:
        assert re.search(rf"\b{int(code)} \w", result.output)
        assert re.search(rf"^\| {int(code)} \|", DOCUMENTED, re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("there is no adapter v0009", "see: acclimate history"), 1),
        (NotRunning(), 4),
        (RuntimeError("boom"), 1),
    ],
)
def test_errors_are_two_lines(answers: Answers, error: Exception, code: int) -> None:
    answers.answers["GET /v1/adapters/v0009"] = error
    result = call("show", "v0009")
    assert result.exit_code == code
    first, second = result.stderr.splitlines()
    assert first.startswith("acclimate: ") and second.startswith("hint: ")
    assert not result.stdout


def test_debug_shows_the_error(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCLIMATE_DEBUG", "1")
    answers.answers["GET /v1/adapters"] = NotFound("gone")
    assert isinstance(call("history").exception, NotFound)


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("show",),
        ("show", "v7"),
        ("show", "base"),
        ("ask", "x", "--adapter", "other"),
        ("export", "v0001", "x", "--to", "pickle"),
        ("export", "v0001", "x"),
        ("watch", "add", "/does/not/exist"),
        ("search", "x", "-k", "0"),
    ],
)
def test_wrong_usage_is_2(answers: Answers, words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == Exit.USAGE
    assert result.stderr.splitlines()[-1].startswith("hint: see: acclimate")
    assert not answers.asked


def test_json_before_and_after(answers: Answers) -> None:
    answers.answers["GET /v1/sources"] = {"sources": []}
    for words in (("--json", "watch", "list"), ("watch", "list", "--json")):
        result = call(*words)
        assert result.exit_code == 0
        assert json.loads(result.stdout) == {"sources": []}


ENDED = {"round": 3, "reasons": ["learned: NLL +0.1"], "measures": {}, "error": None}


@pytest.mark.parametrize(
    ("state", "code"), [("accepted", 0), ("rejected", 3), ("failed", 1)], ids=str
)
def test_learn_waits_for_the_verdict(answers: Answers, state: str, code: int) -> None:
    running = {**ENDED, "state": "running", "progress": {"phase": "train", "step": 1, "steps": 2}}
    polls = iter([running, {**ENDED, "state": state, "adapter": None, "progress": None}])
    answers.answers = {"POST /v1/rounds": {"round": 3}, "GET /v1/rounds/3": lambda: next(polls)}
    result = call("learn", "--wait")
    assert result.exit_code == code
    assert f"round 3: {state}" in result.stdout
    assert "learned: NLL +0.1" in result.stdout
    assert "train" in result.stderr


def test_learn_refused_is_1(answers: Answers) -> None:
    answers.answers["POST /v1/rounds"] = RoundError("there is nothing new to learn", "add some")
    assert call("learn").exit_code == 1


def test_rollback_and_pin(answers: Answers) -> None:
    answers.answers = {
        "POST /v1/adapters/live": {"live": "v0001", "pinned": False},
        "POST /v1/adapters/pin": {"live": "v0002", "pinned": True},
        "DELETE /v1/adapters/pin": {"live": "v0002", "pinned": False},
        "GET /v1/adapters": {"live": "v0002"},
    }
    assert "live is now v0001" in call("rollback").stdout
    assert answers.asked[-1][2] == {"version": None}
    assert "v0002 is pinned" in call("pin", "live").stdout
    assert answers.asked[-1][2] == {"version": "v0002"}
    assert "unpinned" in call("unpin").stdout


def test_live_is_no_adapter_while_base_is(answers: Answers) -> None:
    answers.answers["GET /v1/adapters"] = {"live": "base"}
    result = call("show", "live")
    assert result.exit_code == 1
    assert "no adapter yet" in result.stderr


def test_add_tells_the_kind_and_keeps_good_lines(answers: Answers, tmp_path: Path) -> None:
    answers.answers["POST /v1/examples"] = {"path": "x", "outcome": "added", "examples": 1}
    chat = tmp_path / "log.jsonl"
    chat.write_bytes(b'{"a":1}\n\xff\xfe\n{"b":2}\n')
    assert call("add", str(chat)).exit_code == 0
    body = answers.asked[-1][2]
    assert body["kind"] == "chat" and body["name"] == str(chat)
    assert body["text"].split("\n") == ['{"a":1}', "\ufffd", '{"b":2}', ""]
    (tmp_path / "a.py").write_text("x = 1\n")
    call("add", str(tmp_path / "a.py"))
    assert answers.asked[-1][2]["kind"] == "code"
    call("add", "-", stdin="a note")
    assert answers.asked[-1][2] == {"name": "stdin", "text": "a note", "kind": "notes"}


def test_add_refuses_what_is_no_text(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "x.md").write_bytes(b"abc\xff")
    result = call("add", str(tmp_path / "x.md"))
    assert result.exit_code == 1 and "byte 3" in result.stderr
    assert call("add", str(tmp_path / "none.md")).exit_code == 1
    assert call("add", str(tmp_path)).exit_code == 1
    assert not answers.asked


def test_forget_by_number_path_and_name(answers: Answers, tmp_path: Path) -> None:
    done = {"removed": {"examples": 1, "passages": 1}, "message": "no adapter learned it"}
    answers.answers["POST /v1/forget"] = done
    for words, targets in (
        (["4"], [4]),
        (["#4", str(tmp_path / "a.md")], [4, str(tmp_path / "a.md")]),
    ):
        assert "1 examples, 1 passages" in call("forget", *words).stdout
        assert answers.asked[-1][2] == {"targets": targets}
    tries = iter([NotFound("nothing was read from it")])

    def once() -> Any:
        for error in tries:
            raise error
        return done

    answers.answers["POST /v1/forget"] = once
    assert call("forget", "stdin-0a1b", "--no-relearn").exit_code == 0
    assert answers.asked[-1][2] == {"targets": ["stdin-0a1b"], "relearn": False}


def test_forget_by_source_and_by_text(answers: Answers, tmp_path: Path) -> None:
    would = {
        "removed": {"examples": 1, "passages": 1, "lines": 2},
        "documents": [],
        "passages": [{"path": "a.md", "start_line": 3, "end_line": 4}],
        "examples": [{"id": 7, "text": "What is [b]it?"}],
        "retired": ["v0002"],
        "live": "v0001",
        "relearn": {"examples": 5},
        "message": "v0002 learned it and is gone",
    }
    answers.answers["POST /v1/forget"] = would
    shown = call("forget", "--matching", "locker", "--dry-run").stdout
    assert answers.asked[-1][2] == {"matching": "locker", "dry_run": True}
    for part in ("2 typed lines", "a.md:3-4", "example 7", "[b]it?", "v0002", "5 other examples"):
        assert part in " ".join(shown.split())
    call("forget", "--matching", "-", stdin="my locker\n")
    assert answers.asked[-1][2] == {"matching": "my locker"}
    call("forget", "--source", str(tmp_path))
    assert answers.asked[-1][2] == {"source": str(tmp_path)}
    call("forget", "--source", "3")
    assert answers.asked[-1][2] == {"source": "3"}
    assert call("forget").exit_code == 2
    assert call("forget", "4", "--matching", "x").exit_code == 2


def test_a_text_on_a_terminal_is_forgotten_only_after_yes(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    would: dict[str, Any] = {"removed": {"examples": 1}, "retired": [], "message": "gone"}
    would |= {"documents": [], "passages": [], "examples": []}
    answers.answers["POST /v1/forget"] = would
    monkeypatch.setattr(cli_forget, "_on_a_terminal", lambda: True)
    assert call("forget", "--matching", "locker", stdin="n\n").exit_code == 1
    assert [body.get("dry_run") for *_, body in answers.asked] == [True]
    assert call("forget", "--matching", "locker", stdin="y\n").exit_code == 0
    assert answers.asked[-1][2] == {"matching": "locker"}
    assert call("forget", "--matching", "locker", "--yes").exit_code == 0
    assert [body.get("dry_run") for *_, body in answers.asked] == [True, True, None, None]


def test_receipts_are_shown(answers: Answers) -> None:
    relearn = {"state": "waits", "examples": 5, "left": 2, "rounds": [8, 9]}
    receipt = {"receipt": 3, "at": 0, "removed": {"examples": 2}, "retired": ["v0002"]}
    receipt |= {"live_before": "v0002", "live": "base", "unpinned": True, "round_ended": None}
    receipt |= {"relearn": relearn}
    answers.answers["GET /v1/receipts"] = {"receipts": [receipt]}
    answers.answers["GET /v1/receipts/3"] = receipt
    assert "3 of 5 examples" in call("receipts").stdout
    shown = call("receipts", "3").stdout
    assert "v0002 → base, unpinned" in shown and "8, 9" in shown
    answers.answers["GET /v1/receipts"] = {"receipts": []}
    assert "nothing was forgotten" in call("receipts").stdout


def test_examples_are_listed_with_their_route(answers: Answers) -> None:
    row = {
        "id": 3,
        "state": "pending",
        "route": "retrieval",
        "route_reason": "it is about the weather",
        "reason": "",
        "text": "Will it rain?",
    }
    answers.answers["GET /v1/examples"] = {"examples": [row]}
    result = call("examples", "--state", "pending", "--route", "retrieval")
    assert result.exit_code == 0
    for word in ("3", "retrieval", "it is about the weather", "Will it rain?"):
        assert word in result.stdout
    assert json.loads(call("examples", "--json").stdout)["examples"] == [row]
    assert call("examples", "--state", "eaten").exit_code == Exit.USAGE
    answers.answers["GET /v1/examples"] = {"examples": []}
    assert "there are none" in call("examples").stdout


def test_markup_in_data_is_text(answers: Answers) -> None:
    hit = {"path": "[red]a.md", "start_line": 1, "end_line": 2, "score": 0.5, "text": "[/] [b]x"}
    answers.answers["POST /v1/search"] = {"hits": [hit]}
    result = call("search", "x")
    assert result.exit_code == 0
    assert "[red]a.md:1-2" in result.stdout and "[/] [b]x" in result.stdout


def test_version_is_quick_to_import() -> None:
    code = (
        "import sys; from acclimate.daemon import cli;"
        "print([m for m in ('llama_cpp','faiss','starlette','httpx','numpy','rich','pydantic')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_exit_codes_of_the_real_command(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ACCLIMATE_HOME": str(tmp_path / "none")}
        command = [sys.executable, "-m", "acclimate.daemon", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert run("--version").stdout.startswith("acclimate ")
    missing = run("status")
    assert missing.returncode == 1
    assert "acclimate init" in missing.stderr and "Traceback" not in missing.stderr
    assert run("--no-such-option").returncode == 2
    assert run().returncode == 2


def test_shell_completion() -> None:
    environment = {
        **os.environ,
        "_ACCLIMATE_COMPLETE": "complete_bash",
        "COMP_WORDS": "acclimate hist",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-c", "from acclimate.daemon.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["history"]
