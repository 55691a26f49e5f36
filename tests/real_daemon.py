"""Real daemon processes over homes on a tiny random base, for tests and for benchmarks/kills.py.

Ends and kills by pid only; knows HTTP and run.json, not the code that serves.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import tiny

from acclimate.daemon import models
from acclimate.store.files import Home

EMBEDDER = "all-minilm-l6-v2"
START_SECONDS = 60.0
# A round takes a second beside the imports of its worker, and what it learned passes the gate.
# What a random model loses in general is not the matter, so that its limits are wide.
CONFIG = """
[server]
port = {port}
[models]
base = "tiny"
embedder = "{embedder}"
[engine]
context_tokens = 2048
sequences = 2
threads = 1
[retrieval]
enabled = false
[watch]
settle_seconds = 0.1
[learn]
max_new = 12
replay = 4
threads = 1
resume_after_seconds = 0.0
drift = 1.0
exposures = {exposures}
learning_rate = 0.005
[schedule]
enabled = false
[log]
level = "debug"
"""


def make_home(root: Path, embedders: Path, *, exposures: int = 10) -> Home:
    """A home on a tiny base, its models pulled as a person pulls them; nothing was learned yet."""
    home = Home.create(root)
    base = tiny.make_model(root.parent / "tiny.gguf")
    settle(home, exposures=exposures)

    def silent(*_: object) -> None:
        pass

    models.pull(home, str(base), silent)
    models.pull(home, EMBEDDER, silent, embedders)
    models.use(home, "tiny")
    return home


def settle(home: Home, **values: Any) -> int:
    """Writes the home's settings with a free port; the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    chosen = {"port": port, "embedder": EMBEDDER, "exposures": 10, **values}
    home.config.write_text(CONFIG.format(**chosen), encoding="utf-8")
    return port


def fact(name: object) -> str:
    """One line of a chat file: something that a tiny model learns, told apart by its name."""
    question, answer = f"What is my dog {name} called?", f"Rex {name}."
    return json.dumps({"instruction": question, "output": answer})


class RealDaemon:
    """One daemon process and a client for it."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        # What the process says goes to a file, not to a pipe that somebody would have to empty.
        self.said = home.with_name(home.name + ".stderr")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "acclimate.daemon", "--home", str(home), "run"],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said.open("ab"),
        )
        self.client = httpx.Client(timeout=60, trust_env=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ready(self) -> bool:
        """Waits until it serves; False when it ended before. Raises TimeoutError."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            try:
                run = json.loads((self.home / "run.json").read_bytes())
                if run["pid"] == self.pid:
                    self.client.base_url = httpx.URL(f"http://127.0.0.1:{run['port']}")
                    token = (self.home / "token").read_text().strip()
                    self.client.headers["Authorization"] = f"Bearer {token}"
                    if self.client.get("/health").json()["pid"] == self.pid:
                        return True
            except (OSError, ValueError, httpx.HTTPError):
                pass
            time.sleep(0.03)
        raise TimeoutError(f"no daemon within {START_SECONDS:.0f} s; see {self.said}")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """JSON in, JSON out. Raises httpx.HTTPStatusError."""
        response = self.client.request(method, path, json=body if method != "GET" else None)
        if response.is_error:
            text = response.text[:500]
            raise httpx.HTTPStatusError(text, request=response.request, response=response)
        return response.json()

    def add(self, *names: object) -> Any:
        """Facts by these names, as one chat file."""
        text = "\n".join(fact(name) for name in names)
        return self.call("POST", "/v1/examples", {"name": f"{names[0]}.jsonl", "text": text})

    def ask(
        self,
        model: str = "live",
        tokens: int = 8,
        text: str = "What is my dog called?",
        **more: Any,
    ) -> Any:
        """One reply at temperature 0."""
        return self.call("POST", "/v1/chat/completions", self._question(model, tokens, text, more))

    def stream(
        self, model: str = "live", tokens: int = 900, text: str = "Go on", **more: Any
    ) -> Iterator[dict[str, Any]]:
        """The events of a streamed reply, as they come."""
        body = self._question(model, tokens, text, more) | {"stream": True}
        with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])

    def _question(self, model: str, tokens: int, text: str, more: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "user", "content": text}
        return {
            "model": model,
            "max_tokens": tokens,
            "temperature": 0,
            "messages": [message],
        } | more

    def wait(self, round_id: int, seconds: float = 120.0) -> Any:
        """The round when it has ended. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.call("GET", f"/v1/rounds/{round_id}")
            if found["state"] != "running":
                return found
            time.sleep(0.05)
        raise TimeoutError(f"round {round_id} runs since {seconds:.0f} s")

    def learn(self) -> Any:
        """One round, to its end."""
        return self.wait(self.call("POST", "/v1/rounds", {})["round"])

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float) -> int:
        """SIGTERM; its exit code. Raises subprocess.TimeoutExpired."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()
