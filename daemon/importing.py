"""Takes an adapter from elsewhere into the home: copied, tried in a child, published as a version.

Knows files and the ledger. What is in the files, only the child looks at; live stays where it is.
"""

import errno
import json
import os
import shutil
import stat
import threading
import time
from pathlib import Path

from acclimate.adapters import foreign, gguf_check
from acclimate.adapters.lora import CONFIG, SERVED, WEIGHTS
from acclimate.daemon import models
from acclimate.daemon.config import Config
from acclimate.daemon.engine import Busy
from acclimate.daemon.switch import Switch
from acclimate.daemon.trial import Fitted, try_adapter
from acclimate.store import ledger, names
from acclimate.store.db import Db
from acclimate.store.errors import AdapterError, NotFound
from acclimate.store.files import (
    Home,
    atomic_write,
    failpoint,
    publish_folder,
    remove_tree,
    sha256_file,
    temp_folder,
)

_BLOCK_BYTES = 2**20
# Of the file, while the copy and the two forms that are made of it lie beside each other.
_ROOM = 6
# O_NONBLOCK: opening a FIFO must not wait for a writer.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_COPY = "foreign-adapter"
_one = threading.Lock()  # at a time: each takes memory and room on the disk


def take(
    home: Home,
    config: Config,
    db: Db,
    switch: Switch,
    path: Path,
    name: str | None = None,
    *,
    take_over: bool = False,
) -> int:
    """Import the PEFT folder or LoRA GGUF at `path`; its version. It gets `name`, if given.

    Raises AdapterError: not an adapter, not for the base, NameTaken (unless the name is to be
    taken over); NotFound, ModelError, Busy.
    """
    if name is not None:
        names.must_be_free(db, name, take_over=take_over)
    base = models.base_path(home, config)
    base_sha256 = models.base_sha256(home, base)
    if not _one.acquire(blocking=False):
        raise Busy("another adapter is being imported", "try again in a moment")
    work, folder = temp_folder(home.adapters), temp_folder(home.adapters)
    try:
        kind, copied = _copy(path, work, foreign.most_bytes(gguf_check.read_header(base)))
        try:
            fitted = try_adapter(copied, base, base_sha256, folder)
        except AdapterError as error:
            message = error.message.replace(f"{copied} ", "it ").replace(copied.name, path.name)
            raise AdapterError(f"{path.name} cannot be imported: {message}", error.hint) from None
        weights = copied / WEIGHTS if copied.is_dir() else copied
        imported = {
            "name": name,
            "format": kind,
            "file": path.name,
            "sha256": sha256_file(weights),
            "scaling": fitted.scaling,
        }
        with switch.publishing:
            return _publish(home, db, folder, base_sha256, fitted, imported, take_over=take_over)
    except OSError as error:
        raise AdapterError(
            f"{path.name} cannot be imported: {error.strerror or error}", "acclimate doctor"
        ) from error
    finally:
        for left in (work, folder):
            remove_tree(left)
        _one.release()


def _publish(
    home: Home,
    db: Db,
    folder: Path,
    base_sha256: str,
    fitted: Fitted,
    imported: dict[str, str | float | None],
    *,
    take_over: bool,
) -> int:
    version = ledger.next_version(db)
    final = home.adapter_dir(version)
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
    card = {
        "version": version,
        "round": None,
        "created_at": time.time(),
        "imported": imported,
        "base_sha256": base_sha256,
        "parent": None,
        "scale": 1.0,
        "rank": fitted.rank,
        "layers": fitted.layers,
        "modules": fitted.modules,
        "moved_kl": fitted.moved,
        "measures": {},
        "files": files,
    }
    atomic_write(folder / "card.json", json.dumps(card, indent=1).encode())
    failpoint("import.filled")
    publish_folder(folder, final)
    failpoint("import.renamed")
    name = imported["name"]
    try:
        ledger.adopt(
            db,
            version,
            files[SERVED],
            card,
            None if name is None else str(name),
            take_over=take_over,
        )
    except BaseException:
        remove_tree(final)  # the next one gets the same number
        raise
    failpoint("import.committed")
    return version


def _copy(path: Path, work: Path, most: int) -> tuple[str, Path]:
    """Copy an adapter's files into `work`; their format and the copy.

    No link is followed and nothing but plain files is opened. Raises AdapterError, NotFound.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no {path}", "give a PEFT folder or a LoRA's GGUF") from None
    if not stat.S_ISDIR(mode):
        if path.suffix in (".bin", ".pt", ".pth", ".safetensors"):
            raise AdapterError(
                f"{path.name} alone is no adapter", f"give the folder that has {CONFIG}, too"
            )
        copied = work / _COPY
        _copy_file(path, copied, most, gguf_check.MAGIC)
        return "gguf", copied
    copied = work / _COPY
    copied.mkdir()
    if not (path / WEIGHTS).exists() and (path / "adapter_model.bin").exists():
        raise AdapterError(
            f"{path.name} has its weights in adapter_model.bin, a pickle, which is never opened",
            "save it with peft as safetensors",
        )
    _copy_file(path / CONFIG, copied / CONFIG, foreign.MAX_CONFIG_BYTES)
    _copy_file(path / WEIGHTS, copied / WEIGHTS, most)
    return "peft", copied


def _copy_file(source: Path, target: Path, most: int, magic: bytes = b"") -> None:
    """Copy a plain file of at most `most` bytes that begins with `magic`."""
    try:
        fd = os.open(source, _OPEN)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise AdapterError(f"{source} is a link", "give the file or folder itself") from None
        if error.errno == errno.ENXIO:
            raise AdapterError(f"{source} is no plain file", "give a file or folder") from None
        hint = "give a PEFT folder with safetensors, or a LoRA's GGUF"
        raise AdapterError(f"{source} cannot be read: {error.strerror}", hint) from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise AdapterError(f"{source} is no plain file", "give a file or folder")
        if info.st_size > most:
            raise AdapterError(
                f"{source} has {info.st_size} bytes; an adapter for this base has {most} at most",
                "is it a whole model? acclimate models pull",
            )
        if shutil.disk_usage(target.parent).free < _ROOM * info.st_size:
            raise AdapterError(f"there is no room on the disk for {source}", "free some space")
        begins = file.read(len(magic))
        if begins != magic:
            raise AdapterError(f"{source} is no GGUF file", "give a PEFT folder or a LoRA's GGUF")
        with target.open("xb") as copy:
            copy.write(begins)
            left = info.st_size - len(begins)
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                copy.write(block)
                left -= len(block)
