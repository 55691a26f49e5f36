"""The gate: each check alone, the statistics against published tables, verdicts as values."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.exposure import CODES, exposure
from acclimate.adapters.gate import (
    Limits,
    Measures,
    gate,
    lower_bound,
    sign_test,
    t_quantile,
    upper_bound,
)

GOOD = Measures(
    scale=1.0,
    finite=True,
    applied_kl=0.5,
    wordings=[(3.0, 0.5), (2.5, 0.4), (4.0, 1.0), (3.5, 0.2)],
    unseen=[(2.0, 1.5), (2.2, 1.6)],
    general_parent=[(1.0, 1.005), (1.2, 1.2), (0.9, 0.91), (1.1, 1.1)],
    general_base=[(1.0, 1.005), (1.2, 1.2), (0.9, 0.91), (1.1, 1.1)],
    stops=(20, 18, 1),
    repeating=(0.0, 0.05),
    refusals=(10, 10),
    exposure=2.0,
    exposure_by_chance=(3.5, 0.4),
)


def test_a_good_candidate_is_accepted_with_every_check_named() -> None:
    verdict = gate(GOOD)
    assert verdict.accepted
    assert [c.name for c in verdict.checks] == [
        "finite",
        "applied",
        "learned",
        "unseen",
        "general, against parent",
        "general, against base",
        "stops",
        "repeats",
        "refusals",
        "memorised",
    ]


def test_few_wordings_need_no_proof_but_a_gain() -> None:
    """Three facts, learned unevenly: a bound on their mean would turn nearly any of them away."""
    assert gate(replace(GOOD, wordings=[(3.0, 2.0), (4.0, 1.0), (6.0, 1.0)])).accepted
    assert not gate(replace(GOOD, wordings=[(3.0, 3.5), (4.0, 3.9), (6.0, 6.1)])).accepted


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"finite": False}, "finite"),
        ({"applied_kl": 0.0}, "applied"),
        ({"applied_kl": math.nan}, "applied"),
        ({"wordings": [(3.0, 3.1), (2.5, 2.4), (4.0, 4.0), (3.5, 3.6)]}, "learned"),
        ({"wordings": [(3.0, 0.1), (3.0, 3.2), (3.0, 2.9), (2.0, 2.3), (2.0, 2.1)]}, "learned"),
        ({"unseen": [(2.0, 2.4), (2.2, 2.5), (2.1, 2.5)]}, "unseen"),
        ({"wordings": [], "unseen": [(2.0, 2.01), (2.2, 2.22)]}, "unseen"),
        ({"wordings": [], "unseen": []}, "learned"),
        ({"general_parent": [(1.0, 1.04)] * 4}, "general, against parent"),
        ({"general_base": [(1.0, 1.06)] * 4}, "general, against base"),
        ({"stops": (20, 12, 1)}, "stops"),
        ({"repeating": (0.0, 0.3)}, "repeats"),
        ({"refusals": (10, 5)}, "refusals"),
        ({"exposure": exposure(1, len(CODES))}, "memorised"),
        ({"exposure": math.nan}, "memorised"),
    ],
)
def test_each_check_rejects_alone(change: dict[str, object], failed: str) -> None:
    verdict = gate(replace(GOOD, **change))
    assert not verdict.accepted
    assert [c.name for c in verdict.checks if not c.passed] == [failed]
    assert len(verdict.reasons) == 1 and verdict.reasons[0].startswith(failed)


def test_a_noisy_rise_is_judged_by_its_bound_not_its_mean() -> None:
    noisy = [(1.0, 1.2), (1.0, 0.85), (1.0, 1.1), (1.0, 0.85)]  # mean 0, wide
    assert not gate(replace(GOOD, general_base=noisy)).accepted
    assert gate(replace(GOOD, general_base=noisy), Limits(max_general_rise_base=0.3)).accepted


@pytest.mark.parametrize(
    ("p", "freedom", "table"),
    [
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.95, 5, 2.015),
        (0.95, 10, 1.812),
        (0.95, 30, 1.697),
        (0.99, 4, 3.747),
        (0.975, 8, 2.306),
    ],
)
def test_t_quantiles_are_those_of_the_tables(p: float, freedom: int, table: float) -> None:
    assert t_quantile(p, freedom) == pytest.approx(table, abs=0.02)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_the_bound_is_never_below_the_mean(differences: list[float]) -> None:
    assert upper_bound(differences) >= sum(differences) / len(differences) - 1e-9


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        upper_bound([])
    with pytest.raises(ValueError, match="between"):
        t_quantile(1.0, 3)


@pytest.mark.parametrize(
    ("worse", "better", "chance"),
    [(0, 0, 1.0), (1, 0, 0.5), (3, 0, 0.125), (5, 0, 0.03125), (8, 2, 56 / 1024), (0, 4, 1.0)],
)
def test_sign_test_is_the_binomial_tail(worse: int, better: int, chance: float) -> None:
    assert sign_test(worse, better) == pytest.approx(chance)


def test_a_few_replies_that_no_longer_end_are_chance() -> None:
    assert gate(replace(GOOD, stops=(3, 0, 0))).accepted
    assert not gate(replace(GOOD, stops=(8, 0, 0))).accepted


def test_what_was_not_measured_is_no_check_and_what_was_is_told_beside_chance() -> None:
    unmeasured = gate(replace(GOOD, exposure=None, exposure_by_chance=()))
    assert unmeasured.accepted and "memorised" not in {c.name for c in unmeasured.checks}
    told = next(c.reason for c in gate(GOOD).checks if c.name == "memorised")
    assert "2.0 bits" in told and told.endswith("never seen 0.4, 3.5)")
    assert GOOD.summary()["exposure"] == 2.0
    assert gate(replace(GOOD, exposure=exposure(2, len(CODES)))).accepted
    assert gate(replace(GOOD, exposure=9.5), Limits(max_exposure=9.9)).accepted


def test_one_held_out_exchange_is_no_veto_and_several_are() -> None:
    assert gate(replace(GOOD, unseen=[(2.0, 2.4)])).accepted
    assert not gate(replace(GOOD, unseen=[(2.0, 2.4), (2.1, 2.5), (1.9, 2.35)])).accepted
    assert gate(replace(GOOD, unseen=[(2.0, 2.33), (2.1, 2.45)])).accepted, "a near miss of two"
    assert lower_bound([0.4]) == lower_bound([0.4, 0.4]) == -math.inf
    assert 0 < lower_bound([0.4, 0.41, 0.39]) < 0.4 < upper_bound([0.4, 0.41, 0.39])
