"""Tools over HTTP on a tiny random model whose chat template knows them, with OpenAI's client."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from served import QUESTION, Served
from templates import TAGGED

from acclimate.adapters.prompt import Prompt

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is like in a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"enum": ["Ulm", "Köln"]}, "days": {"enum": [1, 2]}},
            "required": ["town", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"enum": [{}]}}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Served]:
    plain = Prompt.from_gguf(tiny_llama)
    prompt = Prompt(plain._vocab, TAGGED, plain.architecture, plain._owner)
    served = Served(tmp_path_factory.mktemp("tools"), tiny_llama, prompt)
    yield served
    served.close()


def ask(served: Served, **more: Any) -> Any:
    asked = {"model": "base", "messages": QUESTION, "max_tokens": 200, "tools": [WEATHER, CLOCK]}
    return served.openai.chat.completions.create(**(asked | more))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_call_that_is_required_is_made(served: Served, seed: int) -> None:
    reply = ask(served, tool_choice="required", temperature=1.5, seed=seed)
    (choice,) = reply.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    given = json.loads(call.function.arguments)
    assert (call.function.name, given) == ("clock", {}) or (
        call.function.name == "weather"
        and given["town"] in ("Ulm", "Köln")
        and given["days"] in (1, 2)
    )


def test_a_stream_gives_the_same_call(served: Served) -> None:
    only = {"type": "function", "function": {"name": "weather"}}
    whole = ask(served, tool_choice=only).choices[0].message.tool_calls[0].function
    events = [e.choices[0] for e in ask(served, tool_choice=only, stream=True)]
    assert not any(event.delta.content for event in events)
    (called,) = [event.delta.tool_calls for event in events if event.delta.tool_calls]
    assert (called[0].index, called[0].function.name) == (0, "weather")
    assert called[0].function.arguments == whole.arguments
    assert events[-1].finish_reason == "tool_calls"


def test_a_conversation_goes_on_with_what_the_tool_said(served: Served) -> None:
    message = ask(served, tool_choice="required").choices[0].message
    call = message.tool_calls[0]
    told = {"role": "tool", "tool_call_id": call.id, "content": "Rain, 8 degrees."}
    messages = [*QUESTION, message.model_dump(exclude_none=True), told]
    reply = ask(served, messages=messages)
    shown = served.core.prompt.render(
        [
            *QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [json_call(call)]},
            {"role": "tool", "content": "Rain, 8 degrees."},
        ],
        tools=[WEATHER, CLOCK],
    )
    assert call.function.name in shown
    assert "<tool_response>Rain, 8 degrees." in shown
    assert reply.usage.prompt_tokens == len(served.core.prompt.tokenize(shown))
    # Without tools it can be gone on with as well.
    assert ask(served, messages=messages, tools=[]).choices


def json_call(call: Any) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def test_tools_that_are_not_to_be_called_are_not_shown(served: Served) -> None:
    without = ask(served, tools=[]).usage.prompt_tokens
    assert ask(served, tool_choice="none").usage.prompt_tokens == without
    assert ask(served, tool_choice="auto").usage.prompt_tokens > without


ANTHROPICS = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}


def test_calls_in_anthropics_shape(served: Served) -> None:
    asked: dict[str, Any] = {
        "model": "base",
        "max_tokens": 200,
        "messages": QUESTION,
        "tools": [ANTHROPICS],
        "tool_choice": {"type": "any"},
    }
    found = served.http.post("/v1/messages", json=asked).json()
    (block,) = found["content"]
    assert (found["stop_reason"], block["type"], block["name"]) == (
        "tool_use",
        "tool_use",
        "weather",
    )
    assert set(block["input"]) == {"town", "days"}
    alike = {"type": "function", "function": {"name": "weather"}}
    openais = ask(served, tools=[WEATHER], tool_choice=alike).choices[0].message.tool_calls[0]
    lines = served.http.post("/v1/messages", json={**asked, "stream": True}).text.splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[1]["content_block"] | {"id": ""} == {
        "type": "tool_use",
        "id": "",
        "name": "weather",
        "input": {},
    }
    assert json.loads(events[2]["delta"]["partial_json"]) == block["input"]
    assert openais.function.name == block["name"]
    assert events[4]["delta"]["stop_reason"] == "tool_use"
    told = {"type": "tool_result", "tool_use_id": block["id"], "content": "Rain."}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [told, {"type": "text", "text": "So?"}]},
    ]
    again = {**asked, "messages": messages, "tool_choice": {"type": "auto"}}
    answer = served.http.post("/v1/messages", json=again).json()
    same = served.openai.chat.completions.create(
        model="base",
        max_tokens=200,
        tools=[WEATHER | {"function": WEATHER["function"] | {"description": None}}],
        messages=[
            *QUESTION,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": block["id"],
                        "type": "function",
                        "function": {"name": "weather", "arguments": json.dumps(block["input"])},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": block["id"], "content": "Rain."},
            {"role": "user", "content": "So?"},
        ],
    )
    read = answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"]
    assert read == same.usage.prompt_tokens
    assert answer["content"][0]["text"] == same.choices[0].message.content


def test_a_strict_tool_that_cannot_be_held_to_is_refused(served: Served) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    tool = {"type": "function", "function": {"name": "n", "parameters": schema, "strict": True}}
    with pytest.raises(openai.BadRequestError, match="minimum"):
        ask(served, tools=[tool], tool_choice="required")


def test_a_template_that_knows_no_tools_says_so(tmp_path: Path, tiny_llama: Path) -> None:
    served = Served(tmp_path, tiny_llama)
    try:
        with pytest.raises(openai.BadRequestError, match="knows no tools") as refused:
            ask(served)
        assert refused.value.param == "tools"
        told = [*QUESTION, {"role": "tool", "tool_call_id": "1", "content": "Rain."}]
        with pytest.raises(openai.BadRequestError, match="knows no tools"):
            ask(served, messages=told, tools=[])
        assert ask(served, tool_choice="none").choices
    finally:
        served.close()
