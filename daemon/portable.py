"""Makes a folder that holds a home and the program itself, to be carried on a drive.

Knows nothing of a running daemon: the home it copies from may be in use.
"""

import contextlib
import errno
import math
import os
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from acclimate.daemon.attach import mount_of
from acclimate.daemon.bundle import program_files
from acclimate.daemon.launcher import write_launcher
from acclimate.store.errors import HomeError
from acclimate.store.files import (
    TEMP_PREFIX,
    Home,
    atomic_write,
    fsync_dir,
    fsync_file,
    sha256_file,
    version_name,
)
from acclimate.store.sources import ELSEWHERE

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all

_UNFINISHED = ".acclimate-unfinished"  # holds the id of the home that is being copied
_FAT_MAX_BYTES = 2**32 - 1
_BLOCK_BYTES = 1 << 20


@dataclass
class Portable:
    """What was made. `missing` are sources that stay behind; `notes` is for the person to read."""

    root: Path
    home: Home
    files_copied: int = 0
    files_kept: int = 0  # there already, from an attempt before
    bytes_copied: int = 0
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_portable(
    home: Home, target: Path, progress: Progress, *, with_program: bool = True
) -> Portable:
    """Copy `home`, and the program, into the folder `target`: `acclimate` there starts it.

    What a run that was cut left behind is taken up again; files with the same content are kept.
    The copy gets an id of its own, no token, and names no absolute path. Sources inside `target`
    become relative to its home; others are kept as missing, with what was read from them, and are
    not read there until they are watched again.
    Raises HomeError: no space, a folder in use, a file that cannot be copied or came out different.
    """
    target = _claim(home, target.expanduser().absolute())
    try:
        if (target / "home").exists():  # only the last line of an attempt before was cut
            (target / _UNFINISHED).unlink()
            return Portable(target, Home.open(target / "home"))
        made = _fill(home, target, progress, with_program)
    except (OSError, sqlite3.Error) as e:
        raise _failure(e, target) from e
    progress("done", 1, 1)
    return made


def _claim(home: Home, target: Path) -> Path:
    """Refuse what would mix with something else; mark the folder as unfinished."""
    if not home.attached():
        raise HomeError(f"no Acclimate home at {home.root}", "make one with: acclimate init")
    if not target.parent.is_dir():
        raise HomeError(f"there is no folder {target.parent}", "is the drive mounted?")
    target = target.resolve()
    if target.is_relative_to(home.root) or home.root.is_relative_to(target):
        raise HomeError(f"{target} and the home {home.root} contain each other", "choose another")
    claim = target / _UNFINISHED
    try:
        if claim.exists():
            if claim.read_text().strip() != home.id:
                raise HomeError(
                    f"{target} holds an unfinished copy of another home", "delete it first"
                )
            return target
        for name in ("home", "program", "acclimate"):
            if (target / name).exists():
                raise HomeError(f"{target / name} exists already", "choose an empty folder")
        target.mkdir(exist_ok=True)
        atomic_write(claim, f"{home.id}\n".encode())
    except OSError as e:
        raise _failure(e, target) from e
    return target


def _fill(home: Home, target: Path, progress: Progress, with_program: bool) -> Portable:
    parts = {name: target / f"{name}.partial" for name in ("home", "program")}
    if (target / "program").exists():  # cut between its rename and that of the home
        (target / "program").rename(parts["program"])
    copy = Home.create(parts["home"])
    made = Portable(target, copy)
    program = program_files() if with_program else {}
    plan = {parts["program"] / to: path for to, path in program.items()}
    plan |= {copy.models / path.name: path for path in _models(home)}
    _check_space(home, target, plan)

    progress("database", 0, 1)
    adapters = _copy_database(home, copy, target, made)
    for version, _ in adapters:
        for path in sorted(home.adapter_dir(version).iterdir()):
            plan[copy.adapter_dir(version) / path.name] = path
    _copy_config(home, copy, made)
    _copy_files(plan, made, progress)
    if with_program:
        _remove_others(parts["program"], set(plan))
        uname = os.uname()
        platform = f"{uname.sysname} {uname.machine}\n"
        atomic_write(parts["program"] / "platform", platform.encode())
    else:
        shutil.rmtree(parts["program"], ignore_errors=True)
    atomic_write(copy.root / "portable", b"")

    # One flush for ten thousands of small files: an fsync each takes hours on a USB stick.
    progress("flush", 0, 1)
    os.sync()
    _verify(plan, adapters, copy, progress)
    if with_program:
        parts["program"].rename(target / "program")
    write_launcher(target)
    parts["home"].rename(target / "home")
    fsync_dir(target)
    (target / _UNFINISHED).unlink()
    os.sync()
    made.home = Home.open(target / "home")
    return made


