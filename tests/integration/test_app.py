"""The daemon as a process on a tiny home: how it starts, ends, and what it survives."""

import asyncio
import contextlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from real_daemon import EMBEDDER, RealDaemon, make_home, settle

from acclimate.daemon.app import listen
from acclimate.daemon.lock import HomeLock
from acclimate.store import ledger
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file

STOP_SECONDS = 5.0  # what is promised in every state
BANNED = {"logit_bias": {"0": -100, "1": -100, "2": -100}}  # replies that end only by their length
Daemons = Callable[..., RealDaemon]


def test_a_small_piece_of_a_reply_is_sent_at_once() -> None:
    """Nagle's algorithm would hold it until the client acknowledged the piece before."""

    async def delayed() -> int:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda _, writer: accepted.set_result(writer), sock=listen(0)
        )
        async with server:
            _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer = await accepted
            held: socket.socket = writer.get_extra_info("socket")
            option = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            client.close()
            writer.close()
            return option

    assert asyncio.run(delayed())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, real_models: Path) -> Path:
    """A home that has its models; tests work on copies."""
    return make_home(tmp_path_factory.mktemp("app") / "home", real_models).root


@pytest.fixture
def home(tmp_path: Path, template: Path) -> Home:
    root = tmp_path / "home"
    shutil.copytree(template, root)
    copy = Home.open(root)
    settle(copy)
    return copy


@pytest.fixture
def start(home: Home) -> Iterator[Daemons]:
    """Starts daemons on the home; what still runs in the end is killed."""
    with contextlib.ExitStack() as stack:

        def run(*, ready: bool = True, **environ: str) -> RealDaemon:
            daemon = stack.enter_context(RealDaemon(home.root, **environ))
            assert not ready or daemon.ready(), daemon.said.read_text()[-2000:]
            return daemon

        yield run


@contextlib.contextmanager
def talking(daemon: RealDaemon) -> Iterator[None]:
    """Somebody reads a stream all the time."""
    ending, first = threading.Event(), threading.Event()

    def talk() -> None:
        with contextlib.suppress(httpx.HTTPError):
            while not ending.is_set():
                for _ in daemon.stream(tokens=1500, **BANNED):
                    first.set()

    thread = threading.Thread(target=talk)
    thread.start()
    assert first.wait(30)
    try:
        yield
    finally:
        ending.set()
        thread.join(30)


def learning(daemon: RealDaemon) -> psutil.Process:
    """The worker of a round that has just begun."""
    daemon.add("one", "two", "three")
    number = daemon.call("POST", "/v1/rounds", {})["round"]
    return psutil.Process(until(lambda: _worker(daemon, number)))


def _worker(daemon: RealDaemon, number: int) -> int | None:
    progress = daemon.call("GET", f"/v1/rounds/{number}")["progress"] or {}
    pid: int | None = progress.get("pid")
    return pid


def until(check: Callable[[], Any], seconds: float = 30) -> Any:
    """What `check` gives once it is true."""
    end = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def query(home: Home, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(home.db)) as conn:
        return conn.execute(sql).fetchall()


