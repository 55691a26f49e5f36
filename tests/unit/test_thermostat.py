"""λ follows the drift of the lineage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.thermostat import (
    BUDGET,
    SET_POINT,
    STRONGEST,
    WEAKEST,
    WEIGHT,
    Held,
    kl_weight,
)


def test_the_first_round_is_held_as_the_budget_asks() -> None:
    assert kl_weight(BUDGET) == WEIGHT
    assert kl_weight(BUDGET / 2) == 2 * WEIGHT


def test_on_the_set_point_nothing_changes() -> None:
    assert kl_weight(0.04, Held(31.0, SET_POINT * 0.04, 1.0)) == pytest.approx(31.0)


def test_drift_beyond_it_holds_more_and_less_drift_holds_less() -> None:
    at = SET_POINT * BUDGET
    assert kl_weight(BUDGET, Held(20.0, 1.3 * at, 1.0)) == pytest.approx(26.0)
    assert kl_weight(BUDGET, Held(30.0, 0.8 * at, 1.0)) == pytest.approx(24.0)


def test_a_light_round_is_no_licence_for_those_after_it() -> None:
    assert kl_weight(BUDGET, Held(WEIGHT, 0.1 * SET_POINT * BUDGET, 1.0)) == WEIGHT


def test_a_weakened_adapter_counts_as_what_it_would_have_drifted() -> None:
    at = SET_POINT * BUDGET
    assert kl_weight(BUDGET, Held(20.0, at, 0.8)) > kl_weight(BUDGET, Held(20.0, at, 1.0))


def test_what_was_rejected_is_held_more_strongly() -> None:
    assert kl_weight(BUDGET, rejected=2) > kl_weight(BUDGET, rejected=1) > kl_weight(BUDGET)


@given(
    st.floats(1e-4, 1.0),
    st.floats(WEAKEST, STRONGEST),
    st.floats(-1.0, 5.0),
    st.floats(0.5, 1.0),
    st.integers(0, 50),
)
def test_it_stays_within_its_bounds(
    budget: float, weight: float, rise: float, scale: float, rejected: int
) -> None:
    assert WEAKEST <= kl_weight(budget, Held(weight, rise, scale), rejected) <= STRONGEST


def test_a_life_settles_at_the_set_point() -> None:
    """Drift grows with what is learned and shrinks with λ: 40 rounds stay in the budget."""
    drift, held = 0.0, None
    for _ in range(40):
        weight = kl_weight(BUDGET, held)
        drift = 0.7 * drift + 0.2 / weight
        held = Held(weight, drift, 1.0)
    assert drift == pytest.approx(SET_POINT * BUDGET, rel=0.2)
