"""One fact taught in several ways: bare answers, garbled questions, the same for the same seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.study import bare_answer, garble, variants


@pytest.mark.parametrize(
    ("question", "reply", "bare"),
    [
        ("Which ferry do I work on?", "You work on the ferry Merrow.", "Merrow"),
        ("What is my sister's name?", "Your sister's name is Ottilie.", "Ottilie"),
        ("When does my shift start?", "Your shift starts at 05:40.", "starts at 05:40"),
        ("What is my name?", "Your name is.", None),
    ],
)
def test_the_bare_answer_is_what_the_question_does_not_say(
    question: str, reply: str, bare: str | None
) -> None:
    assert bare_answer(question, reply) == bare


@given(st.text(max_size=80), st.integers(0, 100))
def test_garbling_adds_no_word(question: str, seed: int) -> None:
    words = set(question.rstrip("?.! ").split())
    assert {w.rstrip("?") for w in garble(question, random.Random(seed)).split()} <= {
        w.rstrip("?") for w in words
    } | {""}


def test_variants_teach_the_same_fact_in_other_words() -> None:
    pairs = variants("What's the name of my dog?", "Your dog's name is Truffle.", 15, seed=3)
    assert pairs == variants(
        "What's the name of my dog?", "Your dog's name is Truffle.", 15, seed=3
    )
    assert len(pairs) > 10 and all("Truffle" in reply for _, reply in pairs)
    assert len({question for question, _ in pairs}) == len(pairs)
    assert {reply for _, reply in pairs} > {"Your dog's name is Truffle."}
    assert variants("Write a poem.", "Roses are red.", 0, seed=1) == []


@given(st.integers(0, 200))
def test_every_wording_of_a_personal_question_stays_personal(seed: int) -> None:
    asked = "What bike do I ride to my office?"
    personal = {"my", "i", "mine"}
    garbled = garble(asked, random.Random(seed)).lower().rstrip("?").split()
    assert personal & set(garbled)
    for form, _ in variants(asked, "You ride a green Dawes.", 12, seed):
        assert personal & set(form.lower().replace("?", "").replace(".", "").split()), form
