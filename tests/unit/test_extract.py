"""Reading files that lie, hang or change."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from acclimate.store.extract import Missing, Refused, decode, read_file


def reason(root: Path, relative: str, max_bytes: int = 1000) -> str:
    with pytest.raises(Refused) as caught:
        decode(read_file(root, relative, max_bytes))
    return caught.value.message


def test_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.md").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    raw = read_file(tmp_path, "a/b/c.md")
    assert decode(raw) == "one\ntwo"
    assert raw.size == 11
    (tmp_path / "u16.txt").write_text("één", encoding="utf-16")
    assert decode(read_file(tmp_path, "u16.txt")) == "één"
    with pytest.raises(Missing):
        read_file(tmp_path, "a/nothing")
    with pytest.raises(Missing):
        read_file(tmp_path, "a/b/c.md/d")


def test_a_huge_sparse_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(4 << 30)
    assert reason(tmp_path, "zeros", 4_000_000) == "larger than 4 MB"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"text\0text", "binary: a NUL at character 5"),
        (b"caf\xe9", "no UTF-8 at byte 4"),
        (b"\xff\xfe\x00\xd8", "binary"),
        (b"x" * 1001, "larger than"),
        (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "binary"),
    ],
)
def test_what_is_no_text_is_refused_with_a_reason(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "f").write_bytes(data)
    assert why in reason(tmp_path, "f")


def test_links_out_of_the_source_are_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.md").write_text("canary")
    (root / "file.md").symlink_to(outside / "secret.md")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    assert "symbolic link" in reason(root, "file.md")
    assert "symbolic link" in reason(root, "folder/secret.md")
    assert "symbolic link" in reason(root, "loop/loop/file.md")
    for path in ["../outside/secret.md", "/etc/hostname", "", "a/../../outside/secret.md", "a\0b"]:
        assert reason(root, path) == "not a path inside its source"


def test_fifos_devices_folders_and_sockets_never_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert reason(tmp_path, "fifo") == reason(tmp_path, "folder") == "not a regular file"
    assert reason(Path("/dev"), "zero") == "not a regular file"


def test_a_swap_of_folder_and_link_never_leads_out(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder, text in ((outside, "canary"), (root / "a", "mine")):
        folder.mkdir(parents=True)
        (folder / "f").write_text(text)
    code = (
        "import os, sys\n"
        "root, outside = sys.argv[1:]\n"
        "while True:\n"
        "    os.rename(root + '/a', root + '/b'); os.symlink(outside, root + '/a')\n"
        "    os.remove(root + '/a'); os.rename(root + '/b', root + '/a')\n"
    )
    swapper = subprocess.Popen([sys.executable, "-c", code, str(root), str(outside)])
    try:
        read = []
        for _ in range(2000):
            try:
                read.append(read_file(root, "a/f").data)
            except (Refused, Missing):
                continue
    finally:
        swapper.kill()
        swapper.wait()
    assert set(read) == {b"mine"}


def test_a_file_rewritten_all_the_time_is_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    versions = [letter * 50_000 for letter in (b"a", b"b")]
    path.write_bytes(versions[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for version in versions:
                path.write_bytes(version)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(100):
            try:
                data = read_file(tmp_path, "f").data
            except Refused as e:
                assert e.message == "changing while it is read"
                assert e.mtime_ns is None
            else:
                # Empty, or a beginning of one version, are states that the writer really made: it
                # may be held up in the middle of a write. A mixture is none.
                assert any(version.startswith(data) for version in versions)
    finally:
        stop.set()
        writer.join()
