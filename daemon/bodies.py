"""What clients send to be answered, in OpenAI's shapes: fields checked one by one.

Knows no HTTP and starts nothing.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from acclimate.daemon import jsonform
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.stream import MAX_STOP_CHARS, MAX_STOPS, Request
from acclimate.daemon.tools import MAX_TOOLS, Choice, Chosen, Tool, ToolCall

MAX_PROMPT_CHARS = 1_000_000
DEFAULT_MAX_TOKENS = 512
DEFAULT_TEXT_TOKENS = 16  # OpenAI's
MAX_CHOICES = 16
# A small model's likeliest words are its best ones; whoever wants variety asks for it.
DEFAULT_TEMPERATURE = 0.0


class ChatMessage(BaseModel):
    """One message, its content as a string or as a list of text parts."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    role: Literal["system", "user", "assistant", "tool"]
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_call_id: str | None = Field(default=None, max_length=200)
    name: str | None = Field(default=None, max_length=200)
    # May be missing only where tools are called.
    content: str = Field(default=None, validate_default=True, max_length=MAX_PROMPT_CHARS)

    @field_validator("role", mode="before")
    @classmethod
    def _developer(cls, role: Any) -> Any:
        return "system" if role == "developer" else role

    @field_validator("tool_calls")
    @classmethod
    def _assistants(cls, calls: Any, info: ValidationInfo) -> Any:
        if calls and info.data.get("role") != "assistant":
            raise ValueError("only the assistant calls tools")
        return calls

    @field_validator(
        "content", mode="before", json_schema_input_type=str | list[dict[str, Any]] | None
    )
    @classmethod
    def _joined(cls, content: Any, info: ValidationInfo) -> Any:
        if content is None and info.data.get("tool_calls"):
            return ""
        if not isinstance(content, list):
            return content
        parts = [part if isinstance(part, dict) else {} for part in content]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        read = [text for text in texts if isinstance(text, str)]
        if len(read) < len(parts):
            raise ValueError("only parts of type text can be read")
        return "".join(read)

    def plain(self) -> dict[str, Any]:
        """As chat templates take it; role and content is what the store takes."""
        plain: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            plain["tool_calls"] = [call.shown() for call in self.tool_calls]
        if self.role == "tool":
            given = {"tool_call_id": self.tool_call_id, "name": self.name}
            plain |= {key: value for key, value in given.items() if value is not None}
        return plain


class StreamOptions(BaseModel):
    """What a streamed answer says beside its text."""

    include_usage: bool = False


class JsonSchema(BaseModel):
    """What `response_format` has under `json_schema`."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    name: str = Field(default="reply", max_length=200)
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """Which form a reply has. `grammar` is GBNF, None where any text will do."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _grammatical(self) -> Self:
        _ = self.grammar
        return self

    @cached_property
    def grammar(self) -> str | None:
        """GBNF with a rule named root. Raises ValueError for a schema that cannot be kept to."""
        if self.type == "json_schema":
            if self.json_schema is None:
                raise ValueError("json_schema is missing")
            return jsonform.of_schema(self.json_schema.schema_)
        return jsonform.any_object() if self.type == "json_object" else None


class Sampled(BaseModel):
    """What requests for a reply have in common.

    Fields that only tune a service elsewhere are passed over; those that would change the answer
    and are not understood are refused.
    """

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True, allow_inf_nan=False)

    model: str = Field(default="live", min_length=1, max_length=200)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: list[str] = Field(default=[], max_length=MAX_STOPS)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, ge=0.01, le=10)
    logit_bias: dict[int, float] | None = Field(default=None, max_length=1000)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)

    @field_validator("stop", mode="before", json_schema_input_type=str | list[str] | None)
    @classmethod
    def _listed(cls, stop: Any) -> Any:
        return [] if stop is None else [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: list[str]) -> list[str]:
        if not all(0 < len(text) <= MAX_STOP_CHARS for text in stop):
            raise ValueError(f"a stop string has 1 to {MAX_STOP_CHARS} characters")
        return stop

    @field_validator("logit_bias")
    @classmethod
    def _biases(cls, biases: dict[int, float] | None) -> dict[int, float] | None:
        for token, bias in (biases or {}).items():
            if not (-100 <= bias <= 100 and 0 <= token < 2**31):
                raise ValueError("token numbers with a bias between -100 and 100 are expected")
        return biases

    @property
    def most_tokens(self) -> int:
        """How many a reply may have."""
        return self.max_tokens or DEFAULT_MAX_TOKENS

    @property
    def likeliest(self) -> int | None:
        """How many tokens are named with their probability beside the chosen one; None: none."""
        return None

    def engine_request(
        self, tokens: Sequence[int], adapter: str, grammar: str | None = None, number: int = 0
    ) -> Request:
        """The request in tokens, of choice `number`; what was not given is the engine's default."""
        sampled = ("top_k", "top_p", "min_p", "seed", "logit_bias")
        penalties = ("repeat_penalty", "frequency_penalty", "presence_penalty")
        chosen = {name: getattr(self, name) for name in (*sampled, *penalties)}
        given = {name: value for name, value in chosen.items() if value is not None}
        if self.seed is not None:
            given["seed"] = self.seed + number
        temperature = DEFAULT_TEMPERATURE if self.temperature is None else self.temperature
        return Request(
            tokens,
            adapter=adapter,
            max_tokens=self.most_tokens,
            stop=self.stop,
            sampling=Sampling(temperature=temperature, grammar=grammar, **given),
            logprobs=self.likeliest,
        )


