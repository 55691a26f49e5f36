import json
from pathlib import Path
from typing import Any

import pytest
from templates import BARE, LISTED, PYTHONIC, TAGGED

from acclimate.adapters.calls import Call, CallForm
from acclimate.adapters.prompt import Prompt
from acclimate.daemon.bodies import ChatRequest
from acclimate.daemon.tools import Function, Reading, Tool, ToolCall, grammar, written

TAGS = CallForm("<tool_call>", "</tool_call>", "name", "arguments")
BEGINS = CallForm("", "", "name", "parameters")
NAMES = ["weather", "add"]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call>'
ADDING = '{"name": "add", "parameters": {"a": [1, {}]}}'
ULM = Call("weather", {"town": "Ulm"})


@pytest.fixture(scope="module")
def plain(tiny_llama: Path) -> Prompt:
    return Prompt.from_gguf(tiny_llama)


def speaking(plain: Prompt, template: str) -> Prompt:
    return Prompt(plain._vocab, template, plain.architecture, plain)


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (TAGGED, TAGS),
        (BARE, BEGINS),
        (LISTED, CallForm("[TOOL_CALLS] [", "]", "name", "arguments")),
        (PYTHONIC, None),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
        ("{{ raise_exception('no') if tools }}", None),
    ],
)
def test_a_template_tells_how_calls_are_written(
    plain: Prompt, template: str, form: CallForm | None
) -> None:
    assert CallForm.of(speaking(plain, template)) == form


def test_a_form_whose_opening_is_not_shown_is_none(plain: Prompt) -> None:
    hidden = TAGGED.replace("<tool_call>", "<|im_start|>call")
    assert CallForm.of(speaking(plain, hidden)) is None


def test_a_tools_text_spells_no_control_token(plain: Prompt) -> None:
    tool = {"type": "function", "function": {"name": "x", "description": "<|im_end|> so"}}
    prompt = speaking(plain, TAGGED)
    asked = [{"role": "user", "content": "hi"}]
    shown = prompt.render(asked, tools=[tool])
    assert "so" in shown
    assert shown.count("<|im_end|>") == prompt.render(asked).count("<|im_end|>") + 1


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("form", "reply", "text", "calls"),
    [
        (TAGS, f"Let me look.\n{CALL}", "Let me look.\n", [ULM]),
        (TAGS, CALL + CALL, "", [ULM, ULM]),
        (TAGS, "2 <3 and <tool, no", "2 <3 and <tool, no", []),
        (TAGS, CALL.replace("weather", "rm"), CALL.replace("weather", "rm"), []),
        (TAGS, CALL[:-20], CALL[:-20], []),  # cut off by max_tokens
        (TAGS, "<tool_call>{broken}</tool_call>", "<tool_call>{broken}</tool_call>", []),
        (
            BEGINS,
            '{"name": "add", "parameters": {"a": [1, {}]}}',
            "",
            [Call("add", {"a": [1, {}]})],
        ),
        (BEGINS, '{"name": "add"}', "", [Call("add", {})]),
        (BEGINS, 'So: {"name": "add", "parameters": {}}', None, []),
        (BEGINS, '{"a": 1}', None, []),
        (None, CALL, CALL, []),
    ],
)
def test_text_and_calls_are_told_apart_as_they_come(
    form: CallForm | None, reply: str, text: str | None, calls: list[Call], size: int
) -> None:
    reading = Reading(form, NAMES)
    shown = "".join(map(reading.push, pieces(reply, size)))
    rest, found = reading.finish()
    assert (shown + rest, found) == (reply if text is None else text, calls)


def test_text_is_not_held_back_for_long() -> None:
    reading = Reading(TAGS, NAMES)
    assert reading.push("It is <tool") == "It is "
    assert reading.push("box>") == "<toolbox>"
    bare = Reading(BEGINS, NAMES)
    assert bare.push(" It is") == " It is"
    assert bare.push(" {so}") == " {so}"


def offered(**function: Any) -> Tool:
    return Tool(function=Function(name="weather", **function))


def test_a_schema_that_cannot_be_kept_to_is_any_object_unless_strict() -> None:
    odd = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}
    assert grammar(TAGS, [offered(parameters=odd)]) == grammar(TAGS, [offered()])
    with pytest.raises(ValueError, match="minimum"):
        grammar(TAGS, [offered(parameters=odd, strict=True)])


def test_references_hold_within_their_own_tool() -> None:
    def tree(kind: str) -> dict[str, Any]:
        node = {
            "type": "object",
            "properties": {"v": {"type": kind}, "next": {"$ref": "#/$defs/n"}},
        }
        return {"$defs": {"n": node}, "$ref": "#/$defs/n"}

    both = grammar(TAGS, [offered(parameters=tree("string")), offered(parameters=tree("integer"))])
    assert "string" in both.split("space ::=")[0]
    assert "integer" in both.split("space ::=")[0]
    assert grammar(
        TAGS, [offered(parameters={"type": "object", "properties": {"a": {"$ref": "#"}}})]
    )


def test_calls_in_openais_shape_and_back() -> None:
    (call,) = written([ULM])
    assert len(call["id"]) == 9
    assert json.loads(call["function"]["arguments"]) == {"town": "Ulm"}
    assert ToolCall(**call).shown()["function"] == {"name": "weather", "arguments": {"town": "Ulm"}}
    assert (
        ToolCall(function={"name": "x", "arguments": "{"}).shown()["function"]["arguments"] == "{"
    )


TOOL = {"type": "function", "function": {"name": "weather"}}
ASKED = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({"tools": [TOOL, TOOL]}, "same name"),
        ({"tool_choice": "required"}, "needs tools"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "rm"}}}, "not offered"),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "together"),
        ({"messages": [{"role": "user", "tool_calls": [TOOL]}]}, "only the assistant"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"tools": [{"function": {"name": "a b"}}]}, "pattern"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(body: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ChatRequest.model_validate({"messages": ASKED, **body})


def test_which_tools_are_offered() -> None:
    def asked(choice: Any) -> ChatRequest:
        other = {"type": "function", "function": {"name": "add"}}
        body = {"messages": ASKED, "tools": [TOOL, other], "tool_choice": choice}
        return ChatRequest.model_validate(body)

    for choice, names, must in (
        (None, ["weather", "add"], False),
        ("auto", ["weather", "add"], False),
        ("none", [], False),
        ("required", ["weather", "add"], True),
        ({"type": "function", "function": {"name": "add"}}, ["add"], True),
    ):
        found = asked(choice)
        assert ([tool.function.name for tool in found.offered], found.must_call) == (names, must)
