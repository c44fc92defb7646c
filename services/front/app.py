"""The front door as one ASGI app: predictions, Open Inference Protocol, explanation jobs, docs.

    Headers -> Metrics -> Shield -> BodyLimits -> FastAPI: inference, explain, this room
                                              or InferRoute, the hot route, past FastAPI

The app is built from a checked bundle without its weights; the lifespan loads those and warms up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from models.bundle.read import Bundle
from services.common.bundles import Bundles
from services.common.limits import BodyLimits
from services.common.logging import configure
from services.common.problems import RESPONSES, Shield, install
from services.common.registry import Registry
from services.common.settings import Settings
from services.explain import api as explain
from services.explain import bulk_api
from services.front import docs, health, metrics
from services.front.headers import SecurityHeaders
from services.front.later import import_the_rest
from services.inference import catalogue, oip, predictions
from services.inference.core import Core
from services.inference.fleet import Fleet
from services.inference.follow import Follower
from services.inference.infer_http import InferRoute
from wire.api import Problem
from wire.upload import PhaseBody, StudyBody

DESCRIPTION = """Classifies liver lesions on multi-phase contrast MRI and shows the reasons in the
radiologist's own words.

* `POST /v1/predictions`: calibrated class probabilities of one lesion, at once.
* `POST /v1/explanations`: the reasons, as a job: features found, their relevance, saliency maps,
  similar lesions, a report.
* `/v2`: Open Inference Protocol, JSON and binary tensors: scores, logits, activations, gradients.
  The same over gRPC, on the next port.

Errors are RFC 9457 problem details with the field, what was found and what was expected. Pickle is
never accepted. **Research software, not a medical device.**"""
TAGS = [
    {"name": "predictions", "description": "One deterministic pass, answered at once."},
    {"name": "explanations", "description": "Jobs: accepted with 202, followed, fetched."},
    {"name": "open inference protocol v2", "description": "For programs: tensors in and out."},
    {"name": "health", "description": "Probes and metrics."},
]


class FrontDoor(FastAPI):
    """FastAPI that keeps the fleet of models, and tells the truth about errors in its schema.

    The hot route passes the same layers of ours as every other, and nothing of FastAPI.
    """

    fleet: Fleet
    core: Core
    infer: ASGIApp
    _described: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if InferRoute.owns(scope):
            await self.infer(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Made anew when another bundle is served: its phases are the fields of an upload."""
        bundle = self.fleet.bundle
        if self.openapi_schema is None or self._described != bundle.hash:
            self.openapi_schema = None
            schema = _shared(super().openapi())
            for path, request_of in _UPLOADS.items():
                schema["paths"][path]["post"].update(request_of(bundle.manifest))
            self.openapi_schema, self._described = schema, bundle.hash
        return self.openapi_schema


_UPLOADS = {
    "/v1/predictions": predictions.request_of,
    "/v1/explanations": explain.request_of,
}


def _shared(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the messages that routes refer to by name; every 422 is a Problem here."""
    known = schema.setdefault("components", {}).setdefault("schemas", {})
    for message in (Problem, PhaseBody, StudyBody):
        known[message.__name__] = message.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        known[message.__name__].pop("$defs", None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "422" in operation["responses"]:
                operation["responses"]["422"] = RESPONSES[422]
    for name in ("HTTPValidationError", "ValidationError"):
        known.pop(name, None)
    return schema


def _grpc(core: Core, settings: Settings) -> AbstractAsyncContextManager[Any]:
    """The gRPC server, imported only where it is wanted: its library costs start time."""
    if settings.grpc is None:
        return nullcontext()
    from services.inference.grpc_server import grpc_server

    return grpc_server(core, settings)


def create_app(bundle: Bundle, settings: Settings) -> FrontDoor:
    """Build the app for a bundle. Loads no weights; its lifespan does.

    Where the settings name the bundle in production, the app follows promotions.
    """
    bundles = Bundles(settings)
    fleet = Fleet(bundle, bundles, settings)
    jobs = explain.open_jobs(settings)  # makes the home, where the ledger's file may lie
    registry = Registry(settings.ledger)
    core = Core(fleet)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure()
        metrics.forget_dead()
        await fleet.load()
        tasks = [asyncio.create_task(import_the_rest())]
        if bundles.follows:
            tasks.append(asyncio.create_task(Follower(fleet, registry).run()))
        try:
            async with _grpc(core, settings):
                yield  # the lifespans of included routers run inside
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await fleet.close()

    app = FrontDoor(
        title="LesionLens",
        version=version("lesionlens"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
    )
    app.fleet = fleet
    app.core = core
    limit = settings.max_body_mb << 20
    app.infer = SecurityHeaders(
        metrics.RequestMetrics(Shield(BodyLimits(InferRoute(core), max_bytes=limit)))
    )
    app.include_router(predictions.build_router(fleet, settings))
    app.include_router(catalogue.build_router(fleet, settings, registry))
    app.include_router(oip.build_router(core))
    app.include_router(explain.build_router(lambda: fleet.bundle, bundles.of, settings, jobs))
    app.include_router(bulk_api.build_router(lambda: fleet.bundle, bundles.of, jobs))
    app.include_router(health.build_router(fleet))
    app.include_router(docs.build_router())
    app.add_middleware(BodyLimits, max_bytes=limit)
    install(app)
    app.add_middleware(metrics.RequestMetrics)
    app.add_middleware(SecurityHeaders)
    return app
