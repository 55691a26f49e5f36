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

from acclimate.daemon import history
from acclimate.daemon.core import Core
from acclimate.daemon.forgetting import Asked
from acclimate.daemon.wire import Described, blocking
from acclimate.store.conversations import plain
from acclimate.store.walk import check_patterns

_MAX_ID = 2**63 - 1
# Of a text by which things are forgotten: a shorter one is in too many.
_SHORTEST_MATCH = 3


class Body(BaseModel):
    """A body of ours: what is not known is refused, and what was sent is in no message."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)


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


def routes(core: Core) -> list[Described]:
    """The routes, over one core."""
    return [*_reading(core), *_learning(core), *_answering(core)]


def _plain(method: str, path: str, work: Callable[[], Any], says: str) -> Described:
    """A route that takes nothing."""

    async def answered(_request: Request) -> Response:
        return JSONResponse(await blocking(work))

    return Described(method, path, answered, says)


def _reading(core: Core) -> list[Described]:
    async def search(_request: Request, asked: Search) -> Response:
        hits = await blocking(core.search, asked.query, asked.k)
        return JSONResponse({"query": asked.query, "hits": hits})

    async def add_source(_request: Request, asked: NewSource) -> Response:
        added = await blocking(core.add_source, asked.path, asked.kind, asked.ignore)
        return JSONResponse(added, 201)

    async def remove_source(_request: Request, asked: OldSource) -> Response:
        return JSONResponse(await blocking(core.remove_source, asked.path, asked.id))

    async def add_text(_request: Request, asked: NewText) -> Response:
        return JSONResponse(await blocking(core.add_text, asked.name, asked.text, asked.kind), 201)

    async def examples(_request: Request, asked: ExampleListing) -> Response:
        found = await blocking(core.examples, asked.state, asked.limit, asked.route)
        return JSONResponse({"examples": found})

    async def quarantined(_request: Request, asked: Listing) -> Response:
        return JSONResponse({"quarantined": await blocking(core.quarantined, asked.limit)})

    async def forget(_request: Request, wanted: Forget) -> Response:
        return JSONResponse(await blocking(core.forget, wanted.asked()))

    async def receipts(_request: Request, asked: Listing) -> Response:
        return JSONResponse({"receipts": await blocking(core.receipts, asked.limit)})

    async def receipt(request: Request) -> Response:
        return JSONResponse(await blocking(core.receipt, request.path_params["receipt"]))

    return [
        Described("GET", "/v1/search", search, "Passages of what was read", query=Search),
        Described("POST", "/v1/search", search, "Passages of what was read", body=Search),
        _plain("GET", "/v1/status", core.status, "What it is doing"),
        _plain("GET", "/v1/sources", lambda: {"sources": core.sources()}, "Watched folders"),
        Described("POST", "/v1/sources", add_source, "Watch a folder", body=NewSource, status=201),
        Described("DELETE", "/v1/sources", remove_source, "Watch it no longer", body=OldSource),
        Described("POST", "/v1/examples", add_text, "Hand over a text", body=NewText, status=201),
        Described("GET", "/v1/examples", examples, "The latest examples", query=ExampleListing),
        Described("GET", "/v1/quarantine", quarantined, "Lines of no use", query=Listing),
        Described("POST", "/v1/forget", forget, "Take something back", body=Forget),
        Described("GET", "/v1/receipts", receipts, "What was forgotten", query=Listing),
        Described("GET", "/v1/receipts/{receipt:int}", receipt, "One receipt"),
    ]


def _learning(core: Core) -> list[Described]:
    async def rounds(_request: Request, asked: Listing) -> Response:
        return JSONResponse({"rounds": await blocking(core.rounds_list, asked.limit)})

    async def start_round(_request: Request, _asked: Nothing) -> Response:
        return JSONResponse(await blocking(core.start_round), 202)

    async def one_round(request: Request) -> Response:
        return JSONResponse(await blocking(core.round, request.path_params["round"]))

    async def cancel_round(request: Request, _asked: Nothing) -> Response:
        return JSONResponse(await blocking(core.cancel_round, request.path_params["round"]))

    async def adapters(_request: Request, asked: Listing) -> Response:
        return JSONResponse(await blocking(history.history, core.db, asked.limit))

    async def adapter(request: Request) -> Response:
        return JSONResponse(await blocking(history.show, core.db, request.path_params["version"]))

    async def diff(request: Request) -> Response:
        names = request.path_params["a"], request.path_params["b"]
        return JSONResponse(await blocking(history.diff, core.db, *names))

    async def set_live(_request: Request, asked: Version) -> Response:
        return JSONResponse(await blocking(core.switch.set_live, asked.version))

    async def pin(_request: Request, asked: Version) -> Response:
        return JSONResponse(await blocking(core.switch.pin, asked.version))

    return [
        Described("GET", "/v1/rounds", rounds, "The latest rounds", query=Listing),
        Described("POST", "/v1/rounds", start_round, "Start a round", body=Nothing, status=202),
        Described("GET", "/v1/rounds/{round:int}", one_round, "One round"),
        Described("POST", "/v1/rounds/{round:int}/cancel", cancel_round, "End it", body=Nothing),
        Described("GET", "/v1/adapters", adapters, "The history of adapters", query=Listing),
        Described("POST", "/v1/adapters/live", set_live, "Make one live", body=Version),
        Described("POST", "/v1/adapters/pin", pin, "Make one live for good", body=Version),
        _plain("DELETE", "/v1/adapters/pin", core.switch.unpin, "Let live move again"),
        Described("GET", "/v1/adapters/{version}", adapter, "One adapter and its card"),
        Described("GET", "/v1/adapters/{a}/diff/{b}", diff, "What one has that the other has not"),
    ]


def _answering(core: Core) -> list[Described]:
    async def rate(_request: Request, asked: NewFeedback) -> Response:
        given = await blocking(core.add_feedback, asked.message_id, asked.rating, asked.edit)
        return JSONResponse(given, 201)

    async def feedback(_request: Request, asked: Listing) -> Response:
        return JSONResponse({"feedback": await blocking(core.feedback, asked.limit)})

    return [
        Described("POST", "/v1/feedback", rate, "Rate a reply", body=NewFeedback, status=201),
        Described("GET", "/v1/feedback", feedback, "What was said of replies", query=Listing),
    ]
