"""JSON over HTTP: bodies checked field by field, blocking work off the loop, errors as OpenAI's.

Knows how a route is described, and no route.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
import structlog
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from acclimate.daemon.completion import BadRequest
from acclimate.daemon.core import NotRunning
from acclimate.daemon.engine import Busy
from acclimate.store.errors import (
    AcclimateError,
    AdapterError,
    ConfigError,
    Detached,
    EngineError,
    HomeError,
    ModelError,
    NotFound,
    RoundError,
    SourceError,
    StoreError,
)

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[AcclimateError], Response]
Work = Callable[..., Awaitable[Response]]  # of a request and, where it has one, its body or query

# status and code of each kind; the first that fits counts.
_KINDS: tuple[tuple[type[AcclimateError], int, str], ...] = (
    (BadRequest, 400, "invalid_request"),
    (ConfigError, 400, "config_error"),
    (SourceError, 400, "source_error"),
    (NotFound, 404, "not_found"),
    (RoundError, 409, "round_error"),
    (AdapterError, 409, "adapter_error"),
    (Busy, 429, "busy"),
    (NotRunning, 503, "daemon_not_running"),
    (EngineError, 503, "engine_error"),
    (ModelError, 503, "model_error"),
    (Detached, 503, "detached"),
    (HomeError, 503, "home_error"),
    (StoreError, 503, "store_error"),
)
_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}
# Each thread keeps a database connection: enough for searches beside each other, not forty.
_THREADS = 8
_limiter: anyio.CapacityLimiter | None = None


async def blocking(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread, so that the loop goes on serving streams."""
    global _limiter
    if _limiter is None:
        _limiter = anyio.CapacityLimiter(_THREADS)
    return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs), limiter=_limiter)


async def body_of(request: Request, model: type[Model]) -> Model:
    """The request's JSON as a model. Raises BadRequest that names the first wrong field."""
    data = await request.body()
    return checked(lambda: model.model_validate_json(data or b"{}"))


def query_of(request: Request, model: type[Model]) -> Model:
    """The query's parameters as a model. Raises BadRequest."""
    return checked(lambda: model.model_validate(dict(request.query_params)))


def checked(validate: Callable[[], Model]) -> Model:
    """What `validate` gives. Raises BadRequest in place of pydantic's error."""
    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        what = first["msg"].removeprefix("Value error, ")
        raise BadRequest(f"{param}: {what}" if param else what, param=param) from None


def answers(endpoint: Endpoint, refuse: Refuse | None = None) -> Endpoint:
    """The endpoint, with every error as a JSON body, OpenAI's unless `refuse` makes another; never
    a page, never a trace."""
    refuse = refuse or refusal

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except AcclimateError as error:
            return refuse(error)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except sqlite3.Error as error:
            log.error("database_failed", path=request.url.path, error=str(error))
            return refuse(StoreError(f"the database cannot be read: {error}", "check the drive"))
        except Exception:
            log.exception("request_failed", path=request.url.path)
            return refuse(AcclimateError("something went wrong inside", "the log says more"))

    return answered


class Described(Route):
    """A route that says what it does and takes, which `openapi` tells clients.

    `work` gets the request and, checked, its `body` or `query`. `status` is that of success,
    `media` what it answers with, `streams` what it may be asked to stream; `refuse` makes answers
    of errors.
    """

    def __init__(
        self,
        method: str,
        path: str,
        work: Work,
        says: str,
        *,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        status: int = 200,
        media: str = "application/json",
        streams: str | None = None,
        refuse: Refuse | None = None,
    ) -> None:
        self.method, self.says, self.body, self.query = method, says, body, query
        self.status, self.media = status, [media, streams] if streams else [media]

        async def endpoint(request: Request) -> Response:
            if body is not None:
                return await work(request, await body_of(request, body))
            if query is not None:
                return await work(request, query_of(request, query))
            return await work(request)

        super().__init__(path, answers(endpoint, refuse), methods=[method])


def error_body(error: AcclimateError) -> tuple[int, dict[str, Any]]:
    """Status and body of an error."""
    status, code = 500, "internal_error"
    for kind, its_status, its_code in _KINDS:
        if isinstance(error, kind):
            status, code = its_status, its_code
            break
    if isinstance(error, BadRequest):
        code = error.code or code
    return status, {
        "error": {
            "message": error.message,
            "type": _TYPES.get(status, "server_error"),
            "param": getattr(error, "param", None),
            "code": code,
            "hint": error.hint,
        }
    }


def refusal(error: AcclimateError, body: Mapping[str, Any] | None = None) -> JSONResponse:
    """The answer for an error, with OpenAI's body unless another is given."""
    status, ours = error_body(error)
    headers = {"retry-after": "1"} if isinstance(error, Busy) else None
    return JSONResponse(ours if body is None else body, status, headers)


async def unrouted(_request: Request, error: Exception) -> Response:
    """The answer where no route fits: 404 and 405."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers: Mapping[str, str] | None = getattr(error, "headers", None)
    known = {
        404: ("no such route", "not_found"),
        405: ("no such method here", "method_not_allowed"),
    }
    message, code = known.get(status, ("something went wrong inside", "internal_error"))
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": None, "code": code, "hint": ""}
    return JSONResponse({"error": body}, status, headers)
