"""Names that the person, or a client, gave to adapters; a version may have several.

Knows no weights; a name is taken away and moved, a version never is.
"""

import re

from acclimate.store.db import Db
from acclimate.store.errors import AdapterError, NotFound

# Words that say something else where a model is named.
RESERVED = frozenset({"base", "live", "acclimate", "embedder"})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VERSION = re.compile(r"v[0-9]+", re.IGNORECASE)


class NameTaken(AdapterError):
    """Another adapter has that name."""


def check_name(name: str) -> str:
    """The name, if an adapter may have it. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, dots, hyphens or underscores")
    if name.lower() in RESERVED or _VERSION.fullmatch(name):
        raise ValueError(f"{name} means something else where a model is named")
    return name


def names(db: Db) -> dict[str, int]:
    """Every name and its version, in alphabetical order."""
    rows = db.read().execute("SELECT name, version FROM adapter_names ORDER BY name").fetchall()
    return {row["name"]: row["version"] for row in rows}


def version_of(db: Db, name: str) -> int | None:
    """The version that has this name, None where none has."""
    row = db.read().execute("SELECT version FROM adapter_names WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row["version"])


def give(db: Db, name: str, version: int, *, take_over: bool = False) -> None:
    """Name an adapter. Raises ValueError for no name, NameTaken unless it is to be taken over."""
    check_name(name)
    with db.write() as conn:
        must_be_free(db, name, take_over=take_over)
        conn.execute("INSERT OR REPLACE INTO adapter_names VALUES (?, ?)", (name, version))


def must_be_free(db: Db, name: str, *, take_over: bool = False) -> None:
    """Raises NameTaken where an adapter has this name, unless it is to be taken over."""
    if not take_over and version_of(db, name) is not None:
        raise NameTaken(f"there is an adapter {name} already", "choose another name")


def take_away(db: Db, name: str) -> int:
    """Remove a name; the version that had it. Raises NotFound."""
    with db.write() as conn:
        version = version_of(db, name)
        if version is None:
            raise NotFound(f"no adapter has the name {name[:64]}", "see: GET /v1/models")
        conn.execute("DELETE FROM adapter_names WHERE name = ?", (name,))
    return version
