"""Text to chunks with true line numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.store.chats import Exchange
from acclimate.store.chunk import MAX_CHARS, MOST_SENTENCES, chunk_exchanges, chunk_text, sentences

NOTE = "# Garden\n\n" + "\n\n".join(
    f"## Bed {n}\n\nIn bed {n} grow {'leeks and beans. ' * 12}" for n in range(9)
)


def test_notes_are_cut_at_headings_and_keep_their_lines() -> None:
    chunks = chunk_text(NOTE)
    lines = NOTE.split("\n")
    assert len(chunks) > 1
    for i, chunk in enumerate(chunks):
        assert chunk.ordinal == i
        assert len(chunk.text) <= MAX_CHARS
        assert chunk.text.split("\n")[0] == lines[chunk.start_line - 1]
        assert chunk.text.split("\n")[-1].strip() == lines[chunk.end_line - 1].strip()
    assert all(chunk.text.startswith("#") for chunk in chunks)


def test_code_keeps_its_indentation() -> None:
    code = "\n\n".join(
        f"def f{n}(x):\n    if x:\n        return {n}\n    return 'no'" for n in range(60)
    )
    lines = code.split("\n")
    chunks = chunk_text(code, "code")
    assert len(chunks) > 1
    for chunk in chunks:
        assert chunk.text == "\n".join(lines[chunk.start_line - 1 : chunk.end_line])


@pytest.mark.parametrize("text", ["", "\n\n", "   "])
def test_nothing_gives_nothing(text: str) -> None:
    assert chunk_text(text) == chunk_text(text, "code") == []


def test_a_file_of_one_endless_line_is_cut_all_the_same() -> None:
    chunks = chunk_text("x" * 300_000)
    assert sum(len(chunk.text) for chunk in chunks) == 300_000
    assert {(chunk.start_line, chunk.end_line) for chunk in chunks} == {(1, 1)}


@given(st.text(alphabet="ab #`-\n", max_size=400), st.sampled_from(["notes", "code"]))
def test_no_word_is_lost(text: str, kind: str) -> None:
    chunks = chunk_text(text, kind, max_chars=40)  # type: ignore[arg-type]
    assert "".join("".join(c.text.split()) for c in chunks) == "".join(text.split())


def test_an_exchange_is_one_chunk_and_a_long_one_several() -> None:
    prompt = ({"role": "user", "content": "Where?"},)
    chunks = chunk_exchanges([Exchange(3, prompt, "Ghent."), Exchange(4, prompt, "so. " * 600)])
    assert chunks[0].text == "User: Where?\nAssistant: Ghent."
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    assert {c.start_line for c in chunks[1:]} == {4}
    assert len(chunks) > 3


def test_a_chunks_sentences_and_lines_are_found_one_by_one() -> None:
    note = "## Boat\n\nShe lies at Hook. Her sails are red; I mended them.\n- berth: 14\n"
    assert sentences(note) == [
        "Boat",
        "She lies at Hook.",
        "Her sails are red;",
        "I mended them.",
        "berth: 14",
    ]
    assert sentences("She lies at Hook.") == [], "a single one is the chunk itself"
    assert sentences("") == []
    assert len(sentences("One two three. " * 100)) == MOST_SENTENCES
