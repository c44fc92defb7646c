"""Open Inference Protocol v2 over HTTP: routes around `Core`; `infer_http` has the hot one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from services.common.problems import RESPONSES
from services.inference.core import VERSION, Core
from services.inference.infer_http import infer_http
from services.inference.oip_codec import HEADER_LENGTH

_BODY = {
    "requestBody": {
        "required": True,
        "description": "The protocol's inference request: JSON, or JSON followed by raw tensors, "
        f"with `{HEADER_LENGTH}` giving the length of the JSON.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "inputs": [
                        {
                            "name": "x",
                            "datatype": "FP32",
                            "shape": [1, 3, 24, 24, 24],
                            "parameters": {"binary_data_size": 165888},
                        }
                    ],
                    "outputs": [
                        {"name": "scores", "parameters": {"binary_data": True}},
                        {"name": "fc", "parameters": {"binary_data": True}},
                    ],
                },
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def build_router(core: Core) -> APIRouter:
    """Routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol v2"])

    @router.get("", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return core.server()

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Is the model loaded and warm?")
    async def ready() -> dict[str, bool]:
        _ = core.fleet.current
        return {"ready": True}

    @router.post("/repository/index", summary="The models in memory, what is served first")
    async def index() -> list[dict[str, str]]:
        return core.index()

    @router.get("/models/{model}", summary="Inputs and outputs of a model")
    @router.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
        return await core.metadata(model, version)

    @router.get("/models/{model}/config", summary="The model's configuration")
    @router.get("/models/{model}/versions/{version}/config", include_in_schema=False)
    async def config(model: str, version: str = VERSION) -> dict[str, Any]:
        return await core.config(model, version)

    @router.get("/models/{model}/ready", summary="Is a model ready?")
    @router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
        await core.host(model, version)
        return {"name": model, "ready": True}

    @router.post(
        "/models/{model}/infer",
        summary="Scores, logits, activations or gradients",
        openapi_extra=_BODY,
        responses=RESPONSES,
    )
    @router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        answer, about = await infer_http(
            core, model, version, request.headers, request.body, request.receive
        )
        return Response(answer, headers=about)

    return router
