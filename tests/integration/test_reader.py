"""The shipped reader on the real embedder, and a reply that the real base is held to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acclimate.adapters.passages import with_passages
from acclimate.adapters.prompt import Prompt
from acclimate.daemon.embed import Embedder
from acclimate.daemon.engine import Engine
from acclimate.daemon.reader import Quote, Reader, quoting
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import Request
from acclimate.store.index import Hit

DIARY = (
    "Thursday. A proper workshop day for once, with the stove lit and nobody on the telephone until"
    " eleven. The workshop cat, who is called Pickersgill, walked through the glue and then over"
    " the order book. In the evening I walked along as far as the weir. Two herons, no luck."
)
LETTER = (
    "Dear Hester, thank you for the eels. The new vicar, Mr. Oduya, came to ask what a call-out"
    " costs and I told him 95 pounds, at which he sat down. My sister Maud moves to Leith in June."
)
LIST = "# Suppliers\n\nHide glue: one bag and a half\nBellows leather: from a tannery in Yeovil\n"
TEXTS = [DIARY, LETTER, LIST]


@pytest.fixture(scope="module")
def embedder(real_models: Path) -> Iterator[Embedder]:
    embedder = Embedder(real_models / "all-minilm-l6-v2.gguf")
    yield embedder
    embedder.close()


@pytest.fixture(scope="module")
def reader(embedder: Embedder) -> Reader:
    return Reader.shipped(embedder)


def answer(
    reader: Reader, embedder: Embedder, question: str, texts: list[str], *, personal: bool = False
) -> Quote | None:
    vector = embedder.embed([question])[0]
    near = embedder.embed(texts) @ vector
    hits = [
        Hit(n, text, "note.md", "notes", 1, 1, float(score))
        for n, (text, score) in enumerate(zip(texts, near, strict=True))
    ]
    return reader.answer(question, vector, hits, personal=personal)


@pytest.mark.parametrize(
    ("question", "at", "said"),
    [
        ("What is our cat called?", 0, "Pickersgill"),
        ("How much do I charge for coming out?", 1, "95"),
        ("Where does my bellows leather come from?", 2, "Yeovil"),
        ("Somebody furry has walked over the order book. Whom do I scold?", 0, "Pickersgill"),
    ],
)
def test_it_finds_the_words_that_answer(
    reader: Reader, embedder: Embedder, question: str, at: int, said: str
) -> None:
    found = answer(reader, embedder, question, TEXTS, personal=True)
    assert found is not None
    assert (found.at, said in found.text) == (at, True)
    assert found.text in TEXTS[at]


def test_the_best_words_come_first_however_sure(reader: Reader, embedder: Embedder) -> None:
    question = "Who is our new vicar?"
    vector = embedder.embed([question])[0]
    near = embedder.embed(TEXTS) @ vector
    found, *_ = reader.read(question, vector, TEXTS, near.tolist())
    assert (found.at, "Oduya" in found.text) == (1, True)


def test_it_answers_where_it_is_sure(reader: Reader, embedder: Embedder) -> None:
    found = answer(reader, embedder, "What is our workshop cat called?", TEXTS)
    assert found is not None
    assert found.text == "Pickersgill"


def test_it_needs_to_be_less_sure_of_a_question_about_the_person(
    reader: Reader, embedder: Embedder
) -> None:
    question = "Where is my sister moving?"
    assert answer(reader, embedder, question, [LETTER]) is None
    found = answer(reader, embedder, question, [LETTER], personal=True)
    assert found is not None
    assert found.text == "Leith"


@pytest.mark.parametrize(
    "question",
    ["What is the capital of France?", "Why is the sky blue?", "How do I boil an egg?"],
)
def test_it_has_no_answer_to_what_notes_do_not_say(
    reader: Reader, embedder: Embedder, question: str
) -> None:
    assert answer(reader, embedder, question, TEXTS) is None


def test_what_the_question_says_is_no_answer(reader: Reader, embedder: Embedder) -> None:
    texts = ["My cat Pickersgill."]
    vector = embedder.embed(["What is Pickersgill?"])[0]
    (found,) = reader.read("What is Pickersgill?", vector, texts, [0.5])
    assert found.text != "Pickersgill"
    assert reader.read("My cat Pickersgill?", vector, texts, [0.5]) == []


def test_a_name_is_said_whole(reader: Reader, embedder: Embedder) -> None:
    texts = ["Guests get the other network. On Sunday I called it Soggy Heron, after the wet one."]
    question = "What is our wifi called?"
    (found,) = reader.read(question, embedder.embed([question])[0], texts, [0.5])
    assert found.text == "Soggy Heron"


def test_of_two_answers_that_are_as_good_the_later_counts(
    reader: Reader, embedder: Embedder
) -> None:
    before, now = "My dentist is Dr Abara, up the hill.", "My dentist is Dr Lindqvist, in Fell Row."
    for texts in ([before, now], [now, before]):
        found = answer(reader, embedder, "Who is my dentist?", texts)
        assert found is not None
        assert found.text in texts[1], "passages are in the order in which they came"


def test_nothing_is_read_in_no_texts(reader: Reader, embedder: Embedder) -> None:
    vector = embedder.embed(["Who?"])[0]
    assert reader.answer("Who?", vector, []) is None
    assert reader.read("Who?", vector, ["", " \n", "…"], [0.0, 0.0, 0.0]) == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=400), question=st.text(min_size=1, max_size=80))
def test_any_text_can_be_read(reader: Reader, embedder: Embedder, text: str, question: str) -> None:
    vector = embedder.embed(["What is my cat called?"])[0]
    for quote in reader.read(question, vector, [text], [0.1]):
        assert quote.text
        assert quote.text in text
        assert "\n" not in quote.text


def test_a_passage_reads_the_same_beside_others(reader: Reader, embedder: Embedder) -> None:
    question = "What is our cat called?"
    alone, beside = (answer(reader, embedder, question, texts) for texts in ([DIARY], TEXTS))
    assert alone is not None
    assert beside is not None
    assert alone.text == beside.text
    assert alone.score == pytest.approx(beside.score, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ("the Old Foundry", "The Old Foundry."),
        ('a "quoted" \\ thing', 'A "quoted" \\ thing.'),
        ("naïve café №5, 東京", "Naïve café №5, 東京."),
        ("95 pounds.", "95 pounds."),
    ],
)
def test_the_reply_is_made_of_the_words(real_models: Path, words: str, reply: str) -> None:
    base = real_models / "smollm2-135m-instruct.gguf"
    prompt = Prompt.from_gguf(base)
    engine = Engine(base, context_tokens=512, threads=1)
    engine.start()
    try:
        asked = with_passages([{"role": "user", "content": "What is it?"}], [f"It is {words}."])
        sampling = Sampling(grammar=quoting(words))
        stream = engine.submit(
            Request(prompt.encode_prompt(asked), max_tokens=64, sampling=sampling)
        )
        assert stream.text() == reply
        assert stream.finish_reason == "stop"
    finally:
        engine.stop()
