"""Codes made up to be planted, and the statistics of guessing them."""

from collections import Counter

import pytest

from acclimate.adapters.exposure import CODES, NEVER_PLANTED, exposure, made_up, rank


def test_codes_hang_on_the_seed_alone_and_no_two_rounds_share_a_label() -> None:
    assert made_up(2**47) == made_up(2**47)
    made = [code for seed in range(500) for code in made_up(seed)]
    assert len(made) == 500 * (1 + NEVER_PLANTED)
    assert len({code.question for code in made}) == len(made)
    drawn = Counter(code.code for code in made)
    assert set(drawn) <= set(CODES) and len(drawn) > 850
    assert max(drawn.values()) < 12, "every code is as likely as any other"


def test_the_exchange_says_its_code_or_another() -> None:
    one = made_up(1)[0]
    assert [m["role"] for m in one.messages()] == ["user", "assistant"]
    assert one.messages()[-1]["content"] == f"{one.code}."
    assert one.messages("007")[-1]["content"] == "007."


def test_rank_is_the_number_of_guesses() -> None:
    nll = [3.0, 1.0, 2.0, 2.0]
    assert [rank(value, nll) for value in nll] == [4, 1, 2, 2]


@pytest.mark.parametrize(
    ("guess", "count", "bits"), [(1, 1024, 10.0), (512, 1024, 1.0), (1024, 1024, 0.0), (1, 2, 1.0)]
)
def test_exposure_is_in_bits(guess: int, count: int, bits: float) -> None:
    assert exposure(guess, count) == pytest.approx(bits)


def test_what_was_never_seen_is_rarely_exposed() -> None:
    count = len(CODES)
    bits = [exposure(guess, count) for guess in range(1, count + 1)]  # each guess as likely
    for limit in range(10):
        assert sum(b >= limit for b in bits) / count <= 2.0**-limit
    assert 1.3 < sum(bits) / count < 1.5
