"""Texts and files that come with the program. Imports nothing heavy: the daemon reads them too."""

from importlib import resources
from pathlib import Path


def shipped_file(name: str) -> Path:
    """`adapters/data/<name>`."""
    return Path(str(resources.files("acclimate.adapters").joinpath("data", name)))


def shipped_lines(name: str) -> list[str]:
    """The lines of `adapters/data/<name>.txt` that are neither empty nor a comment."""
    text = resources.files("acclimate.adapters").joinpath(f"data/{name}.txt").read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
