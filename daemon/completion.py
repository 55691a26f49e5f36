"""A chat request on its way: its fields checked, passages found, tokens made, the reply kept.

Knows no HTTP. Replies are kept for feedback only: nothing here feeds the buffer or the index.
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import structlog
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from acclimate.adapters.passages import with_passages
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.request import may_be_question
from acclimate.daemon import jsonform
from acclimate.daemon.contexts import BASE, LIVE
from acclimate.daemon.cueing import Cue, Cueing, agreeing, surer
from acclimate.daemon.engine import Busy, Engine
from acclimate.daemon.reader import Quote, Reader, quoting
from acclimate.daemon.retrieve import Found, Retriever, question_of
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.scoping import Scoping
from acclimate.daemon.stream import MAX_STOP_CHARS, MAX_STOPS, Request, Stream
from acclimate.store import conversations
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, EngineError, ModelError
from acclimate.store.index import Hit

log = structlog.get_logger(__name__)

MAX_PROMPT_CHARS = 1_000_000
DEFAULT_MAX_TOKENS = 512
MAX_CHOICES = 16
# A small model's likeliest words are its best ones; whoever wants variety asks for it.
DEFAULT_TEMPERATURE = 0.0


# Words that may stand for something said before.
_POINTS_BACK = re.compile(
    r"\b(he|him|his|she|hers?|it|its|they|them|their|that|this|there)\b", re.I
)


class BadRequest(AcclimateError):
    """The request itself is wrong; `param` names the field."""

    def __init__(
        self, message: str, hint: str = "", *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, hint)
        self.param = param
        self.code = code


class ChatMessage(BaseModel):
    """One message, its content as a string or as a list of text parts."""

    model_config = ConfigDict(hide_input_in_errors=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_PROMPT_CHARS)

    @field_validator("role", mode="before")
    @classmethod
    def _developer(cls, role: Any) -> Any:
        return "system" if role == "developer" else role

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        parts = [part if isinstance(part, dict) else {} for part in content]
        texts = [part.get("text") for part in parts if part.get("type") == "text"]
        read = [text for text in texts if isinstance(text, str)]
        if len(read) < len(parts):
            raise ValueError("only parts of type text can be read")
        return "".join(read)


class StreamOptions(BaseModel):
    """What a streamed answer says beside its text."""

    include_usage: bool = False


class JsonSchema(BaseModel):
    """What `response_format` has under `json_schema`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str = Field(default="reply", max_length=200)
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """Which form a reply has. `grammar` is GBNF, None where any text will do."""

    model_config = ConfigDict(hide_input_in_errors=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    _grammar: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _grammatical(self) -> Self:
        if self.type == "json_object":
            self._grammar = jsonform.any_object()
        elif self.type == "json_schema":
            if self.json_schema is None:
                raise ValueError("json_schema is missing")
            self._grammar = jsonform.of_schema(self.json_schema.schema_)
        return self

    @property
    def grammar(self) -> str | None:
        """GBNF with a rule named root."""
        return self._grammar


class ChatRequest(BaseModel):
    """The body of /v1/chat/completions: OpenAI's fields, and `retrieval`, `conversation`, ours.

    Fields that only tune a service elsewhere are passed over; those that would change the answer
    and are not understood are refused.
    """

    model_config = ConfigDict(hide_input_in_errors=True, allow_inf_nan=False)

    model: str = Field(default="live", min_length=1, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
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
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    store: bool | None = None
    retrieval: bool | None = None
    conversation: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")
    # Not served yet, and not to be passed over in silence.
    tools: list[Any] | None = Field(default=None, max_length=0)
    functions: list[Any] | None = Field(default=None, max_length=0)
    response_format: ResponseFormat | None = None

    @field_validator("stop", mode="before")
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

    @property
    def grammar(self) -> str | None:
        """Of the form that the reply has to have, if any."""
        return None if self.response_format is None else self.response_format.grammar

    def plain_messages(self) -> list[dict[str, str]]:
        """The messages as the chat template and the store take them."""
        return [{"role": m.role, "content": m.content} for m in self.messages]

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
            max_tokens=self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS,
            stop=self.stop,
            sampling=Sampling(temperature=temperature, grammar=grammar, **given),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


@dataclass
class Reply:
    """A reply that the engine is writing, and what it was asked with."""

    streams: list[Stream]  # `n` of them, all of one adapter
    asked: ChatRequest
    passages: list[Hit]
    warnings: list[str] = field(default_factory=list)
    instead_of: str | None = None  # the live adapter, where the question lies outside its scope
    cue: str | None = None  # the taught question that was put behind it or in its place
    quote: str | None = None  # the words of the first passage that the reply is made of

    @property
    def adapter(self) -> str:
        """Which adapter answers: "base" or a version name."""
        return self.streams[0].adapter

    def cancel(self) -> None:
        """Nobody reads it any more."""
        for stream in self.streams:
            stream.cancel()


class Completion:
    """Starts replies and keeps them. Every method blocks and may be called from any thread.

    Without a `scoping` the live adapter answers whatever "live" is asked; without a `cueing` as it
    is asked. Without a `reader` the model itself reads the passages that it is shown.
    """

    def __init__(
        self,
        db: Db,
        retriever: Retriever,
        engine: Engine,
        prompt: Prompt,
        scoping: Scoping | None = None,
        cueing: Cueing | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._scoping = scoping
        self._cueing = cueing
        self._reader = reader
        self._db = db
        self._retriever = retriever
        self._engine = engine
        self._prompt = prompt

    def start(self, asked: ChatRequest, adapter: str) -> Reply:
        """Queue the request on an adapter that is loaded, "base" or "live".

        What "live" is asked goes to the base where it is nothing like what that was taught.
        Raises BadRequest when it does not fit the context or the template, Busy, EngineError.
        """
        messages = asked.plain_messages()
        warnings: list[str] = []
        found = self._found(asked, messages, warnings)
        live = self._engine.live if adapter == LIVE else BASE
        inside = self._inside(live, messages)
        instead_of = live if inside is False else None
        if instead_of:
            adapter = BASE
        texts = [hit.text for hit in found.wider]
        passages, cue = agreeing(self._cues(adapter, messages), found.near, found.wider, texts)
        personal = inside is True
        quote = surer(
            lambda: self._quote(asked, found, warnings, personal=personal),
            cue,
            borne_out=bool(passages),
        )
        if quote is not None:
            cue, passages = None, [found.candidates[quote.at]]
        words = None if cue is None else cue.words
        said = None if quote is None else quote.text
        grammar = asked.grammar if quote is None else quoting(quote.text)
        cued = messages if cue is None else cue.within(messages)
        while True:
            tokens = self._encode(with_passages(cued, [hit.text for hit in passages]))
            try:
                streams = self._submit(asked, tokens, adapter, grammar)
            except Busy:
                raise
            except EngineError as error:
                if not self._engine.alive():
                    raise
                # It runs, so what it refuses is this request. Of a prompt that is too long, what
                # the notes say goes first, not what the person said.
                if passages:
                    passages = passages[:-1]
                    continue
                code = "context_length_exceeded" if "tokens" in error.message else None
                raise BadRequest(error.message, error.hint, param="messages", code=code) from None
            return Reply(streams, asked, passages, warnings, instead_of, words, said)

    def _submit(
        self, asked: ChatRequest, tokens: Sequence[int], adapter: str, grammar: str | None
    ) -> list[Stream]:
        """All choices or none; they share the prompt's state in the engine."""
        streams: list[Stream] = []
        try:
            for number in range(asked.n or 1):
                request = asked.engine_request(tokens, adapter, grammar, number)
                streams.append(self._engine.submit(request))
                adapter = streams[0].adapter  # "live" may move meanwhile
        except AcclimateError:
            for stream in streams:
                stream.cancel()
            raise
        return streams

    def finish(self, reply: Reply, text: str) -> dict[str, Any]:
        """Keep the exchange; what the answer's `acclimate` object says."""
        about: dict[str, Any] = {
            "adapter": reply.adapter,
            "instead_of": reply.instead_of,
            "cue": reply.cue,
            "quote": reply.quote,
            "passages": [passage_of(hit) for hit in reply.passages],
            "message_id": None,
            "conversation_id": reply.asked.conversation,
        }
        if reply.asked.store is not False:
            try:
                about.update(self._keep(reply, text, about["passages"]))
            except (AcclimateError, sqlite3.Error) as error:
                # A full disk or a pulled drive does not stop answers.
                log.warning("reply_not_kept", error=str(error))
                reply.warnings.append(f"the reply was not kept: {error}")
        if reply.warnings:
            about["warnings"] = reply.warnings
        return about

    def _keep(
        self, reply: Reply, text: str, passages: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        message_id = conversations.save_exchange(
            self._db,
            reply.asked.conversation,
            reply.asked.plain_messages(),
            text,
            reply.adapter,
            passages,
        )
        message = conversations.get_message(self._db, message_id)
        return {"message_id": message_id, "conversation_id": message.conversation_id}

    def _found(
        self, asked: ChatRequest, messages: Sequence[Mapping[str, str]], warnings: list[str]
    ) -> Found:
        wanted = asked.retrieval
        if not (self._retriever.settings.enabled if wanted is None else wanted):
            return Found()
        try:
            return self._retriever.find(question_of(messages))
        except (AcclimateError, OSError, sqlite3.Error) as error:
            log.warning("retrieval_failed", error=str(error))
            warnings.append(f"answered without the notes: {error}")
            return Found()

    def _quote(
        self,
        chat: ChatRequest,
        found: Found,
        warnings: list[str],
        *,
        personal: bool,
    ) -> Quote | None:
        """The words of a candidate that answer the last message, if it asks for a fact."""
        if chat.grammar is not None:
            return None  # the words alone would not have the form that was asked for
        messages = chat.plain_messages()
        if self._reader is None or found.vector is None or not stands_alone(messages):
            return None
        asked, candidates = question_of(messages), found.candidates
        try:
            return self._reader.answer(asked, found.vector, candidates, personal=personal)
        except (AcclimateError, OSError) as error:
            log.warning("reading_failed", error=str(error))
            warnings.append(f"the passages were not read: {error}")
            return None

    def _inside(self, live: str, messages: Sequence[Mapping[str, str]]) -> bool | None:
        """Whether these are like what the live adapter was taught; None where nothing tells."""
        if self._scoping is None or live == BASE:
            return None
        return self._scoping.covers(live, messages)

    def _cues(self, adapter: str, messages: Sequence[Mapping[str, str]]) -> list[Cue]:
        answers = self._engine.live if adapter == LIVE else adapter
        if self._cueing is None or answers == BASE:
            return []
        return self._cueing.several(answers, messages)

    def _encode(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        try:
            return self._prompt.encode_prompt(messages)
        except ModelError as error:
            raise BadRequest(error.message, error.hint, param="messages") from None


def stands_alone(messages: Sequence[Mapping[str, str]]) -> bool:
    """Whether the last message may be a question that needs none of those before it."""
    asked = question_of(messages).strip()
    earlier = any(message["role"] == "assistant" for message in messages)
    return may_be_question(asked) and not (earlier and _POINTS_BACK.search(asked))


def passage_of(hit: Hit) -> dict[str, Any]:
    """A passage as clients see it."""
    return {
        "path": hit.path,
        "source": hit.source,
        "start_line": hit.start_line,
        "end_line": hit.end_line,
        "score": hit.score,
        "text": hit.text,
    }
