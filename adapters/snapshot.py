"""What a round's worker is given and what it gives back, as JSON files in the round's folder.

The border between the daemon and the worker; imports neither torch nor the server.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from acclimate.adapters.training import Training
from acclimate.store.buffer import Example

Precision = Literal["float32", "bfloat16", "nf4"]

# From how much faster on the weights are rounded to bfloat16 for training.
BFLOAT16_GAIN = 1.3

SNAPSHOT_FILE = "snapshot.json"
RESULT_FILE = "result.json"
CANDIDATE_DIR = "candidate"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Taught(_Model):
    """One example as it stands in the buffer; `content` is its canonical JSON.

    `passage` is the part of a note that it was made from, empty for what was said in a chat.
    """

    id: int
    kind: Literal["exchange", "preference"]
    content: dict[str, Any]
    passage: str = ""

    def messages(self) -> list[dict[str, str]]:
        """The conversation to learn; of a preference pair, the prompt with the chosen reply."""
        messages = [dict(m) for m in self.content["messages"]]
        if self.kind == "preference":
            messages.append({"role": "assistant", "content": self.content["chosen"]})
        return messages


def taught_of(example: Example) -> Taught:
    """The example of the buffer as a round's snapshot holds it."""
    return Taught(
        id=example.id, kind=example.kind, content=example.content, passage=example.passage or ""
    )


class Pace(_Model):
    """What a worker found this machine to be fast with; `bfloat16_gain` is a factor."""

    threads: int
    bfloat16_gain: float

    def precision(self) -> Precision:
        """What to train in where memory is no question."""
        return "bfloat16" if self.bfloat16_gain >= BFLOAT16_GAIN else "float32"

    @staticmethod
    def path(folder: Path, threads: int) -> Path:
        """Its file. A folder may be carried from machine to machine."""
        machine = f"{platform.node()}/{platform.machine()}/{threads}"
        return folder / f"pace-{hashlib.sha256(machine.encode()).hexdigest()[:12]}.json"

    @classmethod
    def load(cls, folder: Path, threads: int) -> Pace | None:
        """What was measured on this machine with at most so many threads, None if nothing was."""
        try:
            return cls.model_validate_json(cls.path(folder, threads).read_bytes())
        except (OSError, ValueError):
            return None


class Snapshot(_Model):
    """Everything that a round depends on. Paths are absolute, or relative to the round's folder.

    `by_pace`: nothing is known of this machine yet; the worker measures it, and trains in what it
    finds instead of `precision`. `brought`: by how much the adapter from elsewhere that the lineage
    begins with raised general NLL, in nats a token; None: the parent is that one, to be measured.
    """

    round: int
    seed: int
    threads: int
    base: Path
    base_sha256: str
    precision: Precision = "float32"
    by_pace: bool = False
    anchor_cache: Path
    checkpoint: Path | None = None
    parent: Path | None = None
    parent_version: int | None = None
    brought: float | None = 0.0
    training: Training = Training()
    limits: dict[str, float] = {}
    new: list[Taught]
    replay: list[Taught] = []
    held_out: list[Taught] = []

    def key(self) -> str:
        """Names all that the trained adapter depends on: equal for the same round begun again."""
        places = {"round", "base", "anchor_cache", "checkpoint", "parent", "by_pace"}
        return hashlib.sha256(self.model_dump_json(exclude=places).encode()).hexdigest()


class Canary(_Model):
    """What the worker's model predicts next after `tokens`: its k likeliest, in nats.

    `base_logp` are the base's log-probabilities of the same tokens; serving must reproduce
    `logp`, and must not serve `base_logp` instead.
    """

    tokens: list[int]
    ids: list[int]
    logp: list[float]
    base_logp: list[float]


class Result(_Model):
    """The worker's verdict. `card` is what `card.json` will hold beside the daemon's own facts.

    `surprise` is the NLL of each example's reply under the candidate, in nats a token.
    """

    accepted: bool
    reasons: list[str]
    measures: dict[str, Any]
    card: dict[str, Any]
    canaries: list[Canary] = []
    surprise: dict[int, float] = {}
    files: dict[str, str] = {}
