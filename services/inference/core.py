"""Open Inference Protocol v2 without a transport: health, metadata, inference on what is served.

    REST (oip) --\
                  > Core: version -> host, checks --> scheduler --> Served.run
    gRPC       --/

A version is a bundle's hash. None, or '1', is the bundle that is served; any other is loaded from
the model store when it is asked for. Metadata, config and answers carry the hash as their version
and as a parameter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version as package_version
from typing import Any

import numpy as np

from models.errors import LensError, NotFound, TooLarge
from services.inference.fleet import Fleet
from services.inference.host import ModelHost
from services.inference.oip_codec import CodecError, InferRequest, InferResponse
from services.inference.served import SERVED, Served, Tensors
from services.inference.shared_memory import Regions
from services.inference.statistics import Statistics
from services.inference.terms import work_of

VERSION = "1"
PLATFORM = "onnxruntime_onnx"
MAX_BATCH = 256
EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
]


class Core:
    """The protocol's verbs. Belongs to the event loop's thread, as its fleet does."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.regions = Regions() if fleet.settings.shared_memory else None
        self.statistics = Statistics()

    def server(self) -> dict[str, Any]:
        """Server metadata."""
        return {
            "name": "lesionlens",
            "version": _version(),
            "extensions": [*EXTENSIONS, *(["system_shared_memory"] if self.regions else [])],
        }

    def index(self) -> list[dict[str, str]]:
        """The models in memory, what is served first."""
        return [
            {"name": name, "version": bundle, "state": "READY"}
            for bundle in self.fleet.resident
            for name in SERVED
        ]

    async def host(self, model: str, version: str) -> tuple[Served, ModelHost]:
        """What answers, this request's to the end. Raises NotFound, Unavailable, BundleError."""
        served = SERVED.get(model)
        if served is None:
            raise NotFound(
                "no such model", field="model", found=model[:60], expected=", ".join(SERVED)
            )
        current = self.fleet.current
        return served, current if version in ("", VERSION) else await self.fleet.host(version)

    async def metadata(self, model: str, version: str) -> dict[str, Any]:
        served, host = await self.host(model, version)
        asked = [] if version in ("", VERSION) else [host.bundle.hash]
        return {
            "name": model,
            "versions": asked or self.fleet.resident,
            "platform": PLATFORM,
            "inputs": _tensors(served.inputs(host)),
            "outputs": _tensors(served.outputs(host)),
            "parameters": parameters(host),
        }

    async def config(self, model: str, version: str) -> dict[str, Any]:
        """As Triton writes it: the batch axis is left out of the dims."""
        served, host = await self.host(model, version)
        return {
            "name": model,
            "platform": PLATFORM,
            "max_batch_size": MAX_BATCH,
            "input": _configured(served.inputs(host)),
            "output": _configured(served.outputs(host)),
            "parameters": {k: {"string_value": json.dumps(v)} for k, v in parameters(host).items()},
        }

    async def stats(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """Of one model, or of all; of the bundles in memory, or of one."""
        resident = self.fleet.resident
        self.statistics.forget(resident)
        if model:
            _, host = await self.host(model, version)
            resident = resident if version in ("", VERSION) else [host.bundle.hash]
        return [
            self.statistics.entry(name, bundle)
            for name in ([model] if model else SERVED)
            for bundle in resident
        ]

    async def answer(
        self, model: str, version: str, request: InferRequest, deadline: float | None = None
    ) -> InferResponse:
        """`infer`, counted."""
        started = time.perf_counter_ns()
        try:
            response = await self.infer(model, version, request, deadline)
        except LensError:
            bundle = self.fleet.bundle.hash if version in ("", VERSION) else version
            if model in SERVED and bundle in self.fleet.resident:
                self.statistics.failed(model, bundle, started)
            raise
        self.statistics.answered(model, response.version, request.inputs, started)
        return response

    async def infer(
        self, model: str, version: str, request: InferRequest, deadline: float | None = None
    ) -> InferResponse:
        """Check and run. The caller holds a place from `fleet.admit`. Raises LensError.

        deadline: the transport's, in seconds of time.monotonic(), beside the request's `timeout`.
        """
        served, host = await self.host(model, version)
        names, binary = asked(request, served, host)
        precision = served.precision(host, request.parameters)
        check_inputs(request.inputs, served.inputs(host), served.required)
        work = work_of(served, host, request.inputs, names, request.parameters, deadline)
        found = await self.fleet.run(
            served.run, host, request.inputs, names, request.parameters, work=work
        )
        return InferResponse(
            model=model,
            version=host.bundle.hash,
            outputs={name: found[name] for name in names},
            binary=binary,
            id=request.id,
            parameters={"bundle": host.bundle.hash, "precision": precision},
            wanted={name: request.wanted(name) for name in names},
            labels=host.model.info.classes,
        )


@cache
def _version() -> str:
    return package_version("lesionlens")


def parameters(host: ModelHost) -> dict[str, Any]:
    """What a bundle says of itself beside its tensors."""
    info = host.model.info
    return {
        "bundle": info.bundle,
        "classes": list(info.classes),
        "phases": list(info.phases),
        "taps": dict(info.taps),
        "input_shape": list(info.input_shape),
        "temperature": host.bundle.temperature,
        "preprocessing": host.bundle.preprocessing.model_dump(mode="json"),
        "passes": host.bundle.recipe.model_dump(mode="json"),
    }


def asked(
    request: InferRequest, served: Served, host: ModelHost
) -> tuple[list[str], frozenset[str]]:
    """Outputs to give, and those of them to give as bytes. Raises CodecError."""
    if request.outputs is None:
        names = list(served.default)
        return names, frozenset(names if request.binary_default else ())
    known = served.outputs(host)
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


def check_inputs(
    inputs: Tensors, known: Mapping[str, Sequence[int]], required: Sequence[str]
) -> None:
    """Names, shapes, finite values, one batch size. Raises CodecError, TooLarge."""
    for name, value in inputs.items():
        if name not in known:
            raise CodecError(
                "no such input", code="unknown_input", field=name, expected=", ".join(known)
            )
        expected = known[name]
        rows = len(value) if value.ndim else 0
        fits = rows == expected[0] if expected[0] > 0 else rows > 0
        if value.ndim != len(expected) or value.shape[1:] != tuple(expected[1:]) or not fits:
            raise CodecError(
                "wrong shape",
                code="wrong_shape",
                field=name,
                found=str(list(value.shape)),
                expected=str(list(expected)),
            )
        if not np.isfinite(value).all():
            raise CodecError("NaN or infinite values", code="not_finite", field=name)
    for name in required:
        if name not in inputs:
            raise CodecError(
                "the input is missing", field=name, expected=f"shape {list(known[name])}"
            )
    # Inputs of one row serve the whole batch.
    many = [name for name in (*required, *inputs) if known[name][0] < 0]
    if not many:
        return
    batch = len(inputs[many[0]])
    if batch > MAX_BATCH:
        raise TooLarge("too many rows", field=many[0], found=str(batch), expected=f"<= {MAX_BATCH}")
    for name in many:
        if len(inputs[name]) != batch:
            raise CodecError(
                "the batch sizes differ",
                field=name,
                found=str(len(inputs[name])),
                expected=str(batch),
            )


def _tensors(shapes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    return [{"name": n, "datatype": "FP32", "shape": list(s)} for n, s in shapes.items()]


def _configured(shapes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    return [{"name": n, "data_type": "TYPE_FP32", "dims": list(s[1:])} for n, s in shapes.items()]
