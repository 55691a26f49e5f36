"""How a model writes that it calls a tool: learned from its chat template, found again in replies.

Every family of models has a form of its own around a JSON object; the template is asked to write
one call, and what stands around it is the form. Knows no weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from acclimate.adapters.prompt import Prompt
from acclimate.store.errors import ModelError

_NAME = "acclimate_probe"
_ARGUMENTS = {"acclimate_key": "acclimate_value"}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {"acclimate_key": {"type": "string"}},
            "required": ["acclimate_key"],
        },
    },
}
_ASKED = {"role": "user", "content": "Hello"}
_CALLING = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00000",
            "type": "function",
            "function": {"name": _NAME, "arguments": _ARGUMENTS},
        }
    ],
}
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Call:
    """A tool that is called: its name, and its arguments as an object."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class CallForm:
    """A call is `opening`, a JSON object with these two keys, `closing`.

    Without an opening a reply is a call if it begins with such an object.
    """

    opening: str
    closing: str
    name_key: str
    arguments_key: str

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, prompt: Prompt) -> CallForm | None:
        """None where the template knows no tools, or writes calls in another way."""
        if not prompt.knows_tools:
            return None
        try:
            before = prompt.render([_ASKED], tools=[_TOOL])
            whole = prompt.render([_ASKED, _CALLING], tools=[_TOOL], add_generation_prompt=False)
        except ModelError:
            return None
        if not whole.startswith(before):
            return None
        written = whole[len(before) :]
        for start, end, found in _objects(written):
            name = next((key for key, value in found.items() if value == _NAME), None)
            given = next((key for key, value in found.items() if value == _ARGUMENTS), None)
            if name is not None and given is not None:
                opening, closing = written[:start].strip(), written[end:]
                form = cls(opening, prompt.until_end(closing).strip(), name, given)
                # What is not shown cannot be found again.
                shown = prompt.detokenize(prompt.tokenize(opening))
                return form if shown == opening else None
        return None

    def begins(self, reply: str) -> int | None:
        """Where in a reply that goes on the first call begins, or may; None while there is none."""
        if not self.opening:
            return 0 if reply.lstrip()[:1] in ("", "{") else None
        at = reply.find(self.opening)
        return at if at >= 0 else None

    def read(self, reply: str, names: Sequence[str]) -> tuple[str, list[Call]]:
        """The text before the calls, and the calls; all of it is text where one of them is no call
        of a tool with one of these names."""
        at = self.begins(reply)
        if at is None:
            return reply, []
        calls: list[Call] = []
        for _start, _end, found in _objects(reply[at:]):
            name, given = found.get(self.name_key), found.get(self.arguments_key, {})
            if name not in names or not isinstance(given, dict):
                return reply, []
            calls.append(Call(str(name), given))
        return (reply[:at].rstrip(), calls) if calls else (reply, [])


def _objects(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The JSON objects in a text, one behind the other, each with where it begins and ends."""
    at = text.find("{")
    while at >= 0:
        try:
            found, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(found, Mapping):
                yield at, end, dict(found)
        at = text.find("{", end)
