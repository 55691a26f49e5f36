"""A request for a reply on its way: passages found, tokens made, the reply kept.

Knows no HTTP. Replies are kept for feedback only: nothing here feeds the buffer or the index.
"""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from acclimate.adapters.calls import CallForm
from acclimate.adapters.passages import with_passages
from acclimate.adapters.prompt import Prompt
from acclimate.adapters.request import may_be_question
from acclimate.daemon.bodies import ChatRequest, Sampled, TextRequest
from acclimate.daemon.contexts import BASE, LIVE
from acclimate.daemon.cueing import Cue, Cueing, agreeing, surer
from acclimate.daemon.engine import Busy, Engine
from acclimate.daemon.reader import Quote, Reader, quoting
from acclimate.daemon.retrieve import Found, Retriever, question_of
from acclimate.daemon.scoping import Scoping
from acclimate.daemon.stream import Stream
from acclimate.daemon.tools import Reading, grammar
from acclimate.store import conversations
from acclimate.store.db import Db
from acclimate.store.errors import AcclimateError, EngineError, ModelError
from acclimate.store.index import Hit

log = structlog.get_logger(__name__)

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
    calls: CallForm | None = None  # how a tool is called, where any may be

    def reading(self) -> Reading:
        """Tells text and calls of one of its streams apart."""
        return Reading(self.calls, [tool.function.name for tool in self.asked.offered])

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
    is asked. `beneath` says what answers what lies outside its scope. Without a `reader` the model
    itself reads the passages that it is shown.
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
        beneath: Callable[[str], str] = lambda _adapter: BASE,
    ) -> None:
        self._beneath = beneath
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
        form = self._call_form(asked)
        warnings: list[str] = []
        found = self._found(asked, messages, warnings)
        live = self._engine.live if adapter == LIVE else BASE
        inside = self._inside(live, messages)
        instead_of = live if inside is False else None
        if instead_of:
            adapter = self._beneath(live)
        texts = [hit.text for hit in found.wider]
        cues = [] if form else self._cues(adapter, messages)
        passages, cue = agreeing(cues, found.near, found.wider, texts)
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
        held_to = self._held_to(asked, form) if quote is None else quoting(quote.text)
        cued = messages if cue is None else cue.within(messages)
        while True:
            tokens = self._encode(with_passages(cued, [hit.text for hit in passages]), asked)
            try:
                streams = self._submit(asked, tokens, adapter, "messages", held_to)
            except BadRequest:
                # Of a prompt that is too long, what the notes say goes first, not what the person
                # said.
                if not passages:
                    raise
                passages = passages[:-1]
                continue
            return Reply(streams, asked, passages, warnings, instead_of, words, said, form)

    def _call_form(self, asked: ChatRequest) -> CallForm | None:
        """How the model calls a tool; None where none is offered."""
        form = CallForm.of(self._prompt) if asked.offered else None
        called = any(message.tool_calls or message.role == "tool" for message in asked.messages)
        if (asked.offered and form is None) or (called and not self._prompt.knows_tools):
            raise BadRequest(
                "the model's chat template knows no tools, or calls them in an unknown way",
                "leave tools out, or use a base model that knows them: acclimate models use",
                param="tools" if asked.offered else "messages",
            )
        return form

    def _held_to(self, asked: ChatRequest, form: CallForm | None) -> str | None:
        """The grammar that the reply is held to."""
        if form is None or not asked.must_call:
            return asked.grammar
        try:
            return grammar(form, asked.offered)
        except ValueError as error:
            raise BadRequest(f"tools: {error}", param="tools") from None

    def _submit(
        self,
        asked: Sampled,
        tokens: Sequence[int],
        adapter: str,
        param: str,
        grammar: str | None = None,
    ) -> list[Stream]:
        """All choices or none; they share the prompt's state in the engine.

        Raises Busy, EngineError when the engine does not run, else BadRequest that names `param`.
        """
        streams: list[Stream] = []
        try:
            for number in range(asked.n or 1):
                request = asked.engine_request(tokens, adapter, grammar, number)
                streams.append(self._engine.submit(request))
                adapter = streams[0].adapter  # "live" may move meanwhile
        except AcclimateError as error:
            for stream in streams:
                stream.cancel()
            if isinstance(error, Busy) or not isinstance(error, EngineError):
                raise
            if not self._engine.alive():
                raise
            # It runs, so what it refuses is this request.
            code = "context_length_exceeded" if "tokens" in error.message else None
            raise BadRequest(error.message, error.hint, param=param, code=code) from None
        return streams

    def text(self, asked: TextRequest, adapter: str) -> list[list[Stream]]:
        """Queue texts that are to be gone on with as they stand: of each prompt its choices.

        No template, no passages, no scope; nothing is kept. Raises BadRequest, Busy, EngineError.
        """
        streams: list[list[Stream]] = []
        try:
            for prompt in asked.prompts:
                streams.append(self._submit(asked, self._tokens(prompt), adapter, "prompt"))
                adapter = streams[0][0].adapter
        except AcclimateError:
            for stream in (stream for choices in streams for stream in choices):
                stream.cancel()
            raise
        return streams

    def _tokens(self, prompt: str | list[int]) -> list[int]:
        tokens = self._prompt.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        if isinstance(prompt, str) and self._prompt.add_bos:
            tokens = [self._prompt.bos, *tokens]
        if not tokens:
            raise BadRequest("the prompt is empty", param="prompt")
        return tokens

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
        if chat.grammar is not None or chat.offered:
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

    def _encode(self, messages: Sequence[Mapping[str, Any]], asked: ChatRequest) -> list[int]:
        tools = [tool.model_dump(exclude_none=True) for tool in asked.offered]
        try:
            return self._prompt.encode_prompt(messages, tools)
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
