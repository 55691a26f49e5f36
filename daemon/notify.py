"""Tells the service manager how the daemon is: ready, busy with what, alive, stopping.

Speaks sd_notify(3)'s datagrams; without NOTIFY_SOCKET every call does nothing.
"""

import os
import socket
import sys
from collections.abc import Mapping


class Notifier:
    """One datagram socket's worth of sd_notify; safe to call from any thread, never raises.

    A daemon must not die because its manager's socket went away, so send errors are dropped:
    the manager's watchdog is what notices.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self.address = _address(path)
        self.watchdog_seconds = _watchdog_seconds(environ)

    @property
    def enabled(self) -> bool:
        return self.address is not None

    def send(self, *lines: str) -> bool:
        """True when the manager's socket took the datagram."""
        if self.address is None:
            return False
        # A STATUS with a line break in it would be read as a second assignment.
        message = "\n".join(" ".join(line.splitlines()) for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self.address)
        except OSError:
            return False
        return True

    def ready(self, status: str = "") -> bool:
        return self.send("READY=1", f"MAINPID={os.getpid()}", *_status(status))

    def status(self, status: str) -> bool:
        return self.send(f"STATUS={status}")

    def watchdog(self) -> bool:
        """Call at least every `watchdog_seconds`; the daemon is killed and restarted otherwise."""
        return self.send("WATCHDOG=1")

    def stopping(self, status: str = "") -> bool:
        return self.send("STOPPING=1", *_status(status))


def _status(status: str) -> tuple[str, ...]:
    return (f"STATUS={status}",) if status else ()


def _address(path: str) -> str | bytes | None:
    if path.startswith("/"):
        return path
    if path.startswith("@") and sys.platform == "linux":  # abstract namespace: NUL, then the name
        return b"\0" + os.fsencode(path[1:])
    return None


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Half of what the manager allows, as sd_watchdog_enabled(3) advises; None: no watchdog.

    WATCHDOG_PID names the process that is meant: a child that inherits the environment is not.
    """
    usec = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdecimal() or int(usec) == 0 or pid != str(os.getpid()):
        return None
    return int(usec) / 1e6 / 2
