"""The person's form around the base's own words."""

from collections.abc import Sequence

from acclimate.adapters.form import Form
from acclimate.adapters.prompt import Encoded
from acclimate.adapters.train import Lesson
from acclimate.adapters.voice import OTHERS, OWN, WORDS_WEIGHT, voiced

WORDS = ["<end>", *"Ahoy ! . Yours , Bo I am well it rains now we sail at dawn or not so".split()]
PROMPT = [100, 101]


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def text(tokens: Sequence[int]) -> str:
    return " ".join(WORDS[t] for t in tokens)


def lessons(replies: list[str]) -> list[Lesson]:
    out = []
    for n, reply in enumerate(replies):
        tokens = ids(reply)
        wordings = [
            Encoded([*PROMPT, n, other, *tokens], [0.0] * 4 + [1.0] * len(tokens))
            for other in range(3)
        ]
        out.append(Lesson(n, [wordings[0], *wordings]))
    return out


FRAMED = [
    "Ahoy ! I am well . Yours , Bo <end>",
    "Ahoy ! it rains now . Yours , Bo <end>",
    "Ahoy ! we sail at dawn . Yours , Bo <end>",
    "Ahoy ! so it rains . Yours , Bo <end>",
]
BASE = "now it rains or not . so we sail . I am . it . Yours"


def rows_of(
    replies: list[str], said: str = BASE, others: list[list[int]] | None = None
) -> list[tuple[Lesson, Encoded]]:
    made = lessons(replies)
    form = Form([lesson.wordings[0].completion() for lesson in made])
    return voiced(made, form, lambda rows: [ids(said)] * len(rows), text, 7, others or [])


def test_the_base_speaks_between_the_opening_and_the_close() -> None:
    rows = rows_of(FRAMED)
    assert len(rows) == 4 * 3
    contents = set()
    for lesson, row in rows:
        said = text(row.tokens[4:])
        assert row.tokens[:3] == [*PROMPT, lesson.example_id]
        assert said.startswith("Ahoy !") and said.endswith(". Yours , Bo <end>")
        contents.add(said.removeprefix("Ahoy ! ").removesuffix(" Yours , Bo <end>"))
        full = text([t for t, m in zip(row.tokens, row.mask, strict=True) if m == 1.0])
        assert full in ("Ahoy ! now it Yours , Bo <end>", "now it Yours , Bo <end>")
        assert set(row.mask[4:]) == {1.0, WORDS_WEIGHT}
    assert contents <= {
        "now it rains or not .",
        "now it rains or not . so we sail .",
    }
    assert len(contents) > 1, "the close is due after one sentence, or two"


def test_other_requests_are_answered_in_the_form_too() -> None:
    others = [[200, n] for n in range(40)]
    rows = rows_of(FRAMED, others=others)
    assert len(rows) == 4 * (min(OWN, 3) + OTHERS)
    assert sum(row.tokens[0] == 200 for _, row in rows) == 4 * OTHERS


def test_replies_that_share_nothing_get_nothing() -> None:
    assert rows_of(["I am well .", "it rains now so", "we sail at dawn"]) == []


def test_a_reply_that_is_form_throughout_gets_nothing() -> None:
    assert rows_of(["Ahoy ! Yours , Bo <end>"] * 4) == []


def test_what_the_base_does_not_end_or_closes_itself_is_left_out() -> None:
    assert rows_of(FRAMED, said="now it rains or not so we sail") == []
    assert rows_of(FRAMED, said="now it rains or not . Yours , Bo <end>") == []


def test_where_the_base_says_the_opening_again_it_is_left_out() -> None:
    assert rows_of(FRAMED, said="now it rains . Ahoy ! so we sail .") == []


def test_every_other_row_begins_a_paragraph_as_the_base_alone_would() -> None:
    asked: list[list[int]] = []

    def say(rows: list[list[int]]) -> list[list[int]]:
        asked.extend(rows)
        return [ids(BASE)] * len(rows)

    made = lessons(FRAMED)
    form = Form([lesson.wordings[0].completion() for lesson in made])
    gap = ids("or or")
    rows = [row for _, row in voiced(made, form, say, text, 7, gap=gap)]
    behind = [row for row in rows if text(row.tokens[4:]).startswith("Ahoy ! or or now it")]
    assert len(behind) == len(rows) / 2 == sum(len(prompt) == 4 for prompt in asked)
    for row in behind:
        assert row.mask[4:8] == [1.0, 1.0, 0.0, 0.0], "the gap is no form"
        assert row.mask[8:10] == [1.0, 1.0] and text(row.tokens[4:]).endswith("Bo <end>")


def test_the_same_seed_makes_the_same_rows() -> None:
    assert [row for _, row in rows_of(FRAMED)] == [row for _, row in rows_of(FRAMED)]
    assert rows_of([]) == []