def status_of(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> int:
    return error.value.response.status_code


def publish(home: Home, adapter: Path, *, damaged: bool = False) -> int:
    """An adapter of the tiny base, published as a round does it."""
    with contextlib.closing(Db(home.db)) as db:
        version, parent = ledger.next_version(db), ledger.live(db)
        folder = home.adapter_dir(version)
        folder.mkdir()
        shutil.copy(adapter, folder / ledger.ADAPTER_FILE)
        digest = sha256_file(folder / ledger.ADAPTER_FILE)
        number = ledger.start_round(db, parent, 1, [])
        card = {"files": {ledger.ADAPTER_FILE: digest}}
        ledger.publish(db, number, version, parent, digest, 1.0, card, [])
    if damaged:
        spoil(home, version)
    return version


def spoil(home: Home, version: int) -> None:
    """One bit of an adapter's last tensor is another."""
    path = home.adapter_dir(version) / ledger.ADAPTER_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# The end


def ends_well(daemon: RealDaemon) -> None:
    assert daemon.terminate(STOP_SECONDS) == 0, daemon.said.read_text()[-2000:]
    assert not (daemon.home / "run.json").exists()
    said = daemon.said.read_text()
    assert "Traceback" not in said, said[-4000:]
    assert not (daemon.home / "acclimate.db-wal").exists()  # closed, not only left


def test_sigterm_while_idle(start: Daemons) -> None:
    daemon = start()
    assert daemon.ask("live")["acclimate"]["adapter"] == "base"
    ends_well(daemon)


def test_sigterm_while_streaming(start: Daemons) -> None:
    daemon = start()
    with talking(daemon):
        ends_well(daemon)


def test_sigterm_while_learning(start: Daemons, home: Home) -> None:
    daemon = start()
    worker = learning(daemon)
    ends_well(daemon)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert query(home, "SELECT state, error FROM rounds") == [("failed", "the daemon stopped")]
    assert query(home, "SELECT DISTINCT state FROM examples") == [("pending",)]


def test_sigterm_while_learning_and_streaming(start: Daemons) -> None:
    daemon = start()
    worker = learning(daemon)
    with talking(daemon):
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        ends_well(daemon)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.3])
def test_sigterm_while_starting(start: Daemons, home: Home, wait: float) -> None:
    daemon = start(ready=False)
    until(lambda: home.lock.exists() and f'"pid": {daemon.pid},' in home.lock.read_text())
    time.sleep(wait)
    assert daemon.terminate(STOP_SECONDS) == 0
    assert "Traceback" not in daemon.said.read_text()
    assert start().ask()["choices"]


def test_second_daemon_is_refused_by_pid(start: Daemons, home: Home) -> None:
    first = start()
    command = [sys.executable, "-m", "acclimate.daemon", "--home", str(home.root), "run"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert f"pid {first.pid}" in " ".join(second.stderr.split())
    assert "Traceback" not in second.stderr
    assert first.ask()["choices"]
    first.kill()
    third = start()  # a lock that was left by a dead one is nobody's
    assert third.ask()["choices"]


def test_a_port_that_is_taken_is_named(start: Daemons, home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settle(home)))
        other.listen()
        daemon = start(ready=False)
        assert daemon.process.wait(30) == 2  # a service manager would not start it again
    said = daemon.said.read_text()
    assert "port" in said and "Traceback" not in said


def test_the_base_is_asked_about_notes_while_the_machine_is_free(
    start: Daemons, home: Home
) -> None:
    settings = home.config.read_text().replace(
        "[schedule]", "[schedule]\nidle_seconds = 0\non_battery = true\nmax_cpu_percent = 100"
    )
    home.config.write_text(f'{settings}\n[study]\nby_model = "on"\n')
    daemon = start()
    daemon.call("POST", "/v1/examples", {"name": "a.md", "text": "Petherwin of the tugs again."})
    assert daemon.call("GET", "/v1/status")["study"]["waiting"] == 1
    until(lambda: daemon.call("GET", "/v1/status")["study"]["waiting"] == 0, 90)
    found = daemon.call("GET", "/v1/status")["study"]
    assert found["asks"] and found["passages"] == 1 and found["kept"] == 0
    assert daemon.terminate(STOP_SECONDS) == 0


def test_waits_for_a_command_that_has_the_home(start: Daemons, home: Home) -> None:
    lock = HomeLock(home)
    lock.acquire()
    daemon = start(ready=False)
    time.sleep(2)
    assert daemon.process.poll() is None
    lock.release()
    assert daemon.ready()


def test_an_embedder_file_that_was_replaced_is_named(start: Daemons, home: Home) -> None:
    path = home.models / f"{EMBEDDER}.gguf"
    with path.open("ab") as file:
        file.write(b"more")
    daemon = start(ready=False)
    assert daemon.process.wait(30) == 1
    assert f"{path} is not the file that was pulled" in daemon.said.read_text()


# The service manager


