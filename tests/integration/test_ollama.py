"""Ollama's routes on a tiny random model, over a real socket, with Ollama's own client."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest
from served import QUESTION, TOKEN, Served
from templates import TAGGED

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.embed import Embedder
from acclimate.daemon.ollama import ChatBody
from acclimate.store import conversations, ledger
from acclimate.store.files import sha256_file

FEW = {"num_predict": 12}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Path,
    tiny_adapter: Callable[..., Path],
    real_models: Path,
) -> Iterator[Served]:
    plain = Prompt.from_gguf(tiny_llama)
    prompt = Prompt(plain._vocab, TAGGED, plain.architecture, plain)
    embedder = Embedder(real_models / "all-minilm-l6-v2.gguf")
    served = Served(tmp_path_factory.mktemp("ollama"), tiny_llama, prompt, embedder)
    round_id = ledger.start_round(served.db, None, 1, [])
    folder = served.home.adapter_dir(1)
    folder.mkdir()
    file = folder / ledger.ADAPTER_FILE
    shutil.copy(tiny_adapter(1), file)
    card = {"base_sha256": sha256_file(tiny_llama)}
    ledger.publish(served.db, round_id, 1, None, sha256_file(file), 1.0, card, [])
    ledger.set_live(served.db, None, "rollback")
    yield served
    served.close()
    embedder.close()


@pytest.fixture(scope="module")
def client(served: Served) -> ollama.Client:
    return ollama.Client(
        host=served.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
    )


def openais(served: Served, **more: Any) -> Any:
    asked = {"model": "base", "messages": QUESTION, "max_tokens": 12, "temperature": 0}
    return served.openai.chat.completions.create(**(asked | more))


def test_a_chat_says_what_openais_route_says(served: Served, client: ollama.Client) -> None:
    alike = openais(served)
    text, usage = alike.choices[0].message.content, alike.usage
    assert text
    whole = client.chat("base:latest", messages=QUESTION, options=FEW)
    assert (whole.message.role, whole.message.content) == ("assistant", text)
    assert (whole.done, whole.done_reason) == (True, alike.choices[0].finish_reason)
    counted = (whole.prompt_eval_count, whole.eval_count)
    assert counted == (usage.prompt_tokens, usage.completion_tokens)
    assert 0 < whole.eval_duration <= whole.total_duration
    *parts, last = client.chat("base", messages=QUESTION, options=FEW, stream=True)
    assert "".join(part.message.content for part in parts) == text
    assert not any(part.done for part in parts)
    assert (last.done, last.done_reason, last.message.content) == (True, whole.done_reason, "")
    assert last.eval_count == usage.completion_tokens


def test_what_was_said_is_kept_as_ever(served: Served, client: ollama.Client) -> None:
    reply = client.chat("v0001", messages=QUESTION, options=FEW)
    kept = conversations.last_message(served.db)
    assert (kept.content, kept.adapter) == (reply.message.content, "v0001")


def test_generate_asks_by_the_template_and_raw_does_not(
    served: Served, client: ollama.Client
) -> None:
    system = {"role": "system", "content": "Be brief."}
    alike = openais(served, messages=[system, *QUESTION])
    asked = client.generate("base", QUESTION[0]["content"], system="Be brief.", options=FEW)
    assert asked.response == alike.choices[0].message.content
    raw = client.generate("base", "The clarinet", raw=True, options=FEW)
    plain = served.openai.completions.create(
        model="base", prompt="The clarinet", max_tokens=12, temperature=0
    )
    assert raw.response == plain.choices[0].text
    streamed = client.generate("base", "The clarinet", raw=True, options=FEW, stream=True)
    assert "".join(part.response for part in streamed) == raw.response


def test_options_reach_the_sampler(served: Served, client: ollama.Client) -> None:
    options = {"num_predict": 12, "temperature": 1.5, "seed": 7, "top_k": 40, "stop": "zzz"}
    body = {"temperature": 1.5, "seed": 7, "top_k": 40}
    alike = served.ask(model="base", max_tokens=12, **body).json()
    found = client.chat("base", messages=QUESTION, options=options)
    assert found.message.content == alike["choices"][0]["message"]["content"]
    assert client.chat("base", messages=QUESTION, options={"num_predict": 3}).eval_count <= 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_form_is_kept_to(client: ollama.Client, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"day": {"enum": ["Mon", "Tue"]}},
        "required": ["day"],
    }
    found = client.chat("base", messages=QUESTION, format=schema, stream=stream)
    parts = found if stream else [found]
    text = "".join(part.message.content for part in parts)
    assert json.loads(text)["day"] in ("Mon", "Tue")


def weather(town: str) -> str:
    """What the weather is like.

    Args:
      town: where
    """
    return town


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_come_as_objects(
    client: ollama.Client, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ollama's clients cannot require a call, and a random model makes none by itself.
    ours = ChatBody.chat
    must = {"tool_choice": "required", "max_completion_tokens": 400}
    monkeypatch.setattr(ChatBody, "chat", lambda body: ours(body).model_copy(update=must))
    tool: dict[str, Any] = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"town": {"enum": ["Ulm"]}},
                "required": ["town"],
            },
        },
    }
    found = client.chat("base", messages=QUESTION, tools=[tool], stream=stream)
    parts = list(found) if stream else [found]
    (called,) = [part.message for part in parts if part.message.tool_calls]
    (call,) = called.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"town": "Ulm"})
    assert not any(part.message.content for part in parts)


def test_what_a_tool_said_is_shown(served: Served, client: ollama.Client) -> None:
    calls = [{"function": {"name": "weather", "arguments": {"town": "Ulm"}}}]
    told = [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "Rain.", "tool_name": "weather"},
    ]
    found = client.chat("base", messages=told, tools=[weather], options=FEW)
    prompt = served.core.prompt
    behind = prompt.render(
        [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"town": "Ulm"}}}],
            },
            {"role": "tool", "content": "Rain."},
        ]
    )
    assert found.prompt_eval_count > len(prompt.tokenize(behind))


def test_texts_have_vectors_of_unit_length(client: ollama.Client) -> None:
    found = client.embed("embedder", ["pitch raise", "the piano"])
    vectors = np.array(found.embeddings)
    assert vectors.shape == (2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    assert len(client.embed("embedder:latest", "one", dimensions=64).embeddings[0]) == 64


def test_models_are_listed_shown_and_counted(served: Served, client: ollama.Client) -> None:
    models = {model.model: model for model in client.list().models}
    assert set(models) == {"live:latest", "base:latest", "v0001:latest"}
    size = served.engine.model_path.stat().st_size
    assert {(model.size, len(model.digest)) for model in models.values()} == {(size, 64)}
    assert models["base:latest"].details.quantization_level == "F32"
    shown = client.show("v0001:latest")
    assert shown.details.family == shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 2048
    assert shown.capabilities == ["completion", "tools"]
    assert shown.template == TAGGED
    assert client.show("embedder").capabilities == ["embedding"]
    client.generate("v0001")  # brings it into memory
    running = {model.model: model for model in client.ps().models}
    assert "v0001:latest" in running
    assert running["v0001:latest"].context_length == served.engine.context_limit
    assert served.http.get("/api/version").json()["version"]
    assert served.http.head("/").status_code == 200


def test_an_empty_request_brings_a_model_into_memory(client: ollama.Client) -> None:
    assert client.chat("v0001").done_reason == "load"
    assert [part.done_reason for part in client.generate("v0001", stream=True)] == ["load"]
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("v0009")
    assert refused.value.status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "what"),
    [
        ("chat", {"model": "llama3", "messages": QUESTION}, 404, "llama3"),
        ("chat", {"messages": QUESTION}, 400, "model"),
        ("chat", {"model": "base", "messages": [{"role": "wizard"}]}, 400, "role"),
        ("chat", {"model": "base", "messages": QUESTION, "think": True}, 400, "think"),
        ("chat", {"model": "base", "messages": QUESTION, "options": {"top_p": 9}}, 400, "top_p"),
        ("chat", {"model": "base", "messages": QUESTION, "format": {"type": "x"}}, 400, "x"),
        ("generate", {"model": "base", "prompt": "x", "context": [1]}, 400, "context"),
        ("generate", {"model": "base", "prompt": "x", "images": ["aGk="]}, 400, "images"),
        ("generate", {"model": "base", "prompt": "x", "raw": True, "format": "json"}, 400, "raw"),
        ("generate", {"model": "base", "prompt": "x " * 5000}, 400, "tokens"),
        ("embed", {"model": "base", "input": "x"}, 404, "embedding"),
        ("embed", {"model": "embedder", "input": [""]}, 400, "empty"),
        ("show", {"model": "nobody"}, 404, "nobody"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_texts(
    served: Served, path: str, body: dict[str, Any], status: int, what: str, stream: bool
) -> None:
    answer = served.http.post(f"/api/{path}", json={**body, "stream": stream})
    assert (answer.status_code, what in answer.json()["error"]) == (status, True), answer.text


def test_without_the_token_nothing_is_answered(served: Served) -> None:
    with pytest.raises(ollama.ResponseError) as refused:
        ollama.Client(host=served.url, trust_env=False).list()
    assert refused.value.status_code == 401
