"""Text out of token bytes: whole characters, stop strings across any border."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.daemon.detok import TextStream, held_back


def run(pieces: list[bytes], stops: list[str]) -> tuple[str, bool]:
    stream, text = TextStream(stops), ""
    for piece in pieces:
        text += stream.push(piece)
        if stream.stopped:
            return text, True
    return text + stream.finish(), stream.stopped


def test_a_character_waits_for_its_last_byte() -> None:
    stream = TextStream()
    euro = "€".encode()
    assert [stream.push(euro[i : i + 1]) for i in range(3)] == ["", "", "€"]


def test_bytes_that_are_no_character_become_a_mark_and_nothing_is_lost() -> None:
    assert run([b"a\xff", b"b", b"\xe2\x82"], []) == ("a\ufffdb\ufffd", False)


def test_a_stop_string_may_lie_across_tokens() -> None:
    assert run([b"one EN", b"D two"], ["END"]) == ("one ", True)


def test_text_that_only_begins_like_a_stop_string_is_given_later() -> None:
    stream = TextStream(["STOP"])
    assert stream.push(b"an ST") == "an "
    assert stream.push(b"AR") == "STAR"


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert run([b"abcdef"], ["ef", "cd"]) == ("ab", True)


def test_nothing_comes_after_a_stop() -> None:
    stream = TextStream(["."])
    assert stream.push(b"end. more") == "end"
    assert stream.push(b"again") == ""
    assert stream.finish() == ""


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [("abc", ["cx"], 1), ("abc", ["abcd", "cx"], 3), ("abc", ["x"], 0), ("aa", ["aaa"], 2)],
)
def test_held_back(text: str, stops: list[str], expected: int) -> None:
    assert held_back(text, stops) == expected


@given(
    text=st.text(alphabet="abc€😀", max_size=30),
    stops=st.lists(st.text(alphabet="abc€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
def test_however_the_bytes_are_cut_the_text_is_the_same(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    data = text.encode()
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(places)]
    found = [text.find(stop) for stop in stops if stop in text]
    expected = text[: min(found)] if found else text
    assert run(pieces, stops) == (expected, bool(found))
