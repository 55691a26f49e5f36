"""The baselines by name, and the settings that the sweep found for each.

method = build("ewc", base, prompt, base_path)
spent = method.learn(lessons, contexts, budget_tokens)   # once a round
probe.measure(method.model, …)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers

from acclimate.adapters import anchors
from acclimate.adapters.base import ALL_LINEAR, LoraShape
from acclimate.adapters.layers import choose
from acclimate.adapters.prompt import Encoded, Prompt
from acclimate.adapters.shipped import shipped_lines
from acclimate.adapters.train import Anchor, _in_turn
from acclimate.adapters.training import Training
from acclimate.store.files import sha256_file
from continual.distil import ContextDistillation
from continual.ewc import Ewc
from continual.olora import OLora
from continual.sequential import Joint, Sequential

SETTINGS = Path(__file__).with_name("settings.json")


class Replay(Sequential):
    """Cross-entropy on the base's own replies to general prompts, mixed into every batch.

    `share` of a full batch's sequences are such replies; they come on top of the lessons' budget.
    """

    name = "ce-replay"

    def __init__(
        self, *args: Any, general: Sequence[Encoded], share: float = 0.33, **own: Any
    ) -> None:
        super().__init__(*args, **own)
        if not 0 <= share < 1:
            raise ValueError(f"a share of {share} leaves nothing to learn")
        self.general = list(general)
        count = min(len(self.general), round(self.batch * share / (1 - share)))
        self._turns = _in_turn(len(self.general), count, self.generator)

    def beside(self) -> list[Encoded]:
        """The next few general replies."""
        return [self.general[i] for i in next(self._turns)]


METHODS: dict[str, type[Sequential]] = {
    m.name: m for m in (Sequential, Replay, Ewc, OLora, ContextDistillation, Joint)
}


@dataclass(frozen=True)
class Setting:
    """How one row of the benchmark is run. `shape` is "top" (as ours) or "all"."""

    method: str
    shape: str
    learning_rate: float
    own: Mapping[str, Any] = field(default_factory=dict)


def settings(path: Path = SETTINGS) -> dict[str, Setting]:
    """Every row by name, as the sweep left it."""
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return {
        name: Setting(row["method"], row["shape"], row["learning_rate"], row["own"])
        for name, row in rows.items()
    }


def lora_shape(kind: str, layers: int, boundary: int = 0) -> LoraShape:
    """ "top": our own rounds' shape, from `boundary` on; "all": every linear layer, as is usual."""
    ours = Training()
    if kind == "all":
        return LoraShape(ours.rank, ours.alpha, tuple(range(layers)), ALL_LINEAR)
    if kind != "top":
        raise ValueError(f"no shape {kind!r}: top or all")
    return LoraShape(ours.rank, ours.alpha, tuple(range(boundary, layers)), ours.modules)


def our_boundary(base: transformers.PreTrainedModel, prompt: Prompt, base_path: Path) -> int:
    """The lowest layer that our own first round trains on this base."""
    long, short = general_anchors(base, prompt, base_path)
    cache, sha256 = _cache(base_path)
    return choose(Training(), base, prompt, long, short, cache, sha256).boundary


def build(
    row: str | Setting,
    base: transformers.PreTrainedModel,
    prompt: Prompt,
    base_path: Path,
    seed: int = 0,
) -> Sequential:
    """The method of one row, on `base`, which it changes until its `close`."""
    setting = settings()[row] if isinstance(row, str) else row
    own = dict(setting.own)
    if setting.method == Replay.name:
        own["general"] = general_replies(base, prompt, base_path)
    boundary = our_boundary(base, prompt, base_path) if setting.shape == "top" else 0
    shape = lora_shape(setting.shape, base.config.num_hidden_layers, boundary)
    return METHODS[setting.method](base, prompt, shape, seed, setting.learning_rate, **own)


def general_replies(
    base: transformers.PreTrainedModel, prompt: Prompt, base_path: Path
) -> list[Encoded]:
    """What the base itself says to the anchors' prompts."""
    long, short = general_anchors(base, prompt, base_path)
    return [anchor.encoded for anchor in (*long, *short)]


def general_anchors(
    base: transformers.PreTrainedModel, prompt: Prompt, base_path: Path
) -> tuple[list[Anchor], list[Anchor]]:
    """The long and the short ones of our rounds, from the rounds' cache where it has them."""
    cache, sha256 = _cache(base_path)

    def made(name: str, tokens: int) -> list[Anchor]:
        prompts = shipped_lines(name)
        return anchors.made_once(base, prompt, prompts, tokens, cache, sha256)

    return (
        made("anchor_prompts", anchors.REPLY_TOKENS),
        made("short_prompts", anchors.SHORT_REPLY_TOKENS),
    )


def _cache(base_path: Path) -> tuple[Path, str]:
    """Where our rounds keep what they make once for a base, and the base's hash."""
    return base_path.parent / "anchors", sha256_file(base_path)
