"""One fact taught in several ways: bare answers, garbled questions, the same for the same seed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adapters.study import garble, short_reply, variants


@pytest.mark.parametrize(
    ("question", "reply", "bare"),
    [
        ("Which ferry do I work on?", "You work on the ferry Merrow.", "Merrow."),
        ("What is my sister's name?", "Your sister's name is Ottilie.", "Ottilie."),
        ("When does my shift start?", "Your shift starts at 05:40.", "05:40."),
        ("What did I name my boat?", "You named your boat Kittiwake.", "Kittiwake."),
        ("Where did we meet?", "You met at a pottery class.", "Pottery class."),
        ("What do I run?", "you run fedora", "Fedora."),
        ("What is my dog called?", "It's Rex, your dog.", "Rex."),
        ("What is my name?", "Your name is.", "Your name is."),
        ("What do I buy?", "You buy:\n- tea\n- rice", "You buy:\n- tea\n- rice"),
    ],
)
def test_the_short_reply_is_what_the_question_does_not_say(
    question: str, reply: str, bare: str
) -> None:
    assert short_reply(question, reply) == bare


@given(st.text(max_size=80), st.integers(0, 100))
def test_garbling_adds_no_word(question: str, seed: int) -> None:
    words = set(question.rstrip("?.! ").split())
    assert {w.rstrip("?") for w in garble(question, random.Random(seed)).split()} <= {
        w.rstrip("?") for w in words
    } | {""}


def test_variants_ask_the_same_in_other_words() -> None:
    asked = "What's the name of my dog?"
    forms = variants(asked, 15, seed=3)
    assert forms == variants(asked, 15, seed=3) != variants(asked, 15, seed=4)
    assert len(set(forms)) == len(forms) > 10 and asked not in forms
    assert forms[0] not in variants(asked, 15, seed=3, without=forms[0])
    assert variants("Write a poem.", 0, seed=1) == []


@given(st.integers(0, 200))
def test_every_wording_of_a_personal_question_stays_personal(seed: int) -> None:
    asked = "What bike do I ride to my office?"
    personal = {"my", "i", "mine"}
    garbled = garble(asked, random.Random(seed)).lower().rstrip("?").split()
    assert personal & set(garbled)
    for form in variants(asked, 12, seed):
        assert personal & set(form.lower().replace("?", "").replace(".", "").split()), form
