"""Notices that the home's drive was pulled out, and that it came back.

Only looks; what to stop and to take up again is the caller's.
"""

import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from acclimate.store.files import Home

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Mount:
    """The file system that a path lies on."""

    point: Path
    kind: str  # "ext4", "vfat", "fuseblk", …
    source: str  # "/dev/sdb1", "tmpfs", …


class Attachment:
    """Whether the home is there, and a thread that calls back when that changes.

    The marker file decides. Beside it the drive's device node is looked at, because the kernel may
    go on to serve a small file from its cache after the drive is gone. Reading is all that is ever
    done: a folder made here would end up on the empty mount point.
    """

    def __init__(self, home: Home, *, interval_seconds: float = 2.0) -> None:
        self._home = home
        self._interval_seconds = interval_seconds
        self._device = _device(home.root)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.attached = True  # as last seen

    def check(self) -> bool:
        """Look now. Never raises."""
        try:
            if not self._home.attached():
                return False
            if self._device is not None and not self._device.exists():
                self._device = _device(self._home.root)  # it may be back under another name
                return self._device is not None
        except Exception:  # ENOTCONN, EIO, ESTALE and whatever else a dying drive comes up with
            return False
        return True

    def start(
        self, on_detached: Callable[[], None], on_attached: Callable[[], None]
    ) -> "Attachment":
        """Watch from a thread; the callbacks run in it, one at a time, in turn.

        `on_detached` should close every file of the home (database, lock, log): as long as one is
        open the kernel keeps the dead file system, and for a FUSE one hands it out once more to
        the next mount of that device.
        """
        if self._thread is not None:
            raise RuntimeError("this attachment is watched already")
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._watch, args=(on_detached, on_attached), name="attachment", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread; waits for a callback that is running."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _watch(self, on_detached: Callable[[], None], on_attached: Callable[[], None]) -> None:
        while not self._stop.wait(self._interval_seconds):
            now = self.check()
            if now == self.attached:
                continue
            self.attached = now
            log.warning("home_attached" if now else "home_detached", home=str(self._home.root))
            try:
                (on_attached if now else on_detached)()
            except Exception as e:
                # The thread must outlive a callback: the next change has to be seen as well. A
                # take-up that failed is tried again at the next look.
                log.error("attachment_callback_failed", attached=now, error=str(e))
                if now:
                    self.attached = False


def mount_of(path: Path) -> Mount | None:
    """The mount that `path` lies on (the topmost, where mounts are stacked); None off Linux."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    path = Path(os.path.normpath(path))
    best: Mount | None = None
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(_unescape(left.split()[4]))
        kind, source = right.split()[:2]
        deeper = best is None or len(point.parts) >= len(best.point.parts)
        if deeper and path.is_relative_to(point):
            best = Mount(point, kind, _unescape(source))
    return best


def _device(root: Path) -> Path | None:
    """The block device under `root`, where this process can see its node."""
    mount = mount_of(root)
    if mount is None or not mount.source.startswith("/dev/"):
        return None
    node = Path(mount.source)
    return node if node.exists() else None


def _unescape(field: str) -> str:
    r"""mountinfo writes space, tab, line feed and backslash as \040, \011, \012 and \134."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
