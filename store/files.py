"""The home folder's layout, and writes that survive a power cut.

Knows nothing about what the files mean.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from acclimate.store.errors import HomeError, StoreError

MARKER = ".acclimate-home"
TEMP_PREFIX = ".tmp-"
_FOLDERS = ("models", "adapters", "cache", "log")
_VERSION = re.compile(r"v(\d{4,})")
_hits: Counter[str] = Counter()


@dataclass(frozen=True)
class Home:
    """The one folder that holds everything that must survive."""

    root: Path
    id: str

    @classmethod
    def create(cls, root: Path) -> Self:
        """Make a home at `root`, or open the one that is there. Raises HomeError."""
        root = root.expanduser().resolve()
        if (root / MARKER).exists():
            return cls.open(root)
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in _FOLDERS:
                (root / name).mkdir(exist_ok=True, mode=0o700)
            home = cls(root, str(uuid.uuid4()))
            # The marker comes last: a folder that has one is complete.
            atomic_write(home.marker, json.dumps({"id": home.id}).encode())
        except OSError as e:
            raise HomeError(
                f"cannot make a home at {root}: {e.strerror}", "choose another folder with --home"
            ) from e
        return home

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the home at `root`. Raises HomeError when there is none."""
        root = root.expanduser().resolve()
        home_id = _read_marker(root / MARKER)
        if home_id is None:
            raise HomeError(f"no Acclimate home at {root}", "make one with: acclimate init")
        return cls(root, home_id)

    def attached(self) -> bool:
        """Whether the home is still there: a pulled drive looks like an empty folder."""
        return _read_marker(self.marker) == self.id

    def adapter_dir(self, version: int) -> Path:
        """Folder of an accepted adapter, `adapters/v0007`."""
        return self.adapters / version_name(version)

    @property
    def portable(self) -> bool:
        """Whether every path of this home must be relative to it."""
        return (self.root / "portable").exists()

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def db(self) -> Path:
        return self.root / "acclimate.db"

    @property
    def index(self) -> Path:
        return self.root / "index.faiss"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def chat_history(self) -> Path:
        """Lines that were typed in `chat`."""
        return self.root / "chat_history"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def marker(self) -> Path:
        return self.root / MARKER

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def checkpoint(self) -> Path:
        """What a round that was killed goes on from; it holds what was learned so far."""
        return self.cache / "checkpoint.safetensors"

    def drop_checkpoint(self) -> None:
        """Removes it, and one that was being written."""
        for path in self.cache.glob(f"{self.checkpoint.stem}.*"):
            path.unlink(missing_ok=True)

    @property
    def log(self) -> Path:
        return self.root / "log"


def _read_marker(path: Path) -> str | None:
    try:
        home_id = json.loads(path.read_bytes())["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return home_id if isinstance(home_id, str) else None


def version_name(version: int) -> str:
    """7 → "v0007". Raises ValueError below 1."""
    if version < 1:
        raise ValueError(f"adapter versions start at 1, not {version}")
    return f"v{version:04d}"


def parse_version(name: str) -> int:
    """ "v0007" → 7. Raises ValueError for anything that `version_name` does not give."""
    match = _VERSION.fullmatch(name)
    if not match or not name.isascii() or version_name(int(match[1])) != name:
        raise ValueError(f"{name!r} is not an adapter version such as v0007")
    return int(match[1])


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: after a crash there is the old file or the new one, whole.

    `mode` is narrowed by the umask. Raises OSError, and then `path` is as it was.
    """
    temp = path.with_name(f"{TEMP_PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        with open(temp, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            failpoint("atomic_write.written")
            file.flush()
            sync(file.fileno())
        failpoint("atomic_write.synced")
        temp.replace(path)
        failpoint("atomic_write.renamed")
    except BaseException:
        temp.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def fsync_file(path: Path) -> None:
    """Make a file that somebody else wrote durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as e:
        # FUSE file systems such as exfat-fuse know no fsync of a folder.
        if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def temp_folder(parent: Path) -> Path:
    """A new empty folder in `parent`, to be published; reconciling clears one left behind."""
    path = parent / f"{TEMP_PREFIX}{secrets.token_hex(8)}"
    path.mkdir(mode=0o700)
    return path


def publish_folder(temp: Path, final: Path) -> None:
    """Give a finished folder its name: all of it or nothing. Raises StoreError if taken."""
    if final.exists():
        raise StoreError(f"{final} exists already", "published folders are never changed")
    for folder, _, names in os.walk(temp, topdown=False):
        for name in names:
            fsync_file(Path(folder, name))
        fsync_dir(Path(folder))
    failpoint("publish_folder.synced")
    temp.rename(final)
    failpoint("publish_folder.renamed")
    fsync_dir(final.parent)
    failpoint("publish_folder.done")


def remove_tree(path: Path) -> None:
    """Remove a folder; a crash never leaves half of it under its own name."""
    if not path.exists():
        return
    doomed = path
    if not path.name.startswith(TEMP_PREFIX):
        doomed = path.with_name(f"{TEMP_PREFIX}{secrets.token_hex(8)}")
        path.rename(doomed)
        failpoint("remove_tree.renamed")
    shutil.rmtree(doomed)
    fsync_dir(path.parent)


def sync(fd: int) -> None:
    """fsync that also empties the drive's own cache on macOS. Raises OSError: never go on then."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(fd, full)
        except OSError as e:
            if e.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        else:
            return
    os.fsync(fd)


def failpoint(name: str) -> None:
    """Die here by SIGKILL when ACCLIMATE_FAILPOINT is `name`, or `name:3` for the third time.

    It lets a test cut the process at every write, fsync and rename.
    """
    wanted = os.environ.get("ACCLIMATE_FAILPOINT")
    if not wanted:
        return
    point, _, count = wanted.partition(":")
    if point != name:
        return
    _hits[name] += 1
    if _hits[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
