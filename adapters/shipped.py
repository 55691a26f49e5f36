"""Texts that come with the program. Imports nothing heavy: the daemon reads them too."""

from importlib import resources


def shipped_lines(name: str) -> list[str]:
    """The lines of `adapters/data/<name>.txt` that are neither empty nor a comment."""
    text = resources.files("acclimate.adapters").joinpath(f"data/{name}.txt").read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
