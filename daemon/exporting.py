"""Copies an adapter out of the home, for other programs.

Knows the files of an adapter's folder and their hashes; merging is done by a child process.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.store.errors import AdapterError
from acclimate.store.files import (
    TEMP_PREFIX,
    Home,
    fsync_file,
    parse_version,
    publish_folder,
    sha256_file,
    temp_folder,
)

FORMATS = ("peft", "gguf", "merged")
_GGUF = "adapter.gguf"
_PEFT = ("adapter_config.json", "adapter_model.safetensors")


def copy(
    home: Home, version: str, known: Mapping[str, Any], destination: Path, to: str
) -> list[Path]:
    """Copy `version` as "peft" (a new folder) or "gguf" (a new file); the paths written.

    `known` is what the ledger says of it, hashes among it. Raises AdapterError: a file is missing
    or is not the one that was published, the destination exists.
    """
    destination = _free(destination)
    folder = home.adapter_dir(parse_version(version))
    hashes = _hashes(known)
    if to == "gguf":
        part = destination.with_name(f"{TEMP_PREFIX}{destination.name}")
        try:
            _copy_checked(folder / _GGUF, part, hashes)
            part.replace(destination)
        finally:
            part.unlink(missing_ok=True)
        return [destination]
    temp = temp_folder(destination.parent)
    try:
        temp.chmod(0o755)
        for name in _PEFT:
            _copy_checked(folder / name, temp / name, hashes)
        publish_folder(temp, destination)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return [destination / name for name in _PEFT]


def merge(home: Home, version: str, known: Mapping[str, Any], destination: Path) -> list[Path]:
    """Write the base with the adapter merged in, as one GGUF file; the path written.

    A child process does it. Raises AdapterError: the adapter is not the one that was published or
    fits another base, the destination exists, the child failed; ModelError.
    """
    from acclimate.daemon import config, models

    destination = _free(destination)
    folder = home.adapter_dir(parse_version(version))
    _check(folder / _GGUF, _hashes(known))
    base = models.base_path(home, config.load(home))
    if models.base_sha256(home, base) != (known.get("card") or {}).get("base_sha256"):
        raise AdapterError(
            f"{version} was learned on another base than {base.stem}", "acclimate models use"
        )
    command = [sys.executable, "-m", "acclimate.adapters.merge"]
    done = subprocess.run(
        [*command, str(folder), str(base), str(destination)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not destination.is_file():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise AdapterError(f"{version} cannot be merged: {said[-1]}", "try --to peft or gguf")
    return [destination]


def _free(destination: Path) -> Path:
    destination = destination.expanduser().absolute()
    if destination.exists():
        raise AdapterError(f"{destination} exists already", "name a new file or folder")
    if not destination.parent.is_dir():
        raise AdapterError(f"there is no folder {destination.parent}", "make it first")
    return destination


def _hashes(known: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 by file name; the ledger's own word counts for the file that is served."""
    card = known.get("card") or {}
    return {**(card.get("files") or {}), _GGUF: str(known["sha256"])}


def _copy_checked(source: Path, to: Path, hashes: Mapping[str, str]) -> None:
    if not source.is_file():
        raise AdapterError(f"{source} is missing", "restore the home from a backup")
    shutil.copyfile(source, to)
    _check(to, hashes, source)
    fsync_file(to)


def _check(path: Path, hashes: Mapping[str, str], published: Path | None = None) -> None:
    """The copy is what is checked: it is what the person gets."""
    published = published or path
    if not path.is_file():
        raise AdapterError(f"{published} is missing", "restore the home from a backup")
    if sha256_file(path) != hashes.get(published.name):
        raise AdapterError(
            f"{published} is not the file that was published", "restore the home from a backup"
        )
