"""What the base writes about a note: read whatever it is, and kept only where the note says so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.adapters import inquiry
from acclimate.adapters.inquiry import MOST_PAIRS, Pair, fault, pairs_of, quoted, says

NOTE = (
    "Our ferryman is called Hosea Penn. He crosses at 06:30 in *the blue skiff*.\n\n- tea\n- rope"
)
# Text that may look like what is asked for: letters, marks, ends of lines.
REPLIES = st.text(
    st.one_of(st.sampled_from("QA:?\n *-1."), st.characters(codec="utf-8")), max_size=300
)


def test_pairs_are_read_in_any_dress() -> None:
    reply = (
        "Sure!\nQ: What is my cat called?\nA: Biscuit\n\n1. **Q:** Who sings?\n   **A:** My aunt\n"
        "Q2: And when?\nQ3: Where?\nA: in Rome\nA: twice\nQ: What is my cat called?\nA: Rex\n"
        "Q: Who is half a\nA: pai"
    )
    assert pairs_of(reply) == [
        Pair("What is my cat called?", "Biscuit"),
        Pair("Who sings?", "My aunt"),
        Pair("Where?", "in Rome"),
    ]
    assert pairs_of("None\n") == pairs_of("") == []


@settings(deadline=None)
@given(REPLIES, st.text(max_size=200))
def test_whatever_is_written_is_read_and_judged(reply: str, note: str) -> None:
    pairs = pairs_of(reply + "\n")
    assert len(pairs) <= MOST_PAIRS
    for pair in pairs:
        assert pair.question and pair.answer and "\n" not in pair.question + pair.answer
        if not fault(pair, note):
            assert says(note, pair.answer)


@settings(deadline=None)
@given(REPLIES, st.text(max_size=30))
def test_what_is_quoted_stands_in_the_note(note: str, answer: str) -> None:
    found = quoted(answer, note)
    assert found in " ".join(note.split())
    assert not found or says(note, found)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("hosea penn", "Hosea Penn"),
        ("Hosea", "Hosea"),
        ("ose", ""),
        ("Penn Hosea", ""),
        ("06:30", "06:30"),
        ("30", ""),
        ("a blue skiff", "blue skiff"),
        ("tea rope", ""),
        ("Penn He", ""),
        ("", ""),
    ],
)
def test_an_answer_is_found_as_whole_words_that_stand_together(answer: str, found: str) -> None:
    assert quoted(answer, NOTE) == found


def test_a_possessive_names_whom_it_names() -> None:
    assert quoted("Imke", "I borrowed Imke’s ladder") == "Imke"
    assert says("It is Imke's.", "imke") and not says("It is Imkes.", "imke")


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        ("What is my ferryman called?", "Hosea Penn", ""),
        ("What is the ferryman called?", "Hosea Penn", inquiry.UNCLEAR),
        ("When does he cross to my side?", "06:30", inquiry.UNCLEAR),
        ("What is your ferryman and mine called?", "Hosea Penn", inquiry.UNCLEAR),
        ("Tell me what my ferryman is called", "Hosea Penn", inquiry.UNCLEAR),
        ("Who is my ferryman?", "our ferryman", inquiry.LONG),
        ("Who is my ferryman?", "is called Hosea Penn. He crosses at 06:30 in the", inquiry.LONG),
        ("Who is my ferryman?", "Charon", inquiry.ABSENT),
        ("Is my ferryman Hosea called Hosea?", "Hosea", inquiry.REPEATED),
    ],
)
def test_why_a_pair_is_not_kept(question: str, answer: str, why: str) -> None:
    assert fault(Pair(question, answer), NOTE) == why


def test_the_note_comes_last_and_the_grammar_asks_for_as_many_as_are_read() -> None:
    messages = inquiry.asking(NOTE)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[-1]["content"].endswith(NOTE)
    shown = [
        pair for m in messages if m["role"] == "assistant" for pair in pairs_of(m["content"] + "\n")
    ]
    assert shown and not any(fault(pair, messages[2]["content"]) for pair in shown)
    assert f"pair{{1,{MOST_PAIRS}}}" in inquiry.GRAMMAR
