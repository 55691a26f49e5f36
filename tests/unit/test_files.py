"""Home layout and durable writes."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.store import files
from acclimate.store.errors import HomeError, StoreError


def test_home_is_made_once_and_keeps_its_id(tmp_path: Path) -> None:
    home = files.Home.create(tmp_path / "home")
    assert files.Home.create(tmp_path / "home") == home == files.Home.open(tmp_path / "home")
    assert home.attached()
    assert not home.portable
    (home.root / "portable").touch()
    assert home.portable
    assert home.adapter_dir(7) == home.root / "adapters" / "v0007"


def test_opening_no_home_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HomeError) as caught:
        files.Home.open(tmp_path)
    assert "acclimate init" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"id": 3}', b'{"id": "another"}'])
def test_home_is_detached_when_the_marker_is_not_its_own(tmp_path: Path, content: bytes) -> None:
    home = files.Home.create(tmp_path)
    home.marker.write_bytes(content)
    assert not home.attached()
    home.marker.unlink()
    assert not home.attached()


def test_versions() -> None:
    assert files.version_name(7) == "v0007"
    assert files.version_name(12345) == "v12345"
    assert files.parse_version("v0007") == 7
    for name in ["v7", "v00007", "v0000", "V0007", "v0007 ", "../v0007", "v０００７", ".tmp-1"]:
        with pytest.raises(ValueError):
            files.parse_version(name)
    with pytest.raises(ValueError):
        files.version_name(0)


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "token"
    files.atomic_write(path, b"old", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync", fail)
    with pytest.raises(OSError):
        files.atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_publish_folder_never_overwrites(tmp_path: Path) -> None:
    temp = files.temp_folder(tmp_path)
    (temp / "deep").mkdir()
    (temp / "deep" / "file").write_text("x")
    files.publish_folder(temp, tmp_path / "v0001")
    assert (tmp_path / "v0001" / "deep" / "file").read_text() == "x"
    again = files.temp_folder(tmp_path)
    with pytest.raises(StoreError):
        files.publish_folder(again, tmp_path / "v0001")
    files.remove_tree(tmp_path / "v0001")
    files.remove_tree(tmp_path / "v0001")
    files.remove_tree(again)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["written", "synced", "renamed"])
def test_atomic_write_killed_anywhere_leaves_a_whole_file(tmp_path: Path, point: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old" * 1000)
    code = (
        "import sys, pathlib; from acclimate.store.files import atomic_write;"
        "atomic_write(pathlib.Path(sys.argv[1]), b'new' * 1000)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "ACCLIMATE_FAILPOINT": f"atomic_write.{point}"},
    )
    assert child.returncode == -9
    assert path.read_bytes() == (b"new" if point == "renamed" else b"old") * 1000
