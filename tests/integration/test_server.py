"""The whole HTTP side on a tiny random model, over a real socket, with OpenAI's own client."""

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pydantic
import pytest
from served import CONTEXT, QUESTION, TOKEN, Served, wait_until

from acclimate.adapters.passages import with_cue
from acclimate.adapters.scope import Scope
from acclimate.adapters.snapshot import taught_of
from acclimate.daemon.core import Core
from acclimate.daemon.cueing import Cueing
from acclimate.daemon.embed import Embedder
from acclimate.daemon.general import General
from acclimate.daemon.sampling import Sampling
from acclimate.daemon.scoping import SCOPE_FILE, Scoping
from acclimate.daemon.server import unguarded
from acclimate.daemon.stream import Request
from acclimate.store import buffer, conversations, ledger
from acclimate.store.chats import Exchange
from acclimate.store.errors import EngineError
from acclimate.store.files import sha256_file
from acclimate.store.ingest import add_bytes

NOTE = "The clarinet is at Ruth's."
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
# The random model likes to end early; with this bias on its end tokens it goes on.
ENDLESS = {"0": -100, "1": -100, "2": -100}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("server"), tiny_llama)
    for version in (1, 2, 3, 4):
        round_id = ledger.start_round(served.db, None, version, [])
        folder = served.home.adapter_dir(version)
        folder.mkdir()
        file = folder / ledger.ADAPTER_FILE
        shutil.copy(tiny_adapter(version), file)
        card = {"base_sha256": "another" if version == 3 else sha256_file(tiny_llama)}
        ledger.publish(served.db, round_id, version, None, sha256_file(file), 1.0, card, [])
    ledger.set_live(served.db, None, "rollback")
    yield served
    served.close()


def test_a_reply_in_openais_shape(served: Served) -> None:
    reply = served.openai.chat.completions.create(
        model="live", messages=QUESTION, max_completion_tokens=8, extra_body={"logit_bias": ENDLESS}
    )
    assert reply.object == "chat.completion"
    assert reply.model == "base", "the answer says who gave it"
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 8
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 8
    about = reply.model_extra["acclimate"]
    assert about["adapter"] == "base" and about["passages"] == []
    kept = conversations.get_message(served.db, about["message_id"])
    assert kept.content == reply.choices[0].message.content
    assert kept.conversation_id == about["conversation_id"]


