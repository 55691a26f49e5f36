"""What a text is called that was handed over: its name says what it is, as the store tells it.

Knows names only.
"""

import hashlib
from pathlib import PurePosixPath

from acclimate.store.prepare import CHAT_SUFFIXES


def named(name: str, kind: str | None, data: bytes) -> str:
    """A name whose ending fits the kind."""
    if name in ("-", "stdin"):
        # What was piped in has no name: its content is one, so that a second text is another.
        name = f"stdin-{hashlib.sha256(data).hexdigest()[:12]}"
    suffix = PurePosixPath(name).suffix.lower()
    if kind == "chat" and suffix not in CHAT_SUFFIXES:
        return f"{name}.jsonl"
    if kind in ("notes", "code") and suffix in CHAT_SUFFIXES:
        return f"{name}.txt"
    return name


def other_names(name: str) -> set[str]:
    """What else it may be kept as, where a kind was given that its own ending does not say."""
    return {named(name, kind, b"") for kind in ("chat", "notes")} - {name}
