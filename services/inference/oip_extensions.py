"""Extensions of Open Inference Protocol over HTTP: statistics, shared memory, what is not here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, ValidationError

from services.common.problems import invalid
from services.inference.core import VERSION, Core
from services.inference.shared_memory import NotOffered, offered

_ABSENT = {
    "/cudasharedmemory/{rest:path}": "CUDA shared memory",
    "/repository/models/{rest:path}": "loading and unloading models",
    "/trace/setting": "tracing",
    "/models/{model}/trace/setting": "tracing",
    "/logging": "changing the log",
}
INSTEAD = {
    "CUDA shared memory": "tensors in the message, or system shared memory",
    "loading and unloading models": "promotion of a bundle; other bundles load when asked for",
    "tracing": "the metrics at /metrics",
    "changing the log": "the settings of the process",
}


class Registration(BaseModel):
    """A part of a segment in /dev/shm."""

    key: str = Field(description="Name of the segment.")
    offset: int = 0
    byte_size: int


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Registration.model_json_schema()}},
    }
}


def not_offered(what: str) -> NotOffered:
    """The refusal of a verb that this server does not have; one of INSTEAD."""
    return NotOffered(f"{what}: not offered by this server", expected=INSTEAD[what])


def extensions(core: Core) -> APIRouter:
    """Routes to be included under /v2."""
    router = APIRouter()
    memory = "/systemsharedmemory"

    @router.get("/models/{model}/stats", summary="Requests answered, and their time")
    @router.get("/models/{model}/versions/{version}/stats", include_in_schema=False)
    async def statistics(model: str, version: str = VERSION) -> dict[str, Any]:
        return {"model_stats": await core.stats(model, version)}

    @router.get(f"{memory}/status", summary="Shared memory that is registered")
    async def all_regions() -> list[dict[str, Any]]:
        return offered(core.regions).status()

    @router.get(f"{memory}/region/{{name}}/status", summary="One region of shared memory")
    async def region(name: str) -> list[dict[str, Any]]:
        return offered(core.regions).status(name)

    # The body is read by hand: clients of the protocol do not say that it is JSON.
    @router.post(
        f"{memory}/region/{{name}}/register", summary="Register shared memory", openapi_extra=_BODY
    )
    async def register(name: str, request: Request) -> dict[str, Any]:
        regions = offered(core.regions)
        try:
            given = Registration.model_validate_json(await request.body())
        except ValidationError as error:
            raise invalid(error) from None
        regions.register(name, given.key, given.offset, given.byte_size)
        return {}

    @router.post(f"{memory}/region/{{name}}/unregister", summary="Let go of shared memory")
    async def unregister(name: str) -> dict[str, Any]:
        offered(core.regions).unregister(name)
        return {}

    @router.post(f"{memory}/unregister", summary="Let go of all shared memory")
    async def unregister_all() -> dict[str, Any]:
        offered(core.regions).unregister()
        return {}

    for path, what in _ABSENT.items():
        router.add_api_route(
            path, _refusing(what), methods=["GET", "POST"], include_in_schema=False
        )
    return router


def _refusing(what: str) -> Any:
    async def refuse() -> None:
        raise not_offered(what)

    return refuse
