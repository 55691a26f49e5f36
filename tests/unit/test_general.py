"""Vectors of general text: made once, and not against somebody who wants to stop."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from acclimate.daemon.general import BATCH, General
from acclimate.store.errors import EngineError


class Counting:
    """Embeds, and remembers how many texts."""

    def __init__(self) -> None:
        self.texts = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += len(texts)
        return np.tile(np.array([0.6, 0.8], np.float32), (len(texts), 1))


def test_it_ends_between_a_few_texts_and_begins_again(tmp_path: Path) -> None:
    embed = Counting()
    general = General(tmp_path / "cache", embed, "m")
    with pytest.raises(EngineError, match="later"):
        general.vectors(lambda: embed.texts > 0)
    assert embed.texts == BATCH
    vectors = general.vectors()
    assert vectors.shape == (len(general.texts()), 2)
    assert embed.texts == BATCH + len(general.texts())
    General(tmp_path / "cache", embed, "m").vectors()
    assert embed.texts == BATCH + len(general.texts()), "they are kept"
