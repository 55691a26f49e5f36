"""The HTTP side of a daemon on a tiny random model, over a real socket; for tests of its routes."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from acclimate.adapters.prompt import Prompt
from acclimate.daemon.app import listen
from acclimate.daemon.config import Config, RetrievalConfig
from acclimate.daemon.core import Core
from acclimate.daemon.embed import Embedder
from acclimate.daemon.engine import Engine
from acclimate.daemon.server import create_app
from acclimate.daemon.switch import Switch
from acclimate.store.db import Db
from acclimate.store.files import Home, sha256_file
from acclimate.store.index import Index

TOKEN = "t" * 43
CONTEXT = 1024
QUESTION = [{"role": "user", "content": "Where is the clarinet?"}]


class Served:
    """A core with an engine, and the socket that it answers on."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        prompt: Prompt | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.home = Home.create(folder / "home")
        self.db = Db(self.home.db)
        self.engine = Engine(model, context_tokens=CONTEXT, threads=1)
        self.engine.start()
        self.core = Core(
            self.home,
            Config(retrieval=RetrievalConfig(enabled=False)),
            self.db,
            Index(self.db, self.home.index),
            engine=self.engine,
            prompt=prompt or Prompt.from_gguf(model),
            switch=Switch(self.home, self.db, self.engine, sha256_file(model)),
            embedder=embedder,
        )
        listener = listen(0)
        self.port = int(listener.getsockname()[1])
        app = create_app(self.core, token=TOKEN, port=self.port)
        self.server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False
        )
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0)
        wait_until(lambda: self.server.started)

    def close(self) -> None:
        self.openai.close()
        self.http.close()
        self.server.should_exit = True
        self.thread.join()
        self.engine.stop()
        self.db.close()

    def ask(self, **body: Any) -> httpx.Response:
        return self.http.post(
            "/v1/chat/completions", json={"messages": QUESTION, "max_tokens": 8, **body}
        )


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not happen in time")
        time.sleep(0.01)
