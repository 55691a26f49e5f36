"""A file inside a source → its bytes or text, safely: no links, no devices, nothing torn.

Knows no database and no chunks.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from acclimate.store.errors import SourceError

MAX_FILE_BYTES = 4_000_000
MAX_DEPTH = 64  # folders below a source; each open level holds a file descriptor
_TRIES = 3
_RETRY_SECONDS = 0.05
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True)
class Raw:
    """A file as it was at one moment."""

    data: bytes
    sha256: str
    size: int
    mtime_ns: int


class Missing(SourceError):
    """The file is not there."""


class Refused(SourceError):
    """The file is there but cannot be taken; `message` says why.

    `size` and `mtime_ns` tell when it has changed and is worth another look; without them the
    reason may pass by itself.
    """

    def __init__(self, reason: str, size: int | None = None, mtime_ns: int | None = None) -> None:
        super().__init__(reason)
        self.size = size
        self.mtime_ns = mtime_ns


def read_file(root: Path, relative: str, max_bytes: int = MAX_FILE_BYTES) -> Raw:
    """Read `root`/`relative` whole, following no link below `root`. Raises Missing, Refused.

    Every folder on the way is opened by its own descriptor, so one that is exchanged for a link
    meanwhile leads nowhere. A file that changes while it is read is read again.
    """
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in relative:
        raise Refused("not a path inside its source")
    if len(parts) > MAX_DEPTH:
        raise Refused(f"more than {MAX_DEPTH} folders deep")
    try:
        with _open_folder(root, parts[:-1]) as folder:
            for _ in range(_TRIES):
                raw = _read_once(folder, parts[-1], max_bytes)
                if raw is not None:
                    return raw
                time.sleep(_RETRY_SECONDS)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            raise Missing("not there") from None
        if e.errno in (errno.ELOOP, errno.EMLINK):
            raise Refused("behind a symbolic link") from None
        raise Refused(f"cannot be read: {e.strerror}") from None
    raise Refused("changing while it is read")


@contextmanager
def _open_folder(root: Path, parts: tuple[str, ...]) -> Iterator[int]:
    folder = os.open(root, _FOLDER)
    try:
        for part in parts:
            below = open_below(folder, part)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def open_below(folder: int, name: str) -> int:
    """Open a folder inside an open one, never through a link. Raises OSError."""
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        # With O_DIRECTORY, Linux would call it "not a directory".
        raise OSError(errno.ELOOP, "a symbolic link")
    return os.open(name, _FOLDER, dir_fd=folder)


def _read_once(folder: int, name: str, max_bytes: int) -> Raw | None:
    # Opening a device can have effects of its own, so look first.
    _check(os.stat(name, dir_fd=folder, follow_symlinks=False), max_bytes)
    fd = os.open(name, _FILE, dir_fd=folder)
    try:
        before = os.fstat(fd)
        _check(before, max_bytes)
        data = _read_all(fd, max_bytes + 1)
        sha256 = hashlib.sha256(data).hexdigest()
        # A write within the clock's tick leaves the times alone: the bytes themselves must agree.
        os.lseek(fd, 0, os.SEEK_SET)
        again = hashlib.sha256(_read_all(fd, max_bytes + 1)).hexdigest()
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if sha256 != again or len(data) != after.st_size or _moment(before) != _moment(after):
        return None
    return Raw(data, sha256, after.st_size, after.st_mtime_ns)


def _check(found: os.stat_result, max_bytes: int) -> None:
    at = (found.st_size, found.st_mtime_ns)
    if stat.S_ISLNK(found.st_mode):
        raise Refused("a symbolic link, not followed", *at)
    if not stat.S_ISREG(found.st_mode):
        raise Refused("not a regular file", *at)
    if found.st_nlink > 1 and found.st_uid != os.geteuid():
        raise Refused("a hard link to another user's file", *at)
    if found.st_size > max_bytes:
        raise Refused(f"larger than {max_bytes / 1e6:g} MB", *at)


def _read_all(fd: int, limit: int) -> bytes:
    parts = []
    while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _moment(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def decode(raw: Raw) -> str:
    """The text of a file, with \\n line ends. Raises Refused for what is not text."""
    try:
        if raw.data.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = raw.data.decode("utf-16")
        else:
            text = raw.data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        kind = "binary, or text in an old encoding: no UTF-8"
        raise Refused(f"{kind} at byte {e.start + 1}", raw.size, raw.mtime_ns) from None
    if "\0" in text:
        raise Refused(
            f"binary: a NUL at character {text.index(chr(0)) + 1}", raw.size, raw.mtime_ns
        )
    return text.replace("\r\n", "\n")
