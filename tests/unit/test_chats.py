"""Chat lines in four shapes, and lines that are none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.store.chats import (
    MAX_CONTEXT_MESSAGES,
    MAX_LINE_BYTES,
    Exchange,
    canonical,
    parse_chat,
)

USER = {"role": "user", "content": "Where do I live?"}
REPLY = {"role": "assistant", "content": "In Ghent."}
SHAPES = [
    {"messages": [USER, REPLY]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": USER["content"]}]}, REPLY]},
    {
        "conversations": [
            {"from": "human", "value": USER["content"]},
            {"from": "gpt", "value": REPLY["content"]},
        ]
    },
    {"conversations": [USER, REPLY]},
    {"instruction": USER["content"], "input": "", "output": REPLY["content"]},
    {"instruction": USER["content"], "output": REPLY["content"], "extra": None},
]


def lines(*records: object) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records) + b"\n"


def test_every_shape_gives_the_same_exchange() -> None:
    exchanges, bad = parse_chat(lines(*SHAPES))
    assert bad == []
    assert [e.line for e in exchanges] == [1, 2, 3, 4, 5, 6]
    assert {e.sha256() for e in exchanges} == {exchanges[0].sha256()}
    assert exchanges[0].content() == {"messages": [USER, REPLY]}
    assert exchanges[0].text() == "User: Where do I live?\nAssistant: In Ghent."


def test_preferences_as_text_and_as_messages() -> None:
    exchanges, bad = parse_chat(
        lines(
            {"prompt": "Where?", "chosen": "Ghent.", "rejected": "Paris."},
            {
                "prompt": [{"role": "user", "content": "Where?"}],
                "chosen": [{"role": "assistant", "content": "Ghent."}],
                "rejected": [{"role": "assistant", "content": "Paris."}],
            },
            {"prompt": "Where?", "chosen": "same", "rejected": "same"},
        )
    )
    assert [e.kind for e in exchanges] == ["preference"] * 2
    assert exchanges[0].sha256() == exchanges[1].sha256()
    assert exchanges[0].content() == {
        "messages": [{"role": "user", "content": "Where?"}],
        "chosen": "Ghent.",
        "rejected": "Paris.",
    }
    assert [(b.line, b.reason) for b in bad] == [(3, "chosen and rejected are the same")]


def test_every_reply_is_an_exchange_with_what_came_before() -> None:
    system = {"role": "system", "content": "Be short."}
    more = [{"role": "user", "content": "And before?"}, {"role": "assistant", "content": "Bonn."}]
    exchanges, _ = parse_chat(lines({"messages": [system, USER, REPLY, *more, USER]}))
    assert [e.content()["messages"] for e in exchanges] == [
        [system, USER, REPLY],
        [system, USER, REPLY, *more],
    ]


def test_a_long_conversation_keeps_a_window() -> None:
    system = {"role": "system", "content": "Be short."}
    exchanges, _ = parse_chat(lines({"messages": [system, *([USER, REPLY] * 40)]}))
    assert len(exchanges) == 40
    for exchange in exchanges:
        assert len(exchange.prompt) <= MAX_CONTEXT_MESSAGES + 1
        assert exchange.prompt[0] == system
        assert exchange.prompt[1]["role"] == exchange.prompt[-1]["role"] == "user"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "none of the keys"),
        (b'{"messages": 3}', "not a list"),
        (b'{"messages": []}', "not a list"),
        (b'{"messages": ["x"]}', "messages[0] is not an object"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "messages[0].role"),
        (b'{"messages": [{"role": ["user"], "content": "x"}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "content": null}]}', "messages[0].content is missing"),
        (b'{"messages": [{"role": "user", "content": [{"image": 1}]}]}', "not text"),
        (b'{"messages": [{"role": "user", "content": "only a question"}]}', "no reply"),
        (b'{"instruction": "x"}', "output is missing"),
        (b'{"instruction": " ", "output": "x"}', "instruction is empty"),
        (b'{"instruction": "a\\u0000b", "output": "x"}', "NUL"),
        (b'{"instruction": "a\\ud800b", "output": "x"}', "surrogate"),
        (b'{"chosen": "x", "rejected": "y"}', "prompt is not a list"),
        (b'{"instruction": "\xff", "output": "x"}', "not UTF-8 at byte 18"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 10_000, "number too long"),
        (b'"' + b"x" * MAX_LINE_BYTES + b'"', "longer than"),
        (b"\0\0\0\0", "not JSON"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_kept(line: bytes, reason: str) -> None:
    good = json.dumps(SHAPES[0]).encode()
    exchanges, bad = parse_chat(good + b"\r\n" + line + b"\n\n" + good)
    assert [e.line for e in exchanges] == [1, 4]
    assert [b.line for b in bad] == [2]
    assert reason in bad[0].reason


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    exchanges, bad = parse_chat(b"\xef\xbb\xbf" + lines(SHAPES[0]))
    assert len(exchanges) == 1
    assert bad == []


@given(st.binary())
def test_no_bytes_raise(data: bytes) -> None:
    parse_chat(data)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
said = text.filter(lambda t: bool(t.strip()))
turns = st.lists(st.tuples(said, said), min_size=1, max_size=5)


@given(turns, st.booleans(), st.none() | said)
def test_what_is_written_comes_back(
    pairs: list[tuple[str, str]], sharegpt: bool, system: str | None
) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    for question, reply in pairs:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": reply})
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    record: dict[str, object] = {"messages": messages}
    if sharegpt:
        record = {
            "conversations": [{"from": names[m["role"]], "value": m["content"]} for m in messages]
        }
    exchanges, bad = parse_chat(lines(record))
    assert bad == []
    assert len(exchanges) == len(pairs)
    assert exchanges[-1].content() == {"messages": messages}
    again, _ = parse_chat(canonical(exchanges[-1].content()).encode())
    assert again[-1].sha256() == exchanges[-1].sha256()


@given(said, said, said)
def test_other_shapes_come_back(question: str, reply: str, worse: str) -> None:
    exchanges, _ = parse_chat(lines({"instruction": question, "output": reply}))
    assert exchanges == [Exchange(1, ({"role": "user", "content": question},), reply)]
    record = {"prompt": question, "chosen": reply, "rejected": worse}
    exchanges, bad = parse_chat(lines(record))
    if reply == worse:
        assert len(bad) == 1
    else:
        prompt = ({"role": "user", "content": question},)
        assert exchanges == [Exchange(1, prompt, reply, worse)]
