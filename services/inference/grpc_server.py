"""The gRPC server beside HTTP: same process, same event loop, started and stopped with the app.

port -> GRPCInferenceService (Open Inference Protocol v2), grpc.health.v1
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

from models.errors import LensError
from services.common.settings import Settings
from services.inference.core import Core
from services.inference.grpc_service import InferenceService

log = logging.getLogger("lesionlens.grpc")
SERVICE = "inference.GRPCInferenceService"
GRACE = 3.0  # seconds that calls under way have at the end
_BESIDE = 32  # calls beyond those that the queue takes: health, metadata, streams


@asynccontextmanager
async def grpc_server(core: Core, settings: Settings) -> AsyncIterator[int]:
    """Serve while inside; gives the port. Raises LensError where it cannot listen."""
    server = grpc.aio.server(
        options=[
            # Counted after decompression, so that a compressed bomb is refused as well.
            ("grpc.max_receive_message_length", settings.max_body_mb << 20),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # or two services would share a port without a word
        ],
        maximum_concurrent_rpcs=settings.sessions + settings.queue + _BESIDE,
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceService(core), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc}")
    except RuntimeError:
        raise LensError(
            "cannot listen here",
            code="address_in_use",
            field="LESIONLENS_GRPC_PORT",
            found=f"{host}:{settings.grpc}",
            expected="a free port, or 0 for no gRPC",
        ) from None
    await server.start()
    log.info("gRPC on %s:%d", host, port)
    try:
        yield port
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(GRACE)