def _models(home: Home) -> Iterator[Path]:
    for path in sorted(home.models.iterdir()) if home.models.is_dir() else ():
        if path.is_file() and not path.name.startswith(TEMP_PREFIX) and path.suffix != ".part":
            yield path


def _check_space(home: Home, target: Path, plan: dict[Path, Path]) -> None:
    stat = os.statvfs(target)
    cluster = max(stat.f_frsize, 512)

    def on_disk(size: int) -> int:
        return math.ceil(size / cluster) * cluster

    sizes = {to: path.stat().st_size for to, path in plan.items()}
    adapters = [path.stat().st_size for path in home.adapters.glob("v*/*") if path.is_file()]
    database = home.db.stat().st_size if home.db.exists() else 0
    needed = sum(on_disk(size) for to, size in sizes.items() if not _has_size(to, size))
    needed += sum(map(on_disk, [*adapters, database])) + 64 * cluster
    free = stat.f_bavail * stat.f_frsize
    if needed > free:
        raise HomeError(
            f"{target} has {free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB are needed",
            "make room there, or carry the home without the program",
        )
    mount = mount_of(target)
    largest = max(sizes, key=lambda to: sizes[to], default=None)
    if mount and mount.kind in ("vfat", "msdos") and largest and sizes[largest] > _FAT_MAX_BYTES:
        raise HomeError(
            f"{largest.name} is larger than the 4 GB that a file may have on FAT32",
            "format the drive as exFAT",
        )


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _copy_database(home: Home, copy: Home, target: Path, made: Portable) -> list[tuple[int, str]]:
    """A consistent copy of a database that may be in use; gives the adapters it knows, with hash.

    The database goes first: an adapter that is published meanwhile is then simply not part of it.
    """
    if not home.db.exists():
        return []
    temp = copy.db.with_name(f"{TEMP_PREFIX}{copy.db.name}")
    temp.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(home.db, timeout=30)) as source:
        source.execute("VACUUM INTO ?", (str(temp),))
    with contextlib.closing(sqlite3.connect(temp)) as database:
        database.execute("PRAGMA journal_mode = MEMORY")  # a crash only leaves a temporary file
        rows = database.execute(
            "SELECT id, path FROM sources WHERE kind <> 'manual' AND state <> 'removed'"
        ).fetchall()
        for source_id, path in rows:
            place = Path(path) if Path(path).is_absolute() else home.root / path
            place = Path(os.path.normpath(place))
            if place.is_relative_to(target):
                path = os.path.relpath(place, target / "home")
                change = "UPDATE sources SET path = ?, device = NULL WHERE id = ?"
                values: list[str | int] = [Path(path).as_posix()]
            else:
                made.missing.append(str(place))
                # Another computer may well have a folder of that name, and a disk of that number.
                change = "UPDATE sources SET path = ?, state = 'missing', device = ? WHERE id = ?"
                values = [place.as_posix(), ELSEWHERE]
            database.execute(change, (*values, source_id))
        database.commit()
        adapters: list[tuple[int, str]] = database.execute(
            "SELECT version, sha256 FROM adapters WHERE state = 'ok' ORDER BY version"
        ).fetchall()
        problem = database.execute("PRAGMA integrity_check").fetchone()[0]
    if problem != "ok":
        raise HomeError(f"the copy of the database is damaged: {problem}", "try another drive")
    fsync_file(temp)
    temp.replace(copy.db)
    return adapters


