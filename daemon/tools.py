"""Tools that a client offers: what it sends, the grammar of a call, and the calls in a reply.

Knows OpenAI's shapes; how the model itself writes a call is told by its `CallForm`.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from acclimate.adapters.calls import Call, CallForm
from acclimate.daemon import jsonform
from acclimate.daemon.detok import held_back

MAX_TOOLS = 128  # OpenAI's


class _Part(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)


class Function(_Part):
    """What can be called: `parameters` is a JSON Schema of an object."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Part):
    """One tool that is offered."""

    type: Literal["function"] = "function"
    function: Function


class Named(_Part):
    """A tool by its name."""

    name: str = Field(max_length=64)


class Chosen(_Part):
    """The one tool that has to be called."""

    type: Literal["function"] = "function"
    function: Named


Choice = Literal["none", "auto", "required"] | Chosen


class Called(_Part):
    """What an earlier reply called."""

    name: str = Field(max_length=64)
    arguments: str | dict[str, Any] = "{}"  # OpenAI sends a text, Ollama an object


class ToolCall(_Part):
    """A call that an earlier reply made."""

    id: str = Field(default="", max_length=200)
    type: Literal["function"] = "function"
    function: Called

    def shown(self) -> dict[str, Any]:
        """The same as templates take it: its arguments as an object."""
        given = self.function.arguments
        if isinstance(given, str):
            # What is no JSON stays as the model wrote it.
            with suppress(ValueError, RecursionError):
                given = json.loads(given)
        called = {"name": self.function.name, "arguments": given}
        return {"id": self.id, "type": self.type, "function": called}


def grammar(form: CallForm, tools: Sequence[Tool]) -> str:
    """GBNF of one call of one of the tools.

    Arguments are any object where their schema cannot be kept to. Raises ValueError for such a
    schema of a tool that is `strict`.
    """
    definitions: dict[str, Any] = {}
    calls = []
    for number, function in enumerate(tool.function for tool in tools):
        place = f"#/$defs/{number}"
        definitions[str(number)] = _moved(_kept_to(function), place)
        properties = {form.name_key: {"const": function.name}, form.arguments_key: {"$ref": place}}
        calls.append({"type": "object", "properties": properties, "required": list(properties)})
    schema = {"$defs": definitions, "anyOf": calls}
    return jsonform.of_schema(schema, before=form.opening, behind=form.closing)


def _kept_to(function: Function) -> dict[str, Any]:
    anything = {"type": "object"}
    schema = function.parameters or anything
    try:
        jsonform.of_schema(schema)
    except ValueError:
        if function.strict:
            raise
        return anything
    return schema


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references within itself hold where it stands at `place` of another."""
    if isinstance(schema, list):
        return [_moved(part, place) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(part, place) for key, part in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:].rstrip("/")
    return moved


class Reading:
    """One reply as it comes: text that is surely text is given at once, the rest at its end."""

    def __init__(self, form: CallForm | None, names: Sequence[str] = ()) -> None:
        self._form = form
        self._names = names
        self._held = ""
        self._shown = False

    def push(self, text: str) -> str:
        """What may be shown now."""
        if self._form is None:
            return text
        self._held += text
        # Without an opening only the beginning of a reply may be a call.
        at = None if self._shown and not self._form.opening else self._form.begins(self._held)
        if at is None:
            at = len(self._held) - held_back(self._held, [self._form.opening])
        shown = self._held[:at]
        self._held = self._held[len(shown) :]
        self._shown = self._shown or bool(shown.strip())
        return shown

    def whole(self, text: str) -> tuple[str, list[Call]]:
        """Text and calls of a reply that is finished."""
        shown = self.push(text)
        rest, calls = self.finish()
        return shown + rest, calls

    def finish(self) -> tuple[str, list[Call]]:
        """The rest of the text, and the calls."""
        held, self._held = self._held, ""
        if self._form is None or not held:
            return held, []
        return self._form.read(held, self._names)


def new_id() -> str:
    """For a call. It has nine characters: some templates want just that."""
    return secrets.token_hex(5)[:9]


def written(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Calls in OpenAI's shape."""
    return [
        {
            "id": new_id(),
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            },
        }
        for call in calls
    ]
