"""JSON Lines of chats → exchanges, one for each reply; bad lines are named, never raised.

Knows no files and no database.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

MAX_LINE_BYTES = 1_000_000
# A reply deep in a long conversation is kept with this many messages before it (and the system's),
# or a conversation of n turns would take n² space.
MAX_CONTEXT_MESSAGES = 16

Message = dict[str, str]  # {"role": "system"|"user"|"assistant", "content": …}

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Exchange:
    """One thing to learn: a reply to the messages before it, or a better and a worse one."""

    line: int  # 1-based line of the file
    prompt: tuple[Message, ...]  # ends in what the user said
    reply: str  # of a preference: the chosen one
    rejected: str | None = None

    @classmethod
    def of(cls, line: int, content: Mapping[str, Any]) -> Self:
        """The exchange whose `content` this is."""
        messages = content["messages"]
        if "chosen" in content:
            return cls(line, tuple(messages), content["chosen"], content["rejected"])
        return cls(line, tuple(messages[:-1]), messages[-1]["content"])

    @property
    def kind(self) -> Literal["exchange", "preference"]:
        return "exchange" if self.rejected is None else "preference"

    def content(self) -> dict[str, Any]:
        """The form that the buffer keeps and a round reads."""
        if self.rejected is None:
            messages = [*self.prompt, {"role": "assistant", "content": self.reply}]
            return {"messages": messages}
        return {"messages": list(self.prompt), "chosen": self.reply, "rejected": self.rejected}

    def sha256(self) -> str:
        """Identity: equal content has an equal hash, wherever it was found."""
        return hashlib.sha256(canonical(self.content()).encode()).hexdigest()

    def prompt_sha256(self) -> str:
        """Equal for two replies to the very same messages."""
        return hashlib.sha256(canonical(list(self.prompt)).encode()).hexdigest()

    def text(self) -> str:
        """As retrieval shows it: the last question and its reply."""
        return f"User: {self.prompt[-1]['content']}\nAssistant: {self.reply}"


def asked_in(text: str) -> str | None:
    """The question in what `Exchange.text` gives; None in any other text."""
    asked, said, _ = text.partition("\nAssistant: ")
    return asked.removeprefix("User: ") if said and asked.startswith("User: ") else None


@dataclass(frozen=True)
class BadLine:
    line: int
    reason: str  # never quotes the line


class _Bad(Exception):
    """Why a line cannot be used."""


def canonical(value: Any) -> str:
    """JSON in one spelling. Keys keep their order, which `Exchange.content` fixes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_chat(data: bytes) -> tuple[list[Exchange], list[BadLine]]:
    """Read JSON Lines of OpenAI messages, ShareGPT, Alpaca or preferences, mixed as they come."""
    exchanges: list[Exchange] = []
    bad: list[BadLine] = []
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            exchanges += _parse_line(number, line)
        except _Bad as e:
            bad.append(BadLine(number, str(e)))
    return exchanges, bad


def _parse_line(number: int, line: bytes) -> list[Exchange]:
    if len(line) > MAX_LINE_BYTES:
        raise _Bad(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise _Bad(f"not UTF-8 at byte {e.start + 1}") from None
    except json.JSONDecodeError as e:
        raise _Bad(f"not JSON: {e.msg} at column {e.colno}") from None
    except (ValueError, RecursionError):
        raise _Bad("not JSON that can be read: nested too deeply or a number too long") from None
    if not isinstance(record, dict):
        raise _Bad("not a JSON object")
    for key, parse in _SHAPES.items():
        if key in record:
            return parse(number, record)
    raise _Bad("none of the keys messages, conversations, instruction, chosen")


def _preference(number: int, record: dict[str, Any]) -> list[Exchange]:
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        messages = [{"role": "user", "content": _text(prompt, "prompt")}]
    else:
        messages = _messages(prompt, "prompt", "role", "content")
    if messages[-1]["role"] != "user":
        raise _Bad("prompt does not end with the user")
    chosen = _answer(record.get("chosen"), "chosen")
    rejected = _answer(record.get("rejected"), "rejected")
    if chosen == rejected:
        raise _Bad("chosen and rejected are the same")
    return [Exchange(number, _window(messages), chosen, rejected)]


def _answer(value: Any, field: str) -> str:
    if isinstance(value, list):
        last = _messages(value, field, "role", "content")[-1]
        if last["role"] != "assistant":
            raise _Bad(f"{field} does not end with the assistant")
        return last["content"]
    return _text(value, field)


def _openai(number: int, record: dict[str, Any]) -> list[Exchange]:
    return _turns(number, _messages(record["messages"], "messages", "role", "content"))


def _sharegpt(number: int, record: dict[str, Any]) -> list[Exchange]:
    turns = record["conversations"]
    if isinstance(turns, list) and turns and isinstance(turns[0], dict) and "role" in turns[0]:
        messages = _messages(turns, "conversations", "role", "content")
    else:
        messages = _messages(turns, "conversations", "from", "value")
    if "system" in record and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": _text(record["system"], "system")})
    return _turns(number, messages)


def _alpaca(number: int, record: dict[str, Any]) -> list[Exchange]:
    question = _text(record["instruction"], "instruction")
    if record.get("input"):
        question += "\n\n" + _text(record["input"], "input")
    prompt = ({"role": "user", "content": question},)
    return [Exchange(number, prompt, _text(record.get("output"), "output"))]


_SHAPES: dict[str, Callable[[int, dict[str, Any]], list[Exchange]]] = {
    "chosen": _preference,
    "messages": _openai,
    "conversations": _sharegpt,
    "instruction": _alpaca,
}


def _messages(value: Any, field: str, role_key: str, text_key: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise _Bad(f"{field} is not a list of messages")
    messages = []
    for i, item in enumerate(value):
        where = f"{field}[{i}]"
        if not isinstance(item, dict):
            raise _Bad(f"{where} is not an object")
        role = item.get(role_key)
        if not isinstance(role, str) or role not in _ROLES:
            raise _Bad(f"{where}.{role_key} is not system, user or assistant")
        content = _text(item.get(text_key), f"{where}.{text_key}")
        messages.append({"role": _ROLES[role], "content": content})
    return messages


def _text(value: Any, field: str) -> str:
    if isinstance(value, list):  # OpenAI's content parts
        parts = [part.get("text") for part in value if isinstance(part, dict)]
        if len(parts) != len(value) or not all(isinstance(part, str) for part in parts):
            raise _Bad(f"{field} has parts that are not text")
        value = "".join(str(part) for part in parts)
    if not isinstance(value, str):
        raise _Bad(f"{field} is missing or not text")
    if not value.strip():
        raise _Bad(f"{field} is empty")
    if "\0" in value:
        raise _Bad(f"{field} has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _Bad(f"{field} has half of a surrogate pair") from None
    return value


def _turns(number: int, messages: Sequence[Message]) -> list[Exchange]:
    exchanges = [
        Exchange(number, _window(messages[:i]), message["content"])
        for i, message in enumerate(messages)
        if message["role"] == "assistant" and i and messages[i - 1]["role"] == "user"
    ]
    if not exchanges:
        raise _Bad("no reply of the assistant to the user")
    return exchanges


def _window(messages: Sequence[Message]) -> tuple[Message, ...]:
    system = [m for m in messages[:1] if m["role"] == "system"]
    rest = messages[len(system) :][-MAX_CONTEXT_MESSAGES:]
    while rest[0]["role"] == "assistant":  # a prompt opens with the user; it also ends with one
        rest = rest[1:]
    return (*system, *rest)
