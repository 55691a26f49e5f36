"""The chat template and the tokens of one model, read from its GGUF file.

The one place that turns messages into tokens, for training and serving alike; knows no weights.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from acclimate.adapters.native import LoadedModel, llama_cpp, model_params
from acclimate.store.errors import ModelError

MAX_TEMPLATE_CHARS = 64_000
MAX_RENDERED_CHARS = 4_000_000
MAX_REPEAT = 100_000

Message = Mapping[str, Any]  # role and content; tool_calls and what else a template may look at


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox plus a bound on repetition: `'a' * 10**9` passes the plain one."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or not all(isinstance(side, int) for side in (left, right)):
            size = max((s for s in (left, right) if isinstance(s, int)), default=0)
            if operator == "**" or size > MAX_REPEAT:
                raise jinja2.exceptions.SecurityError(f"{operator} is limited in chat templates")
        return super().call_binop(context, operator, left, right)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _template(source: str) -> tuple[jinja2.Template, frozenset[str]]:
    """The template, and the names that it expects to be told."""
    if len(source) > MAX_TEMPLATE_CHARS:
        raise ModelError(f"chat template has {len(source)} characters", "use another model file")
    sandbox = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    sandbox.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
    sandbox.globals["raise_exception"] = _raise
    sandbox.globals["strftime_now"] = lambda fmt: datetime.now(UTC).strftime(fmt)
    try:
        parsed = sandbox.parse(source)
        wanted = jinja2.meta.find_undeclared_variables(parsed)
        return sandbox.from_string(parsed), frozenset(wanted)
    except jinja2.TemplateError as error:
        raise ModelError(
            f"chat template does not parse: {error}", "use another model file"
        ) from None


# A plain ChatML template, for GGUF files that carry none.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens; `mask[i]` is how much token i counts in the loss.

    0 for a token of the prompt, 1 for one of the completion or less (see `form.Form`).
    """

    tokens: list[int]
    mask: list[float]

    def prompt(self) -> list[int]:
        """The tokens before the completion."""
        return self.tokens[: self._taught_from()]

    def completion(self) -> list[int]:
        """The tokens behind the prompt."""
        return self.tokens[self._taught_from() :]

    def _taught_from(self) -> int:
        return next((n for n, m in enumerate(self.mask) if m), len(self.mask))