def _copy_config(home: Home, copy: Home, made: Portable) -> None:
    if not home.config.exists():
        return
    text = home.config.read_text(encoding="utf-8")
    try:
        tomllib.loads(text)
        document = tomlkit.parse(text)
    except ValueError as e:
        raise HomeError(f"{home.config}: {e}", "mend the file first") from e
    _make_relative(document, "", home, made)
    atomic_write(copy.config, tomlkit.dumps(document).encode())


def _make_relative(table: Any, where: str, home: Home, made: Portable) -> None:
    pairs = table.items() if hasattr(table, "items") else enumerate(table)
    for key, value in list(pairs):
        name = f"{where}.{key}" if where else str(key)
        if isinstance(value, dict | list):
            _make_relative(value, name, home, made)
        elif isinstance(value, str) and Path(value).is_absolute():
            path = Path(value)
            if path.is_relative_to(home.root):
                table[key] = path.relative_to(home.root).as_posix()
            else:
                made.notes.append(f"config.toml: {name} = {value} stays outside of the folder")


def _copy_files(plan: dict[Path, Path], made: Portable, progress: Progress) -> None:
    sizes = {to: path.stat().st_size for to, path in plan.items()}
    total, done = sum(sizes.values()), 0
    folders: set[Path] = set()
    for to, path in plan.items():
        if to.parent not in folders:
            to.parent.mkdir(parents=True, exist_ok=True)
            folders.add(to.parent)
        if _has_size(to, sizes[to]) and sha256_file(to) == sha256_file(path):
            made.files_kept += 1
        else:
            for bytes_ in _copy_file(path, to):
                progress("copy", done + bytes_, total)
            made.files_copied += 1
            made.bytes_copied += sizes[to]
        done += sizes[to]
        progress("copy", done, total)


def _copy_file(source: Path, to: Path) -> Iterator[int]:
    """Copies as it is iterated over; yields the bytes so far."""
    with source.open("rb") as reader, to.open("wb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            writer.write(block)
            yield writer.tell()
    if os.access(source, os.X_OK):
        with contextlib.suppress(OSError):  # exFAT has no modes; everything may be run there
            to.chmod(0o755)


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    """A module that an attempt before left there could be imported in place of another."""
    for inner, _, names in os.walk(folder):
        for name in names:
            if Path(inner, name) not in wanted:
                Path(inner, name).unlink()


def _verify(
    plan: dict[Path, Path], adapters: list[tuple[int, str]], copy: Home, progress: Progress
) -> None:
    """Read models and adapters back from the drive and compare; `os.sync` came before."""
    recorded = {copy.adapter_dir(version) / "adapter.gguf": sha for version, sha in adapters}
    important = [to for to in plan if to.is_relative_to(copy.root)]
    total, done = sum(to.stat().st_size for to in important), 0
    for to in important:
        if hasattr(os, "posix_fadvise"):
            with to.open("rb") as file:  # or it would be memory that is compared
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        came_out = sha256_file(to)
        if came_out != sha256_file(plan[to]):
            raise HomeError(f"{to} differs from what was copied", "the drive may be failing")
        if came_out != recorded.get(to, came_out):
            name = to.parent.name
            raise HomeError(f"adapter {name} is not what the ledger says", "run: acclimate doctor")
        done += to.stat().st_size
        progress("verify", done, total)
    for version, _ in adapters:
        if not (copy.adapter_dir(version) / "adapter.gguf").exists():
            raise HomeError(
                f"adapter {version_name(version)} has no adapter.gguf", "run: acclimate doctor"
            )


def _failure(e: OSError | sqlite3.Error, target: Path) -> HomeError:
    again = "run the same command again: it goes on where it stopped"
    full = isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or getattr(e, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return HomeError(f"{target} is full", f"make room there, then {again}")
    place = getattr(e, "filename", None) or target
    return HomeError(f"cannot copy to {target}: {place}: {e}", again)
