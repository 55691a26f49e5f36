"""The files of a folder that are worth reading: no hidden ones, none that a pattern leaves out.

Knows no database; opens folders only through the one above, so no link leads out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from acclimate.store.extract import MAX_DEPTH, Missing, Refused, open_below, read_file
from acclimate.store.files import MARKER

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

MAX_IGNORE_BYTES = 100_000
DEFAULT_IGNORE = ("*~", "*.tmp", "*.part", "*.swp", "~$*", "#*#", "__pycache__/", "node_modules/")


@dataclass(frozen=True)
class Found:
    relative: str  # posix path below the root
    size: int
    mtime_ns: int
    device: int
    problem: str = ""  # why it cannot even be opened


@dataclass
class Walked:
    """What a walk noticed beside the files; complete when the walk has ended."""

    devices: set[int] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)  # folders whose files are unknown


class Ignore:
    """Which paths below `root` to leave out: hidden ones, patterns, and its .gitignore files."""

    def __init__(self, root: Path, patterns: Iterable[str], inner: Sequence[Path] = ()) -> None:
        self._root = root
        self._own = _spec(patterns)
        # A source inside this one is read as that source only.
        self._inner = {p.relative_to(root).as_posix() for p in inner if p.is_relative_to(root)}
        self._files: dict[str, GitIgnoreSpec | None] = {}

    def skips(self, relative: str, *, folder: bool = False) -> bool:
        """Whether a path is left out by its own name or that of a folder above it."""
        parts = PurePosixPath(relative).parts
        return any(
            self.skips_entry("/".join(parts[: i + 1]), folder=folder or i < len(parts) - 1)
            for i in range(len(parts))
        )

    def skips_entry(self, relative: str, *, folder: bool) -> bool:
        """The same for an entry whose folder is known to be taken."""
        parent, _, name = relative.rpartition("/")
        if name.startswith("."):
            return True
        if folder and (relative in self._inner or self._is_home(relative)):
            return True
        path = relative + "/" if folder else relative
        if self._own.match_file(path):
            return True
        # As git has it: the nearest .gitignore that says anything decides.
        while True:
            spec = self._read(parent)
            if spec is not None:
                below = path[len(parent) + 1 :] if parent else path
                include = spec.check_file(below).include
                if include is not None:
                    return bool(include)
            if not parent:
                return False
            parent = parent.rpartition("/")[0]

    def _is_home(self, relative: str) -> bool:
        return (self._root / relative / MARKER).exists()

    def _read(self, folder: str) -> GitIgnoreSpec | None:
        if folder not in self._files:
            name = f"{folder}/.gitignore" if folder else ".gitignore"
            try:
                data = read_file(self._root, name, MAX_IGNORE_BYTES).data
            except (Missing, Refused):
                self._files[folder] = None
            else:
                self._files[folder] = _spec(data.decode("utf-8", "replace").splitlines())
        return self._files[folder]


def check_patterns(patterns: Iterable[str]) -> None:
    """Raise ValueError naming the first pattern that .gitignore's rules do not allow."""
    from pathspec import GitIgnoreSpec

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError as e:
            raise ValueError(f"{pattern!r} is not a .gitignore pattern") from e


def _spec(patterns: Iterable[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    good = []
    for pattern in patterns:
        try:
            check_patterns([pattern])
        except ValueError:
            continue  # git, too, passes over a line that is no pattern
        good.append(pattern)
    return GitIgnoreSpec.from_lines(good)


def walk(root: Path, ignore: Ignore, walked: Walked) -> Iterator[Found]:
    """All entries below `root` but folders, links and devices included (reading refuses them).

    Raises OSError when `root` itself cannot be listed.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield from _walk(fd, "", ignore, walked, 1)
    finally:
        os.close(fd)


def _walk(folder: int, prefix: str, ignore: Ignore, walked: Walked, depth: int) -> Iterator[Found]:
    walked.devices.add(os.fstat(folder).st_dev)
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        relative = prefix + entry.name
        try:
            relative.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(relative).decode("utf-8", "backslashreplace")
            yield Found(shown, 0, 0, 0, "its name is not UTF-8")
            continue
        try:
            found = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        except OSError:
            walked.unreadable.append(relative)
            continue
        is_folder = stat.S_ISDIR(found.st_mode)
        if ignore.skips_entry(relative, folder=is_folder):
            continue
        if not is_folder:
            yield Found(relative, found.st_size, found.st_mtime_ns, found.st_dev)
            continue
        if depth >= MAX_DEPTH:
            yield Found(relative, 0, 0, 0, f"more than {MAX_DEPTH} folders deep")
            continue
        try:
            below = open_below(folder, entry.name)
        except FileNotFoundError:
            continue
        except OSError:
            walked.unreadable.append(relative)
            continue
        try:
            yield from _walk(below, relative + "/", ignore, walked, depth + 1)
        except OSError:
            walked.unreadable.append(relative)
        finally:
            os.close(below)
