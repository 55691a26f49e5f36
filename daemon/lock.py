"""One daemon to a home: the second is refused, a lock left by a dead one is taken over.

Knows nothing of what the daemon does with the home.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil
from filelock import FileLock, Timeout

from acclimate.store.errors import Detached, HomeError
from acclimate.store.files import Home

_NO_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK})
_UNFINISHED_SECONDS = 5.0  # between the creation of a lock file and its first line


class Locked(HomeError):
    """Somebody else holds the lock; it may be free soon."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: enough to tell a living owner from a dead one."""

    pid: int
    process: str  # when that process began, since pids are used again
    boot_id: str
    host: str
    started: float  # unix seconds, for people

    @classmethod
    def current(cls) -> Self:
        pid = os.getpid()
        return cls(pid, _process_start(pid), boot_id(), host_id(), time.time())

    def alive(self) -> bool:
        """Whether that process may still run. Of another computer nothing is known: True."""
        if self.host != host_id():
            return True
        return self.boot_id == boot_id() and _process_start(self.pid) == self.process != ""


class HomeLock:
    """The exclusive right to write a home.

    `flock` decides where there is one: the kernel drops it with its process, whatever the process
    died of. Elsewhere (some network and FUSE file systems) a file that is created exclusively
    stands for it, and its content tells whether the owner is still alive. Keep the object: under
    `flock` the lock ends with it.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._release: Callable[[], None] | None = None

    @property
    def held(self) -> bool:
        return self._release is not None

    def acquire(self) -> None:
        """Take the lock now. Raises Locked naming the owner, Detached without the home."""
        if self.held:
            return
        if not self._home.attached():  # or a lock file would appear on the empty mount point
            raise Detached(f"{self._home.root} is not there", "plug the drive in again")
        try:
            self._release = self._flock()
        except OSError as e:
            if e.errno not in _NO_FLOCK:
                raise HomeError(
                    f"cannot lock {self._home.lock}: {e.strerror}", "is the folder writable?"
                ) from e
            self._release = self._exclusive_file()

    def release(self) -> None:
        """Give the lock back; never raises, since the drive may be gone."""
        release, self._release = self._release, None
        if release is not None:
            with contextlib.suppress(OSError):
                release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def _flock(self) -> Callable[[], None]:
        lock = FileLock(self._home.lock, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise _refusal(self._home, _read(self._home.lock)) from None
        try:
            # In place: the lock is on this inode, a renamed file would be another one.
            self._home.lock.write_bytes(_encode(Owner.current()))
        except BaseException:
            lock.release(force=True)
            raise
        return lambda: lock.release(force=True)

    def _exclusive_file(self) -> Callable[[], None]:
        path = self._home.lock.with_name("lock.owner")
        mine = _encode(Owner.current())
        for _ in range(3):  # each turn either wins, refuses, or clears one stale file away
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                self._clear_if_stale(path)
                continue
            with os.fdopen(fd, "wb") as file:
                file.write(mine)
                file.flush()
                os.fsync(file.fileno())
            return lambda: _unlink_own(path, mine)
        raise _refusal(self._home, _read(path))

    def _clear_if_stale(self, path: Path) -> None:
        try:
            content = path.read_bytes()
            age_seconds = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return
        owner = _decode(content)
        if (owner and owner.alive()) or (owner is None and 0 <= age_seconds < _UNFINISHED_SECONDS):
            raise _refusal(self._home, owner)
        # Of two that find the same stale file only one can rename it; should that one have caught
        # a lock made in between, it puts it back.
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            if aside.read_bytes() != content and not path.exists():
                aside.rename(path)
            else:
                aside.unlink()


def _refusal(home: Home, owner: Owner | None) -> Locked:
    if owner is None:
        return Locked(f"another daemon uses {home.root}", "stop it first")
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(owner.started))
    if owner.host != host_id():
        return Locked(
            f"a daemon on another computer uses {home.root} (pid {owner.pid}, since {since})",
            "if it does not run any more, delete the file lock.owner there",
        )
    return Locked(
        f"a daemon uses {home.root} already (pid {owner.pid}, since {since})",
        f"talk to that one, or stop it: kill {owner.pid}",
    )


def _encode(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode() + b"\n"


def _decode(content: bytes) -> Owner | None:
    try:
        owner = Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None
    numbers = isinstance(owner.pid, int) and isinstance(owner.started, int | float)
    return owner if numbers else None


def _read(path: Path) -> Owner | None:
    for _ in range(5):  # its owner may just be writing it
        with contextlib.suppress(OSError):
            if owner := _decode(path.read_bytes()):
                return owner
        time.sleep(0.05)
    return None


def _unlink_own(path: Path, mine: bytes) -> None:
    if path.read_bytes() == mine:
        path.unlink()


def _process_start(pid: int) -> str:
    """When a process began, on a clock that nobody sets; "" when there is no such process."""
    try:
        if sys.platform == "linux":
            # The command name stands in parentheses and may hold spaces; starttime is field 22.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if fields[0] == "Z" else fields[19]
        return str(psutil.Process(pid).create_time())
    except (OSError, IndexError, psutil.Error):
        return ""


def boot_id() -> str:
    """Changes with every start of the machine."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=5
            ).stdout.strip()
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return str(int(psutil.boot_time()))


def host_id() -> str:
    """Tells computers apart; a hash, for the machine id itself is not to be passed around."""
    raw = str(uuid.getnode())
    with contextlib.suppress(OSError):
        raw = Path("/etc/machine-id").read_text().strip() or raw
    return hashlib.sha256(f"acclimate:{raw}".encode()).hexdigest()[:16]
