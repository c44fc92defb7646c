"""Open Inference Protocol v2 over gRPC: the verbs of GRPCInferenceService around `Core`.

Runs in the event loop of the HTTP server and shares its queue, models and shared memory. A client
that leaves, or whose deadline passes, cancels its handler, which gives its place back.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf import json_format
from prometheus_client import Counter, Histogram
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from models.errors import LensError, NotFound, Unavailable
from services.inference.core import Core
from services.inference.grpc_codec import decode, encode
from services.inference.grpc_errors import INSIDE, code_of, refuse
from services.inference.grpc_stream import answered
from services.inference.oip_extensions import not_offered
from services.inference.oip_http import aside, decoding, encoding
from services.inference.shared_memory import offered

log = logging.getLogger("lesionlens.grpc")
pb: Any = service_pb2

REQUESTS = Counter("lesionlens_grpc_requests", "gRPC calls answered.", ["verb", "code"])
SECONDS = Histogram(
    "lesionlens_grpc_request_seconds",
    "From the request to the end of the answer.",
    ["verb"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_ABSENT = {
    "CudaSharedMemoryStatus": "CUDA shared memory",
    "CudaSharedMemoryRegister": "CUDA shared memory",
    "CudaSharedMemoryUnregister": "CUDA shared memory",
    "RepositoryModelLoad": "loading and unloading models",
    "RepositoryModelUnload": "loading and unloading models",
    "TraceSetting": "tracing",
    "LogSettings": "changing the log",
}
Verb = Callable[["InferenceService", Any, Any], Awaitable[Any]]


def _unary(verb: Verb) -> Verb:
    """Counted; a LensError becomes a status, anything unexpected is logged and tells nothing."""

    @functools.wraps(verb)
    async def call(self: InferenceService, request: Any, context: Any) -> Any:
        code = grpc.StatusCode.CANCELLED
        start = time.perf_counter()
        try:
            answer = await verb(self, request, context)
            code = grpc.StatusCode.OK
            return answer
        except LensError as error:
            code = code_of(error)
            if code is grpc.StatusCode.INTERNAL:
                log.error("%s: %s", verb.__name__, error.line)
            await refuse(context, error)
        except Exception:
            code = grpc.StatusCode.INTERNAL
            log.exception("%s failed", verb.__name__)
            await context.abort(code, INSIDE)
        finally:
            REQUESTS.labels(verb.__name__, code.name).inc()
            SECONDS.labels(verb.__name__).observe(time.perf_counter() - start)

    return call


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One object for all calls; belongs to the event loop's thread."""

    def __init__(self, core: Core) -> None:
        self.core = core

    @_unary
    async def ServerLive(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    @_unary
    async def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=self.core.fleet.ready)

    @_unary
    async def ModelReady(self, request: Any, context: Any) -> Any:
        try:
            await self.core.host(request.name, request.version)
        except (NotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    @_unary
    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(**self.core.server())

    @_unary
    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        found = await self.core.metadata(request.name, request.version)
        found.pop("parameters")  # has no place here; ModelConfig carries them
        return pb.ModelMetadataResponse(**found)

    @_unary
    async def ModelConfig(self, request: Any, context: Any) -> Any:
        found = await self.core.config(request.name, request.version)
        config = json_format.ParseDict(found, model_config_pb2.ModelConfig())
        return pb.ModelConfigResponse(config=config)

    @_unary
    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        return pb.RepositoryIndexResponse(models=self.core.index())

    @_unary
    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        found = {"model_stats": await self.core.stats(request.name, request.version)}
        return json_format.ParseDict(found, pb.ModelStatisticsResponse())

    @_unary
    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        regions = {r["name"]: r for r in offered(self.core.regions).status(request.name)}
        return pb.SystemSharedMemoryStatusResponse(regions=regions)

    @_unary
    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        regions = offered(self.core.regions)
        regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    @_unary
    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        offered(self.core.regions).unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @_unary
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        with self.core.fleet.admit():
            return await self._infer(request, context)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> Any:
        """Answers in the order of the requests; a fault of one is told in its answer."""
        start = time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        try:
            limit = 2 * self.core.fleet.settings.sessions
            answers = answered(requests, lambda r: self._one(r, context), limit)
            async with aclosing(answers):
                async for answer in answers:
                    yield answer
            code = grpc.StatusCode.OK
        finally:
            REQUESTS.labels("ModelStreamInfer", code.name).inc()
            SECONDS.labels("ModelStreamInfer").observe(time.perf_counter() - start)

    async def _infer(self, request: Any, context: Any) -> Any:
        regions, seconds = self.core.regions, context.time_remaining()
        limit = self.core.fleet.settings.max_body_mb << 20
        await self.core.host(request.model_name, request.model_version)
        cost = decoding(request.ByteSize(), binary=bool(request.raw_input_contents))
        asked = await aside(cost, lambda: decode(request, seconds, regions, limit))
        found = await self.core.answer(request.model_name, request.model_version, asked)
        return await aside(encoding(found), lambda: encode(found, regions))

    async def _one(self, request: Any, context: Any) -> Any:
        """One request of a stream. Where the queue is full it waits: its stream is held back."""
        try:
            while True:
                try:
                    with self.core.fleet.admit():
                        answer = await self._infer(request, context)
                    break
                except Unavailable as error:
                    if error.code != "queue_full":
                        raise
                await asyncio.sleep(_PAUSE)
            answer.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=answer)
        except LensError as error:
            line = " ".join(error.line.split())
        except Exception:
            log.exception("ModelStreamInfer failed")
            line = INSIDE
        about = pb.ModelInferResponse(
            id=request.id, model_name=request.model_name, model_version=request.model_version
        )
        return pb.ModelStreamInferResponse(error_message=line, infer_response=about)


_PAUSE = 0.02  # seconds between two looks at a full queue


def _refusing(name: str, what: str) -> Verb:
    async def verb(self: InferenceService, request: Any, context: Any) -> Any:
        raise not_offered(what)

    verb.__name__ = name
    return _unary(verb)


for _name, _what in _ABSENT.items():
    setattr(InferenceService, _name, _refusing(_name, _what))
