"""Open Inference Protocol v2 over HTTP: health, metadata, and inference on the bundle's two graphs.

`classifier`: x -> scores, logits, every tap and '<tap>_map'.
`gradients`:  x, w_logits, w_<tap> -> grad_input, grad_<tap>; weights that are left out are zero.
A version is a bundle's hash. None, or '1', is the bundle that is served; any other is loaded from
the model store when it is asked for. Metadata, config and answers carry the hash as their version
and as a parameter.
"""

from __future__ import annotations

import json
from importlib.metadata import version as package_version
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from models.errors import NotFound, TooLarge
from models.model import ModelInfo
from services.common.problems import RESPONSES
from services.inference.fleet import Fleet
from services.inference.host import ModelHost
from services.inference.oip_codec import (
    HEADER_LENGTH,
    CodecError,
    InferRequest,
    InferResponse,
    decode_request,
    encode_response,
)

CLASSIFIER, GRADIENTS = "classifier", "gradients"
VERSION = "1"
PLATFORM = "onnxruntime_onnx"
MAX_BATCH = 256
DEFAULT_OUTPUTS = {CLASSIFIER: ("scores", "logits"), GRADIENTS: ("grad_input",)}

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


def build_router(fleet: Fleet) -> APIRouter:
    """Routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol v2"])

    async def opened(model: str, version: str) -> ModelHost:
        """The host that answers; it is this request's to the end."""
        _require_model(model)
        current = fleet.current
        return current if version == VERSION else await fleet.host(version)

    @router.get("", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return {
            "name": "lesionlens",
            "version": package_version("lesionlens"),
            "extensions": ["binary_tensor_data", "model_configuration"],
        }

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Is the model loaded and warm?")
    async def ready() -> dict[str, bool]:
        _ = fleet.current
        return {"ready": True}

    @router.post("/repository/index", summary="The models in memory, what is served first")
    async def index() -> list[dict[str, str]]:
        return [
            {"name": name, "version": bundle, "state": "READY"}
            for bundle in fleet.resident
            for name in (CLASSIFIER, GRADIENTS)
        ]

    @router.get("/models/{model}", summary="Inputs and outputs of a model")
    @router.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def metadata(model: str, version: str = VERSION) -> dict[str, Any]:
        host = await opened(model, version)
        asked = [] if version == VERSION else [host.bundle.hash]
        return {
            "name": model,
            "versions": asked or fleet.resident,
            "platform": PLATFORM,
            "inputs": _tensors(_inputs(model, host.model.info)),
            "outputs": _tensors(host.shapes[model]),
            "parameters": _parameters(host),
        }

    @router.get("/models/{model}/config", summary="The model's configuration")
    @router.get("/models/{model}/versions/{version}/config", include_in_schema=False)
    async def config(model: str, version: str = VERSION) -> dict[str, Any]:
        host = await opened(model, version)
        return {
            "name": model,
            "platform": PLATFORM,
            "max_batch_size": MAX_BATCH,
            "input": _configured(_inputs(model, host.model.info)),
            "output": _configured(host.shapes[model]),
            "parameters": {
                k: {"string_value": json.dumps(v)} for k, v in _parameters(host).items()
            },
        }

    @router.get("/models/{model}/ready", summary="Is a model ready?")
    @router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(model: str, version: str = VERSION) -> dict[str, Any]:
        await opened(model, version)
        return {"name": model, "ready": True}

    @router.post(
        "/models/{model}/infer",
        summary="Scores, logits, activations or gradients",
        openapi_extra=_BODY,
        responses=RESPONSES,
    )
    @router.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: str, version: str = VERSION) -> Response:
        with fleet.admit():
            host = await opened(model, version)
            length = _header_length(request)
            body = await request.body()
            answer, size = await fleet.run(_infer, host, model, body, length)
        if size is None:
            return Response(answer, media_type="application/json")
        return Response(
            answer, media_type="application/octet-stream", headers={HEADER_LENGTH: str(size)}
        )

    return router


