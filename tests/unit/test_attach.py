"""A home that vanishes and comes back."""

import errno
import queue
from pathlib import Path

import pytest

from acclimate.daemon import attach
from acclimate.daemon.attach import Attachment, mount_of
from acclimate.store.files import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "mount" / "home")


def test_sees_it_go_and_come_back_and_makes_nothing(home: Home, tmp_path: Path) -> None:
    seen: queue.Queue[str] = queue.Queue()
    attachment = Attachment(home, interval_seconds=0.01)
    attachment.start(lambda: seen.put("detached"), lambda: seen.put("attached"))
    try:
        home.root.rename(tmp_path / "pulled")
        assert seen.get(timeout=5) == "detached"
        assert not attachment.attached
        assert list((tmp_path / "mount").iterdir()) == []
        (tmp_path / "pulled").rename(home.root)
        assert seen.get(timeout=5) == "attached"
        assert attachment.attached
    finally:
        attachment.stop()
    assert seen.empty()


def test_another_home_at_the_same_place_is_not_ours(home: Home, tmp_path: Path) -> None:
    attachment = Attachment(home)
    assert attachment.check()
    home.root.rename(tmp_path / "pulled")
    Home.create(home.root)
    assert not attachment.check()


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ENOENT, errno.ESTALE])
def test_no_error_of_a_dying_drive_gets_out(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    attachment = Attachment(home)

    def dying(_home: Home) -> bool:
        raise OSError(number, "dying")

    monkeypatch.setattr(Home, "attached", dying)
    assert attachment.check() is False


def test_a_vanished_device_node_is_believed_before_a_cached_marker(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "sdx1"
    node.touch()
    monkeypatch.setattr(attach, "_device", lambda _root: node if node.exists() else None)
    attachment = Attachment(home)
    assert attachment.check()
    node.unlink()
    assert not attachment.check()
    node.touch()
    assert attachment.check()


def test_a_callback_that_fails_is_tried_again(home: Home, tmp_path: Path) -> None:
    seen: queue.Queue[str] = queue.Queue()
    failures = [RuntimeError("not yet")]

    def take_up() -> None:
        if failures:
            raise failures.pop()
        seen.put("attached")

    attachment = Attachment(home, interval_seconds=0.01)
    attachment.start(lambda: seen.put("detached"), take_up)
    try:
        home.root.rename(tmp_path / "pulled")
        assert seen.get(timeout=5) == "detached"
        (tmp_path / "pulled").rename(home.root)
        assert seen.get(timeout=5) == "attached"
    finally:
        attachment.stop()


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_finds_the_mount_of_a_path() -> None:
    mount = mount_of(Path("/proc/self"))
    assert mount is not None
    assert (mount.point, mount.kind) == (Path("/proc"), "proc")


def test_mount_points_are_unescaped() -> None:
    assert attach._unescape(r"/media/My\040Stick\134") == "/media/My Stick\\"
