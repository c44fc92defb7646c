"""The front door as one ASGI app: predictions, Open Inference Protocol, explanation jobs, docs.

    Headers -> Metrics -> Shield -> BodyLimits -> routes of inference, explain and this room

The app is built from a checked bundle without its weights; the lifespan loads those and warms up.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from models.bundle.read import Bundle
from services.common.limits import BodyLimits
from services.common.logging import configure
from services.common.problems import RESPONSES, install
from services.common.settings import Settings
from services.explain import api as explain
from services.front import docs, health, metrics
from services.front.headers import SecurityHeaders
from services.inference import oip, predictions
from services.inference.host import ModelHost
from wire.api import Problem
from wire.upload import PhaseBody, StudyBody

DESCRIPTION = """Classifies liver lesions on multi-phase contrast MRI and shows the reasons in the
radiologist's own words.

* `POST /v1/predictions`: calibrated class probabilities of one lesion, at once.
* `POST /v1/explanations`: the reasons, as a job: features found, their influence, saliency maps,
  similar lesions, a report.
* `/v2`: Open Inference Protocol, JSON and binary tensors: scores, logits, activations, gradients.

Errors are RFC 9457 problem details with the field, what was found and what was expected. Pickle is
never accepted. **Research software, not a medical device.**"""
TAGS = [
    {"name": "predictions", "description": "One deterministic pass, answered at once."},
    {"name": "explanations", "description": "Jobs: accepted with 202, followed, fetched."},
    {"name": "open inference protocol v2", "description": "For programs: tensors in and out."},
    {"name": "health", "description": "Probes and metrics."},
]
log = logging.getLogger("lesionlens.front")


class FrontDoor(FastAPI):
    """FastAPI that keeps the model host, and tells the truth about errors in its schema."""

    model_host: ModelHost

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            self.openapi_schema = _shared(super().openapi())
        return self.openapi_schema


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


def create_app(bundle: Bundle, settings: Settings) -> FrontDoor:
    """Build the app for a bundle. Loads no weights; its lifespan does."""
    host = ModelHost(bundle, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure()
        metrics.forget_dead()
        await anyio.to_thread.run_sync(host.load)
        log.info("bundle %s loaded and warm in %.2f s", bundle.hash, host.load_seconds)
        try:
            yield  # the lifespans of included routers run inside
        finally:
            await anyio.to_thread.run_sync(host.close)

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
    app.model_host = host
    app.include_router(predictions.build_router(host, settings))
    app.include_router(oip.build_router(host))
    app.include_router(explain.build_router(bundle, settings))
    app.include_router(health.build_router(host))
    app.include_router(docs.build_router())
    app.add_middleware(BodyLimits, max_bytes=settings.max_body_mb << 20)
    install(app)
    app.add_middleware(metrics.RequestMetrics)
    app.add_middleware(SecurityHeaders)
    return app
