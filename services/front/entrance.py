"""The outermost ASGI app: which requests BentoML's own stack sees.

    start and end, /livez, /readyz, /healthz --> BentoML's app
    every other request                      --> ours, at once

BentoML wraps each request in layers of which we use none (tracing, context), and in a timeout whose
timer is kept for its whole length after the answer: a leak under load. Its routes were never within
reach of clients, and are not now.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = frozenset({"/livez", "/readyz", "/healthz"})


class Entrance:
    """bento: the app that BentoML builds around its service. app: what clients talk to."""

    def __init__(self, bento: ASGIApp, app: ASGIApp) -> None:
        self._bento = bento
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bentos = scope["type"] == "lifespan" or scope["path"] in HEALTH
        await (self._bento if bentos else self._app)(scope, receive, send)