class ChatRequest(Sampled):
    """The body of /v1/chat/completions: OpenAI's fields, and `retrieval`, `conversation`, ours."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    store: bool | None = None
    retrieval: bool | None = None
    conversation: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Choice | None = None
    # OpenAI's older form; not served, and not to be passed over in silence.
    functions: list[Any] | None = Field(default=None, max_length=0)

    @field_validator("messages")
    @classmethod
    def _answerable(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role == "assistant":
            raise ValueError("the last message must not be the assistant's")
        if sum(len(message.content) for message in messages) > MAX_PROMPT_CHARS:
            raise ValueError(f"the messages may have {MAX_PROMPT_CHARS} characters together")
        return messages

    @model_validator(mode="after")
    def _logprobs_asked_for(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @model_validator(mode="after")
    def _callable(self) -> Self:
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice needs tools")
        if isinstance(self.tool_choice, Chosen) and self.tool_choice.function.name not in names:
            raise ValueError("tool_choice names a tool that is not offered")
        if self.offered and self.grammar is not None:
            raise ValueError("a response_format and tools cannot be kept to together")
        return self

    @property
    def grammar(self) -> str | None:
        """Of the form that the reply has to have, if any."""
        return None if self.response_format is None else self.response_format.grammar

    @property
    def offered(self) -> list[Tool]:
        """The tools that may be called."""
        if isinstance(self.tool_choice, Chosen):
            only = self.tool_choice.function.name
            return [tool for tool in self.tools or [] if tool.function.name == only]
        return [] if self.tool_choice == "none" else list(self.tools or [])

    @property
    def must_call(self) -> bool:
        """Whether nothing but a call will do."""
        return self.tool_choice == "required" or isinstance(self.tool_choice, Chosen)

    def plain_messages(self) -> list[dict[str, Any]]:
        """The messages as the chat template and the store take them."""
        return [message.plain() for message in self.messages]

    @property
    def most_tokens(self) -> int:
        """How many the reply may have."""
        return self.max_completion_tokens or super().most_tokens

    @property
    def likeliest(self) -> int | None:
        """How many tokens are named with their probability beside the chosen one; None: none."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TextRequest(Sampled):
    """The body of /v1/completions: texts, or their tokens, that are gone on with as they stand."""

    prompt: str | list[int] | list[str] | list[list[int]]
    max_tokens: int | None = Field(default=DEFAULT_TEXT_TOKENS, ge=1, le=1_000_000)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    best_of: Literal[1] | None = None
    # Not served, and not to be passed over in silence.
    suffix: Literal[""] | None = None

    @field_validator("prompt")
    @classmethod
    def _texts(cls, prompt: Any) -> Any:
        if not prompt or (isinstance(prompt, list) and len(prompt) > MAX_PROMPT_CHARS):
            raise ValueError("a text or a list of texts is expected")
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(texts[0], int) and len(texts) > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} texts at a time")
        if sum(len(text) for text in texts if not isinstance(text, int)) > MAX_PROMPT_CHARS:
            raise ValueError(f"the texts may have {MAX_PROMPT_CHARS} characters together")
        return prompt

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each text, or its tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def likeliest(self) -> int | None:
        """How many tokens are named with their probability beside the chosen one; None: none."""
        return self.logprobs
