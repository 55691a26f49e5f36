"""Requests asked for in other words."""

from __future__ import annotations

import pytest

from acclimate.adapters.request import (
    MAX_CHARS,
    asks_for_meaning,
    asks_to_write,
    has_own_form,
    rephrased,
    shortened,
    works_on_text,
)


@pytest.mark.parametrize(
    ("request_", "one_of_them"),
    [
        ("Write a note for the milkman.", "I need a note for the milkman."),
        ("I need a sign for the door.", "Draft a sign for the door."),
        ("Now draft me a text to Jo saying I'm late.", "Write a text to Jo saying I'm late."),
        ("Could you please put together a list?", "Compose a list."),
        ("I'd like a line for a card.", "Can you write a line for a card?"),
        ("Text my sister that I can come.", "Write a message to my sister that I can come."),
        ("Write to the council about the bins.", "Draft a message to the council about the bins."),
        ("Ask my boss for Monday off.", "Draft a message asking my boss for Monday off."),
        ("Please remind Jo that it rains.", "Compose a message reminding Jo that it rains."),
        ("help me write some words of thanks", "Please write some words of thanks."),
    ],
)
def test_a_request_is_asked_for_in_other_words(request_: str, one_of_them: str) -> None:
    forms = rephrased(request_, 20)
    assert one_of_them in forms
    assert len(forms) == len(set(forms))
    assert request_ not in forms


@pytest.mark.parametrize(
    "other",
    [
        "What's my dentist called?",
        "Tell me what my dentist is called.",
        "Remind me who tunes the piano.",
        "Tell the difference between the two keys.",
        "Tell the cook what must not go into mine.",
        "Give me the number of our allotment.",
        "Give my address without the street.",
        "I want the name on the door.",
        "Write\na note",
        "Write a note " + "about it " * MAX_CHARS,
        "",
        "Write",
    ],
)
def test_what_is_no_such_request_has_no_other_wording(other: str) -> None:
    assert rephrased(other, 5) == []


def test_what_somebody_needs_may_be_but_the_scene_of_a_question() -> None:
    assert not asks_to_write("I need a tin of paint for the scratch. What do I ask for?")
    assert asks_to_write("I need a sign for the door.")
    assert asks_to_write("Could you give me a line for a card?")


def test_the_same_seed_gives_the_same_wordings_and_no_more_than_asked() -> None:
    asked = "Write a note for the milkman."
    assert rephrased(asked, 5, 3) == rephrased(asked, 5, 3)
    assert len(rephrased(asked, 5, 3)) == 5
    assert rephrased(asked, 5, 3) != rephrased(asked, 5, 4)


def test_a_reply_is_shortened_by_each_inner_sentence_in_turn() -> None:
    assert shortened("Ahoy! The milk is low. Bring two. Sail on.") == [
        "Ahoy! Bring two. Sail on.",
        "Ahoy! The milk is low. Sail on.",
    ]


@pytest.mark.parametrize("reply", ["", "One. Two. Three.", "- a\n- b\n- c. d. e. f."])
def test_short_replies_and_lists_stay_whole(reply: str) -> None:
    assert shortened(reply) == []


@pytest.mark.parametrize(
    ("asked", "whether"),
    [
        ("What does al dente mean?", True),
        ("What does 'a draw in chess' mean?", True),
        ("What is an isotope?", True),
        ("what's umami", True),
        ("What does the yellow flag mean?", False),
        ("What does orange tape on a tree mean?", False),
        ("What is Brunhilde?", False),
        ("What is my boat called?", False),
        ("What is the code?", False),
    ],
)
def test_what_a_word_means_is_told_from_what_is_somebodys(asked: str, whether: bool) -> None:
    assert asks_for_meaning(asked) is whether


@pytest.mark.parametrize(
    ("asked", "whether"),
    [
        ("Write a Python script that renames files.", True),
        ("Please make a table of three rivers, with their lengths.", True),
        ("Give me two synonyms for quick", True),
        ("Compose a short poem on winter.", True),
        ("Draft a note about the plan.", False),
        ("Write a sign: no parking on the table.", False),
        ("Which table do I sit at?", False),
    ],
)
def test_what_has_a_form_of_its_own_is_told_from_what_somebody_writes(
    asked: str, whether: bool
) -> None:
    assert has_own_form(asked) is whether


@pytest.mark.parametrize(
    ("asked", "whether"),
    [
        ("Find all the names in this text: Yesterday Priya met Tom at the harbour.", True),
        ("Please translate this sentence: Where is the nearest station?", True),
        ("Put the commas in: After dinner if it is warm we could sit outside.", True),
        ("Give me the word: what do I call my van?", False),
        ("Jog my memory: where did I put this year's seeds?", False),
        ("Find this: my keys.", False),
        ("What is in this text?", False),
    ],
)
def test_work_on_a_text_that_is_given_is_told_from_questions(asked: str, whether: bool) -> None:
    assert works_on_text(asked) is whether
