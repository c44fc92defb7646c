"""/livez, /readyz and /metrics.

BentoML answers the first two itself, before this app is asked, from the same `fleet.ready`; these
routes describe them, and serve where the app runs under another ASGI server.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from models.errors import Unavailable
from services.front import metrics
from services.inference.fleet import Fleet


def build_router(fleet: Fleet) -> APIRouter:
    """Probes for an orchestrator, metrics for Prometheus, and / for people."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="Is the process alive?", response_class=PlainTextResponse)
    async def livez() -> str:
        return "\n"

    @router.get(
        "/readyz",
        summary="Is the model loaded and warm?",
        response_class=PlainTextResponse,
        responses={503: {"description": "Not yet, or shutting down."}},
    )
    async def readyz() -> str:
        if not fleet.ready:
            raise Unavailable("the model is loading", code="not_ready", retry_after=2)
        return "\n"

    @router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    def prometheus() -> Response:
        return metrics.page()

    @router.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router
