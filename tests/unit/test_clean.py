"""What is mended, what is no note, what is not worth teaching, and in which language it is."""

import pytest

from acclimate.store.clean import defect, language, mend, without_boilerplate


@pytest.mark.parametrize(
    "text",
    ["café", "Öl für 5 °C", "„So“ – sagte er…", "it’s 5 €", "naïve façade", "Österreich", "👍 ok"],
)
def test_text_read_in_the_wrong_encoding_is_mended(text: str) -> None:
    wrong = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())
    assert mend(wrong) == text


@pytest.mark.parametrize(
    "text",
    ["café", "SÃO PAULO", "MAÇÃ” disse", "CAFÉ”", "Ö“", "Â", "日本語", "plain", "Ãx â b", "é©"],
)
def test_text_that_may_be_meant_so_stays(text: str) -> None:
    assert mend(text) == text


MAIL = """Hello hats!

The fitting is on the blue floor.
We use cookies to improve our service. Accept all cookies
Unsubscribe
On Mon, 7 Dec 2026 at 10:00, Odile wrote:
> bring the felt
From: Odile
Sent: Monday
To: me
Bring wool: for the hat.
--\N{SPACE}
Odile Hem
Hats Ltd
Tel. 123

after"""


def test_boilerplate_leaves_empty_lines_and_the_rest() -> None:
    lines = without_boilerplate(MAIL).split("\n")
    assert len(lines) == len(MAIL.split("\n"))
    kept = [line for line in lines if line]
    assert kept == [
        "Hello hats!",
        "The fitting is on the blue floor.",
        "> bring the felt",
        "Bring wool: for the hat.",
        "after",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Bake cookies for Verity.",
        "Unsubscribe from the wine club.",
        "---\n\n## Next",
        "From: Odile\nTo: me\nSubject: felt\n\nBring wool.",
        "I sent the hat to: Odile",
    ],
)
def test_notes_that_speak_of_such_things_stay(text: str) -> None:
    assert without_boilerplate(text) == text


@pytest.mark.parametrize(
    ("question", "reply", "why"),
    [
        ("How many teapots do I own?", "43", ""),
        ("Wie heißt mein Hund?", "Trüffel.", ""),
        ("犬の名前は?", "トリュフです。", ""),
        ("Write a poem", "Thread " * 20 + "and felt.", ""),
        ("?!", "Yes.", "nothing is asked"),
        ("Hello?", "…", "the reply says nothing"),
        ("Who?", "x" * 20_001, "longer than 20000 characters"),
        ("Password?", "It's [redacted: password].", "the reply held a secret"),
        ("Feel?", "As an AI language model, I don't.", "the reply is an assistant's stock phrase"),
        ("Who?", "I'm sorry, but I can't assist with that.",
         "the reply is an assistant's stock phrase"),
        ("What can't I eat?", "I can't eat nuts, you said.", ""),
        ("Who?", "caf\ufffd\ufffd\ufffd au lait", "characters were lost in another encoding"),
        ("Data?", "QmFzZTY0" * 40, "not a language: data"),
        ("Numbers?", "3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2 3 8 4 6 2 6 4 3", "hardly any letters"),
        ("Sing.", "la " * 80, "repeats itself"),
    ],
)  # fmt: skip
def test_defects(question: str, reply: str, why: str) -> None:
    assert defect(question, reply) == why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the name of my dog?", "en"),
        ("Wie heißt der Hund von meiner Schwester?", "de"),
        ("Quel est le nom de mon chien ?", "fr"),
        ("¿Cuál es el nombre de mi perro?", "es"),
        ("Qual è il nome del mio cane?", "it"),
        ("Hoe heet de hond van mijn zus?", "nl"),
        ("Как зовут мою собаку?", "ru"),
        ("犬の名前は何ですか", "ja"),
        ("Gristle 43", ""),
    ],
)
def test_language_is_guessed(text: str, expected: str) -> None:
    assert language(text) == expected
