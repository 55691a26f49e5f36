"""One daemon to a home, with flock and without."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acclimate.daemon import lock as lock_module
from acclimate.daemon.lock import HomeLock, Owner
from acclimate.store.errors import Detached, HomeError
from acclimate.store.files import Home

HOLDER = """
import sys, time
from pathlib import Path
from acclimate.daemon import lock
from acclimate.store.files import Home
if sys.argv[2] == "exclusive":
    import test_lock_no_flock
held = lock.HomeLock(Home.open(Path(sys.argv[1])))
held.acquire()
print("held", flush=True)
time.sleep(60)
"""
NO_FLOCK = """
import errno
from acclimate.daemon import lock
def refuse(self):
    raise OSError(errno.EOPNOTSUPP, "no flock here")
lock.HomeLock._flock = refuse
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.create(tmp_path / "home")


@pytest.fixture(params=["flock", "exclusive"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    way = str(request.param)
    if way == "exclusive":
        without_flock(monkeypatch)
    return way


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: HomeLock) -> None:
        raise OSError(errno.EOPNOTSUPP, "no flock here")

    monkeypatch.setattr(HomeLock, "_flock", refuse)


def start_holder(home: Home, way: str, tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "test_lock_no_flock.py").write_text(NO_FLOCK)
    paths = [str(tmp_path), *(entry for entry in sys.path if entry)]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.root), way],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_the_second_is_refused_by_pid_and_a_killed_one_is_followed(
    home: Home, way: str, tmp_path: Path
) -> None:
    holder = start_holder(home, way, tmp_path)
    try:
        with pytest.raises(HomeError, match=f"pid {holder.pid}") as refused:
            HomeLock(home).acquire()
        assert f"kill {holder.pid}" in refused.value.hint
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with HomeLock(home) as lock:
        assert lock.held


def test_released_and_taken_again(home: Home, way: str) -> None:
    first, second = HomeLock(home), HomeLock(home)
    first.acquire()
    with pytest.raises(HomeError, match=f"pid {os.getpid()}"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    assert second.held and not first.held


def test_the_lock_file_names_its_owner(home: Home) -> None:
    with HomeLock(home):
        content = json.loads(home.lock.read_text())
    assert content["pid"] == os.getpid()
    assert content["boot_id"] == lock_module.boot_id()
    assert abs(content["started"] - time.time()) < 60


@pytest.mark.parametrize(
    "change",
    [{"boot_id": "another boot"}, {"process": "1"}, {"pid": 2**22 + 1}],
    ids=["other boot", "pid used again", "dead pid"],
)
def test_a_stale_exclusive_file_is_taken_over(
    home: Home, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    without_flock(monkeypatch)
    path = home.root / "lock.owner"
    path.write_text(json.dumps({**vars(Owner.current()), **change}))
    with HomeLock(home):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert sorted(p.name for p in home.root.glob("lock*")) == []


def test_another_computer_cannot_be_asked_so_it_is_believed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    owner = {**vars(Owner.current()), "host": "another", "boot_id": "another", "pid": 77}
    (home.root / "lock.owner").write_text(json.dumps(owner))
    with pytest.raises(HomeError, match=r"another computer .*pid 77") as refused:
        HomeLock(home).acquire()
    assert "lock.owner" in refused.value.hint


def test_an_empty_exclusive_file_is_stale_after_a_while(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_flock(monkeypatch)
    path = home.root / "lock.owner"
    path.touch()
    with pytest.raises(HomeError, match="another daemon"):
        HomeLock(home).acquire()
    os.utime(path, (time.time() - 60, time.time() - 60))
    HomeLock(home).acquire()


def test_nothing_is_made_where_the_home_is_gone(home: Home) -> None:
    home.marker.unlink()
    before = sorted(home.root.iterdir())
    with pytest.raises(Detached):
        HomeLock(home).acquire()
    assert sorted(home.root.iterdir()) == before
