"""Ollama's shapes: what its clients send, as our requests, and what they are told of models.

Knows no HTTP and starts nothing.
"""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from acclimate.adapters import gguf_check
from acclimate.daemon.bodies import DEFAULT_MAX_TOKENS, MAX_PROMPT_CHARS, ChatRequest, TextRequest
from acclimate.daemon.core import Core
from acclimate.daemon.embeddings import NAME as EMBEDDER
from acclimate.daemon.embeddings import EmbeddingRequest
from acclimate.daemon.tools import MAX_TOOLS, Tool, ToolCall

VERSION = "0.12.0"  # of the API that is followed; clients look for features by it
_TAG = ":latest"
_ENDLESS = 1_000_000  # as far as the context goes
_NEVER = "9999-12-31T23:59:59Z"


class _Part(BaseModel):
    """What only tunes a service elsewhere is passed over."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True, allow_inf_nan=False)


class Options(_Part):
    """How a reply is sampled."""

    num_predict: int | None = Field(default=None, ge=-2, le=_ENDLESS)
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | str | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def ours(self) -> dict[str, Any]:
        """The same under our names, without what was not given."""
        given = self.model_dump(exclude_none=True)
        wanted = given.pop("num_predict", 0)
        return {**given, "max_tokens": _ENDLESS if wanted < 0 else wanted} if wanted else given


class _Named(_Part):
    model: str = Field(min_length=1, max_length=200)

    @property
    def plain_model(self) -> str:
        """The model's name as we have it."""
        return self.model.removesuffix(_TAG)


class _Asked(_Named):
    stream: bool = True
    options: Options = Options()
    format: Literal["", "json"] | dict[str, Any] | None = None
    # Not served, and not to be passed over in silence.
    think: Literal[False] | None = None
    logprobs: Literal[False] | None = None

    @field_validator("stream", "options", mode="before")
    @classmethod
    def _given(cls, value: Any, info: Any) -> Any:
        return {"stream": True, "options": {}}[info.field_name] if value is None else value

    def _ours(self) -> dict[str, Any]:
        ours = {"model": self.plain_model, "stream": self.stream, **self.options.ours()}
        if self.format == "json":
            ours["response_format"] = {"type": "json_object"}
        elif self.format:
            ours["response_format"] = {
                "type": "json_schema",
                "json_schema": {"schema": self.format},
            }
        return ours


class OllamaMessage(_Part):
    """One message."""

    role: str
    content: str | None = ""
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    images: list[Any] | None = Field(default=None, max_length=0)

    def ours(self) -> dict[str, Any]:
        """The same in OpenAI's shape."""
        calls = [call.model_dump() for call in self.tool_calls or []]
        named = {"name": self.tool_name} if self.tool_name else {}
        return {"role": self.role, "content": self.content or "", "tool_calls": calls, **named}


class ChatBody(_Asked):
    """The body of /api/chat; without messages the model is only brought into memory."""

    messages: list[OllamaMessage] = Field(default=[], max_length=10_000)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)

    def chat(self) -> ChatRequest:
        """The same as our request. Raises pydantic's ValidationError."""
        messages = [message.ours() for message in self.messages]
        tools = [tool.model_dump() for tool in self.tools or []]
        return ChatRequest.model_validate({**self._ours(), "messages": messages, "tools": tools})


class GenerateBody(_Asked):
    """The body of /api/generate; without a prompt the model is only brought into memory."""

    prompt: str = Field(default="", max_length=MAX_PROMPT_CHARS)
    system: str | None = Field(default=None, max_length=MAX_PROMPT_CHARS)
    raw: bool | None = None
    # Not served, and not to be passed over in silence.
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    context: list[int] | None = Field(default=None, max_length=0)
    images: list[Any] | None = Field(default=None, max_length=0)

    @field_validator("prompt", mode="before")
    @classmethod
    def _prompted(cls, value: Any) -> Any:
        return "" if value is None else value

    @model_validator(mode="after")
    def _plain(self) -> Self:
        if self.raw and self.format:
            raise ValueError("format and raw do not go together")
        return self

    def chat(self) -> ChatRequest:
        """The prompt as a message. Raises pydantic's ValidationError."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, {"role": "user", "content": self.prompt}]
        return ChatRequest.model_validate({**self._ours(), "messages": messages})

    def text(self) -> TextRequest:
        """The prompt as it stands, for `raw`. Raises pydantic's ValidationError."""
        ours = {"max_tokens": DEFAULT_MAX_TOKENS, **self._ours()}
        return TextRequest.model_validate({**ours, "prompt": self.prompt})


