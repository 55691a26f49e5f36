"""Adapters from elsewhere, in our own words, in vLLM's and in llama.cpp's.

vLLM: `/v1/load_lora_adapter`, `/v1/unload_lora_adapter`. llama.cpp's server: `/lora-adapters`.
Knows the shapes of each; what is done, core and switch know.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from acclimate.daemon import history
from acclimate.daemon.completion import BadRequest
from acclimate.daemon.core import Core
from acclimate.daemon.wire import Described, Work, blocking
from acclimate.store import ledger
from acclimate.store.errors import AdapterError, NotFound
from acclimate.store.files import version_name
from acclimate.store.names import NameTaken, check_name

_MAX_VERSION = 2**63 - 1
_Path = Field(min_length=1, max_length=4096)


class NewAdapter(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)

    path: str = _Path
    name: str | None = None

    @field_validator("name")
    @classmethod
    def _allowed(cls, name: str | None) -> str | None:
        return None if name is None else check_name(name)


class Load(BaseModel):
    """vLLM's; its other fields are passed over."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    lora_name: str
    lora_path: str = _Path
    load_inplace: bool = False

    @field_validator("lora_name")
    @classmethod
    def _allowed(cls, name: str) -> str:
        return check_name(name)


class Unload(BaseModel):
    """vLLM's; its other fields are passed over."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    lora_name: str = Field(min_length=1)


class Scaled(BaseModel):
    """llama.cpp's; `id` is the version's number."""

    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True)

    id: int = Field(ge=0, le=_MAX_VERSION)
    scale: float = Field(allow_inf_nan=False)


class Scales(RootModel[list[Scaled]]):
    """Those that are left out have scale 0."""

    def chosen(self) -> str:
        """The one adapter that is wanted, or the base. Raises BadRequest."""
        wanted = {row.id: row.scale for row in self.root}
        used = [number for number, scale in wanted.items() if scale]
        if len(wanted) < len(self.root) or len(used) > 1 or {*wanted.values()} - {0.0, 1.0}:
            raise BadRequest(
                "one adapter at a time can be served, at scale 1; all others have scale 0",
                "two at once, or another scale, cannot be had",
                param="scale",
            )
        # Number 0 is no version, and nothing is called v0000.
        return f"v{used[0]:04d}" if used else history.BASE


def routes(core: Core) -> list[Described]:
    """The routes, over one core."""

    async def take(_request: Request, asked: NewAdapter) -> Response:
        return JSONResponse(await blocking(core.import_adapter, asked.path, asked.name), 201)

    async def load(_request: Request, asked: Load) -> Response:
        try:
            await blocking(
                core.import_adapter, asked.lora_path, asked.lora_name, take_over=asked.load_inplace
            )
        except NameTaken:
            raise BadRequest(
                f"The lora adapter '{asked.lora_name}' has already been loaded. If you want to"
                " load the adapter in place, set 'load_inplace' to True.",
                param="lora_name",
            ) from None
        except AdapterError as error:
            raise BadRequest(error.message, error.hint, param="lora_path") from None
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(_request: Request, asked: Unload) -> Response:
        try:
            await blocking(core.switch.unname, asked.lora_name)
        except NotFound:
            raise NotFound(
                f"The lora adapter '{asked.lora_name[:64]}' cannot be found.", "see: GET /v1/models"
            ) from None
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    async def scales(_request: Request) -> Response:
        return JSONResponse(await blocking(_scales, core))

    async def set_scales(_request: Request, asked: Scales) -> Response:
        await blocking(core.switch.set_live, asked.chosen())
        return JSONResponse({"success": True})

    def plain(path: str, work: Work, says: str, body: type[BaseModel]) -> Described:
        return Described("POST", path, work, says, body=body, media="text/plain")

    return [
        Described("POST", "/v1/adapters", take, "Import an adapter", body=NewAdapter, status=201),
        plain("/v1/load_lora_adapter", load, "Import and name one, as vLLM does", Load),
        plain("/v1/unload_lora_adapter", unload, "Take a name away, as vLLM does", Unload),
        Described("GET", "/lora-adapters", scales, "Adapters, as llama.cpp lists them"),
        Described("POST", "/lora-adapters", set_scales, "Make one of them live", body=Scales),
    ]


def _scales(core: Core) -> list[dict[str, Any]]:
    """Every adapter that is whole; a path is relative to the home."""
    live = ledger.live(core.db)
    return [
        {
            "id": a.version,
            "path": f"adapters/{version_name(a.version)}/{ledger.ADAPTER_FILE}",
            "scale": float(a.version == live),
        }
        for a in ledger.adapters(core.db)
        if a.state == "ok"
    ]
