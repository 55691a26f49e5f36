"""What replies share counts; what only one of them says counts little."""

from acclimate.adapters.form import CONTENT_WEIGHT, ENTRY, Form

OPENING, CLOSING, END = [11, 12, 13, 14], [21, 22, 23], 2


def reply(n: int) -> list[int]:
    return [*OPENING, *range(100 * n, 100 * n + 6), *CLOSING, END]


def test_shared_opening_and_closing_count_in_full() -> None:
    form = Form([reply(n) for n in range(1, 5)])
    weights = form.weights(reply(9))
    assert weights == [1.0] * (4 + ENTRY) + [CONTENT_WEIGHT] * (6 - ENTRY) + [1.0] * 4
    assert form.frame(reply(9)) == (4, 4)


def test_contents_begin_in_full_only_behind_an_opening() -> None:
    form = Form([[100 * n, 100 * n + 1, 100 * n + 2, *CLOSING, END] for n in range(1, 5)])
    assert form.weights([900, 901, 902, *CLOSING, END])[:3] == [CONTENT_WEIGHT] * 3


def test_a_single_shared_word_at_the_beginning_counts() -> None:
    form = Form([[7, 100 * n, 100 * n + 1, END] for n in range(1, 4)])
    assert form.weights([7, 500, 501, END])[0] == 1.0


def test_replies_that_share_nothing_count_evenly() -> None:
    form = Form([[100 * n, 100 * n + 1, 100 * n + 2] for n in range(1, 9)])
    assert form.weights([900, 901, 902]) == [1.0, 1.0, 1.0]


def test_one_reply_that_repeats_itself_has_no_form() -> None:
    form = Form([[5, 6, 7] * 20])
    assert form.weights([5, 6, 7]) == [1.0, 1.0, 1.0]


def test_no_replies_and_an_empty_reply() -> None:
    assert Form([]).weights([]) == []


def test_a_reply_is_of_the_form_where_it_shares_any_of_it() -> None:
    form = Form([reply(n) for n in range(1, 5)])
    assert form.marks([*OPENING, 900, 901])
    assert not form.marks([900, 901, *OPENING[:1]])
    assert not Form([]).marks(reply(1))
