"""Secrets are found by their form, ordinary facts stay, and no input takes long."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secrets_seed import OTHER_PLACES, Seeded, ordinary, pieces, secrets

from acclimate.store.redact import MARKER, redact, redact_reply
from acclimate.store.secret_kinds import KINDS


def left_over(seeded: Seeded) -> bool:
    text = redact(seeded.text).text
    return any(piece in text for piece in pieces(seeded.secret))


def test_nearly_all_seeded_secrets_are_found() -> None:
    seeded = secrets()
    assert len(seeded) == 500
    missed = [s.kind for s in seeded if left_over(s)]
    assert len(missed) <= 25, missed


def test_most_other_places_are_known_too() -> None:
    missed = [text for secret, text in OTHER_PLACES if secret in redact(text).text]
    assert len(missed) <= len(OTHER_PLACES) // 20, missed


def test_ordinary_facts_stay() -> None:
    facts = ordinary()
    assert len(facts) == 1000
    eaten = [text for _, text in facts if redact(text).text != text]
    assert eaten == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("my password is swordfish.", "my password is [redacted: password]."),
        ("password: hunter2, user: hem", "password: [redacted: password], user: hem"),
        ("psql postgres://hem:tulip9@db/x", "psql postgres://hem:[redacted: url password]@db/x"),
        ("Visa 4111 1111 1111 1111 end", "Visa [redacted: credit card] end"),
        ("IBAN: DE89 3704 0044 0532 0130 00 BIC X", "IBAN: [redacted: iban] BIC X"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),  # Luhn's sum is off
        ("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),  # mod 97 is off
        ("The PIN of the garden gate is 4471", "The PIN of the garden gate is 4471"),
        ("PIN of my bank card is 4471", "PIN of my bank card is [redacted: pin]"),
        ("The password manager is Bitwarden7", "The password manager is Bitwarden7"),
    ],
)
def test_known_texts(text: str, expected: str) -> None:
    assert redact(text).text == expected


def test_a_bare_answer_to_a_question_for_a_password_is_one() -> None:
    asked = "What's the password of the box office?"
    assert redact_reply(asked, "It's tulip.").text == "It's [redacted: password]."
    assert redact_reply("What's the code for my bike lock?", "It's 7294.").found == {}
    assert redact_reply(asked, "You never told me that one.").found == {}


def test_lines_keep_their_numbers_and_markers_stay() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "Ab3" * 20 + "\n" * 2 + "-----END PRIVATE KEY-----"
    done = redact(f"one\n{key}\nfive: password = x9-Tulip\n")
    assert done.text.split("\n")[5] == "five: password = [redacted: password]"
    assert done.found == {"private key": 1, "password": 1}
    again = redact(done.text)
    assert (again.text, again.found) == (done.text, {})


def test_redacting_twice_changes_nothing() -> None:
    for seeded in secrets(200, seed=3):
        once = redact(seeded.text)
        assert redact(once.text) == type(once)(once.text, {}), seeded.kind


_BITS = [needle for kind in KINDS for needle in kind.needles] + list(" \n:=-.@/\"'{}<1aAé") + [
    *("-----BEGIN PRIVATE KEY-----", "4111 ", "DE89", "eyJ", "://", "sk-", "SG.", "seed phrase: "),
    *("password is ", "PIN ", " for ", "machine a login b ", "Authorization: Bearer "),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(_BITS), min_size=1, max_size=5), st.sampled_from(_BITS))
def test_time_grows_with_the_length_only(bits: list[str], last: str) -> None:
    unit = "".join(bits)
    began = time.process_time()
    done = redact(unit * (100_000 // len(unit)) + last)
    # Far above what it takes, far below what anything that is not linear would.
    assert time.process_time() - began < 10
    assert not set(done.found) - {kind.name for kind in KINDS}


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    done = redact(text)
    assert done.text.count("\n") == text.count("\n")
    assert len(MARKER.findall(done.text)) >= sum(done.found.values())


def test_a_line_of_four_megabytes_is_read_to_its_end() -> None:
    long = "token a1b2 of the hats, 4111 and so on, " * 100_000
    assert redact(long + "AKIAIOSFODNN7EXAMPLE").found == {"aws key": 1}
