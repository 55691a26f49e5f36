"""Our routes: search, status, sources, examples, rounds, adapters, feedback, forgetting.

Checks what comes in and hands it to the core; knows nothing of how it is done.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from acclimate.daemon import history
from acclimate.daemon.core import Core
from acclimate.daemon.forgetting import Asked
from acclimate.daemon.wire import answers, blocking, body_of, query_of
from acclimate.store.conversations import plain
from acclimate.store.walk import check_patterns

_MAX_ID = 2**63 - 1
# Of a text by which things are forgotten: a shorter one is in too many.
_SHORTEST_MATCH = 3


class Body(BaseModel):
    """A body of ours: what is not known is refused, and what was sent is in no message."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Nothing(Body):
    """No fields."""


class Search(Body):
    query: str = Field(min_length=1, max_length=10_000)
    k: int = Field(default=5, ge=1, le=100)


class NewSource(Body):
    path: str = Field(min_length=1, max_length=4096)
    kind: Literal["notes", "chat", "code"] = "notes"
    ignore: list[str] = Field(default=[], max_length=1000)

    @model_validator(mode="after")
    def _patterns(self) -> "NewSource":
        check_patterns(self.ignore)
        return self


class OldSource(Body):
    path: str | None = Field(default=None, min_length=1, max_length=4096)
    id: int | None = Field(default=None, ge=1, le=_MAX_ID)

    @model_validator(mode="after")
    def _one(self) -> "OldSource":
        if (self.path is None) == (self.id is None):
            raise ValueError("give either path or id")
        return self


class NewText(Body):
    name: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")
    text: str
    kind: Literal["notes", "chat", "code"] | None = None


class Listing(Body):
    limit: int = Field(default=50, ge=1, le=10_000)


class ExampleListing(Listing):
    state: Literal["pending", "learned", "held-out", "quarantined", "forgotten"] | None = None
    route: Literal["weights", "retrieval", "preference", "dropped"] | None = None


class Version(Body):
    version: str | None = Field(default=None, min_length=1, max_length=40)


class NewFeedback(Body):
    message_id: str | None = Field(default=None, min_length=1, max_length=200)
    rating: Literal["good", "bad", "edit"]
    edit: str | None = Field(default=None, max_length=200_000)


def _named(target: Any) -> Any:
    return str(target) if type(target) is int and target < 10**18 else target


# A path, or the id of an example.
_Target = Annotated[str, Field(min_length=1, max_length=4096), BeforeValidator(_named)]


class Forget(Body):
    target: _Target | None = None
    targets: list[_Target] = Field(default=[], max_length=1000)
    source: _Target | None = None
    matching: str | None = Field(default=None, max_length=10_000)
    dry_run: bool = False
    relearn: bool = True

    @field_validator("matching")
    @classmethod
    def _long(cls, matching: str | None) -> str | None:
        if matching is not None and len(plain(matching)) < _SHORTEST_MATCH:
            raise ValueError(f"a text of at least {_SHORTEST_MATCH} characters")
        return matching

    @model_validator(mode="after")
    def _one(self) -> "Forget":
        given = (self.target, self.targets or None, self.source, self.matching)
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one of target, targets, source, matching")
        return self

    def asked(self) -> Asked:
        targets = self.targets if self.target is None else [self.target]
        return Asked(targets, self.source, self.matching or "", self.dry_run, self.relearn)


def routes(core: Core) -> list[Route]:
    """The routes, over one core."""
    return [*_reading(core), *_learning(core), *_answering(core)]


def _get(path: str, work: Callable[[], Any]) -> Route:
    """A route that takes nothing."""

    async def endpoint(_request: Request) -> Response:
        return JSONResponse(await blocking(work))

    return Route(path, answers(endpoint), methods=["GET"])