class Prompt:
    """Renders and tokenises with the vocabulary and template of one model.

    `vocab` is a `llama_vocab` pointer, owned by the model that `_owner` keeps alive.
    """

    def __init__(
        self, vocab: Any, template: str, architecture: str = "", _owner: LoadedModel | None = None
    ) -> None:
        self._vocab = vocab
        self._owner = _owner
        self.template_source = template
        self.architecture = architecture
        self._compiled, wanted = _template(template)
        self.knows_tools = "tools" in wanted
        self.bos = int(llama_cpp.llama_vocab_bos(vocab))
        self.eos = int(llama_cpp.llama_vocab_eos(vocab))
        self.add_bos = bool(llama_cpp.llama_vocab_get_add_bos(vocab))
        self.size = int(llama_cpp.llama_vocab_n_tokens(vocab))
        found = map(llama_cpp.llama_vocab_is_control, repeat(vocab), range(self.size))
        control = [i for i, is_control in enumerate(found) if is_control]
        # llama.cpp makes a control token of each end token that it knows by its text.
        ends = {*control, self.eos, int(llama_cpp.llama_vocab_eot(vocab))} - {-1}
        self.end_ids = frozenset(i for i in ends if llama_cpp.llama_vocab_is_eog(vocab, i))
        texts = (self._text(i) for i in control)
        # Broken up by a zero-width space, text that spells a control token stays text.
        self._defused = {text: text[:1] + "\u200b" + text[1:] for text in texts if len(text) > 2}

    @classmethod
    def from_gguf(cls, path: Path) -> Prompt:
        """Reads only the vocabulary and the metadata of the file (about 0.1 s)."""
        params = model_params()
        params.vocab_only = True
        pointer = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise ModelError(f"{path} is not a model that llama.cpp can read", "acclimate doctor")
        return cls.from_model(LoadedModel(pointer))

    @classmethod
    def from_model(cls, model: LoadedModel) -> Prompt:
        """Uses a model that is in memory already, and keeps it there."""
        vocab = llama_cpp.llama_model_get_vocab(model.pointer)
        raw = llama_cpp.llama_model_chat_template(model.pointer, None)
        name = ctypes.create_string_buffer(128)
        llama_cpp.llama_model_meta_val_str(model.pointer, b"general.architecture", name, len(name))
        template = raw.decode("utf-8") if raw else DEFAULT_TEMPLATE
        return cls(vocab, template, name.value.decode(), model)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The conversation as the model's own template writes it, with the tools that may be
        called, in OpenAI's shape.

        Raises ModelError when the template refuses it (roles in an order it does not know).
        """
        given = {"tools": self._defused_in(list(tools))} if tools else {}
        text, chars = [], 0
        try:
            for part in self._compiled.generate(
                messages=[self._defused_in(dict(message)) for message in messages],
                add_generation_prompt=add_generation_prompt,
                bos_token="",
                eos_token=self._text(self.eos),
                **given,
            ):
                chars += len(part)
                if chars > MAX_RENDERED_CHARS:
                    raise ModelError("the chat template's output is too long", "shorten the input")
                text.append(part)
        except (jinja2.TemplateError, TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"the model's chat template refuses these messages: {error}",
                "roles should alternate user, assistant after an optional system message",
            ) from None
        return "".join(text)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of the text; with `special`, control tokens that it spells are recognised."""
        data = text.encode("utf-8")
        room = len(data) + 8
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, room, False, special)
        if count < 0:  # cannot happen with a token for every byte, but the API allows it
            raise ModelError("text cannot be tokenised", "shorten the input")
        return list(buffer[:count])

    def detokenize(self, tokens: Iterable[int]) -> str:
        """The text of whole tokens, without control tokens."""
        return b"".join(self.piece(t) for t in tokens).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one token; empty for a control token."""
        buffer = ctypes.create_string_buffer(256)
        size = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 256, 0, False)
        return buffer.raw[:size] if size > 0 else b""

    def encode_prompt(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Tokens up to where the assistant's reply begins."""
        tokens = self.tokenize(self.render(messages, tools=tools))
        return [self.bos, *tokens] if self.add_bos else tokens

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Tokens of a conversation, of which its last message, the assistant's, is taught.

        The prompt is tokenised exactly as `encode_prompt` does it, so what is trained is what is
        served. The completion ends with its first end token.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise ModelError("no assistant turn to learn from", "end with the assistant's reply")
        prefix = self.render(messages[:-1])
        whole = self.render(messages, add_generation_prompt=False)
        if not whole.startswith(prefix):
            raise ModelError("the chat template does not continue its own prompt")
        prompt = self.encode_prompt(messages[:-1])
        reply = self.tokenize(whole[len(prefix) :])
        end = next((n + 1 for n, t in enumerate(reply) if t in self.end_ids), len(reply))
        return Encoded(prompt + reply[:end], [0.0] * len(prompt) + [1.0] * end)

    def until_end(self, text: str) -> str:
        """What a text has before the first end token that it spells."""
        places = (text.find(self._text(token)) for token in self.end_ids)
        return text[: min((place for place in places if place >= 0), default=len(text))]

    def _defused_in(self, value: Any) -> Any:
        """The same value, with no text in it that spells a control token."""
        if isinstance(value, dict):
            return {self._defused_in(key): self._defused_in(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._defused_in(inner) for inner in value]
        if isinstance(value, str):
            for spelled, harmless in self._defused.items():
                if spelled in value:
                    value = value.replace(spelled, harmless)
        return value

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))
