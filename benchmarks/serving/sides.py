"""The two servers, ours and the peer's, as processes of their own that are asked alike.

What differs between them (how they are started, how a reply is kept from ending) is here alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from acclimate.daemon import models
from acclimate.store.files import Home
from serving.asks import Failed, Reply, ask

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.005
BASE, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
# Nothing starts by itself while something is measured.
CONFIG = """\
[server]
port = {port}
[engine]
context_tokens = {context_tokens}
sequences = {sequences}
threads = {threads}
[probation]
enabled = false
[schedule]
enabled = false
"""


class Side:
    """A server process and a client for it."""

    name = ""
    process: subprocess.Popen[bytes]
    client: httpx.Client

    def _serves(self, address: str) -> None:
        """Waits until /health answers; ends the process where it does not. Raises Failed."""
        self.client = httpx.Client(
            base_url=address,
            headers={"accept-encoding": "identity"},
            timeout=600,
            trust_env=False,
            # The peer closes its connection after a stream: a new one for every request, to both.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if _listens(address):  # asked first, since it takes nothing from who is starting
                with contextlib.suppress(httpx.TransportError):
                    if self.client.get("/health").status_code == 200:
                        return
            time.sleep(POLL_SECONDS)
        self.close()
        raise Failed(f"{self.name} does not serve")

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self, prompt: str | Sequence[int], tokens: int, **more: Any) -> Reply:
        """What goes on from a text: exactly so many tokens, the likeliest unless `more` says so."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, **self.endless, **more}
        reply = ask(self.client, "/v1/completions", body)
        if reply.tokens != tokens:
            raise Failed(f"{self.name} made {reply.tokens} tokens of {tokens}")
        return reply

    def chat(self, messages: Sequence[Mapping[str, str]], tokens: int, **more: Any) -> Reply:
        """The reply to a conversation."""
        body = {"messages": list(messages), "max_tokens": tokens, "temperature": 0}
        return ask(self.client, "/v1/chat/completions", {**body, **self.plain, **more})

    # What a body has besides, so that a text does not end, and that a chat is nothing but one.
    endless: Mapping[str, Any] = {}
    plain: Mapping[str, Any] = {}

    def close(self) -> None:
        """Ends the process."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _listens(address: str) -> bool:
    url = httpx.URL(address)
    with socket.socket() as tried:
        return tried.connect_ex((url.host, url.port)) == 0


class Ours(Side):
    """The daemon on a home that is ready."""

    name = "ours"
    plain: Mapping[str, Any] = {"retrieval": False, "store": False}

    def __init__(self, home: Home, ends: Sequence[int], model: str = "live") -> None:
        self.endless = {"model": model, "logit_bias": {str(token): -100 for token in ends}}
        config = home.config.read_text("utf-8")
        port = int(next(line for line in config.splitlines() if line.startswith("port"))[6:])
        with (home.log / "stderr.txt").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "acclimate.daemon", "--home", str(home.root), "run"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        self._serves(f"http://127.0.0.1:{port}")
        token = (home.root / "token").read_text().strip()
        self.client.headers["authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """JSON in, JSON out. Raises Failed."""
        response = self.client.request(method, path, json=body if method != "GET" else None)
        if response.is_error:
            raise Failed(f"{method} {path}: {response.text[:300]}")
        return response.json()


class Peer(Side):
    """llama.cpp's own server; `python` is of an environment that has xllamacpp."""

    name = "peer"
    endless: Mapping[str, Any] = {"ignore_eos": True}

    def __init__(
        self, python: Path, model: Path, *, context_tokens: int, sequences: int, threads: int
    ) -> None:
        script = Path(__file__).with_name("peer.py")
        numbers = (context_tokens, sequences, threads)
        self.process = subprocess.Popen(
            [str(python), str(script), str(model), *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while line and not line.startswith(b"{"):
            line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the peer ended with {self.process.wait()}")
        self.about: dict[str, str] = json.loads(line)
        self._serves(self.about["address"])


def make_home(root: Path, models_folder: Path, **engine: int) -> Home:
    """A home with the default models and, where they are there, what a round measures once."""
    home = Home.create(root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    home.config.write_text(CONFIG.format(port=port, **engine), "utf-8")

    def silent(*_: object) -> None:
        pass

    for name in (BASE, EMBEDDER):
        models.pull(home, name, silent, models_folder)
    if (models_folder / "anchors").is_dir():
        shutil.copytree(models_folder / "anchors", home.models / "anchors")
    return home
