"""A portable folder: what goes along, what stays, and that it survives being cut and moved."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from acclimate.daemon import portable
from acclimate.daemon.portable import Portable, make_portable
from acclimate.store.db import Db
from acclimate.store.errors import HomeError
from acclimate.store.files import Home, version_name


def quiet(_stage: str, _done: int, _total: int) -> None:
    pass


def add_source(home: Home, path: str, kind: str = "notes") -> None:
    db = Db(home.db)
    with db.write() as conn:
        conn.execute(
            "INSERT INTO sources (path, kind, device, added_at) VALUES (?, ?, 7, 0)", (path, kind)
        )
    db.close()


def add_adapter(home: Home, version: int, state: str = "ok") -> Path:
    folder = home.adapter_dir(version)
    folder.mkdir()
    content = b"GGUF of " + version_name(version).encode()
    (folder / "adapter.gguf").write_bytes(content)
    (folder / "card.json").write_text("{}")
    db = Db(home.db)
    with db.write() as conn:
        conn.execute(
            "INSERT INTO rounds (id, state, started_at, seed) VALUES (?, 'accepted', 0, 0)",
            (version,),
        )
        conn.execute(
            "INSERT INTO adapters (version, round_id, sha256, scale, card, state, created_at)"
            " VALUES (?, ?, ?, 1.0, '{}', ?, 0)",
            (version, version, hashlib.sha256(content).hexdigest(), state),
        )
    db.close()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.create(tmp_path / "host" / "home")
    (home.models / "base.gguf").write_bytes(os.urandom(3_000_000))
    (home.models / "half.gguf.part").write_bytes(b"half")
    (home.cache / "x").write_bytes(b"x")
    home.token.write_text("secret-of-the-host")
    home.config.write_text(
        "# mine\n[server]\nport = 8799\n"
        f'[models]\nbase = "{home.models}/base.gguf"\nother = "/somewhere/else.gguf"\n'
    )
    Db(home.db).close()
    add_adapter(home, 1)
    add_adapter(home, 2, "retired")
    return home


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick" / "acclimate"


def carry(home: Home, target: Path) -> Portable:
    return make_portable(home, target, quiet, with_program=False)


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_what_goes_along(home: Home, target: Path) -> None:
    made = carry(home, target)
    assert files_in(target) == [
        "acclimate",
        "home/.acclimate-home",
        "home/acclimate.db",
        "home/adapters/v0001/adapter.gguf",
        "home/adapters/v0001/card.json",
        "home/config.toml",
        "home/models/base.gguf",
        "home/portable",
    ]
    copy = Home.open(target / "home")
    assert copy == made.home
    assert copy.portable
    assert not home.portable
    assert copy.id != home.id
    for name in ("models/base.gguf", "adapters/v0001/adapter.gguf"):
        assert (copy.root / name).read_bytes() == (home.root / name).read_bytes()
    config = copy.config.read_text()
    assert config.startswith("# mine\n")
    assert 'base = "models/base.gguf"' in config
    assert ["models.other" in note for note in made.notes] == [True]
    assert str(home.root) not in (target / "acclimate").read_text() + config


def test_a_database_in_use_is_copied_whole(home: Home, target: Path) -> None:
    db = Db(home.db)
    with db.write() as conn:
        conn.execute("INSERT INTO settings (key, value) VALUES ('seen', '1')")
        conn.execute("SELECT 1")
    made = carry(home, target)  # the row is still in the write-ahead log
    with sqlite3.connect(made.home.db) as copied:
        rows = copied.execute("SELECT value FROM settings WHERE key = 'seen'").fetchall()
        assert copied.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert rows == [("1",)]
    db.close()


def test_sources_inside_become_relative_and_others_are_missed(
    home: Home, target: Path, tmp_path: Path
) -> None:
    add_source(home, str(target / "notes"))
    add_source(home, str(tmp_path / "elsewhere"))
    add_source(home, "added by hand", kind="manual")
    made = carry(home, target)
    with sqlite3.connect(made.home.db) as copied:
        rows = copied.execute(
            "SELECT path, kind, state, device FROM sources ORDER BY id"
        ).fetchall()
    assert [row for row in rows if row[1] == "notes"] == [
        ("../notes", "notes", "ok", None),
        (str(tmp_path / "elsewhere"), "notes", "missing", -1),
    ]
    assert ("added by hand", "manual", "ok", 7) in rows
    assert made.missing == [str(tmp_path / "elsewhere")]
    # A copy of a copy: what was relative to one home is relative to the next, or stays behind.
    again = carry(made.home, tmp_path / "stick" / "second")
    assert sorted(again.missing) == sorted([str(target / "notes"), str(tmp_path / "elsewhere")])


def test_a_cut_copy_is_taken_up_again(
    home: Home, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def pull(_stage: str, done: int, _total: int) -> None:
        if done > 2_000_000:
            raise Cut

    with pytest.raises(Cut):
        make_portable(home, target, pull, with_program=False)
    assert not (target / "home").exists()
    assert not (target / "acclimate").exists()
    monkeypatch.setattr(portable, "write_launcher", lambda _folder: pull("", 9**9, 0))
    with pytest.raises(Cut):
        carry(home, target)
    monkeypatch.undo()
    made = carry(home, target)
    assert (made.files_copied, made.files_kept) == (0, 3)
    assert files_in(target)[0] == "acclimate"
    assert sorted(p.name for p in target.iterdir()) == ["acclimate", "home"]


def test_a_finished_folder_is_never_written_over(home: Home, target: Path) -> None:
    carry(home, target)
    with pytest.raises(HomeError, match="exists already"):
        carry(home, target)
    # Cut at the very last step: the home may have been used since.
    (target / ".acclimate-unfinished").write_text(home.id)
    (target / "home" / "config.toml").write_text("# changed since\n")
    assert carry(home, target).files_copied == 0
    assert (target / "home" / "config.toml").read_text() == "# changed since\n"


def test_what_is_refused(home: Home, target: Path, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="mounted"):
        carry(home, tmp_path / "no" / "such")
    for inside in (home.root / "carried", home.root.parent):
        with pytest.raises(HomeError, match="contain each other"):
            carry(home, inside)
    target.mkdir()
    (target / "program").mkdir()
    with pytest.raises(HomeError, match="program exists already"):
        carry(home, target)
    (target / "program").rmdir()
    (target / ".acclimate-unfinished").write_text("another")
    with pytest.raises(HomeError, match="another home"):
        carry(home, target)


def test_too_little_space_is_said_before_anything_is_copied(
    home: Home, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(target.parent)

    def small(_path: Path) -> os.statvfs_result:
        fields = list(real)
        fields[1], fields[4] = 4096, 100  # f_frsize, f_bavail
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", small)
    with pytest.raises(HomeError, match=r"0\.00 GB free"):
        carry(home, target)
    assert not list(target.glob("**/*.gguf"))


def test_a_damaged_adapter_is_not_carried(home: Home, target: Path) -> None:
    (home.adapter_dir(1) / "adapter.gguf").write_bytes(b"flipped")
    with pytest.raises(HomeError, match="v0001"):
        carry(home, target)


FAKE_PYTHON = """#!/bin/sh
printf '%s\\n' "$PYTHONHOME" "$PYTHONPATH" "$PYTHONDONTWRITEBYTECODE" "$ACCLIMATE_HOME" "$@"
"""


def put_fake_program(root: Path) -> None:
    program = root / "program"
    (program / "bin").mkdir(parents=True)
    (program / "bin" / "python").write_text(FAKE_PYTHON)
    (program / "bin" / "python").chmod(0o755)
    uname = os.uname()
    (program / "platform").write_text(f"{uname.sysname} {uname.machine}\n")


def test_the_launcher_finds_its_folder_wherever_it_is(
    home: Home, target: Path, tmp_path: Path
) -> None:
    carry(home, target)
    put_fake_program(target)
    moved = tmp_path / "other $HOME 'place'"
    shutil.move(target, moved)
    link = tmp_path / "bin" / "acclimate"
    link.parent.mkdir()
    link.symlink_to("../" + moved.name + "/acclimate")
    expected = [
        str(moved / "program"),
        str(moved / "program" / "site-packages"),
        "1",
        str(moved / "home"),
        "-m",
        "acclimate.daemon",
        "ask",
        "two words",
    ]
    for command, cwd in (
        ([str(moved / "acclimate")], "/"),
        (["./acclimate"], str(moved)),
        (["sh", "acclimate"], str(moved)),
        ([str(link)], "/"),
    ):
        said = subprocess.run(
            [*command, "ask", "two words"], cwd=cwd, capture_output=True, text=True, check=True
        )
        assert said.stdout.splitlines() == expected


def test_the_launcher_says_what_is_wrong(home: Home, target: Path) -> None:
    carry(home, target)
    put_fake_program(target)
    (target / "program" / "bin" / "python").chmod(0o644)
    said = subprocess.run([target / "acclimate"], capture_output=True, text=True)
    assert (said.returncode, "noexec" in said.stderr) == (1, True)
    (target / "program" / "platform").write_text("Plan9 mips\n")
    said = subprocess.run([target / "acclimate"], capture_output=True, text=True)
    assert (said.returncode, "Plan9 mips" in said.stderr) == (1, True)


def test_progress_ends_at_the_total(home: Home, target: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    make_portable(home, target, note, with_program=False)
    assert {"copy", "verify", "done"} <= seen.keys()
    for stage in ("copy", "verify", "done"):
        assert seen[stage][0] == seen[stage][1]
    assert json.loads((target / "home" / ".acclimate-home").read_text())["id"]
