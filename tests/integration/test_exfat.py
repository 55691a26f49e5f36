"""A portable home on a real exFAT image: no modes, no links, and a drive that is pulled out."""

import os
import queue
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from acclimate.daemon.attach import Attachment
from acclimate.daemon.lock import HomeLock
from acclimate.daemon.portable import make_portable
from acclimate.daemon.token import host_token_path, load_or_create_token
from acclimate.store.db import Db
from acclimate.store.errors import Detached, HomeError
from acclimate.store.files import Home

TOOLS = ("losetup", "mkfs.exfat", "mount.exfat-fuse", "umount")


@dataclass
class Stick:
    """A loop device with exFAT on it that can be plugged in and pulled out."""

    device: str
    point: Path

    def plug_in(self) -> None:
        sudo("mount.exfat-fuse", self.device, str(self.point))

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.point)], capture_output=True)
        for process in self._served_by():
            process.wait(timeout=10)

    def kill(self) -> None:
        """The file system's process dies: every call on the mount fails with ENOTCONN."""
        for process in self._served_by():
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=10)

    def _served_by(self) -> list[psutil.Process]:
        mine = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command[:1] == ["mount.exfat-fuse"] and str(self.point) in command:
                mine.append(process)
        return mine


def sudo(*command: str) -> str:
    """Run as we are (CI containers are root); what is not allowed here skips the test."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        pytest.skip(f"{command[0]} is not allowed here: {said[-1] if said else done.returncode}")
    return done.stdout.strip()


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Stick]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} (apt install exfatprogs exfat-fuse mount)")
    image = tmp_path / "stick.img"
    with image.open("wb") as file:
        file.truncate(64 * 2**20)
    device = sudo("losetup", "--find", "--show", str(image))
    stick = Stick(device, tmp_path / "media")
    stick.point.mkdir()
    try:
        sudo("mkfs.exfat", device)
        stick.plug_in()
        yield stick
    finally:
        stick.unmount()
        subprocess.run(["losetup", "--detach", device], capture_output=True)


@pytest.fixture
def home(stick: Stick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A portable home on the stick, made from one on this machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    origin = Home.create(tmp_path / "origin")
    (origin.models / "base.gguf").write_bytes(os.urandom(2_000_000))
    db = Db(origin.db)
    with db.write() as conn:
        conn.execute("INSERT INTO settings (key, value) VALUES ('seen', '1')")
    load_or_create_token(origin)
    made = make_portable(origin, stick.point, lambda *_: None, with_program=False)
    db.close()
    assert made.home.root == stick.point / "home"
    return made.home


def test_the_drive_is_as_poor_as_said(stick: Stick) -> None:
    probe = stick.point / "probe"
    probe.touch()
    probe.chmod(0o600)
    assert stat.S_IMODE(probe.stat().st_mode) == 0o777
    with pytest.raises(OSError):
        (stick.point / "link").symlink_to(probe)


def test_the_database_works_in_whatever_mode_the_drive_allows(home: Home, stick: Stick) -> None:
    db = Db(home.db, attached=home.attached)
    assert db.journal_mode in ("wal", "truncate")
    assert db.read().execute("SELECT value FROM settings").fetchone()[0] == "1"
    with db.write() as conn:
        conn.execute("INSERT INTO settings (key, value) VALUES ('there', '2')")
    assert db.integrity_check() == []
    db.close()
    stick.unmount()
    stick.plug_in()
    db = Db(home.db)
    assert db.read().execute("SELECT count(*) FROM settings").fetchone()[0] == 2
    db.close()


def test_the_token_stays_on_the_host(home: Home, stick: Stick) -> None:
    token = load_or_create_token(home)
    assert not home.token.exists()
    kept = host_token_path(home)
    assert kept.read_text().strip() == token
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert load_or_create_token(home) == token
    stick.unmount()
    stick.plug_in()
    for path in stick.point.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


def test_a_second_daemon_is_refused(home: Home) -> None:
    with HomeLock(home), pytest.raises(HomeError, match=f"pid {os.getpid()}"):
        HomeLock(home).acquire()
    with HomeLock(home) as lock:
        assert lock.held


@pytest.mark.parametrize("pulled", ["killed", "unmounted"])
def test_pulled_out_and_plugged_in_again(home: Home, stick: Stick, pulled: str) -> None:
    lock = HomeLock(home)
    lock.acquire()
    db = Db(home.db, attached=home.attached)
    seen: queue.Queue[str] = queue.Queue()
    attachment = Attachment(home, interval_seconds=0.05)

    def let_go() -> None:
        with pytest.raises(Detached), db.write() as conn:
            conn.execute("DELETE FROM settings")
        db.close()
        lock.release()
        seen.put("detached")

    def take_up() -> None:
        lock.acquire()
        db.reopen()
        seen.put("attached")

    attachment.start(let_go, take_up)
    try:
        if pulled == "killed":
            stick.kill()
        else:
            subprocess.run(["umount", "-l", str(stick.point)], check=True)
        assert seen.get(timeout=10) == "detached"
        assert not attachment.check()
        with pytest.raises(Detached):
            HomeLock(home).acquire()
        stick.unmount()
        assert list(stick.point.iterdir()) == []  # nothing was made beside the drive
        time.sleep(0.2)
        assert list(stick.point.iterdir()) == []
        stick.plug_in()
        assert seen.get(timeout=10) == "attached"
        with db.write() as conn:
            conn.execute("INSERT INTO settings (key, value) VALUES ('back', '3')")
        assert db.integrity_check() == []
        with pytest.raises(HomeError, match=f"pid {os.getpid()}"):
            HomeLock(home).acquire()
    finally:
        attachment.stop()
        db.close()
        lock.release()


def test_a_full_drive_is_said_and_the_copy_goes_on_elsewhere(stick: Stick, tmp_path: Path) -> None:
    origin = Home.create(tmp_path / "large")
    (origin.models / "base.gguf").write_bytes(bytes(80 * 2**20))
    with pytest.raises(HomeError, match="GB are needed"):
        make_portable(origin, stick.point, lambda *_: None, with_program=False)
    assert list(stick.point.glob("**/base.gguf")) == []
