"""sd_notify against a real datagram socket, by path and in the abstract namespace."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acclimate.daemon.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    if request.param == "abstract":
        if sys.platform != "linux":
            pytest.skip("abstract sockets exist on Linux only")
        name = f"@acclimate-test-{os.getpid()}"
        address: str | bytes = b"\0" + name[1:].encode()
    else:
        name = address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(5)
        yield receiver, name


def test_says_ready_status_watchdog_stopping(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.enabled
    assert notifier.ready("serving v0003")
    assert receiver.recv(4096).decode().split("\n") == [
        "READY=1",
        f"MAINPID={os.getpid()}",
        "STATUS=serving v0003",
    ]
    assert notifier.status("learning: 3 of 40")
    assert receiver.recv(4096) == b"STATUS=learning: 3 of 40"
    assert notifier.watchdog()
    assert receiver.recv(4096) == b"WATCHDOG=1"
    assert notifier.stopping()
    assert receiver.recv(4096) == b"STOPPING=1"


def test_a_line_break_in_a_status_is_no_second_assignment(
    manager: tuple[socket.socket, str],
) -> None:
    receiver, name = manager
    Notifier({"NOTIFY_SOCKET": name}).status("a file named\nREADY=1")
    assert receiver.recv(4096) == b"STATUS=a file named READY=1"


def test_no_manager_is_no_work_and_no_error(tmp_path: Path) -> None:
    assert not Notifier({}).ready()
    assert not Notifier({"NOTIFY_SOCKET": "vsock:2:1"}).enabled
    gone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert gone.enabled
    assert gone.watchdog() is False


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_seconds == seconds