class EmbedBody(_Named):
    """The body of /api/embed."""

    input: str | list[str]
    dimensions: int | None = None
    truncate: bool | None = None

    def embeddings(self) -> EmbeddingRequest:
        """The same as our request. Raises pydantic's ValidationError."""
        asked = {"model": self.plain_model, "input": self.input, "dimensions": self.dimensions}
        return EmbeddingRequest.model_validate(asked)


class ShowBody(_Part):
    """The body of /api/show; older clients say `name`."""

    model: str = Field(default="", max_length=200)
    name: str = Field(default="", max_length=200)

    @property
    def plain_model(self) -> str:
        """The model's name as we have it."""
        return (self.model or self.name).removesuffix(_TAG)


def stamp(at: float | None = None) -> str:
    """A time as Ollama writes it; now, if none is given."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def tags(core: Core) -> list[dict[str, Any]]:
    """Every model that can be asked. Blocks; raises StoreError."""
    base = _Base(core)
    return [base.row(model["id"], model["created"]) for model in core.models()]


def loaded(core: Core) -> list[dict[str, Any]]:
    """The models that are in memory."""
    if core.engine is None:
        return []
    base = _Base(core)
    live, limit = core.engine.live, core.engine.context_limit
    until = stamp(time.time() + core.config.engine.idle_context_seconds)
    return [
        {
            **base.row(name, 0),
            "expires_at": _NEVER if name == live else until,
            "size_vram": 0,
            "context_length": limit,
        }
        for name in core.engine.stats()["contexts"]
    ]


def shown(core: Core, name: str) -> dict[str, Any]:
    """What is known of one model. Raises NotFound."""
    if core.embedder is not None and name in (EMBEDDER, core.config.models.embedder):
        return {"details": {}, "model_info": {}, "capabilities": ["embedding"], "template": ""}
    model = core.model(name)
    base = _Base(core)
    knows_tools = core.prompt is not None and core.prompt.knows_tools
    return {
        "modelfile": "",
        "parameters": "",
        "license": str(base.metadata.get("general.license", "")),
        "template": core.prompt.template_source if core.prompt else "",
        "details": base.details,
        "model_info": {
            **{key: value for key, value in base.metadata.items() if _of_the_model(key, value)},
            "general.parameter_count": base.parameters,
        },
        "capabilities": ["completion", *(["tools"] if knows_tools else [])],
        "modified_at": stamp(model["created"]),
        "acclimate": model["acclimate"],
    }


class _Base:
    """What all models have of the one that they are adapters of."""

    def __init__(self, core: Core) -> None:
        self._sha256 = core.switch.base_sha256 or ""
        self.metadata: Mapping[str, Any] = {}
        self.parameters = self._bytes = 0
        if core.engine is not None:
            header = gguf_check.read_header(core.engine.model_path)
            self.metadata, self.parameters = header.metadata, header.parameters
            self._bytes = core.engine.model_path.stat().st_size
        family = str(self.metadata.get("general.architecture", ""))
        self.details = {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": _size(self.parameters),
            "quantization_level": _quantisation(self.metadata.get("general.file_type")),
        }

    def row(self, name: str, created: int) -> dict[str, Any]:
        """One model of a list. The digest is the base's: Ollama's clients want 64 digits."""
        return {
            "name": name + _TAG,
            "model": name + _TAG,
            "modified_at": stamp(created),
            "size": self._bytes,
            "digest": self._sha256,
            "details": self.details,
        }


def _size(parameters: int) -> str:
    for unit, least in (("B", 10**9), ("M", 10**6)):
        if parameters >= least:
            return f"{parameters / least:.4g}{unit}"
    return str(parameters)


def _of_the_model(key: str, value: Any) -> bool:
    """Not the vocabulary's, and sayable in JSON."""
    return "tokenizer" not in key and not (isinstance(value, float) and not math.isfinite(value))


def _quantisation(number: Any) -> str:
    import gguf  # takes a tenth of a second

    try:
        name = str(gguf.LlamaFileType(number).name)
    except ValueError:
        return "unknown"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")