def _infer(
    host: ModelHost, model: str, body: bytes, header_length: int | None
) -> tuple[bytes, int | None]:
    """Decode, run, encode: all CPU, all in the pool."""
    request = decode_request(body, header_length)
    info = host.model.info
    names, binary = _asked(request, model, host)
    _check_inputs(request.inputs, _inputs(model, info))
    if model == CLASSIFIER:
        found = host.model.forward(request.inputs["x"], names)
    else:
        weights = {k[2:]: v for k, v in request.inputs.items() if k != "x"}
        every = host.model.gradients(request.inputs["x"], weights)
        found = {name: every[name.removeprefix("grad_")] for name in names}
    return encode_response(
        InferResponse(
            model=model,
            version=info.bundle,
            outputs={name: found[name] for name in names},
            binary=binary,
            id=request.id,
            parameters={"bundle": info.bundle},
        )
    )


def _asked(request: InferRequest, model: str, host: ModelHost) -> tuple[list[str], frozenset[str]]:
    known = host.shapes[model]
    if request.outputs is None:
        names = list(DEFAULT_OUTPUTS[model])
        return names, frozenset(names if request.binary_default else ())
    for wanted in request.outputs:
        if wanted.name not in known:
            raise CodecError(
                "no such output",
                code="unknown_output",
                field="outputs",
                found=wanted.name,
                expected="one of " + ", ".join(known),
            )
    return (
        [wanted.name for wanted in request.outputs],
        frozenset(wanted.name for wanted in request.outputs if wanted.binary),
    )


def _check_inputs(inputs: dict[str, NDArray[np.float32]], known: dict[str, list[int]]) -> None:
    for name, value in inputs.items():
        if name not in known:
            raise CodecError(
                "no such input", code="unknown_input", field=name, expected=", ".join(known)
            )
        expected = known[name]
        if value.ndim != len(expected) or list(value.shape[1:]) != expected[1:] or not len(value):
            raise CodecError(
                "wrong shape",
                code="wrong_shape",
                field=name,
                found=str(list(value.shape)),
                expected=str(expected),
            )
        if not np.isfinite(value).all():
            raise CodecError("NaN or infinite values", code="not_finite", field=name)
    if "x" not in inputs:
        raise CodecError("the input is missing", field="x", expected=f"shape {known['x']}")
    batch = len(inputs["x"])
    if batch > MAX_BATCH:
        raise TooLarge("too many rows", field="x", found=str(batch), expected=f"<= {MAX_BATCH}")
    for name, value in inputs.items():
        if len(value) != batch:
            raise CodecError(
                "the batch sizes differ", field=name, found=str(len(value)), expected=str(batch)
            )


def _inputs(model: str, info: ModelInfo) -> dict[str, list[int]]:
    shapes = {"x": [-1, *info.input_shape]}
    if model == GRADIENTS:
        shapes["w_logits"] = [-1, len(info.classes)]
        shapes |= {f"w_{tap}": [-1, length] for tap, length in info.taps.items()}
    return shapes


def _parameters(host: ModelHost) -> dict[str, Any]:
    info = host.model.info
    return {
        "bundle": info.bundle,
        "classes": list(info.classes),
        "phases": list(info.phases),
        "taps": dict(info.taps),
        "input_shape": list(info.input_shape),
        "temperature": host.bundle.temperature,
    }


def _tensors(shapes: dict[str, list[int]]) -> list[dict[str, Any]]:
    return [{"name": n, "datatype": "FP32", "shape": list(s)} for n, s in shapes.items()]


def _configured(shapes: dict[str, list[int]]) -> list[dict[str, Any]]:
    """As Triton writes them: the batch axis is left out."""
    return [{"name": n, "data_type": "TYPE_FP32", "dims": list(s[1:])} for n, s in shapes.items()]


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise CodecError("not a length", field=HEADER_LENGTH, found=text[:40])
    return int(text)


def _require_model(model: str) -> None:
    if model not in (CLASSIFIER, GRADIENTS):
        raise NotFound(
            "no such model", field="model", found=model[:60], expected=f"{CLASSIFIER}, {GRADIENTS}"
        )
