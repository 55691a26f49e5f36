"""Programs that people have, as they are installed, against the server: curl and llm."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import QUESTION, TOKEN, Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("clients"), tiny_llama)
    yield served
    served.close()


def expected(served: Served) -> str:
    reply = served.ask(model="base", max_tokens=12).json()
    return str(reply["choices"][0]["message"]["content"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl(served: Served) -> None:
    def curl(path: str, body: dict[str, object], *more: str) -> str:
        command = ["curl", "--silent", "--no-buffer", *more, f"{served.url}{path}"]
        command += ["-H", f"Authorization: Bearer {TOKEN}", "-H", "content-type: application/json"]
        command += ["-d", json.dumps(body)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    asked = {"model": "base", "messages": QUESTION, "max_tokens": 12}
    text = expected(served)
    whole = json.loads(curl("/v1/chat/completions", asked))
    assert whole["choices"][0]["message"]["content"] == text
    lines = curl("/v1/chat/completions", {**asked, "stream": True}).splitlines()
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(piece.get("content", "") for piece in pieces) == text
    options = {"num_predict": 12}
    of_ollama = curl("/api/chat", {"model": "base", "messages": QUESTION, "options": options})
    parts = [json.loads(line) for line in of_ollama.splitlines()]
    assert "".join(part["message"]["content"] for part in parts) == text
    refused = curl("/v1/chat/completions", asked, "-H", "Origin: https://example.org")
    assert json.loads(refused)["error"]["code"] == "origin_not_allowed"


def test_llm(served: Served, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        "- model_id: acclimate\n"
        "  model_name: base\n"
        f"  api_base: {served.url}/v1\n"
        "  api_key_name: acclimate\n"
    )
    (tmp_path / "keys.json").write_text(json.dumps({"acclimate": TOKEN}))

    def llm(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("llm")), *arguments]
        environ = {**os.environ, "LLM_USER_PATH": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    question = QUESTION[0]["content"]
    options = ["-m", "acclimate", "-o", "max_tokens", "12", "-o", "temperature", "0"]
    text = expected(served)
    # Streamed, as it is by default, then whole; it ends its output with a line's end.
    assert llm(*options, question).rstrip("\n") == text.rstrip("\n")
    assert llm(*options, "--no-stream", question).rstrip("\n") == text.rstrip("\n")
