"""From rows of the benchmark to its table and plots."""

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from continual.report import (
    backward_transfer,
    beaten,
    forgetting_plot,
    gain,
    matrix,
    plasticity,
    recall_plot,
    table,
)
from continual.streams import Style


def row(number: int, by_round: list[float], nll: float = 0.02, **more: Any) -> dict[str, Any]:
    return {
        "round": number,
        "by_round": {str(n): share for n, share in enumerate(by_round, start=1)},
        "reworded": sum(by_round) / len(by_round),
        "exact": 1.0,
        "roundabout": 0.1,
        "stale": 0.0,
        "style": 0.8,
        "kept": 0.95,
        "general_nll": nll,
        "kl": 0.01,
        "seconds": 60.0 * number,
        **more,
    }


OURS = [row(1, [0.8]), row(2, [0.7, 0.6]), row(3, [0.6, 0.7, 0.5])]
NAIVE = [row(1, [0.9], 0.3), row(2, [0.2, 0.9], 0.6), row(3, [0.1, 0.1, 0.9], 0.9)]


def test_forgetting_and_learning_are_told_apart() -> None:
    assert matrix(OURS)[3, 2] == 0.7
    # Round 1: 0.8 → 0.6, round 2: 0.6 → 0.7.
    assert backward_transfer(OURS) == pytest.approx((-0.2 + 0.1) / 2)
    assert plasticity(OURS) == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    assert backward_transfer(NAIVE) == pytest.approx(-0.8)
    assert backward_transfer(OURS[:1]) is None and backward_transfer([]) is None


def test_contradictions_are_no_forgetting() -> None:
    lasting = [{"1": 0.8}, {"1": 0.8, "2": 0.6}, {"1": 0.75, "2": 0.65, "3": 0.5}]
    rows = [{**of, "lasting": shares} for of, shares in zip(OURS, lasting, strict=True)]
    assert backward_transfer(rows, "lasting") == pytest.approx(0.0)
    assert backward_transfer(rows) == backward_transfer(OURS)
    assert backward_transfer(OURS, "lasting") is None, "rows of older runs do not have it"


def test_ours_is_compared_with_the_best_other_row_in_every_round() -> None:
    low = [row(n, [0.5] * n) for n in (1, 2, 3)]
    found = beaten({"base": OURS, "ours": OURS, "naive": NAIVE, "low": low, "joint": OURS[2:]})
    assert [found[n][1] for n in (1, 2, 3)] == ["naive", "low", "low"]
    assert found[1] == (gain(OURS[0]), "naive", gain(NAIVE[0]))


def test_the_table_has_a_line_for_each_row_and_for_retrieval() -> None:
    read = {"reworded": 0.9, "exact": 1.0, "stale": 0.0, "roundabout": 0.4}
    done = [*OURS[:2], {**OURS[2], "retrieval": read}]
    lines = table({"naive": NAIVE, "ours": done}).splitlines()
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3].startswith("| ours | 60% | 100% | 10% | 63% | -5 |")
    assert lines[4].startswith("| ours + retrieval | 90% | 100% | 40% | – | – |")


def test_a_row_that_failed_says_so() -> None:
    failed = [NAIVE[0], {"round": 2, "state": "failed", "reasons": ["loss nan"]}]
    assert "naive (then failed)" in table({"naive": failed})
    assert "failed" in table({"ewc": failed[1:]})


def test_plots_are_drawings() -> None:
    results = {"base": OURS, "naive <all>": NAIVE, "ours": OURS}
    for plot in (recall_plot(results), forgetting_plot(results), recall_plot({})):
        assert ElementTree.fromstring(plot).tag.endswith("svg")  # noqa: S314 - our own
    assert recall_plot(results).count("<rect") == 1 + 6 + 6, "the base learns nothing"


def test_a_style_without_contents_is_not_adhered_to() -> None:
    style = Style("Ahoy there!", "Yours, Bo.", ())
    assert style.adhered("Ahoy there! It rains, so we wait. Yours, Bo.")
    assert not style.adhered("Ahoy there! Yours, Bo.")
    assert not style.adhered("It rains, so we wait. Yours, Bo.")
    assert not style.adhered("Ahoy there! It rains, so we wait.")
