"""Commands that talk to a daemon over loopback: a core with an engine on a tiny random model."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

from acclimate.adapters.prompt import Prompt
from acclimate.daemon import app, cli, client
from acclimate.daemon.config import Config, RetrievalConfig
from acclimate.daemon.core import Core
from acclimate.daemon.engine import Engine
from acclimate.daemon.lock import HomeLock, boot_id
from acclimate.daemon.server import create_app
from acclimate.daemon.token import load_or_create_token
from acclimate.store import conversations, ledger
from acclimate.store.db import Db
from acclimate.store.files import Home
from acclimate.store.index import Index


class QuickRounds:
    """Rounds without a worker: each runs for a moment and is rejected."""

    lasts_seconds = 0.8
    ended = threading.Event()

    def __init__(self, db: Db) -> None:
        self._db = db
        self._now: dict[str, Any] | None = None

    def start(self, reason: str = "manual") -> int:
        number = ledger.start_round(self._db, None, 1, [])
        self._now = {"round": number, "phase": "train", "step": 1, "steps": 3, "seconds": 0.1}
        self.ended.clear()
        threading.Timer(self.lasts_seconds, self._end, [number]).start()
        return number

    def _end(self, number: int) -> None:
        ledger.finish_round(self._db, number, "rejected", {}, ["refusals: 3 of the 9"])
        self._now = None
        self.ended.set()

    def current(self) -> dict[str, Any] | None:
        return self._now

    def cancel(self, round_id: int) -> None:
        raise AssertionError("not used")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Home]:
    """A home whose daemon is this process."""
    home = Home.create(tmp_path_factory.mktemp("cli") / "home")
    with HomeLock(home):
        db = Db(home.db)
        engine = Engine(tiny_llama, context_tokens=512, threads=1)
        engine.start()
        core = Core(
            home,
            Config(retrieval=RetrievalConfig(enabled=False)),
            db,
            Index(db, home.index),
            engine=engine,
            prompt=Prompt.from_gguf(tiny_llama),
            rounds=QuickRounds(db),
        )
        listener = app.listen(0)
        port = listener.getsockname()[1]
        guarded = create_app(core, token=load_or_create_token(home), port=port)
        server = uvicorn.Server(uvicorn.Config(guarded, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        run = {"pid": os.getpid(), "port": port, "boot_id": boot_id()}
        (home.root / app.RUN_FILE).write_text(json.dumps(run))
        yield home
        server.should_exit = True
        thread.join()
        engine.stop()
        db.close()


def call(home: Home, *words: str, code: int = 0) -> Any:
    arguments = ["--home", str(home.root), *words]
    result = CliRunner().invoke(cli.app, arguments, prog_name="acclimate")
    assert result.exit_code == code, result.output
    return result


def start(home: Home, *words: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "acclimate.daemon", "--home", str(home.root), *words]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes, **options)


def test_both_name_the_run_file_alike() -> None:
    assert client.RUN_FILE == app.RUN_FILE


def test_status_names_pid_and_port(served: Home) -> None:
    daemon = json.loads(call(served, "status", "--json").stdout)["daemon"]
    assert daemon["running"] is True and daemon["pid"] == os.getpid() and daemon["port"] > 0
    assert f"pid {os.getpid()}" in call(served, "status").stdout


def test_ask(served: Home) -> None:
    said = json.loads(call(served, "ask", "hello?", "-n", "12", "--json", "--no-rag").stdout)
    assert said["adapter"] == "base" and said["message_id"] and said["passages"] == []
    plain = call(served, "ask", "hello?", "-n", "12", "--adapter", "base").stdout
    assert plain == said["reply"] + "\n"
    assert "no adapter" in call(served, "ask", "hello?", "-a", "v0007", code=1).stderr


def test_feedback_on_the_last_reply(served: Home) -> None:
    call(served, "ask", "and this?", "-n", "4")
    call(served, "feedback", "good")
    call(served, "feedback", "edit", "It was Tuesday.")
    listed = json.loads(call(served, "feedback", "list", "--json").stdout)["feedback"]
    assert [row["rating"] for row in listed[:2]] == ["edit", "good"]
    assert "Tuesday" in call(served, "feedback", "list").stdout


def test_learn_waits_and_exits_3(served: Home) -> None:
    process = start(served, "learn", "--wait")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "rejected" in out and "refusals: 3 of the 9" in out
    assert "train" in err
    assert "refusals" in call(served, "history").stdout


def test_ctrl_c_leaves_the_round_running(served: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuickRounds, "lasts_seconds", 6.0)  # longer than a signal takes to arrive
    process = start(served, "learn", "--wait", start_new_session=True)
    assert process.stderr is not None
    assert "train" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on" in err and "Traceback" not in err
    assert QuickRounds.ended.wait(30)  # the next test may start a round


def test_chat_through_a_pipe(served: Home) -> None:
    process = start(served, "chat", "-n", "8", "--no-rag")
    out, err = process.communicate("hello\n/why\n/good\n/nonsense\n/quit\n", timeout=30)
    assert process.returncode == 0, err
    assert "answered by base" in out and "noted" in out and "no /nonsense" in out
    assert not (served.root / "chat_history").exists()
    db = Db(served.db)
    try:
        assert conversations.list_feedback(db, limit=1)[0].rating == "good"
    finally:
        db.close()


def test_search_and_rollback_speak_to_the_daemon(served: Home) -> None:
    assert "nothing was found" in call(served, "search", "zebra").stdout
    assert "base model is live" in call(served, "rollback", code=1).stderr


def test_output_into_a_closed_pipe_is_quiet(served: Home) -> None:
    command = f'"{sys.executable}" -m acclimate.daemon --home "{served.root}" status --json | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
