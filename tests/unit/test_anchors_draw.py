"""Which of the shipped prompts a round anchors the model at."""

from __future__ import annotations

import pytest

from acclimate.adapters import anchors


@pytest.mark.parametrize("name", ["anchor_prompts", "short_prompts"])
def test_a_round_draws_whole_blocks_and_rounds_draw_different_ones(name: str) -> None:
    prompts = anchors.shipped_prompts(name)
    assert len(prompts) % anchors.BLOCK == 0
    assert len(set(prompts)) == len(prompts)
    seen: set[str] = set()
    for seed in range(40):
        drawn = anchors.drawn_prompts(name, seed)
        assert drawn == anchors.drawn_prompts(name, seed)
        flat = [text for block in drawn for text in block]
        assert len(set(flat)) == len(flat) == anchors.BLOCKS_A_ROUND * anchors.BLOCK
        seen |= set(flat)
    assert seen == set(prompts)


def test_no_anchor_is_among_what_measures_drift() -> None:
    held_out = {text.lower() for text in anchors.shipped_prompts("general_held_out")}
    for name in ("anchor_prompts", "short_prompts"):
        assert held_out.isdisjoint(text.lower() for text in anchors.shipped_prompts(name))