def test_notifies_its_manager(start: Daemons, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        daemon = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        lines = manager.recv(4096).decode().split("\n")
        assert lines[:2] == ["READY=1", f"MAINPID={daemon.pid}"]
        assert manager.recv(4096) == b"WATCHDOG=1"
        ends_well(daemon)
        rest = []
        manager.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            while True:
                rest.append(manager.recv(4096).decode())
        assert "STOPPING=1" in rest
        assert not any(line.startswith("READY") for line in rest)


# An adapter that cannot serve


def test_damaged_live_adapter_gives_way_to_its_parent(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    assert publish(home, tiny_adapter(1)) == 1
    assert publish(home, tiny_adapter(2), damaged=True) == 2
    daemon = start()
    assert daemon.call("GET", "/health")["live"] == "v0001"
    assert daemon.ask("live")["acclimate"]["adapter"] == "v0001"
    assert query(home, "SELECT from_version, to_version, reason FROM swaps ORDER BY id")[-1] == (
        2,
        1,
        "repair",
    )
    with pytest.raises(httpx.HTTPStatusError) as error:
        daemon.ask("v0002")
    assert status_of(error) == 409
    with pytest.raises(httpx.HTTPStatusError) as error:
        daemon.call("POST", "/v1/adapters/live", {"version": "v0002"})
    assert status_of(error) in (409, 503)
    assert daemon.call("GET", "/health")["live"] == "v0001"


def test_adapter_of_another_shape_gives_way(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    publish(home, tiny_adapter(1))
    publish(home, tiny_adapter(3, architecture="qwen2"))  # whole, but nothing for this base
    daemon = start()
    assert daemon.call("GET", "/health")["live"] == "v0001"
    assert query(home, "SELECT to_version, reason FROM swaps ORDER BY id")[-1] == (1, "crash")


def test_live_adapter_that_ends_the_process_gives_way(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    publish(home, tiny_adapter(1))
    publish(home, tiny_adapter(2))
    with contextlib.closing(Db(home.db)) as db:
        assert ledger.begin_load(db, 2) == 1  # a process that loaded it died here
        assert ledger.begin_load(db, 2) == 2  # and the next one
    daemon = start()
    assert daemon.ask("live")["acclimate"]["adapter"] == "v0001"
    assert query(home, "SELECT from_version, to_version, reason FROM swaps ORDER BY id")[-1] == (
        2,
        1,
        "crash",
    )
    ends_well(daemon)
    assert start().ask("live")["acclimate"]["adapter"] == "v0001"


def test_gives_way_past_a_retired_parent(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    for seed in (1, 2, 3):
        publish(home, tiny_adapter(seed))
    shutil.rmtree(home.adapter_dir(2))
    with contextlib.closing(Db(home.db)) as db:
        ledger.begin_load(db, 3)
        ledger.begin_load(db, 3)
    daemon = start()
    assert daemon.ask("live")["acclimate"]["adapter"] == "v0001"


def test_with_every_adapter_gone_the_base_answers(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    publish(home, tiny_adapter(1), damaged=True)
    publish(home, tiny_adapter(2), damaged=True)
    daemon = start()
    assert daemon.ask("live")["acclimate"]["adapter"] == "base"


def test_a_start_that_is_killed_once_loses_no_adapter(
    start: Daemons, home: Home, tiny_adapter: Callable[..., Path]
) -> None:
    """A power cut is no crash of the adapter, not even one while it was loaded."""
    publish(home, tiny_adapter(1))
    start().kill()
    with contextlib.closing(Db(home.db)) as db:
        ledger.begin_load(db, 1)
    assert start().ask("live")["acclimate"]["adapter"] == "v0001"


# Answers out of notes


def test_an_answer_is_quoted_from_a_note(start: Daemons, home: Home) -> None:
    daemon = start()
    note = (
        "Thursday. A workshop day for once, with the stove lit and nobody on the telephone. The"
        " workshop cat, who is called Pickersgill, walked through the glue and then over the order"
        " book. In the evening I walked along as far as the weir. Two herons, no luck."
    )
    daemon.call("POST", "/v1/examples", {"name": "thursday.md", "text": note})

    def ask(**more: Any) -> Any:
        return daemon.ask("base", 32, "What is our cat called?", retrieval=True, **more)

    until(lambda: query(home, "SELECT count(vector) FROM chunks") == [(1,)])
    said = ask()
    assert said["acclimate"]["quote"] == "Pickersgill"
    assert said["choices"][0]["message"]["content"] == "Pickersgill."
    assert said["choices"][0]["finish_reason"] == "stop"
    assert [p["path"] for p in said["acclimate"]["passages"]] == ["thursday.md"]
    streamed = list(daemon.stream("base", 32, "What is our cat called?", retrieval=True))
    pieces = [event["choices"][0]["delta"].get("content") or "" for event in streamed]
    assert "".join(pieces) == "Pickersgill."
    assert ask(temperature=1.5)["choices"][0]["message"]["content"] == "Pickersgill."
    other = daemon.ask("base", 8, "Why is the sky blue?", retrieval=True)
    assert other["acclimate"]["quote"] is None
    shut = daemon.ask("base", 8, "What is our cat called?", retrieval=False)
    assert shut["acclimate"]["quote"] is None


# The drive


def test_home_pulled_out_and_back(start: Daemons, home: Home, tmp_path: Path) -> None:
    watched = tmp_path / "chats"
    watched.mkdir()
    daemon = start()
    daemon.call("POST", "/v1/sources", {"path": str(watched), "kind": "chat"})
    daemon.add("one", "two")
    number = daemon.call("POST", "/v1/rounds", {})["round"]
    worker = psutil.Process(until(lambda: _worker(daemon, number)))
    away = tmp_path / "away"
    with talking(daemon):
        home.root.rename(away)
        with pytest.raises(httpx.HTTPStatusError) as error:
            daemon.add("three")
        assert status_of(error) == 503
        until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        until(lambda: "home_detached" in daemon.said.read_text())
        for method, path, body in (
            ("POST", "/v1/examples", {"name": "x.jsonl", "text": "{}"}),
            ("POST", "/v1/rounds", {}),
            ("POST", "/v1/forget", {"target": "1"}),
            ("POST", "/v1/adapters/live", {"version": "base"}),
            ("GET", "/v1/adapters", None),
            ("GET", "/v1/status", None),
        ):
            asked = (daemon, method, path, body)
            until(lambda asked=asked: refused(*asked) == 503)
        reply = daemon.ask("live")
        assert reply["choices"][0]["message"]["content"] and reply["acclimate"]["warnings"]
        assert daemon.call("GET", "/health")["status"] == "ok"
    assert not home.root.exists(), "something was written where the drive had been"
    away.rename(home.root)
    until(lambda: "home_attached" in daemon.said.read_text())
    until(lambda: _accepted(lambda: daemon.add("four")))
    assert daemon.call("GET", f"/v1/rounds/{number}")["state"] == "failed"
    contents = query(home, "SELECT content FROM examples WHERE state = 'pending'")
    assert sorted(json.loads(c)["messages"][-1]["content"] for (c,) in contents) == [
        "Rex four.", "Rex one.", "Rex two.",
    ]  # fmt: skip
    (watched / "five.jsonl").write_text('{"instruction": "five?", "output": "Five."}')
    until(lambda: len(query(home, "SELECT 1 FROM examples")) == 4)  # it watches again
    assert json.loads((home.root / "run.json").read_text())["pid"] == daemon.pid
    ends_well(daemon)


def refused(daemon: RealDaemon, method: str, path: str, body: Any) -> int:
    """The status of a request that must not be served."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        daemon.call(method, path, body)
    return status_of(error)


def _accepted(call: Callable[[], Any]) -> bool:
    try:
        call()
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 503
        return False
    return True


def test_sigterm_while_the_home_is_away(start: Daemons, home: Home, tmp_path: Path) -> None:
    daemon = start()
    home.root.rename(tmp_path / "away")
    until(lambda: "home_detached" in daemon.said.read_text())
    assert daemon.terminate(STOP_SECONDS) == 0
    assert "Traceback" not in daemon.said.read_text()
    assert not home.root.exists()


def test_another_home_in_its_place_is_not_taken_for_it(
    start: Daemons, home: Home, tmp_path: Path
) -> None:
    daemon = start()
    home.root.rename(tmp_path / "away")
    other = Home.create(home.root)
    until(lambda: "home_detached" in daemon.said.read_text())
    with pytest.raises(httpx.HTTPStatusError) as error:
        daemon.add("one")
    assert status_of(error) == 503
    before = sorted(path.name for path in other.root.rglob("*"))
    assert before == sorted([".acclimate-home", "adapters", "cache", "log", "models"])
    assert list(other.models.iterdir()) == []
