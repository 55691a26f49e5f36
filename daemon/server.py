"""The HTTP app over one core: routes, health, metrics, and the guard in front of them all.

No CORS, no pages, no documentation routes.
"""

import os

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from acclimate.daemon import (
    routes_adapters,
    routes_messages,
    routes_ollama,
    routes_openai,
    routes_own,
    routes_text,
)
from acclimate.daemon.core import Core
from acclimate.daemon.guard import Guard
from acclimate.daemon.metrics import Counted, Metrics
from acclimate.daemon.openapi import document
from acclimate.daemon.wire import Described, blocking, unrouted


def create_app(core: Core, *, token: str | None, port: int) -> Guard | Starlette:
    """The app; behind the guard wherever a socket is served, that is with a `token`.

    Without one it is for a command that calls it in its own process.
    """
    app = unguarded(core)
    if token is None:
        return app
    core.port = port
    return Guard(app, token, port)


def unguarded(core: Core) -> Starlette:
    """The app itself, whose routes a test walks."""
    metrics = Metrics(core)

    async def health(_request: Request) -> Response:
        # With an engine it asks nobody that could be waiting.
        state = core.health() if core.running else await blocking(core.health)
        return JSONResponse({**state, "pid": os.getpid()}, 200 if state["status"] == "ok" else 503)

    async def numbers(_request: Request) -> Response:
        return Response(await blocking(metrics.text), media_type=CONTENT_TYPE_LATEST)

    async def openapi(_request: Request) -> Response:
        return JSONResponse(document(described))

    described = [
        Described("GET", "/health", health, "Whether it serves; no token"),
        Described("GET", "/metrics", numbers, "Prometheus' text format", media="text/plain"),
        Described("GET", "/openapi.json", openapi, "This description"),
        *routes_openai.routes(core),
        *routes_text.routes(core),
        *routes_messages.routes(core),
        *routes_ollama.routes(core),
        *routes_own.routes(core),
        *routes_adapters.routes(core),
    ]
    return Starlette(
        routes=described,
        middleware=[Middleware(Counted, metrics=metrics)],
        exception_handlers={HTTPException: unrouted},
    )
