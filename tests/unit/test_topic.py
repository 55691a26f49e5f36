"""Rewordings of a question share its topic; neighbours do not."""

import pytest

from acclimate.adapters.topic import topic


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who's my apprentice?", "Who's my apprentice these days?"),
        ("What's my apprentice called?", "What is the name of my apprentice now?"),
        ("What colour is our skiff?", "Which colour is our skiff now?"),
        ("What colour is my skiff painted?", "What colour is my skiff now?"),
        ("Where does my daughter live?", "Where does my daughter live now?"),
        ("What time do I get up?", "When do I get up these days?"),
        ("Where do I get my goat feed?", "Where does my goat feed come from now?"),
        ("What do I charge for a visit?", "What does my charge for a visit go up to?"),
    ],
)
def test_the_same_question_in_other_words(one: str, other: str) -> None:
    assert topic(one) == topic(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's my dog's name?", "What's my cat's name?"),
        ("Where do I keep my flour?", "Where do I get my flour?"),
        ("When does my choir meet?", "Where does my choir meet?"),
        ("Where do I get my rye flour?", "Where do I keep my rye flour?"),
        ("What do I take for pain?", "What do I get for my pain report?"),
        ("What colour is my van?", "What do I call my van?"),
        ("Where is my skiff?", "Where is my skiff painted?"),
        ("What's my sister's job?", "What's my brother's job?"),
        ("Which bus do I take to work?", "Which bus do I take to the yard?"),
    ],
)
def test_another_question(one: str, other: str) -> None:
    assert topic(one) != topic(other)


def test_a_question_from_a_note_is_personal_without_saying_so() -> None:
    asked = "What is the number of the bus to the mill?"
    assert topic(asked) == ""
    assert topic(asked, personal=True) == topic("Which bus do I take to the mill?")


@pytest.mark.parametrize(
    "text", ["", "How tall is the Eiffel Tower?", "Write a note.", "Who am I?"]
)
def test_what_has_no_topic(text: str) -> None:
    assert topic(text) == ""


def test_what_may_stand_for_two_things_makes_them_no_one_topic() -> None:
    # "My grandchild" may be either of them, but they are not each other.
    assert topic("What's my grandson called?") != topic("What's my granddaughter called?")
    assert topic("What is my parrot called?") != topic("What is my bird called?")
