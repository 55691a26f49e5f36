"""The secret that a client of the server must show.

Knows where it is safe to keep it; never logs it.
"""

import os
import re
import secrets
import stat
from pathlib import Path

from platformdirs import user_state_path

from acclimate.store.errors import Detached, HomeError
from acclimate.store.files import TEMP_PREFIX, Home, fsync_dir

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")


def load_or_create_token(home: Home) -> str:
    """The home's token, 256 random bits made on first use, in a file that only its owner reads.

    On a file system without modes (exFAT) every user of the machine could read the home's `token`:
    there it stays on this computer, in the user's state folder, under the home's id.
    Raises HomeError (a token file that is damaged or cannot be kept private), Detached.
    """
    on_host = host_token_path(home)
    for path in (on_host, home.token):
        if (token := _load(path)) is not None:
            return token
    if not home.attached():
        raise Detached(f"{home.root} is not there", "plug the drive in again")
    return _create(home.token) or _create(on_host) or _no_private_place(on_host)


def host_token_path(home: Home) -> Path:
    """Where the token of a home without file modes is kept on this computer."""
    return user_state_path("acclimate", appauthor=False) / "tokens" / home.id


def token_file(home: Home) -> Path | None:
    """Where the token is, None before there is one."""
    return next((path for path in (host_token_path(home), home.token) if path.exists()), None)


def _load(path: Path) -> str | None:
    """None when there is none, or when no mode can keep others from reading it: it is deleted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise HomeError(f"cannot read {path}: {e.strerror}", "delete it; a new one is made") from e
    with os.fdopen(fd, encoding="ascii", errors="replace") as file:
        if not _private(fd):
            path.unlink()
            return None
        token = file.read(200).strip()
    if not _TOKEN.fullmatch(token):
        raise HomeError(f"{path} does not hold a token", "delete it; a new one is made")
    return token


def _create(path: Path) -> str | None:
    """None where the file system cannot keep a file private; nothing secret was written then."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temp = path.with_name(f"{TEMP_PREFIX}{path.name}-{secrets.token_hex(4)}")
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            if not _private(fd):
                return None
            token = secrets.token_urlsafe(32)
            file.write(token + "\n")
            file.flush()
            os.fsync(fd)
        try:
            os.link(temp, path)  # unlike a rename it lets the first of two win
        except FileExistsError:
            return _load(path)
        except OSError:
            temp.replace(path)
        fsync_dir(path.parent)
    finally:
        temp.unlink(missing_ok=True)
    return token


def _private(fd: int) -> bool:
    try:
        os.fchmod(fd, 0o600)
    except OSError:
        return False
    return stat.S_IMODE(os.fstat(fd).st_mode) == 0o600


def _no_private_place(path: Path) -> str:
    raise HomeError(
        f"no place for the token: {path.parent} cannot keep a file private",
        "set XDG_STATE_HOME to a folder on a file system with modes",
    )