def test_a_stream_gives_the_same_text_in_pieces(served: Served) -> None:
    options: dict[str, Any] = {"messages": QUESTION, "max_tokens": 12, "logit_bias": ENDLESS}
    whole = served.openai.chat.completions.create(model="live", **options)
    for counted in (False, True):
        more = {"stream_options": {"include_usage": True}} if counted else {}
        chunks = list(
            served.openai.chat.completions.create(model="live", stream=True, **options, **more)
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert [reason for reason in reasons if reason] == ["length"]
        assert [bool(c.model_extra.get("acclimate")) for c in chunks].index(True) == len(chunks) - 1
        assert (chunks[-1].usage is not None) is counted
        if chunks[-1].usage is not None:
            assert chunks[-1].usage.completion_tokens == 12


def test_the_stream_ends_as_openais_does(served: Served) -> None:
    lines = served.ask(stream=True).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert json.loads(lines[-3].removeprefix("data: "))["acclimate"]["message_id"]


def test_stop_seed_and_logprobs(served: Served) -> None:
    free = served.ask(max_tokens=30, logit_bias=ENDLESS).json()["choices"][0]["message"]["content"]
    stop = free[3:5]
    stopped = served.ask(max_tokens=30, logit_bias=ENDLESS, stop=stop).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["message"]["content"] == free[: free.index(stop)]
    drawn = [served.ask(temperature=1.5, seed=7).json()["choices"][0]["message"] for _ in range(2)]
    assert drawn[0] == drawn[1]
    found = served.ask(logit_bias=ENDLESS, logprobs=True, top_logprobs=2).json()["choices"][0]
    entries = found["logprobs"]["content"]
    assert len(entries) == 8
    assert all(e["logprob"] <= 0 and len(e["top_logprobs"]) == 2 for e in entries)
    text = b"".join(bytes(e["bytes"]) for e in entries).decode(errors="replace")
    assert text == found["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_has_the_form_that_was_asked_for(served: Served, stream: bool) -> None:
    class Instrument(pydantic.BaseModel):
        name: str
        strings: int
        played: bool
        kind: Literal['wind "reed"', "string"]
        owner: str | None

    schema = {"name": "instrument", "schema": Instrument.model_json_schema()}
    # A random model: whatever it would like to say, it says JSON.
    whole = 0
    for seed in range(3):
        response = served.openai.chat.completions.create(
            model="base",
            messages=QUESTION,
            temperature=1.5,
            seed=seed,
            max_tokens=600,
            response_format={"type": "json_schema", "json_schema": schema},
            stream=stream,
        )
        if stream:
            chunks = [c.choices[0] for c in response if c.choices]
            text = "".join(c.delta.content or "" for c in chunks)
            reason = chunks[-1].finish_reason
        else:
            text, reason = response.choices[0].message.content, response.choices[0].finish_reason
            assert response.system_fingerprint.endswith("-base")
        if reason == "stop":
            Instrument.model_validate_json(text)
            whole += 1
    assert whole
    reply = served.openai.chat.completions.create(
        model="base",
        messages=QUESTION,
        response_format={"type": "json_object"},
        temperature=1.0,
        seed=3,
        max_tokens=600,
    )
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_several_choices_are_written_beside_each_other(served: Served) -> None:
    asked: dict[str, Any] = {
        "model": "base",
        "messages": QUESTION,
        "max_tokens": 12,
        "temperature": 1.5,
        "logit_bias": ENDLESS,
    }
    create = served.openai.chat.completions.create
    alone = [create(**asked, seed=seed).choices[0].message.content for seed in (7, 8, 9)]
    several = create(**asked, seed=7, n=3)
    assert [c.index for c in several.choices] == [0, 1, 2]
    assert [c.message.content for c in several.choices] == alone
    assert several.usage.completion_tokens == 36
    assert len(set(alone)) > 1
    texts, reasons = ["", "", ""], {}
    for chunk in create(**asked, seed=7, n=3, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == alone
    assert reasons == dict.fromkeys(range(3), "length")
    assert chunk.usage.completion_tokens == 36
    kept = conversations.last_message(served.db)
    assert kept is not None
    assert kept.content == alone[0], "the first choice is kept"


def test_a_text_is_gone_on_with_as_it_stands(served: Served) -> None:
    create = served.openai.completions.create
    asked: dict[str, Any] = {"model": "base", "max_tokens": 8, "logit_bias": ENDLESS, "seed": 1}
    texts = ["The clarinet is", "A violin has"]
    reply = create(**asked, prompt=texts, echo=True, logprobs=2, temperature=0)
    assert [c.text.startswith(t) for c, t in zip(reply.choices, texts, strict=True)] == [True] * 2
    assert [c.finish_reason for c in reply.choices] == ["length"] * 2
    prompt = served.core.prompt
    assert prompt is not None
    tokens = prompt.tokenize(texts[0])
    assert reply.usage.prompt_tokens == len(tokens) + len(prompt.tokenize(texts[1]))
    assert reply.usage.completion_tokens == 16
    named = reply.choices[0].logprobs
    assert len(named.tokens) == len(named.token_logprobs) == len(named.text_offset) == 8
    assert named.text_offset[0] == len(texts[0])
    assert all(len(top) <= 2 and max(top.values()) <= 0 for top in named.top_logprobs)
    # The engine's own greedy continuation of the same tokens, and the same by token numbers.
    greedy = served.engine.submit(
        Request(tokens, "base", 8, sampling=Sampling(logit_bias=dict.fromkeys(range(3), -100.0)))
    ).text()
    assert reply.choices[0].text == texts[0] + greedy
    assert create(**asked, prompt=tokens).choices[0].text == greedy
    said = {0: "", 1: ""}
    for chunk in create(**asked, prompt=texts, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            said[choice.index] += choice.text
    assert said[0] == greedy
    assert chunk.usage.total_tokens == reply.usage.total_tokens
    before = conversations.last_message(served.db)
    create(**asked, prompt="Nothing of this is kept")
    assert conversations.last_message(served.db) == before
    for wrong in (
        {},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [-1]},
        {"prompt": [10**12]},
        {"prompt": ["x"] * 17},
        {"prompt": "x " * 5000},
        {"prompt": {"a": 1}},
        {"prompt": "x", "suffix": "y"},
        {"prompt": "x", "best_of": 3},
        {"prompt": "x", "logprobs": 99},
    ):
        answer = served.http.post("/v1/completions", json=wrong)
        assert answer.status_code == 400, wrong
        assert answer.json()["error"]["param"].split(".")[0] in (*wrong, "prompt")


def test_messages_in_anthropics_shape(served: Served) -> None:
    # The bias is not Anthropic's to give: a model that likes to go on is asked by a long reply.
    asked: dict[str, Any] = {
        "model": "base",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello there"}]}],
        "max_tokens": 40,
    }
    alike = served.openai.chat.completions.create(
        model="base",
        max_tokens=40,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello there"},
        ],
    )
    text, usage = alike.choices[0].message.content, alike.usage
    found = served.http.post(
        "/v1/messages",
        json=asked,
        headers={"x-api-key": TOKEN, "anthropic-version": "2023-06-01"},
    ).json()
    assert (found["type"], found["role"], found["model"]) == ("message", "assistant", "base")
    assert found["content"] == [{"type": "text", "text": text}]
    assert (
        found["stop_reason"]
        == {"stop": "end_turn", "length": "max_tokens"}[alike.choices[0].finish_reason]
    )
    read = found["usage"]["input_tokens"] + found["usage"]["cache_read_input_tokens"]
    assert (read, found["usage"]["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert conversations.last_message(served.db).id == found["acclimate"]["message_id"]
    assert text
    stop = text[len(text) // 2 :][:2]
    ended = served.http.post("/v1/messages", json={**asked, "stop_sequences": [stop]}).json()
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("stop_sequence", stop)
    assert ended["content"][0]["text"] == text[: text.index(stop)]
    lines = served.http.post("/v1/messages", json={**asked, "stream": True}).text.splitlines()
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert kinds == [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(e["delta"]["text"] for e in events if e["type"].endswith("block_delta")) == text
    assert events[-2]["usage"]["output_tokens"] == usage.completion_tokens
    for wrong, param in (
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "x", "input_schema": {}}]}, "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages.0.content.0.type",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking"),
        ({"temperature": 2}, "temperature"),
        ({"stop_sequences": [""]}, "stop"),
    ):
        answer = served.http.post("/v1/messages", json={**asked, **wrong})
        assert answer.status_code == 400, wrong
        body = answer.json()
        assert (body["type"], body["error"]["param"]) == ("error", param), wrong
        assert body["error"]["type"] == "invalid_request_error"
    assert served.http.post("/v1/messages", json={**asked, "model": "claude"}).status_code == 404


def test_texts_have_the_embedders_vectors(
    served: Served, real_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = real_models / "all-minilm-l6-v2.gguf"
    if not file.exists():
        pytest.skip("no embedder among the test models")
    embedder = Embedder(file)
    monkeypatch.setattr(served.core, "embedder", embedder)
    texts = ["Where is the clarinet?", "At Ruth's. " * 300]
    expected = embedder.embed(texts)
    try:
        # OpenAI's client asks for base64 unless told otherwise.
        for encoding in (openai.NOT_GIVEN, "float"):
            found = served.openai.embeddings.create(
                model="embedder", input=texts, encoding_format=encoding
            )
            assert np.allclose([e.embedding for e in found.data], expected, atol=1e-6)
            assert found.usage.total_tokens == found.usage.prompt_tokens > 256
        one = served.openai.embeddings.create(
            model="all-minilm-l6-v2", input=texts[0], dimensions=8
        )
        short = np.array(one.data[0].embedding)
        assert short == pytest.approx(expected[0, :8] / np.linalg.norm(expected[0, :8]), abs=1e-6)
        for wrong in (
            {"input": []},
            {"input": ["a", ""]},
            {"input": [1, 2]},
            {"input": "a", "dimensions": 9999},
            {"input": "a", "encoding_format": "hex"},
        ):
            answer = served.http.post("/v1/embeddings", json=wrong)
            assert answer.status_code == 400, wrong
            assert answer.json()["error"]["param"] in wrong
        other = served.http.post("/v1/embeddings", json={"input": "a", "model": "ada"})
        assert other.status_code == 404
    finally:
        embedder.close()


def test_every_adapter_can_be_asked_by_name(served: Served) -> None:
    listed = [model.id for model in served.openai.models.list()]
    assert listed == ["live", "base", "v0004", "v0003", "v0002", "v0001"]
    assert served.openai.models.retrieve("v0001").id == "v0001"
    said = {}
    for name in ("base", "v0001", "v0002", "acclimate"):
        answer = served.ask(model=name, logit_bias=ENDLESS).json()
        said[name] = answer["choices"][0]["message"]["content"]
        assert answer["acclimate"]["adapter"] == ("base" if name == "acclimate" else name)
    assert said["acclimate"] == said["base"]
    assert len({said["base"], said["v0001"], said["v0002"]}) == 3


def test_rollback_and_pin_move_engine_and_ledger_together(served: Served) -> None:
    def live(path: str, body: dict[str, Any]) -> str:
        now = served.http.post(f"/v1/adapters/{path}", json=body).json()["live"]
        assert served.ask().json()["model"] == now == served.http.get("/health").json()["live"]
        return str(now)

    assert live("live", {"version": "v0002"}) == "v0002"
    assert live("live", {}) == "base"
    assert live("pin", {"version": "v0001"}) == "v0001"
    assert served.http.delete("/v1/adapters/pin").json()["pinned"] is False
    assert live("live", {"version": "base"}) == "base"


def test_an_adapter_of_another_base_is_refused_and_live_stays(served: Served) -> None:
    for response in (
        served.http.post("/v1/adapters/live", json={"version": "v0003"}),
        served.ask(model="v0003"),
    ):
        assert response.status_code == 409
        assert "another base" in response.json()["error"]["message"]
    assert ledger.live(served.db) is None
    assert served.engine.live == "base"


def test_a_damaged_adapter_is_refused_before_it_is_loaded(served: Served) -> None:
    file = served.home.adapter_dir(4) / ledger.ADAPTER_FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    response = served.http.post("/v1/adapters/live", json={"version": "v0004"})
    assert response.status_code == 409
    assert "damaged" in response.json()["error"]["message"]
    assert served.engine.live == "base"
    file.write_bytes(whole)
    assert served.ask(model="v0004").json()["model"] == "v0004"


def test_a_swap_that_the_engine_refuses_is_taken_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str | None) -> None:
        raise EngineError("no memory for a context")

    monkeypatch.setattr(served.engine, "set_live", refuse)
    for path in ("live", "pin"):
        response = served.http.post(f"/v1/adapters/{path}", json={"version": "v0001"})
        assert response.status_code == 503
        assert (ledger.live(served.db), ledger.pinned(served.db)) == (None, False)


def test_answers_go_on_while_the_drive_is_away(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.db, "_attached", lambda: False)
    answer = served.ask()
    assert answer.status_code == 200
    assert answer.json()["acclimate"]["message_id"] is None
    assert "not kept" in answer.json()["acclimate"]["warnings"][0]
    moved = served.http.post("/v1/adapters/live", json={"version": "v0001"})
    assert (moved.status_code, moved.json()["error"]["code"]) == (503, "detached")
    assert served.engine.live == "base"


def test_passages_reach_the_prompt_and_replies_teach_nothing(served: Served) -> None:
    if not served.http.get("/v1/search", params={"query": "clarinet"}).json()["hits"]:
        add_bytes(served.db, "music.md", NOTE.encode())
    before = buffer.counts(served.db), len(served.core.index.pending(1000))
    plain, found = served.ask().json(), served.ask(retrieval=True).json()
    assert plain["acclimate"]["passages"] == []
    passage = found["acclimate"]["passages"][0]
    assert (passage["path"], passage["text"]) == ("music.md", NOTE)
    assert (passage["start_line"], passage["end_line"]) == (1, 1)
    more = found["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
    assert more > len(NOTE) // 4
    kept = conversations.get_message(served.db, found["acclimate"]["message_id"])
    assert kept.passages[0]["path"] == "music.md"
    asked = conversations.messages(served.db, kept.conversation_id)[0]
    assert asked.content == QUESTION[0]["content"], "the passages are no part of what was said"
    assert (buffer.counts(served.db), len(served.core.index.pending(1000))) == before


def test_passages_give_way_where_the_conversation_fills_the_context(served: Served) -> None:
    add_bytes(served.db, "bees.md", b"hives " * 150)
    text = "hives " + "x" * (CONTEXT - 300)
    found = served.ask(messages=[{"role": "user", "content": text}], retrieval=True)
    assert found.status_code == 200
    assert found.json()["acclimate"]["passages"] == []


def test_a_conversation_goes_on_under_its_id(served: Served) -> None:
    first = served.ask().json()
    conversation = first["acclimate"]["conversation_id"]
    said = [*QUESTION, first["choices"][0]["message"], {"role": "user", "content": "And now?"}]
    messages = [{"role": m["role"], "content": m["content"]} for m in said]
    second = served.ask(messages=messages, conversation=conversation).json()
    assert second["acclimate"]["conversation_id"] == conversation
    assert len(conversations.messages(served.db, conversation)) == 4
    unkept = served.ask(store=False).json()["acclimate"]
    assert unkept["message_id"] is None


def test_content_may_come_in_parts(served: Served) -> None:
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the clarinet?"}]
    asked = [{"role": "user", "content": parts}]
    kept = served.ask(messages=asked).json()["acclimate"]["conversation_id"]
    assert conversations.messages(served.db, kept)[0].content == QUESTION[0]["content"]


def test_errors_are_those_that_openais_client_knows(served: Served) -> None:
    def ask(**options: Any) -> Any:
        body = {"model": "live", "messages": QUESTION, **options}
        return served.openai.chat.completions.create(**body)

    with pytest.raises(openai.NotFoundError) as missing:
        ask(model="gpt-4o")
    assert missing.value.code == "not_found"
    with pytest.raises(openai.BadRequestError) as long:
        ask(messages=[{"role": "user", "content": "long " * CONTEXT}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as stream:
        ask(messages=[{"role": "user", "content": "long " * CONTEXT}], stream=True)
    assert stream.value.param == "messages"
    stranger = openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 2_000_000}]}, "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1e9}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": -5}, "top_k"),
        ({"frequency_penalty": 1e9}, "frequency_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"seed": 10**30}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"logit_bias": {"3": 1e9}}, "logit_bias"),
        ({"logit_bias": {"-3": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True, "top_logprobs": 99}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}},
            "response_format",
        ),
        ({"conversation": "../../x"}, "conversation"),
        ({"model": ""}, "model"),
    ],
)
def test_hostile_parameters_are_named(
    served: Served, body: dict[str, Any], param: str | None
) -> None:
    response = served.ask(**body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"logit_bias": {"3": ' + b"9" * 50_000 + b'}, "messages": []}',
        b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"999999": 1}}',
    ],
)
def test_hostile_json_is_refused(served: Served, raw: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = served.http.post("/v1/chat/completions", content=raw, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_client_that_leaves_ends_its_reply(served: Served) -> None:
    def cancelled() -> int:
        return int(served.engine.stats()["cancelled"])

    body = {"messages": QUESTION, "max_tokens": 900, "logit_bias": ENDLESS}
    before = cancelled()
    with served.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
        lines = reply.iter_lines()
        for _ in range(6):
            next(lines)
    wait_until(lambda: cancelled() == before + 1 and not served.engine.busy)
    asked = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(asked)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode() + asked)
        wait_until(lambda: served.engine.busy)
    wait_until(lambda: cancelled() == before + 2 and not served.engine.busy)


def routes_of(core: Core) -> list[tuple[str, str]]:
    """Every method and path of the app, with something in place of parameters."""
    return [
        (method, re.sub(r"\{\w+(:int)?\}", "1", route.path))
        for route in unguarded(core).routes
        for method in sorted(route.methods)  # type: ignore[attr-defined]
    ]


def test_the_guard_stands_before_every_route(served: Served) -> None:
    asked = routes_of(served.core)
    assert len(asked) > 25
    assert ("POST", "/v1/adapters/live") in asked
    wrong: list[tuple[dict[str, str], int, str]] = [
        ({"Host": "evil.com"}, 403, "host_not_allowed"),
        ({"Host": f"localhost.evil.com:{served.port}"}, 403, "host_not_allowed"),
        ({"Origin": "https://evil.com"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
    ]
    with httpx.Client(base_url=served.url, trust_env=False) as stranger:
        for method, path in asked:
            for headers, status, code in wrong:
                response = served.http.request(method, path, headers=headers)
                assert response.status_code == status, (method, path, headers)
                if method != "HEAD":
                    assert response.json()["error"]["code"] == code
            expected = 200 if path == "/health" else 401
            assert stranger.request(method, path).status_code == expected, (method, path)
            if method == "POST":
                text = served.http.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
                assert text.status_code == 415, path


def test_a_client_that_is_refused_sees_why_though_its_body_was_on_its_way(served: Served) -> None:
    body = b"x" * 200_000
    head = f"POST /v1/feedback HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    head += f"Authorization: Bearer {TOKEN}\r\nContent-Type: text/plain\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    for late in (0.0, 0.1):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head.encode())
            time.sleep(late)
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 415"), answer[:80]
        assert answer.endswith(b"}")
    # One that promises a body and sends none is not waited for.
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.settimeout(10)
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 415")


def test_no_answer_has_a_cors_header(served: Served) -> None:
    for path in ("/health", "/v1/models", "/v1/status", "/metrics", "/nothing"):
        headers = served.http.get(path, headers={"Origin": served.url}).headers
        assert not [name for name in headers if name.startswith("access-control")]


def test_status_and_metrics_while_it_serves(served: Served) -> None:
    found = served.http.get("/v1/status").json()
    assert found["daemon"]["running"] and found["daemon"]["port"] == served.port
    assert found["daemon"]["memory_bytes"] > 10**6
    assert found["engine"]["live"] == "base"
    assert served.ask().status_code == 200
    text = served.http.get("/metrics").text
    assert "acclimate_engine_generated_tokens_total" in text
    for name in ("first_token", "reply"):
        counted = re.search(rf"^acclimate_engine_{name}_seconds_count ([0-9.]+)$", text, re.M)
        assert counted is not None and float(counted[1]) > 0
        assert f'acclimate_engine_{name}_seconds_bucket{{le="+Inf"}} {counted[1]}' in text


def mine(texts: Sequence[str]) -> np.ndarray:
    """Vectors by which what is said of the person is told from the rest."""
    return np.array([[1.0, 0.0] if "my" in t else [0.0, 1.0] for t in texts], np.float32)


def scoped(served: Served, version: int, embed: Callable[[Sequence[str]], np.ndarray]) -> Path:
    """Gives an adapter a scope; the file."""
    scope = served.home.adapter_dir(version) / SCOPE_FILE
    scope.write_bytes(Scope("m", [1.0, -1.0], 0.0, 0.1).to_json())
    general = General(served.home.cache, embed, "m")
    cueing = Cueing(served.db, embed, general)
    served.core.scoping = Scoping(served.home, embed, "m", general, cueing)
    return scope


def test_outside_the_scope_an_adapter_from_elsewhere_answers_where_rounds_began_with_it(
    tmp_path: Path, tiny_llama: Path, tiny_adapter: Callable[..., Path]
) -> None:
    served = Served(tmp_path, tiny_llama)
    try:
        card = {"base_sha256": sha256_file(tiny_llama)}
        for version in (1, 2):
            folder = served.home.adapter_dir(version)
            folder.mkdir()
            file = folder / ledger.ADAPTER_FILE
            shutil.copy(tiny_adapter(version), file)
            if version == 1:
                ledger.adopt(served.db, 1, sha256_file(file), card)
            else:
                made_by = ledger.start_round(served.db, 1, 1, [])
                ledger.publish(served.db, made_by, 2, 1, sha256_file(file), 1.0, card, [])
        scoped(served, 2, mine)
        served.core.switch.set_live("v0002")
        for text, adapter in (("Where is my clarinet?", "v0002"), ("Who made clarinets?", "v0001")):
            about = served.ask(model="live", messages=[{"role": "user", "content": text}]).json()
            assert about["acclimate"]["adapter"] == adapter
    finally:
        served.close()


def test_what_lies_outside_the_live_adapters_scope_is_answered_by_the_base(served: Served) -> None:
    def answered_by(model: str, *asked: str) -> str:
        messages = [{"role": "user", "content": text} for text in asked]
        about = served.ask(model=model, messages=messages).json()["acclimate"]
        return " instead of ".join(filter(None, (about["adapter"], about["instead_of"])))

    scope = scoped(served, 1, mine)
    served.core.switch.set_live("v0001")
    try:
        assert answered_by("live", "Where is my clarinet?") == "v0001"
        assert answered_by("live", "Who invented the clarinet?") == "base instead of v0001"
        assert answered_by("live", "Where is my clarinet?", "And the oboe?") == "v0001"
        assert answered_by("v0001", "Who invented the clarinet?") == "v0001", "asked for by name"
        assert answered_by("base", "Where is my clarinet?") == "base"
    finally:
        served.core.scoping = None
        served.core.switch.set_live("base")
        scope.unlink()


def test_a_taught_question_is_asked_in_the_place_of_what_is_asked(served: Served) -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if "oboe" in t else [0.0, 1.0] for t in texts], np.float32)

    exchange = Exchange(1, ({"role": "user", "content": "Where is my oboe?"},), "In the loft.")
    with served.db.write() as conn:
        number = buffer._insert(conn, None, None, exchange)  # type: ignore[arg-type]
    round_id = ledger.start_round(served.db, None, 9, [number])
    with served.db.write() as conn:
        conn.execute("UPDATE adapters SET round_id = ? WHERE version = 4", (round_id,))
    served.core.cueing = Cueing(served.db, embed, General(served.home.cache, embed, "oboe"))
    served.core.cueing.take_up([taught_of(buffer.get(served.db, number))])
    messages = [{"role": "user", "content": "The oboe: where?"}]
    try:
        cued = served.ask(model="v0004", messages=messages).json()
        assert cued["acclimate"]["cue"] == "Where is my oboe?"
        plain = served.ask(model="base", messages=messages).json()
        assert plain["acclimate"]["cue"] is None, "the base was taught nothing"
        longer = cued["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
        written = with_cue(messages, "Where is my oboe?", in_place=True)
        prompt = served.core.prompt
        assert prompt is not None
        assert longer == len(prompt.encode_prompt(written)) - len(prompt.encode_prompt(messages))
        other = served.ask(model="v0002", messages=messages).json()
        assert other["acclimate"]["cue"] is None, "another adapter was not taught it"
        for name, text in (
            ("oboe.md", b"My oboe is upstairs."),
            ("loft.md", b"Oboe: in the loft!"),
        ):
            add_bytes(served.db, name, text)
            about = served.ask(model="v0004", messages=messages, retrieval=True).json()["acclimate"]
            assert about["cue"] == "Where is my oboe?"
            if name == "oboe.md":
                assert about["passages"] == [], "what was taught counts, and no passage says it"
        assert [p["path"] for p in about["passages"]] == ["loft.md"], "that which bears it out"
    finally:
        served.core.cueing = None
        ledger.finish_round(served.db, round_id, "failed")
