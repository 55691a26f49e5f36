"""Lists the files that the running program consists of, so that it can be carried elsewhere.

Knows Python's layout; copies nothing itself.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from acclimate.store.errors import HomeError

PACKAGES = ("store", "adapters", "daemon", "systemd")
_NOT_OF_STDLIB = frozenset({"test", "tests", "idlelib", "ensurepip", "turtledemo", "tkinter"})
_NOT_OF_STDLIB_FOLDER = re.compile(r"(site|dist)-packages|config-.*")
_NOT_OF_STDLIB_FILE = re.compile(r"_(tkinter|test|ctypes_test|xxtest).*")
# For building against, not for running.
_BUILD_SUFFIXES = frozenset({".pyc", ".pth", ".a", ".h", ".hpp", ".cuh", ".cmake"})
# A build back end's `make install` leaves these beside the packages; nothing is imported from them.
_STRAY_FOLDERS = frozenset({"include", "lib", "bin", "share"})
# Every system has these in a form that fits its kernel and drivers (AppImage leaves out the same).
_SYSTEM_LIBRARIES = re.compile(
    r"(ld-linux.*|lib(c|m|dl|rt|pthread|util|resolv|nsl|anl|stdc\+\+|gcc_s))\.so.*"
)


def program_files() -> dict[str, Path]:
    """Where to → where from, for the interpreter, its library and every package that is needed.

    Raises HomeError for a Python that cannot be moved.
    """
    if sysconfig.get_config_var("PYTHONFRAMEWORK"):
        raise HomeError(
            "this Python is a macOS framework, which runs from its own place only",
            "use another Python (uv python install, pyenv), or carry the home alone",
        )
    files = {"bin/python": Path(getattr(sys, "_base_executable", sys.executable)).resolve()}
    files.update(_stdlib())
    files.update(_site_packages())
    files.update(_own_packages())
    files.update(_libraries([path for path in files.values() if ".so" in path.name], files))
    return files


def _stdlib() -> Iterator[tuple[str, Path]]:
    root = Path(os.__file__).parent
    into = root.relative_to(sys.base_prefix).as_posix()
    for path in _walk(root):
        folders = path.relative_to(root).parts[:-1]
        if not _NOT_OF_STDLIB.isdisjoint(folders) or _NOT_OF_STDLIB_FILE.fullmatch(path.name):
            continue
        if folders and _NOT_OF_STDLIB_FOLDER.fullmatch(folders[0]):
            continue
        yield f"{into}/{path.relative_to(root).as_posix()}", path


def _site_packages() -> Iterator[tuple[str, Path]]:
    unneeded = _unneeded_files()
    roots = [Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    # What comes first on the path wins, as it does for the import system.
    for root in reversed(dict.fromkeys(root.resolve() for root in roots)):
        for path in _walk(root):
            inner = path.relative_to(root)
            top = inner.parts[0]
            if path in unneeded or top == "acclimate" or top.startswith("__editable__"):
                continue
            if top in _STRAY_FOLDERS and not (root / top / "__init__.py").exists():
                continue
            # Both name the folder that the package was installed from.
            if top.startswith("acclimate-") and inner.name in ("direct_url.json", "RECORD"):
                continue
            yield f"site-packages/{inner.as_posix()}", path


def _own_packages() -> Iterator[tuple[str, Path]]:
    """Asked of the import system: in an editable install they are folders of a checkout."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(f"acclimate.{name}")
        if spec is None or not spec.submodule_search_locations:
            raise HomeError(f"the package acclimate.{name} is not installed", "install it again")
        root = Path(next(iter(spec.submodule_search_locations))).resolve()
        for path in _walk(root):
            yield f"site-packages/acclimate/{name}/{path.relative_to(root).as_posix()}", path


def _walk(root: Path) -> Iterator[Path]:
    """Files below `root`, links followed (a drive may know none), each real folder once."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        for name in names:
            path = Path(folder, name)
            if path.suffix not in _BUILD_SUFFIXES and path.is_file():
                yield path


def _unneeded_files() -> set[Path]:
    """Files of installed distributions that `acclimate` does not require: tools of developers."""
    installed = {_normal(dist.name): dist for dist in importlib.metadata.distributions()}
    if "acclimate" not in installed:  # run from a bare checkout: nothing says what it requires
        return set()
    needed: set[str] = set()
    waiting = ["acclimate"]
    while waiting:
        name = waiting.pop()
        if name in needed or name not in installed:
            continue
        needed.add(name)
        for requirement in installed[name].requires or []:
            # Markers for other platforms do no harm: what they name is not installed here. An
            # extra of ours is for development; one of another package may have been asked for.
            if name == "acclimate" and "extra ==" in requirement:
                continue
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            if found and (name == "acclimate" or "extra ==" not in requirement):
                waiting.append(_normal(found[0]))
    return {
        Path(str(dist.locate_file(file))).resolve()
        for name, dist in installed.items()
        if name not in needed
        for file in dist.files or []
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _libraries(binaries: list[Path], files: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Shared libraries from outside: libpython itself, and what the modules link against."""
    shared = sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and isinstance(shared, str):
        for folder in (Path(sys.base_prefix, "lib"), Path(sysconfig.get_config_var("LIBDIR"))):
            if (folder / shared).is_file():
                yield f"lib/{shared}", (folder / shared).resolve()
                break
    if sys.platform != "linux" or shutil.which("ldd") is None:
        return
    inside = {path.resolve() for path in files.values()}
    for start in range(0, len(binaries), 200):
        command = ["ldd", *map(str, binaries[start : start + 200])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        for name, path in re.findall(r"^\s+(\S+) => (/\S.*) \(0x", done.stdout, re.MULTILINE):
            library = Path(path).resolve()
            if not _SYSTEM_LIBRARIES.fullmatch(name) and library not in inside:
                yield f"lib/{name}", library