def _reading(core: Core) -> list[Route]:
    async def search(request: Request) -> Response:
        asked = query_of(request, Search) if request.method == "GET" else None
        asked = asked or await body_of(request, Search)
        hits = await blocking(core.search, asked.query, asked.k)
        return JSONResponse({"query": asked.query, "hits": hits})

    async def add_source(request: Request) -> Response:
        asked = await body_of(request, NewSource)
        added = await blocking(core.add_source, asked.path, asked.kind, asked.ignore)
        return JSONResponse(added, 201)

    async def remove_source(request: Request) -> Response:
        asked = await body_of(request, OldSource)
        return JSONResponse(await blocking(core.remove_source, asked.path, asked.id))

    async def add_text(request: Request) -> Response:
        asked = await body_of(request, NewText)
        return JSONResponse(await blocking(core.add_text, asked.name, asked.text, asked.kind), 201)

    async def examples(request: Request) -> Response:
        asked = query_of(request, ExampleListing)
        found = await blocking(core.examples, asked.state, asked.limit, asked.route)
        return JSONResponse({"examples": found})

    async def quarantined(request: Request) -> Response:
        asked = query_of(request, Listing)
        return JSONResponse({"quarantined": await blocking(core.quarantined, asked.limit)})

    async def forget(request: Request) -> Response:
        wanted = await body_of(request, Forget)
        return JSONResponse(await blocking(core.forget, wanted.asked()))

    async def receipts(request: Request) -> Response:
        asked = query_of(request, Listing)
        return JSONResponse({"receipts": await blocking(core.receipts, asked.limit)})

    async def receipt(request: Request) -> Response:
        return JSONResponse(await blocking(core.receipt, request.path_params["receipt"]))

    return [
        Route("/v1/search", answers(search), methods=["GET", "POST"]),
        _get("/v1/status", core.status),
        _get("/v1/sources", lambda: {"sources": core.sources()}),
        Route("/v1/sources", answers(add_source), methods=["POST"]),
        Route("/v1/sources", answers(remove_source), methods=["DELETE"]),
        Route("/v1/examples", answers(add_text), methods=["POST"]),
        Route("/v1/examples", answers(examples), methods=["GET"]),
        Route("/v1/quarantine", answers(quarantined), methods=["GET"]),
        Route("/v1/forget", answers(forget), methods=["POST"]),
        Route("/v1/receipts", answers(receipts), methods=["GET"]),
        Route("/v1/receipts/{receipt:int}", answers(receipt), methods=["GET"]),
    ]


def _learning(core: Core) -> list[Route]:
    async def rounds(request: Request) -> Response:
        asked = query_of(request, Listing)
        return JSONResponse({"rounds": await blocking(core.rounds_list, asked.limit)})

    async def start_round(request: Request) -> Response:
        await body_of(request, Nothing)
        return JSONResponse(await blocking(core.start_round), 202)

    async def one_round(request: Request) -> Response:
        return JSONResponse(await blocking(core.round, request.path_params["round"]))

    async def cancel_round(request: Request) -> Response:
        await body_of(request, Nothing)
        return JSONResponse(await blocking(core.cancel_round, request.path_params["round"]))

    async def adapters(request: Request) -> Response:
        asked = query_of(request, Listing)
        return JSONResponse(await blocking(history.history, core.db, asked.limit))

    async def adapter(request: Request) -> Response:
        return JSONResponse(await blocking(history.show, core.db, request.path_params["version"]))

    async def diff(request: Request) -> Response:
        names = request.path_params["a"], request.path_params["b"]
        return JSONResponse(await blocking(history.diff, core.db, *names))

    async def set_live(request: Request) -> Response:
        asked = await body_of(request, Version)
        return JSONResponse(await blocking(core.switch.set_live, asked.version))

    async def pin(request: Request) -> Response:
        asked = await body_of(request, Version)
        return JSONResponse(await blocking(core.switch.pin, asked.version))

    return [
        Route("/v1/rounds", answers(rounds), methods=["GET"]),
        Route("/v1/rounds", answers(start_round), methods=["POST"]),
        Route("/v1/rounds/{round:int}", answers(one_round), methods=["GET"]),
        Route("/v1/rounds/{round:int}/cancel", answers(cancel_round), methods=["POST"]),
        Route("/v1/adapters", answers(adapters), methods=["GET"]),
        Route("/v1/adapters/live", answers(set_live), methods=["POST"]),
        Route("/v1/adapters/pin", answers(pin), methods=["POST"]),
        _delete("/v1/adapters/pin", core.switch.unpin),
        Route("/v1/adapters/{version}", answers(adapter), methods=["GET"]),
        Route("/v1/adapters/{a}/diff/{b}", answers(diff), methods=["GET"]),
    ]


def _delete(path: str, work: Callable[[], Any]) -> Route:
    async def endpoint(_request: Request) -> Response:
        return JSONResponse(await blocking(work))

    return Route(path, answers(endpoint), methods=["DELETE"])


def _answering(core: Core) -> list[Route]:
    async def rate(request: Request) -> Response:
        asked = await body_of(request, NewFeedback)
        given = await blocking(core.add_feedback, asked.message_id, asked.rating, asked.edit)
        return JSONResponse(given, 201)

    async def feedback(request: Request) -> Response:
        asked = query_of(request, Listing)
        return JSONResponse({"feedback": await blocking(core.feedback, asked.limit)})

    return [
        Route("/v1/feedback", answers(rate), methods=["POST"]),
        Route("/v1/feedback", answers(feedback), methods=["GET"]),
    ]
